"""Certificates, the CA and peer TLS changed under a cluster that takes writes all the time."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.x509 import load_pem_x509_certificate

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdError
from provision.etcd.api.values import Endpoint
from provision.etcd.pki import certificates as x509
from provision.etcd.pki import keyfiles, own_ca

from .lab import LAB, REPO, Host, Lab, wait_until

PEER_CERTIFICATE = "/etc/etcd/pki/peer.crt"

pytestmark = pytest.mark.usefixtures("clean")


@contextmanager
def writing(lab: Lab) -> Iterator[None]:
    """A client that writes through every member; no write that was acknowledged may be lost."""
    acknowledged: set[str] = set()
    done = threading.Event()

    def write(host: Host) -> None:
        number = 0
        while not done.wait(0.01):
            with EtcdClient(Endpoint(host.address, 2379), timeout=1) as client:
                try:
                    while not done.wait(0.01):
                        number += 1
                        key = f"/written/{host.name}/{number}"
                        client.put(key, "x")
                        acknowledged.add(key)
                except EtcdError:
                    pass

    threads = [threading.Thread(target=write, args=(host,)) for host in lab.etcd]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert len(acknowledged) > 50
    for host in lab.etcd:
        with lab.client(host) as client:
            there = {kv.key.decode() for kv in client.range("/written/", keys_only=True)[1]}
        assert acknowledged <= there


def pids(lab: Lab) -> list[int]:
    return [host.main_pid("etcd.service") for host in lab.etcd]


def certificates(lab: Lab) -> list[str]:
    return [host.read(PEER_CERTIFICATE) for host in lab.etcd]


def expected_ca(lab: Lab) -> str:
    return own_ca.ca_file(Path(lab.pki), "AlxpLab").read_text().strip()


def test_peer_tls_is_turned_on_under_a_writer_and_never_off_by_accident(lab: Lab) -> None:
    plain = lab.inventory({"etcd": {"tls": {"peer": False}}})
    lab.invoke("deploy-etcd", plain).expect(0)
    with writing(lab):
        run = lab.start("deploy-etcd")
        run.wait_for(r"\[2/\d\]")
        run.kill()
        run = lab.start("deploy-etcd")
        run.wait_for("tell the cluster")
        run.kill()
        lab.invoke("deploy-etcd").expect(0, "listens by TLS only")
    with lab.client(lab.etcd[0]) as client:
        urls = [url for m in client.member_list() for url in m.peer_urls]
    assert all(url.startswith("https://") for url in urls)
    lab.invoke("deploy-etcd").expect(0, "0 changed")
    lab.invoke("deploy-etcd", plain).expect(3, "nothing turns it off again")


def test_new_leaves_need_no_restart(lab: Lab) -> None:
    before, running = certificates(lab), pids(lab)
    with writing(lab):
        lab.invoke("rotate-certs").expect(0, "the key is made on the host", "4 changed")
    assert all(old != new for old, new in zip(before, certificates(lab), strict=True))
    assert pids(lab) == running
    lab.invoke("rotate-certs", None, "--limit", "etcd1").expect(0, "1 changed")
    lab.invoke("deploy-etcd").expect(0, "0 changed")


def test_a_new_ca_goes_on_where_a_killed_run_has_left_it(lab: Lab) -> None:
    old = expected_ca(lab)
    with writing(lab):
        for line in ("etcd1 trusts the old and the new CA", "renew etcd1", "etcd1 trusts the new"):
            run = lab.start("rotate-certs", None, "--ca")
            run.wait_for(line)
            run.kill()
            # What is under way is neither undone nor in the way.
            lab.invoke("deploy-etcd").expect(0)
        lab.invoke("rotate-certs", None, "--ca").expect(0, "retire the old CA")
    new = expected_ca(lab)
    assert new != old
    for host in lab.etcd:
        assert host.read("/etc/etcd/pki/ca.crt") == new
    lab.invoke("deploy-etcd").expect(0, "0 changed")
    seen = lab.invoke("check-nodes", None, "--format", "json").json
    for member in seen["etcd"]["members"]:
        assert [c["error"] for c in member["certificates"]] == [None]


def test_a_host_without_openssl_is_sent_its_key(lab: Lab) -> None:
    host = lab.etcd[2]
    host.run("mv /usr/bin/openssl /usr/bin/openssl.away")
    try:
        done = lab.invoke("rotate-certs", None, "--limit", host.name)
        done.expect(0, "made on this machine: no openssl there", "1 changed")
    finally:
        host.run("mv /usr/bin/openssl.away /usr/bin/openssl")
    assert host.run("stat -c '%a %U' /etc/etcd/pki/peer.key") == "640 root"


TLS = {"alluxio": None, "etcd": {"tls": {"peer": True, "client": True, "client_auth": True}}}
LONG_AGO = x509.now_utc() - timedelta(days=20)


ETCDCTL = """ETCDCTL_API=3 /opt/etcd/current/etcdctl --endpoints=https://127.0.0.1:2379 \
  --cacert=/etc/etcd/pki/ca.crt --cert=/etc/etcd/pki/server.crt --key=/etc/etcd/pki/server.key"""


def over(lab: Lab, hosts: Sequence[Host], ca: x509.Authority, trust: bytes = b"") -> None:
    """Certificates that expired days ago, also that of the tool; then etcd starts by them."""
    own_ca.renew_client(Path(lab.pki), "AlxpLab", ca, 5, now=LONG_AGO)
    for host in hosts:
        for kind in ("peer", "server"):
            pair = x509.leaf(ca, host.name, (host.address,), days=5, now=LONG_AGO)
            path = f"/etc/etcd/pki/{kind}"
            host.put("/root/pair.crt", pair.cert_pem)
            host.put("/root/pair.key", pair.key_pem)
            host.run(f"cat /root/pair.crt >{path}.crt; cat /root/pair.key >{path}.key")
        if trust:
            host.put("/root/pair.crt", trust)
            host.run("cat /root/pair.crt >/etc/etcd/pki/ca.crt")
        host.run("rm /root/pair.*; systemctl restart --no-block etcd")


def is_cut_off(host: Host) -> bool:
    """etcd says that it is ready when it has found a leader."""
    unit = host.show("etcd.service", "ActiveState", "SubState")
    return unit == {"ActiveState": "activating", "SubState": "start"}


def are_cut_off(hosts: Sequence[Host]) -> None:
    wait_until(lambda: all(map(is_cut_off, hosts)), f"{hosts} are cut off")


def test_certificates_that_have_expired_are_renewed_without_a_restart(lab: Lab) -> None:
    """Of one member and of all, at both listeners; and the tool's own."""
    inventory = lab.inventory(TLS)
    lab.invoke("deploy-etcd", inventory).expect(0)
    ca = own_ca.load_ca(Path(lab.pki), "AlxpLab")
    for count in (1, 3):
        hosts = lab.etcd[-count:]
        over(lab, hosts, ca)
        are_cut_off(hosts)
        running = pids(lab)
        titles = [f"renew {host}: its certificate has expired" for host in hosts]
        lab.invoke("rotate-certs", inventory).expect(0, *titles, "7 changed")
        assert pids(lab) == running
        assert not any(map(is_cut_off, hosts))
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")


