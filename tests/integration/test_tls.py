"""TLS as the wire shows it, between members and towards clients."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.etcd.pki import own_ca
from tests import read_only

from .lab import NET, Host, Lab

PEER, CLIENT, PLAIN = 2380, 2379, 2381


@pytest.fixture(scope="module")
def secured(lab: Lab) -> Iterator[Path]:
    """An inventory with TLS for clients, too, and a plain listener; deployed."""
    lab.destroy()
    inventory = lab.inventory({"etcd": {"tls": {"client": True, "plain_client_port": PLAIN}}})
    lab.invoke("deploy-etcd", inventory).expect(
        0, f"endpoints: https://{NET}.11:2379,", f"; without TLS: http://{NET}.11:2381,"
    )
    yield inventory
    lab.destroy()


def trusting(lab: Lab, *, certificate: bool) -> ssl.SSLContext:
    """The side of a client that trusts the cluster's CA, with a certificate of it or without."""
    context = ssl.create_default_context(cafile=own_ca.ca_file(Path(lab.pki), Lab.name))
    if certificate:
        context.load_cert_chain(own_ca.home(Path(lab.pki), Lab.name) / own_ca.CLIENT)
    return context


def ask(host: Host, port: int, context: ssl.SSLContext | None) -> str:
    """The first line of the answer to `GET /version`; empty when it is hung up on."""
    with socket.create_connection((host.address, port), 5) as plain:
        stream = context.wrap_socket(plain, server_hostname=host.address) if context else plain
        stream.sendall(b"GET /version HTTP/1.0\r\n\r\n")
        return stream.recv(4096).decode().partition("\r\n")[0]


@pytest.mark.parametrize("port", [PEER, CLIENT])
def test_a_listener_wants_a_certificate_of_the_clusters_ca(
    lab: Lab, secured: Path, port: int
) -> None:
    for host in lab.etcd:
        assert ask(host, port, trusting(lab, certificate=True)).endswith("200 OK")
        with pytest.raises(ssl.SSLError, match="certificate required"):
            ask(host, port, trusting(lab, certificate=False))
        assert not ask(host, port, None).endswith("200 OK")
        anyone = ssl.create_default_context()
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(host, port, anyone)


def test_a_second_run_changes_nothing(lab: Lab, secured: Path) -> None:
    before = lab.snapshot()
    lab.invoke("deploy-etcd", secured).expect(0, "0 changed")
    assert lab.snapshot() == before


def test_workers_register_by_the_plain_listener(lab: Lab, secured: Path) -> None:
    lab.invoke("start-workers", secured).expect(0, "2 of 2 live")
    endpoints = ",".join(f"http://{host.address}:{PLAIN}" for host in lab.etcd)
    for host in lab.workers:
        site = host.read("/opt/alluxio/current/conf/alluxio-site.properties")
        assert f"alluxio.etcd.endpoints={endpoints}" in site.replace("\\", "")
    prefix = f"/ServiceDiscovery/{Lab.name}/"
    with lab.client(lab.etcd[0], PLAIN) as client:
        live = [json.loads(kv.value)["WorkerNetAddress"]["Host"] for kv in client.range(prefix)[1]]
    assert sorted(live) == [host.address for host in lab.workers]


def test_check_nodes_shows_until_when_each_certificate_is_good(lab: Lab, secured: Path) -> None:
    report = lab.invoke("check-nodes", secured, "--format", "json").expect(0).json
    for member in report["etcd"]["members"]:
        shown = {c["listener"]: c for c in member["certificates"]}
        assert set(shown) == {"client", "peer"}
        assert all(c["error"] is None and 360 <= c["days_left"] <= 365 for c in shown.values())
    lab.invoke("check-nodes", secured).expect(0, "2 workers: 2 LIVE")


@contextlib.contextmanager
def mounted_read_only(folder: Path) -> Iterator[None]:
    """Nobody can write to ``folder`` meanwhile, root neither."""
    root = [] if os.geteuid() == 0 else ["sudo"]
    subprocess.run([*root, "mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run([*root, "mount", "-o", "remount,bind,ro", folder], check=True)
        with pytest.raises(OSError, match="Read-only file system"):
            (folder / "new").touch()
        yield
    finally:
        subprocess.run([*root, "umount", folder], check=True)


LOOKS = [
    ("check-nodes",),
    ("status",),
    ("list-clusters",),
    ("logs", "etcd0"),
    ("deploy-etcd", "--dry-run"),
    ("add-member", "--dry-run"),
    ("rotate-certs", "--dry-run"),
    ("rotate-certs", "--ca", "--dry-run"),
]


def test_a_look_writes_nothing_on_this_machine(lab: Lab, secured: Path, tmp_path: Path) -> None:
    """The folder of the CA, without the tool's own certificate, is read-only, and then away."""
    lab.invoke("start-workers", secured).expect(0)
    pki = Path(lab.pki)
    own = own_ca.home(pki, Lab.name) / own_ca.CLIENT
    kept = own.read_bytes()
    folders = ("XDG_STATE_HOME", "XDG_CACHE_HOME", "TMPDIR")
    env = {name: str(tmp_path / name) for name in folders}
    for folder in env.values():
        Path(folder).mkdir()
    own.unlink()
    try:
        before = read_only.state(pki), read_only.state(tmp_path)
        with mounted_read_only(pki):
            for task, *options in LOOKS:
                lab.invoke(task, secured, *options, env=env).expect(0)
            options = ["--dry-run", "--exit-code"]
            lab.invoke("deploy-etcd", secured, *options, env=env).expect(
                1, "make this tool's own certificate", "1 would change"
            )
        assert (read_only.state(pki), read_only.state(tmp_path)) == before
        away = pki.rename(pki.with_name("away"))
        try:
            for task, *options in LOOKS:
                done = lab.invoke(task, secured, *options, env=env)
                assert done.code in range(4), f"{task}: {done.text}"
                assert not pki.exists(), task
            missing = "ca.crt is missing: deploy-etcd makes it"
            lab.invoke("check-nodes", secured, env=env).expect(1, missing)
            assert read_only.state(tmp_path) == before[1]
        finally:
            away.rename(pki)
        lab.invoke("deploy-etcd", secured).expect(0, f"create {own}", "1 changed")
        lab.invoke("deploy-etcd", secured).expect(0, "0 changed")
        assert ask(lab.etcd[0], CLIENT, trusting(lab, certificate=True)).endswith("200 OK")
    finally:
        if not own.exists():
            own.write_bytes(kept)
            own.chmod(0o600)


def test_without_client_auth_the_server_alone_has_a_certificate(lab: Lab) -> None:
    lab.destroy()
    tls = {"client": True, "client_auth": False}
    inventory = lab.inventory({"etcd": {"tls": tls}, "alluxio": None})
    lab.invoke("deploy-etcd", inventory).expect(0, f"endpoints: https://{NET}.11:2379,")
    for host in lab.etcd:
        assert ask(host, CLIENT, trusting(lab, certificate=False)).endswith("200 OK")
        with pytest.raises(ssl.SSLError, match="certificate required"):
            ask(host, PEER, trusting(lab, certificate=False))
    lab.destroy()
