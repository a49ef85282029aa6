"""What a service user gone bad tries against root, with the real scripts and a real user.

Each attack won before root kept away from names that this user can change. A link is put into place
between the look and the work, or before both.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.worker import java, journal, stores
from provision.engine import lock
from provision.errors import ChangeFailed
from provision.etcd.cluster import scratch
from provision.etcd.member import layout, recovery_marker
from provision.etcd.member.recovery_marker import RecoveryMarker
from provision.host import former_owner, safely
from provision.host.diff import Change, batch, changes, questions
from provision.host.facts import BATCH_LOCK, STATE_DIR, HostFacts, Probe, parse, script
from provision.host.kinds.certificates import signing_request
from provision.host.ownership import KEY
from provision.host.proof import Proof
from provision.host.resources import Certificate, DataDisk, Directory, File, Identity, Move, User
from provision.inventory.resolved import Machine
from provision.plans import destroy
from provision.plans.etcd.data import (
    recover_etcd,
    restore_etcd,
    retained,
    snapshot_proof,
    undo_restore,
)
from provision.plans.etcd.members import member_steps
from provision.ssh.session import Result, whole
from tests.unit import builders, hosts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led by another user")

#: A user with a group of its own name, as the services' users are.
USER = "daemon"
UUID = "11111111-2222-3333-4444-555555555555"
SECRET = "root's own\n"
MARK = RecoveryMarker("restore", "20260101T000000Z", "a" * 64)
SYSTEMCTL = '#!/bin/sh\n[ "$1" != is-active ]\n'


class Host:
    """A folder that the user can reach, with a folder ``own`` of the user's, and a secret of
    root's."""

    def __init__(self, root: Path) -> None:
        self.root, self.own, self.secret = root, root / "own", root / "secret"
        self.own.mkdir()
        shutil.chown(self.own, USER, USER)
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        (root / "bin").mkdir()
        (root / "bin/systemctl").write_text(SYSTEMCTL)
        (root / "bin/systemctl").chmod(0o755)

    def as_user(self, command: str) -> subprocess.CompletedProcess[str]:
        """What the attacker does."""
        line = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "sh", "-c", command]
        return subprocess.run(line, cwd=self.own, capture_output=True, text=True, timeout=30)

    def run(self, body: str, stdin: bytes | None = None) -> Result:
        """What root does."""
        body = hosts.below(self.root, body).replace(scratch.SCRATCH, f"{self.root}/scratch")
        env = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        given = ["-s"] if stdin is None else ["-c", body]
        done = subprocess.run(
            ["sh", *given],
            input=whole(body).encode() if stdin is None else stdin,
            capture_output=True,
            env=env,
            cwd="/",
            timeout=30,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode(), 0.0)

    def do(self, *todo: Change) -> Result:
        return self.run(batch(todo))

    def facts(self, probe: Probe) -> HostFacts:
        probe = replace(probe, resources=(User(USER, "/"), *probe.resources))
        return parse(self.run(script(probe)), "here")

    def require_untouched(self) -> None:
        """The secret is root's, and as it was."""
        found = self.secret.lstat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, 0, 0o600)
        assert self.secret.read_text() == SECRET


@pytest.fixture
def host() -> Iterator[Host]:
    # pytest's own folder is closed to other users.
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield Host(folder)
    shutil.rmtree(folder)


def folder_of_keys(host: Host) -> Path:
    """etcd's folder of keys, as earlier versions of this tool made it."""
    pki = host.root / "etcd/pki"
    pki.mkdir(parents=True)
    for name, mode in (("peer.crt", 0o644), ("peer.key", 0o600)):
        (pki / name).write_text("x")
        (pki / name).chmod(mode)
        shutil.chown(pki / name, USER, USER)
    pki.chmod(0o700)
    shutil.chown(pki, USER, USER)
    return pki


def kept_pair(pki: Path) -> list[Any]:
    return [
        Directory(str(pki), mode=0o750, group=USER),
        Certificate(f"{pki}/peer", "root", group=USER),
    ]


