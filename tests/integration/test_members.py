"""Members come, go and move while a client writes. The tests build on one another."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import Endpoint, RegisteredMember

from .lab import LAB, RELEASE, Changes, Lab, connected
from .writes import writing

NAMES = ("etcd0", "etcd1", "etcd2", "etcd3", "etcd4", "worker0", "worker1")
SITE = f"/opt/alluxio/{RELEASE.version}/conf/alluxio-site.properties"
#: The last octet of the address that a host moves to; no host of the lab has it.
NEW_OCTET = "113"


@pytest.fixture(scope="module")
def five(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab with two more hosts for members, all of them clean."""
    lab.clear()
    subprocess.run([LAB, "up", *NAMES], check=True)
    with connected(NAMES, tmp_path_factory.mktemp("members")) as larger:
        yield larger


def declare(
    lab: Lab, *names: str, addresses: Changes | None = None, etcd: Changes | None = None
) -> Path:
    """An inventory whose members are those on the hosts of these names, and with ``etcd``."""
    members: dict[str, object] = {f"etcd{n}": None for n in range(3)}
    for name in names:
        host = lab.hosts[name].address
        members[name] = {"host": host, "address": (addresses or {}).get(name, host)}
    return lab.inventory({"etcd": {"members": members, **(etcd or {})}})


def voters(lab: Lab, through: str) -> set[str]:
    with lab.client(lab.hosts[through]) as client:
        found = client.member_list()
    assert not any(member.is_learner for member in found)
    return {member.name for member in found}


def leader(lab: Lab, *names: str) -> str:
    for name in names:
        with lab.client(lab.hosts[name]) as client:
            if client.status().is_leader:
                return name
    raise AssertionError("no leader")


def endpoints(lab: Lab) -> set[str]:
    """The workers' lists of endpoints; one entry when all have the same."""
    lines = lab.on(lab.workers, f"grep ^alluxio.etcd.endpoints= {SITE}")
    return {line.partition("=")[2] for line in lines}


def urls(lab: Lab, *names: str) -> str:
    return ",".join(f"http://{lab.hosts[name].address}:2379" for name in names)


def test_one_becomes_three_becomes_five_and_the_workers_know(five: Lab) -> None:
    one, three = declare(five, "etcd0"), declare(five, "etcd0", "etcd1", "etcd2")
    names = ("etcd0", "etcd1", "etcd2", "etcd3", "etcd4")
    whole = declare(five, *names)
    five.invoke("deploy-etcd", one).expect(0)
    five.invoke("start-workers", one).expect(0, "2 of 2 live")
    with writing(five.etcd[:1], "/test/grow/"):
        # A dry run shows it, and changes nothing.
        shown = five.invoke("deploy-etcd", three, "--dry-run")
        shown.expect(0, "add etcd1 as a learner", "restart worker0", "nothing was changed")
        assert voters(five, "etcd0") == {"etcd0"}
        five.invoke("deploy-etcd", three).expect(0, "etcd: promote etcd2", "restart worker1")
        assert voters(five, "etcd2") == {"etcd0", "etcd1", "etcd2"}
        assert endpoints(five) == {urls(five, "etcd0", "etcd1", "etcd2")}
        five.invoke("add-member", whole, "etcd3").expect(0)
        five.invoke("add-member", whole).expect(0, "add etcd4 as a learner")
    assert voters(five, "etcd4") == set(names)
    assert endpoints(five) == {urls(five, *names)}
    five.invoke("deploy-etcd", whole).expect(0, "0 changed")
    # An inventory that lacks members may be an older checkout: they stay until they are named, and
    # so does a newer patch release.
    older = declare(five, "etcd0", "etcd1", "etcd2", etcd={"version": "3.6.15"})
    drift = five.invoke("deploy-etcd", older, "--dry-run", "--exit-code")
    drift.expect(1, "--remove etcd3", "--remove etcd4", "release-newer", "--downgrade")
    five.invoke("deploy-etcd", older).expect(0, "member-not-declared", "release-newer", "0 changed")
    started = five.invoke("start-workers", three, "--dry-run", "--exit-code")
    started.expect(0)  # they are live members: the workers keep their endpoints
    assert voters(five, "etcd4") == set(names)
    removed = five.invoke("deploy-etcd", three, "--remove", "etcd3,etcd4")
    removed.expect(0, "remove etcd3", "remove etcd4")
    assert endpoints(five) == {urls(five, "etcd0", "etcd1", "etcd2")}
    five.invoke("deploy-etcd", three, "--remove", "etcd3,etcd4").expect(0, "0 changed")
    assert voters(five, "etcd0") == {"etcd0", "etcd1", "etcd2"}


