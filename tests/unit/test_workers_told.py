"""When the workers are told that members have changed, and when it is noted that they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from provision.engine.plan import Step
from provision.etcd.cluster import reconfigure
from provision.etcd.cluster.handle import Etcd
from provision.inventory.resolved import EtcdCluster
from provision.plans.alluxio import endpoints
from provision.plans.etcd.members import member_plan
from provision.plans.etcd.members.member_steps import Steps
from provision.ssh.session import Fleet
from tests.unit import builders
from tests.unit.test_deploy_plan import World

NOTE = "record that the workers need the new endpoints"
DONE = "record that every worker knows the endpoints"


@pytest.mark.parametrize(
    ("alarm", "standing", "titles"),
    [
        ("", "", [NOTE, "add", "tell", "remove", "clean", DONE]),
        # etcd takes no note before it is disarmed, and a worker that restarts gets no lease.
        ("CORRUPT", "", ["add", "remove", "clean", NOTE, "tell", DONE]),
        ("CORRUPT", "CORRUPT", ["add", "remove", "clean"]),
    ],
)
def test_told(
    alarm: str, standing: str, titles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    world.alarms = (alarm,) if alarm else ()
    running = world.observed().running
    assert running is not None
    told = endpoints.Told([Step("tell")], [], complete=True)
    monkeypatch.setattr(endpoints, "steps", lambda *_: told)
    made = Steps([Step("add"), Step("remove"), Step("clean")], leaving=1)
    made.standing = frozenset({standing} - {""})
    with Fleet(1) as fleet:
        inventory = builders.inventory(None)
        handle = Etcd(inventory.etcd, fleet)
        member_plan.with_workers(made, inventory, handle, running, True, True)
    assert [s.title for s in made.steps] == titles
    assert [n.id for n in made.notes] == (["endpoints-stale"] if standing else [])


def test_each_note_goes_to_the_cluster_of_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the change these are the members that run, after it those that stay."""
    world = World()
    running = world.observed().running
    assert running is not None
    later = replace(world.cluster, members=world.cluster.members[:2])
    told: list[EtcdCluster] = []

    def steps(*given: Any) -> endpoints.Told:
        told.append(given[2].cluster)
        assert given[3] == running.cluster
        return endpoints.Told([Step("tell")], [], complete=True)

    noted: list[EtcdCluster] = []
    monkeypatch.setattr(endpoints, "steps", steps)
    monkeypatch.setattr(reconfigure, "with_leader", lambda etcd, _: noted.append(etcd.cluster))
    made = Steps([Step("add")])
    with Fleet(1) as fleet:
        inventory = builders.inventory(None, etcd=later)
        member_plan.with_workers(made, inventory, Etcd(world.cluster, fleet), running, True, True)
    for step in made.steps:
        for call in step.calls:
            call.do()
    assert told == [later]
    assert noted == [running.cluster, later]
    assert running.cluster != later


@pytest.mark.parametrize(
    ("alarm", "titles"), [("", [NOTE, "add", "remove"]), ("CORRUPT", ["add", "remove"])]
)
def test_without_the_workers_the_note_stays(
    alarm: str, titles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    world.alarms = (alarm,) if alarm else ()
    running = world.observed().running
    assert running is not None
    monkeypatch.setattr(endpoints, "steps", lambda *_: pytest.fail("the workers were asked"))
    made = Steps([Step("add"), Step("remove")], leaving=1)
    with Fleet(1) as fleet:
        handle = Etcd(builders.etcd(), fleet)
        member_plan.with_workers(made, builders.inventory(None), handle, running, True, False)
    assert [s.title for s in made.steps] == titles
    assert [n.id for n in made.notes] == ["endpoints-stale"]
