"""Members whose traffic comes from another address than the declared one.

etcd compares the address that a peer comes from with its certificate (``checkCertSAN`` in its
``client/pkg/transport/listener_tls.go``), and refuses one that the certificate does not name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from provision.etcd.pki import certificates

from .lab import NET, Host, Lab, wait_until

#: What etcd logs about a peer that it refuses.
REFUSED = "does not match any of DNSNames"


@pytest.fixture(autouse=True)
def nothing_there(lab: Lab) -> Iterator[None]:
    lab.clear()
    yield
    lab.clear()


def second(host: Host) -> str:
    return f"{NET}.1{host.address.rsplit('.', 1)[1]}"


@contextmanager
def second_address(lab: Lab, hosts: list[Host], *, routed: bool = True) -> Iterator[None]:
    """Each of ``hosts`` has one more address. ``routed``: its way to other members leaves by it."""
    for host in hosts:
        host.run(f"ip addr add {second(host)}/32 dev eth0")
        for peer in lab.etcd if routed else ():
            if peer is not host:
                host.run(f"ip route add {peer.address} dev eth0 src {second(host)}")
    try:
        yield
    finally:
        for host in hosts:
            host.run(
                f"""for to in {" ".join(h.address for h in lab.etcd)}; do
                  ip route del "$to" dev eth0 2>/dev/null || :
                done
                ip addr del {second(host)}/32 dev eth0"""
            )


def now(lab: Lab) -> str:
    return lab.etcd[0].run("sleep 1; date '+%F %T'")


def refused(lab: Lab, since: str) -> set[str]:
    """The second addresses that members have refused, by their logs."""
    read = f"journalctl -u etcd -o cat --no-pager --since '{since}'"
    lines = [x for log in lab.on(lab.etcd, read) for x in log.splitlines() if REFUSED in x]
    return {second(h) for h in lab.etcd if any(f'"{second(h)}:' in line for line in lines)}


def restart(lab: Lab, hosts: list[Host]) -> str:
    """Restart etcd on ``hosts``, where it need not come up; the time before."""
    since = now(lab)
    lab.on(hosts, "systemctl --no-block restart etcd")
    return since


def named(host: Host) -> set[str]:
    pem = host.read("/etc/etcd/pki/peer.crt").encode()
    return certificates.san_names(x509.load_pem_x509_certificate(pem))


def healthy(lab: Lab, inventory: Path) -> bool:
    seen = lab.invoke("check-nodes", inventory, "--format", "json").json
    return [m["healthy"] for m in seen["etcd"]["members"]] == [True] * 3


def test_a_first_deploy(lab: Lab) -> None:
    since = now(lab)
    with second_address(lab, lab.etcd):
        lab.invoke("deploy-etcd").expect(0)
        assert refused(lab, since) == set()
        for host in lab.etcd:
            assert {host.address, second(host)} < named(host)
        lab.invoke("deploy-etcd").expect(0, "0 changed")
    # It has gone: that is no reason for another certificate. Connections from it hang for minutes.
    restart(lab, lab.etcd)
    wait_until(lambda: healthy(lab, lab.declared), "healthy", 60)
    lab.invoke("deploy-etcd").expect(0, "0 changed")
    assert all(second(host) in named(host) for host in lab.etcd)


def test_a_cluster_that_gets_them_later(lab: Lab) -> None:
    lab.invoke("deploy-etcd").expect(0)
    moved = lab.etcd[1:]
    with second_address(lab, moved):
        since = restart(lab, moved)
        wait_until(lambda: refused(lab, since) == set(map(second, moved)), "refused")
        done = lab.invoke("deploy-etcd")
        for host in moved:
            done.expect(0, f"leave by {second(host)}, which its peer certificate does not name")
            assert second(host) in named(host)
        assert second(lab.etcd[0]) not in named(lab.etcd[0])
        since = restart(lab, moved)
        wait_until(lambda: healthy(lab, lab.declared), "healthy")
        assert refused(lab, since) == set()
        lab.invoke("deploy-etcd").expect(0, "0 changed")


def test_an_address_that_only_the_peers_see(lab: Lab) -> None:
    """NAT between the members: the inventory names the address."""
    lab.invoke("deploy-etcd").expect(0)
    behind = lab.etcd[1:]
    with ExitStack() as stack:
        stack.enter_context(second_address(lab, behind, routed=False))
        for host in behind:
            nat = f"POSTROUTING -p tcp --dport 2380 -j SNAT --to-source {second(host)}"
            host.run(f"iptables -t nat -I {nat}")
            stack.callback(host.run, f"iptables -t nat -D {nat}")
        since = restart(lab, behind)
        wait_until(lambda: refused(lab, since) == set(map(second, behind)), "refused")
        members = {host.name: {"sans": [second(host)]} for host in behind}
        inventory = lab.inventory({"etcd": {"members": members}})
        done = lab.invoke("deploy-etcd", inventory)
        done.expect(0, f"it does not name {second(behind[0])}")
        since = restart(lab, behind)
        wait_until(lambda: healthy(lab, inventory), "healthy")
        assert refused(lab, since) == set()
        lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")
