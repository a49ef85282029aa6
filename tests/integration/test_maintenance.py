"""A full database: NOSPACE, and the way out of it."""

from __future__ import annotations

import pytest

from provision.etcd.client import EtcdClient
from provision.etcd.failures import EtcdRefused

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
    done = lab.invoke("defrag-etcd", small, "--compact", "--format", "json").expect(0)
    for before, after in zip(done.json["before"], done.json["after"], strict=True):
        assert before["size"] > 10 << 20
        assert after["size"] < 5 << 20
        assert after["quota"] == 16 << 20
    titles = [step["title"] for step in done.json["steps"]]
    assert titles[0] == "compact"
    assert titles[-1] == f"defragment {lab.leader().name} (leader)"
    # Each member may have raised it before it heard of the others.
    lab.invoke("disarm-alarms", small).expect(0, "disarm NOSPACE")
    lab.invoke("disarm-alarms", small).expect(0, "there is no alarm")
    for host in lab.etcd:
        with lab.client(host) as client:
            client.quorum_write(host.name)
    lab.invoke("deploy-etcd").expect(0)


def test_refused_while_a_member_is_down(lab: Lab, cluster: None) -> None:
    host = next(h for h in lab.etcd if h != lab.leader())
    host.run("systemctl stop etcd")
    try:
        lab.invoke("defrag-etcd").expect(1, "2 of 3 members are healthy")
    finally:
        host.run("systemctl start etcd")
    wait_until(lambda: lab.invoke("defrag-etcd").code == 0, "healthy again")