@pytest.mark.process
@pytest.mark.parametrize("when", ["before the look", "after the look"])
def test_a_key_that_is_a_link_to_a_file_of_roots(host: Host, when: str) -> None:
    pki = folder_of_keys(host)
    link = f"ln -sf {host.secret} {pki}/peer.key"
    wanted = kept_pair(pki)
    if when == "before the look":
        assert host.as_user(link).returncode == 0
    seen = host.facts(Probe(resources=wanted))
    assert host.as_user(link).returncode == 0
    done = host.do(*changes(wanted, seen))
    assert not done.ok
    assert f"{pki}/peer.key is no plain file" in done.stderr
    host.require_untouched()
    # The folder is root's by then: this user changes no name in it any more.
    assert host.as_user(f"rm -f {pki}/peer.key").returncode != 0


@pytest.mark.process
def test_the_keys_of_an_earlier_version_are_moved_over_and_stay_readable(host: Host) -> None:
    pki = folder_of_keys(host)
    wanted = kept_pair(pki)
    todo = changes(wanted, host.facts(Probe(resources=wanted)))
    assert all(change.non_disruptive for change in todo)
    assert host.do(*todo).ok
    assert changes(wanted, host.facts(Probe(resources=wanted))) == ()
    assert host.as_user(f"cat {pki}/peer.key {pki}/peer.crt").stdout == "xx"
    assert host.as_user(f"echo >{pki}/peer.key || echo >{pki}/new").returncode != 0


@pytest.mark.process
def test_a_key_is_made_only_in_a_folder_of_roots(host: Host) -> None:
    pki = folder_of_keys(host)
    host.as_user(f"ln -s {host.secret} {pki}/peer.key.new")
    done = host.run(questions([Change("", ask=signing_request(f"{pki}/peer", "m", group=USER))]))
    assert "BEGIN CERTIFICATE REQUEST" in done.stdout
    host.require_untouched()
    assert (pki / "peer.key.new").is_file()
    assert not (pki / "peer.key.new").is_symlink()
    assert pki.stat().st_uid == 0


@pytest.mark.process
def test_a_page_store_that_becomes_a_link_before_it_is_given(host: Host) -> None:
    target = host.root / "jdk"
    target.mkdir()
    store = host.own / "pages"
    wanted = [Directory(str(store), USER, 0o750)]
    for make in (f"mkdir {store}", ":"):
        host.as_user(f"rm -rf {store}; {make}")
        todo = changes(wanted, host.facts(Probe(resources=wanted))) or changes(
            wanted, hosts.facts()
        )
        host.as_user(f"rmdir {store}; ln -s {target} {store}")
        done = host.do(*todo)
        assert not done.ok
        assert "pages is a link, and others than root could have made it" in done.stderr
        assert target.stat().st_uid == 0
    host.as_user(f"rm {store}")
    assert host.do(*changes(wanted, hosts.facts())).ok
    found = store.stat()
    assert (store.owner(), store.group(), found.st_mode & 0o7777) == (USER, USER, 0o750)


@pytest.mark.process
def test_a_java_of_the_user_is_not_run_by_root(host: Host) -> None:
    home = host.own / "jdk"
    host.as_user(f"mkdir -p {home}/bin; printf '#!/bin/sh\\nid -u >&2\\n' >{home}/bin/java")
    host.as_user(f"chmod 755 {home}/bin/java")
    for user in (USER, "a-user-that-is-not-there"):
        probe = Probe(commands=java.probe_commands(str(home), user))
        said = host.facts(probe).commands["java"].splitlines()
        assert said in (["1", "ended with 0"], ["65534", "ended with 0"])
    host.as_user(f"rm {home}/bin/java; ln -s {host.secret} {home}/release")
    resources = (File(f"{home}/release", None),)
    probe = Probe(resources=resources, commands=java.probe_commands(str(home), USER))
    assert host.facts(probe).paths[f"{home}/release"].content is None


def member(host: Host) -> Any:
    return replace(builders.member(1), data_dir=str(host.own))


