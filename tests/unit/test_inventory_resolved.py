"""What an inventory comes to, whole: every value in its place, by a text that is committed.

After a wanted change: python -m tests.unit.test_inventory_resolved
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from provision.errors import UsageError
from provision.inventory import load, model
from provision.inventory.membership_type import MembershipType
from tests.unit import builders
from tests.unit import test_inventory_external as external
from tests.unit import test_inventory_loader as loader
from tests.unit import test_kubernetes as kubernetes

RESOLVED = Path(__file__).parent / "data" / "inventory-resolved.txt"
#: Every value another one than the default, the relative paths relative.
FULL = """\
cluster: Full
other_clusters: [Second]
parallel: 7
ssh:
  user: admin
  port: 2222
  key: keys/id
  known_hosts: keys/known
  jump: gate@bastion:22
  sudo_password: {file: secrets/sudo}
  key_passphrase: {file: secrets/key}
  connect_timeout: 4.5
etcd:
  version: 3.5.21
  source: {path: etcd.tar.gz, sha256: file:sums/SUMS}
  releases:
    3.6.5: {url: "https://example.com/etcd-3.6.5.tar.gz", sha256: file:sums/SUMS}
  cluster_token: token
  install_dir: /srv/etcd
  config_dir: /etc/etcd-full
  data_dir: /srv/etcd-data
  user: etcduser
  client_port: 12379
  peer_port: 12380
  tls: {client: true, plain_client_port: 12381, ca: external, ca_bundle: ca.pem, pki_dir: own/pki}
  auth: {enabled: true, root_password: {file: secrets/root}}
  backup: {dir: /srv/backups, keep: 3, on_calendar: hourly}
  settings: {snapshot-count: 5000, log-level: warn}
  members:
    infra0: {host: infra0.example.com, address: 10.0.1.10, sans: [vip.example.com, "fd00::7"]}
    infra1:
      host: infra1.example.com
      ssh: {user: other, port: 22, key: keys/other, jump: none}
      client_port: 22379
      peer_port: 22380
      data_dir: /srv/other-data
      settings: {log-level: debug}
    infra2: {host: infra2.example.com}
alluxio:
  version: 313
  source: {path: alluxio.tar.gz, sha256: file:sums/SUMS}
  install_dir: /srv/alluxio
  state_dir: /srv/alluxio-state
  log_dir: /srv/alluxio-log
  user: alluser
  membership: ETCD
  etcd: {username: workers, password: {file: secrets/workers}}
  failure_detection_timeout: 17
  start_timeout: 71
  java: {source: {path: jdk.tar.gz, sha256: file:sums/SUMS}, versions: [17], install_dir: /srv/java}
  heap: 2g
  direct_memory: 3g
  rpc_port: 39999
  page_store: {dirs: [/srv/pages], sizes: [5GB]}
  properties:
    alluxio.a: 1
    alluxio.master.rpc.port: 19500
    alluxio.master.embedded.journal.port: 19501
    alluxio.master.web.port: 19502
  secret_properties: {a.secret: {file: secrets/a}}
  env: {A: shared}
  master_heap: 5g
  masters:
    master0: {host: master0.example.com}
    master1: {host: master1.example.com, hostname: m1, ssh: {user: other}}
  workers:
    worker0: {host: worker0.example.com}
    worker1:
      host: worker1.example.com
      hostname: w1
      rpc_port: 39990
      heap: 4g
      direct_memory: 6g
      page_store: {dirs: [/a, /b], sizes: [1GB, 2GB]}
      properties: {alluxio.a: 2}
      secret_properties: {b.secret: {file: secrets/b}}
      env: {A: own, B: own}
"""
KUBERNETES = """\
kubernetes:
  chart: 0.7.0
  release: cache
  namespace: data
  kubectl: [k3s, kubectl]
  kubeconfig: kube/config
  context: admin@kube
  image: registry.example.com/alluxio
  image_tag: own
  image_pull_secrets: [pull]
  service_account: alluxio
  dataset_path: s3://bucket/own
  credentials: {s3a.secretKey: {file: secrets/s3}}
  secrets: {s3: /etc/s3}
  properties: {alluxio.a: 3}
  jvm_options: [-Da=b]
  worker: {count: 5, heap: 6g, direct_memory: 7g, env: {A: pods}, jvm_options: [-Dc=d]}
  page_store: {type: hostPath, host_path: /srv/pages, size: 8Gi}
