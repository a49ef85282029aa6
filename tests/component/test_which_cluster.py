"""Which cluster it is, by real members on loopback: their answers, and what is on their disks."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import PreflightFailed, UsageError
from provision.etcd.cluster import groups, guard, hashes, health, wal
from provision.etcd.cluster.handle import Etcd
from provision.inventory.model import EtcdAuth, Secret
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plans.etcd.state import observe
from provision.ssh.session import Fleet
from tests.component.conftest import ARTIFACTS, SERVES_WITHIN, Boot, Member, Running
from tests.unit import builders

BOOTSTRAP = "--initial-cluster"


@pytest.fixture
def three(boot: Boot) -> Iterator[Running]:
    with boot(3) as running:
        yield running


@pytest.fixture(scope="session")
def etcdutl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (tarball,) = list(ARTIFACTS.glob("etcd-v3.6.*.tar.gz"))[:1]
    into = tmp_path_factory.mktemp("etcdutl")
    with tarfile.open(tarball) as tar:
        for member in tar.getmembers():
            if member.name.endswith("/etcdutl"):
                member.name = "etcdutl"
                tar.extract(member, into)
    return into / "etcdutl"


def inventory(running: Running, fleet: Fleet, wanted: str = "") -> Inventory:
    """The inventory as a command gets it that cannot log in to the members' hosts."""
    declared = builders.inventory(None, etcd=running.cluster)
    return guard.establish(declared, Etcd(declared.etcd, fleet), wanted)


def put(running: Running, fleet: Fleet, name: str, value: str, times: int = 1) -> None:
    member = next(m for m in running.cluster.members if m.name == name)
    with Etcd(running.cluster, fleet).member(member) as client:
        for _ in range(times):
            client.put("/key", value)


def read(cluster: EtcdCluster, fleet: Fleet) -> str:
    with Etcd(cluster, fleet).any() as client:
        found = client.get("/key")
    return found.value.decode() if found is not None else ""


def wait_serving(running: Running, fleet: Fleet, *names: str) -> None:
    deadline = time.monotonic() + SERVES_WITHIN
    while True:
        seen = health.observe(Etcd(running.cluster, fleet))
        waiting = [name for name in names if not seen.is_member_healthy(name)]
        if not waiting:
            return
        assert time.monotonic() < deadline, seen.problems
        for name in waiting:
            running.members[name].require_running(deadline)
        time.sleep(0.05)


def test_a_member_that_has_ended_is_not_waited_for(three: Running, fleet: Fleet) -> None:
    three.kill("infra1")
    begun = time.monotonic()
    with pytest.raises(pytest.fail.Exception, match="infra1 does not serve"):
        wait_serving(three, fleet, "infra0", "infra1")
    assert time.monotonic() - begun < SERVES_WITHIN / 2


def bootstrap_alone(member: Member) -> None:
    """Emptied, and started as the only member that there is."""
    member.kill()
    shutil.rmtree(member.declared.data_dir)
    own = f"{member.declared.name}={member.declared.peer_url}"
    at = member.command.index(BOOTSTRAP) + 1
    member.command[at] = own
    member.start()


@pytest.mark.parametrize("odd", ["infra0", "infra1", "infra2"])
def test_a_second_cluster_is_refused_until_one_is_named(
    three: Running, fleet: Fleet, odd: str
) -> None:
    others = [m.name for m in three.cluster.members if m.name != odd]
    put(three, fleet, others[0], "before")
    bootstrap_alone(three.members[odd])
    wait_serving(three, fleet, odd, *others)
    put(three, fleet, others[0], "acknowledged")
    with pytest.raises(PreflightFailed, match="more than one cluster") as refused:
        inventory(three, fleet)
    shown = [p for p in refused.value.problems if p.where.startswith("cluster ")]
    assert len(shown) == 2
    assert {p.id for p in refused.value.problems} == {"etcd-clusters-differ"}
    names = {p.where.removeprefix("cluster "): p.what for p in shown}
    right = next(n for n, what in names.items() if others[0] in what)
    chosen = inventory(three, fleet, right).etcd
    # From now on nothing takes the odd one for a member, wherever it stands.
    seen = health.observe(Etcd(chosen, fleet))
    assert [m.member.name for m in seen.members if not m.healthy] == [odd]
    assert next(m for m in seen.members if m.member.name == odd).error_id == "member-odd"
    assert seen.leader in others
    for _ in range(3):
        assert read(chosen, fleet) == "acknowledged"
    wrong = next(n for n in names if n != right)
    assert read(inventory(three, fleet, wrong).etcd, fleet) != "acknowledged"
    with pytest.raises(UsageError, match="no cluster 'abc'"):
        inventory(three, fleet, "abc")