def test_a_ca_that_has_expired_is_replaced_in_one_outage(lab: Lab) -> None:
    inventory = lab.inventory(TLS)
    lab.invoke("deploy-etcd", inventory).expect(0)
    lab.etcd[0].run(f"{ETCDCTL} put /kept x")
    home = own_ca.home(Path(lab.pki), "AlxpLab")
    key = keyfiles.load_key(home / own_ca.CA_KEY)
    old = x509.self_signed("AlxpLab etcd CA", key, 10, LONG_AGO)
    keyfiles.replace_file(home / own_ca.CA_CERTIFICATE, old, 0o644)
    ca = own_ca._load(home, x509.now_utc(), expired=True)
    over(lab, lab.etcd, ca, old)
    are_cut_off(lab.etcd)
    remedy = "invoke rotate-certs --ca makes a new CA"
    lab.invoke("deploy-etcd", inventory).expect(2, remedy, "[ca-expired]")
    lab.invoke("rotate-certs", inventory).expect(2, remedy, "[ca-expired]")
    lab.invoke("check-nodes", inventory).expect(1, remedy)
    lab.invoke("rotate-certs", inventory, "--ca", "--dry-run").expect(0, "OUTAGE: all members")
    lab.invoke("rotate-certs", inventory, "--ca").expect(2, "say --yes-outage and its name")
    assert not (home / own_ca.NEXT).exists()
    agreed = ("--ca", "--yes-outage", "AlxpLab")
    run = lab.start("rotate-certs", inventory, *agreed)
    run.wait_for("OUTAGE")
    run.kill()
    lab.invoke("rotate-certs", inventory, *agreed).expect(0, "goes to retired/expired-")
    assert expected_ca(lab).encode() != old.strip()
    for host in lab.etcd:
        assert host.read("/etc/etcd/pki/ca.crt") == expected_ca(lab)
        assert host.run(f"{ETCDCTL} get /kept --print-value-only") == "x"
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")


