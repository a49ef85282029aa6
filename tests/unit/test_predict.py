"""The prediction held against the real scripts: they run in a folder, and the facts are read again.

Users, packages and units are not changed on this machine: their commands are stand-ins on PATH,
which do to the folder what systemd and the rest do to a host.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from provision.artifacts import Artifact
from provision.etcd.pki import certificates, own_ca
from provision.host import resources
from provision.host.diff import Change, answered, batch, changes, questions
from provision.host.facts import HostFacts, PathState, Probe, UnitState, parse, script
from provision.host.predict import FOLDER_SIZE, PID, UNKNOWN, after
from provision.host.resources import (
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
from provision.ssh.session import Result, whole
from tests.unit import hosts
from tests.unit.hosts import ME, text

#: Another user with a group of the same name; only root can give it something.
OTHER = "daemon" if os.getuid() == 0 else ME
UUID = "11111111-2222-3333-4444-555555555555"

SYSTEMCTL = """#!/bin/sh
verb=$1
shift
show() {
  d=$HOST_ROOT/.systemd/$1
  [ -e "$d.file" ] || {
    printf '%s\\n' "Id=$1" LoadState=not-found ActiveState=inactive SubState=dead
    return
  }
  state=inactive sub=dead pid=0 file=disabled reload=no
  [ ! -e "$d.enabled" ] || file=enabled
  [ ! -e "$d.started" ] || state=active sub=running pid=4711
  case $1:$state in *.timer:active) sub=waiting pid=0;; esac
  [ $state = inactive ] || cmp -s "$d.file" "$d.loaded" || reload=yes
  printf '%s\\n' "MainPID=$pid" NRestarts=0 "Id=$1" LoadState=loaded "ActiveState=$state" \\
    "SubState=$sub" "UnitFileState=$file" "NeedDaemonReload=$reload"
}
if [ "$verb" = show ]; then
  shift 2
  for unit in "$@"; do show "$unit"; echo; done
  exit