@pytest.mark.process
@pytest.mark.parametrize("name", ["unfinished.new", "unfinished"])
def test_the_mark_of_a_restore(host: Host, name: str) -> None:
    host.as_user(f"ln -s {host.secret} {name}")
    host.do(recovery_marker.stop(member(host), MARK, USER))
    host.require_untouched()
    host.as_user(f"rm -f {name}")
    assert host.do(recovery_marker.stop(member(host), MARK, USER)).ok
    assert (host.own / "unfinished").read_text() == f"{MARK}\n"
    assert (host.own / "unfinished").owner() == USER


@pytest.mark.process
def test_the_log_of_a_scratch_member(host: Host, tmp_path: Path) -> None:
    cluster = replace(builders.etcd(builders.member(1)), user=USER, install_dir=f"{host.root}/e")
    etcdutl = host.root / "e/current/etcdutl"
    etcdutl.parent.mkdir(parents=True)
    etcdutl.write_text("#!/bin/sh\necho from etcdutl >&2\nexit 1\n")
    etcdutl.chmod(0o755)
    folder = f"{scratch.SCRATCH}.0123456789abcdef"
    here = Path(folder.replace(scratch.SCRATCH, f"{host.root}/scratch"))
    snapshot = tmp_path / "s.db"
    snapshot.write_bytes(b"snapshot")
    digest = subprocess.run(["sha256sum", snapshot], capture_output=True).stdout.decode()[:64]
    sent: list[tuple[str, bytes]] = []

    class Fleet:
        def session(self, machine: Machine) -> Fleet:
            return self

        def feed(self, command: str, body: Any, what: str) -> Result:
            sent.append((command, body.read()))
            return host.run(command.replace("find /var/tmp ", f"find {host.root} "), sent[-1][1])

    etcd = type("Etcd", (), {"cluster": cluster, "fleet": Fleet()})
    scratch._upload(etcd(), builders.member(1), snapshot, digest, folder)
    assert host.as_user(f"cat {here}/db").stdout == "snapshot"
    assert host.as_user(f"ln -s {host.secret} {here}/log").returncode != 0
    assert host.as_user(f"rm -f {here}/db").returncode != 0
    assert host.as_user(f"mkdir {here}/own/data").returncode == 0
    done = host.run(scratch._script(cluster, folder, 20001))
    assert "failed from etcdutl" in done.stdout
    host.require_untouched()
    assert not here.exists()


@pytest.mark.process
def test_the_stamp_of_a_restore_and_of_a_recovery(host: Host) -> None:
    """What is swapped in is moved and stamped by the user itself."""
    host.as_user(f"mkdir member; ln -s {host.secret} member/recovered-by")
    chosen = member(host)
    cluster = replace(builders.etcd(chosen), user=USER)
    script = recover_etcd._force(cluster, chosen, MARK).script
    host.run("set -e\n" + script[script.rindex("rm -rf") :])
    host.require_untouched()
    elsewhere = host.root / "elsewhere"
    (elsewhere / "member").mkdir(parents=True)
    host.as_user(f"rm -rf member; ln -s {elsewhere} new")
    host.do(Change("", restore_etcd.aside(chosen, MARK, "new/member")))
    assert (elsewhere / "member").is_dir()


@pytest.mark.process
def test_a_copy_of_a_members_data(host: Host) -> None:
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir()
    chosen = member(host)
    name = Path(restore_etcd.kept(chosen, MARK)).name
    host.as_user("mkdir member; echo x >member/evil")
    # It wins the race between `rm` and `cp`, as a `cp` of its own shows.
    (host.root / "bin/rm").write_text(f"#!/bin/sh\nln -sfn {elsewhere} {host.own}/{name}.part\n")
    (host.root / "bin/rm").chmod(0o755)
    host.do(recover_etcd._keep(chosen, MARK))
    assert not list(elsewhere.rglob("evil"))


