"""An inventory with etcd and without an alluxio section: what looks at the cluster works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .control import control_machine
from .lab import SSH, Lab

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def inventory(lab: Lab) -> Path:
    return lab.inventory({"alluxio": None})


def values(text: str) -> dict[str, float]:
    return {
        f.name.removeprefix("alluxio_provision_"): sum(s.value for s in f.samples)
        for f in text_string_to_metric_families(text)
    }


def test_check_nodes_in_every_form(lab: Lab, inventory: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    lab.invoke("check-nodes", inventory, "--html", str(page)).expect(0, "etcd0", "3 of 3")
    assert "etcd0" in page.read_text()
    seen = lab.invoke("check-nodes", inventory, "--format", "json").expect(0).json
    assert seen["alluxio"] is None
    metrics = values(lab.invoke("check-nodes", inventory, "--format", "prometheus").stdout)
    assert (metrics["healthy"], metrics["etcd_member_healthy"]) == (1, 3)


def test_a_stopped_member_is_seen(lab: Lab, inventory: Path) -> None:
    lab.etcd[1].run("systemctl stop etcd")
    lab.invoke("check-nodes", inventory).expect(1, "etcd1", "member-down")
    lab.invoke("deploy-etcd").expect(0)
    lab.invoke("check-nodes", inventory).expect(0)


def test_it_is_watched_until_ctrl_c(lab: Lab, inventory: Path) -> None:
    running = lab.start("check-nodes", inventory, "--watch", "--format", "json")
    assert running.process.stdout is not None
    first = json.loads(running.process.stdout.readline())
    assert first["alluxio"] is None
    running.interrupt().expect(0)


def test_the_rendered_timers_service_writes_metrics(
    lab: Lab, inventory: Path, tmp_path: Path
) -> None:
    options = ("--into", str(tmp_path), "--textfiles", "/var/lib/textfiles", "--format", "json")
    made = lab.invoke("render-monitor", inventory, *options).expect(0).json
    files = [Path(path) for path in made["files"]]
    units = "/etc/systemd/system"
    service, timer = (p.name for e in ("service", "timer") for p in files if p.suffix == f".{e}")
    host = lab.workers[0]
    with control_machine(host, [inventory, Path(lab.pki), SSH / "id_ed25519", SSH / "known_hosts"]):
        for path in files:
            host.put(f"{units}/{path.name}", path.read_bytes())
        host.put(f"{units}/{service}.d/user.conf", b"[Service]\nUser=root\n")
        try:
            host.run(
                f"""
                mkdir -p /var/lib/textfiles
                systemctl daemon-reload
                systemd-analyze verify --man=no {units}/{service} {units}/{timer}
                systemctl start {service}
                """,
                timeout=120,
            )
            seen = values(host.read(made["output"]))
        finally:
            host.run(
                f"""
                systemctl stop {timer} {service}
                rm -rf {units}/alluxio-check-* /var/lib/textfiles
                systemctl daemon-reload
                """
            )
    assert (seen["healthy"], seen["etcd_member_healthy"]) == (1, 3)
    assert "workers" not in seen