def test_a_lost_member_is_replaced_and_nothing_else_is_restarted(five: Lab) -> None:
    three = declare(five, "etcd0", "etcd1", "etcd2")
    lost = five.hosts["etcd2"]
    with writing(five.etcd[:2], "/test/replace/"):
        lost.run(
            "systemctl kill -s KILL etcd; systemctl stop etcd; rm -rf /var/lib/etcd/member*",
        )
        pids = [five.hosts[n].main_pid("etcd.service") for n in ("etcd0", "etcd1")]
        five.invoke("deploy-etcd", three).expect(3, "has lost its data", "replace-member etcd2")
        five.invoke("replace-member", three, "etcd2").expect(0, "add etcd2 as a learner")
    assert [five.hosts[n].main_pid("etcd.service") for n in ("etcd0", "etcd1")] == pids
    assert voters(five, "etcd2") == {"etcd0", "etcd1", "etcd2"}
    five.invoke("replace-member", three, "etcd2").expect(0, "0 changed", "etcd2 is healthy")


def test_a_dead_host_is_replaced_by_another_by_editing_the_inventory(five: Lab) -> None:
    swapped = declare(five, "etcd0", "etcd1", "etcd3")
    dead = five.hosts["etcd2"]
    with writing(five.etcd[:2], "/test/swap/"):
        dead.run(
            "systemctl kill -s KILL etcd; systemctl stop etcd; iptables -I INPUT -p tcp "
            "--dport 2379:2380 -j DROP"
        )
        refused = five.invoke("deploy-etcd", swapped)
        refused.expect(3, "etcd3 cannot be added while etcd2 is not", "--remove etcd2")
        five.invoke("deploy-etcd", swapped, "--remove", "etcd2").expect(
            0, "remove etcd2", "add etcd3 as a learner"
        )
        dead.run("iptables -F")
    assert voters(five, "etcd3") == {"etcd0", "etcd1", "etcd3"}
    # Kept, not deleted: nobody said so.
    assert "member.removed-" in dead.run("ls /var/lib/etcd")
    assert endpoints(five) == {urls(five, "etcd0", "etcd1", "etcd3")}


def test_the_leader_is_removed_after_another_has_taken_the_lead(five: Lab) -> None:
    five.invoke("deploy-etcd", declare(five, "etcd0", "etcd1", "etcd2", "etcd3")).expect(0)
    inventory = declare(five, "etcd0", "etcd1", "etcd2", "etcd3")
    five.invoke("move-leader", inventory, "etcd3").expect(0, "1 changed; etcd3 leads")
    five.invoke("move-leader", inventory, "etcd3").expect(0, "0 changed")
    # What earlier tests have left aside there stays.
    kept = five.hosts["etcd3"].run("ls -A /var/lib/etcd | grep -vx member || :")
    with writing(five.etcd[:3], "/test/leader/") as writes:
        five.invoke("remove-member", inventory, "etcd3", "--delete-data", "etcd3").expect(
            0, "take etcd3 out of"
        )
        assert writes.pause() < 3
    assert voters(five, "etcd0") == {"etcd0", "etcd1", "etcd2"}
    assert leader(five, "etcd0", "etcd1", "etcd2")
    assert five.hosts["etcd3"].run("ls -A /var/lib/etcd") == kept
    assert endpoints(five) == {urls(five, "etcd0", "etcd1", "etcd2")}


