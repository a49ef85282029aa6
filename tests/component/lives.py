"""Lives of a cluster before and between upgrades: real etcd of several releases on loopback.

What is the tool's own: the way from release to release, the steps of an upgrade with their order
and gates (:class:`provision.plans.etcd.upgrade_etcd.Steps`), the look for v2 data, and the calls
that change members. What a step does on a host (a unit rewritten and restarted) is here a process
ended and started with the other release. Restores and recoveries are driven by the commands that
the tool writes into its host scripts: ``snapshot restore`` with its flags, and
``force-new-cluster``.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from provision.engine.plan import Step
from provision.etcd.api.errors import EtcdUnreachable
from provision.etcd.cluster import gates, hashes, health, reconfigure
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import start_check
from provision.host.diff import Change
from provision.host.facts import HostFacts, PathState
from provision.host.resources import File
from provision.inventory import etcd_releases
from provision.inventory.model import EtcdTls, Source, version_tuple
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine
from provision.plans.etcd import before_3_6, before_3_7, upgrade_etcd
from provision.plans.etcd.data import recover_etcd
from provision.plans.etcd.state.observe import EtcdState
from provision.ssh.session import Fleet, Result, Session, Stats, whole
from tests.component.conftest import SERVES_WITHIN
from tests.unit import hosts

LAB = Path(__file__).parents[1] / "lab" / "lab"
ARTIFACTS = Path(__file__).parents[2] / ".lab" / "artifacts"
#: Promotions are not saved by this one (etcd issue 19557).
FORGETS = "3.5.19"
RELEASES = ("3.4.23", "3.5.35", "3.6.16", "3.7.3")
_SOURCE = Source(path=Path("none.tar.gz"), sha256="0" * 64)
#: Below the ports that the kernel gives to connections, or one might be taken amid a restart.
_ports = iter(range(20000 + 1500 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), 32000))
_ports_lock = threading.Lock()


def _own_check(release: str) -> list[str]:
    """As in what the tool writes: etcd's check at start, where the release has a sound one."""
    settings = start_check.switched({}, version_tuple(release), on=True)
    return [f"--{key}={json.dumps(v).strip(chr(34))}" for key, v in settings.items()]


class Ended(AssertionError):
    """An etcd process ended by itself; the end of its log is the message."""


def unpack(into: Path) -> Path:
    """``into/RELEASE/`` with etcd, etcdctl and etcdutl of every release of the lab."""
    for what in (["upgrade"], ["etcd", FORGETS]):
        subprocess.run([LAB, "artifacts", *what], check=True)
    for release in (*RELEASES, FORGETS):
        (tarball,) = ARTIFACTS.glob(f"etcd-v{release}-linux-*.tar.gz")
        (into / release).mkdir()
        with tarfile.open(tarball) as tar:
            for member in tar.getmembers():
                if Path(member.name).name in ("etcd", "etcdctl", "etcdutl"):
                    member.name = Path(member.name).name
                    tar.extract(member, into / release)
    return into


class _Local(Session):
    """Scripts for a member's host run here."""

    def run(self, script: str, what: str, *, timeout: float = 120, prompt: bool = False) -> Result:
        del what, prompt
        if os.geteuid() != 0:  # only root can become another user, or itself, with setpriv
            script = script.replace(f"setpriv --reuid {hosts.ME} --regid {hosts.ME} ", "")
            script = script.replace("--init-groups ", "")
        done = subprocess.run(
            ["sh", "-s"], input=whole(script).encode(), capture_output=True, timeout=timeout
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode(), 0.0)


class LoopbackFleet(Fleet):
    def session(self, machine: Machine) -> Session:
        def refuse(_: Machine) -> object:
            raise AssertionError("nothing here is asked over SSH")

        return _Local(machine, Stats(), refuse)


@dataclass
class Process:
    """One member's etcd. ``flags`` are those of every start, ``first`` those of the next one."""

    member: EtcdMember
    release: str
    flags: list[str]
    log: Path
    first: list[str] = field(default_factory=list)
    popen: subprocess.Popen[bytes] | None = None
    #: Bytes of the log before this start.
    seen: int = 0

    def said(self) -> str:
        return self.log.read_bytes()[self.seen :].decode(errors="replace")

    def stop(self, *, kill: bool = False) -> None:
        if self.popen is not None:
            self.popen.kill() if kill else self.popen.terminate()
            try:
                self.popen.wait(20)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
            self.popen = None


