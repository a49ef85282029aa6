"""``render-monitor``: files to install, with which Prometheus monitors a cluster through this tool.

The files are a systemd service that writes the metrics for node_exporter's textfile collector, its
timer, and alert rules. They are for the machine and the user that render them, because these can
reach the hosts.
"""

from __future__ import annotations

import getpass
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import provision
from provision.dataclass import dataclass
from provision.errors import UsageError
from provision.inventory.resolved import Inventory
from provision.render import render


@dataclass(frozen=True, slots=True)
class Monitor:
    """The files by name, the user of the service, and the place of the metrics."""

    name: str
    user: str
    output: Path
    files: Mapping[str, bytes]


def render_files(inventory: Inventory, every: float, textfiles: str) -> Monitor:
    """The files for ``inventory``; ``every`` is the seconds from the end of a look to the next one.

    Raises :class:`UsageError` for a path that systemd cannot take.
    """
    name = f"alluxio-check-{inventory.cluster}"
    output = Path(textfiles).absolute() / f"alluxio-{inventory.cluster}.prom"
    directory, program = _program()
    user = getpass.getuser()
    command = [
        *program,
        *("check-nodes", "--inventory", str(inventory.path.absolute())),
        *("--format", "prometheus", "--output", str(output)),
    ]
    service = render(
        "alluxio-check.service",
        cluster=inventory.cluster,
        user=user,
        directory=_path(directory),
        command=" ".join(map(_word, command)),
        environment=f"/etc/alluxio-provision/{inventory.cluster}.env",
    )
    timer = render("alluxio-check.timer", cluster=inventory.cluster, every=f"{every:g}")
    rules = render("alluxio-check.rules.yml", cluster=inventory.cluster, stale=int(5 * every + 60))
    files = {f"{name}.service": service, f"{name}.timer": timer, f"{name}.rules.yml": rules}
    return Monitor(name, user, output, files)


def instructions(made: Monitor, folder: Path) -> list[str]:
    """The commands, to be run as root, that install the files in ``folder``."""
    units = " ".join(
        shlex.quote(str(folder / f"{made.name}.{kind}")) for kind in ("service", "timer")
    )
    where, user = shlex.quote(str(made.output.parent)), shlex.quote(made.user)
    return [
        "to install them, as root:",
        f"  install -d -o {user} -m 0755 {where}",
        f"  install -m 0644 {units} /etc/systemd/system/",
        f"  systemctl daemon-reload && systemctl enable --now {made.name}.timer",
        f"and give {made.name}.rules.yml to Prometheus as one of its rule_files",
    ]


def _program() -> tuple[Path, Sequence[str]]:
    """How to run this program again: the directory, and the words of the command line."""
    checkout = Path(provision.__file__).parent.parent
    if (checkout / "tasks.py").exists():
        return checkout, [sys.executable, "-m", "invoke"]
    return Path("/"), [str(Path(sys.argv[0]).absolute())]


def _path(path: Path) -> str:
    _word(str(path))
    return str(path).replace("%", "%%")


def _word(text: str) -> str:
    """``text`` as one word of ``ExecStart=`` (systemd.service(5), systemd.unit(5))."""
    if not text.isprintable():
        raise UsageError(f"systemd does not accept this path: {text!r}", id="option-invalid")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
