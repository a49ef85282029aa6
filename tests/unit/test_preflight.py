"""Every rule of preflight, from the values of facts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.worker import desired as workers_desired
from provision.alluxio.worker.desired import Artifacts
from provision.artifacts import Artifact
from provision.errors import PreflightFailed, Problem
from provision.etcd.member import backup_timer, layout
from provision.host import preflight
from provision.host.facts import HostFacts, Listener, PathState, Probe, UnitState, Way
from provision.host.preflight import SpaceRequirement
from provision.host.resources import Certificate, Directory, File, Link, Resource, Tree, User
from provision.inventory import sizes
from provision.inventory.membership_type import MembershipType
from provision.inventory.model import EtcdBackup, Java, PageStore, Scalar
from provision.inventory.resolved import Machine
from provision.plans.alluxio import worker_preflight
from provision.plans.etcd.state import member_preflight
from provision.tar_reader import Seen
from tests.unit import builders
from tests.unit.hosts import GIB, TARBALL, disk, facts, shell, text

UUID = "11111111-2222-3333-4444-555555555555"
A, B, C = (Machine(f"h{n}", where=f"inventory.yml:{n}") for n in (1, 2, 3))
ARTIFACTS = Artifacts(TARBALL, None)


def three(**of_second: Any) -> dict[Machine, HostFacts]:
    return {A: facts(1), B: facts(2, **of_second), C: facts(3)}


def only(problems: list[Problem]) -> Problem:
    (problem,) = problems
    return problem


def test_good_hosts() -> None:
    assert preflight.hosts(three(), {}) == []


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"uid": "1000"}, "no root"),
        ({"arch": "riscv64"}, "CPU is riscv64"),
        ({"systemd": ""}, "systemd is not running"),
        ({"systemd": "219"}, "systemd 219 is too old"),
        ({"machine_id": f"{1:032x}"}, f"h1 has the same machine-id: {1:032x}"),
        ({"hostname": "host3"}, "h2 has the same hostname: host3"),
    ],
)
def test_a_host(values: dict[str, str], what: str) -> None:
    problem = only(preflight.hosts(three(values=values), {}))
    assert problem.what == what
    assert problem.where in ("h2 (inventory.yml:2)", "h3 (inventory.yml:3)")
    assert problem.remedy


def test_a_drop_in_that_runs_another_command() -> None:
    said = "else /run/systemd/system/etcd.service.d/b.conf\n"
    said += "runs /etc/systemd/system/etcd.service.d/override.conf\n"
    said += "runs /usr/lib/systemd/system/etcd.service.d/b.conf\n"  # hidden by the first
    problem = only(preflight.hosts(three(commands={"drop-ins of etcd.service": said}), {}))
    assert problem.id == "unit-overridden"
    path = "/etc/systemd/system/etcd.service.d/override.conf"
    assert problem.what == f"{path} makes etcd.service run another command than this tool's"


@pytest.mark.parametrize(("offset", "bad"), [(0.9, False), (-0.9, False), (1.5, True), (-2, True)])
def test_clocks(offset: float, bad: bool) -> None:
    found = preflight.hosts(three(clock_offset=offset), {})
    assert [p.where for p in found] == (["h2 (inventory.yml:2)"] if bad else [])


@pytest.mark.parametrize("offset", [99.0, -86400.0])
def test_all_clocks_alike_and_ours_another_is_a_warning(offset: float) -> None:
    """The hosts work with one another; certificates and logs get their times from us."""
    hosts = {m: facts(n, clock_offset=offset) for n, m in enumerate((A, B))}
    warning = only(preflight.hosts(hosts, {}))
    assert (warning.where, warning.severity) == ("this machine", "warning")
    assert warning.what == f"clock differs from the hosts' clocks by {-offset:+.1f} s"
    assert preflight.require([warning]) == (warning,)


class TestRoom:
    def problems(self, *rooms: SpaceRequirement, **disks: int) -> list[Problem]:
        known = {f"/{k}": disk(f"/{k}", v, device=f"/dev/{k}") for k, v in disks.items()}
        return preflight.hosts({A: facts(disks=known)}, {A: rooms})

    def test_enough(self) -> None:
        assert self.problems(SpaceRequirement("/opt", GIB, "x"), opt=GIB) == []

    def test_too_little(self) -> None:
        problem = only(self.problems(SpaceRequirement("/opt", 2 * GIB, "the release"), opt=GIB))
        assert problem.what == "/opt has 1.1 GB free on /dev/opt, the release needs 2.1 GB"

    def test_what_shares_a_disk_is_counted_together(self) -> None:
        one = {p: disk(p, 3 * GIB) for p in ("/opt", "/pages")}
        rooms = [
            SpaceRequirement("/opt", 2 * GIB, "the release"),
            SpaceRequirement("/pages", 2 * GIB, "a page store"),
        ]
        problem = only(preflight.hosts({A: facts(disks=one)}, {A: rooms}))
        assert problem.what == (
            "/opt, /pages have 3.2 GB free on /dev/sda1, the release needs 2.1 GB and a page store "
            "needs 2.1 GB"
        )
        assert self.problems(*rooms, opt=3 * GIB, pages=3 * GIB) == []

    def test_what_cannot_be_measured_is_refused(self) -> None:
        rooms = [SpaceRequirement(f"/{n}", GIB, "x") for n in ("opt", "a", "b", "a")]
        problem = only(self.problems(*rooms, opt=GIB))
        assert (problem.id, problem.severity) == ("disk-unmeasured", "error")
        assert problem.what == "/a, /b: df does not say how much is free there"
        assert problem.remedy == "see what it says on that host: df -P /a /b"


@pytest.mark.parametrize(
    ("resource", "kind", "bad"),
    [
        (Directory("/x"), "dir", False),
        (Directory("/x"), "link", True),
        (Directory("/x"), "file", True),
        (File("/x", b""), "link", False),
        (File("/x", b""), "dir", True),
        (Link("/x", "y"), "dir", True),
        (Link("/x", "y"), "link", False),
    ],
)
def test_something_in_the_way(resource: Directory | File | Link, kind: str, bad: bool) -> None:
    there = facts(paths={"/x": PathState(kind, "root", "root", 0o755, 0)})
    found = preflight.paths({A: there}, {A: Probe(resources=[resource])})
    assert bool(found) is bad
    if bad:
        assert found[0].what.startswith(f"/x is a {kind}, not a ")


ROOTS, DATA = Way("dir", 0, 0o755), Way("dir", 998, 0o755)


def test_a_folder_that_root_cannot_write_in() -> None:
    """It counts only while root has something to do there."""
    there = PathState("dir", "etcd", "etcd", 0o700, 4096)
    wanted = {A: Probe(resources=[Directory("/share/backups", "etcd", 0o700), Directory("/d")])}
    for mounted in ("/share", "/share/backups"):
        seen = facts(unwritable=frozenset({mounted}))
        (problem,) = preflight.unwritable({A: seen}, wanted)
        assert (problem.id, problem.severity) == ("folder-unwritable", "error")
        assert f"root cannot write in {mounted}, and" in problem.what
        made = replace(seen, paths={"/share/backups": there})
        assert preflight.unwritable({A: made}, wanted) == []
        other = replace(made, paths={"/share/backups": replace(there, owner="root")})
        assert len(preflight.unwritable({A: other}, wanted)) == 1


@pytest.mark.parametrize(
    ("way", "severity"),
    [
        (ROOTS, None),
        (DATA, "error"),
        (Way("dir", 1000, 0o755), "warning"),
        (Way("dir", 0, 0o777), "error"),
        (Way("dir", 0, 0o1777), None),
        (Way("dir", 0, 0o775), None),
    ],
)
def test_a_folder_of_roots_below_one_of_a_service(way: Way, severity: str | None) -> None:
    user = User("alluxio", "/x")
    there = facts(
        ways={"/": ROOTS, "/data": way, "/data/opt": ROOTS, "/d": DATA},
        users={"alluxio": "alluxio:x:998:998::/x:/nologin"},
    )
    written: list[Resource] = [
        File("/data/opt/conf", b""),
        Link("/data/opt/current", "x"),
        Tree("/data/opt/1", TARBALL),
        Certificate("/data/opt/peer", "root", group="alluxio"),
    ]
    for resource in written:
        found = preflight.paths({A: there}, {A: Probe(resources=[user, resource])})
        assert [(p.severity, p.id) for p in found] == [(severity, "folder-not-roots")] * bool(
            severity
        )
        assert all("/data, and root writes below it" in p.what for p in found)
    # What the service works in, and what is only looked at, may be there.
    not_roots: list[Resource] = [
        Directory("/data/state", "alluxio"),
        File("/data/jdk/release", None),
    ]
    not_roots += [Directory("/d"), File("/d/x", b"")]  # which this run gives to root
    assert preflight.paths({A: there}, {A: Probe(resources=[user, *not_roots])}) == []


@pytest.mark.parametrize(
    ("name", "arch", "bad"),
    [
        ("etcd-v3.6.16-linux-amd64.tar.gz", "x86_64", False),
        ("etcd-v3.6.16-linux-arm64.tar.gz", "x86_64", True),
        ("etcd-v3.6.16-linux-amd64.tar.gz", "aarch64", True),
        ("OpenJDK11U-jdk_x64_linux_hotspot_11.0.20_8.tar.gz", "x86_64", False),
        ("OpenJDK11U-jdk_aarch64_linux_hotspot_11.0.20_8.tar.gz", "x86_64", True),
        ("jdk-11-x86_64.tgz", "aarch64", True),
        ("alluxio-313-bin.tar.gz", "aarch64", False),
        ("charm64.tar.gz", "x86_64", False),
    ],
)
def test_tarballs_for_another_cpu(name: str, arch: str, bad: bool) -> None:
    tarball = Artifact(Path(name), "0" * 64, 1)
    found = preflight.architectures({A: facts(values={"arch": arch})}, [tarball, None])
    assert bool(found) is bad
    if bad:
        assert name in found[0].what
        assert arch in found[0].what


class TestMembers:
    cluster = builders.etcd()
    unit_path = layout.UNIT_PATH

    def problems(self, **of_first: Any) -> list[Problem]:
        first, *others = self.cluster.members
        seen = {m.machine: facts(n) for n, m in enumerate(others, 2)}
        seen[first.machine] = facts(1, **of_first)
        found = member_preflight.members(self.cluster, seen)
        assert all(p.where == "infra1 at 10.0.0.1" for p in found)
        return found

    def ours(self, cluster: str = "c") -> PathState:
        return text(f"[Unit]\nX-Alluxio-Provision-Cluster={cluster}\n")

    def test_good(self) -> None:
        assert self.problems() == []

    def test_a_member_of_another_cluster(self) -> None:
        found = self.problems(paths={self.unit_path: self.ours("other")})
        assert only(found).what == "already a member of cluster other"

    def test_an_etcd_of_someone_else(self) -> None:
        unit = UnitState("loaded", "active", fragment="/lib/systemd/system/etcd.service")
        problem = only(self.problems(units={layout.UNIT: unit}))
        assert "(/lib/systemd/system/etcd.service)" in problem.what

    def test_data_of_someone_else(self) -> None:
        there = PathState("dir", "etcd", "etcd", 0o700, 0)
        problem = only(self.problems(paths={"/var/lib/etcd/member": there}))
        assert "never deleted" in problem.remedy

    def test_our_own_etcd(self) -> None:
        there = PathState("dir", "etcd", "etcd", 0o700, 0)
        found = self.problems(
            paths={self.unit_path: self.ours(), "/var/lib/etcd/member": there},
            units={layout.UNIT: UnitState("loaded", "active", pid=7)},
            listeners={2379: Listener(2379, 7, "etcd"), 2380: Listener(2380, 7, "etcd")},
        )
        assert found == []

    def test_a_port_of_another_process(self) -> None:
        problem = only(self.problems(listeners={2380: Listener(2380, 99, "nginx")}))
        assert problem.what == "port 2380 is taken by nginx (pid 99)"

    @pytest.mark.parametrize(
        ("version", "arch", "refused"),
        [
            ("3.4.37", "aarch64", True),
            ("3.4.37", "x86_64", False),
            ("3.5.0", "aarch64", False),
            ("3.6.16", "aarch64", False),
        ],
    )
    def test_a_processor_that_the_release_does_not_support(
        self, version: str, arch: str, refused: bool
    ) -> None:
        cluster = builders.etcd(builders.member(1), version=version)
        machine = cluster.members[0].machine
        seen = facts(1, values={"arch": arch})
        found = member_preflight.members(cluster, {machine: seen})
        assert [p.id for p in found] == ["host-unsupported"] * refused
        if refused:
            assert "does not support its processor (aarch64)" in only(found).what
            running = replace(
                seen,
                units={layout.UNIT: UnitState("loaded", "active", pid=7)},
                paths={self.unit_path: self.ours()},
            )
            assert member_preflight.members(cluster, {machine: running}) == []
            # A stopped one does not start again; another cluster's says nothing about ours.
            stopped = replace(running, units={layout.UNIT: UnitState("loaded", "inactive")})
            foreign = replace(running, paths={})
            for other in (stopped, foreign):
                found = member_preflight.members(cluster, {machine: other})
                assert "host-unsupported" in [p.id for p in found]

    def test_a_port_of_our_own_etcd_that_crashes_again_and_again(self) -> None:
        """Its process at the look at the ports is not the main process that systemd named. Between
        the two looks at the ports, it may have none."""
        soon = UnitState("loaded", "activating", "auto-restart")
        paths = {self.unit_path: self.ours()}
        its = {2379: Listener(2379, 8, "etcd", layout.UNIT)}
        assert self.problems(units={layout.UNIT: soon}, listeners=its, paths=paths) == []
        gone = {2379: Listener(2379, 0, "unknown")}
        problem = only(self.problems(units={layout.UNIT: soon}, listeners=gone, paths=paths))
        assert problem.what == (
            "port 2379 is taken by a process that cannot be seen there: it may be etcd.service "
            "itself, which is activating (auto-restart)"
        )
        # An etcd of somebody else is not excused by its unit's name.
        assert only(self.problems(listeners=its)).id == "port-taken"

    def test_masked(self) -> None:
        found = self.problems(units={layout.UNIT: UnitState("masked")})
        assert "systemctl unmask" in only(found).remedy

    def test_an_address_of_another_host(self) -> None:
        problem = only(self.problems(addresses=frozenset({"192.168.0.9"})))
        assert "10.0.0.1 is on no interface" in problem.what
        assert problem.remedy == "it has 192.168.0.9"

    def test_a_peer_that_cannot_be_reached(self) -> None:
        found = self.problems(unreachable={("10.0.0.3", 2380): "no answer in 3 s"})
        assert only(found).what == "cannot reach infra3 at 10.0.0.3:2380: no answer in 3 s"

    def test_a_name_that_does_not_resolve(self) -> None:
        members = [builders.member(1), builders.member(2, address="infra2.example.com")]
        seen = {m.machine: facts(n) for n, m in enumerate(members, 1)}
        seen[members[0].machine] = facts(1, resolved={"infra2.example.com": "", "x": ""})
        found = member_preflight.members(builders.etcd(*members), seen)
        assert only(found).what == "cannot resolve infra2.example.com"

    def test_a_full_disk(self) -> None:
        found = self.problems(disks={"/var/lib/etcd": disk("/var/lib/etcd", GIB)})
        assert "99 % full" in only(found).what
        # Ten per cent of a large disk is room enough.
        large = disk("/var/lib/etcd", 50 * GIB, total=1000 * GIB)
        assert self.problems(disks={"/var/lib/etcd": large}) == []

    def test_a_disk_that_cannot_be_measured_is_a_warning(self) -> None:
        problem = only(self.problems(disks={}))
        assert (problem.id, problem.severity) == ("disk-unmeasured", "warning")
        assert problem.what == "/var/lib/etcd: df does not say how much is free there"
        assert preflight.require([problem]) == (problem,)
        cluster = replace(self.cluster, backup=EtcdBackup(dir="/backup"))
        seen = {cluster.members[0].machine: facts(1)}
        (problem,) = member_preflight.members(cluster, seen)
        assert (problem.id, problem.severity) == ("disk-unmeasured", "warning")
        assert problem.what == "/backup: df does not say how much is free there"

    def test_a_network_disk_is_a_warning(self) -> None:
        slow = replace(disk("/var/lib/etcd", 90 * GIB), kind="nfs4")
        problem = only(self.problems(disks={"/var/lib/etcd": slow}))
        assert problem.severity == "warning"
        assert preflight.require([problem]) == (problem,)

    @pytest.mark.parametrize(
        ("backup", "device", "free", "there", "expected"),
        [
            ({}, "/dev/sdb1", 8 * GIB, "", []),
            ({}, "/dev/sda1", 20 * GIB, "", ["backup-disk-shared"]),
            ({"same_disk": True}, "/dev/sda1", 20 * GIB, "", []),
            ({}, "/dev/sdb1", 6 * GIB, "", ["disk-full"]),
            ({}, "/dev/sdb1", 6 * GIB, f"{2 * GIB >> 10}\n", []),
            ({"keep": 3}, "/dev/sdb1", 6 * GIB, "", []),
            ({"member": "infra3"}, "/dev/sda1", 0, "", []),
        ],
    )
    def test_room_for_the_timers_backups(
        self, backup: dict[str, Any], device: str, free: int, there: str, expected: list[str]
    ) -> None:
        cluster = replace(self.cluster, backup=EtcdBackup(**backup))
        database = PathState("file", "etcd", "etcd", 0o600, GIB)
        seen = facts(
            1,
            disks={
                "/var/lib/etcd": disk("/var/lib/etcd", 50 * GIB),
                "/var/backups/etcd": disk("/var/backups/etcd", free, device=device),
            },
            paths={"/var/lib/etcd/member/snap/db": database},
            commands={"backups": there},
        )
        found = member_preflight.members(cluster, {cluster.members[0].machine: seen})
        assert [p.id for p in found] == expected
        assert all(p.severity == "warning" for p in found)

    def test_a_time_that_systemd_does_not_know(self) -> None:
        cluster = replace(self.cluster, backup=EtcdBackup(on_calendar="never"))
        assert cluster.backup is not None
        data, own = "/var/lib/etcd", disk(cluster.backup.dir, 9 * GIB, device="/dev/sdb1")
        known = {data: disk(data, 90 * GIB), cluster.backup.dir: own}
        for said, count in (("no\n", 1), ("", 0)):
            seen = facts(1, commands={backup_timer.CALENDAR: said}, disks=known)
            found = member_preflight.members(cluster, {cluster.members[0].machine: seen})
            assert [p.what for p in found] == ["its systemd knows no time such as 'never'"] * count
            assert [p.id for p in found] == ["inventory-value-invalid"] * count

    @pytest.mark.process
    @pytest.mark.parametrize(
        ("time", "says"),
        [("daily", ""), ("Mon..Fri *-*-* 03:00:00", ""), ("never", "no\n"), ("25:00", "no\n")],
    )
    def test_its_systemd_is_asked(self, time: str, says: str, tmp_path: Path) -> None:
        if shutil.which("systemd-analyze") is None:
            pytest.skip("there is no systemd-analyze here")
        cluster = replace(self.cluster, backup=EtcdBackup(on_calendar=time))
        (script,) = backup_timer.probe(cluster, cluster.members[0]).values()
        assert shell(script, tmp_path).stdout == says
        # Without it nothing is known, and the run goes on.
        assert shell(script.replace("systemd-analyze", "no-such-program"), tmp_path).stdout == ""

    def test_hosts_that_could_not_be_asked_are_passed_over(self) -> None:
        assert member_preflight.members(self.cluster, {}) == []


class TestWorkers:
    file = "/var/lib/alluxio/worker_identity"

    def problems(
        self,
        *seen: HostFacts,
        java: Java | None = None,
        **changed: Any,
    ) -> list[Problem]:
        workers = [builders.worker(f"w{n}")._replace(**changed) for n in range(1, len(seen) + 1)]
        cluster = builders.alluxio(*workers, java=java or Java())
        by_machine = {w.machine: f for w, f in zip(workers, seen, strict=True)}
        return worker_preflight.workers(cluster, workers, ARTIFACTS, by_machine)

    def test_good(self) -> None:
        assert self.problems(facts(1), facts(2)) == []

    def test_two_hosts_with_one_identity(self) -> None:
        clone = {self.file: text(f"{UUID}\n")}
        problem = only(self.problems(facts(1, paths=clone), facts(2, paths=clone)))
        assert problem.where.startswith("w2 at w2")
        assert UUID in problem.what
        assert "as w1" in problem.what
        assert self.file in problem.remedy

    def test_an_identity_file_without_one(self) -> None:
        found = self.problems(facts(paths={self.file: text("gone\n")}))
        assert "does not contain a UUID" in only(found).what

    def test_a_worker_of_another_cluster(self) -> None:
        unit = text("X-Alluxio-Provision-Cluster=other\n")
        found = self.problems(facts(paths={workers_desired.UNIT_PATH: unit}))
        assert only(found).what == "already a worker of cluster other"

    def test_a_unit_of_someone_else(self) -> None:
        unit = UnitState("loaded", "inactive", fragment="/lib/x")
        found = self.problems(facts(units={workers_desired.UNIT: unit}))
        assert "this tool did not install it (/lib/x)" in only(found).what

    def test_a_port(self) -> None:
        found = self.problems(facts(listeners={29999: Listener(29999, 5, "java")}))
        assert only(found).what == "port 29999 is taken by java (pid 5)"

    @pytest.mark.parametrize("number", [29997, 30000, 28080])
    def test_every_port_that_is_on_is_free_or_ours(self, number: int) -> None:
        seen = {number: Listener(number, 5, "nginx")}
        problem = only(self.problems(facts(listeners=seen)))
        assert problem.what == f"port {number} is taken by nginx (pid 5)"
        assert problem.remedy.startswith("stop it, or set alluxio.worker.")
        ours = {workers_desired.UNIT: UnitState("loaded", "active", pid=5)}
        unit = {workers_desired.UNIT_PATH: text("X-Alluxio-Provision-Cluster=c\n")}
        assert self.problems(facts(listeners=seen, units=ours, paths=unit)) == []

    def test_a_port_that_is_off_may_be_anyones(self) -> None:
        seen = facts(listeners={n: Listener(n, 5, "nginx") for n in (28080, 29998)})
        off: dict[str, Scalar] = {"alluxio.worker.http.server.enabled": False}
        assert self.problems(seen, properties=off) == []
        on: dict[str, Scalar] = {**off, "alluxio.worker.s3.api.enabled": True}
        problem = only(self.problems(seen, properties=on))
        assert problem.what == "port 29998 is taken by nginx (pid 5)"
        assert problem.remedy.endswith("or alluxio.worker.s3.api.enabled to false")

    def test_etcd_out_of_reach(self) -> None:
        """One endpoint is enough for a worker; a refused connection is none of these."""
        endpoints = ("http://10.0.0.1:2379", "http://[fd00::2]:2379")
        cluster = builders.alluxio(etcd_endpoints=endpoints)
        worker = cluster.workers[0]
        wanted = workers_desired.probe(cluster, worker, ARTIFACTS).reach or ()
        assert list(wanted or ()) == [("10.0.0.1", 2379), ("fd00::2", 2379)]

        def problems(*missing: tuple[str, int]) -> list[Problem]:
            seen = facts(unreachable=dict.fromkeys(missing, "no answer in 3 s"))
            return worker_preflight.workers(cluster, [worker], ARTIFACTS, {worker.machine: seen})

        assert problems() == problems(("10.0.0.1", 2380)) == []
        some, every = only(problems(wanted[1])), only(problems(*wanted))
        assert (some.severity, every.severity) == ("warning", "error")
        assert some.what == "cannot reach some endpoints of etcd: [fd00::2]:2379: no answer in 3 s"
        assert every.what.startswith("cannot reach any endpoint of etcd: 10.0.0.1:2379: no answer")
        static = replace(cluster, membership=MembershipType.STATIC)
        assert not workers_desired.probe(static, worker, ARTIFACTS).reach or ()

    def test_masked(self) -> None:
        unit = {workers_desired.UNIT: UnitState("masked")}
        assert "is masked" in only(self.problems(facts(units=unit))).what

    @pytest.mark.parametrize(
        ("said", "what"),
        [
            ('openjdk version "1.8.0_392"', ""),
            ('openjdk version "11.0.20"', ""),
            ('openjdk version "17.0.9"', "Java is 17, but Alluxio 313 needs 8 or 11"),
            ("sh: 1: java: not found", "no Java on its PATH"),
            ("", "no Java on its PATH"),
        ],
    )
    def test_the_hosts_own_java(self, said: str, what: str) -> None:
        found = self.problems(facts(commands={"java": said}))
        assert [p.what for p in found] == ([what] if what else [])

    def test_a_given_java_home(self) -> None:
        release = {"/opt/jdk/release": text('JAVA_VERSION="11.0.20"\n')}
        runs = facts(paths=release, commands={"java": "runs"})
        assert self.problems(runs, java_home="/opt/jdk") == []
        found = self.problems(facts(commands={}), java_home="/opt/jdk")
        assert only(found).what == "no Java at /opt/jdk"

    def test_a_java_that_does_not_run_there(self) -> None:
        release = {"/opt/jdk/release": text('JAVA_VERSION="11.0.20"\n')}
        said = "/opt/jdk/bin/java: /lib/libc.so.6: version `GLIBC_2.34' not found\nmore\n"
        found = self.problems(facts(paths=release, commands={"java": said}), java_home="/opt/jdk")
        assert only(found).what == (
            "the Java at /opt/jdk does not run: "
            "/opt/jdk/bin/java: /lib/libc.so.6: version `GLIBC_2.34' not found"
        )
        own = {"java-home": "/usr/lib/jvm/x\n", "java": "Error: dl failure"}
        found = self.problems(facts(commands=own))
        assert only(found).what == "the Java at /usr/lib/jvm/x does not run: Error: dl failure"

    @pytest.mark.parametrize(
        ("host", "fits"),
        [("glibc 2.31", False), ("glibc 2.34", True), ("glibc 2.36", True), ("", True)],
    )
    def test_a_jdk_for_a_newer_c_library(self, host: str, fits: bool) -> None:
        jdk = replace(
            TARBALL,
            path=Path("jdk-11.tar.gz"),
            seen=Seen(("bin/java",), texts={"release": 'JAVA_VERSION="11.0.2"'}, glibc=(2, 34)),
        )
        cluster = builders.alluxio()
        worker = cluster.workers[0]
        seen = {worker.machine: facts(commands={"glibc": host})}
        found = worker_preflight.workers(cluster, [worker], replace(ARTIFACTS, jdk=jdk), seen)
        assert [p.id for p in found] == ([] if fits else ["java-unfit"])
        if not fits:
            assert only(found).what == "jdk-11.tar.gz needs glibc 2.34, and the host has 2.31"

    def test_a_jdk_tarball_that_names_no_version(self) -> None:
        """Its Java is asked when it is unpacked."""
        jdk = replace(TARBALL, path=Path("jdk.tar.gz"), seen=Seen(("bin/java",), texts={}))
        cluster = builders.alluxio()
        worker = cluster.workers[0]
        seen = {worker.machine: facts(commands={})}
        found = only(worker_preflight.workers(cluster, [worker], replace(ARTIFACTS, jdk=jdk), seen))
        assert found.severity == "warning"
        assert found.what == "nobody knows the version of jdk.tar.gz: no file in it names it"

    @pytest.mark.parametrize(("memory", "warns"), [(2 * GIB, False), (2 * GIB - 1, True)])
    def test_memory(self, memory: int, warns: bool) -> None:
        found = self.problems(facts(values={"memory": str(memory)}))
        assert [p.severity for p in found] == (["warning"] if warns else [])

    def test_a_large_page_store_is_not_memory(self) -> None:
        store = PageStore(dirs=["/pages"], sizes=["10TB"])
        assert self.problems(facts(), page_store=store) == []


def test_all_is_listed_and_warnings_alone_do_not_stop() -> None:
    error, warning = (
        Problem("a", "bad", id="disk-full"),
        Problem("b", "odd", severity="warning", id="disk-full"),
    )
    assert preflight.require([]) == ()
    with pytest.raises(PreflightFailed, match="preflight failed") as caught:
        preflight.require([warning, error])
    assert caught.value.exit_code == 3
    assert set(caught.value.problems) == {error, warning}


def test_noting_goes_on() -> None:
    problems: list[Problem] = []
    with preflight.noting(problems):
        raise PreflightFailed("x", [Problem("a", "bad", id="disk-full")], id="preflight-failed")
    assert [p.what for p in problems] == ["bad"]


def test_sizes() -> None:
    assert sizes.size_bytes("512") == sizes.size_bytes("512B") == 512
    assert sizes.size_bytes("64MB") == sizes.size_bytes("64m") == 64 << 20
    assert sizes.size_bytes("2TB") == 2 << 40
    assert sizes.jvm_size("4GB") == "4G"