"""
CHART_S_ETCD = """\
kubernetes:
  dataset_path: s3://bucket/own
  worker: {requests: {cpu: 2, memory: 9Gi}, limits: {cpu: 4, memory: 10Gi}}
  etcd: {replicas: 1, size: 4Gi, storage_class: fast}
"""
INVENTORIES = {
    "the smallest": loader.BASE,
    "every value": FULL,
    "a Java that is there": loader.edited(
        (
            "  workers:",
            "  java: {home: /srv/jdk}\n  masters: {m0: {host: m0}, m1: {host: w1}}\n  workers:",
        ),
        ("worker2.example.com", "w1\n      java_home: /srv/own"),
    ),
    "authentication that is off": FULL.replace("auth: {enabled: true", "auth: {enabled: false"),
    "external etcd": external.BASE,
    "external etcd alone": external.BASE[: external.BASE.index("alluxio:")],
    "Kubernetes": kubernetes.BASE,
    "Kubernetes, every value": FULL + KUBERNETES,
    "Kubernetes with an etcd of its own": FULL + CHART_S_ETCD,
    "Kubernetes with external etcd": external.BASE + "kubernetes: {dataset_path: s3://b/p}\n",
    "Kubernetes with an etcd of its own beside an external one": external.BASE
    + "kubernetes: {dataset_path: s3://b/p, etcd: {enabled: true}}\n",
}


def lines(value: Any, at: str = "") -> Iterator[str]:
    """``value`` as lines of place and text; what is as ever is left out."""
    if is_dataclass(value):
        for field in fields(value):
            yield from lines(getattr(value, field.name), f"{at}.{field.name}")
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        for name, inner in value._asdict().items():
            yield from lines(inner, f"{at}.{name}")
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from lines(getattr(value, name), f"{at}.{name}")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from lines(inner, f"{at}[{key}]")
    elif isinstance(value, tuple | list) and value:
        for place, inner in enumerate(value):
            yield from lines(inner, f"{at}[{place}]")
    else:
        plain = value.value if isinstance(value, Enum) else value
        yield f"{at} = {str(plain) if isinstance(plain, Path) else plain!r}"


def resolved(folder: Path) -> str:
    found = []
    (folder / "keys").mkdir()
    for name in ("id", "known", "other"):
        (folder / "keys" / name).touch()
    for title, text in INVENTORIES.items():
        path = folder / "lab.yml"
        path.write_text(text, encoding="utf-8")
        found += [f"== {title}", *lines(load(path))]
    return ("\n".join(found) + "\n").replace(str(folder), "FOLDER")


def test_every_value_is_where_it_was(tmp_path: Path) -> None:
    assert resolved(tmp_path).splitlines() == RESOLVED.read_text(encoding="utf-8").splitlines()


def test_the_membership_types_are_those_of_the_file_and_read_as_their_words() -> None:
    words = model.Alluxio.model_json_schema()["properties"]["membership"]["enum"]
    assert [kind.value for kind in MembershipType] == words
    assert [f"{kind} {kind!s}" for kind in MembershipType] == [f"{w} {w}" for w in words]
    assert json.dumps(list(MembershipType)) == json.dumps(words)


def test_each_membership_type_keeps_its_workers_in_one_place() -> None:
    in_etcd = [kind for kind in MembershipType if kind.in_etcd]
    assert in_etcd == [MembershipType.ETCD, MembershipType.SERVICE_REGISTRY]
    assert [kind for kind in MembershipType if kind.permanent_keys] == [MembershipType.ETCD]
    assert [kind for kind in MembershipType if kind.in_file] == [MembershipType.STATIC]
    assert [kind for kind in MembershipType if kind.used_by_clients] == in_etcd


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        RESOLVED.write_text(resolved(Path(temporary)), encoding="utf-8")


def test_a_member_is_found_by_its_name() -> None:
    cluster = builders.etcd()
    assert cluster.member("infra2") is cluster.members[1]
    with pytest.raises(UsageError, match=r"'infra9' is no etcd member \(there: infra1, ") as caught:
        cluster.member("infra9")
    assert caught.value.id == "name-unknown"


def test_a_worker_is_found_by_its_name() -> None:
    alluxio = builders.alluxio(builders.worker("w1"), builders.worker("w2"))
    assert alluxio.worker("w2") is alluxio.workers[1]
    with pytest.raises(UsageError, match=r"'w9' is no worker \(there: w1, w2\)") as caught:
        alluxio.worker("w9")
    assert caught.value.id == "name-unknown"
