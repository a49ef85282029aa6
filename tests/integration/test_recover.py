"""recover-etcd on real hosts: two of three members are dead, and the third has the data."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .lab import CLUSTER, Lab, firewall

pytestmark = pytest.mark.slow

OPTIONS = ("etcd1", "--yes-recover", CLUSTER)
STEPS = (
    r"stop the survivors",
    r"make etcd1 a cluster of its own",
    r"\] start etcd1",
    r"add etcd0 as a learner",
    r"\] start etcd0",
    r"add etcd2 as a learner",
    r"\] start etcd2",
    r"\] finish",
)


@pytest.fixture(scope="module", autouse=True)
def without_old_data(lab: Lab, workers: None) -> Iterator[None]:
    """Kept data is the operator's: no command deletes it."""
    yield
    lab.on(lab.etcd, "rm -rf /var/lib/etcd/member.*")


def lose_quorum(lab: Lab, value: str) -> None:
    """An acknowledged write that every member has, then two members are gone."""
    with lab.client(lab.hosts["etcd1"]) as client:
        client.put("/acknowledged", value)
    for name in ("etcd0", "etcd2"):
        lab.hosts[name].run("systemctl kill -s KILL etcd; systemctl stop etcd")


def require_recovered(lab: Lab, value: str) -> None:
    ids = set()
    for host in lab.etcd:
        with lab.client(host) as client:
            found = client.get("/acknowledged")
            assert found is not None
            assert found.value == value.encode()
            assert [m.is_learner for m in client.member_list()] == [False] * 3
            ids.add(client.status().cluster_id)
    assert len(ids) == 1
    assert not any(lab.on(lab.etcd, "ls -d /var/lib/etcd/unfinished || :", check=False))
    config = lab.hosts["etcd1"].read("/etc/etcd/etcd.conf.yml")
    assert "force-new-cluster" not in config
    lab.invoke("check-nodes").expect(0)
    lab.invoke("deploy-etcd").expect(0, "0 changed")


def test_refused_while_there_is_a_quorum(lab: Lab) -> None:
    lab.hosts["etcd0"].run("systemctl stop etcd")
    refused = lab.invoke("recover-etcd", None, *OPTIONS)
    refused.expect(3, "the quorum is not lost", "invoke deploy-etcd starts members")
    lab.invoke("deploy-etcd").expect(0)
    lab.invoke("check-nodes").expect(0)


def test_what_may_be_lost_is_said_before(lab: Lab) -> None:
    lose_quorum(lab, "said")
    lab.invoke("recover-etcd", None, "etcd1").expect(
        2, "later writes that it does not have are lost", f"called {CLUSTER}"
    )
    lab.invoke("recover-etcd", None, *OPTIONS).expect(0)
    require_recovered(lab, "said")


def test_a_survivor_whose_host_does_not_answer_comes_later(lab: Lab) -> None:
    lose_quorum(lab, "later")
    away, alone = lab.hosts["etcd2"], lab.inventory({"alluxio": None})
    with firewall([away], "INPUT -p tcp --syn --dport 22 -j REJECT"):
        done = lab.invoke("recover-etcd", alone, *OPTIONS, "--format", "json").expect(0)
    assert "invoke add-member etcd2" in done.stderr
    # It is started with the data of the cluster that was, as by a boot: nobody listens to it.
    away.run("systemctl start --no-block etcd")
    lab.invoke("add-member", alone, away.name).expect(0, "keep the data aside")
    for host in lab.etcd:
        with lab.client(host) as client:
            found = client.get("/acknowledged")
            assert found is not None
            assert found.value == b"later"
    lab.invoke("deploy-etcd", alone).expect(0, "0 changed")


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere_it_is_finished_by_running_it_again(lab: Lab, step: str) -> None:
    lose_quorum(lab, step)
    running = lab.start("recover-etcd", None, *OPTIONS)
    running.wait_for(step)
    running.kill()
    lab.invoke("recover-etcd", None, *OPTIONS).expect(0)
    require_recovered(lab, step)


def test_damaged_data_is_no_dead_end(lab: Lab) -> None:
    """The chosen member's database has zeros inside. The others' data is untouched: one of them is
    chosen next."""
    with lab.client(lab.hosts["etcd0"]) as client:  # the member that is asked has applied it
        client.put("/acknowledged", "damaged")
        assert client.get("/acknowledged") is not None
    lose_quorum(lab, "damaged")
    first = lab.hosts["etcd1"]
    first.run(
        "systemctl stop etcd; db=/var/lib/etcd/member/snap/db; size=$(stat -c %s $db); "
        "dd if=/dev/zero of=$db bs=4096 seek=2 count=$((size / 4096 - 2)) conv=notrunc status=none"
    )
    lab.invoke("recover-etcd", None, *OPTIONS).expect(4, "force-new-cluster")
    options = ("etcd0", "--yes-recover", CLUSTER)
    lab.invoke("recover-etcd", None, *options).expect(0)
    require_recovered(lab, "damaged")
