"""clean-host: what another cluster's units name goes, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired as worker
from provision.alluxio.worker.desired import Artifacts
from provision.engine.guards import Guard
from provision.engine.plan import Plan
from provision.errors import PreflightFailed
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import desired as etcd
from provision.etcd.member import layout
from provision.host import gather, tool_version
from provision.host.diff import batch
from provision.host.effects import Effect
from provision.host.facts import HostFacts, PathState, Probe, UnitState
from provision.host.predict import after
from provision.host.resources import MADE_BY, MARKER, File, Resource
from provision.inventory.resolved import Inventory, Machine
from provision.plans import clean_host, destroy
from provision.ssh.session import Fleet
from tests.unit import builders, hosts
from tests.unit.hosts import TARBALL, text

MEMBER, WORKER = builders.member(1), builders.worker("w1")
IDENTITY = "/var/lib/alluxio/worker_identity"
DIR = PathState("dir", "root", "root", 0o755, 0)
DATA = ("/var/lib/etcd/member", "/pages/LOCAL", "/var/lib/alluxio/worker_metastore")


def of(cluster: str, *, member: bool = True, with_worker: bool = True) -> list[Resource]:
    """What ``cluster`` has on a host."""
    found: list[Resource] = []
    if member:
        found += etcd.resources(builders.etcd(MEMBER, name=cluster), MEMBER, TARBALL, None, None)
    if with_worker:
        made = builders.alluxio(WORKER, name=cluster)
        found += worker.resources(made, WORKER, Artifacts(TARBALL, None), None)
    return found


class World:
    """One host, and an inventory that may declare a member and a worker there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = Machine("here")
        self.inventory: Inventory = builders.inventory()
        self.facts = hosts.facts()
        monkeypatch.setattr(gather, "require_facts", self.look)

    def have(self, *resources: Resource) -> None:
        self.facts = after(resources, self.facts)
        paths = {**self.facts.paths, **dict.fromkeys(DATA, DIR)}
        users = {name: f"{name}:x:9:9:{MADE_BY}:/:/bin/false" for name in self.facts.users}
        self.facts = replace(self.facts, paths=paths, users=users)

    def declare(self) -> None:
        member = replace(MEMBER, machine=self.machine)
        here = WORKER._replace(machine=self.machine)
        self.inventory = builders.inventory(builders.alluxio(here), etcd=builders.etcd(member))

    def say(self, **said: str) -> None:
        self.facts = replace(self.facts, commands={**self.facts.commands, **said})

    def stop(self, unit: str) -> None:
        units = {**self.facts.units, unit: UnitState("loaded", "inactive")}
        self.facts = replace(self.facts, units=units)

    def look(self, fleet: Fleet, probes: Mapping[Machine, Probe]) -> dict[Machine, HostFacts]:
        return dict.fromkeys(probes, self.facts)

    def plan(self, *, delete: bool = False, agreed: bool = False) -> Plan:
        self.etcd = Etcd(self.inventory.etcd, Fleet(1))
        return clean_host.plan(
            self.inventory, self.etcd, "w1", self.machine, delete_data=delete, agreed=agreed
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def whats(plan: Plan) -> list[str]:
    return [c.what for step in plan.steps for h in step.hosts for c in h.changes]


def said(plan: Plan) -> str:
    return "\n".join(f"{p.what}: {p.remedy}" for p in plan.notes)


def test_a_host_without_anything_of_ours_is_left_alone(world: World) -> None:
    assert world.plan().steps == ()
    package = File(layout.UNIT_PATH, b"[Unit]\nDescription=etcd of a package\n")
    world.have(package)
    assert world.plan().steps == ()


@pytest.mark.parametrize("role", ["etcd member", "worker"])
def test_what_destroy_takes_away_is_known_here_too(world: World, role: str) -> None:
    """Each by its own list: clean-host has no inventory of the other cluster."""
    world.have(*of("Other"))
    found = clean_host.installed(role, world.facts, "here")
    assert found is not None
    known = (*found.own, *found.data, found.unit_path)
    if role == "worker":
        taken, _ = destroy._worker_paths(builders.alluxio(WORKER), WORKER)
    else:
        taken, _ = destroy._etcd_paths(builders.etcd(MEMBER), MEMBER)
    missing = [p for p in taken if not any(p == k or p.startswith(f"{k}/") for k in known)]
    assert missing == []


def test_another_clusters_worker_goes_and_its_data_is_kept_aside(world: World) -> None:
    world.have(*of("Other", member=False))
    world.say(**{"size of /pages/LOCAL": "2048\t/pages/LOCAL\n"})
    plan = world.plan()
    assert [s.title for s in plan.steps] == [
        "remove the worker of cluster Other, which runs: 2.1 MB in /pages/LOCAL kept aside"
    ]
    did = whats(plan)
    assert did[0] == "stop and disable alluxio-worker.service"
    assert did[-1] == "delete /etc/systemd/system/alluxio-worker.service"
    assert {w for w in did if w.startswith("keep ")} == {
        f"keep {path} aside as {path}.removed-DATE"
        for path in ("/pages/LOCAL", "/var/lib/alluxio/worker_metastore", IDENTITY)
    }
    assert not any(w.startswith("DELETE") or "the user" in w for w in did)
    # A worker ends by itself: a SIGKILL would cut off what clients read.
    scripts = "\n".join(c.script for s in plan.steps for h in s.hosts for c in h.changes)
    assert "KILL" not in scripts
    assert "the user alluxio stays: the kept data belongs to it" in said(plan)
    assert "invoke forget-worker worker-" in said(plan)


def test_what_the_inventory_declares_stays_with_its_folders(world: World) -> None:
    world.have(*of("c", member=False), *of("Other", with_worker=False))
    world.declare()
    world.stop(layout.UNIT)
    plan = world.plan()
    assert not any("alluxio" in w or "/pages" in w for w in whats(plan))
    world.declare()
    world.have(*of("c"))
    assert world.plan().steps == ()


def test_a_folder_that_a_unit_of_ours_uses_stays_whoever_else_uses_it(world: World) -> None:
    """Another cluster's master has the same folders as this cluster's worker by default."""
    world.have(*of("c", member=False))
    world.declare()
    alluxio = builders.alluxio(WORKER, name="Other")
    unit = worker.service(alluxio, "master", "m1", "/opt/alluxio/313/bin/launch-process")
    paths = {**world.facts.paths, worker.MASTER_UNIT_PATH: text(unit.decode())}
    paths |= {"/var/lib/alluxio/journal": DIR, "/var/lib/alluxio/tmp": DIR}
    world.facts = replace(world.facts, paths=paths)
    world.say(**{"user alluxio": f"the unit {worker.UNIT_PATH}\n"})
    assert whats(world.plan(delete=True)) == [
        "stop and disable alluxio-master.service",
        "delete /etc/systemd/system/alluxio-master.service",
    ]


@pytest.mark.parametrize(
    "answer",
    ["", "Error: context deadline exceeded", json.dumps({"members": [{}, {}, {}]})],
)
def test_a_running_member_that_may_have_others_is_refused(world: World, answer: str) -> None:
    world.have(*of("Other"))
    world.say(members=answer)
    with pytest.raises(PreflightFailed) as refused:
        world.plan()
    assert refused.value.id == "quorum-at-risk"
    assert "invoke remove-member" in refused.value.problems[0].remedy
    world.stop(layout.UNIT)
    assert len(world.plan().steps) == 2
    assert "may still count it as a member" in said(world.plan())


def test_the_only_member_goes_and_that_is_said(world: World) -> None:
    world.have(*of("Other", with_worker=False))
    world.say(members=json.dumps({"members": [{}]}), **{"live workers": "\nend of keys"})
    plan = world.plan()
    assert "is the only member" in said(plan)
    assert Effect.ETCD_GONE in plan.effects
    assert Guard.OTHER_CLUSTERS in world.etcd.learned.passed


UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"
KEYS = f"""\
/ServiceDiscovery/Other/worker-{UUID}

/ServiceDiscovery/Other/worker-x

/ServiceDiscovery/te\x1bam/worker-y
"""


def test_live_workers_elsewhere_keep_the_etcd_that_ends_with_the_host(world: World) -> None:
    world.have(*of("Other"))
    world.facts = replace(world.facts, paths={**world.facts.paths, IDENTITY: text(f"{UUID}\n")})
    world.say(members=json.dumps({"members": [{}]}))
    world.say(**{"live workers": f"{KEYS}end of keys\n"})
    for agreed in (False, True):
        with pytest.raises(PreflightFailed) as refused:
            world.plan(agreed=agreed)
        assert refused.value.id == "other-clusters-live"
        assert [(p.where, p.what[:17]) for p in refused.value.problems] == [
            ("cluster Other", "has 1 live worker"),
            ("cluster te\ufffdam", "has 1 live worker"),
        ]
    assert Guard.OTHER_CLUSTERS not in world.etcd.learned.passed
    # The worker of this host goes, too.
    world.say(**{"live workers": f"{KEYS.splitlines()[0]}\nend of keys\n"})
    assert world.plan().steps


@pytest.mark.parametrize("answer", ["", KEYS, "/ServiceDiscovery/a/w\n" * 2000 + "end of keys\n"])
def test_an_etcd_that_ends_and_cannot_be_asked_wants_a_word(world: World, answer: str) -> None:
    world.have(*of("Other", with_worker=False))
    world.say(members=json.dumps({"members": [{}]}), **{"live workers": answer})
    with pytest.raises(PreflightFailed) as refused:
        world.plan()
    if answer:
        assert refused.value.id == "other-clusters-live"
        return
    assert refused.value.id == "other-clusters-unknown"
    assert "--other-clusters-unknown w1" in refused.value.problems[-1].remedy
    assert "are not looked for" in said(world.plan(agreed=True))
    # A stopped one is kept aside: nothing ends that has not ended.
    world.stop(layout.UNIT)
    assert Effect.ETCD_GONE not in world.plan().effects
    with pytest.raises(PreflightFailed):
        world.plan(delete=True)
    assert Effect.ETCD_GONE in world.plan(delete=True, agreed=True).effects
    config = world.facts.text("/etc/etcd/etcd.conf.yml") or ""
    more = config.replace('initial-cluster: "', 'initial-cluster: "infra2=http://b:2380,')
    assert more != config
    paths = {**world.facts.paths, "/etc/etcd/etcd.conf.yml": text(more)}
    world.facts = replace(world.facts, paths=paths)
    assert Effect.ETCD_GONE not in world.plan(delete=True).effects


def test_a_running_master_that_has_others_is_refused(world: World) -> None:
    alluxio = builders.alluxio(WORKER, name="Other")
    unit = worker.service(alluxio, "master", "m1", "/opt/alluxio/313/bin/launch-process")
    paths = {worker.MASTER_UNIT_PATH: text(unit.decode())}
    units = {worker.MASTER_UNIT: UnitState("loaded", "active")}
    world.facts = hosts.facts(paths=paths, units=units)
    for masters in ("3\n", "grep: no such file\n"):
        world.say(masters=masters)
        with pytest.raises(PreflightFailed, match="another cluster needs this host"):
            world.plan()
    world.say(masters="1\n")
    assert world.plan().steps


def test_a_user_goes_only_with_its_mark_and_when_nothing_else_uses_it(world: World) -> None:
    world.have(*of("Other", member=False))
    gone = "delete the user alluxio, which this tool made"
    assert gone in whats(world.plan(delete=True))
    world.say(**{"user alluxio": "the unit /etc/systemd/system/mine.service\n"})
    plan = world.plan(delete=True)
    assert gone not in whats(plan)
    assert "stays: it is used by the unit /etc/systemd/system/mine.service" in said(plan)
    world.say(**{"user alluxio": "", "backups alluxio-worker.service": "/var/backups/etcd\n"})
    assert gone not in whats(world.plan(delete=True))
    world.say(**{"backups alluxio-worker.service": ""})
    world.facts = replace(world.facts, users={"alluxio": "alluxio:x:9:9::/:/bin/false"})
    assert "no mark says that this tool made it" in said(world.plan(delete=True))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ReadWritePaths=/var/lib/etcd", "ReadWritePaths=/var/lib"),
        ("ReadWritePaths=/var/lib/etcd", "ReadWritePaths=/srv/$(reboot)"),
        ("ReadWritePaths=/var/lib/etcd", "ReadWritePaths=/srv/../etc"),
        ("User=etcd", "User=root"),
        ("ExecStart=/opt/etcd/3.6.16/etcd", "ExecStart=/usr/bin/other"),
    ],
)
def test_a_unit_that_was_changed_by_hand_is_not_followed(world: World, old: str, new: str) -> None:
    world.have(*of("Other", with_worker=False))
    unit = world.facts.text(layout.UNIT_PATH) or ""
    assert old in unit
    paths = {**world.facts.paths, layout.UNIT_PATH: text(unit.replace(old, new))}
    world.facts = replace(world.facts, paths=paths)
    with pytest.raises(PreflightFailed) as refused:
        world.plan()
    assert refused.value.id == "path-in-the-way"


