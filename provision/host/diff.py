"""The smallest change from a host's facts to its desired state, and that change as a batch.

:func:`changes` is pure; :func:`batch` turns its result into one shell script. Every change is
complete or absent (a file is written beside the old one, then renamed). So after a kill at any
point, a new plan and run finish the batch.
"""

from __future__ import annotations

import base64
import difflib
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from provision.host import disks
from provision.host.facts import BATCH_LOCK, STATE_DIR, HostFacts
from provision.host.predict import UNIT_DIR, after, holds, is_half_installed
from provision.host.resources import (
    MADE_BY,
    MARKER,
    Absent,
    Certificate,
    DataDisk,
    Directory,
    File,
    Identity,
    Link,
    Move,
    Package,
    Refusal,
    Resource,
    Tree,
    Unit,
    User,
)
from provision.text import printable_lines

#: Lines of the journal in the error about a unit that does not start.
LOG_LINES = 12
DONE, ANSWERED = "@@done", "@@answered"
#: Seconds that a batch waits for the batch of a killed run to end.
BATCH_LOCK_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Change:
    """One change on one host. ``script`` makes it; ``upload`` is sent before the batch.

    With ``ask`` and ``answer``, the script depends on the host: the script ``ask`` runs before the
    batch, and ``answer`` turns its output into the script.
    """

    what: str
    script: str = ""
    diff: str = ""
    upload: Tree | None = None
    restarts: tuple[str, ...] = ()
    disrupts: bool = False
    seconds: int = 60
    ask: str = ""
    answer: Callable[[str], str] | None = field(default=None, compare=False)
    refusals: tuple[Refusal, ...] = ()

    @property
    def non_disruptive(self) -> bool:
        """Whether no running service notices the change: it can be made on all hosts at the same
        time."""
        return not (self.restarts or self.disrupts)


def changes(resources: Iterable[Resource], facts: HostFacts) -> tuple[Change, ...]:
    """The changes, in order, that make ``resources`` true. Empty when they are true already.

    A unit is restarted at most once, after everything it depends on has been changed.
    """
    found: list[Change] = []
    units: list[Unit] = []
    written: set[str] = set()
    trees: list[Tree] = []
    for resource in resources:
        if isinstance(resource, Unit):
            units.append(resource)
            continue
        then = after([resource], facts)
        if then is facts:
            continue
        change = _change(resource, facts)
        if isinstance(resource, Tree):
            trees += [resource] if change.restarts else []
        elif isinstance(resource, File | Link | Directory):
            change = _with_tree(change, resource.path, trees)
        found.append(change)
        if isinstance(resource, File):
            written.add(resource.path)
        facts = then
    for unit in units:
        # A timer's service has the timer's name; systemd reads both again together.
        stem = f"{UNIT_DIR}/{unit.name.rpartition('.')[0]}."
        found.extend(_unit(unit, facts, reload=any(path.startswith(stem) for path in written)))
    return tuple(found)


def batch(todo: Sequence[Change], audit: str = "") -> str:
    """One shell script that makes the changes ``todo`` in order and stops at the first failure.

    ``audit`` comes before the first change (:func:`provision.engine.audit.lines`). The script
    prints ``@@done N`` after the N-th change (from 0), so a failure names its change.
    """
    lines = [
        "set -e",
        "umask 022",  # mktemp makes files, with mode 0600 under any umask
        f"mkdir -p {STATE_DIR}",
        f"exec 9>{BATCH_LOCK}",
        f"flock -w {BATCH_LOCK_SECONDS} 9 || {{",
        '  echo "a batch of an earlier run is still running" >&2',
        "  exit 1",
        "}",
    ]
    for unit in dict.fromkeys(u for change in todo for u in change.restarts):
        lines.append(f"touch {STATE_DIR}/restart.{shlex.quote(unit)}")
    lines.append("t=  # the file that is being written: it goes when the batch is cut off")
    if audit:
        lines.append(audit)
    else:
        lines += ["trap 'rm -f \"$t\"' EXIT", "trap 'exit 129' HUP", "trap 'exit 141' PIPE"]
    for number, change in enumerate(todo):
        if change.script:
            lines.append(change.script)
        lines.append(f"audit_done={number + 1}; echo {DONE} {number}")
    return "\n".join(lines)


