"""What application hosts are given: no secret, nothing of a worker's own, no host contacted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired, scopes
from provision.errors import UsageError
from provision.inventory.membership_type import MembershipType
from provision.inventory.model import AlluxioEtcd, Secret
from provision.inventory.resolved import AlluxioCluster
from provision.plans.alluxio import client_config
from tests.unit import builders
from tests.unit.test_render import load_properties


@pytest.fixture
def alluxio(monkeypatch: pytest.MonkeyPatch) -> AlluxioCluster:
    for name in ("ETCD_PASSWORD", "S3_KEY"):
        monkeypatch.setenv(name, "hunter2")
    return builders.alluxio(
        etcd_endpoints=("http://a:2379", "http://b:2379"),
        etcd_login=AlluxioEtcd(username="alluxio", password=Secret(env="ETCD_PASSWORD")),
        properties={
            "alluxio.dora.client.ufs.root": "s3://bucket/path",
            "alluxio.user.file.replication.max": 2,
            "alluxio.worker.data.port": 30001,
            "alluxio.worker.container.hostname": "pod",
            "alluxio.worker.data.hostname": "w9",
            "alluxio.underfs.s3.region": "eu-west-1",
            "alluxio.dora.worker.metastore.rocksdb.dir": "/data/metastore",
            "alluxio.user.netty.data.transmission.enabled": True,
            "alluxio.worker.page.store.page.size": "2MB",
            "alluxio.master.journal.type": "EMBEDDED",
        },
        secret_properties={"s3a.secretKey": Secret(env="S3_KEY")},
    )


def site(alluxio: AlluxioCluster) -> tuple[dict[str, str], str]:
    text = client_config.of(alluxio).files["alluxio-site.properties"]
    return load_properties(text), text


@pytest.mark.parametrize("kind", [MembershipType.ETCD, MembershipType.SERVICE_REGISTRY])
def test_by_way_of_etcd(alluxio: AlluxioCluster, kind: MembershipType) -> None:
    alluxio = replace(alluxio, membership=kind)
    assert list(client_config.of(alluxio).files) == ["alluxio-site.properties"]
    properties, text = site(alluxio)
    assert properties == {
        **desired.master_addresses(alluxio),
        "alluxio.cluster.name": "c",
        "alluxio.master.hostname": "localhost",
        "alluxio.worker.membership.manager.type": kind.value,
        "alluxio.etcd.endpoints": "http://a:2379,http://b:2379",
        "alluxio.etcd.username": "alluxio",
        "alluxio.dora.client.ufs.root": "s3://bucket/path",
        "alluxio.user.file.replication.max": "2",
        "alluxio.master.journal.type": "EMBEDDED",
        "alluxio.underfs.s3.region": "eu-west-1",
        "alluxio.user.netty.data.transmission.enabled": "true",
        "alluxio.worker.data.port": "30001",
    }
    assert "# alluxio.etcd.password is a secret" in text
    assert "the variable ETCD_PASSWORD" in text
    assert "# s3a.secretKey is a secret" in text
    assert "hunter2" not in text


def test_with_static_the_workers_and_their_ports(alluxio: AlluxioCluster) -> None:
    alluxio = replace(alluxio, membership=MembershipType.STATIC)
    properties, text = site(alluxio)
    assert properties["alluxio.worker.rpc.port"] == "29999"
    assert properties["alluxio.worker.data.port"] == "30001"
    assert not [key for key in properties if "etcd" in key]
    assert "alluxio.etcd" not in text
    assert "#   w1\n#   w2\n" in text
    assert client_config.of(alluxio).files["workers"].splitlines()[1:] == ["w1", "w2"]


def test_with_static_a_client_has_every_port_of_a_worker(alluxio: AlluxioCluster) -> None:
    port = "alluxio.worker.web.port"  # by its scope, of no interest to a client
    several = replace(alluxio, properties={**alluxio.properties, port: 30002})
    assert port not in site(several)[0]
    static = replace(several, membership=MembershipType.STATIC)
    assert site(static)[0][port] == "30002"


def test_static_has_one_port_for_all(alluxio: AlluxioCluster) -> None:
    several = (builders.worker("w1"), builders.worker("w2", port=31000))
    odd = replace(alluxio, membership=MembershipType.STATIC, workers=several)
    (warning,) = client_config.of(odd).warnings
    assert warning.what.startswith("w2 has another RPC port than 29999")
    assert client_config.of(replace(odd, membership=MembershipType.ETCD)).warnings == ()


def test_masters_are_named(alluxio: AlluxioCluster) -> None:
    several = tuple(builders.master(f"m{n}") for n in range(3))
    properties, _ = site(replace(alluxio, masters=several))
    assert properties["alluxio.master.rpc.addresses"] == "m0:19998,m1:19998,m2:19998"


def test_written_once(alluxio: AlluxioCluster, tmp_path: Path) -> None:
    config = client_config.of(replace(alluxio, membership=MembershipType.STATIC))
    folder = tmp_path / "new" / "conf"
    assert [p.name for p in client_config.write(config, folder)] == list(config.files)
    assert client_config.write(config, folder) == []
    assert {p.name: p.read_text() for p in folder.iterdir()} == dict(config.files)


def test_a_file_of_someone_elses_is_left_alone(alluxio: AlluxioCluster, tmp_path: Path) -> None:
    (tmp_path / "alluxio-site.properties").write_text("mine\n")
    with pytest.raises(UsageError) as caught:
        client_config.write(client_config.of(alluxio), tmp_path)
    assert caught.value.problems[0].what == "this tool did not write this file"
    assert (tmp_path / "alluxio-site.properties").read_text() == "mine\n"
    with pytest.raises(UsageError, match="cannot be written"):
        client_config.write(client_config.of(alluxio), tmp_path / "alluxio-site.properties")


@pytest.mark.parametrize(
    ("key", "good"),
    [
        ("alluxio.user.file.readtype.default", True),  # scope CLIENT
        ("alluxio.worker.rpc.port", True),  # ALL
        ("alluxio.worker.page.store.page.size", False),
        ("alluxio.worker.page.store.dirs", False),
        ("alluxio.worker.hostname", False),
        ("alluxio.worker.data.bind.host", False),
        ("alluxio.worker.identity.uuid", False),
        ("alluxio.worker.s3.async.heavy.pool.queue.size", False),  # SERVER
        ("alluxio.underfs.s3.endpoint", True),  # SERVER, but the client's fallback reads it
        ("s3a.accessKeyId", True),
        ("alluxio.s3.rest.authentication.enabled", False),  # MASTER
        ("alluxio.master.web.port", False),
        ("alluxio.of.another.release", True),
    ],
)
def test_what_clients_read(key: str, good: bool) -> None:
    assert scopes.is_for_clients(key) is good


def test_a_property_that_the_release_does_not_have_is_kept_and_said_once(
    alluxio: AlluxioCluster,
) -> None:
    assert client_config.of(alluxio).warnings == ()
    odd = {"alluxio.master.mount.table.option.x": 1, "alluxio.user.typo": 2}
    more = replace(alluxio, properties={**alluxio.properties, **odd})
    config = client_config.of(more)
    (warning,) = config.warnings
    assert (warning.id, warning.severity) == ("property-unknown", "warning")
    assert warning.what == f"Alluxio 313 has no property {', '.join(odd)}"
    assert load_properties(config.files["alluxio-site.properties"])["alluxio.user.typo"] == "2"