@pytest.mark.process
def test_the_scripts_do_what_they_say(world: World, tmp_path: Path) -> None:
    """By a real shell, on folders of this machine."""
    root = tmp_path / "host"
    release = root / "opt/alluxio/313"
    for folder in (release, root / "opt/alluxio/mine", root / "pages/LOCAL", root / "state/tmp"):
        folder.mkdir(parents=True)
    (release / MARKER).write_text("a digest\n")
    (root / "state/worker_identity").write_text("a uuid\n")
    found = replace(
        clean_host.installed("worker", after(of("Other", member=False), hosts.facts()), "here")
        or pytest.fail("not found"),
        own=(f"{root}/opt/alluxio/current", f"{root}/state/tmp"),
        releases=(f"{root}/opt/alluxio",),
        data=(f"{root}/pages/LOCAL", f"{root}/state/worker_identity"),
        logs="",
        shared=(f"{root}/opt/alluxio", f"{root}/state", f"{root}/pages"),
    )
    every = (*found.own, *found.releases, *found.data, *found.shared)
    seen = hosts.facts(paths=dict.fromkeys(every, DIR))
    todo = clean_host._removal(found, seen, delete_data=False, user=True)
    assert hosts.shell(batch(todo[1:-1]), tmp_path).ok
    left = sorted(str(p.relative_to(root)) for p in root.rglob("*"))
    assert [p.partition(".removed-")[0] for p in left] == [
        *("opt", "opt/alluxio", "opt/alluxio/mine", "pages", "pages/LOCAL", "state"),
        "state/worker_identity",
    ]
    assert hosts.shell(batch(todo[1:-1]), tmp_path).ok
    assert sorted(str(p.relative_to(root)) for p in root.rglob("*")) == left
    # Of other units of this tool it depends whether the note of the tool's version goes.
    noted, *_ = todo[-1].script.splitlines()
    assert layout.UNIT_PATH in noted
    assert found.unit_path not in noted
    assert f"rm -f {tool_version.FILE}" in todo[-1].script
    todo = clean_host._removal(found, seen, delete_data=True, user=True)
    (root / "pages/LOCAL").mkdir()
    assert hosts.shell(batch(todo[1:-1]), tmp_path).ok
    assert not (root / "pages/LOCAL").exists()