class _Steps(upgrade_etcd.Steps):
    """The tool's steps, whose changes on hosts are orders to :meth:`Life.carry_out`."""

    def _changes(self, hop: upgrade_etcd.Release, member: EtcdMember) -> tuple[Change, ...]:
        return (Change("run", hop.version, disrupts=True),)

    def _restart(self, member: EtcdMember) -> tuple[Change, ...]:
        release = self._versions[member.name]
        assert release is not None
        return (Change("run", release, disrupts=True),)

    def _snapshot_often(self, member: EtcdMember, release: str) -> tuple[Change, ...]:
        return (Change("run", f"{release} --snapshot-count 1", disrupts=True),)

    def _ask_of_v2(self) -> Mapping[str, str]:
        return {
            m.name: self.etcd.fleet.session(m.machine)
            .run(before_3_7.v2_requests(self.cluster, m), "v2")
            .stdout.strip()
            for m in self.cluster.members
        }

    def _note(self, member: EtcdMember) -> tuple[Change, ...]:
        note = before_3_6.note(self.cluster, *self._ids[member.name])
        assert note.content is not None
        return (Change("note", note.content.decode()),)


class Life:
    """One cluster. It starts with ``count`` members of ``release``."""

    def __init__(
        self,
        folder: Path,
        binaries: Path,
        release: str,
        count: int = 3,
        flags: Sequence[str] = (),
    ) -> None:
        self.folder, self.flags = folder, list(flags)
        folder.mkdir()
        self.binaries, self.fleet = binaries, LoopbackFleet(4)
        members = tuple(self.declare(f"infra{i}") for i in range(count))
        self.cluster = EtcdCluster(
            name=folder.name,
            token=folder.name,
            version=release,
            source=_SOURCE,
            install_dir=str(binaries),
            config_dir=str(folder),
            user=hosts.ME,
            tls=EtcdTls(peer=False),
            members=members,
        )
        self._handle = Etcd(self.cluster, self.fleet)
        self.processes: dict[str, Process] = {}
        self.notes: dict[str, File] = {}
        #: What was acknowledged, by key.
        self.written: dict[str, str] = {}
        #: Set at the end, for what runs beside.
        self.over = threading.Event()
        self._beside: list[threading.Thread] = []
        self._count = count
        for m in members:
            self.start(m, release, "new")
        self.wait_healthy()
        self.write()

    @property
    def etcd(self) -> Etcd:
        """The handle on the cluster as it is now."""
        return self._handle.with_cluster(self.cluster)

    # Members and processes

    def declare(self, name: str) -> EtcdMember:
        client, peer = _free_port(), _free_port()
        return EtcdMember(
            name=name,
            machine=Machine(f"{self.folder.name}-{name}-{client}"),
            address="127.0.0.1",
            client_port=client,
            peer_port=peer,
            data_dir=str(self.folder / f"{name}-{client}"),
            settings={},
            peer_tls=False,
            client_tls=False,
            forwarded=True,  # no other way to it is tried
        )

    def start(self, m: EtcdMember, release: str, state: str = "existing") -> None:
        """A member's first start."""
        others = self.cluster.members if state == "new" else (*self.cluster.members, m)
        initial = ",".join(f"{o.name}={o.peer_url}" for o in others)
        flags = ["--initial-cluster", initial, "--initial-cluster-state", state]
        flags += ["--initial-cluster-token", self.cluster.token, *self.flags]
        self.processes[m.name] = Process(m, release, flags, self.folder / f"{m.name}.log")
        self.launch(m.name)

    def launch(self, name: str, *extra: str) -> None:
        p = self.processes[name]
        m, binary = p.member, self.binaries / p.release / "etcd"
        command = [
            *(str(binary), "--name", m.name, "--data-dir", m.data_dir, "--logger", "zap"),
            *("--listen-client-urls", m.client_url, "--advertise-client-urls", m.client_url),
            *("--listen-peer-urls", m.peer_url, "--initial-advertise-peer-urls", m.peer_url),
            *("--heartbeat-interval", "30", "--election-timeout", "300"),
            *_own_check(p.release),
            *p.flags,
            *extra,
        ]
        if not p.release.startswith("3.4."):
            command.append("--unsafe-no-fsync")
        p.seen = p.log.stat().st_size if p.log.exists() else 0
        with p.log.open("ab") as log:
            p.popen = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self, name: str) -> None:
        """Until the member serves. Raises :class:`Ended` when its process has ended."""
        p = self.processes[name]
        deadline = time.monotonic() + SERVES_WITHIN
        while "serving client traffic" not in p.said():
            if p.popen is None or p.popen.poll() is not None:
                raise Ended(f"{self.folder.name}: {name} with {p.release}:\n{p.said()[-3000:]}")
            assert time.monotonic() < deadline, f"{name}:\n{p.said()[-3000:]}"
            time.sleep(0.02)

    def restart(self, name: str, release: str = "", *extra: str) -> None:
        p = self.processes[name]
        p.stop()
        p.release = release or p.release
        self.launch(name, *extra)
        self.wait(name)

    def beside(self, run: Callable[[], None]) -> None:
        """Run it in a thread until the life is ``over``."""
        self._beside.append(threading.Thread(target=run))
        self._beside[-1].start()

    def end(self) -> None:
        """Nothing of it is left: each member's log takes 128 MB."""
        self.over.set()
        for thread in self._beside:
            thread.join()
        for p in self.processes.values():
            p.stop(kill=True)
        shutil.rmtree(self.folder)

    @property
    def release(self) -> str:
        return next(iter(self.processes.values())).release

    def look(self) -> health.ClusterHealth:
        return health.observe(self.etcd)

    def wait_healthy(self) -> None:
        for name in self.processes:
            self.wait(name)
        gates.all_healthy(self.etcd).check()

    # What lives consist of

    def grow(self, name: str = "") -> None:
        name = name or f"infra{self._count}"
        self._count += 1
        self.join(self.declare(name))

    def join(self, m: EtcdMember) -> None:
        """As ``add-member`` does: a learner, promoted when it has caught up."""
        now = self.cluster
        reconfigure.add_learner(self.etcd.with_cluster(now), m)
        self.start(m, self.release)
        reconfigure.promote(self.etcd.with_cluster(now), m)
        self.cluster = replace(now, members=(*now.members, m))
        self.wait_healthy()

    def shrink(self, name: str, *, dead: bool = False) -> None:
        """As ``remove-member`` does; a leader hands on its leadership first."""
        number = next(r.id for r in self.look().registered if r.name == name)
        if dead:
            self.processes[name].stop(kill=True)
        staying = tuple(m for m in self.cluster.members if m.name != name)
        reconfigure.remove(self.etcd, number, staying)
        self.cluster = replace(self.cluster, members=staying)
        self.processes.pop(name).stop(kill=True)
        self.wait_healthy()

    def move(self, name: str) -> None:
        """As an edited address does: another peer port."""
        old = self.cluster.member(name)
        number = next(r.id for r in self.look().registered if r.name == name)
        others = [m for m in self.cluster.members if m.name != name]
        new = replace(old, peer_port=_free_port())
        self.become(new)
        reconfigure.update(self.etcd, new, number, others)
        self.restart(name)
        self.wait_healthy()

    def become(self, m: EtcdMember) -> None:
        members = tuple(m if o.name == m.name else o for o in self.cluster.members)
        self.cluster = replace(self.cluster, members=members)
        self.processes[m.name].member = m

    def restore(self) -> None:
        """As ``restore-etcd`` does: every member from one snapshot, with a token of its own."""
        file = self.folder / "snapshot.db"
        with self.etcd.any() as client, file.open("wb") as to:
            for part in client.snapshot():
                to.write(part)
        # Its last 32 bytes are the digest that etcdctl, too, appends.
        token = f"{self.folder.name}-restored-{time.monotonic_ns()}"
        tool = "etcdctl" if self.release.startswith("3.4.") else "etcdutl"
        for p in self.processes.values():
            p.stop(kill=True)
        for name, p in self.processes.items():
            shutil.rmtree(p.member.data_dir)
            subprocess.run(
                [
                    *(self.binaries / p.release / tool, "snapshot", "restore", file),
                    *("--data-dir", p.member.data_dir, "--name", name),
                    *("--initial-cluster", self.cluster.initial_cluster),
                    *("--initial-advertise-peer-urls", p.member.peer_url),
                    *("--initial-cluster-token", token),
                ],
                check=True,
                capture_output=True,
                env={**os.environ, "ETCDCTL_API": "3"},
            )
            self.launch(name)
        self.wait_healthy()

    def recover(self, after: float = 0) -> None:
        """As ``recover-etcd`` does: a cluster of one survivor, which the others join again.

        What counts is what was acknowledged while every member was up to date: the survivor drops
        entries that neither its log nor its database knows to be committed. ``after`` so many
        seconds the database has the last writes, and the log does not call them committed yet.
        """
        gates.all_healthy(self.etcd).check()
        if after:
            at_once = {f"/at-once/{n}": "" for n in range(300)}
            with self.etcd.any() as client, ThreadPoolExecutor(100) as pool:
                list(pool.map(lambda key: client.put(key, ""), at_once))
            self.written |= at_once
            time.sleep(after)
        survivor, *lost = self.cluster.members
        release = self.release
        for p in self.processes.values():
            p.stop(kill=True)
        count = str(recover_etcd.SNAPSHOT_COUNT)
        self.launch(survivor.name, "--force-new-cluster", "--snapshot-count", count)
        self.wait(survivor.name)
        with self.etcd.member(survivor, timeout=2) as client:
            for _ in range(recover_etcd.PAST):
                _until_answered(lambda: client.lease_grant(60), recover_etcd.AT_ONCE)
        self.restart(survivor.name)
        self.cluster = replace(self.cluster, members=(survivor,))
        self.processes = {survivor.name: self.processes[survivor.name]}
        self.wait_healthy()
        for m in lost:
            shutil.rmtree(m.data_dir)
            self.processes.pop(m.name, None)
            self.join(m)
        assert self.release == release

    def write(self) -> None:
        """One more acknowledged write."""
        key, value = f"/written/{len(self.written)}", f"by {self.release}"
        with self.etcd.any() as client:
            client.put(key, value)
        self.written[key] = value

    # The upgrade

    def facts(self) -> Mapping[str, HostFacts]:
        path = before_3_6.path(self.cluster)
        return {
            m.name: hosts.facts(
                paths={path: PathState("file", "root", "root", 0o644, 0, note.content)}
                if (note := self.notes.get(m.name)) is not None
                else {}
            )
            for m in self.cluster.members
        }

    def plan(self, to: str) -> list[Step]:
        """The steps of ``upgrade-etcd TO`` from the first hop on."""
        seen = self.look()
        gates.require_healthy(seen)
        first = self.cluster.members[0]
        works_by = upgrade_etcd.cluster_version(self.etcd, first)
        versions = {name: release for name, release in seen.releases}
        way = etcd_releases.path(list(versions.values()), to, RELEASES, works_by)
        facts = self.facts()
        done = before_3_6.restarted(self.cluster, seen, facts)
        by_machine = {m.machine: facts[m.name] for m in self.cluster.members}
        observed = EtcdState(None, by_machine, seen)
        made = _Steps(self.etcd, observed, None, dict(versions))
        made.require_ready(works_by, way, done)
        hops = [upgrade_etcd.Release(v, _SOURCE, hosts.TARBALL) for v in way]
        made.hop(hops, works_by, done, made.with_v2(works_by, way))
        return made.steps

    def carry_out(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step.before is not None:
                step.before.check()
            for host in step.hosts:
                for change in host.changes:
                    if change.what == "note":
                        path = before_3_6.path(self.cluster)
                        self.notes[host.name] = File(path, change.script.encode())
                        continue
                    release, *extra = change.script.split()
                    if release.startswith("3.5.") and release != self.processes[host.name].release:
                        self.notes.pop(host.name, None)
                    self.restart(host.name, release, *extra)
            for call in step.calls:
                call.do()
            if step.after is not None:
                step.after.check()

    def upgrade(self, to: str) -> None:
        self.carry_out(self.plan(to))
        self.cluster = replace(self.cluster, version=to)

    def roll(self, to: str, *names: str) -> None:
        """By hand: one member after the other, in this order, and nothing else."""
        for name in names or self.processes:
            self.restart(name, to)
            self.wait_healthy()

    def check(self, release: str, alarms: Sequence[str] = ()) -> None:
        """Healthy, of ``release``, with the right members and no learner in any view, the same data
        everywhere, every acknowledged write there, one more taken."""
        gates.all_healthy(self.etcd).check()
        seen = self.look()
        assert {v for _, v in seen.releases} == {release}
        assert before_3_6.false_learners(seen) == []
        wanted = {(m.name, m.peer_url) for m in self.cluster.members}
        for m in seen.members:
            assert {(r.name, *r.peer_urls) for r in m.registered} == wanted, m.member.name
            assert m.status is not None
            assert not m.status.is_learner
            assert m.status.alarms == tuple(alarms)
        hashes.require_equal(seen, self.etcd)
        self.write()
        for one in self.cluster.members:
            with self.etcd.member(one) as client:
                for key, value in self.written.items():
                    found = client.get(key)
                    assert found is not None, (self.folder.name, one.name, key)
                    assert found.value.decode() == value


def _until_answered(call: Callable[[], object], at_once: int) -> None:
    """With so many more at a time while it is not answered, for at most 60 times."""

    def answered(_: int = 0) -> bool:
        try:
            call()
        except EtcdUnreachable:
            return False
        return True

    for _ in range(60):
        if answered():
            return
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(answered, range(at_once)))
    raise AssertionError("no answer")


def _free_port() -> int:
    with _ports_lock:
        for port in _ports:
            try:
                with socket.create_server(("127.0.0.1", port)):
                    return port
            except OSError:
                continue
    raise AssertionError("no port is free")
