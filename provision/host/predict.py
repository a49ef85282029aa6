"""The predicted facts of a host when resources are true there, as the facts script would see them.

Plans of several steps use it: each step is planned from the state that the steps before leave. A
test runs the changes and the facts script in a real shell, and compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from provision.host import disks
from provision.host.facts import CONTENT_LIMIT, HostFacts, PathState, UnitState
from provision.host.resources import (
    MADE_BY,
    Absent,
    Certificate,
    DataDisk,
    Directory,
    File,
    Identity,
    Link,
    Move,
    Package,
    Resource,
    Tree,
    Unit,
    User,
)

UNIT_DIR = "/etc/systemd/system"
#: Stands for unknown values: a folder's size, a user's number, a process's number.
FOLDER_SIZE, USER_ID, PID = 4096, 998, 4711
#: The content of a certificate that the changes make.
UNKNOWN = b""


def after(resources: Iterable[Resource], facts: HostFacts) -> HostFacts:
    """The facts of a host after ``resources`` are made true; ``facts`` itself if they are true now.

    A pending restart stays in ``pending_restarts`` until the unit is among ``resources``. The
    content of a certificate made on the host is :data:`UNKNOWN`. An unpacked tree has only its
    folder and its marker. The output of commands stays as it is.
    """
    units: list[Unit] = []
    for resource in resources:
        if isinstance(resource, Unit):
            units.append(resource)
        else:
            facts = _after(resource, facts)
    for unit in units:
        facts = _unit(unit, facts)
    return facts


def without(path: str, facts: HostFacts) -> HostFacts:
    """The facts of a host after ``path``, with everything below it, is removed."""
    below = f"{path}/"
    left = {p: s for p, s in facts.paths.items() if p != path and not p.startswith(below)}
    return replace(facts, paths=left)


def is_half_installed(certificate: Certificate, facts: HostFacts) -> bool:
    """Whether a run was killed between the two renames of an installation: only the key is new."""
    path = certificate.path
    return f"{path}.crt.new" in facts.paths and f"{path}.key.new" not in facts.paths


def holds(found: PathState, file: File) -> bool:
    """Whether ``found`` is a file with the content of ``file``; its owner does not matter."""
    if found.kind != "file":
        return False
    if file.content is None:
        return True
    if file.secret:
        return found.sha256 == hashlib.sha256(file.content).hexdigest()
    return found.content == file.content


def _after(resource: Resource, facts: HostFacts) -> HostFacts:
    match resource:
        case User():
            return _user(resource, facts)
        case Directory():
            return _directory(resource, facts)
        case DataDisk():
            return _data_disk(resource, facts)
        case File():
            return _file(resource, facts)
        case Certificate():
            return _certificate(resource, facts)
        case Identity():
            return _identity(resource, facts)
        case Move():
            return _move(resource, facts)
        case Tree():
            return _tree(resource, facts)
        case Link():
            return _link(resource, facts)
        case Package():
            return _package(resource, facts)
        case Absent():
            return _absent(resource, facts)
        case Unit():
            raise TypeError("units come after everything else")


def _user(user: User, facts: HostFacts) -> HostFacts:
    if user.name in facts.users:
        return facts
    line = f"{user.name}:x:{USER_ID}:{USER_ID}:{MADE_BY}:{user.home}:/usr/sbin/nologin"
    return replace(facts, users={**facts.users, user.name: line})


def _directory(directory: Directory, facts: HostFacts) -> HostFacts:
    found = facts.paths.get(directory.path)
    if found is None or found.kind != "dir":
        return _with(facts, {directory.path: _folder(directory.owner, directory.mode)})
    return _owned(facts, directory.path, directory.owner, directory.mode)


def _data_disk(disk: DataDisk, facts: HostFacts) -> HostFacts:
    if disks.is_marked(disk.folder, facts):
        return facts
    return _with(facts, {disk.marker: _folder()})


def _file(file: File, facts: HostFacts) -> HostFacts:
    found = facts.paths.get(file.path)
    if found is not None and holds(found, file):
        return _owned(facts, file.path, file.owner, file.mode)
    state = _content(file.content or b"", file.owner, file.mode)
    if file.secret:
        digest = hashlib.sha256(file.content or b"").hexdigest()
        state = replace(state, content=None, sha256=digest)
    return _with(facts, {file.path: state}, file.restarts)


def _certificate(wanted: Certificate, facts: HostFacts) -> HostFacts:
    certificate, key = f"{wanted.path}.crt", f"{wanted.path}.key"
    if wanted.pair is None and wanted.sign is None:
        if is_half_installed(wanted, facts):
            facts = without(f"{certificate}.new", without(certificate, facts))
        for path, mode in ((certificate, 0o644), (key, 0o600)):
            if path not in facts.paths:
                facts = _with(facts, {path: _made(wanted, mode, UNKNOWN)})
            facts = _owned(facts, path, wanted.owner, mode)
        return facts
    content, secret = wanted.pair or (UNKNOWN, UNKNOWN)
    made = {
        certificate: _made(wanted, 0o644, content),
        key: replace(_made(wanted, 0o600, secret), content=None),
    }
    facts = without(f"{certificate}.new", without(f"{key}.new", facts))
    return _with(facts, made)


def _made(wanted: Certificate, mode: int, content: bytes) -> PathState:
    """A file of a certificate. Its content may be unknown, but it is not empty."""
    return replace(_content(content, wanted.owner, mode), size=len(content) or 1)


def _identity(identity: Identity, facts: HostFacts) -> HostFacts:
    found = facts.paths.get(identity.path)
    if found is not None and found.size > 0:
        return facts
    state = _content(f"{identity.uuid}\n".encode(), identity.owner, 0o644)
    return _with(facts, {identity.path: state})


def _move(move: Move, facts: HostFacts) -> HostFacts:
    """The facts after a move. Files in the folder get the same owner. A folder that was not looked
    at gets the mode of the owner's folders."""
    taken = {move.target: facts.paths.get(move.source, _folder(mode=0o750))}
    below = f"{move.source}/"
    for path, state in facts.paths.items():
        if path.startswith(below):
            taken[f"{move.target}/{path.removeprefix(below)}"] = state
    owned = {p: replace(s, owner=move.owner, group=move.owner) for p, s in taken.items()}
    return _with(without(move.source, facts), owned, (move.unit,))