@pytest.mark.process
def test_an_identity(host: Host) -> None:
    path = host.own / "worker_identity"
    todo = changes([Identity(str(path), USER, UUID)], hosts.facts())
    host.as_user(f"ln -s {host.secret} {path}")
    # The attacker wins the race for the temporary file's name.
    (host.root / "bin/mktemp").write_text(
        f'#!/bin/sh\nln -sf {host.secret} {host.own}/t; echo "{host.own}/t"\n'
    )
    (host.root / "bin/mktemp").chmod(0o755)
    host.do(*todo)
    host.require_untouched()
    (host.root / "bin/mktemp").unlink()
    assert host.do(*todo).ok
    assert (path.read_text(), path.owner(), path.is_symlink()) == (f"{UUID}\n", USER, False)
    assert path.stat().st_mode & 0o7777 == 0o644


@pytest.mark.process
def test_the_marker_of_a_data_disk(host: Host) -> None:
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir()
    inner = host.own / "inner"
    host.as_user(f"ln -s {elsewhere} {inner}")
    done = host.do(*changes([DataDisk(str(inner))], hosts.facts()))
    assert not done.ok
    assert list(elsewhere.iterdir()) == []


@pytest.mark.process
def test_a_metastore_on_its_way(host: Host) -> None:
    """With another file system there, the user copies it: root makes no file in its folder."""
    source = host.root / "release/metastore"
    (source / "DoraMeta").mkdir(parents=True)
    (source / "DoraMeta/CURRENT").write_text("x")
    subprocess.run(["chown", "-R", f"{USER}:{USER}", source], check=True)
    (host.root / "bin/df").write_text(
        "#!/bin/sh\nprintf '%s\\n' heading '/dev/a 1 1 1 1% /a' '/dev/b 1 1 1 1% /b'\n"
    )
    (host.root / "bin/df").chmod(0o755)
    (host.root / "bin/cp").write_text(f'#!/bin/sh\nid -u >{host.own}/who\nexec /bin/cp "$@"\n')
    (host.root / "bin/cp").chmod(0o755)
    move = Move(str(source), f"{host.own}/metastore", USER, "w.service")
    assert host.do(*changes([move], hosts.facts())).ok
    assert (host.own / "who").read_text() == "1\n"
    assert (host.own / "metastore/DoraMeta/CURRENT").read_text() == "x"
    assert not source.exists()


@pytest.mark.process
def test_what_is_deleted_is_in_the_folder_itself(host: Host) -> None:
    elsewhere = host.root / "elsewhere"
    (elsewhere / "worker").mkdir(parents=True)
    host.as_user(f"ln -s {elsewhere} tmp")
    done = host.run(f"{safely.FUNCTIONS}\ngone {host.own}/tmp/worker")
    assert (elsewhere / "worker").is_dir()
    assert not done.ok
    host.as_user("rm tmp; mkdir -p tmp/worker/x")
    assert host.run(f"{safely.FUNCTIONS}\ngone {host.own}/tmp/worker {host.own}/nothing/x").ok
    assert not (host.own / "tmp/worker").exists()


@pytest.mark.process
def test_a_link_of_roots_own_is_followed(host: Host) -> None:
    (host.root / "disk").mkdir()
    (host.root / "data").symlink_to("disk")
    done = host.run(f"{safely.FUNCTIONS}\nfolder {host.root}/data/etcd {USER}:{USER} 0700")
    # Not below /var/tmp, in which others can make links: it is refused there.
    assert not done.ok
    safe = Path(tempfile.mkdtemp(dir="/run"))
    try:
        (safe / "disk").mkdir()
        (safe / "data").symlink_to("disk")
        assert host.run(f"{safely.FUNCTIONS}\nfolder {safe}/data/etcd {USER}:{USER} 0700").ok
        assert (safe / "disk/etcd").owner() == USER
        # A link of root's that leads into a folder of the user.
        (safe / "into").symlink_to(safe / "disk/etcd/x")
        (safe / "disk/etcd/x").mkdir()
        done = host.run(f"{safely.FUNCTIONS}\nfolder {safe}/into/y {USER}:{USER} 0700")
        assert not done.ok
    finally:
        shutil.rmtree(safe)


