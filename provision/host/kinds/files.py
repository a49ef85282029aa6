"""Files, links and directories of a host."""

from __future__ import annotations

import base64
import difflib
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import replace

from provision.dataclass import dataclass
from provision.host import disks, former_owner, predict, safely, selinux
from provision.host.diff import NEW, Change, Resource
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Look, PathState, Place
from provision.text import printable_lines

#: Stands for a secret in the shown content of a file.
MASK = "***"
#: What may be at the path of a file or link: both are replaced by a rename.
_REPLACED = ("file", "link")


@dataclass(frozen=True, slots=True)
class Directory(Resource):
    """A folder. Its group is ``group``, or else the group of its owner's name."""

    path: str
    owner: str = "root"
    mode: int = 0o755
    group: str = ""

    def look(self) -> Look:
        return Look(paths=(self.path,))

    def place(self) -> Place:
        return Place(self.path, "a directory", ("dir",))

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        mode, found = f"{self.mode:04o}", facts.paths.get(self.path)
        path = shlex.quote(self.path)
        install = f"folder {path} {_owners(self.owner, self.group)} {mode}"
        if found is None:
            shown = _shown(self.owner, self.group)
            what = f"create directory {self.path} ({shown} {mode})"
            return [Change(what, f"{former_owner.made(self.path)}\n{install}")]
        if found.kind != "dir":
            return [
                Change(
                    f"{self.path} is a {found.kind}, not a directory",
                    f"echo {path} is a {shlex.quote(found.kind)} >&2; exit 1",
                )
            ]
        what = f"set {self.path} to {_shown(self.owner, self.group)} {mode}"
        diff = _modes(self.path, found, self.owner, self.mode, self.group)
        return [Change(what, f"{former_owner.note(self.path)}\n{install}", diff)]

    def after(self, facts: HostFacts) -> HostFacts:
        found = facts.paths.get(self.path)
        if found is None or found.kind != "dir":
            made = predict.folder(self.owner, self.mode, self.group)
            return predict.written(facts, {self.path: made})
        return predict.owned(facts, self.path, self.owner, self.mode, self.group)


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
    """A file with this exact content. A ``secret`` one is compared by hash and never shown; a new
    one is shown as ``masked``: the content with :data:`MASK` for each secret.

    Content None: any content is right, and only owner and mode are set. Root alone can write in its
    folder: see :mod:`provision.host.safely`. Its group is ``group``, or else the group of its
    owner's name.
    """

    path: str
    content: bytes | None
    owner: str = "root"
    mode: int = 0o644
    secret: bool = False
    restarts: tuple[str, ...] = ()
    group: str = ""
    #: The effects of other content.
    effects: tuple[Effect, ...] = ()
    masked: bytes | None = None

    def look(self) -> Look:
        if self.secret:
            return Look(paths=(self.path,), hashes=(self.path,))
        return Look(paths=(self.path,), contents=(self.path,))

    def place(self) -> Place:
        return Place(self.path, "a file", _REPLACED)

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        found = facts.paths.get(self.path)
        if found is not None and self._is_held_by(found):
            return [
                Change(
                    f"set {self.path} to {_shown(self.owner, self.group)} {self.mode:04o}",
                    give(self.path, _owners(self.owner, self.group), self.mode),
                    _modes(self.path, found, self.owner, self.mode, self.group),
                )
            ]
        if found is None or found.kind != "file":
            what, diff = f"write {self.path}", self._new()
        else:
            what, diff = f"change {self.path}", self._diff(found, facts.text(self.path) or "")
        return [Change(what, self.write(), diff, restarts=self.restarts, effects=self.effects)]

    def after(self, facts: HostFacts) -> HostFacts:
        found = facts.paths.get(self.path)
        if found is not None and self._is_held_by(found):
            return predict.owned(facts, self.path, self.owner, self.mode, self.group)
        content = self.content or b""
        state = predict.file(content, self.owner, self.mode, self.group)
        if self.secret:
            state = replace(state, content=None, sha256=hashlib.sha256(content).hexdigest())
        return predict.written(facts, {self.path: state}, self.restarts)

    def write(self) -> str:
        """The script that writes the file, and that sets ``t`` while it does."""
        path = shlex.quote(self.path)
        encoded, owners = (
            base64.encodebytes(self.content or b"").decode(),
            _owners(self.owner, self.group),
        )
        # Root's own is so already, but in a folder that gives its group away.
        unless = '{ [ -O "$t" ] && is_root_group "$t"; } || ' if owners == "root:root" else ""
        return (
            f"t=$(mktemp {path}.XXXXXX)\n"
            f"base64 -d >\"$t\" <<'@@end'\n{encoded}@@end\n"
            f'{unless}chown {owners} "$t"; chmod {self.mode:04o} "$t"; '
            f'mv -f "$t" {path}\n{selinux.label(self.path)}'
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

    def _new(self) -> str:
        """The content of a new file, as a diff. A file that others may not read has secrets."""
        open_ = not self.secret and bool(self.mode & 0o004)
        shown = (self.content or b"") if open_ else self.masked
        lines = [MASK] if shown is None else printable_lines(shown.decode(errors="replace"))
        added = "".join(f"+{line}\n" for line in lines)
        head = f"@@ -0,0 +1,{len(lines)} @@\n" if lines else ""
        return f"{NEW}+++ {self.path}\n{head}{added}"

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
    restarts: tuple[str, ...] = ()

    def look(self) -> Look:
        return Look(paths=(self.path,), contents=(self.path,))

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        folder, _, name = self.path.rpartition("/")
        # The folder is the owner's: root writes nothing there. The script gives the shell its text:
        # a file that is open for root is one more thing that this user could get hold of.
        write = (
            f'umask 022; t=$(mktemp ./{name}.XXXXXX) && echo {self.uuid} >"$t" && '
            f'chmod 0644 "$t" && mv -fT "$t" ./{name}'
        )
        script = safely.in_folder(folder, safely.as_user(self.owner, f"sh -c {shlex.quote(write)}"))
        what = f"make the worker identity {self.path}"
        return [Change(what, script, restarts=self.restarts)]

    def after(self, facts: HostFacts) -> HostFacts:
        found = facts.paths.get(self.path)
        if found is not None and found.size > 0:
            return facts
        return self._file.after(facts)

    @property
    def _file(self) -> File:
        content = f"{self.uuid}\n".encode()
        return File(self.path, content, owner=self.owner, restarts=self.restarts)


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
                f"[ ! -e {path}.new ] && [ ! -L {path}.new ] || rm -f {path}.new\n"
                f"ln -s {shlex.quote(self.target)} {path}.new\n"
                # uutils 0.0.30 replaces no link to a folder. GNU's mv does it in one step.
                f"mv -fT {path}.new {path} 2>/dev/null || "
                f"{{ rm -f {path}; mv -fT {path}.new {path}; }}",
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


def give(path: str, owners: str, mode: int) -> str:
    """The script that gives a file in a folder of root to ``owners``, as ``chown`` reads them.

    The new mode comes first: a service that may read it before and after may read it meanwhile.
    """
    file = shlex.quote(path)
    return (
        f"if [ -L {file} ] || [ ! -f {file} ]; then\n"
        f"  echo {shlex.quote(f'{path} is no plain file: move it away')} >&2; exit 1\n"
        f"fi\n"
        f"chmod {mode:04o} {file}; chown -h {owners} {file}"
    )


def _owners(owner: str, group: str) -> str:
    return f"{owner}:{group or owner}"


def _shown(owner: str, group: str) -> str:
    return _owners(owner, group) if group else owner


def _modes(path: str, found: PathState, owner: str, mode: int, group: str = "") -> str:
    """The difference when only owner and mode of ``path`` change."""
    before, then = _shown(found.owner, group and found.group), _shown(owner, group)
    return f"-{path} {before} {found.mode:04o}\n+{path} {then} {mode:04o}\n"
