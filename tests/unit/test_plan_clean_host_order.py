"""clean-host: which units go and which stay, in which order, and by which commands."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired as alluxio
from provision.engine.plan import Plan
from provision.errors import PreflightFailed
from provision.etcd.member import backup_timer, layout
from provision.host import former_owner
from provision.host.diff import Change
from provision.host.facts import UnitState
from provision.host.predict import after
from provision.inventory.resolved import Machine
from provision.plans import clean_host
from tests.unit import builders, hosts
from tests.unit.hosts import text
from tests.unit.test_clean import DIR, MEMBER, WORKER, World, of, whats

USER_GONE = "delete the user alluxio, which this tool made"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def alone(world: World) -> None:
    """The host's etcd has no other member, and no worker is live in it."""
    world.say(members=json.dumps({"members": [{}]}), **{"live workers": "end of keys\n"})


def with_master(world: World, cluster: str) -> None:
    unit = alluxio.service(
        builders.alluxio(WORKER, name=cluster), "master", "m1", "/opt/alluxio/313/bin/x"
    )
    paths = {**world.facts.paths, alluxio.MASTER_UNIT_PATH: text(unit.decode())}
    world.facts = replace(world.facts, paths=paths)


def removed(plan: Plan) -> list[str]:
    """The unit that each step is about."""
    return [step.title.partition(", which")[0] for step in plan.steps]


def change(plan: Plan, step: int, what: str) -> Change:
    (found,) = [c for c in plan.steps[step].hosts[0].changes if what in c.what]
    return found


class TestWhatStays:
    def test_another_clusters_unit_goes_where_this_inventory_has_the_same_role(
        self, world: World
    ) -> None:
        """The host is to become this cluster's: the other's worker is in the way."""
        world.have(*of("Other", member=False))
        world.declare()
        assert removed(world.plan()) == ["remove the worker of cluster Other"]

    def test_of_its_own_cluster_goes_what_is_not_declared_there_any_more(
        self, world: World
    ) -> None:
        world.have(*of("c"))
        alone(world)
        world.inventory = builders.inventory(
            builders.alluxio(WORKER._replace(machine=Machine("elsewhere"))),
            etcd=builders.etcd(replace(MEMBER, machine=Machine("elsewhere"))),
        )
        assert removed(world.plan()) == [
            "remove the etcd member of cluster c",
            "remove the worker of cluster c",
        ]

    def test_without_alluxio_in_the_inventory_no_worker_is_declared(self, world: World) -> None:
        world.have(*of("c", member=False))
        world.declare()
        world.inventory = replace(world.inventory, alluxio=None)
        assert removed(world.plan()) == ["remove the worker of cluster c"]

    def test_an_etcd_that_is_only_used_declares_no_member(self, world: World) -> None:
        world.have(*of("c", with_worker=False))
        alone(world)
        world.declare()
        assert world.plan().steps == ()
        world.inventory = replace(
            world.inventory, etcd=replace(world.inventory.etcd, external=True)
        )
        assert removed(world.plan()) == ["remove the etcd member of cluster c"]

    @pytest.mark.parametrize(("host", "stays"), [("here", True), ("elsewhere", False)])
    def test_a_master_stays_on_the_host_that_it_is_declared_on(
        self, world: World, host: str, stays: bool
    ) -> None:
        with_master(world, "c")
        world.say(masters="1\n")
        declared = builders.alluxio(WORKER, masters=(builders.master("m1", host),))
        world.inventory = builders.inventory(declared)
        assert removed(world.plan()) == ([] if stays else ["remove the master of cluster c"])