def questions(todo: Sequence[Change]) -> str:
    """One shell script with the questions of ``todo`` to the host; empty without questions."""
    asked = [(n, change) for n, change in enumerate(todo) if change.ask]
    lines = [f"( {change.ask}\n) || exit 1\necho {ANSWERED} {n}" for n, change in asked]
    return "\n".join(lines)


def answered(todo: Sequence[Change], output: str) -> list[Change]:
    """``todo`` with the scripts that the output of :func:`questions` gives."""
    done: list[Change] = []
    rest = output
    for n, change in enumerate(todo):
        if change.answer is not None:
            said, _, rest = rest.partition(f"{ANSWERED} {n}\n")
            change = replace(change, script=change.answer(said))
        done.append(change)
    return done


def receive(tree: Tree) -> str:
    """The command that reads ``tree``'s tarball from standard input, checks and unpacks it.

    Before it replaces a tree, it notes the restarts that the change needs.
    """
    path, digest = shlex.quote(tree.path), tree.artifact.sha256
    pending = " ".join(f"{STATE_DIR}/restart.{shlex.quote(unit)}" for unit in tree.restarts)
    note = f"mkdir -p {STATE_DIR}; touch {pending}" if pending else ":"
    before = "".join(_moving(move) for move in tree.before)
    return f"""\
set -e
umask 022
base=$(dirname {path})
mkdir -p "$base"
rm -rf "$base"/.incoming.*
t=$(mktemp -d "$base/.incoming.XXXXXX")
trap 'rm -rf "$t"' EXIT HUP TERM INT
chmod 755 "$t"
cat >"$t/tarball"
echo "{digest}  $t/tarball" | sha256sum -c --status || {{
  echo "sha256 differs after the upload" >&2
  exit 1
}}
mkdir "$t/tree"
tar -xzf "$t/tarball" -C "$t/tree" --strip-components=1 --no-same-owner
# Alluxio's release has a folder that all may write to: logs/user.
chmod -R go-w "$t/tree"
rm "$t/tarball"
echo {digest} >"$t/tree/{MARKER}"
if [ -e {path} ]; then
  {note}
{before}  mv {path} "$t/replaced"
fi
mv -T "$t/tree" {path}
"""


def _change(resource: Resource, facts: HostFacts) -> Change:
    """The change that makes ``resource`` true. It is not true now."""
    match resource:
        case User():
            return _user(resource)
        case Directory():
            return _directory(resource, facts)
        case DataDisk():
            return _data_disk(resource)
        case File():
            return _file(resource, facts)
        case Certificate():
            return _certificate(resource, facts)
        case Identity():
            return _identity(resource)
        case Move():
            return _move(resource)
        case Tree():
            return _tree(resource, facts)
        case Link():
            return _link(resource, facts)
        case Package():
            return _package(resource)
        case Absent():
            return _absent(resource, facts)
        case Unit():
            raise TypeError("units are compared after everything else")


def _user(user: User) -> Change:
    name, home = shlex.quote(user.name), shlex.quote(user.home)
    return Change(
        f"create system user {user.name}",
        # An existing group belongs to somebody: clean-host must not remove it with the user.
        f"c='{MADE_BY}'; getent group {name} >/dev/null && c= || groupadd --system {name}\n"
        f"useradd --system --gid {name} --home-dir {home} --no-create-home "
        f'--comment "$c" --shell /usr/sbin/nologin {name}',
    )


