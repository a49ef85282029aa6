"""Several Alluxio clusters in one real etcd."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.alluxio.membership import clusters, registrations
from provision.alluxio.membership.clusters import Cluster
from provision.errors import PreflightFailed, UsageError
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import Login
from provision.etcd.cluster import gates, health
from provision.etcd.cluster.handle import Etcd
from provision.host import safely
from provision.inventory.model import AlluxioEtcd, EtcdAuth, Secret
from provision.inventory.resolved import Inventory
from provision.plans import clean_host, destroy
from provision.plans.etcd import auth
from provision.plans.etcd.state import other_clusters
from provision.ssh.session import Fleet
from tests.component.conftest import Boot, Running
from tests.unit import builders, hosts

WORKERS = Login("alluxio", "w-secret")


@pytest.fixture
def running(boot: Boot) -> Iterator[Running]:
    with boot() as running:
        yield running


@pytest.fixture
def inventory(running: Running, tmp_path: Path) -> Inventory:
    """The one that owns the etcd; its cluster is "prod", and "stage" is declared beside it."""
    for name, password in (("root", "r-secret"), ("workers", WORKERS.password)):
        (tmp_path / name).write_text(f"{password}\n")
    secret = EtcdAuth(enabled=True, root_password=Secret(file=tmp_path / "root"))
    login = AlluxioEtcd(username=WORKERS.user, password=Secret(file=tmp_path / "workers"))
    return dataclasses.replace(
        builders.inventory(builders.alluxio(name="prod", etcd_login=login)),
        cluster="prod",
        etcd=dataclasses.replace(running.cluster, auth=secret),
        other_clusters=("stage",),
    )


def join(client: EtcdClient, cluster: str, *workers: str, live: bool = True) -> int:
    """What workers leave in etcd. Returns the lease of the live ones."""
    lease = client.lease_grant(60)
    for worker in workers:
        client.put(f"{registrations.authorized_prefix(cluster)}{worker}", "{}")
        if live:
            client.put(f"{registrations.live_prefix(cluster)}{worker}", "{}", lease=lease)
    return lease


def test_a_hosts_own_etcd_lists_the_live_workers(
    running: Running, client: EtcdClient, etcd_binary: Path, tmp_path: Path
) -> None:
    """What clean-host asks on a host, by a real shell and etcdctl."""
    join(client, "prod", "worker-1")
    join(client, "stage", "worker-2", live=False)
    (member,) = running.cluster.members
    config = tmp_path / "etcd.conf.yml"
    config.write_text(f'listen-client-urls: "{member.client_url}"\n')
    binary = str(etcd_binary)
    found = clean_host._etcd("prod", "etcd", str(tmp_path), str(config), binary)
    commands = clean_host._probe([found], [], hosts.facts()).commands

    def said(label: str) -> str:
        command = ["sh", "-ec", commands[label]]
        return subprocess.run(command, capture_output=True, check=False, text=True).stdout

    assert json.loads(said("members"))["members"][0]["name"] == member.name
    assert said("live workers").split() == [
        "/ServiceDiscovery/prod/worker-1",
        *clean_host._END.split(),
    ]
    running.kill()
    assert said("live workers") == ""


def test_a_member_that_is_down_has_the_names_in_its_data(
    running: Running, client: EtcdClient
) -> None:
    """What a restore or a recovery reads, of real data."""
    join(client, "prod", "worker-1")
    join(client, "stage b", "worker-2", live=False)
    running.kill()
    (member,) = running.cluster.members
    hosts.given(Path(member.data_dir))
    command = ["sh", "-ec", f"{safely.FUNCTIONS}\n{other_clusters.names_in(member)}"]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert said.splitlines() == ["prod", "stage b", "end of clusters"]


def test_each_is_counted_apart(inventory: Inventory, fleet: Fleet, client: EtcdClient) -> None:
    join(client, "prod", "w1", "w2")
    join(client, "prod", "w3", live=False)
    client.put("/ServiceDiscovery/prod/w4", "{}")  # without a lease it says nothing
    join(client, "stage", "w1")
    join(client, "prod-b", "w1", live=False)
    client.put(b"/DHT/\xff\x1b[2J/AUTHORIZED/w", "{}")
    etcd = Etcd(inventory.etcd, fleet)
    seen = clusters.look(inventory, etcd)
    assert seen.complete
    assert seen.clusters == (
        Cluster("prod", 3, 2, "this one", ("prod-b",)),
        Cluster("prod-b", 1, 0, "", ("prod",)),
        Cluster("stage", 1, 1, "in other_clusters", ()),
        Cluster("\ufffd\ufffd[2J", 1, 0, "", ()),
    )
    empty = clusters.look(dataclasses.replace(inventory, cluster="new"), etcd)
    assert empty.clusters[0] == Cluster("new", 0, 0, "this one", ())


def test_names_that_begin_alike_stop_a_new_cluster_only(
    inventory: Inventory, fleet: Fleet, client: EtcdClient
) -> None:
    join(client, "prod", "w1")
    for name, severity in (("prod-b", "error"), ("prod", "warning")):
        join(client, "prod-a", "w1")
        seen = registrations.read(client, name)
        found = clusters.mixed_up(name, clusters.names(client), seen)
        assert [p.severity for p in found][:1] == [severity], name
    assert clusters.mixed_up("stage", clusters.names(client), seen) == []


def test_an_etcd_that_serves_others_is_not_destroyed(
    inventory: Inventory, fleet: Fleet, client: EtcdClient
) -> None:
    join(client, "prod", "w1")
    lease = join(client, "stage", "w1", "w2")
    etcd = Etcd(inventory.etcd, fleet)
    with pytest.raises(PreflightFailed) as caught:
        destroy.others(inventory, etcd)
    assert [str(p) for p in caught.value.problems] == [
        "cluster stage: has 2 live workers in this etcd (stop them first)"
    ]
    client.lease_revoke(lease)
    assert destroy.others(inventory, etcd) == ()
    theirs = dataclasses.replace(inventory.etcd, external=True)
    (note,) = destroy.others(dataclasses.replace(inventory, etcd=theirs), etcd.with_cluster(theirs))
    assert note.what == "keeps 1 registration of cluster prod: it is not destroyed"


KNOWN = "cluster stage: has 2 live workers in this etcd (stop them first)"


def refusal(inventory: Inventory, fleet: Fleet) -> list[str]:
    """Why destroy is refused; once more with the operator's word, what it warns of."""
    etcd = Etcd(inventory.etcd, fleet)
    with pytest.raises(PreflightFailed) as caught:
        destroy.others(inventory, etcd)
    if caught.value.id == "other-clusters-live":
        with pytest.raises(PreflightFailed):
            destroy.others(inventory, etcd, agreed=True)
    else:
        assert caught.value.id == "other-clusters-unknown"
        assert "--other-clusters-unknown prod" in caught.value.problems[-1].remedy
        [note] = destroy.others(inventory, etcd, agreed=True)
        assert note.severity == "warning"
    return [str(p) for p in caught.value.problems]


