"""stop-workers and destroy: what is this cluster's, and nothing beside it."""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired as worker
from provision.alluxio.worker.desired import Artifacts
from provision.cli import confirm
from provision.cli.run import Run
from provision.cli.tasks import cluster, common
from provision.engine.plan import Action, Plan, Step
from provision.errors import PreflightFailed, UsageError
from provision.etcd.member import desired as etcd
from provision.etcd.member import layout
from provision.host import gather, tool_version
from provision.host.diff import batch
from provision.host.facts import HostFacts, PathState, Probe, UnitState
from provision.host.predict import after
from provision.host.resources import MARKER, File
from provision.inventory.resolved import Inventory, Machine
from provision.plans import destroy
from provision.plans.alluxio import stop_workers
from provision.ssh.session import Fleet
from tests.unit import builders, hosts
from tests.unit.hosts import TARBALL, text

ARTIFACTS = Artifacts(TARBALL, None)


class World:
    """Hosts on which everything of the inventory is installed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inventory: Inventory = builders.inventory()
        self.alluxio = self.inventory.alluxio
        assert self.alluxio is not None
        self.facts: dict[Machine, HostFacts] = {}
        for n, m in enumerate(self.inventory.etcd.members):
            wanted = etcd.resources(self.inventory.etcd, m, TARBALL, None, None)
            self.facts[m.machine] = after(wanted, hosts.facts(n))
        for n, w in enumerate(self.alluxio.workers, 10):
            made = worker.resources(self.alluxio, w, ARTIFACTS, None)
            self.facts[w.machine] = after(made, hosts.facts(n))
        self.looked: dict[Machine, Probe] = {}

        def look(fleet: Fleet, probes: Mapping[Machine, Probe]) -> dict[Machine, HostFacts]:
            self.looked |= probes
            return {m: self.facts[m] for m in probes}

        monkeypatch.setattr(gather, "require_facts", look)

    def own(self, machine: Machine, unit_path: str, cluster: str) -> None:
        paths = dict(self.facts[machine].paths)
        paths[unit_path] = text(f"X-Alluxio-Provision-Cluster={cluster}\n")
        self.facts[machine] = replace(self.facts[machine], paths=paths)

    def destroy(self) -> Plan:
        return destroy.destroy(self.inventory, Fleet(2))

    def stop(self) -> Plan:
        assert self.alluxio is not None
        return stop_workers.plan(self.inventory, self.alluxio.workers, Fleet(2))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def deleted(plan: Plan) -> set[str]:
    """Every path that a script of the plan deletes, whatever is in it."""
    found = set()
    for step in plan.steps:
        for host in step.hosts:
            for change in host.changes:
                here = ""
                for line in change.script.splitlines():
                    words = shlex.split(line.replace(";", " ; "))
                    if "walk" in words:
                        here = words[words.index("walk") + 1]
                    if words[:1] in (["rm"], ["gone"]):
                        found |= {w for w in words[1:] if w.startswith("/")}
                        found |= {f"{here}{w[1:]}" for w in words[1:] if w.startswith("./")}
    return found


class TestDestroy:
    def test_workers_first_then_etcd(self, world: World) -> None:
        plan = world.destroy()
        assert [s.title for s in plan.steps] == ["remove workers", "remove etcd, with its data"]
        assert [len(s.hosts) for s in plan.steps] == [2, 3]
        assert plan.steps[0].at_once == world.inventory.parallel

    def test_only_what_is_ours_is_deleted(self, world: World) -> None:
        for machine, seen in world.facts.items():
            below = {
                "/var/lib/etcd/member": PathState("dir", "etcd", "etcd", 0o700, 0),
                "/var/lib/etcd/lost+found": PathState("dir", "root", "root", 0o700, 0),
                "/pages/LOCAL": PathState("dir", "alluxio", "alluxio", 0o700, 0),
                "/pages/photos": PathState("dir", "root", "root", 0o755, 0),
            }
            world.facts[machine] = replace(seen, paths=dict(seen.paths) | below)
        assert deleted(world.destroy()) == {
            *("/etc/systemd/system/etcd.service", "/etc/etcd/etcd.conf.yml"),
            "/etc/etcd/restarted-before-3.6",
            *("/var/lib/etcd/member", "/var/lib/etcd/member.*", "/opt/etcd/current"),
            # What a killed restore leaves.
            *("/var/lib/etcd/restoring-*", "/var/lib/etcd/restore-*.db*"),
            "/var/lib/etcd/unfinished",
            *("/var/lib/etcd/data-disk", "/var/lib/alluxio/data-disk"),
            *("/etc/systemd/system/alluxio-worker.service", "/opt/alluxio/current"),
            *("/pages/LOCAL", "/var/lib/alluxio/worker_identity"),
            "/run/alluxio-provision/restart.etcd.service",
            "/run/alluxio-provision/restart.alluxio-worker.service",
            "/var/lib/alluxio-provision/former-owner",
            "/var/lib/alluxio-provision/tool-version",
            "/var/lib/alluxio-provision/tool-version.new",
            # Not there now, and deleted if a process makes it until it is stopped.
            "/etc/etcd/backup.env",
            "/etc/etcd/backup.sh",
            "/etc/etcd/last-seen",
            "/etc/etcd/pki",
            "/etc/systemd/system/etcd-backup.service",
            "/etc/systemd/system/etcd-backup.timer",
            "/opt/alluxio/previous",
            "/var/lib/alluxio/tmp/worker",
            "/var/lib/alluxio/worker_metastore",
            "/var/lib/alluxio/worker_metastore.incoming",
        }

    def test_the_sizes_of_what_goes_are_in_the_plan(self, world: World) -> None:
        for machine, seen in world.facts.items():
            paths = {p: PathState("dir", "a", "a", 0o700, 0) for p in ("/var/lib/etcd/member",)}
            world.facts[machine] = replace(
                seen,
                paths={**seen.paths, **paths},
                commands={
                    "size of /var/lib/etcd/member": "2000000\t/var/lib/etcd/member\n",
                    "size of /pages/LOCAL": "5\t/pages/LOCAL\n",  # there is none: not said
                },
            )
        assert [s.title for s in world.destroy().steps] == [
            "remove workers",
            "remove etcd, with its data: 6.1 GB in /var/lib/etcd/member",
        ]
        machine = world.inventory.etcd.members[0].machine
        asked = world.looked[machine].commands["size of /var/lib/etcd/member"]
        assert asked == "timeout 10 du -skx /var/lib/etcd/member 2>/dev/null"
        late = {"size of /var/lib/etcd/member": ""}  # counting took too long
        world.facts[machine] = replace(world.facts[machine], commands=late)
        assert world.destroy().steps[1].title.endswith(": more than 4.1 GB in /var/lib/etcd/member")

    def test_nothing_of_another_cluster(self, world: World) -> None:
        first, *others = world.inventory.etcd.members
        world.own(first.machine, layout.UNIT_PATH, "other")
        names = [h.name for s in world.destroy().steps for h in s.hosts]
        assert first.name not in names
        assert {m.name for m in others} < set(names)

    def test_nothing_where_the_tool_never_was(self, world: World) -> None:
        world.facts = {m: hosts.facts(n) for n, m in enumerate(world.facts)}
        assert world.destroy().steps == ()

    def test_a_note_of_this_tools_version_that_is_left_alone_goes_too(self, world: World) -> None:
        """The first change of the first run may have failed."""
        noted = {tool_version.FACT: "0.1.0"}
        world.facts = {m: hosts.facts(n, values=noted) for n, m in enumerate(world.facts)}
        machine = world.inventory.etcd.members[0].machine
        world.own(machine, worker.MASTER_UNIT_PATH, "other")
        found = {
            h.machine: [c.what for c in h.changes] for s in world.destroy().steps for h in s.hosts
        }
        assert found == {m: [f"delete {tool_version.FILE}"] for m in world.facts if m != machine}
        assert worker.MASTER_UNIT_PATH in {
            r.path for r in world.looked[machine].resources if isinstance(r, File)
        }

    def test_the_unit_goes_last_so_that_a_killed_run_can_be_finished(self, world: World) -> None:
        for step in world.destroy().steps:
            for host in step.hosts:
                assert host.changes[0].what.startswith("stop and disable")
                assert host.changes[-1].what.startswith("delete /etc/systemd/system/")

    @pytest.mark.process
    def test_it_leaves_what_else_is_in_a_directory(self, world: World, tmp_path: Path) -> None:
        """The scripts that remove directories, really run."""
        (tmp_path / "pages/LOCAL").mkdir(parents=True)
        (tmp_path / "pages/photos").mkdir()
        (tmp_path / "empty").mkdir()
        (tmp_path / "theirs").mkdir()
        hosts.made(tmp_path, tmp_path / "pages", tmp_path / "empty")
        root = shlex.quote(str(tmp_path))
        for name in ("pages", "empty", "theirs"):
            changes = destroy._removal(
                replace(
                    hosts.facts(),
                    paths={"/u": text("X-Alluxio-Provision-Cluster=c\n")},
                ),
                *("u.service", "/u", "c", [], [f"{tmp_path}/{name}"], []),
            )
            todo = [c for c in changes if c.what.startswith("remove")]
            assert root in batch(todo)
            assert hosts.do(todo, tmp_path).ok
        assert (tmp_path / "pages/photos").exists()
        assert (tmp_path / "theirs").exists()
        assert not (tmp_path / "empty").exists()

    @pytest.mark.process
    @pytest.mark.parametrize("owner", ["c", None])
    def test_every_release_of_ours_goes_and_nothing_else(
        self, owner: str | None, tmp_path: Path
    ) -> None:
        """Older releases too, and what a first run that was killed had uploaded."""
        for name in ("1.0", "1.1", ".incoming.x", "theirs"):
            (tmp_path / "opt" / name).mkdir(parents=True)
        for name in ("1.0", "1.1"):
            (tmp_path / "opt" / name / MARKER).write_text("digest")
        (tmp_path / "opt/current").symlink_to("1.1")
        unit = {"/u": text(f"X-Alluxio-Provision-Cluster={owner}\n")} if owner else {}
        there = {f"{tmp_path}/opt": PathState("dir", "root", "root", 0o755, 0)}
        seen = replace(hosts.facts(), paths={**unit, **there})
        changes = destroy._removal(seen, "u.service", "/u", "c", [], [], [f"{tmp_path}/opt"])
        todo = [c for c in changes if c.what.startswith("delete the releases")]
        assert hosts.do(todo, tmp_path).ok
        assert [p.name for p in (tmp_path / "opt").iterdir()] == ["theirs"]

    @pytest.mark.parametrize("owner", ["c", "other"])
    def test_a_first_run_that_was_killed_before_its_unit(self, owner: str, world: World) -> None:
        cluster = world.inventory.etcd
        member = cluster.members[0]
        folder = PathState("dir", "root", "root", 0o755, 0)
        header = f"# Managed by alluxio-provision for cluster {owner}: change the inventory\n"
        paths = {"/etc/etcd/etcd.conf.yml": text(header), "/etc/etcd/pki": folder}
        seen = replace(hosts.facts(), paths={**paths, cluster.install_dir: folder})
        done = [c.what for c in destroy._etcd(cluster, member, {member.machine: seen})]
        assert f"delete the releases in {cluster.install_dir}" in done
        assert ("delete /etc/etcd/pki" in done) == (owner == "c")
        assert ("delete /etc/etcd/etcd.conf.yml" in done) == (owner == "c")
        assert ("delete the keys that wait in /etc/etcd/pki" in done) == (owner != "c")

    def test_no_release_of_another_clusters_goes(self, tmp_path: Path) -> None:
        paths = {
            "/u": text("X-Alluxio-Provision-Cluster=other\n"),
            "/opt/x": PathState("dir", "root", "root", 0o755, 0),
        }
        seen = replace(hosts.facts(), paths=paths)
        assert destroy._removal(seen, "u.service", "/u", "c", [], [], ["/opt/x"]) == ()

    @pytest.mark.parametrize("name", ["", "C", "c ", "other"])
    def test_it_takes_the_clusters_name(
        self, name: str, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(common, "load", lambda run: world.inventory)
        monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
        with pytest.raises(UsageError, match="not destroyed: the cluster is called c"):
            cluster.destroy.act(Run("destroy"), name)
        assert world.looked == {}


class Terminal(io.StringIO):
    """A stdin that somebody types at."""

    def isatty(self) -> bool:
        return True


class TestConsent:
    """The plan is shown before the question, once."""

    PLAN = Plan(
        "destroy", "c", (Step("remove etcd", calls=(Action("delete /data", lambda: None),)),)
    )

    @pytest.mark.parametrize("format", ["table", "json"])
    def test_the_plan_stands_above_the_question(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], format: str
    ) -> None:
        monkeypatch.setattr("sys.stdin", Terminal("other\n"))
        run = Run("destroy", format=format)
        consent = common.Consent("c", "", "destroyed", "This deletes ALL", "--yes-delete")
        consent.require_possible(run)
        with pytest.raises(UsageError, match="not destroyed: the cluster is called c"):
            consent.require(run, self.PLAN)
        out, err = capsys.readouterr()
        assert err.endswith("This deletes ALL. Type c to continue: ")
        assert "delete /data" in (err if format == "json" else out)
        assert format == "table" or out == ""

    @pytest.mark.usefixtures("unguarded")
    def test_after_the_answer_it_is_made_again_and_not_shown_again(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.stdin", Terminal("c\n"))
        run = Run("destroy")
        made: list[Plan] = []

        def body() -> bool:
            run._fleet = Fleet(1)
            made.append(replace(self.PLAN))
            asked = "This deletes ALL"
            common.Consent("c", "", "destroyed", asked, "--yes").require(run, made[-1])
            return common.carry_out(run, replace(made[-1], notes=()))

        monkeypatch.setattr(Run, "forget_facts", lambda run: None)
        assert confirm.until_settled(run, body)
        assert len(made) == 2
        assert capsys.readouterr().out.count("delete /data") == 1

    def test_nothing_is_asked_where_there_is_nothing_to_do(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin", Terminal(""))
        consent = common.Consent("c", "", "destroyed", "This deletes ALL", "--yes")
        consent.require(Run("destroy"), Plan("destroy", "c"))
        consent.require(Run("destroy", dry_run=True), self.PLAN)


class TestStop:
    def test_who_runs(self, world: World) -> None:
        (step,) = world.stop().steps
        assert [h.name for h in step.hosts] == ["w1", "w2"]
        assert step.hosts[0].changes[0].script == "systemctl stop alluxio-worker.service"

    @pytest.mark.parametrize("state", ["inactive", "failed"])
    def test_who_does_not(self, world: World, state: str) -> None:
        for machine, seen in world.facts.items():
            units = {worker.UNIT: UnitState("loaded", state)}
            world.facts[machine] = replace(seen, units=units)
        assert world.stop().steps == ()

    def test_hosts_without_a_worker(self, world: World) -> None:
        world.facts = {
            m: hosts.facts(n, units={worker.UNIT: UnitState()}) for n, m in enumerate(world.facts)
        }
        assert world.stop().steps == ()

    @pytest.mark.parametrize(("of", "says"), [("other", "of cluster other"), ("", "of this tool")])
    def test_a_worker_that_is_not_ours(self, world: World, of: str, says: str) -> None:
        assert world.alluxio is not None
        second = world.alluxio.workers[1].machine
        if of:
            world.own(second, worker.UNIT_PATH, of)
        else:
            paths = dict(world.facts[second].paths)
            del paths[worker.UNIT_PATH]
            world.facts[second] = replace(world.facts[second], paths=paths)
        with pytest.raises(PreflightFailed) as caught:
            world.stop()
        (problem,) = caught.value.problems
        assert problem.where.startswith("w2 at w2")
        assert says in problem.what
