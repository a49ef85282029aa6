"""check-nodes: inventory, etcd and `info nodes` joined, while each of them is disturbed."""

from __future__ import annotations

import hashlib
import json
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .control import control_machine
from .lab import CLUSTER, NET, SSH, TEST_UNIT, Done, Host, Lab, firewall, wait_until

UNIT = "alluxio-worker.service"
#: alluxio.failure_detection_timeout in inventory/lab.yml, seconds.
DETECTION = 5
CONTROL = f"{NET}.1"

pytestmark = pytest.mark.usefixtures("workers")


def check(lab: Lab, code: int, *options: str) -> dict[str, Any]:
    """The JSON report of check-nodes, which must end with ``code``."""
    report = lab.invoke("check-nodes", None, "--format", "json", *options).expect(code).json
    assert report["schema"] == "alluxio-provision/check-nodes/1"
    assert report["exit_code"] == code
    return report


def states(report: dict[str, Any]) -> dict[str, str]:
    return {n["name"] or n["host"]: n["state"] for n in report["alluxio"]["nodes"]}


def notes(report: dict[str, Any]) -> list[str]:
    return [note for node in report["alluxio"]["nodes"] for note in node["notes"]]


def wrong(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The problems that a test made. That the lab declares no backups is said each time."""
    return [p for p in report["problems"] if p["id"] != "backup-missing"]


ALL_LIVE = {"worker0": "LIVE", "worker1": "LIVE"}


def test_all_is_well(lab: Lab) -> None:
    before = lab.snapshot()
    report = check(lab, 0)
    assert states(report) == ALL_LIVE
    for node, host in zip(report["alluxio"]["nodes"], lab.workers, strict=True):
        assert node["worker_id"] == f"worker-{host.read('/var/lib/alluxio/worker_identity')}"
        assert (node["host"], node["port"]) == (host.address, 29999)
        assert (node["info_nodes"], node["notes"], node["ok"]) == ("ONLINE", [], True)
    etcd = report["etcd"]
    assert (etcd["healthy"], etcd["quorum"]) == (3, 2)
    # The lab declares no backups.
    assert [(p["id"], p["severity"]) for p in report["problems"]] == [("backup-missing", "warning")]
    assert etcd["leader"] == lab.leader().name
    assert [m["status"]["version"] for m in etcd["members"]] == ["3.6.16"] * 3
    assert [m["status"]["alarms"] for m in etcd["members"]] == [[]] * 3
    table = lab.invoke("check-nodes").expect(0, "2 workers: 2 LIVE")
    table.expect(0, "worker0", "worker1", "etcd0", "etcd1", "etcd2")
    assert lab.snapshot() == before


class LiveView:
    """`check-nodes --watch --format json`, read line by line."""

    def __init__(self, lab: Lab) -> None:
        self._running = lab.start("check-nodes", None, "--watch", "--format", "json")
        self._dead_man = threading.Timer(90, self._running.process.kill)
        self._dead_man.start()

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *_: object) -> None:
        self._dead_man.cancel()
        self._running.process.kill()

    def until(self, wanted: dict[str, str]) -> dict[str, Any]:
        """The first line from now on that has these states."""
        assert self._running.process.stdout is not None
        for line in self._running.process.stdout:
            seen: dict[str, Any] = json.loads(line)
            if states(seen) == wanted:
                return seen
        raise AssertionError(f"ended before {wanted}")

    def interrupt(self) -> Done:
        self._running.process.send_signal(signal.SIGINT)
        return self._running.finish(20)


def test_a_killed_worker_is_failed_in_time(lab: Lab) -> None:
    one, other = lab.workers
    with LiveView(lab) as live, other.masked(UNIT):
        live.until(ALL_LIVE)
        other.run(f"kill -KILL {other.main_pid(UNIT)}")
        killed = time.monotonic()
        while True:
            begun = time.monotonic() - killed
            seen = lab.invoke("check-nodes", None, "--format", "json").json
            if states(seen)["worker1"] == "FAILED":
                break
            assert begun < DETECTION + 3, "a look from then on must see it"
        assert states(check(lab, 1)) == {"worker0": "LIVE", "worker1": "FAILED"}
        lab.invoke("check-nodes").expect(1, "1 LIVE, 1 FAILED", other.address)
        live.until({"worker0": "LIVE", "worker1": "FAILED"})
        ended = live.interrupt().expect(0)
        assert ended.stderr == ""  # another document may have come
    pid = one.main_pid(UNIT)
    lab.invoke("start-workers").expect(0, "2 of 2 live")
    assert one.main_pid(UNIT) == pid
    assert states(check(lab, 0)) == ALL_LIVE


@contextmanager
def stranger(lab: Lab, host: str) -> Iterator[None]:
    """A registration of a worker that nobody declared, in the form that Alluxio 313 writes."""
    worker = "worker-11111111-2222-3333-4444-555555555555"
    keys = [f"/DHT/{CLUSTER}/AUTHORIZED/{worker}", f"/ServiceDiscovery/{CLUSTER}/{worker}"]
    with lab.client(lab.etcd[0]) as client:
        _, (known, *_) = client.range(f"/ServiceDiscovery/{CLUSTER}/")
        entity = json.loads(known.value)
        entity["Identity"]["identifier"] = worker.removeprefix("worker-").replace("-", "")
        entity["WorkerNetAddress"]["Host"] = host
        entity["ServiceEntityName"] = worker
        lease = client.lease_grant(60)
        client.put(keys[0], json.dumps(entity))
        client.put(keys[1], json.dumps(entity), lease=lease)
        try:
            yield
        finally:
            client.lease_revoke(lease)
            client.delete(keys[0])


def test_a_strangers_registration_is_unknown(lab: Lab) -> None:
    with stranger(lab, "10.213.77.99"):
        seen = check(lab, 1)
        assert states(seen) == {**ALL_LIVE, "10.213.77.99": "UNKNOWN"}
        assert notes(seen) == ["live, not in the inventory"]
        lab.invoke("check-nodes").expect(1, "2 LIVE; 1 not in the inventory", "10.213.77.99")
    check(lab, 0)


def test_a_worker_that_is_not_registered_is_said(lab: Lab) -> None:
    more = {"alluxio": {"workers": {"worker2": {"host": "10.213.77.23"}}}}
    seen = lab.invoke("check-nodes", lab.inventory(more), "--format", "json").expect(1).json
    assert states(seen) == {**ALL_LIVE, "worker2": "UNREGISTERED"}


def test_a_disagreement_between_the_views_is_shown(lab: Lab) -> None:
    site = "/opt/alluxio/current/conf/alluxio-site.properties"
    asked = lab.workers[0]
    asked.run(f"cp -p {site} {site}.kept; sed -i s/{CLUSTER}/Elsewhere/ {site}")
    try:
        seen = check(lab, 1)
    finally:
        asked.run(f"mv {site}.kept {site}")
    assert states(seen) == ALL_LIVE
    assert notes(seen) == ["info nodes does not list it"] * 2


@pytest.mark.parametrize("target", ["DROP", "REJECT"])
def test_it_works_when_the_control_machine_cannot_reach_etcds_ports(
    lab: Lab, target: str, tmp_path: Path
) -> None:
    rule = f"INPUT -s {CONTROL} -p tcp -m multiport --dports 2379,2380 -j {target}"
    with firewall(lab.etcd, rule):
        seen = check(lab, 0)
        assert states(seen) == ALL_LIVE
        assert [m["how"] for m in seen["etcd"]["members"]] == ["tunnel"] * 3
        if target == "REJECT":
            etcdctl = f"/opt/etcd/current/etcdctl --endpoints http://{lab.etcd[0].address}:2379"
            with LiveView(lab) as live:
                live.until(ALL_LIVE)
                lab.etcd[0].run(f"{etcdctl} put /ServiceDiscovery/{CLUSTER}/stranger x")
                live.until({**ALL_LIVE, "": "UNKNOWN"})
                lab.etcd[0].run(f"{etcdctl} del /ServiceDiscovery/{CLUSTER}/stranger")
                live.until(ALL_LIVE)
        lab.invoke("deploy-etcd").expect(0, "0 changed")
        if target == "DROP":
            lab.invoke("rotate-certs").expect(0, "4 changed")
            lab.invoke("backup-etcd", None, "--to", str(tmp_path)).expect(0, "verified")
    assert [m["how"] for m in check(lab, 0)["etcd"]["members"]] == ["direct"] * 3


def test_info_nodes_that_hangs_is_bounded_and_the_others_are_reported(lab: Lab) -> None:
    # New connections only: the workers keep those that they have, and with them their leases.
    # On both hosts, as the second one is asked when the first is late.
    with firewall(lab.workers, "OUTPUT -p tcp --syn --dport 2379 -j DROP"):
        seen = check(lab, 1, "--nodes-timeout", "3")
    assert states(seen) == ALL_LIVE
    (problem,) = wrong(seen)
    assert problem["where"] == "info nodes"
    assert "did not answer in 3 s" in problem["what"]
    assert seen["seconds"] < 8


def test_what_is_not_installed_is_said_and_is_no_failure_of_info_nodes(lab: Lab) -> None:
    """etcd's host, declared as the only worker, has no Alluxio and no user of it."""
    host = lab.etcd[0].address
    workers = {"worker0": None, "worker1": None, "worker2": {"host": host}}
    declared = lab.inventory({"alluxio": {"workers": workers}})
    done = lab.invoke("check-nodes", declared, "--format", "json").expect(1)
    seen = done.json
    node = next(n for n in seen["alluxio"]["nodes"] if n["name"] == "worker2")
    assert node["state"] == "NOT_INSTALLED"
    assert node["notes"] == ["not installed yet: run invoke start-workers"]
    assert seen["alluxio"]["info_nodes"]["error"] == "Alluxio is not installed yet"
    assert [p for p in seen["problems"] if p["id"] == "info-nodes-failed"] == []
    table = lab.invoke("check-nodes", declared).expect(1, "NOT_INSTALLED", "not installed yet")
    assert "setpriv" not in table.text


def test_a_port_of_another_process_is_not_ready(lab: Lab) -> None:
    """Alluxio goes on without its HTTP server then, and registers. The other process comes after
    preflight, which refuses a port that is taken, and before the JVM gets to its HTTP server."""
    perl = (
        "perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(LocalPort => 28080, "
        "Listen => 5, ReuseAddr => 1) or die $!; while (my $c = $s->accept) "
        '{ print $c "HTTP/1.0 200 OK\r\n\r\n"; close $c }\''
    )
    host = lab.workers[1]
    impatient = lab.inventory({"alluxio": {"start_timeout": 15}})
    lab.invoke("stop-workers", None, "--limit", "worker1").expect(0)
    squat = f"until systemctl -q is-active {UNIT}; do sleep 0.05; done; exec {perl}"
    host.run(f"systemd-run --quiet --unit {TEST_UNIT} sh -c {shlex.quote(squat)}")
    try:
        lab.invoke("start-workers", impatient).expect(
            4,
            "is registered, but not ready",
            "its http port 28080",
            "another process listens on it",
        )
        assert states(check(lab, 0)) == ALL_LIVE  # etcd and one worker know no better
        seen = check(lab, 1, "--hosts")
        assert states(seen) == ALL_LIVE
        assert [n["ready"] for n in seen["alluxio"]["nodes"]] == [True, False]
        lab.invoke("check-nodes", None, "--hosts").expect(1, "NOT READY", "2 LIVE; 1 READY")
    finally:
        host.run(f"systemctl stop {TEST_UNIT}")
    lab.invoke("restart-workers", None, "--limit", "worker1").expect(0)
    seen = check(lab, 0, "--hosts")
    assert [n["ready"] for n in seen["alluxio"]["nodes"]] == [True, True]


CONTENT = "what the file holds, which nobody is to see\n"


def store(host: Host, name: str) -> None:
    """Put a file into the under store of the worker on ``host``."""
    path = shlex.quote(f"/srv/{name}")
    host.run(f"printf %s {shlex.quote(CONTENT)} >{path}; chmod 0644 {path}")


def test_a_read_goes_through_a_worker(lab: Lab) -> None:
    for host in lab.workers:
        store(host, "read me")
    for found in (
        check(lab, 0, "--hosts", "--read", "/read me"),
        lab.invoke("start-workers", None, "--read", "/read me", "--format", "json").expect(0).json,
    ):
        proof = found["read"]
        assert (proof["bytes"], proof["error"]) == (len(CONTENT), None)
        assert proof["sha256"] == hashlib.sha256(CONTENT.encode()).hexdigest()
        assert proof["worker"] in [h.address for h in lab.workers]
        assert "nobody is to see" not in json.dumps(found)
    lab.invoke("start-workers", None, "--read", "/read me").expect(0, "2 of 2 live", "served by")


def test_a_read_that_fails_is_a_problem(lab: Lab) -> None:
    seen = check(lab, 1, "--read", "/no such file")
    (problem,) = wrong(seen)
    assert (problem["id"], problem["where"]) == ("read-failed", "read of /no such file")
    assert "does not exist" in problem["what"]
    failed = lab.invoke("start-workers", None, "--read", "/no such file")
    failed.expect(1, "2 of 2 live", "read-failed")
    lab.invoke("check-nodes", None, "--read", "no-path").expect(2, "--read is the path of one")
    lab.invoke("check-nodes", None, "--watch", "--hosts").expect(2, "--hosts and --read are not")


def test_a_read_that_no_worker_serves_is_found(lab: Lab) -> None:
    """Where applications would read the under store themselves, and nobody would know."""
    for host in lab.workers:
        store(host, "f")  # a client that goes around the worker finds it, too
    rule = "INPUT -p tcp --dport 29997 -j REJECT --reject-with tcp-reset"
    try:
        check(lab, 0, "--read", "/f")
        with firewall(lab.workers, rule):
            seen = check(lab, 1, "--read", "/f")
        assert "read-failed" in [p["id"] for p in seen["problems"]]
    finally:
        lab.on(lab.workers, "rm -f /srv/f")


def test_one_member_down_is_a_problem_but_no_obstacle(lab: Lab) -> None:
    with stopped_etcd(lab, lab.etcd[2:]):
        seen = check(lab, 1)
        assert states(seen) == ALL_LIVE
        assert [m["healthy"] for m in seen["etcd"]["members"]] == [True, True, False]
        assert {p["where"] for p in wrong(seen)} == {"etcd member etcd2"}


def test_without_etcd_it_ends_in_time_and_says_what_is_missing(lab: Lab) -> None:
    with stopped_etcd(lab, lab.etcd):
        seen = check(lab, 1, "--nodes-timeout", "21")
        assert states(seen) == {"worker0": "UNDETERMINED", "worker1": "UNDETERMINED"}
        assert {p["where"] for p in wrong(seen)} >= {
            "etcd member etcd0",
            "etcd member etcd1",
            "etcd member etcd2",
            "info nodes",
        }
        assert seen["seconds"] < 12  # `info nodes` hangs; a third of its time is enough to know
        lab.invoke("start-workers").expect(3, "etcd: workers could not register")
    wait_until(lambda: lab.invoke("check-nodes").code == 0, "all LIVE again", 30)


def test_the_rendered_timer_writes_metrics(lab: Lab, tmp_path: Path) -> None:
    options = ("--into", str(tmp_path), "--every", "2", "--textfiles", "/var/lib/textfiles")
    made = lab.invoke("render-monitor", None, *options, "--format", "json").expect(0).json
    files = [Path(path) for path in made["files"]]
    timer = next(path.name for path in files if path.suffix == ".timer")
    units = "/etc/systemd/system"
    host = lab.workers[1]
    brought = [lab.declared, Path(lab.pki), SSH / "id_ed25519", SSH / "known_hosts"]

    def metrics() -> dict[str, float]:
        text = host.run(f"cat {made['output']} 2>/dev/null || :")
        return {
            f.name.removeprefix("alluxio_provision_"): sum(s.value for s in f.samples)
            for f in text_string_to_metric_families(text)
        }

    with control_machine(host, brought):
        for path in files:
            host.put(f"{units}/{path.name}", path.read_bytes())
        service = timer.replace(".timer", ".service")
        host.put(f"{units}/{service}.d/user.conf", b"[Service]\nUser=root\n")
        try:
            host.run(
                f"""
                mkdir -p /var/lib/textfiles
                systemctl daemon-reload
                systemd-analyze verify --man=no {units}/{service} {units}/{timer}
                systemctl start {timer}
                """
            )
            wait_until(lambda: bool(metrics()), "the first look", 60)
            first = metrics()
            later = "check_timestamp_seconds"
            wait_until(lambda: metrics()[later] > first[later], "the second look", 60)
            # A JVM's start may take longer than a look's patience on a machine that is busy.
            wait_until(lambda: metrics()["healthy"] == 1, "all is well", 90)
            seen = metrics()
        finally:
            journal = host.run(f"journalctl -u {service} -o cat -n 20", check=False)
            host.run(
                f"""
                systemctl stop {timer} {service}
                rm -rf {units}/alluxio-check-* /var/lib/textfiles
                systemctl daemon-reload
                """
            )
    assert seen["etcd_member_healthy"] == 3, journal
    assert seen["workers"] == 2
    assert seen["worker_info_nodes_agrees"] == 2


@contextmanager
def stopped_etcd(lab: Lab, hosts: list[Host]) -> Iterator[None]:
    lab.on(hosts, "systemctl stop etcd")
    try:
        yield
    finally:
        lab.on(hosts, "systemctl start etcd")