def plainly(inventory: Inventory) -> Inventory:
    """The same without any login."""
    return dataclasses.replace(inventory, etcd=dataclasses.replace(inventory.etcd, auth=EtcdAuth()))


def test_an_etcd_that_cannot_be_asked_with_a_login_is_not_destroyed(
    inventory: Inventory,
    fleet: Fleet,
    client: EtcdClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong password, no etcd.auth at all, and the workers' login only."""
    monkeypatch.setattr(auth, "_workers", lambda *_: ([], []))  # no hosts here
    join(client, "stage", "w1", "w2")
    assert refusal(inventory, fleet) == [KNOWN]
    auth_on(inventory, fleet)
    assert refusal(inventory, fleet) == [KNOWN]
    # Names that Alluxio would mix up are found by root, where the workers' user may not look.
    etcd = Etcd(inventory.etcd, fleet)
    with etcd.as_worker(WORKERS).any() as theirs:
        assert clusters.names(theirs) == []
        assert clusters.names_as_root(etcd, theirs) == ["stage"]
        assert clusters.names_as_root(Etcd(plainly(inventory).etcd, fleet), theirs) == []
    (tmp_path / "root").write_text("an old one\n")
    assert "login refused" in refusal(inventory, fleet)[0]
    without = plainly(inventory)
    assert "may read the keys of this cluster only" in refusal(without, fleet)[-1]
    assert without.alluxio is not None
    nobody = dataclasses.replace(
        without, alluxio=dataclasses.replace(without.alluxio, etcd_login=AlluxioEtcd())
    )
    assert "login refused" in refusal(nobody, fleet)[0]


def auth_on(inventory: Inventory, fleet: Fleet) -> None:
    etcd = Etcd(inventory.etcd, fleet)
    seen = auth.observe(inventory, etcd)
    for step in auth.enable(inventory, etcd, seen, list(seen.others.live)).steps:
        for call in step.calls:
            call.do()


def test_members_without_a_quorum_are_asked_one_by_one(boot: Boot, fleet: Fleet) -> None:
    """One process that is left must neither hide other clusters nor make destroy impossible."""
    with boot(3) as three:
        made = builders.inventory(builders.alluxio(name="prod"))
        plain = dataclasses.replace(made, cluster="prod", etcd=three.cluster)
        etcd = Etcd(three.cluster, fleet)
        with etcd.any() as client:
            lease = join(client, "stage", "w1", "w2")
        first, second, third = three.members
        three.kill(second, third)
        said = refusal(plain, fleet)
        assert f"by the data of {first} there are other clusters: stage (2 live" in said[-1]
        assert len(said) == 3  # two members do not answer
        for name in (second, third):
            three.members[name].start()
        gates.wait_until_recovered(etcd, health.observe(etcd))
        with etcd.member(three.members[first].declared) as client:
            client.lease_revoke(lease)
            client.range("/ServiceDiscovery/")  # this member has applied it
        three.kill(second, third)
        said = refusal(plain, fleet)
        assert f"only {first} could be asked: less than a majority" in said[-1]
        three.kill(first)
        said = refusal(plain, fleet)
        assert len(said) == 4
        assert "no member could be asked for them" in said[-1]


def test_authentication_locks_nobody_out_unasked(
    inventory: Inventory, fleet: Fleet, client: EtcdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_workers", lambda *_: ([], []))  # no hosts here
    join(client, "prod", "w1")
    lease = join(client, "stage", "w1")
    join(client, "old", "w1", live=False)
    etcd = Etcd(inventory.etcd, fleet)
    seen = auth.observe(inventory, etcd)
    assert seen.others.live == {"stage": 1, "old": 0}
    with pytest.raises(PreflightFailed) as caught:
        auth.enable(inventory, etcd, seen)
    assert [p.severity for p in caught.value.problems] == ["warning", "error"]
    assert "use --lock-out stage" in caught.value.problems[1].remedy
    with pytest.raises(UsageError, match="is called stag"):
        auth.enable(inventory, etcd, seen, ["stag"])
    agreed = auth.enable(inventory, etcd, seen, ["stage"])
    assert [p.severity for p in agreed.notes] == ["warning", "warning"]

    client.lease_revoke(lease)
    plan = auth.enable(inventory, etcd, auth.observe(inventory, etcd))
    for step in plan.steps:
        for call in step.calls:
            call.do()
    # The workers' user sees its own cluster, and is told that this may not be all.
    as_workers = dataclasses.replace(inventory.etcd, auth=EtcdAuth())
    found = clusters.look(
        dataclasses.replace(inventory, etcd=as_workers), etcd.with_cluster(as_workers)
    )
    assert (found.complete, [c.name for c in found.clusters]) == (False, ["prod"])
    assert found.clusters[0].authorized == 1
    everything = clusters.look(inventory, etcd)
    assert [c.name for c in everything.clusters] == ["prod", "old", "stage"]
    # Once it is on, nobody is asked any more.
    assert auth.enable(inventory, etcd, auth.observe(inventory, etcd)).notes == ()
