"""Files, links and directories of a host."""

from __future__ import annotations

import base64
import difflib
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from provision.host import disks, former_owner, predict
from provision.host.diff import Change, Resource
from provision.host.facts import HostFacts, Look, PathState, Place
from provision.text import printable_lines

#: What may be at the path of a file or link: both are replaced by a rename.
_REPLACED = ("file", "link")


@dataclass(frozen=True, slots=True)
class Directory(Resource):
    path: str
    owner: str = "root"
    mode: int = 0o755

    def look(self) -> Look:
        return Look(paths=(self.path,))

    def place(self) -> Place:
        return Place(self.path, "a directory", ("dir",))

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        mode, found = f"{self.mode:04o}", facts.paths.get(self.path)
        path = shlex.quote(self.path)
        install = f"install -d -m {mode} -o {self.owner} -g {self.owner} {path}"
        if found is None:
            what = f"create directory {self.path} ({self.owner} {mode})"
            return [Change(what, f"{former_owner.made(self.path)}\n{install}")]
        if found.kind != "dir":
            return [
                Change(
                    f"{self.path} is a {found.kind}, not a directory",
                    f"echo {path} is a {shlex.quote(found.kind)} >&2; exit 1",
                )
            ]
        what = f"set {self.path} to {self.owner} {mode}"
        script = f"{former_owner.note(self.path)}\n{install}"
        return [Change(what, script, _modes(self.path, found, self.owner, self.mode))]

    def after(self, facts: HostFacts) -> HostFacts:
        found = facts.paths.get(self.path)
        if found is None or found.kind != "dir":
            return predict.written(facts, {self.path: predict.folder(self.owner, self.mode)})
        return predict.owned(facts, self.path, self.owner, self.mode)


@dataclass(frozen=True, slots=True)
class DataDisk(Resource):
    """The marker in a folder of a service's data: an empty folder, owned by root. Without it the
    unit does not start the service (:mod:`provision.host.disks`)."""

    folder: str

    @property
    def marker(self) -> str:
        return disks.marker(self.folder)

    def look(self) -> Look:
        return Look(paths=(self.marker,))

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        what = f"mark {self.folder} as the data disk: {self.marker}"
        return [Change(what, disks.mark(self.folder))]

    def after(self, facts: HostFacts) -> HostFacts:
        if disks.is_marked(self.folder, facts):
            return facts
        return predict.written(facts, {self.marker: predict.folder()})


@dataclass(frozen=True, slots=True)
class File(Resource):
    """A file with this exact content. A ``secret`` one is compared by hash and never shown.

    Content None: any content is right, and only owner and mode are set.
    """

    path: str
    content: bytes | None
    owner: str = "root"
    mode: int = 0o644
    secret: bool = False
    restarts: tuple[str, ...] = ()

    def look(self) -> Look:
        if self.secret:
            return Look(paths=(self.path,), hashes=(self.path,))
        return Look(paths=(self.path,), contents=(self.path,))

    def place(self) -> Place:
        return Place(self.path, "a file", _REPLACED)

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        found = facts.paths.get(self.path)
        if found is not None and self._is_held_by(found):
            path, mode = shlex.quote(self.path), f"{self.mode:04o}"
            return [
                Change(
                    f"set {self.path} to {self.owner} {mode}",
                    f"chown {self.owner}:{self.owner} {path}; chmod {mode} {path}",
                    _modes(self.path, found, self.owner, self.mode),
                )
            ]
        if found is None or found.kind != "file":
            return [Change(f"write {self.path}", self.write(), restarts=self.restarts)]
        diff = self._diff(found, facts.text(self.path) or "")
        return [Change(f"change {self.path}", self.write(), diff, restarts=self.restarts)]

    def after(self, facts: HostFacts) -> HostFacts:
        found = facts.paths.get(self.path)
        if found is not None and self._is_held_by(found):
            return predict.owned(facts, self.path, self.owner, self.mode)
        content = self.content or b""
        state = predict.file(content, self.owner, self.mode)
        if self.secret:
            state = replace(state, content=None, sha256=hashlib.sha256(content).hexdigest())
        return predict.written(facts, {self.path: state}, self.restarts)

    def write(self) -> str:
        """The script that writes the file, and that sets ``t`` while it does."""
        path = shlex.quote(self.path)
        encoded = base64.encodebytes(self.content or b"").decode()
        return (
            f"t=$(mktemp {path}.XXXXXX)\n"
            f"base64 -d >\"$t\" <<'@@end'\n{encoded}@@end\n"
            f'chown {self.owner}:{self.owner} "$t"; chmod {self.mode:04o} "$t"; mv -f "$t" {path}'
        )

    def _is_held_by(self, found: PathState) -> bool:
        """Whether ``found`` is a file with this content; its owner does not matter."""
        if found.kind != "file":
            return False
        if self.content is None:
            return True
        if self.secret:
            return found.sha256 == hashlib.sha256(self.content).hexdigest()
        return found.content == self.content

    def _diff(self, found: PathState, text: str) -> str:
        # A file that others may not read had secrets in it, whatever its new content is.
        if self.secret or not found.mode & 0o004:
            return f"~{self.path} holds secrets: the difference is not shown\n"
        old = printable_lines(text)
        new = printable_lines((self.content or b"").decode(errors="replace"))
        lines = difflib.unified_diff(old, new, self.path, self.path, n=1, lineterm="")
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Identity(Resource):
    """A file with a worker's UUID: written if missing, and never changed afterwards."""

    path: str
    owner: str
    uuid: str

    def look(self) -> Look:
        return Look(paths=(self.path,), contents=(self.path,))

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        return [Change(f"make the worker identity {self.path}", self._file.write())]

    def after(self, facts: HostFacts) -> HostFacts:
        found = facts.paths.get(self.path)
        if found is not None and found.size > 0:
            return facts
        return self._file.after(facts)

    @property
    def _file(self) -> File:
        return File(self.path, f"{self.uuid}\n".encode(), owner=self.owner)


@dataclass(frozen=True, slots=True)
class Link(Resource):
    path: str
    target: str
    restarts: tuple[str, ...] = ()

    def look(self) -> Look:
        return Look(paths=(self.path,))

    def place(self) -> Place:
        return Place(self.path, "a file", _REPLACED)

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        found = facts.paths.get(self.path)
        old = found.target if found is not None else None
        path = shlex.quote(self.path)
        return [
            Change(
                f"point {self.path} to {self.target}",
                f"ln -sfn {shlex.quote(self.target)} {path}.new; mv -fT {path}.new {path}",
                f"-{self.path} -> {old}\n+{self.path} -> {self.target}\n" if old else "",
                restarts=self.restarts,
            )
        ]

    def after(self, facts: HostFacts) -> HostFacts:
        found = facts.paths.get(self.path)
        if found is not None and found.kind == "link" and found.target == self.target:
            return facts
        size = len(self.target)
        state = PathState("link", "root", "root", 0o777, size, target=self.target)
        return predict.written(facts, {self.path: state}, self.restarts)


def _modes(path: str, found: PathState, owner: str, mode: int) -> str:
    """The difference when only owner and mode of ``path`` change."""
    return f"-{path} {found.owner} {found.mode:04o}\n+{path} {owner} {mode:04o}\n"
