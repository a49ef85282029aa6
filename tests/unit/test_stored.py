"""What check-nodes says of backups and former data; the probe runs in a real shell."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from provision.check_nodes.prometheus import exposition
from provision.errors import PreflightFailed, Unhealthy
from provision.etcd.member import backups
from provision.host.facts import HostFacts, parse, script
from provision.inventory.model import EtcdBackup
from provision.plans.etcd.data import backup_etcd, fetch_backups, stored
from provision.plans.etcd.data.stored import Host, Saved, Stored
from provision.ssh.session import Fleet, Result
from tests.unit import builders, hosts
from tests.unit.test_check import LIVE, report

NOW = datetime(2026, 5, 9, 12, tzinfo=timezone.utc)
DAILY = 86400.0


def saved(hours: float, revision: int = 9, host: str = "10.0.0.1", cluster_id: int = 7) -> Saved:
    text = backups.name("c", cluster_id, 2, revision, revision, NOW - timedelta(hours=hours))
    name = backups.parse("c", text)
    assert name is not None
    return Saved(name, host, f"/var/backups/etcd/{text}", 100, "infra1")


def backed_up(*found: Saved, declared: bool = True, **changed: object) -> Stored:
    cluster = builders.etcd(backup=EtcdBackup() if declared else None)
    first, *others = cluster.members
    host = replace(
        Host(first, saved=found, result="success", longest=DAILY, aside=()),
        **changed,  # type: ignore[arg-type]
    )
    return Stored(cluster, (host, *map(Host, others)), now=NOW)


def ids(seen: Stored) -> list[str]:
    assert all(p.severity == "warning" for p in seen.problems)
    return [p.id for p in seen.problems]


def test_none_is_a_warning() -> None:
    assert ids(backed_up()) == ["backup-missing"]
    (problem,) = backed_up(declared=False).problems
    assert (problem.id, problem.severity) == ("backup-missing", "warning")
    assert "etcd.backup is not declared" in problem.what
    assert ids(backed_up(saved(30), declared=False)) == []
    external = replace(backed_up(declared=False), cluster=replace(builders.etcd(), external=True))
    assert ids(external) == []
    assert backed_up(declared=False).line == "backup: none is known"


def test_the_newest_and_its_age() -> None:
    seen = backed_up(saved(30, 5), saved(3, 9))
    assert ids(seen) == []
    assert seen.line.startswith(
        "backup: revision 9, 3 hours old, at 10.0.0.1:/var/backups/etcd/c-c"
    )
    assert ids(backed_up(saved(47.9))) == []
    assert ids(backed_up(saved(48.1))) == ["backup-old"]
    assert ids(backed_up(saved(48.1), longest=7 * DAILY)) == []
    assert ids(backed_up(saved(999), longest=None)) == []  # its systemd does not tell the schedule
    found = seen.document()["newest"]
    assert isinstance(found, dict)
    assert (found["revision"], found["age_seconds"], found["host"]) == (9, 3 * 3600, "10.0.0.1")


def test_a_failed_run_and_a_silent_host() -> None:
    assert ids(backed_up(saved(1), result="exit-code")) == ["backup-run-failed"]
    silent = backed_up(error="no route to host")
    assert ids(silent) == ["host-unreachable", "backup-missing"]
    assert silent.line == "backup: none is known on the hosts that answered"
    assert ids(backed_up(declared=False, error="no route to host")) == ["backup-missing"]


def test_former_data_above_a_share_of_the_disk() -> None:
    most = ("/var/lib/etcd/member.removed-20260101T000000Z", 15, 100)
    assert ids(backed_up(saved(1), aside=(most,))) == []
    seen = backed_up(saved(1), aside=(("/var/backups/etcd", 6, 100), most))
    (problem,) = seen.problems
    assert problem.id == "kept-data-large"
    assert problem.what.endswith("21 % of the disk; the largest part is 15 B in " + most[0])


def test_metrics() -> None:
    text = exposition(report(LIVE, stored=backed_up(saved(3), result="exit-code")))
    found = {
        f.name.removeprefix("alluxio_provision_"): f.samples[0]
        for f in text_string_to_metric_families(text)
    }
    newest = found["etcd_backup_timestamp_seconds"]
    assert newest.value == (NOW - timedelta(hours=3)).timestamp()
    assert newest.labels == {"cluster": "c", "host": "10.0.0.1"}
    assert found["etcd_backup_revision"].value == 9
    assert found["etcd_backup_interval_seconds"].value == DAILY
    assert found["etcd_backup_run_succeeded"].value == 0
    assert found["etcd_backups"].value == 1
    none = exposition(report(LIVE, stored=backed_up()))
    assert 'alluxio_provision_etcd_backups{cluster="c"} 0\n' in none
    assert "etcd_backup_timestamp" not in none


@pytest.fixture
def asked(tmp_path: Path) -> tuple[HostFacts, stored.Host]:
    """A host with backups of two histories, one file without its sha256, and data kept aside."""
    folder, data = tmp_path / "backups", tmp_path / "data"
    folder.mkdir()
    (data / "member.removed-20260101T000000Z").mkdir(parents=True)
    (data / "member.removed-20260101T000000Z" / "db").write_bytes(b"x" * 9000)
    for one in (saved(50, 100), saved(26, 5), saved(2, 6)):
        (folder / one.name.text).write_bytes(b"x" * 100)
        backup_etcd.digest_file(folder / one.name.text).touch()
    (folder / saved(1, 7).name.text).touch()
    backup = EtcdBackup(dir="/data", on_calendar="Mon *-*-* 02:00")
    cluster = builders.etcd(backup=backup.model_copy(update={"dir": str(folder)}))
    member = replace(cluster.members[0], data_dir=str(data))
    text = script(stored.probe(cluster, member))
    facts = parse(hosts.shell(text, tmp_path), "here")
    return facts, stored.read(cluster, member, facts)


@pytest.mark.process
def test_what_a_host_answers(asked: tuple[HostFacts, stored.Host], tmp_path: Path) -> None:
    _, host = asked
    assert [s.name.revision for s in host.saved] == [6, 5, 100]
    assert host.saved[0].path == f"{tmp_path}/backups/{saved(2, 6).name.text}"
    assert [(path, count) for path, count, _ in host.aside] == [
        (f"{tmp_path}/backups", 100),  # the emptied member's came later
        (f"{tmp_path}/data/member.removed-20260101T000000Z", 16 << 10),
    ]
    assert all(disk > 1 << 20 for _, _, disk in host.aside)


@pytest.mark.process
def test_the_schedule_in_systemds_own_words(asked: tuple[HostFacts, stored.Host]) -> None:
    facts, host = asked
    if not facts.commands["schedule"].strip():
        pytest.skip("no systemd-analyze here")
    assert host.longest == 7 * DAILY


@pytest.mark.process
@pytest.mark.parametrize("word", ["Iter.", "Iteration"])
def test_the_schedule_as_systemd_252_and_262_print_it(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = tmp_path / "systemd-analyze"
    lines = [
        "  Original form: weekly",
        "    Next elapse: Mon 2026-12-07 00:00:00 UTC",
        "       From now: 6 days left",
        f"{word:>12} #2: Mon 2026-12-14 00:00:00 UTC",
        "       From now: 1 week 6 days left",
    ]
    shim.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    script = stored.schedule("weekly")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    first, second = map(int, done.stdout.split())
    assert second - first == 7 * DAILY
    # The script of the timer reads the same lines.
    reads = next(line for line in script.split(" | ") if line.startswith("sed "))
    template = Path(__file__).parents[2] / "templates" / "etcd-backup.sh.j2"
    assert reads in template.read_text()


def test_a_host_may_not_fill_this_machines_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host says how large its backup is."""
    monkeypatch.setattr(backup_etcd, "room", lambda _: 99)
    asked: list[int] = []

    class Host:
        def run(self, script: str, what: str) -> Result:
            return Result(0, "0" * 64, "", 0.0)

        def fetch(self, command: str, into: object, what: str, *, most: int, length: int) -> Result:
            asked.append(most)
            return Result(1, "", "gone", 0.0)

    fleet = cast(Fleet, SimpleNamespace(session=lambda _: Host()))
    seen = backed_up(one := saved(1))
    with pytest.raises(PreflightFailed, match="cannot be written") as caught:
        fetch_backups._bring(seen.cluster, fleet, seen, one, tmp_path)
    assert caught.value.problems[0].what == "No space left on device"
    assert asked == []
    with pytest.raises(Unhealthy):
        fetch_backups._bring(seen.cluster, fleet, seen, replace(one, size=98), tmp_path)
    assert asked == [98]
