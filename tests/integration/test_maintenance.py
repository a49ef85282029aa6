"""A full database: NOSPACE, and the way out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdRefused

from .lab import Lab, wait_until

pytestmark = pytest.mark.slow


def fill(lab: Lab) -> None:
    def write(client: EtcdClient) -> None:
        for _ in range(400):
            client.put("/fill", b"x" * 100_000)

    with lab.client(lab.etcd[0]) as client, pytest.raises(EtcdRefused, match="space exceeded"):
        write(client)


def test_a_full_database_is_compacted_rewritten_and_disarmed(lab: Lab, cluster: None) -> None:
    settings = {
        "quota-backend-bytes": 16 << 20,
        "auto-compaction-mode": "revision",
        "auto-compaction-retention": 1000,
    }
    small = lab.inventory({"etcd": {"settings": settings}})
    lab.invoke("deploy-etcd", small).expect(0)
    # What etcd itself says it compacts by: it reads the number as text.
    said = lab.etcd[0].run("journalctl -u etcd -o cat | grep 'starting an etcd server' | tail -n 1")
    assert '"auto-compaction-mode":"revision","auto-compaction-retention":"1µs"' in said
    fill(lab)
    lab.invoke("disarm-alarms", small).expect(1, "NOSPACE", "invoke defrag-etcd --compact")
    led = lab.leader().name
    done = lab.invoke("defrag-etcd", small, "--compact", "--format", "json").expect(0)
    for before, after in zip(done.json["before"], done.json["after"], strict=True):
        assert before["size"] > 10 << 20
        assert after["size"] < 5 << 20
        assert after["quota"] == 16 << 20
    titles = [step["title"] for step in done.json["steps"]]
    assert titles[0] == "compact"
    assert titles[-1] == f"defragment {led} (leader)"
    assert lab.leader().name != led
    # Each member may have raised it before it heard of the others.
    lab.invoke("disarm-alarms", small).expect(0, "disarm NOSPACE")
    lab.invoke("disarm-alarms", small).expect(0, "there is no alarm")
    require_writes(lab)
    # What was just rewritten has nothing to give back.
    lab.invoke("defrag-etcd", small).expect(0, "no member has space to give back")
    lab.invoke("defrag-etcd", small, "--all", "--dry-run", "--exit-code").expect(1)


def require_writes(lab: Lab) -> None:
    for host in lab.etcd:
        with lab.client(host) as client:
            client.quorum_write(host.name)


def test_a_higher_quota_rolls_through_a_full_cluster(
    lab: Lab, cluster: None, tmp_path: Path
) -> None:
    settings = {"quota-backend-bytes": 16 << 20}
    small = lab.inventory({"etcd": {"settings": settings}})
    lab.invoke("deploy-etcd", small).expect(0)
    fill(lab)
    before = lab.snapshot()
    # Another change could not be proven, and would stop half-way.
    other = lab.inventory({"etcd": {"settings": settings | {"max-request-bytes": 2 << 20}}})
    lab.invoke("deploy-etcd", other).expect(3, "alarm-nospace", "nothing was changed")
    lab.invoke("rotate-certs", small).expect(3, "alarm-nospace", "nothing was changed")
    lab.invoke("deploy-etcd", small).expect(0, "0 changed", "alarm-nospace")
    assert lab.snapshot() == before
    lab.invoke("move-leader", small, lab.etcd[0].name).expect(0)
    lab.invoke("backup-etcd", small, "--to", str(tmp_path)).expect(0)
    # A dead member cannot wait until there is space: nothing else can be mended before.
    dead = lab.etcd[2]
    dead.run("systemctl kill -s KILL etcd; systemctl stop etcd; rm -rf /var/lib/etcd/member")
    lab.invoke("replace-member", small, dead.name).expect(0)
    running = lab.start("deploy-etcd")
    running.wait_for("change etcd1")
    running.kill()
    lab.invoke("deploy-etcd").expect(0, "disarm NOSPACE")
    require_writes(lab)
    lab.invoke("disarm-alarms").expect(0, "there is no alarm")
    # A snapshot brings the alarm of its time along.
    (saved,) = tmp_path.glob("*.db")
    lab.invoke("restore-etcd", None, str(saved), "--yes-restore", lab.name).expect(0)
    require_writes(lab)
    lab.invoke("disarm-alarms").expect(0, "there is no alarm")
    lab.invoke("deploy-etcd").expect(0, "0 changed")


def test_refused_while_a_member_is_down(lab: Lab, cluster: None) -> None:
    host = next(h for h in lab.etcd if h != lab.leader())
    host.run("systemctl stop etcd")
    try:
        lab.invoke("defrag-etcd").expect(1, "2 of 3 members are healthy")
    finally:
        host.run("systemctl start etcd")
    wait_until(lambda: lab.invoke("defrag-etcd").code == 0, "healthy again")
