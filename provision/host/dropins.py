"""Drop-ins of this tool's units that run another command.

A file ``NAME.service.d/*.conf`` changes a unit, wherever the unit's own file is (systemd.unit(5)).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from provision.host.facts import Command

#: Where systemd looks; the first folder wins (systemd.unit(5), "System Unit Search Path").
_FOLDERS = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
_LABEL = "drop-ins of "


def label(unit: str) -> str:
    """The label of :func:`command` among the commands of a probe."""
    return f"{_LABEL}{unit}"


def command(unit: str) -> str:
    """A shell command that prints every drop-in of ``unit``, in systemd's order of precedence.

    Each path has ``runs`` before it when the file sets ExecStart, and ``else`` otherwise.
    """
    kind = unit.rpartition(".")[2]
    folders = [f"{folder}/{name}.d" for name in (unit, kind) for folder in _FOLDERS]
    globs = [f"{shlex.quote(folder)}/*.conf" for folder in folders]
    text = (
        f'for f in {" ".join(globs)}; do [ -e "$f" ] || continue; '
        "if grep -qE '^[[:space:]]*ExecStart[[:space:]]*=' \"$f\" 2>/dev/null; "
        'then echo "runs $f"; else echo "else $f"; fi; done'
    )
    return Command(text, roots=True, unless=f"none {' '.join(globs)}")


def overrides(commands: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each unit with a drop-in that sets its command, and that file, from a probe's output.

    As in systemd, a file hides files with the same name in later folders.
    """
    for name, said in commands.items():
        if not name.startswith(_LABEL):
            continue
        seen: set[str] = set()
        for line in said.splitlines():
            what, _, path = line.partition(" ")
            base = path.rpartition("/")[2]
            if base not in seen and what == "runs":
                yield name.removeprefix(_LABEL), path
            seen.add(base)