@pytest.mark.parametrize("forced", [False, True])
def test_one_that_answers_for_the_cluster_while_nothing_is_seen_of_the_others(
    three: Running, fleet: Fleet, forced: bool
) -> None:
    put(three, fleet, "infra0", "before")
    odd, *others = three.members.values()
    for member in others:
        member.kill()  # as when their hosts cannot be reached: no answer, no login
    if forced:
        odd.kill()
        odd.command.append("--force-new-cluster")
        odd.start()
    else:
        bootstrap_alone(odd)
    wait_serving(three, fleet, "infra0")
    with pytest.raises(PreflightFailed, match="may not be the cluster of the last run") as refused:
        inventory(three, fleet)
    assert {p.id for p in refused.value.problems} == {"etcd-members-unseen"}
    looked = health.observe(Etcd(three.cluster, fleet))
    assert "etcd-members-unseen" in {p.id for p in looked.problems if p.severity == "error"}
    with Etcd(three.cluster, fleet).member(three.cluster.members[0]) as client:
        name = f"{client.status().cluster_id:x}"
    assert f"--cluster-id {name}" in refused.value.problems[-1].remedy
    assert inventory(three, fleet, name).etcd.established.cluster_id == int(name, 16)


def test_an_intact_cluster_with_a_member_away_is_known(three: Running, fleet: Fleet) -> None:
    three.members["infra1"].kill()
    wait_serving(three, fleet, "infra0", "infra2")
    assert inventory(three, fleet).etcd.established.cluster_id is not None
    looked = health.observe(Etcd(three.cluster, fleet))
    assert "etcd-members-unseen" not in {p.id for p in looked.problems}


def test_two_wiped_of_three_with_the_right_ids_are_older_than_the_third(
    three: Running, fleet: Fleet
) -> None:
    put(three, fleet, "infra0", "acknowledged", times=20)
    before = health.observe(Etcd(three.cluster, fleet)).members
    three.kill()
    for name in ("infra1", "infra2"):
        shutil.rmtree(three.members[name].declared.data_dir)
        three.members[name].start()
    wait_serving(three, fleet, "infra1", "infra2")
    after = health.observe(Etcd(three.cluster, fleet)).members
    for old, new in list(zip(before, after, strict=True))[1:]:
        assert old.status is not None
        assert new.status is not None
        assert (old.status.cluster_id, old.status.member_id) == (
            new.status.cluster_id,
            new.status.member_id,
        )
    # What is on the third's disk says so.
    member = three.cluster.members[0]
    found = ids_on_disk(member)
    assert before[0].status is not None
    assert found == (before[0].status.member_id, before[0].status.cluster_id)
    told = guard.answers(health.observe(Etcd(three.cluster, fleet)))
    disk = groups.Disk(found.cluster_id, found.member_id, before[0].status.revision)
    seen = (
        groups.Seen("infra0", disk=disk),
        *(groups.Seen(n, told[n]) for n in ("infra1", "infra2")),
    )
    verdict = groups.decide(seen, groups.form(seen))
    assert isinstance(verdict, groups.Behind)
    assert "infra0 has data" in verdict.why


def ids_on_disk(member: EtcdMember) -> wal.Ids:
    newest = max(Path(member.data_dir, "member", "wal").glob("*.wal"))
    head = f"od -An -v -tx1 -N {wal.HEAD} {newest}"
    found = wal.parse(subprocess.check_output(head.split(), text=True))
    assert found is not None
    return found


