"""show-inventory: every value in force, and where it came from."""

from __future__ import annotations

from pathlib import Path

from provision.inventory import provenance, read

TEXT = """\
etcd:
  version: 3.6.16
  source: {path: etcd.tar.gz, sha256: file:SUMS}
  client_port: 12379
  settings: {log-level: warn, pre-vote: true}
  members:
    infra0: {host: i0, address: 10.0.1.10, peer_port: 12380, settings: {log-level: debug}}
alluxio:
  version: 313
  source: {path: a.tar.gz, sha256: file:SUMS}
  java: {home: /usr/lib/jvm/java-11}
  secret_properties: {s3a.secretKey: {env: KEY}}
  workers:
    w[1-2]:
      host: w[1-2]
      heap: 8g
      secret_properties: {s3a.token: {file: token}}
"""


def rows(tmp_path: Path) -> dict[str, tuple[object, str]]:
    path = tmp_path / "lab.yml"
    path.write_text(TEXT)
    prefix = f"{path}:"
    return {row.path: (row.value, row.origin.replace(prefix, "")) for row in provenance(read(path))}


def test_origins(tmp_path: Path) -> None:
    found = rows(tmp_path)
    w1 = "alluxio.workers.w1"
    expected = {
        "cluster": ("DefaultAlluxioCluster", "default"),
        "etcd.version": ("3.6.16", "2:12"),
        "etcd.source.path": (str(tmp_path / "etcd.tar.gz"), "3:18"),
        "etcd.settings.pre-vote": (True, "5:41"),
        "etcd.members.infra0.host": ("i0", "7:20"),
        "etcd.members.infra0.address": ("10.0.1.10", "7:33"),
        "etcd.members.infra0.client_port": (12379, "etcd.client_port at 4:16"),
        "etcd.members.infra0.peer_port": (12380, "7:55"),
        "etcd.members.infra0.data_dir": ("/var/lib/etcd", "default"),
        "etcd.members.infra0.settings.log-level": ("debug", "7:84"),
        "etcd.members.infra0.settings.auto-compaction-retention": ("1h", "default"),
        "etcd.members.infra0.settings.pre-vote": (True, "etcd.settings.pre-vote at 5:41"),
        f"{w1}.host": ("w1", "range at 15"),
        f"{w1}.hostname": ("w1", f"{w1}.host at 15"),
        f"{w1}.heap": ("8g", "16:13"),
        f"{w1}.direct_memory": ("4g", "default"),
        f"{w1}.page_store.sizes": (["1GB"], "default"),
        f"{w1}.java_home": ("/usr/lib/jvm/java-11", "alluxio.java.home at 11:16"),
    }
    assert {path: found[path] for path in expected} == expected


def test_secrets_are_references(tmp_path: Path) -> None:
    found = rows(tmp_path)
    at = "alluxio.secret_properties.s3a.secretKey"
    assert found[f"alluxio.workers.w2.{at.removeprefix('alluxio.')}"] == (
        "env:KEY",
        f"{at} at 12:23",
    )
    value, _ = found["alluxio.workers.w2.secret_properties.s3a.token"]
    assert value == f"file:{tmp_path / 'token'}"


def test_paths_are_unique(tmp_path: Path) -> None:
    path = tmp_path / "lab.yml"
    path.write_text(TEXT)
    paths = [row.path for row in provenance(read(path))]
    assert len(paths) == len(set(paths))
