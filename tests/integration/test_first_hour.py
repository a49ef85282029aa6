"""The README's ways from hosts to a cluster, typed as they stand, in a folder that has the tarballs
and nothing else. What differs from the README: names, the login, and a JDK, because the lab's hosts
have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import Endpoint
from tests import docs
from tests.docs import FIRST_HOUR, Reader

from .lab import NET, SSH, TEST_UNIT, Lab
from .release import ARTIFACTS, DOUBLE, JDK

pytestmark = [
    pytest.mark.usefixtures("clean"),
    pytest.mark.double("the hosts have less memory than the defaults want"),
]
ETCD = "etcd-v3.6.16-linux-amd64.tar.gz"
KEY = f"--user vagrant --key {SSH}/id_ed25519 --java {JDK}"
HOSTS = {
    "host1,host2,host3": f"'{NET}.[11-13]'",
    "'worker[1-20].example.com'": f"'{NET}.[21-22]'",
    "--user deploy": KEY,
    "s3://bucket/path": "/srv",
}
INI = f"""\
[etcd]
infra0 ansible_host={NET}.11
infra1 ansible_host={NET}.12
infra2 ansible_host={NET}.13

[cache]
node1 ansible_host={NET}.21
node2 ansible_host={NET}.22

[all:vars]
ansible_user=vagrant
ansible_ssh_private_key_file={SSH}/id_ed25519
ansible_become=yes
"""
#: An etcd as somebody starts it by hand.
BY_HAND = f"""
mkdir -p /srv/etcd
tar -xzf /srv/etcd.tar.gz -C /srv/etcd --strip-components=1
systemd-run -q --unit {TEST_UNIT} /srv/etcd/etcd --name theirs --data-dir /srv/etcd/data \\
  --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://{NET}.11:2379
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the tarballs are, with what their publishers say of etcd's."""
    tarball = ARTIFACTS / ETCD
    if not tarball.exists():
        pytest.skip(f"the README names {ETCD}, and the lab has none")
    for name in (ETCD, DOUBLE, JDK):
        (tmp_path / name).symlink_to(ARTIFACTS / name)
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  {ETCD}\n")
    return tmp_path


@pytest.fixture
def newcomer(folder: Path) -> Reader:
    """Somebody with the README open, on a terminal."""
    home = folder / "home"
    home.mkdir()
    reader = Reader("README.md", FIRST_HOUR, folder, HOME=str(home), XDG_STATE_HOME="")
    reader.terminal = True
    return reader


def inventory(folder: Path) -> str:
    return (folder / "inventory" / "inventory.yml").read_text()


def begins(newcomer: Reader, first: str, hosts: Mapping[str, str]) -> None:
    """The inventory is written, and nothing in it is left to edit."""
    newcomer.skip_to(first)
    said = newcomer.types(first, **hosts)
    assert "nothing is left to edit; next: alluxio-provision trust-hosts" in said
    assert f"{DOUBLE}, sha256 " in said
    assert "EDIT" not in inventory(newcomer.folder)


def test_from_bare_servers(lab: Lab, newcomer: Reader) -> None:
    lab.clear()
    begins(newcomer, docs.SERVERS, HOSTS)
    assert "5 added" in newcomer.types("alluxio-provision trust-hosts", keys="yes\n")
    printed = newcomer.types("alluxio-provision deploy-etcd --dry-run")
    assert "nothing was changed (--dry-run)" in printed
    assert "2 workers: 2 LIVE" in printed


def test_with_an_etcd_that_is_there(lab: Lab, newcomer: Reader, folder: Path) -> None:
    lab.clear()
    there = lab.etcd[0]
    there.put("/srv/etcd.tar.gz", (ARTIFACTS / ETCD).read_bytes())
    there.run(BY_HAND)
    hosts = {k: v for k, v in HOSTS.items() if not k.startswith("host")}
    try:
        newcomer.skip_to(docs.AN_ETCD)
        own = {**hosts, "http://10.0.1.10:2379": f"http://{NET}.11:2379"}
        printed = newcomer.types(docs.AN_ETCD, keys="yes\n", **own)
        assert "EDIT" not in inventory(folder)
        assert "2 workers: 2 LIVE" in printed
        with EtcdClient(Endpoint(there.address, 2379)) as client:
            _, found = client.range("/DHT/Reports/AUTHORIZED/")
        assert len(found) == 2
    finally:
        there.run(f"systemctl stop {TEST_UNIT}; rm -rf /srv/etcd /srv/etcd.tar.gz", check=False)
        lab.wipe()


def test_from_ansible(lab: Lab, newcomer: Reader, folder: Path) -> None:
    lab.clear()
    (folder / "hosts.ini").write_text(INI)
    begins(newcomer, docs.ANSIBLE, {"s3://bucket/path": f"/srv --java {JDK}"})
    newcomer.starts_again()
    newcomer.skip_to("alluxio-provision trust-hosts")
    assert "5 added" in newcomer.types("alluxio-provision trust-hosts", keys="yes\n")
    printed = newcomer.types("alluxio-provision deploy-etcd --dry-run")
    assert "2 workers: 2 LIVE" in printed
    assert "node1" in printed