def _directory(directory: Directory, facts: HostFacts) -> Change:
    path, mode = directory.path, f"{directory.mode:04o}"
    found = facts.paths.get(path)
    install = f"install -d -m {mode} -o {directory.owner} -g {directory.owner} {shlex.quote(path)}"
    if found is None:
        return Change(f"create directory {path} ({directory.owner} {mode})", install)
    if found.kind != "dir":
        return Change(
            f"{path} is a {found.kind}, not a directory",
            f"echo {shlex.quote(path)} is a {shlex.quote(found.kind)} >&2; exit 1",
        )
    return Change(
        f"set {path} to {directory.owner} {mode}",
        install,
        diff=f"-{path} {found.owner} {found.mode:04o}\n+{path} {directory.owner} {mode}\n",
    )


def _data_disk(disk: DataDisk) -> Change:
    return Change(f"mark {disk.folder} as the data disk: {disk.marker}", disks.mark(disk.folder))


def _file(file: File, facts: HostFacts) -> Change:
    found = facts.paths.get(file.path)
    here = found is not None and found.kind == "file"
    if found is not None and holds(found, file):
        verb = f"set {file.path} to {file.owner} {file.mode:04o}"
        diff = (
            f"-{file.path} {found.owner} {found.mode:04o}\n"
            f"+{file.path} {file.owner} {file.mode:04o}\n"
        )
        path = shlex.quote(file.path)
        script = f"chown {file.owner}:{file.owner} {path}; chmod {file.mode:04o} {path}"
        return Change(verb, script, diff)
    return Change(
        f"{'change' if here else 'write'} {file.path}",
        _write(file),
        "" if not here else _diff(file, facts),
        restarts=file.restarts,
    )


def _write(file: File) -> str:
    path = shlex.quote(file.path)
    encoded = base64.encodebytes(file.content or b"").decode()
    return (
        f"t=$(mktemp {path}.XXXXXX)\n"
        f"base64 -d >\"$t\" <<'@@end'\n{encoded}@@end\n"
        f'chown {file.owner}:{file.owner} "$t"; chmod {file.mode:04o} "$t"; mv -f "$t" {path}'
    )


def _diff(file: File, facts: HostFacts) -> str:
    found = facts.paths[file.path]
    # A file that others may not read had secrets in it, whatever its new content is.
    if file.secret or not found.mode & 0o004:
        return f"~{file.path} holds secrets: the difference is not shown\n"
    old = printable_lines(facts.text(file.path) or "")
    new = printable_lines((file.content or b"").decode(errors="replace"))
    return "".join(
        f"{line}\n"
        for line in difflib.unified_diff(old, new, file.path, file.path, n=1, lineterm="")
    )


def _certificate(wanted: Certificate, facts: HostFacts) -> Change:
    path, owner = shlex.quote(wanted.path), wanted.owner
    verb = "change" if f"{wanted.path}.crt" in facts.paths else "write"
    why = f"{wanted.why}; " if wanted.why else ""
    if wanted.pair is not None:
        certificate, key = wanted.pair
        return Change(
            f"{verb} {wanted.path}.crt and .key ({why}made on this machine: no openssl there)",
            _install_certificate(wanted, certificate, key),
            disrupts=True,
        )
    if wanted.sign is not None:
        sign = wanted.sign
        return Change(
            f"{verb} {wanted.path}.crt and .key ({why}the key is made on the host)",
            ask=signing_request(wanted.path, wanted.subject),
            answer=lambda request: _install_certificate(wanted, sign(request.encode()), None),
            disrupts=True,
        )
    half = is_half_installed(wanted, facts)
    return Change(
        f"finish {wanted.path}.crt" if half else f"set {wanted.path}.crt and .key to {owner} 0600",
        (f"mv -f {path}.crt.new {path}.crt\n" if half else "")
        + f"chown {owner}:{owner} {path}.crt {path}.key\n"
        f"chmod 0644 {path}.crt; chmod 0600 {path}.key",
        disrupts=True,
    )


