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


def rows(tmp_path: Path, text: str = TEXT) -> dict[str, tuple[object, str]]:
    path = tmp_path / "lab.yml"
    path.write_text(text)
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


INHERITED = """\
ssh:
  user: deploy
  port: 2222
etcd:
  version: 3.6.16
  source: {path: etcd.tar.gz, sha256: file:SUMS}
  releases: {3.7.0: {path: new.tar.gz, sha256: file:SUMS}}
  peer_port: 12380
  data_dir: /data/etcd
  members:
    infra0: {host: i0, ssh: {port: 22, sudo_password: {ask: true}}}
alluxio:
  version: 313
  source: {path: a.tar.gz, sha256: file:SUMS}
  rpc_port: 31000
  heap: 2g
  direct_memory: 3g
  page_store:
    dirs: [/pages]
    sizes: [5GB]
  properties: {alluxio.x: 1}
  env: {X: a}
  masters:
    m: {host: mh}
  workers:
    w: {host: wh, properties: {alluxio.y: 2}}
"""


def test_the_sans_of_a_member(tmp_path: Path) -> None:
    sans = "etcd.members.infra0.sans"
    assert sans not in rows(tmp_path)
    text = TEXT.replace("{host: i0,", "{host: i0, sans: [vip, 10.0.9.1],")
    assert rows(tmp_path, text)[sans] == (["vip", "10.0.9.1"], "7:24")


def test_all_that_a_host_has_from_its_group(tmp_path: Path) -> None:
    found = rows(tmp_path, INHERITED)

    def of(host: str) -> dict[str, tuple[object, str]]:
        return {p.removeprefix(host): row for p, row in found.items() if p.startswith(host)}

    ssh = {"ssh.user": ("deploy", "ssh.user at 2:9"), "ssh.port": (2222, "ssh.port at 3:9")}
    timeout = {"ssh.connect_timeout": (10.0, "default")}
    member = of("etcd.members.infra0.")
    assert {k: v for k, v in member.items() if not k.startswith("settings.")} == {
        "host": ("i0", "11:20"),
        **ssh,
        **timeout,
        "ssh.port": (22, "11:36"),
        "ssh.sudo_password": ("asked for on the terminal", "11:40"),
        "address": ("i0", "etcd.members.infra0.host at 11:20"),
        "client_port": (2379, "default"),
        "peer_port": (12380, "etcd.peer_port at 8:14"),
        "data_dir": ("/data/etcd", "etcd.data_dir at 9:13"),
    }
    assert of("alluxio.masters.m.") == {
        "host": ("mh", "24:15"),
        **ssh,
        **timeout,
        "hostname": ("mh", "alluxio.masters.m.host at 24:15"),
    }
    assert of("alluxio.workers.w.") == {
        "host": ("wh", "26:15"),
        **ssh,
        **timeout,
        "hostname": ("wh", "alluxio.workers.w.host at 26:15"),
        "rpc_port": (31000, "alluxio.rpc_port at 15:13"),
        "heap": ("2g", "alluxio.heap at 16:9"),
        "direct_memory": ("3g", "alluxio.direct_memory at 17:18"),
        "page_store.dirs": (["/pages"], "alluxio.page_store.dirs at 19:5"),
        "page_store.sizes": (["5GB"], "alluxio.page_store.sizes at 20:5"),
        "java_home": (None, "default"),
        "properties.alluxio.x": ("1", "alluxio.properties.alluxio.x at 21:27"),
        "properties.alluxio.y": ("2", "26:43"),
        "env.X": ("a", "alluxio.env.X at 22:12"),
    }
    assert of("etcd.releases.3.7.0.") == {
        "path": (str(tmp_path / "new.tar.gz"), "7:28"),
        "url": (None, "default"),
        "package": (False, "default"),
        "sha256": ("file:SUMS", "7:48"),
    }
    assert found["alluxio.env.X"] == ("a", "22:12")
    assert found["alluxio.master_heap"] == ("4g", "default")  # behind the masters in the model


def test_etcd_alone(tmp_path: Path) -> None:
    found = rows(tmp_path, INHERITED[: INHERITED.index("alluxio:")])
    assert found["etcd.members.infra0.host"] == ("i0", "11:20")
    assert not any(path.startswith("alluxio.") for path in found)


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