class TestVoters:
    """A running member or master with others is needed, whatever else is on the host."""

    def test_a_stopped_member_does_not_hide_a_running_master(self, world: World) -> None:
        world.have(*of("Other", with_worker=False))
        world.stop(layout.UNIT)
        with_master(world, "Other")
        units = {**world.facts.units, alluxio.MASTER_UNIT: UnitState("loaded", "active")}
        world.facts = replace(world.facts, units=units)
        world.say(masters="3\n")
        with pytest.raises(PreflightFailed) as refused:
            world.plan()
        assert [p.id for p in refused.value.problems] == ["quorum-at-risk"]
        assert "master of cluster Other" in refused.value.problems[0].what

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (json.dumps({"members": [{}] * 5}), "5 members: without it they lose a vote"),
            ("", "an unknown number of members"),
        ],
    )
    def test_how_many_others_there_are_is_said(self, world: World, answer: str, said: str) -> None:
        world.have(*of("Other", with_worker=False))
        world.say(members=answer)
        with pytest.raises(PreflightFailed) as refused:
            world.plan()
        assert refused.value.problems[0].what.endswith(f"of cluster Other, which has {said}")


class TestUser:
    """The user goes after the last unit that runs as this user, and only then."""

    def test_of_two_units_of_one_user_the_last_takes_the_user_along(self, world: World) -> None:
        world.have(*of("Other", member=False))
        with_master(world, "Other")
        plan = world.plan(delete=True)
        assert removed(plan) == [
            "remove the worker of cluster Other",
            "remove the master of cluster Other",
        ]
        each = [[c.what for c in s.hosts[0].changes] for s in plan.steps]
        assert [USER_GONE in some for some in each] == [False, True]

    def test_each_user_goes_with_its_own_units(self, world: World) -> None:
        world.have(*of("Other"))
        alone(world)
        with_master(world, "Other")
        plan = world.plan(delete=True)
        each = [[c.what for c in s.hosts[0].changes if " user " in c.what] for s in plan.steps]
        assert each == [[USER_GONE.replace("alluxio", "etcd")], [], [USER_GONE]]

    @pytest.mark.parametrize("stopped", [True, False])
    def test_the_unit_file_goes_last_so_that_a_killed_run_can_be_run_again(
        self, world: World, stopped: bool
    ) -> None:
        world.have(*of("Other"))
        alone(world)
        if stopped:
            world.stop(layout.UNIT)
        for step in world.plan(delete=True).steps:
            first, *_, last = step.hosts[0].changes
            assert first.what.startswith("stop and disable ")
            assert (first.disrupts, last.what.startswith("delete /etc/systemd/system/")) == (
                True,
                True,
            )


class TestJdk:
    """The JDK that the tool unpacked for a release goes with it, unless a unit that stays uses
    it."""

    def java(self, world: World, unit: str, path: str) -> None:
        world.say(**{f"java {unit}": f"300\t{path}\n"})

    def test_it_goes(self, world: World) -> None:
        world.have(*of("Other", member=False))
        self.java(world, alluxio.UNIT, "/opt/java/jdk_11")
        did = whats(world.plan())
        assert "delete the releases in /opt/java" in did
        assert did.index("delete the releases in /opt/java") < len(did) - 1

    def test_in_the_folder_of_the_releases_it_is_not_named_twice(self, world: World) -> None:
        world.have(*of("Other", member=False))
        self.java(world, alluxio.UNIT, "/opt/alluxio/jdk_11")
        did = whats(world.plan())
        assert did.count("delete the releases in /opt/alluxio") == 1

    def test_it_stays_for_a_unit_that_stays(self, world: World) -> None:
        world.have(*of("c", member=False))
        world.declare()
        with_master(world, "Other")
        world.say(masters="1\n")
        self.java(world, alluxio.UNIT, "/opt/java/jdk_11")
        self.java(world, alluxio.MASTER_UNIT, "/opt/java/jdk_11")
        plan = world.plan(delete=True)
        assert removed(plan) == ["remove the master of cluster Other"]
        assert not any("/opt/java" in what for what in whats(plan))

    def test_without_one_only_the_releases_of_alluxio_go(self, world: World) -> None:
        world.have(*of("Other", member=False))
        found = [w for w in whats(world.plan()) if w.startswith("delete the releases")]
        assert found == ["delete the releases in /opt/alluxio"]