fi
while [ $# -gt 1 ]; do shift; done
d=$HOST_ROOT/.systemd/$1
case $verb in
  daemon-reload)
    for f in "$HOST_ROOT"/.systemd/*.file; do
      [ ! -e "$f" ] || cp "$f" "${f%.file}.loaded"
    done;;
  enable) : >"$d.enabled";;
  disable) rm -f "$d.enabled" "$d.started";;
  start | restart) cp "$d.file" "$d.loaded"; : >"$d.started";;
  stop) rm -f "$d.started";;
esac
"""
USERADD = """#!/bin/sh
while [ $# -gt 1 ]; do
  case $1 in --home-dir) home=$2;; --comment) comment=$2;; esac
  shift
done
echo "$1:x:998:998:$comment:$home:/usr/sbin/nologin" >>"$HOST_ROOT/.users"
"""
GROUPADD = """#!/bin/sh
while [ $# -gt 1 ]; do shift; done
echo "$1:x:998:" >>"$HOST_ROOT/.groups"
"""
GETENT = """#!/bin/sh
case $1 in passwd) list=users;; *) list=groups;; esac
shift
code=0
for name in "$@"; do grep "^$name:" "$HOST_ROOT/.$list" || code=2; done
exit $code
"""
APT_GET = """#!/bin/sh
head -c 1048576 /dev/zero >"$HOST_ROOT/bin/etcd"
chmod 755 "$HOST_ROOT/bin/etcd"
"""


class Host:
    """A folder as a host: the real scripts run, with the stand-ins on their PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shims = root / ".shims"
        (root / ".systemd").mkdir(parents=True)
        (root / "bin").mkdir()
        for name in (".users", ".groups"):
            (root / name).touch()
        shims.mkdir()
        for name, body in {
            "systemctl": SYSTEMCTL,
            "useradd": USERADD,
            "groupadd": GROUPADD,
            "getent": GETENT,
            "apt-get": APT_GET,
        }.items():
            (shims / name).write_text(body)
            (shims / name).chmod(0o755)

    def unit(self, name: str) -> File:
        """The unit's file, where the stand-in for systemd reads it."""
        return File(f"{self.root}/.systemd/{name}.file", b"[Unit]\n", ME, restarts=(name,))

    def run(self, body: str, stdin: bytes | None = None) -> Result:
        body = hosts.below(self.root, body)
        body = body.replace("/usr/sbin/policy-rc.d", f"{self.root}/.policy")
        env = {**os.environ, "PATH": f"{self.root}/.shims:{os.environ['PATH']}"}
        env["HOST_ROOT"] = str(self.root)
        given = ["-c", body] if stdin is not None else ["-s"]
        done = subprocess.run(
            ["sh", *given],
            input=stdin if stdin is not None else whole(body).encode(),
            capture_output=True,
            cwd=self.root,
            env=env,
            timeout=30,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode(), 0.0)

    def facts(self, *resources: Sequence[Resource]) -> HostFacts:
        every = tuple(r for some in resources for r in some)
        return parse(self.run(script(Probe(resources=every))), "here")

    def apply(self, todo: Sequence[Change]) -> None:
        """As the runner of plans does it: uploads, questions, the batch."""
        for change in todo:
            if change.upload is not None:
                tree = change.upload
                done = self.run(tree.receive(), tree.artifact.path.read_bytes())
                assert done.ok, done.stderr
        scripts = [change for change in todo if change.script or change.ask]
        if asked := questions(scripts):
            said = self.run(asked)
            assert said.ok, said.stderr
            scripts = answered(scripts, said.stdout)
        if scripts:
            done = self.run(batch(scripts))
            assert done.ok, done.stderr


def comparable(facts: HostFacts, *made: str) -> dict[str, object]:
    """What resources are about. A folder's size is the file system's; the contents of the paths
    ``made`` are made on the way. Without root, what is root's is the user's who runs the tests."""

    def plain(path: str, state: PathState) -> PathState:
        if state.owner == "root":
            state = replace(state, owner=ME, group=ME)
        if state.kind == "dir":
            return replace(state, size=FOLDER_SIZE)
        if path in made:
            content = UNKNOWN if state.content is not None else None
            return replace(state, size=1, content=content)
        return state

    return {
        "paths": {p: plain(p, s) for p, s in facts.paths.items()},
        "users": dict(facts.users),
        "groupless": facts.groupless,
        "units": dict(facts.units),
        "owed": facts.pending_restarts,
    }


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


def hold(host: Host, *stages: Sequence[Resource], made: Sequence[str] = ()) -> HostFacts:
    """Make each of ``stages`` true, one after another, as predicted."""
    for n, stage in enumerate(stages):
        before = host.facts(*stages)
        todo = changes(stage, before)
        assert todo
        host.apply(todo)
        seen = host.facts(*stages)
        predicted = after(stage, before)
        assert comparable(predicted, *made) == comparable(seen, *made), f"stage {n}"
        assert changes(stage, seen) == changes(stage, predicted) == ()
        assert after(stage, seen) is seen
        assert after(stage, predicted) is predicted
    return seen


@pytest.mark.process
def test_users(host: Host) -> None:
    hold(host, [User("etcd", "/var/lib/etcd")], [User("alluxio", "/var/lib/alluxio")])


@pytest.mark.process
def test_a_user_of_the_site_gets_a_group_of_its_name(host: Host) -> None:
    """It is in another group: one of LDAP, say, or of everybody who works with Hadoop."""
    users = host.root / ".users"
    users.write_text("alluxio:x:7001:7000:Alluxio:/home/alluxio:/bin/bash\n")
    (host.root / ".groups").write_text("hadoop:x:7000:\n")
    wanted = [User("alluxio", "/var/lib/alluxio")]
    (change,) = changes(wanted, host.facts(wanted))
    assert change.what == "create system group alluxio: the user alluxio is there without it"
    hold(host, wanted)
    assert (host.root / ".groups").read_text().splitlines()[1:] == ["alluxio:x:998:"]
    assert len(users.read_text().splitlines()) == 1


@pytest.mark.process
def test_folders_and_data_disks(host: Host) -> None:
    path = f"{host.root}/data"
    hold(host, [Directory(path, ME, 0o700)], [Directory(path, OTHER, 0o750)], [DataDisk(path)])


def test_a_file_in_the_place_of_a_folder_differs() -> None:
    facts = hosts.facts(paths={"/f": text("x", 0o755)})
    assert after([Directory("/f")], facts).paths["/f"].kind == "dir"
    assert changes([Directory("/f")], facts)


@pytest.mark.process
def test_files_plain_and_secret_and_of_which_only_the_owner_matters(host: Host) -> None:
    path = f"{host.root}/file"
    hold(
        host, [File(path, b"one\n", ME)], [File(path, b"two\n", ME)], [File(path, None, ME, 0o600)]
    )
    path = f"{host.root}/secret"
    one, two = (File(path, text, ME, 0o600, secret=True) for text in (b"one", b"two"))
    hold(host, [one], [two])
    hold(host, [File(f"{host.root}/made", None, ME)])


@pytest.mark.process
def test_a_file_that_is_too_large_to_be_sent(host: Host) -> None:
    """Nobody knows what it holds, so it is written again each time."""
    large = [File(f"{host.root}/large", bytes((256 << 10) + 1), ME)]
    before = host.facts(large)
    host.apply(changes(large, before))
    seen = host.facts(large)
    assert comparable(after(large, before)) == comparable(seen)
    assert changes(large, seen)


@pytest.mark.process
def test_an_identity_that_is_there_stays(host: Host) -> None:
    path = f"{host.root}/identity"
    seen = hold(host, [Identity(path, ME, UUID)])
    assert after([Identity(path, ME, "another")], seen) is seen
    Path(path).write_bytes(b"")
    hold(host, [Identity(path, ME, UUID)])


@pytest.mark.process
def test_links(host: Host) -> None:
    path = f"{host.root}/current"
    hold(host, [Link(path, "3.6.16", ("a.service",))], [Link(path, "3.7.3", ("a.service",))])


@pytest.mark.process
def test_packages(host: Host) -> None:
    hold(host, [Package(("etcd-server",), f"{host.root}/bin/etcd")])


def another(artifact: Artifact) -> Artifact:
    """The same release in another tarball."""
    import gzip
    import hashlib

    path = artifact.path.with_name("another.tar.gz")
    path.write_bytes(gzip.compress(gzip.decompress(artifact.path.read_bytes()), mtime=1))
    body = path.read_bytes()
    return Artifact(path, hashlib.sha256(body).hexdigest(), len(body))


@pytest.mark.process
def test_trees_take_with_them_what_lies_in_them(host: Host, tmp_path: Path) -> None:
    artifact = hosts.tarball(tmp_path)
    home = f"{host.root}/release"
    tree = Tree(home, artifact, ("a.service",))
    conf = File(f"{home}/conf", b"x\n", ME)
    replaced = replace(tree, artifact=another(artifact))
    hold(host, [tree, conf], [replaced])
    hold(host, [tree, conf])


@pytest.mark.process
def test_a_folder_that_is_taken_out_of_a_tree(host: Host, tmp_path: Path) -> None:
    artifact = hosts.tarball(tmp_path)
    home, target = f"{host.root}/release", f"{host.root}/metastore"
    tree, source = Tree(home, artifact, ("a.service",)), f"{home}/metastore"
    hold(host, [tree])
    moved = Move(source, target, OTHER, "b.service")
    replaced = replace(tree, artifact=another(artifact), before=(moved,))
    back = replace(tree, before=(moved,))
    # As plans declare it, and the tree alone.
    stages: list[list[Resource]] = [[moved, replaced], [back]]
    for wanted in stages:
        if Path(target).exists():
            Path(target).rmdir()
        Path(source).mkdir(mode=0o700)
        every = [*wanted, Directory(source), Directory(target)]
        before = host.facts(every)
        host.apply(changes(wanted, before))
        assert comparable(after(wanted, before)) == comparable(host.facts(every))
        assert Path(target).exists()
        for mark in (host.root / ".state").glob("restart.*"):
            mark.unlink()


@pytest.mark.process
def test_a_folder_that_is_moved_with_what_lies_in_it(host: Host) -> None:
    source, target = f"{host.root}/old", f"{host.root}/new"
    inside: list[Resource] = [Directory(source, ME, 0o700), Directory(f"{source}/db", ME)]
    hold(host, inside)
    move = Move(source, target, OTHER, "a.service")
    every = [*inside, move, Directory(f"{target}/db", ME)]
    before = host.facts(every)
    host.apply(changes([move], before))
    assert comparable(after([move], before)) == comparable(host.facts(every))


@pytest.mark.process
def test_certificates(host: Host) -> None:
    path = f"{host.root}/peer"
    ca = own_ca.ensure_ca(host.root / ".pki", "c")
    pair = certificates.leaf(ca, "infra1", ("10.0.0.1",))
    made = Certificate(path, ME, "infra1", pair=(pair.cert_pem, pair.key_pem))
    before = host.facts([made])
    host.apply(changes([made], before))
    predicted, seen = after([made], before), host.facts([made])
    assert comparable(predicted) == comparable(seen)
    kept = Certificate(path, ME)
    assert after([kept], seen) is seen
    assert changes([kept], predicted) == ()

    def sign(request: bytes) -> bytes:
        return certificates.sign_csr(ca, request, "infra1", ("10.0.0.1",), days=5)

    # The key of a run that was killed waits there.
    host.apply(changes([made], host.facts([made])))
    Path(f"{path}.key").rename(f"{path}.key.new")
    signed = replace(made, pair=None, sign=sign)
    before = host.facts([made])
    host.apply(changes([signed], before))
    files = f"{path}.crt", f"{path}.key"
    assert comparable(after([signed], before), *files) == comparable(host.facts([made]), *files)
    # It was killed between the two renames.
    Path(f"{path}.crt").rename(f"{path}.crt.new")
    hold(host, [kept], made=files)
    Path(f"{path}.key").chmod(0o640)
    hold(host, [kept])
    # What is there is right, but there is nothing: the change fails, so there has to be one.
    assert changes([Certificate("/nowhere", ME)], hosts.facts())


@pytest.mark.process
def test_units_are_started_and_restarted(host: Host) -> None:
    service, timer = host.unit("a.service"), host.unit("a.timer")
    both: list[Resource] = [service, timer, Unit("a.service"), Unit("a.timer")]
    seen = hold(host, both)
    assert seen.unit("a.service").pid == PID
    # A restart that is owed stays owed until the unit is among the resources.
    changed = replace(service, content=b"[Unit]\n# changed\n")
    assert after([changed], seen).pending_restarts == {"a.service"}
    note = File(f"{host.root}/conf", b"x", ME, restarts=("a.service",))
    seen = hold(host, [note])
    assert seen.pending_restarts == {"a.service"}
    assert hold(host, [note, Unit("a.service")]).pending_restarts == set()


@pytest.mark.process
def test_a_unit_that_was_stopped_or_disabled(host: Host) -> None:
    both: list[Resource] = [host.unit("a.service"), Unit("a.service")]
    hold(host, both)
    for mark in ("started", "enabled"):
        (host.root / f".systemd/a.service.{mark}").unlink()
        hold(host, both)
    (host.root / ".systemd/a.service.file").write_text("[Unit]\n# of somebody\n")
    assert host.facts(both).unit("a.service").needs_reload
    hold(host, [Unit("a.service")])


def test_a_restart_makes_another_process() -> None:
    path = "/etc/systemd/system/a.service"
    failing = UnitState("loaded", "active", "running", "enabled", 7, 3)
    facts = hosts.facts(units={"a.service": failing}, paths={path: text("[Unit]\n")})
    assert after([Unit("a.service")], facts) is facts
    owed = replace(facts, pending_restarts=frozenset({"a.service"}))
    now = after([Unit("a.service")], owed).unit("a.service")
    assert (now.pid, now.restarts, now.fragment) == (PID, 0, path)


@pytest.mark.process
def test_what_is_absent(host: Host) -> None:
    file = host.unit("a.timer")
    seen = hold(host, [file, Unit("a.timer")], [Absent("a.timer", (file.path, "/nowhere"))])
    assert seen.unit("a.timer") == UnitState()


def test_every_kind_is_held_here() -> None:
    said = Path(__file__).read_text().partition("class Host")[2]
    kinds = {kind.__name__ for kind in Resource.__subclasses__()}
    assert len(kinds) == 12
    assert [kind for kind in kinds if f"{kind}(" not in said] == []
    assert kinds <= set(resources.__all__)


def test_nothing_that_was_not_asked_for_is_made_up() -> None:
    facts = hosts.facts(paths={"/f": text("x")})
    assert after([], facts) is facts
    found = after([File("/g", b"", restarts=("a.service",))], facts)
    assert found.paths["/f"] is facts.paths["/f"]
    assert found.pending_restarts == {"a.service"}
    assert facts.pending_restarts == frozenset()