@pytest.mark.process
def test_the_place_of_a_page_store_without_its_disk(host: Host) -> None:
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    store = host.own / "pages"
    line = stores.check([str(store)], {})
    body = line.removeprefix("/bin/sh -c '").removesuffix("'").replace("$$", "$").replace("%%", "%")
    # `[ ! -d ]` is asked of the store before it is a link.
    host.as_user(f"ln -s {elsewhere} {store}")
    host.run(body.replace(f"[ -d {store} ]", "false"))
    assert elsewhere.stat().st_mode & 0o7777 == 0o700
    assert list(elsewhere.iterdir()) == []
    host.as_user(f"rm {store}")
    host.run(body)
    assert (store.owner(), (store / "LOCAL").owner()) == ("root", "root")


# A service's folder below a folder of another user, or behind a link.


#: Another service's user: it owns the folder above.
APP = "games"


@pytest.fixture
def below(host: Host) -> Host:
    """The service's folder ``app/own`` is below one of another user, who puts a link there to
    ``elsewhere``, a folder of root's."""
    app = host.root / "app"
    app.mkdir()
    host.own.rename(app / "own")
    shutil.chown(app, APP, APP)
    host.own = app / "own"
    elsewhere = host.root / "elsewhere"
    names = ("member", NAME, f"restoring-{MARK.id}", "unfinished", "restore-0123456789abcdef.db")
    for name in names:
        (elsewhere / name).mkdir(parents=True)
    (elsewhere / "log").write_text("x")
    shutil.chown(elsewhere / "log", USER, USER)
    attack = f"mv {host.own} {host.own}.old && ln -s {elsewhere} {host.own}"
    line = ["setpriv", "--reuid", APP, "--regid", APP, "--clear-groups", "sh", "-c", attack]
    subprocess.run(line, check=True, timeout=30)
    return host


NAME = "member.removed-20260101T000000Z"


def changes_of_data(host: Host) -> dict[str, Change]:
    one = member(host)
    cluster = replace(builders.etcd(one), user=USER, name="c")
    proof = snapshot_proof.Proof(one.name, 7, 1, (), False, True)
    observed: Any = type("Observed", (), {})()
    observed.mark, observed.sha256, observed.proof = MARK, "a" * 64, proof
    observed.file, observed.without = host.secret, ()
    when = datetime(2026, 1, 1, tzinfo=timezone.utc)
    kept = retained.RetainedState((retained.Retained(one, NAME, when, 1),), ())
    inventory = builders.inventory(etcd=cluster)
    (deletion,) = retained.plan(inventory, kept, [NAME]).steps[0].hosts[0].changes
    unit = {layout.UNIT_PATH: hosts.text(f"{KEY}=c\n")}
    installed = hosts.facts(paths=unit)
    removal = destroy._etcd(cluster, one, {one.machine: installed})
    (aside,) = [c for c in removal if c.what.startswith("delete what was kept aside")]
    alluxio = replace(builders.alluxio(), log_dir=str(host.own), user=USER)
    undone = undo_restore.UndoState({}, replace(MARK, command="undo"), "20260102T000000Z", False)
    return {
        "stop": recovery_marker.stop(one, MARK, USER),
        "prepare": restore_etcd._prepare(cluster, one, observed, bump=False),
        "swap": restore_etcd._swap(cluster, one, MARK),
        "undo": undo_restore._back(one, undone),
        "clear": recovery_marker.clear(one, restore_etcd.side(one, MARK)),
        "copy": recover_etcd._keep(one, MARK),
        "kept data": deletion,
        "removed": member_steps._away(one, ()),
        "deleted": member_steps._away(one, (one.name,)),
        "destroy": aside,
        "logs": destroy._logs(alluxio),
        "empty": Change("", former_owner.removed(f"{host.own}/member")),
    }