def test_a_member_restored_by_hand_under_its_own_ids_has_other_data(
    three: Running, fleet: Fleet, etcdutl: Path, tmp_path: Path
) -> None:
    """With the full initial-cluster and the same token: ids, leader and revision may be right."""
    put(three, fleet, "infra0", "yesterday")
    with Etcd(three.cluster, fleet).member(three.cluster.members[0]) as client:
        snapshot = tmp_path / "yesterday.db"
        snapshot.write_bytes(b"".join(client.snapshot()))
    put(three, fleet, "infra0", "today", times=5)
    odd = three.members["infra2"]
    three.kill()
    shutil.rmtree(odd.declared.data_dir)
    restore = [
        *(str(etcdutl), "snapshot", "restore", str(snapshot), "--name", "infra2"),
        *("--data-dir", odd.declared.data_dir, "--initial-cluster", three.cluster.initial_cluster),
        *("--initial-advertise-peer-urls", odd.declared.peer_url),
    ]
    subprocess.run(restore, check=True, capture_output=True)
    # A leader that has been its leader before would have it panic instead: it knows its log.
    for member in three.members.values():
        member.start()
    wait_serving(three, fleet, "infra0", "infra1", "infra2")
    seen = health.observe(Etcd(three.cluster, fleet))
    assert len({m.status.cluster_id for m in seen.members if m.status is not None}) == 1
    found = hashes.compare(seen, Etcd(seen.cluster, fleet))
    assert found.differing == ("infra2",)
    with pytest.raises(PreflightFailed, match="data differ") as refused:
        hashes.require_equal(seen, Etcd(seen.cluster, fleet))
    assert "replace-member infra2" in refused.value.problems[0].remedy
    hashes.require_equal(seen, Etcd(seen.cluster, fleet), sparing=["infra2"])


def test_a_lost_password_is_not_taken_for_a_cluster_that_is_down(
    three: Running, fleet: Fleet, tmp_path: Path
) -> None:
    with Etcd(three.cluster, fleet).any() as client:
        client.user_add("root", "right")
        client.role_add("root")
        client.user_grant_role("root", "root")
        client.auth_enable()
    password = tmp_path / "root"
    password.write_text("lost", encoding="utf-8")
    password.chmod(0o600)
    auth = EtcdAuth(enabled=True, root_password=Secret(file=password))
    cluster = replace(three.cluster, auth=auth)
    refusing = health.observe(Etcd(cluster, fleet))
    assert all(m.refused for m in refusing.members)
    seen = []
    for m in three.cluster.members:
        found = ids_on_disk(m)
        disk = groups.Disk(found.cluster_id, found.member_id, 5)
        seen.append(groups.Seen(m.name, disk=disk, refuses=True))
    verdict = groups.decide(seen, groups.form(seen))
    assert isinstance(verdict, groups.Serving)
    assert verdict.group.serves is None
    with pytest.raises(PreflightFailed, match="refuses the login of this tool"):
        observe._cluster(Etcd(cluster, fleet))


def test_the_same_data_have_the_same_hash(three: Running, fleet: Fleet) -> None:
    put(three, fleet, "infra1", "value", times=3)
    found = hashes.compare(health.observe(Etcd(three.cluster, fleet)), Etcd(three.cluster, fleet))
    assert found.equal
    assert [sorted(names) for names in found.by_hash.values()] == [["infra0", "infra1", "infra2"]]
    # Compacted since the look: it is repeated.
    seen = health.observe(Etcd(three.cluster, fleet))
    with Etcd(three.cluster, fleet).any() as client:
        for n in range(5):
            client.put("/more", str(n))
        client.compact(client.put("/more", "last"))
    assert hashes.compare(seen, Etcd(seen.cluster, fleet)).equal
    # One that was restarted since the compaction does not repeat the hash of that time.
    three.kill("infra1")
    three.members["infra1"].start()
    wait_serving(three, fleet, "infra0", "infra1", "infra2")
    found = hashes.compare(health.observe(Etcd(three.cluster, fleet)), Etcd(three.cluster, fleet))
    assert (found.equal, found.compared) == (True, 3)


def test_quorum_is_that_of_etcds_members_not_of_the_inventory(three: Running, fleet: Fleet) -> None:
    five = [builders.member(n, address="127.0.0.1", client_port=1, peer_port=n) for n in (8, 9)]
    declared = replace(three.cluster, members=(*three.cluster.members, *five))
    seen = health.observe(Etcd(declared, fleet))
    assert (seen.healthy_count, seen.quorum) == (3, 2)
