"""Workers and masters without their disks: page stores that are away, identities, journals."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired, state, stores, written
from provision.alluxio.worker.desired import MASTER_UNIT, UNIT, UNIT_PATH
from provision.host import disks
from provision.host.diff import changes
from provision.host.facts import HostFacts
from provision.host.predict import after
from provision.host.resources import DataDisk, Directory
from provision.inventory import journal_folder
from provision.inventory.model import PageStore
from provision.plans.alluxio import masters, start_workers, worker_preflight
from tests.unit import builders, hosts
from tests.unit.test_masters import ARTIFACTS

TWO = PageStore(dirs=["/d1/pages", "/d2/pages"], sizes=["1GB", "2GB"])
WORKER = builders.worker("w1")._replace(page_store=TWO)
ALLUXIO = builders.alluxio(WORKER)


def on(facts: HostFacts, **mounts: str) -> HostFacts:
    """``facts`` with these file systems below ``/d1`` and ``/d2``."""
    found = {
        path: replace(hosts.disk(path, 100 << 30), mount=mounts.get(path[1:3], "/"))
        for path in (*TWO.dirs, ALLUXIO.state_dir)
    }
    return replace(facts, disks=found)


def installed(**mounts: str) -> HostFacts:
    bare = on(hosts.facts(), **mounts)
    return on(after(desired.resources(ALLUXIO, WORKER, ARTIFACTS, bare), bare), **mounts)


def without(facts: HostFacts, *gone: str) -> HostFacts:
    left = {
        path: seen
        for path, seen in facts.paths.items()
        if not any(disks.is_above(one, path) for one in gone)
    }
    return replace(facts, paths=left)


def warnings(facts: HostFacts) -> list[tuple[str, str]]:
    found = worker_preflight.workers(ALLUXIO, [WORKER], ARTIFACTS, {WORKER.machine: facts})
    return [(p.severity, p.id) for p in found]


class TestPageStores:
    def test_what_is_noted(self) -> None:
        unit = installed(d1="/d1", d2="/d2").text(UNIT_PATH) or ""
        assert disks.noted(unit) == {"/d1/pages": "/d1", "/d2/pages": "/d2"}
        assert "-/d1/pages -/d2/pages\n" in unit
        assert "RequiresMountsFor=/var/lib/alluxio\n" in unit

    def test_a_second_run_is_empty(self) -> None:
        facts = installed(d1="/d1")
        assert changes(desired.resources(ALLUXIO, WORKER, ARTIFACTS, facts), facts) == ()

    def test_one_away_is_a_warning_and_nothing_is_made_there(self) -> None:
        facts = without(on(installed(d1="/d1", d2="/d2"), d1="/d1"), "/d2")
        assert list(stores.lost(WORKER, facts, UNIT_PATH)) == ["/d2/pages"]
        assert warnings(facts) == [("warning", "page-store-away")]
        wanted = desired.resources(ALLUXIO, WORKER, ARTIFACTS, facts)
        assert [r.path for r in wanted if isinstance(r, Directory) and "pages" in r.path] == [
            "/d1/pages"
        ]
        assert changes(wanted, facts) == ()  # and the note of its mount point stays
        rooms = start_workers._rooms(ALLUXIO, [WORKER], ARTIFACTS, {WORKER.machine: facts})
        assert [r.path for r in rooms[WORKER.machine]] == [ALLUXIO.state_dir]

    @pytest.mark.parametrize("owner", ["", "root"])
    def test_one_of_an_older_deployment(self, owner: str) -> None:
        given = f"{state.DIRS}=/d1/pages,/d2/pages\n{state.SIZES}=1GB,2GB\n"
        facts = replace(without(installed(), "/d2"), commands={written.LABEL: given})
        if owner:
            seen = replace(facts.paths["/d1/pages"], owner=owner)
            facts = replace(facts, paths={**facts.paths, "/d2/pages": seen})
        assert list(stores.lost(WORKER, facts, UNIT_PATH)) == ["/d2/pages"]
        # One that is new in the inventory is made.
        fresh = replace(facts, commands={})
        assert list(stores.lost(WORKER, fresh, UNIT_PATH)) == []

    @pytest.mark.process
    @pytest.mark.skipif(os.geteuid() != 0, reason="the unit's command is root's")
    def test_the_units_command(self, tmp_path: Path) -> None:
        good, gone, link = (str(tmp_path / name) for name in ("good", "gone", "link"))
        (tmp_path / "good/LOCAL").mkdir(parents=True)
        os.chown(good, 12345, 12345)
        os.chown(f"{good}/LOCAL", 12345, 12345)
        (tmp_path / "link").symlink_to("/tmp")
        full = tmp_path / "full"
        (full / "LOCAL/1048576").mkdir(parents=True)
        for path in (full, full / "LOCAL"):
            os.chown(path, 12345, 12345)
        mounts = {str(full): str(tmp_path)}  # no mount point
        command = stores.check([good, gone, link, str(full)], mounts)
        script = command.replace("$$", "$").replace("%%", "%").removeprefix("/bin/sh -c ")
        for _ in range(2):
            done = subprocess.run(f"sh -c {script}", shell=True, capture_output=True, text=True)
            said = done.stderr.splitlines()
            assert [line.split()[2] for line in said] == [gone, link, str(full)]
            assert f"no disk is mounted at {tmp_path}" in said[2]
        assert Path(good, "LOCAL").stat().st_uid == 12345
        for made in (gone, f"{gone}/LOCAL", str(full), f"{full}/LOCAL"):
            assert (Path(made).stat().st_uid, Path(made).stat().st_mode & 0o777) == (0, 0o755)
        assert list(Path(gone, "LOCAL").iterdir()) == list((full / "LOCAL").iterdir()) == []
        assert len(list(full.glob("LOCAL.before-*/1048576"))) == 1
        assert Path("/tmp").stat().st_mode & 0o777 == 0o777


class TestIdentity:
    def test_a_worker_without_its_disk_is_no_new_worker(self) -> None:
        facts = without(installed(), ALLUXIO.state_dir)
        assert desired.is_disk_missing(ALLUXIO, facts)
        assert warnings(facts) == [("error", "data-disk-missing")]

    @pytest.mark.parametrize("left", ["data-disk", "worker_metastore", "worker_identity"])
    def test_any_of_these_is_the_disk(self, left: str) -> None:
        facts = installed()
        path = f"{ALLUXIO.state_dir}/{left}"
        kept = {path: facts.paths.get(path, hosts.text("x"))}
        facts = without(facts, ALLUXIO.state_dir)
        facts = replace(facts, paths={**facts.paths, **kept})
        assert not desired.is_disk_missing(ALLUXIO, facts)

    def test_an_installation_that_was_killed_goes_on(self) -> None:
        facts = without(installed(), ALLUXIO.state_dir)
        units = {UNIT: replace(facts.unit(UNIT), file_state="disabled", active="inactive")}
        facts = replace(facts, units=units)
        assert not desired.is_disk_missing(ALLUXIO, facts)
        wanted = desired.resources(ALLUXIO, WORKER, ARTIFACTS, facts)
        assert DataDisk(ALLUXIO.state_dir) in wanted

    def test_an_older_deployment_gets_the_marker_without_a_restart(self) -> None:
        facts = without(installed(), DataDisk(ALLUXIO.state_dir).marker)
        unit = (facts.text(UNIT_PATH) or "").splitlines()
        old = [line for line in unit if "data-disk" not in line and "page store" not in line]
        facts = replace(facts, paths={**facts.paths, UNIT_PATH: hosts.text("\n".join(old) + "\n")})
        todo = changes(desired.resources(ALLUXIO, WORKER, ARTIFACTS, facts), facts)
        assert [c.what for c in todo] == [
            f"change {UNIT_PATH}",
            "mark /var/lib/alluxio as the data disk: /var/lib/alluxio/data-disk",
            f"reload systemd for {UNIT}",
        ]
        assert [c.restarts for c in todo] == [(), (), ()]


class TestJournal:
    MASTERS = builders.alluxio(masters=(builders.master("m1"), builders.master("m2")))

    def facts(self) -> HostFacts:
        one, bare = self.MASTERS.masters[0], hosts.facts()
        facts = after(masters.resources(self.MASTERS, one, ARTIFACTS, bare), bare)
        return without(facts, "/var/lib/alluxio")

    def problems(self, facts: HostFacts) -> list[str]:
        one = self.MASTERS.masters[0]
        return [p.id for p in masters._problems(self.MASTERS, one, ARTIFACTS, facts)]

    def test_a_master_without_its_disk_makes_no_new_journal(self) -> None:
        assert self.problems(self.facts()) == ["data-disk-missing"]

    def test_with_its_journal_or_its_marker_it_starts(self) -> None:
        facts = self.facts()
        commands = {**facts.commands, "journal": "has log_inprogress_0"}
        written = replace(facts, commands=commands)
        assert self.problems(written) == []
        marker = DataDisk(journal_folder.journal_dir(self.MASTERS)).marker
        place = replace(hosts.text(""), kind="dir")
        assert self.problems(replace(facts, paths={**facts.paths, marker: place})) == []

    def test_one_that_was_never_enabled_is_new(self) -> None:
        facts = self.facts()
        units = {MASTER_UNIT: replace(facts.unit(MASTER_UNIT), file_state="disabled")}
        assert self.problems(replace(facts, units=units)) == []