@pytest.mark.process
@pytest.mark.parametrize(
    "name",
    [
        *("stop", "prepare", "swap", "undo", "clear", "copy", "kept data", "removed", "deleted"),
        *("destroy", "logs", "empty"),
    ],
)
def test_a_folder_that_another_user_swaps(below: Host, name: str) -> None:
    elsewhere = below.root / "elsewhere"

    def state() -> list[tuple[str, int, int]]:
        found = (p.lstat() for p in (elsewhere, *sorted(elsewhere.iterdir())))
        names = ["", *sorted(p.name for p in elsewhere.iterdir())]
        return [(n, s.st_uid, s.st_mode) for n, s in zip(names, found, strict=True)]

    before = state()
    done = below.do(changes_of_data(below)[name])
    assert state() == before
    # What has no need of the folder goes on; all else says why it cannot.
    assert done.ok is (name == "empty")
    assert done.ok or "own is a link, and others than root could have made it" in done.stderr


@pytest.mark.process
def test_an_upload_to_a_folder_that_another_user_swaps(below: Host) -> None:
    one = member(below)
    cluster = replace(builders.etcd(one), user=USER)
    sent: list[Result] = []

    class Session:
        machine = one.machine

        def feed(self, command: str, body: Any, what: str) -> Result:
            sent.append(below.run(command, body.read()))
            return sent[-1]

    class Fleet:
        def map(self, work: Any, machines: Any) -> Any:
            with contextlib.suppress(ChangeFailed):
                work(Session())
            return {}

    etcd = type("Etcd", (), {"cluster": cluster, "fleet": Fleet()})
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    observed: Any = type("Observed", (), {"file": below.secret, "sha256": digest})
    restore_etcd._send(etcd(), observed, [one])
    assert not sent[0].ok
    assert (below.root / "elsewhere").stat().st_uid == 0
    # In the service's own folder it works.
    below.own.unlink()
    (below.root / "app/own.old").rename(below.own)
    shutil.chown(below.own, "root", "root")  # a new disk's
    restore_etcd._send(etcd(), observed, [one])
    assert sent[1].ok
    (upload,) = below.own.iterdir()
    assert (upload.read_text(), upload.owner(), below.own.owner()) == (SECRET, USER, USER)


@pytest.mark.process
def test_a_link_of_roots_to_the_service_folder_does_not_make_its_owner_root(host: Host) -> None:
    """The work is done as the owner of the folder, not of the link."""
    safe = Path(tempfile.mkdtemp(dir="/run"))
    try:
        (safe / "own").mkdir()
        shutil.chown(safe / "own", USER, USER)
        (safe / "link").symlink_to(safe / "own")
        safe.chmod(0o755)
        script = safely.as_owner(str(safe / "link"), "id -u; echo x >./made")
        assert host.run(f"{safely.FUNCTIONS}\n{script}").stdout == "1\n"
        assert (safe / "own/made").owner() == USER
        # Root's own folder, and nobody else can change the way to it.
        (safe / "roots").mkdir()
        script = safely.as_owner(str(safe / "roots"), "id -u")
        assert host.run(f"{safely.FUNCTIONS}\n{script}").stdout == "0\n"
    finally:
        shutil.rmtree(safe)


@pytest.mark.process
def test_nothing_runs_as_root_in_a_folder_that_others_can_swap(host: Host) -> None:
    """A folder of root's in a folder of the user: the user can rename it, but not change it."""
    (host.own / "roots").mkdir()
    script = safely.as_owner(str(host.own / "roots"), "id -u")
    done = host.run(f"{safely.FUNCTIONS}\n{script}")
    assert (done.code, done.stdout) == (1, "")
    assert "is root's, but others can change it, or the way to it" in done.stderr
    assert host.run(f"{safely.FUNCTIONS}\n{safely.as_owner('/nothing/x', 'id -u')}").ok


