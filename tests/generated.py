"""Inventories of boundary paths, ports, names and settings, made by a number: always the same.

``tests/component/test_generated.py`` and ``tests/integration/test_generated.py`` try them.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from provision.errors import InventoryError
from provision.inventory.loader import load
from provision.inventory.resolved import Inventory
from tests.component.test_settings import tried

FOLDERS = (
    *("/var/lib/etcd", "/home/etcd/data", "/dev/shm/etcd", "/srv/a.b+c@d", "/data", "/run/etcd"),
    *("/mnt/disk1/etcd", "/opt/x/data", "/usr/local/etcd/data", "/etc/etcd2", "/var/cache/e"),
)
PORTS = (1, 80, 443, 1023, 1024, 2379, 2380, 19999, 32768, 65535)
BEATS = ((1, 5), (20, 10), (100, 10), (100, 20), (1000, 5))
CONFIG_DIRS = ("/etc/etcd", "/srv/conf", "/home/etcd/conf")
BACKUP_DIRS = ("/var/backups/etcd", "/home/b", "/srv/b+1")
PAGES = ("/var/lib/alluxio/pages", "/home/a/pages", "/dev/shm/pages", "/mnt/d1/p", "/srv/p@1")
STATE_DIRS = ("/var/lib/alluxio", "/home/a/state", "/dev/shm/state", "/srv/a.b")
LOG_DIRS = ("/var/log/alluxio", "/home/a/log", "/dev/shm/log")
ALLUXIO_USERS = ("alluxio", "_a-1")
PLAIN_PORTS = (2, 1022, 1025, 2378, 65534)
RPC_PORTS = (*PORTS, 29999)
#: As a host with such ports needs it (:mod:`provision.host.connection_ports`).
RESERVE = "echo {} >/proc/sys/net/ipv4/ip_local_reserved_ports".format(
    ",".join(str(port) for port in sorted({*RPC_PORTS, *PLAIN_PORTS}))
)
USERS = ("etcd", "etcd", "_e-1", "a" * 31)
TIMES = ("daily", "hourly", "*:0/15", "Mon..Fri *-*-* 03:00:00", "*-*-01 00:00:00 UTC", "yearly")
TOKENS = ("t", "a-b_c.d", "x" * 60)
CLUSTERS = ("c", "A.b-c_1", "x" * 64)
BOUNDARIES: Mapping[str, Sequence[Any]] = {
    **{"folder": FOLDERS, "config_dir": CONFIG_DIRS, "backup_dir": BACKUP_DIRS, "pages": PAGES},
    **{"state_dir": STATE_DIRS, "log_dir": LOG_DIRS, "port": PORTS, "rpc_port": RPC_PORTS},
    **{"plain": PLAIN_PORTS, "beat": BEATS, "user": USERS, "alluxio_user": ALLUXIO_USERS},
    **{"on_calendar": TIMES, "token": TOKENS, "cluster": CLUSTERS},
}


def drawn(number: int, only: int | None = None) -> dict[str, Any]:
    """The inventory with this number, as it stands in the file. The model may refuse it. It has one
    member or three, or as many as ``only``."""
    r = random.Random(number)
    count = only or r.choice((1, 1, 1, 3))
    form = r.choice(("10.1.0.{}", "10.1.0.{}", "fd00::{:x}", "infra{}.example.com"))
    ports = r.sample(PORTS, 2 * count)
    members: dict[str, Any] = {}
    for n in range(count):
        members[f"infra{n}"] = {"host": f"host{n}", "address": form.format(n + 1)}
        # On one machine each needs ports of its own: all listen on the loopback, too.
        members[f"infra{n}"] |= {"client_port": ports[2 * n], "peer_port": ports[2 * n + 1]}
    settings = tried("3.6", r.random() < 0.2)
    chosen = r.sample(sorted(settings), r.randint(0, len(settings)))
    etcd = _etcd(
        members,
        data_dir=r.choice(FOLDERS),
        config_dir=r.choice(CONFIG_DIRS),
        user=r.choice(USERS),
        cluster_token=r.choice(TOKENS),
        settings={
            # The model wants a quota in whole bytes, whatever etcd's file may have.
            key: r.choice((2 << 30, 8 << 30) if key == "quota-backend-bytes" else settings[key])
            for key in chosen
        },
        tls={"peer": r.random() < 0.7, "client": r.random() < 0.4, "pki_dir": "pki"},
    )
    if r.random() < 0.5:
        # An election of three takes up to two election-timeouts.
        beat, times = r.choice(((10, 50), (100, 5), (200, 10)) if count > 1 else BEATS)
        etcd["settings"] |= {"heartbeat-interval": beat, "election-timeout": times * beat}
    if etcd["tls"]["client"]:
        etcd["tls"] |= {"client_auth": r.random() < 0.5}
        # A member with a name listens at all addresses, and three are on one machine here.
        if r.random() < 0.7 and (count == 1 or "example" not in form):
            etcd["tls"]["plain_client_port"] = r.choice(PLAIN_PORTS)
    if r.random() < 0.5:
        etcd["backup"] = {"dir": r.choice(BACKUP_DIRS)}
        etcd["backup"] |= {"on_calendar": r.choice(TIMES), "keep": r.choice((1, 7, 10_000))}
    found: dict[str, Any] = {"cluster": r.choice(CLUSTERS), "etcd": etcd}
    # Alluxio has neither IPv6 nor TLS towards etcd.
    plain = not etcd["tls"]["client"] or "plain_client_port" in etcd["tls"]
    if ":" not in form and plain and r.random() < 0.8:
        found["alluxio"] = _alluxio(r)
    return found


def _alluxio(r: random.Random) -> dict[str, Any]:
    made = _worker(
        dirs=r.sample(PAGES, r.randint(1, 3)),
        state_dir=r.choice(STATE_DIRS),
        log_dir=r.choice(LOG_DIRS),
        user=r.choice(ALLUXIO_USERS),
        rpc_port=r.choice(RPC_PORTS),
    )
    made["page_store"]["sizes"] = [
        r.choice(("1GB", "10MB", "2TB")) for _ in made["page_store"]["dirs"]
    ]
    made["heap"] = r.choice(("512m", "4g", "64g"))
    if r.random() < 0.3:
        made["masters"] = {"m1": {"host": r.choice(("w1", "m1"))}}
    return made


def _etcd(members: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    source = {"path": "etcd.tar.gz", "sha256": "0" * 64}
    return {"version": "3.6.16", "source": source, "members": dict(members), **given}


def _worker(*, dirs: list[str], **given: Any) -> dict[str, Any]:
    return {
        "version": "313",
        "source": {"path": "alluxio.tar.gz", "sha256": "0" * 64},
        "page_store": {"dirs": dirs, "sizes": ["64MB" for _ in dirs]},
        "properties": {"alluxio.dora.client.ufs.root": "s3://bucket/path"},
        "workers": {"w1": {"host": "w1"}, "w2": {"host": "w2"}},
        **given,
    }


def boundaries() -> Iterator[dict[str, Any]]:
    """Inventories of one member and at most one worker in which each boundary value stands at
    least once, and each setting of etcd with each of its values."""
    # Each list at its own pace: a value comes round as often as there is room.
    turns = {name: itertools.cycle(values) for name, values in BOUNDARIES.items()}
    settings = [tried("3.6", former) for former in (False, True)]
    for n in range(13):
        # Alluxio has no IPv6 towards etcd.
        form = "fd00::1" if n % 8 == 3 else ("10.1.0.1", "infra1.example.com")[n % 2]
        client = n % 3 == 0
        # The model wants a quota in whole bytes, whatever etcd's file may have.
        given = {
            key: 2 << 30 if key == "quota-backend-bytes" else values[n // 2 % len(values)]
            for key, values in settings[n % 2].items()
        }
        member = {"host": "host0", "address": form}
        member |= {"client_port": next(turns["port"]), "peer_port": next(turns["port"])}
        beat, times = next(turns["beat"])
        etcd = _etcd(
            {"infra0": member},
            data_dir=next(turns["folder"]),
            config_dir=next(turns["config_dir"]),
            user=next(turns["user"]),
            cluster_token=next(turns["token"]),
            settings={**given, "heartbeat-interval": beat, "election-timeout": beat * times},
            tls={"peer": n % 2 == 0, "client": client, "pki_dir": "pki"},
            backup={
                "dir": next(turns["backup_dir"]),
                "on_calendar": next(turns["on_calendar"]),
                "keep": (1, 10_000)[n % 2],
            },
        )
        if client:
            etcd["tls"] |= {"client_auth": n % 2 == 0, "plain_client_port": next(turns["plain"])}
        found: dict[str, Any] = {"cluster": next(turns["cluster"]), "etcd": etcd}
        if ":" not in form:
            found["alluxio"] = _worker(
                dirs=[next(turns["pages"]), next(turns["pages"])],
                state_dir=next(turns["state_dir"]),
                log_dir=next(turns["log_dir"]),
                user=next(turns["alluxio_user"]),
                rpc_port=next(turns["rpc_port"]),
            )
        yield found


def accepted(given: Mapping[str, Any], folder: Path) -> Inventory | None:
    """The inventory, or None when the model refuses it."""
    folder.mkdir()
    for name in ("etcd.tar.gz", "alluxio.tar.gz"):
        (folder / name).touch()
    path = folder / "inventory.yml"
    path.write_text(json.dumps(given))
    try:
        return load(path)
    except InventoryError:
        return None