@contextmanager
def writing_by_tls(lab: Lab, *, pause: float) -> Iterator[None]:
    """A client on a member's host that writes through any member; ``pause`` (seconds) is the most
    between two acknowledged writes, and none of these is lost."""
    host = lab.etcd[0]
    every = ",".join(f"https://{h.address}:2379" for h in lab.etcd)
    etcdctl = ETCDCTL.replace("https://127.0.0.1:2379", every)
    put = f"{etcdctl} put /written/$n x --command-timeout=2s >/dev/null 2>&1"
    loop = f"n=0; while :; do n=$((n+1)); {put} && date +%s.%N | sed s,^,$n\\ , >>/root/acked; done"
    background = f"setsid sh -c {shlex.quote(loop)} >/dev/null 2>&1 & echo $! >/root/writer"
    host.run(f"rm -f /root/acked; ({background})")
    try:
        yield
    finally:
        host.run("kill -- -$(cat /root/writer) 2>/dev/null || kill $(cat /root/writer)")
    lines = [line.split() for line in host.read("/root/acked").splitlines()]
    times = [float(line[1]) for line in lines]
    longest = max(b - a for a, b in pairwise(times))
    assert longest < pause, f"no write for {longest:.1f} s"
    keys = host.run(f"{ETCDCTL} get /written/ --prefix --keys-only").split()
    assert {f"/written/{line[0]}" for line in lines} <= set(keys)
    assert len(lines) > 50