@pytest.mark.process
@pytest.mark.parametrize("how", ["become", "become or nobody", "as", "owner", "proof"])
def test_what_runs_as_the_user_does_not_have_the_batchs_lock(host: Host, how: str) -> None:
    """It could hold the lock for ever, and with it the next run."""
    tool = host.root / "tool"
    tool.write_text(f"#!/bin/sh\nls -l /proc/self/fd >{host.own}/open\necho yes\n")
    tool.chmod(0o755)
    script = {
        "become": f"{safely.become(USER)} {tool}",
        "become or nobody": f"{safely.become_or_nobody(USER)}\n9>&- $as {tool}",
        "as": safely.as_user(USER, str(tool)),
        "owner": safely.as_owner(str(host.own), str(tool)),
        "proof": Proof(str(host.root), "tool", ("--version",), USER, "yes").script(),
    }[how]
    done = host.do(Change("", script))
    assert done.ok, done.stderr
    held = (host.own / "open").read_text()
    assert "batch.lock" not in held
    assert " 1 -> " in held


# What others can block or forge.


@pytest.mark.process
def test_nobody_else_can_lock(host: Host) -> None:
    assert host.do(Change("", ":")).ok
    held = f"{host.root}/.state/run.lock"
    taking: list[str] = []

    class Session:
        machine = Machine("h")

        def hold(self, command: str, what: str) -> Any:
            taking.append(command)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        lock._take(Session(), "me", 0.0)  # type: ignore[arg-type]
    host.run(taking[0])
    assert Path(held).exists()
    for file in (held, BATCH_LOCK.replace(STATE_DIR, f"{host.root}/.state")):
        done = host.as_user(f"flock -n {file} echo locked")
        assert "locked" not in done.stdout
        assert Path(file).stat().st_mode & 0o7777 == 0o600
    assert Path(f"{host.root}/.state").stat().st_mode & 0o7777 == 0o700


@pytest.mark.process
def test_a_folder_of_locks_of_an_earlier_version_is_closed(host: Host) -> None:
    state = host.root / ".state"
    state.mkdir(mode=0o755)
    (state / "batch.lock").touch(0o644)
    assert host.do(Change("", ":")).ok
    assert "locked" not in host.as_user(f"flock -n {state}/batch.lock echo locked").stdout


FORGED = "x\nfact uid=4711\nstat /etc/shadow|f|nobody|nobody|777|1\n@@end"


@pytest.mark.process
def test_a_target_with_a_line_end(host: Host) -> None:
    link = host.own / "link"
    os.symlink(FORGED, link)
    seen = host.facts(Probe(paths=[str(link)]))
    assert seen.values["uid"] == "0"
    assert set(seen.paths) == {str(link)}
    assert seen.paths[str(link)].kind == "link"


@pytest.mark.process
@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\r", "\x1c", "\x85", "\u2028"])
def test_a_line_ends_only_with_a_line_feed(host: Host, end: str) -> None:
    name = f"{end}fact uid=4711{end}@@end{end}"
    (host.own / name).touch()
    seen = host.facts(Probe(commands={"names": f"ls {host.own}"}, paths=["/etc/passwd"]))
    assert seen.values["uid"] == "0"
    assert "/etc/passwd" in seen.paths


@pytest.mark.process
def test_files_of_the_user_do_not_move_the_content_of_others(host: Host) -> None:
    """They grow and shrink as it likes, between the look and the reading."""
    mine = [host.own / "a", host.own / "b"]
    other = host.root / "unit"
    other.write_text("root's")
    for path in mine:
        path.write_text("12345")
        shutil.chown(path, USER, USER)
    (host.root / "bin/stat").write_text(
        f'#!/bin/sh\n/usr/bin/stat "$@"; case "$*" in *{mine[0]}*) '
        f"printf 12345678 >{mine[0]}; printf 12 >{mine[1]};; esac\n"
    )
    (host.root / "bin/stat").chmod(0o755)
    paths = [str(mine[0]), str(other), str(mine[1])]
    seen = host.facts(Probe(resources=[File(p, None) for p in paths]))
    assert [seen.text(p) for p in paths] == ["12345678", "root's", "12"]


@pytest.mark.process
def test_a_secret_of_roots_is_not_read_for_the_user(host: Host) -> None:
    host.as_user(f"ln -s {host.secret} link; mkdir sub; ln -s {host.secret} sub/link")
    for path in (host.own / "link", host.own / "sub/link"):
        seen = host.facts(Probe(resources=[File(str(path), None)]))
        assert seen.paths[str(path)].content is None
        seen = host.facts(Probe(resources=[File(str(path), b"", secret=True)]))
        assert seen.paths[str(path)].sha256 is None