@pytest.mark.parametrize("missing", [0, 1])
def test_an_etcd_with_too_many_live_keys_is_not_known(world: World, missing: int) -> None:
    """The list ends at the limit: other clusters may come after it."""
    world.have(*of("Other"))
    world.facts = replace(world.facts, paths={**world.facts.paths, IDENTITY: text(f"{UUID}\n")})
    own = KEYS.splitlines()[0] + "\n"
    answer = own * (clean_host._LIVE_KEYS - missing) + "end of keys\n"
    world.say(members=json.dumps({"members": [{}]}), **{"live workers": answer})
    if missing:
        assert world.plan().steps
        return
    with pytest.raises(PreflightFailed) as refused:
        world.plan()
    assert refused.value.id == "other-clusters-unknown"
    assert "has more than 2000 of their keys" in refused.value.problems[-1].what


def test_without_the_operators_word_an_etcd_that_cannot_be_asked_stays(world: World) -> None:
    world.have(*of("Other", with_worker=False))
    world.say(members=json.dumps({"members": [{}]}), **{"live workers": ""})
    etcd = Etcd(world.inventory.etcd, Fleet(1))
    with pytest.raises(PreflightFailed) as refused:
        clean_host.plan(world.inventory, etcd, "w1", world.machine, delete_data=False)
    assert refused.value.id == "other-clusters-unknown"
