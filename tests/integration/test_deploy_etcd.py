"""deploy-etcd: the first time, again, and with changed settings. The tests build on one another."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdError
from provision.etcd.api.values import Endpoint

from .lab import Host, Lab

UNIT = "etcd.service"
CONFIG = "/etc/etcd/etcd.conf.yml"

pytestmark = pytest.mark.usefixtures("clean")


def test_a_dry_run_on_clean_hosts_changes_nothing_anywhere(lab: Lab, tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    inventory = lab.inventory({"etcd": {"tls": {"pki_dir": str(pki)}}})
    before = lab.snapshot()
    shown = lab.invoke("deploy-etcd", inventory, "--dry-run")
    shown.expect(0, "1. bootstrap the cluster", "* start etcd.service", "nothing was changed")
    shown.expect(0, "+[Service]", "+++ /etc/etcd/etcd.conf.yml")
    document = lab.invoke("deploy-etcd", inventory, "--dry-run", "--format", "json").expect(0).json
    assert (document["changed"], document["applied"]) == (0, False)
    assert document["would_change"] > 30
    assert lab.snapshot() == before
    assert not pki.exists()


def test_the_first_run_makes_a_cluster_that_serves_through_every_endpoint(lab: Lab) -> None:
    endpoints = ",".join(f"http://{host.address}:2379" for host in lab.etcd)
    lab.invoke("deploy-etcd").expect(0, f"changed; endpoints: {endpoints}")
    seen = set()
    for host in lab.etcd:
        with lab.client(host) as client:
            client.quorum_write(host.name)
            status = client.status()
            seen.add((status.cluster_id, status.leader, status.version, status.errors))
            members = client.member_list()
        assert {m.name for m in members} == {"etcd0", "etcd1", "etcd2"}
        assert all(url.startswith("https://") for m in members for url in m.peer_urls)
    assert len(seen) == 1


def test_no_secret_is_readable_by_others(lab: Lab) -> None:
    for host in lab.etcd:
        modes = host.run("stat -c '%n %a %U' /var/lib/etcd /etc/etcd/pki /etc/etcd/pki/peer.key")
        assert modes.splitlines() == [
            "/var/lib/etcd 700 etcd",
            "/etc/etcd/pki 750 root",
            "/etc/etcd/pki/peer.key 640 root",
        ]
        loose = "find /var/lib/etcd /etc/etcd/pki -type f -name '*.key' -perm /037"
        assert host.run(loose) == ""
        for secret in ("ls /var/lib/etcd", "cat /etc/etcd/pki/peer.key"):
            refused = host.run(f"runuser -u nobody -- {secret} 2>&1", check=False)
            assert "Permission denied" in refused


def test_etcd_runs_as_its_own_user_in_its_sandbox(lab: Lab) -> None:
    for host in lab.etcd:
        pid = host.main_pid(UNIT)
        status = dict(
            re.findall(r"^(\w+):\s+(.*)$", host.read(f"/proc/{pid}/status"), re.MULTILINE)
        )
        uid = host.run("id -u etcd")
        assert status["Uid"].split() == [uid] * 4
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        for path in ("/etc", "/opt/etcd", "/var/log"):
            refused = host.run(f"nsenter -t {pid} -m touch {path}/x 2>&1", check=False)
            assert "Read-only file system" in refused
        host.run(f"nsenter -t {pid} -m sh -c 'touch /var/lib/etcd/x; rm /var/lib/etcd/x'")


def test_a_second_run_changes_nothing_in_few_round_trips(lab: Lab) -> None:
    before = lab.snapshot()
    lab.invoke("deploy-etcd").expect(0, "0 changed")
    again = lab.invoke("deploy-etcd", None, "--format", "json", "--stats").expect(0)
    assert again.json["changed"] == 0
    assert again.json["steps"] == []
    most = re.search(r"^SSH round trips: \d+, at most (\d+) a host$", again.stderr, re.MULTILINE)
    assert most is not None
    assert int(most[1]) == 1
    assert lab.snapshot() == before


SETTINGS = {"snapshot-count": 20000, "heartbeat-interval": 150, "election-timeout": 1500}


def test_a_dry_run_shows_a_changed_setting_as_a_diff(lab: Lab) -> None:
    before, revision = lab.snapshot(), _revision(lab)
    shown = lab.invoke("deploy-etcd", lab.inventory({"etcd": {"settings": SETTINGS}}), "--dry-run")
    shown.expect(0, f"* change {CONFIG}", "+snapshot-count: 20000", "nothing was changed")
    assert lab.snapshot() == before
    assert _revision(lab) == revision


def test_a_changed_setting_rolls_one_member_at_a_time_the_leader_last(lab: Lab) -> None:
    leader = lab.leader()
    with _clients_at_work(lab) as work:
        rolled = lab.invoke("deploy-etcd", lab.inventory({"etcd": {"settings": SETTINGS}}))
    rolled.expect(0, "+snapshot-count: 20000", "change etcd0", "change etcd1", "change etcd2")
    assert all("snapshot-count: 20000" in host.read(CONFIG) for host in lab.etcd)

    away = sorted((*_absence(host), host) for host in lab.etcd)
    assert [host for _, _, host in away][-1] is leader
    for (_, back, earlier), (gone, _, later) in pairwise(away):
        assert back < gone, f"{later} was stopped before {earlier} was back"

    assert work.acknowledged > 20
    assert work.wrong == []
    with lab.client(leader) as client:
        _, kept = client.range(work.prefix)
        assert {int(kv.value) for kv in kept} >= set(range(work.acknowledged))


def test_a_setting_that_etcd_refuses_stops_at_the_first_member(lab: Lab) -> None:
    before, leader = lab.snapshot(), lab.leader()
    refused = {"etcd": {"settings": {**SETTINGS, "log-level": "loud"}}}
    failed = lab.invoke("deploy-etcd", lab.inventory(refused))
    failed.expect(4, "stopped in step 1 of 3", "run the same command again")
    failed.expect(4, 'panic: unrecognized level: "loud"')
    after = lab.snapshot()
    changed = [name for name in after if after[name] != before[name]]
    assert len(changed) == 1
    assert changed != [leader.name]
    # The other two go on serving as before, and the cluster knows it.
    with lab.client(leader) as client:
        client.quorum_write("test")
    lab.invoke("deploy-etcd", lab.inventory({"etcd": {"settings": SETTINGS}})).expect(0)
    final = lab.snapshot()
    assert {n for n in final if final[n] != before[n]} == set(changed), "only the one was touched"
    lab.invoke("deploy-etcd", lab.inventory({"etcd": {"settings": SETTINGS}})).expect(
        0, "0 changed"
    )


def _revision(lab: Lab) -> int:
    with lab.client(lab.etcd[0]) as client:
        return client.range("/none")[0]


def _absence(host: Host) -> tuple[int, int]:
    """When the member was last stopped and ready again: microseconds, of one clock for all."""
    gone, back = "ActiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic"
    shown = host.show(UNIT, gone, back)
    return int(shown[gone]), int(shown[back])


@dataclass
class _Work:
    """A writer and a reader. Keys ``prefix/N`` for N from 0, the next when one is acknowledged."""

    prefix: str
    acknowledged: int = 0
    wrong: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def _clients_at_work(lab: Lab) -> Iterator[_Work]:
    work = _Work("/test/roll-out/")
    endpoints = [Endpoint(host.address, 2379) for host in lab.etcd]
    jobs = [threading.Thread(target=job, args=(work, endpoints)) for job in (_write, _read)]
    for job in jobs:
        job.start()
    try:
        yield work
    finally:
        work.over.set()
        for job in jobs:
            job.join()


def _write(work: _Work, endpoints: list[Endpoint]) -> None:
    attempt = 0
    while not work.over.is_set():
        with EtcdClient(endpoints[attempt % len(endpoints)], timeout=2) as client:
            try:
                while not work.over.is_set():
                    number = work.acknowledged
                    client.put(f"{work.prefix}{number}", str(number))
                    work.acknowledged = number + 1
            except EtcdError:
                attempt += 1


def _read(work: _Work, endpoints: list[Endpoint]) -> None:
    attempt = 0
    while not work.over.is_set():
        number = work.acknowledged - 1
        if number < 0:
            continue
        with EtcdClient(endpoints[attempt % len(endpoints)], timeout=2) as client:
            attempt += 1
            try:
                found = client.get(f"{work.prefix}{number}")
            except EtcdError:
                continue
        if found is None:
            work.wrong.append(f"{number} was acknowledged, and {client.endpoint} does not have it")