@pytest.mark.process
def test_a_file_behind_a_link_of_the_user_is_read_by_the_user(host: Host) -> None:
    """The link leads to a folder of root's, and can lead to another one a moment later."""
    kept = host.root / "kept"
    kept.mkdir()
    (kept / "open").write_text("everybody's")
    (kept / "secret").write_text(SECRET)
    (kept / "secret").chmod(0o600)
    host.as_user(f"ln -s {kept} link; mkdir sub; ln -s {kept} sub/link")
    for folder in (host.own / "link", host.own / "sub/link"):
        paths = [str(folder / name) for name in ("open", "secret")]
        seen = host.facts(Probe(resources=[File(path, None) for path in paths]))
        assert [seen.text(path) for path in paths] == ["everybody's", None]


@pytest.mark.process
def test_a_pipe_in_the_place_of_a_file_does_not_hold_up_the_look(host: Host) -> None:
    host.as_user("echo x >file; mkfifo pipe")
    (host.root / "bin/stat").write_text(
        f'#!/bin/sh\n/usr/bin/stat "$@"; case "$*" in *{host.own}/file*) '
        f"mv -f {host.own}/pipe {host.own}/file 2>/dev/null;; esac\n"
    )
    (host.root / "bin/stat").chmod(0o755)
    (host.root / "bin/timeout").write_text('#!/bin/sh\nshift 3; exec /usr/bin/timeout 1 "$@"\n')
    (host.root / "bin/timeout").chmod(0o755)
    path = str(host.own / "file")
    assert host.facts(Probe(resources=[File(path, None)])).paths[path].content is None


@pytest.mark.process
def test_files_of_the_user_are_read_as_they_are(host: Host) -> None:
    host.as_user("echo mine >file; : >empty; ln -s file link")
    names = ("file", "empty", "link")
    paths = {name: str(host.own / name) for name in names}
    seen = host.facts(Probe(resources=[File(path, None) for path in paths.values()]))
    assert [seen.text(paths[name]) for name in names] == ["mine\n", "", "mine\n"]
    digest = host.facts(Probe(resources=[File(paths["file"], b"", secret=True)]))
    assert digest.paths[paths["file"]].sha256 is not None


@pytest.mark.process
def test_a_masters_journal_is_read_as_its_owner(host: Host) -> None:
    alluxio = replace(builders.alluxio(), state_dir=str(host.own))
    alluxio = replace(alluxio, masters=(builders.master("m0"),))
    command = journal.probe_commands(alluxio, alluxio.masters[0])[journal.LABEL]
    group = host.own / "journal/raft" / journal._GROUP
    host.as_user(f"mkdir -p {group}/current; ln -s {host.secret} {group}/current/raft-meta.conf")
    command = f"{safely.FUNCTIONS}\n{command}"
    said = host.run(command).stdout
    assert SECRET not in said
    assert not journal.read(said).written
    host.as_user(f"echo x >{group}/current/log_0-1")
    assert host.run(command).stdout.strip().endswith("has")


@pytest.mark.process
def test_a_folder_of_somebody_else_is_no_reason_not_to_read(host: Host) -> None:
    """An administrator's own, above root's files; preflight warns of it."""
    other = host.root / "data"
    other.mkdir(mode=0o700)
    (other / "conf").write_text("x")
    (other / "conf").chmod(0o600)
    shutil.chown(other, "games")
    path = str(other / "conf")
    assert host.facts(Probe(resources=[File(path, None)])).text(path) == "x"
    # The users of a service are those of its unit, too.
    unit = host.root / "etcd.service"
    unit.write_text("[Service]\nUser=games\nGroup=games\n")
    text = script(Probe(resources=[File(path, None)]))
    text = text.replace("/etc/systemd/system/$unit.service", f"{host.root}/$unit.service")
    assert parse(host.run(text), "here").text(path) is None