class TestBackups:
    """The timer of the snapshots belongs to the member."""

    def timer(self, world: World) -> None:
        paths = {**world.facts.paths, backup_timer.TIMER_PATH: text("[Timer]\n")}
        world.facts = replace(world.facts, paths=paths)

    def off(self, plan: Plan, step: int) -> bool:
        script = change(plan, step, "stop and disable").script
        return f"disable -q --now {backup_timer.UNIT}" in script

    @pytest.mark.parametrize("there", [True, False])
    def test_it_is_stopped_with_the_member_and_not_with_the_worker(
        self, world: World, there: bool
    ) -> None:
        world.have(*of("Other"))
        alone(world)
        paths = {p: s for p, s in world.facts.paths.items() if p != backup_timer.TIMER_PATH}
        world.facts = replace(world.facts, paths=paths)
        if there:
            self.timer(world)
        plan = world.plan()
        assert [self.off(plan, 0), self.off(plan, 1)] == [there, False]


class TestData:
    def test_former_data_of_the_member_goes_with_its_data_when_told(self, world: World) -> None:
        """What the host lists beside it is not all the member's."""
        world.have(*of("Other"))
        former = "/var/lib/etcd/member.removed-20261101T000000Z"
        left = "/var/lib/etcd/restoring-1"
        alone(world)
        names = "".join(f"{path.rpartition('/')[2]}\0" for path in (former, left, "/etc/passwd"))
        world.say(aside=b64encode(names.encode()).decode())
        plan = world.plan(delete=True)
        member, worker = ([c.what for c in s.hosts[0].changes] for s in plan.steps)
        gone = ("/var/lib/etcd/member", former, left)
        assert [w for w in member if w.startswith("DELETE ")] == [f"DELETE {p}" for p in gone]
        assert not any("/var/lib/etcd" in w or "passwd" in w for w in worker)
        assert not any(former in w for w in whats(world.plan()))

    def test_logs_go_only_with_the_data_and_only_of_the_units_user(self, world: World) -> None:
        world.have(*of("Other", member=False))
        logs = change(world.plan(delete=True), 0, "DELETE the logs in /var/log/alluxio")
        assert "-xdev -mindepth 1 -user alluxio -delete" in logs.script
        assert logs.seconds >= 300
        assert not any("logs" in w for w in whats(world.plan()))

    def test_only_folders_that_are_there_are_removed_if_empty(self, world: World) -> None:
        world.have(*of("Other", member=False))
        paths = {p: s for p, s in world.facts.paths.items() if p != "/pages"}
        world.facts = replace(world.facts, paths={**paths, "/var/lib/alluxio": DIR})
        (found,) = [w for w in whats(world.plan()) if w.startswith("remove ")]
        named = found.removeprefix("remove ").removesuffix(" if empty").split(", ")
        assert "/var/lib/alluxio" in named
        assert "/pages" not in named
        assert set(named) <= set(world.facts.paths)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ReadWritePaths=/var/lib", "names /var/lib: it was changed by hand"),
        ("ReadWritePaths=", "names nothing: it was changed by hand"),
    ],
)
def test_what_is_odd_about_a_unit_is_said(world: World, line: str, said: str) -> None:
    world.have(*of("Other", with_worker=False))
    unit = world.facts.text(layout.UNIT_PATH) or ""
    old = "ReadWritePaths=/var/lib/etcd"
    assert old in unit
    paths = {**world.facts.paths, layout.UNIT_PATH: text(unit.replace(old, line))}
    world.facts = replace(world.facts, paths=paths)
    with pytest.raises(PreflightFailed) as refused:
        world.plan()
    assert said in refused.value.problems[0].what


