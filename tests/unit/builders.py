"""Small resolved inventories for tests of what comes after loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from provision.inventory.membership_type import MembershipType
from provision.inventory.model import AlluxioEtcd, EtcdTls, Java, PageStore, Source
from provision.inventory.resolved import (
    AlluxioCluster,
    AlluxioMaster,
    AlluxioWorker,
    EtcdCluster,
    EtcdMember,
    Inventory,
    Machine,
)

SOURCE = Source(path=Path("a.tar.gz"), sha256="0" * 64)


def worker(name: str, host: str | None = None, port: int = 29999) -> AlluxioWorker:
    return AlluxioWorker(
        name=name,
        machine=Machine(host or name),
        hostname=host or name,
        rpc_port=port,
        heap="1g",
        direct_memory="1g",
        page_store=PageStore(dirs=["/pages"], sizes=["1GB"]),
        java_home=None,
        properties={},
        secret_properties={},
        env={},
    )


def master(name: str, host: str | None = None, **changed: Any) -> AlluxioMaster:
    values: dict[str, Any] = {
        "name": name,
        "machine": Machine(host or name),
        "hostname": host or name,
        "rpc_port": 19998,
        "journal_port": 19200,
        "java_home": None,
    }
    return AlluxioMaster(**{**values, **changed})


def alluxio(*workers: AlluxioWorker, **changed: Any) -> AlluxioCluster:
    values: dict[str, Any] = {
        "name": "c",
        "version": "313",
        "source": SOURCE,
        "java": Java(),
        "install_dir": "/opt/alluxio",
        "state_dir": "/var/lib/alluxio",
        "log_dir": "/var/log/alluxio",
        "user": "alluxio",
        "membership": MembershipType.ETCD,
        "etcd_login": AlluxioEtcd(),
        "etcd_endpoints": ("http://10.0.0.1:2379",),
        "failure_detection_timeout": 120,
        "start_timeout": 60,
        "workers": workers or (worker("w1"), worker("w2")),
    }
    return AlluxioCluster(**{**values, **changed})


def member(number: int, **changed: Any) -> EtcdMember:
    values: dict[str, Any] = {
        "name": f"infra{number}",
        "machine": Machine(f"10.0.0.{number}"),
        "address": f"10.0.0.{number}",
        "client_port": 2379,
        "peer_port": 2380,
        "data_dir": "/var/lib/etcd",
        "settings": {},
        "peer_tls": False,
        "client_tls": False,
    }
    return EtcdMember(**{**values, **changed})


def etcd(*members: EtcdMember, **changed: Any) -> EtcdCluster:
    values: dict[str, Any] = {
        "name": "c",
        "token": "c",
        "version": "3.6.16",
        "source": SOURCE,
        "install_dir": "/opt/etcd",
        "config_dir": "/etc/etcd",
        "user": "etcd",
        "tls": EtcdTls(peer=False),
        "members": members or tuple(member(i) for i in (1, 2, 3)),
    }
    return EtcdCluster(**{**values, **changed})


def inventory(cluster: AlluxioCluster | None = None, **changed: Any) -> Inventory:
    values: dict[str, Any] = {
        "path": Path("inventory.yml"),
        "cluster": "c",
        "parallel": 4,
        "etcd": etcd(),
        "alluxio": cluster or alluxio(),
    }
    return Inventory(**{**values, **changed})