@pytest.mark.parametrize("client", [False, True], ids=["peer", "peer-and-client"])
def test_a_lost_ca_is_never_replaced_by_the_way_and_then_without_an_outage(
    lab: Lab, client: bool
) -> None:
    """The folder is gone: no command makes another CA, and one replaces it under a writer."""
    lab.destroy()
    shutil.rmtree(lab.pki, ignore_errors=True)
    tls = {"peer": True, "client": client, "client_auth": client}
    inventory = lab.inventory({"alluxio": None, "etcd": {"tls": tls}})
    lab.invoke("deploy-etcd", inventory).expect(0)
    home = own_ca.home(Path(lab.pki), "AlxpLab")
    old = expected_ca(lab)
    shutil.rmtree(lab.pki)
    before, running = certificates(lab), pids(lab)
    commands: list[tuple[str, ...]] = [
        *(("deploy-etcd",), ("rotate-certs",), ("rotate-certs", "--ca")),
        ("rotate-certs", "--limit", "etcd0"),
        ("rotate-certs", "--ca", "--yes-outage", "AlxpLab"),
    ]
    lost = ("--ca", "--ca-lost", "AlxpLab")
    for task, *options in commands:
        done = lab.invoke(task, inventory, *options).expect(3, "[ca-unknown]", "--ca-lost AlxpLab")
        assert done.text.count("error:") == 1
    if not client:
        # One member is down: it would be replaced by one with a certificate of a new CA.
        lab.etcd[2].run("systemctl stop etcd")
        lab.invoke("replace-member", inventory, "etcd2").expect(3, "[ca-unknown]")
        lab.invoke("rotate-certs", inventory, *lost).expect(1, "2 of 3 members are healthy")
        assert not home.exists()
        lab.etcd[2].run("systemctl start etcd")
        running = pids(lab)
    else:
        lab.invoke("replace-member", inventory, "etcd2").expect(3, "[pki-missing]")
        lab.invoke("upgrade-etcd", inventory, "3.6.16").expect(3, "[pki-missing]")
    assert not home.exists()
    assert (certificates(lab), pids(lab)) == (before, running)
    for wrong in ("Other", "alxplab"):
        lab.invoke("rotate-certs", inventory, "--ca", "--ca-lost", wrong).expect(
            2, "the cluster is called AlxpLab"
        )
    lab.invoke("rotate-certs", inventory, *lost, "--dry-run").expect(
        0, "etcd0 trusts the lost and the new CA", "20 would change" if client else "17 would"
    )
    assert not home.exists()
    writer = writing_by_tls(lab, pause=8) if client else writing(lab)
    with writer:
        for line in (
            "etcd1 trusts the lost and the new CA",
            "renew etcd1",
            "etcd1 trusts the new CA only",
        ):
            run = lab.start("rotate-certs", inventory, *lost)
            run.wait_for(rf"^.*\] {line}")
            run.kill()
            if line.startswith("etcd1 trusts the lost"):
                lab.invoke("deploy-etcd", inventory).expect(3, "[ca-unknown]")
        lab.invoke("rotate-certs", inventory, *lost).expect(0, "forget the lost CA")
    new = expected_ca(lab)
    assert new != old
    for host in lab.etcd:
        assert host.read("/etc/etcd/pki/ca.crt") == new
        host.run("openssl verify -CAfile /etc/etcd/pki/ca.crt /etc/etcd/pki/peer.crt")
    kept = {str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()}
    retired = x509.short_fingerprint(load_pem_x509_certificate(old.encode()))
    assert kept == {"ca.crt", "ca.key", "client.pem", f"retired/{retired}/ca.crt"}
    lab.invoke("rotate-certs", inventory, *lost).expect(0, "0 changed; the CA is at hand")
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")
    seen = lab.invoke("check-nodes", inventory, "--format", "json").json
    for member in seen["etcd"]["members"]:
        assert {c["error"] for c in member["certificates"]} == {None}


def test_a_patch_release_with_peer_tls_is_uploaded_once(lab: Lab) -> None:
    """A second upload would replace the folder that etcd runs from by then."""
    old, new = "3.5.19", "3.5.35"
    for release in (old, new):
        subprocess.run([LAB, "artifacts", "etcd", release], check=True)
    lab.destroy()

    def declare(release: str, *, peer: bool) -> Path:
        folder = REPO / ".lab" / "artifacts"
        tarball = next(folder.glob(f"etcd-v{release}-linux-*.tar.gz"))
        source = {"path": str(tarball), "sha256": f"file:{folder / 'SHA256SUMS'}"}
        return lab.inventory(
            {"etcd": {"version": release, "source": source, "tls": {"peer": peer}}}
        )

    lab.invoke("deploy-etcd", declare(old, peer=False)).expect(0)
    inventory = declare(new, peer=True)
    with writing(lab):
        done = lab.invoke("deploy-etcd", inventory, "--format", "json").expect(0)
    made = [h for step in done.json["steps"] for h in step["hosts"]]
    uploads = [h["name"] for h in made for c in h["changes"] if f"/opt/etcd/{new} " in c["what"]]
    assert sorted(uploads) == ["etcd0", "etcd1", "etcd2"]
    for host in lab.etcd:
        with lab.client(host) as client:
            assert client.status().version == new
            urls = [url for m in client.member_list() for url in m.peer_urls]
        assert all(url.startswith("https://") for url in urls)
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")