class TestByAShell:
    @pytest.mark.process
    def test_the_member_is_asked_at_its_own_address_by_the_tool_beside_its_binary(
        self, tmp_path: Path
    ) -> None:
        release = tmp_path / "3.6.16"
        release.mkdir()
        tool = release / "etcdctl"
        tool.write_text('#!/bin/sh\necho "$@"\n')
        tool.chmod(0o755)
        config = tmp_path / "etcd.conf.yml"
        config.write_text('listen-client-urls: "https://0.0.0.0:2379,https://10.0.0.1:2381"\n')
        seen = after(of("Other", with_worker=False), hosts.facts())
        found = clean_host.installed("etcd member", seen, "here")
        assert found is not None
        found = replace(found, binary=f"{release}/etcd", config=str(config))
        asked = clean_host._probe([found], [], seen).commands["members"]
        said = hosts.shell(asked, tmp_path).stdout
        assert "--endpoints=https://127.0.0.1:2379 " in said
        assert f"--cacert={tmp_path}/pki/ca.crt" in said
        assert said.strip().endswith("member list -w json")

    @pytest.mark.process
    def test_other_units_of_the_user_are_found_and_its_own_are_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folders = [tmp_path / "etc", tmp_path / "lib"]
        monkeypatch.setattr(clean_host, "_UNIT_FOLDERS", tuple(map(str, folders)))
        for folder in folders:
            folder.mkdir()
        own = folders[0] / "alluxio-worker.service"
        own.write_text("[Service]\nUser=alluxio\n")
        uses = clean_host._uses("alluxio", [str(own), "/etc/systemd/system/x.service"])
        assert hosts.shell(uses, tmp_path).stdout == ""
        (folders[1] / "mine.service").write_text("[Service]\nGroup=alluxio\n")
        (folders[1] / "other.service").write_text("[Service]\nUser=alluxio2\n")
        assert hosts.shell(uses, tmp_path).stdout == f"the unit {folders[1]}/mine.service\n"

    @pytest.mark.process
    def test_empty_folders_go_and_others_stay(self, world: World, tmp_path: Path) -> None:
        world.have(*of("Other", member=False))
        known = clean_host.installed("worker", world.facts, "here")
        assert known is not None
        for name in ("state", "pages"):
            (tmp_path / name).mkdir()
        (tmp_path / "pages/photos").mkdir()
        hosts.made(tmp_path, tmp_path / "state", tmp_path / "pages")
        folders = (f"{tmp_path}/state", f"{tmp_path}/pages")
        found = replace(known, own=(), releases=(), data=(), logs="", shared=folders)
        seen = hosts.facts(paths=dict.fromkeys(folders, DIR))
        todo = clean_host._removal(found, seen, delete_data=True, user=False)
        (empty,) = [c for c in todo if c.what.endswith(" if empty")]
        assert hosts.do([empty], tmp_path).ok
        assert not (tmp_path / "state").exists()
        assert (tmp_path / "pages/photos").is_dir()


class TestStop:
    def test_it_names_its_unit_and_has_its_time(self, world: World) -> None:
        """A worker first ends the reads of its clients; data are deleted with patience."""
        world.have(*of("Other"))
        alone(world)
        plan = world.plan(delete=True)
        for n, unit in enumerate((layout.UNIT, alluxio.UNIT)):
            stop = change(plan, n, "stop and disable")
            assert stop.stops == (unit,)
            assert stop.seconds >= 120
        assert change(plan, 0, "DELETE /var/lib/etcd/member").seconds >= 600

    def test_a_folder_that_was_there_before_is_given_back_unless_another_unit_names_it(
        self, world: World
    ) -> None:
        world.have(*of("Other", member=False))
        note = {former_owner.note_path("/pages"): text("0 0 755\n/pages\n")}
        world.facts = replace(world.facts, paths={**world.facts.paths, **note})
        used, *_ = change(world.plan(), 0, "give /pages back").script.splitlines()
        assert layout.UNIT_PATH in used
        assert alluxio.MASTER_UNIT_PATH in used
        assert alluxio.UNIT_PATH not in used


def test_only_a_member_has_former_data_beside_its_data(world: World) -> None:
    """The names are those in the folder of etcd's data."""
    world.have(*of("Other"))
    alone(world)
    world.say(aside=hosts.sent("restoring-1", "member.removed-1"))
    gone = [w for w in whats(world.plan(delete=True)) if "restoring-1" in w or "removed-1" in w]
    assert gone == ["DELETE /var/lib/etcd/restoring-1", "DELETE /var/lib/etcd/member.removed-1"]