def signing_request(path: str, subject: str, names: Sequence[str] = ()) -> str:
    """The script that prints a signing request (PEM) for the key ``<path>.key.new``. It makes the
    key if it is missing.

    ``subject`` is the common name. With ``names`` (``IP:10.0.0.1``, ``DNS:infra0``) the request
    asks for them, and for use as server and as client.
    """
    extensions = ""
    if names:
        extensions = (
            "req_extensions = wanted\n[wanted]\nkeyUsage = critical,digitalSignature\n"
            f"extendedKeyUsage = serverAuth,clientAuth\nsubjectAltName = {','.join(names)}\n"
        )
    return _REQUEST.format(
        path=shlex.quote(path),
        subject=shlex.quote(f"/CN={subject[:64]}"),
        extensions=extensions,
    )


# A key from a killed run is used. The script has openssl's configuration: some hosts have none.
_REQUEST = """\
set -e
umask 077
mkdir -p "$(dirname {path})"
if [ ! -s {path}.key.new ]; then
  t=$(mktemp {path}.key.XXXXXX)
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 \\
    -pkeyopt ec_param_enc:named_curve -out "$t" 2>&1
  mv -f "$t" {path}.key.new
fi
openssl req -new -key {path}.key.new -subj {subject} -config /dev/stdin <<'@@end'
[req]
distinguished_name = name
{extensions}[name]
@@end"""


def _install_certificate(wanted: Certificate, certificate: bytes, key: bytes | None) -> str:
    """The script that installs a pair. Two renames follow each other at once. Before the second, a
    new connection may be refused; its client tries again."""
    path, owner = shlex.quote(wanted.path), wanted.owner
    lines = [_write(File(f"{wanted.path}.crt.new", certificate, owner=owner))]
    if key is not None:
        lines.append(_write(File(f"{wanted.path}.key.new", key, owner=owner, mode=0o600)))
    lines.append(f"chown {owner}:{owner} {path}.key.new; chmod 0600 {path}.key.new")
    lines.append(f"mv -f {path}.key.new {path}.key; mv -f {path}.crt.new {path}.crt")
    return "\n".join(lines)


def _identity(identity: Identity) -> Change:
    file = File(identity.path, f"{identity.uuid}\n".encode(), owner=identity.owner)
    return Change(f"make the worker identity {identity.path}", _write(file))


def _move(move: Move) -> Change:
    return Change(
        f"move {move.source} to {move.target}, with {move.unit} stopped",
        f"(\n{_moving(move)})",
        restarts=(move.unit,),
        seconds=900,
    )


def _moving(move: Move) -> str:
    """The script of a move. After a kill at any point, the whole folder is at one of the two
    places, and a second run does the rest."""
    source, target, unit = map(shlex.quote, (move.source, move.target, move.unit))
    return f"""\
if [ -d {source} ] && [ ! -e {target} ]; then
  systemctl stop {unit}
  if [ "$(stat -c %d {source})" = "$(stat -c %d "$(dirname {target})")" ]; then
    chown -R {move.owner}:{move.owner} {source}
    mv -T {source} {target}
  else
    rm -rf {target}.incoming
    cp -a {source} {target}.incoming
    chown -R {move.owner}:{move.owner} {target}.incoming
    mv -T {target}.incoming {target}
    rm -rf {source}
  fi
fi
"""


def _tree(tree: Tree, facts: HostFacts) -> Change:
    name = tree.artifact.path.name
    if tree.path not in facts.paths:
        # No process runs from a folder that does not exist yet.
        return Change(f"install {tree.path} from {name}", upload=tree)
    return Change(f"replace {tree.path} from {name}", upload=tree, restarts=tree.restarts)


def _with_tree(change: Change, path: str, trees: Sequence[Tree]) -> Change:
    """``change`` of ``path``, in the step that replaces the tree around it.

    If an earlier step wrote the file, it would be removed with the old tree.
    """
    owed = [unit for tree in trees if path.startswith(f"{tree.path}/") for unit in tree.restarts]
    return replace(change, restarts=tuple(dict.fromkeys((*change.restarts, *owed))))


