"""What a scratch member is asked for, on a real etcd: every key, Alluxio's names, whole values."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision import bounds
from provision.alluxio.membership import registrations
from provision.errors import Unhealthy
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.scratch import HostFault
from provision.plans.etcd.data import snapshot_proof
from provision.ssh.session import Fleet
from tests.component.conftest import Boot


def test_every_key_is_read_in_pages_that_shrink(
    boot: Boot, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "ANSWER", 1 << 20)
    with boot() as running, Etcd(running.cluster, fleet).any() as client:
        for n in range(100):
            client.put(f"{registrations.AUTHORIZED_ROOT}a/AUTHORIZED/{n:03}", b"x" * 50_000)
        client.put("/ServiceDiscovery/b/worker-1", "{}")
        client.put("/DHT/no-slash-after-it", "{}")
        client.put("/other/c/AUTHORIZED/1", "{}")
        client.put(b"\xff\xff", b"\0 any bytes")
        with Etcd(running.cluster, fleet).any() as narrow:
            (member,) = running.cluster.members
            given = snapshot_proof._Given(member, 10 << 20)
            assert snapshot_proof._read_all(narrow, given, b"own") == (104, {b"a", b"b"})
            # Five megabytes do not fit into one answer.
            snapshot_proof._require_text(narrow, Path("x.db"), given)
            # Each value counts: a file of one megabyte has no five.
            short = snapshot_proof._Given(member, 1 << 20)
            with pytest.raises(HostFault, match="more than the file has"):
                snapshot_proof._require_text(narrow, Path("x.db"), short)


@pytest.mark.parametrize("key", ["/DHT/a/AUTHORIZED/9", "/ServiceDiscovery/a/9"])
def test_a_zero_byte_in_a_workers_value_is_found(boot: Boot, fleet: Fleet, key: str) -> None:
    with boot() as running, Etcd(running.cluster, fleet).any() as client:
        client.put("/DHT/a/AUTHORIZED/1", "{}")
        client.put(key, b'{"State":"\0\0\0\0"}')
        given = snapshot_proof._Given(running.cluster.members[0], 1 << 20)
        with pytest.raises(Unhealthy, match="is damaged: it has zero bytes") as found:
            snapshot_proof._require_text(client, Path("x.db"), given)
    assert found.value.id == "snapshot-invalid"
    assert key in found.value.message
