"""An Ansible inventory on disk: one file, with group_vars/ and host_vars/ beside it."""

from __future__ import annotations

from pathlib import Path

from provision.ansible import ini, yml
from provision.ansible.tree import Tree, Vars
from provision.errors import InventoryError, Problem
from provision.files import read_bytes
from provision.ids import Id
from provision.inventory.findings import unreadable

#: Whatever else is wrong with it, this is what it comes to.
NOT_CARRIED: Id = "ansible-not-carried-over"


class Findings:
    """The problems of the files, each once and in the order of discovery."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}

    def error(self, where: str, what: str, remedy: str = "", *, id: Id = NOT_CARRIED) -> None:
        self._found[Problem(where, what, remedy, id=id)] = None

    def warning(self, where: str, what: str, remedy: str = "", *, id: Id = NOT_CARRIED) -> None:
        self._found[Problem(where, what, remedy, "warning", id=id)] = None

    @property
    def all(self) -> tuple[Problem, ...]:
        return tuple(self._found)

    @property
    def any_error(self) -> bool:
        return any(problem.severity == "error" for problem in self._found)


def read(path: Path, findings: Findings) -> Tree:
    """The inventory in ``path``; mistakes go to ``findings``.

    Raises :class:`InventoryError` when the file itself cannot be read.
    """
    tree = Tree()
    text = _text(path)
    is_yaml = path.suffix in (".yml", ".yaml", ".json")
    (yml.read if is_yaml else ini.read)(text, str(path), tree, findings.error)
    for name, group in tree.groups.items():
        group.file_vars = _vars(path.parent / "group_vars", name, findings)
    for name, host in tree.hosts.items():
        host.file_vars = _vars(path.parent / "host_vars", name, findings)
    if circle := tree.circle():
        where = tree.groups[circle[0]].where
        names = circle if len(circle) <= 12 else [*circle[:8], "…", *circle[-3:]]
        findings.error(where, f"groups contain themselves: {' > '.join(names)}")
    return tree


def _text(path: Path) -> str:
    try:
        data = read_bytes(path, yml.MAX_BYTES, cut=True)
        if len(data) > yml.MAX_BYTES:
            raise ValueError(f"larger than {yml.MAX_BYTES >> 20} MiB")
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        problem = unreadable(path, error)
    raise InventoryError("the Ansible inventory cannot be read", [problem], id=problem.id)


def _vars(folder: Path, name: str, findings: Findings) -> Vars:
    if "/" in name or not folder.is_dir():
        return {}
    found: Vars = {}
    for path in yml.files(folder, name):
        text = _text(path)
        found.update(yml.read_vars(text, str(path), findings.error, findings.warning))
    return found