def test_removing_what_would_cost_the_quorum_is_refused(five: Lab) -> None:
    three = declare(five, "etcd0", "etcd1", "etcd2")
    down = five.hosts["etcd2"]
    down.run("systemctl stop etcd")
    refused = five.invoke("remove-member", three, "etcd1")
    refused.expect(3, "without etcd1, 1 of 2 voters would be healthy", "nothing was changed")
    five.invoke("deploy-etcd", three).expect(0)
    assert voters(five, "etcd2") == {"etcd0", "etcd1", "etcd2"}


def test_a_member_whose_address_changes_keeps_its_data(five: Lab) -> None:
    moving = five.hosts["etcd2"]
    address = moving.address.rpartition(".")[0] + f".{NEW_OCTET}"
    inventory = declare(five, "etcd0", "etcd1", "etcd2", addresses={"etcd2": address})
    five.invoke("move-leader", inventory, "etcd0")
    before = {m.name: m.id for m in _members(five)}
    moving.run(f"ip addr add {address}/24 dev eth0")
    try:
        with writing(five.etcd[:2], "/test/address/"):
            five.invoke("deploy-etcd", inventory).expect(0, "tell etcd the new address of etcd2")
        members = _members(five)
        assert {m.name: m.id for m in members} == before
        moved = next(m for m in members if m.name == "etcd2")
        assert moved.peer_urls == (f"https://{address}:2380",)
        assert moved.client_urls == (f"http://{address}:2379",)
        with EtcdClient(Endpoint(address, 2379)) as client:
            client.quorum_write("etcd2")
        new = f"{urls(five, 'etcd0', 'etcd1')},http://{address}:2379"
        assert endpoints(five) == {new}
        five.invoke("deploy-etcd", inventory).expect(0, "0 changed")
    finally:
        five.invoke("deploy-etcd", declare(five, "etcd0", "etcd1", "etcd2"))
        moving.run(f"ip addr del {address}/24 dev eth0")


def test_a_run_that_is_killed_anywhere_in_between_is_finished_by_the_next(five: Lab) -> None:
    """After the learner was added; started but not promoted; removed but its host not cleaned;
    members done but the workers not told."""
    five.invoke("deploy-etcd", declare(five, "etcd0", "etcd1", "etcd2")).expect(0)
    four = declare(five, "etcd0", "etcd1", "etcd2", "etcd3")
    swapped = declare(five, "etcd0", "etcd1", "etcd2", "etcd4")
    for inventory, moment, remove in (
        (four, "start etcd3", ()),
        (swapped, "clean the host of etcd3", ("--remove", "etcd3")),
        (four, "restart worker1", ("--remove", "etcd4")),
    ):
        running = five.start("deploy-etcd", inventory, *remove)
        running.wait_for(rf"^ *[0-9.]+ s \[.*\] {moment}")
        running.kill()
        five.invoke("deploy-etcd", inventory, *remove).expect(0)
        name = "etcd4" if inventory is swapped else "etcd3"
        assert voters(five, "etcd0") == {"etcd0", "etcd1", "etcd2", name}
        assert endpoints(five) == {urls(five, "etcd0", "etcd1", "etcd2", name)}
        five.invoke("deploy-etcd", inventory).expect(0, "0 changed")
        gone = five.hosts["etcd3" if inventory is swapped else "etcd4"]
        assert gone.show("etcd.service", "ActiveState")["ActiveState"] in ("inactive", "failed")
        assert gone.run("systemctl is-enabled etcd.service", check=False) != "enabled"
    three = declare(five, "etcd0", "etcd1", "etcd2")
    five.invoke("deploy-etcd", three, "--remove", "etcd3").expect(0)


def _members(lab: Lab) -> list[RegisteredMember]:
    with lab.client(lab.hosts["etcd0"]) as client:
        return client.member_list()
