"""Desired against observed: the changes, and their scripts really run in a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.artifacts import Artifact
from provision.host.diff import Change, batch, changes
from provision.host.facts import PathState, Probe, UnitState, parse, script
from provision.host.predict import after
from provision.host.resources import (
    MARKER,
    Directory,
    File,
    Identity,
    Link,
    Package,
    Resource,
    Tree,
    Unit,
    User,
)
from provision.ssh.session import whole
from tests.unit import hosts
from tests.unit.hosts import ME, do, facts, look, shell, text

UUID = "11111111-2222-3333-4444-555555555555"
names = st.from_regex(r"[a-z][a-z0-9._-]{0,8}", fullmatch=True)
paths = st.lists(names, min_size=2, max_size=4).map(lambda parts: "/" + "/".join(parts))
modes = st.sampled_from([0o600, 0o640, 0o644, 0o700, 0o755])
resources = st.one_of(
    st.builds(User, names, home=paths),
    st.builds(Directory, paths, names, modes),
    st.builds(File, paths, st.binary(max_size=60), names, modes, st.booleans()),
    st.builds(Identity, paths, names, st.just(UUID)),
    st.builds(Tree, paths, st.just(hosts.TARBALL), st.just(("a.service",))),
    st.builds(Link, paths, names),
    st.builds(Package, st.just(("etcd",)), paths),
    st.builds(Unit, st.sampled_from(["a.service", "b.service"])),
)


def _place(resource: Resource) -> str:
    return str(getattr(resource, "path", getattr(resource, "binary", resource)))


@pytest.mark.long
@given(st.lists(resources, max_size=8, unique_by=_place))
def test_what_is_as_declared_is_not_changed(declared: list[Resource]) -> None:
    assert changes(declared, after(declared, facts())) == ()


@pytest.mark.process
@given(st.lists(resources, max_size=8, unique_by=_place))
def test_every_batch_is_a_shell_script(declared: list[Resource]) -> None:
    todo = changes(declared, facts())
    script = whole(batch(todo))
    assert subprocess.run(["sh", "-n"], input=script.encode(), timeout=10).returncode == 0


@pytest.mark.long
@given(declared=st.lists(resources, max_size=6, unique_by=_place), data=st.data())
def test_only_what_differs_is_changed(declared: list[Resource], data: st.DataObject) -> None:
    """Whatever subset is done, doing the rest is what is left."""
    kept = [r for r in declared if not isinstance(r, Tree)]
    done = [r for r in kept if data.draw(st.booleans())]
    left = changes(kept, after(done, facts()))
    alone = [c for r in kept if r not in done for c in changes([r], facts())]
    assert {c.what for c in alone} >= {c.what for c in left if "restart" not in c.what}


@pytest.mark.process
def test_a_script_that_arrives_cut_short_does_nothing(tmp_path: Path) -> None:
    todo = changes([Directory(f"{tmp_path}/a", ME), File(f"{tmp_path}/b", b"x", ME)], facts())
    script = whole(hosts.below(tmp_path, batch(todo)))
    body = script.encode()
    # The last new line is not part of it: "main" alone runs all.
    for end in range(0, len(body) - len("\nmain\n"), 41):
        hosts.run(body[:end], tmp_path)
        assert list(tmp_path.iterdir()) == []
    assert hosts.run(body, tmp_path).ok
    assert (tmp_path / "b").read_text() == "x"


@pytest.mark.process
def test_changes_really_done(tmp_path: Path) -> None:
    declared: list[Resource] = [
        Directory(f"{tmp_path}/conf", ME, 0o750),
        File(f"{tmp_path}/conf/plain", b"a: 1\n$HOME `id` '\"\\\n\xff\x00", ME, 0o640),
        File(f"{tmp_path}/conf/empty", b"", ME),
        File(f"{tmp_path}/conf/secret", b"@@end\nhunter2", ME, 0o600, secret=True),
        Identity(f"{tmp_path}/identity", ME, UUID),
        Link(f"{tmp_path}/current", "3.6.16"),
    ]
    todo = changes(declared, look(declared, tmp_path))
    result = do(todo, tmp_path)
    assert result.ok, result.stderr
    assert result.stdout.split("\n")[-2] == f"@@done {len(todo) - 1}"
    assert changes(declared, look(declared, tmp_path)) == ()
    assert (tmp_path / "conf/plain").read_bytes() == b"a: 1\n$HOME `id` '\"\\\n\xff\x00"
    assert (tmp_path / "conf/secret").stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in (tmp_path / "conf").iterdir()) == ["empty", "plain", "secret"]


@pytest.mark.process
def test_every_difference_is_seen_and_put_right(tmp_path: Path) -> None:
    declared: list[Resource] = [
        Directory(f"{tmp_path}/dir", ME, 0o700),
        File(f"{tmp_path}/file", b"new\n", ME, 0o600),
        Link(f"{tmp_path}/link", "new"),
    ]
    (tmp_path / "dir").mkdir(mode=0o755)
    (tmp_path / "file").write_text("old\n")
    (tmp_path / "link").symlink_to("old")
    todo = changes(declared, look(declared, tmp_path))
    assert [c.what for c in todo] == [
        f"set {tmp_path}/dir to {ME} 0700",
        f"change {tmp_path}/file",
        f"point {tmp_path}/link to new",
    ]
    assert do(todo, tmp_path).ok
    assert changes(declared, look(declared, tmp_path)) == ()
    (tmp_path / "file").chmod(0o644)
    (again,) = changes(declared, look(declared, tmp_path))
    assert again.what == f"set {tmp_path}/file to {ME} 0600"
    assert do([again], tmp_path).ok
    assert changes(declared, look(declared, tmp_path)) == ()


@pytest.mark.process
def test_the_first_failure_stops_the_batch(tmp_path: Path) -> None:
    todo = [Change("a", "echo one"), Change("b", "echo no >&2; false"), Change("c", "touch c")]
    result = do(todo, tmp_path)
    assert not result.ok
    assert "@@done 0" in result.stdout
    assert "@@done 1" not in result.stdout
    assert not (tmp_path / "c").exists()


@pytest.mark.process
def test_a_directory_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    declared: list[Resource] = [Directory(f"{tmp_path}/x", ME)]
    result = do(changes(declared, look(declared, tmp_path)), tmp_path)
    assert not result.ok
    assert "is a file" in result.stderr
    assert (tmp_path / "x").read_text() == "mine"


def test_an_identity_is_never_changed() -> None:
    declared = Identity("/state/worker_identity", "alluxio", UUID)
    there = facts(paths={declared.path: text("another\n")})
    assert changes([declared], there) == ()
    empty = facts(paths={declared.path: PathState("file", "root", "root", 0o644, 0, b"")})
    assert len(changes([declared], empty)) == 1


def test_the_diff_of_a_secret_is_not_shown() -> None:
    file = File("/f", b"password=hunter2", mode=0o600, secret=True)
    old = replace(text("x", 0o600), content=None, sha256=hashlib.sha256(b"swordfish").hexdigest())
    (change,) = changes([file], facts(paths={"/f": old}))
    assert change.diff == "~/f holds secrets: the difference is not shown\n"
    assert "hunter2" not in repr((change.what, change.diff))


def test_nor_that_of_a_file_that_was_private_until_now() -> None:
    there = facts(paths={"/f": text("alluxio.etcd.password=hunter2\n", mode=0o600)})
    (change,) = changes([File("/f", b"nothing private\n")], there)
    assert "hunter2" not in change.diff


def test_a_diff_does_not_steer_the_terminal() -> None:
    there = facts(paths={"/f": text("a\x1b]0;owned\x07\n\tb\u202e\nend")})
    (change,) = changes([File("/f", b"c\n")], there)
    assert change.diff.replace("\n", "").isprintable()
    assert change.diff.splitlines()[-1] == "+c"


class TestUnit:
    unit = "etcd.service"
    running = UnitState("loaded", "active", "running", "enabled", 1)

    def verbs(self, state: UnitState, *, pending: bool = False, file: bool = False) -> list[str]:
        seen = facts(
            units={self.unit: state}, pending_restarts=frozenset({self.unit} if pending else ())
        )
        declared: list[Resource] = [Unit(self.unit)]
        if file:
            declared.insert(0, File(f"/etc/systemd/system/{self.unit}", b"", restarts=(self.unit,)))
        return [c.what.split()[0] for c in changes(declared, seen)]

    def test_running(self) -> None:
        assert self.verbs(self.running) == []

    def test_new(self) -> None:
        assert self.verbs(UnitState(), file=True) == ["write", "enable", "reload", "start"]

    def test_a_change_of_its_file_restarts_it_once(self) -> None:
        assert self.verbs(self.running, file=True) == ["write", "reload", "restart"]

    def test_a_restart_that_a_killed_run_has_left(self) -> None:
        assert self.verbs(self.running, pending=True) == ["restart"]

    def test_failed(self) -> None:
        assert self.verbs(UnitState("loaded", "failed", "failed", "enabled")) == ["start"]

    def test_disabled(self) -> None:
        assert self.verbs(UnitState("loaded", "active", "running", "disabled", 1)) == ["enable"]

    def test_the_restart_is_noted_before_the_file_and_forgotten_after(self) -> None:
        file = File("/f", b"new", restarts=(self.unit,))
        seen = facts(units={self.unit: self.running}, paths={"/f": text("old")})
        script = batch(changes([file, Unit(self.unit)], seen))
        note, write = script.index("touch /run/alluxio-provision/restart."), script.index("base64")
        restart, forget = script.index("systemctl restart"), script.index("rm -f /run/")
        assert note < write < restart < forget

    def test_it_is_waited_for_as_long_as_is_right(self) -> None:
        script = batch(changes([Unit(self.unit, 600)], facts(units={self.unit: self.running})))
        assert "systemctl" not in script
        script = batch(changes([Unit(self.unit, 600)], facts()))
        assert f"timeout 600 systemctl start {self.unit} || code=$?" in script
        assert "is not ready after 600 s, and is still starting" in script

    @pytest.mark.process
    @pytest.mark.parametrize(
        ("jobs", "says"),
        [
            (
                ["1 etcd.service start waiting", "2 cables.service start running"],
                "systemd does not start etcd.service before this ends: cables.service (systemctl "
                "list-jobs); then it starts by itself",
            ),
            (
                ["1 etcd.service start running"],
                "a line of its log\netcd.service is not ready after 1 s",
            ),
            ([], "a line of its log\netcd.service is not ready after 1 s"),
        ],
        ids=["another first", "itself", "none"],
    )
    def test_a_start_that_has_not_begun_says_what_comes_first(
        self, tmp_path: Path, jobs: list[str], says: str
    ) -> None:
        for name, lines in {
            "systemctl": f"[ $1 != list-jobs ] || echo '{chr(10).join(jobs)}'\n"
            "[ $1 != start ] || exec sleep 20",
            "journalctl": "echo a line of its log",
        }.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\n")
            (tmp_path / name).chmod(0o755)
        (change,) = [c for c in Unit(self.unit, 1).change(facts(), facts()) if "start" in c.what]
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-c", change.script], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith(says)
        assert ("log" in done.stderr) == ("log" in says)


class TestTree:
    tree = Tree("/opt/alluxio/313", hosts.TARBALL, ("w.service",))
    conf = File("/opt/alluxio/313/conf/site", b"x", restarts=("w.service",))

    def test_a_new_folder_disturbs_nobody(self) -> None:
        (change,) = changes([self.tree], facts())
        assert change.upload is self.tree
        assert change.non_disruptive

    def test_another_tarball_of_the_same_release_restarts(self) -> None:
        """And what we wrote into the old folder is written again: it went with it."""
        declared: list[Resource] = [self.tree, self.conf, Unit("w.service")]
        there = after(declared, facts())
        other = replace(self.tree, artifact=replace(hosts.TARBALL, sha256="b" * 64))
        todo = changes([other, *declared[1:]], there)
        assert [c.what.split()[0] for c in todo] == ["replace", "write", "restart"]

    def test_what_lies_in_a_tree_is_written_in_the_step_that_replaces_it(self) -> None:
        """Written before, with what no service notices, it would go with the old tree."""
        unnoticed = File("/opt/alluxio/313/conf/workers", b"w1\n")
        beside = File("/opt/alluxio/313.txt", b"x")
        declared: list[Resource] = [self.tree, unnoticed, Unit("w.service")]
        there = after(declared, facts())
        other = replace(self.tree, artifact=replace(hosts.TARBALL, sha256="b" * 64))
        todo = changes([other, unnoticed, beside, Unit("w.service")], there)
        assert [(c.what, c.non_disruptive) for c in todo] == [
            ("replace /opt/alluxio/313 from release.tar.gz", False),
            ("write /opt/alluxio/313/conf/workers", False),
            ("write /opt/alluxio/313.txt", True),
            ("restart w.service", False),
        ]
        assert all(c.non_disruptive for c in changes([self.tree, unnoticed], facts()))


@pytest.fixture
def tarball(tmp_path: Path) -> Artifact:
    return hosts.tarball(tmp_path)


def _receive(tree: Tree, body: bytes, root: Path) -> int:
    command = hosts.below(root, tree.receive())
    return subprocess.run(["sh", "-c", command], input=body, capture_output=True).returncode


@pytest.mark.process
def test_upload(tarball: Artifact, tmp_path: Path) -> None:
    tree = Tree(f"{tmp_path}/opt/x y/1", tarball, ("w.service",))
    body = tarball.path.read_bytes()
    for broken in (body[:-7], b"", body + b"x"):
        assert _receive(tree, broken, tmp_path) != 0
        assert list((tmp_path / "opt/x y").iterdir()) == []
    left = tmp_path / "opt/x y/.incoming.killed"
    left.mkdir()
    assert _receive(tree, body, tmp_path) == 0
    assert (tmp_path / "opt/x y/1/bin/tool").read_text() == "hello"
    assert [p.name for p in (tmp_path / "opt/x y").iterdir()] == ["1"]
    assert not (tmp_path / ".state").exists()
    assert changes([tree], look([tree], tmp_path)) == ()


@pytest.mark.process
def test_an_upload_over_another_notes_the_restart(tarball: Artifact, tmp_path: Path) -> None:
    tree = Tree(f"{tmp_path}/1", tarball, ("w.service",))
    (tmp_path / "1").mkdir()
    (tmp_path / "1/old").touch()
    # It is somebody else's: nothing in it is deleted.
    assert _receive(tree, tarball.path.read_bytes(), tmp_path) != 0
    assert (tmp_path / "1/old").exists()
    (tmp_path / "1" / MARKER).write_text("another tarball's digest")
    assert _receive(tree, tarball.path.read_bytes(), tmp_path) == 0
    assert not (tmp_path / "1/old").exists()
    assert (tmp_path / ".state/restart.w.service").exists()


#: mv of uutils 0.0.30 takes a link to a folder for the folder, also with -T.
_MV = """
mv() {
  for last; do :; done
  if [ -L "$last" ] && [ -d "$last" ]; then echo "mv: Directory not empty" >&2; return 1; fi
  command mv "$@"
}
"""


@pytest.mark.process
@pytest.mark.parametrize("mv", ["", _MV], ids=["GNU", "uutils 0.0.30"])
@pytest.mark.parametrize("left", [False, True], ids=["", "after a kill"])
def test_a_link_to_a_folder_is_pointed_elsewhere(tmp_path: Path, mv: str, left: bool) -> None:
    for name in ("313", "314"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "current").symlink_to("313")
    if left:
        (tmp_path / "current.new").symlink_to("313")
    declared = [Link(f"{tmp_path}/current", "314")]
    (change,) = changes(declared, look(declared, tmp_path))
    done = hosts.shell(f"set -e\n{mv}{change.script}", tmp_path)
    assert (done.ok, done.stderr) == (True, "")
    assert os.readlink(tmp_path / "current") == "314"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] != ".") == [
        "313",
        "314",
        "current",
    ]
    assert (tmp_path / "313" / "file").read_text() == "313"


@pytest.mark.process
@pytest.mark.skipif(shutil.which("busybox") is None, reason="no busybox here")
def test_busybox_runs_a_batch_too(tmp_path: Path) -> None:
    todo = changes([File(f"{tmp_path}/f", b"x" * 999, ME), Link(f"{tmp_path}/l", "f")], facts())
    local = hosts.below(tmp_path, batch(todo))
    result = hosts.run(whole(local).encode(), tmp_path, sh=("busybox", "sh"))
    assert result.ok, result.stderr
    assert (tmp_path / "f").read_bytes() == b"x" * 999


@pytest.mark.process
def test_a_batch_waits_for_the_one_before(tmp_path: Path) -> None:
    state = tmp_path / ".state"
    state.mkdir()
    script = whole(hosts.below(tmp_path, batch([Change("a", "echo done")])))
    with (state / "batch.lock").open("w") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        result = hosts.run(script.replace("timeout 120 flock", "flock -n").encode(), tmp_path)
    assert result.code == 1
    assert "earlier run" in result.stderr
    assert shell("true", tmp_path).ok


@pytest.mark.process
def test_a_look_waits_for_the_batch_that_works(tmp_path: Path) -> None:
    """A killed run's last batch is complete before its host is looked at."""
    flag, state = tmp_path / "flag", tmp_path / ".state"
    os.mkfifo(flag)
    change = Change("slow", f"read -r go <{flag}; echo made >{tmp_path}/made")
    local = whole(hosts.below(tmp_path, batch([change])))
    asked = script(Probe(resources=[File(f"{tmp_path}/made", None)]))
    with subprocess.Popen(["sh", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as working:
        assert working.stdin is not None
        working.stdin.write(local.encode())
        working.stdin.close()
        with flag.open("w") as go, ThreadPoolExecutor(1) as pool:  # it waits for us: it works
            assert (state / "batch.lock").read_text() == "works\n"
            looking = pool.submit(shell, asked, tmp_path)
            with pytest.raises(StillWaiting):
                looking.result(0.5)
            go.write("go\n")
            go.flush()
            seen = parse(looking.result(20), "here")
    assert seen.text(f"{tmp_path}/made") == "made\n"


#: How versions before the mark take the lock: the file is empty while they work, and afterwards.
EARLIER = "mkdir -p {state}; exec 9>{state}/batch.lock; flock 9; echo has it; read -r go <{flag}"


@pytest.mark.process
@pytest.mark.parametrize("is_between", [False, True])
def test_a_look_waits_for_a_batch_of_an_earlier_version(is_between: bool, tmp_path: Path) -> None:
    """Another control machine may have it. Also where it waited for a batch of this version."""
    flag, mine, state = tmp_path / "flag", tmp_path / "mine", tmp_path / ".state"
    os.mkfifo(flag)
    os.mkfifo(mine)
    todo = [Change("a", f"read -r go <{mine}" if is_between else ":")]
    local = whole(hosts.below(tmp_path, batch(todo)))
    earlier = EARLIER.format(state=state, flag=flag)
    with ThreadPoolExecutor(2) as pool:
        before = pool.submit(hosts.run, local.encode(), tmp_path)
        if is_between:
            started = mine.open("w")  # it works
        else:
            assert before.result(20).ok
        with subprocess.Popen(["sh", "-c", earlier], stdout=subprocess.PIPE) as working:
            assert working.stdout is not None
            if is_between:
                while (state / "batch.lock").read_text():
                    time.sleep(0.01)
                started.write("go\n")
                started.close()
                assert before.result(20).ok
            assert working.stdout.readline() == b"has it\n"
            with flag.open("w") as go:
                looking = pool.submit(shell, script(Probe()), tmp_path)
                with pytest.raises(StillWaiting):
                    looking.result(0.5)
                go.write("go\n")
            assert looking.result(20).ok


@pytest.mark.process
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_look_starts_no_process_for_a_batch_that_has_ended(
    is_killed: bool, tmp_path: Path
) -> None:
    body = "kill -9 $$" if is_killed else ":"
    assert do([Change("a", body)], tmp_path).ok is not is_killed
    lock = tmp_path / ".state/batch.lock"
    assert lock.read_text() == ("works\n" if is_killed else "ended\n")
    asked = script(Probe()).replace("timeout 90 flock", "echo asked >&2; timeout 90 flock")
    done = shell(asked, tmp_path)
    assert ("asked" in done.stderr) is is_killed, done.stderr
    # The next batch works as ever, and marks its end.
    assert do([Change("a", ":")], tmp_path).ok
    assert lock.read_text() == "ended\n"
