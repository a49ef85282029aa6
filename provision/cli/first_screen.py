"""The first screen of ``alluxio-provision``, and its version: what needs no task, and so no import
of Invoke.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from provision import __version__

NAME = "alluxio-provision"
#: Columns of a screen: not wider than is read well, not narrower than the first column needs.
_WIDEST, _NARROWEST = 100, 60


class Group(NamedTuple):
    """Tasks of one theme. ``key`` is what is typed after ``help``."""

    key: str
    title: str
    about: str
    tasks: tuple[str, ...]


#: Every task is in one of these, and may be in the first one, too.
GROUPS = (
    Group(
        "start",
        "Start here",
        "from hosts to a cluster, and back to nothing",
        (
            *("init-inventory", "import-ansible", "show-inventory", "trust-hosts"),
            *("deploy-etcd", "start-workers", "check-nodes", "explain", "clean-host", "destroy"),
        ),
    ),
    Group(
        "workers",
        "Workers",
        "start, restart, upgrade, take away; masters",
        (
            *("start-workers", "restart-workers", "stop-workers", "upgrade-workers"),
            *("rollback-workers", "decommission-worker", "forget-worker", "readmit-worker"),
            *("start-masters", "stop-masters"),
        ),
    ),
    Group(
        "etcd",
        "etcd",
        "deploy, upgrade, members, upkeep",
        (
            *("deploy-etcd", "upgrade-etcd", "add-member", "remove-member", "replace-member"),
            *("move-leader", "defrag-etcd", "disarm-alarms"),
        ),
    ),
    Group(
        "access",
        "Certificates and access",
        "host keys, certificates, users",
        (
            *("trust-hosts", "rotate-certs", "export-csrs", "import-certs"),
            *("enable-auth", "disable-auth"),
        ),
    ),
    Group(
        "backup",
        "Backup and recovery",
        "snapshots, restores, a lost quorum",
        ("backup-etcd", "restore-etcd", "recover-etcd", "kept-data"),
    ),
    Group(
        "look",
        "Look",
        "what is there, and who changed it",
        ("check-nodes", "status", "merge-reports", "logs", "audit", "list-clusters", "explain"),
    ),
    Group(
        "kubernetes",
        "Kubernetes",
        "the same cluster by Alluxio's Helm chart",
        ("render-helm", "check-nodes"),
    ),
    Group(
        "files",
        "Files",
        "inventories, and files for other programs",
        (
            *("init-inventory", "import-ansible", "show-inventory", "inventory-schema"),
            *("show-schema", "export-ssh-config", "render-client-config", "render-monitor"),
        ),
    ),
)
#: Tasks of every day, each with its first argument or option, and one line.
DAILY = (
    ("init-inventory --etcd HOSTS", "write an inventory of your hosts"),
    ("trust-hosts", "show the hosts' SSH keys, ask once, add them"),
    ("deploy-etcd", "install etcd, or roll a change out"),
    ("start-workers", "install, configure and start the workers"),
    ("check-nodes", "is every member healthy, every worker LIVE?"),
    ("logs NAME", "the last log lines of a member, worker or host"),
    ("restart-workers [NAMES]", "restart workers, a group at a time"),
    ("upgrade-workers [NAMES]", "bring workers to the inventory's release"),
    ("backup-etcd", "save a snapshot, proven by restoring it"),
    ("explain ID", "what an error means, and what to do"),
)


def answer(words: Sequence[str]) -> str | None:
    """The answer to a command line that asks for the first screen or the version; None for
    others."""
    if list(words) in ([], ["help"], ["help", "help"], ["--help"], ["-h"]):
        return first_screen(NAME)
    if list(words) in (["--version"], ["-V"]):
        return f"{NAME} {__version__}"
    return None


def first_screen(program: str) -> str:
    """At most 25 lines of 80 columns."""
    return "\n".join(
        (
            f"{program} {__version__}: etcd v3 and Alluxio workers on your own hosts.",
            "",
            *columns(DAILY, 30),
            "",
            f"{program} help GROUP, help TASK, or help all:",
            *columns([(g.key, f"{g.title}: {g.about}") for g in GROUPS], 12),
            "",
            "TASK --dry-run (-n) shows what would change, and changes nothing.",
        )
    )


def columns(lines: Iterable[Sequence[str]], beside: int) -> list[str]:
    """Pairs in two columns; a first column that is too wide has a line of its own."""
    import shutil  # with textwrap a third of the start, which --version does not need
    import textwrap

    found = []
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns)) - 1
    indent = " " * (beside + 2)
    for left, right in lines:
        text = textwrap.wrap(right, width - len(indent), break_on_hyphens=False) or [""]
        head = f"  {left:<{beside}}"
        if len(left) >= beside:
            found += [head.rstrip(), *(indent + line for line in text)]
        else:
            found += [(head + text[0]).rstrip(), *(indent + line for line in text[1:])]
    return found