def _link(link: Link, facts: HostFacts) -> Change:
    found = facts.paths.get(link.path)
    path = shlex.quote(link.path)
    before = found.target if found is not None else None
    return Change(
        f"point {link.path} to {link.target}",
        f"ln -sfn {shlex.quote(link.target)} {path}.new; mv -fT {path}.new {path}",
        diff=f"-{link.path} -> {before}\n+{link.path} -> {link.target}\n" if before else "",
        restarts=link.restarts,
    )


def _absent(absent: Absent, facts: HostFacts) -> Change:
    there = [path for path in absent.paths if path in facts.paths]
    unit = shlex.quote(absent.unit)
    return Change(
        f"remove {absent.unit}",
        f"systemctl disable -q --now {unit} 2>/dev/null || :\n"
        f"rm -f {shlex.join(there)}\n"
        "systemctl daemon-reload",
    )


def _package(package: Package) -> Change:
    names, binary = " ".join(map(shlex.quote, package.names)), shlex.quote(package.binary)
    return Change(
        f"install package {' '.join(package.names)}",
        _PACKAGE.format(names=names, binary=binary),
        seconds=600,
    )


# The package would start a default instance: policy-rc.d is Debian's way to forbid it. The lines
# run in a shell of their own, so that their trap does not replace the batch's trap.
_PACKAGE = """\
(
if command -v apt-get >/dev/null; then
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\\nexit 101\\n' >$policy
    chmod 755 $policy
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq {names} </dev/null >/dev/null
elif command -v dnf >/dev/null; then
  dnf install -y -q etcd </dev/null
else
  echo "no apt-get or dnf here: give etcd.source a tarball" >&2
  exit 1
fi
[ -x {binary} ] || {{
  echo "the package did not bring {binary}" >&2
  exit 1
}}
)"""


def _unit(unit: Unit, facts: HostFacts, *, reload: bool) -> list[Change]:
    state, restart = facts.unit(unit.name), unit.name in facts.pending_restarts
    name = shlex.quote(unit.name)
    result: list[Change] = []
    if reload or state.needs_reload:
        result.append(
            Change(f"reload systemd for {unit.name}", "systemctl daemon-reload", disrupts=True)
        )
    if state.file_state != "enabled":
        result.append(Change(f"enable {unit.name}", f"systemctl enable -q {name}", disrupts=True))
    running = state.active == "active"
    if running and not restart:
        return result
    # When systemd is about to start a unit again, `start` waits for that; `restart` does not.
    soon = state.sub == "start-pre" or state.sub.startswith("auto-restart")
    verb = "restart" if soon or (restart and state.active != "inactive") else "start"
    pending = f"rm -f {STATE_DIR}/restart.{name}"
    result.append(
        Change(
            f"{verb} {unit.name}",
            f"systemctl reset-failed {name} 2>/dev/null || :\ncode=0; timeout "
            f"{unit.start_seconds} systemctl {verb} {name} || code=$?\nif [ $code != 0 ]; "
            f"then\n  {_last_lines(name)} >&2\n  [ $code != 124 ] || echo {name} is not ready "
            f"after {unit.start_seconds} s, and is still starting >&2\n  exit 1\nfi\n{pending}",
            disrupts=True,
            seconds=unit.start_seconds,
            refusals=unit.refusals,
        )
    )
    return result


def _last_lines(unit: str) -> str:
    """The end of a unit's journal, without stack traces: they hide the line with the reason."""
    return (
        f"journalctl -u {unit} -n 200 --no-pager -o cat | "
        f"sed -e '/^goroutine .*:$/,/^[^ ]*\\.service: /{{/^[^ ]*\\.service: /!d}}' "
        f"""-e 's/,"stacktrace":".*/}}/' | tail -n {LOG_LINES}"""
    )