def _tree(tree: Tree, facts: HostFacts) -> HostFacts:
    if (facts.text(tree.marker) or "").strip() == tree.artifact.sha256:
        return facts
    restarts: tuple[str, ...] = ()
    if tree.path in facts.paths:
        restarts = tree.restarts
        for move in tree.before:
            if move.target not in facts.paths:
                facts = replace(_move(move, facts), pending_restarts=facts.pending_restarts)
    # Files in the old tree are removed with it.
    facts = without(tree.path, facts)
    marker = _content(f"{tree.artifact.sha256}\n".encode(), "root", 0o644)
    return _with(facts, {tree.path: _folder(), tree.marker: marker}, restarts)


def _link(link: Link, facts: HostFacts) -> HostFacts:
    found = facts.paths.get(link.path)
    if found is not None and found.kind == "link" and found.target == link.target:
        return facts
    state = PathState("link", "root", "root", 0o777, len(link.target), target=link.target)
    return _with(facts, {link.path: state}, link.restarts)


def _package(package: Package, facts: HostFacts) -> HostFacts:
    if package.binary in facts.paths:
        return facts
    return _with(facts, {package.binary: PathState("file", "root", "root", 0o755, 1 << 20)})


def _absent(absent: Absent, facts: HostFacts) -> HostFacts:
    there = [path for path in absent.paths if path in facts.paths]
    if not there:
        return facts
    for path in there:
        facts = without(path, facts)
    units = dict(facts.units)
    if absent.unit in units:
        units[absent.unit] = UnitState()
    return replace(facts, units=units)


def _unit(unit: Unit, facts: HostFacts) -> HostFacts:
    """The facts when the unit is enabled and runs. A pending restart is done."""
    now, owed = facts.unit(unit.name), facts.pending_restarts - {unit.name}
    then = replace(now, file_state="enabled", needs_reload=False)
    if now.active != "active" or owed != facts.pending_restarts:
        service = unit.name.endswith(".service")
        path = f"{UNIT_DIR}/{unit.name}"
        then = UnitState(
            load="loaded",
            active="active",
            sub="running" if service else "waiting",
            file_state="enabled",
            pid=PID if service else 0,
            fragment=now.fragment or (path if path in facts.paths else ""),
        )
    if then == now and owed == facts.pending_restarts:
        return facts
    return replace(facts, units={**facts.units, unit.name: then}, pending_restarts=owed)


def _with(
    facts: HostFacts, paths: Mapping[str, PathState], restarts: tuple[str, ...] = ()
) -> HostFacts:
    owed = facts.pending_restarts.union(restarts)
    return replace(facts, paths={**facts.paths, **paths}, pending_restarts=owed)


def _owned(facts: HostFacts, path: str, owner: str, mode: int) -> HostFacts:
    found = facts.paths.get(path)
    if found is None or (found.owner, found.mode) == (owner, mode):
        return facts
    return _with(facts, {path: replace(found, owner=owner, group=owner, mode=mode)})


def _folder(owner: str = "root", mode: int = 0o755) -> PathState:
    return PathState("dir", owner, owner, mode, FOLDER_SIZE)


def _content(body: bytes, owner: str, mode: int) -> PathState:
    shown = body if len(body) <= CONTENT_LIMIT else None
    return PathState("file", owner, owner, mode, len(body), shown)
