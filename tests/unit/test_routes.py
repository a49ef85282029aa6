"""The addresses that a member's connections come from: asked, named, and missed."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.etcd.member import desired, layout, routes
from provision.etcd.member.routes import Route
from provision.etcd.pki import certificates, own_ca, tls
from provision.host.facts import HostFacts, PathState, Probe, script
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine
from provision.plans.etcd.state import member_preflight
from tests.unit import builders, hosts

#: What `ip` and `getent` say on the host of the first of three members. Its own name is its
#: loopback there.
IP = r"""#!/bin/sh
[ "$1 $2 $3" = '-o route get' ] || exit 9
case $4 in
  10.0.0.2) echo '10.0.0.2 dev eth0 src 10.0.0.1 uid 0 \    cache ';;
  10.0.0.3) echo '10.0.0.3 via 10.0.0.254 dev eth1 src 10.0.9.1 uid 0 \    cache ';;
  fd00::3) echo 'fd00::3 from :: dev eth0 proto kernel src fd00:0::1 metric 256 pref medium';;
  172.17.0.9) echo '172.17.0.9 dev NETWORK src 172.17.0.1 uid 0';;
  *) echo 'RTNETLINK answers: Network is unreachable' >&2; exit 2;;
esac
"""
GETENT = r"""#!/bin/sh
echo "$2" >>"${0%/*}/asked"
case $2 in
  one.example) echo '127.0.1.1 STREAM one.example'; echo '127.0.1.1 DGRAM';;
  three.example) echo 'fd00::3 STREAM three'; echo '10.0.0.3 STREAM'; echo '10.0.0.3 DGRAM';;
  *) exit 2;;
esac
"""


def told(*lines: str, **changed: Any) -> HostFacts:
    text = "".join(f"{line}\n" for line in lines)
    return hosts.facts(commands={routes.ROUTES: text}, **changed)


def route(peer: str, source: str, bridge: str = "-") -> str:
    return f"route {peer} {bridge} {peer} dev eth0 src {source} uid 0 \\    cache "


def members(*addresses: str, **changed: Any) -> tuple[EtcdMember, ...]:
    return tuple(
        builders.member(n, address=address, peer_tls=True, **changed)
        for n, address in enumerate(addresses, 1)
    )


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    for name, text in (("ip", IP), ("getent", GETENT)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def asked(cluster: EtcdCluster, path: str) -> list[str]:
    """What a host answers to the probe of the first member."""
    command = routes.probe(cluster, cluster.members[0])[routes.ROUTES]
    done = subprocess.run(
        ["sh", "-c", f"( {command} ) 2>&1 </dev/null"],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


class TestProbe:
    @pytest.mark.process
    def test_each_peer_at_each_of_its_addresses(self, tools: Path) -> None:
        cluster = builders.etcd(*members("10.0.0.1", "10.0.0.2", "three.example"))
        lines = asked(cluster, f"{tools}:/usr/bin:/bin")
        assert [line for line in lines if line.startswith("name")] == [
            "name three.example 10.0.0.3",
            "name three.example fd00::3",
        ]
        assert routes.routes(told(*lines)) == (
            Route("10.0.0.2", "10.0.0.1"),
            Route("three.example", "10.0.9.1"),
            Route("three.example", "fd00::1"),
        )

    @pytest.mark.process
    def test_a_name_for_ssh_is_asked_for_only_when_another_address_is_used(
        self, tools: Path
    ) -> None:
        first, second, third = members("10.0.0.1", "10.0.0.2", "10.0.0.3")
        first = replace(first, machine=Machine("one.example"))
        path = f"{tools}:/usr/bin:/bin"
        asked(builders.etcd(first, second), path)
        assert not (tools / "asked").exists()
        assert "name one.example 127.0.1.1" in asked(builders.etcd(first, second, third), path)

    @pytest.mark.process
    def test_a_way_through_a_bridge(self, tools: Path) -> None:
        found = [*Path("/sys/class/net").glob("*/bridge")]
        cluster = builders.etcd(*members("10.0.0.1", "172.17.0.9"))
        fake = tools / "ip"
        for device, bridge in [("lo", False), *[(p.parent.name, True) for p in found[:1]]]:
            fake.write_text(IP.replace("NETWORK", device))
            [seen] = routes.routes(told(*asked(cluster, f"{tools}:/usr/bin:/bin")))
            assert seen == Route("172.17.0.9", "172.17.0.1", bridge)

    @pytest.mark.process
    def test_nothing_is_known_without_ip_or_without_a_way(self, tmp_path: Path) -> None:
        tools = tmp_path / "bin"
        tools.mkdir()
        (tools / "sh").symlink_to("/bin/sh")
        cluster = builders.etcd(*members("10.0.0.1", "10.0.0.2"))
        assert asked(cluster, str(tools)) == []
        (tools / "ip").write_text("#!/bin/sh\nexit 2\n")
        (tools / "ip").chmod(0o755)
        assert asked(cluster, str(tools)) == []

    def test_only_with_tls_and_peers(self) -> None:
        plain = tuple(replace(m, peer_tls=False) for m in members("10.0.0.1", "10.0.0.2"))
        for those in (plain, members("10.0.0.1")):
            cluster = builders.etcd(*those)
            assert routes.probe(cluster, cluster.members[0]) == {}

    def test_the_look_at_a_host_asks(self) -> None:
        cluster = builders.etcd(*members("10.0.0.1", "10.0.0.2"))
        probe = desired.probe(cluster, cluster.members[0], None)
        assert routes.ROUTES in probe.commands
        assert "way 10.0.0.2 10.0.0.2" in script(Probe(commands=probe.commands))


class TestNames:
    member = members("10.0.0.1")[0]

    @pytest.mark.parametrize(
        ("source", "bridge"),
        [("127.0.0.2", "-"), ("169.254.7.7", "-"), ("fe80::1", "-"), ("172.17.0.1", "bridge")],
    )
    def test_addresses_that_other_hosts_may_have(self, source: str, bridge: str) -> None:
        facts = told(route("10.0.0.2", source, bridge))
        assert routes.sources(builders.etcd(self.member), self.member, facts) == ()
        assert routes.unnamed(self.member, facts, {"10.0.0.1"}) != ()

    def test_a_new_certificate(self) -> None:
        one = replace(self.member, sans=("vip.example",))
        facts = told(route("10.0.0.2", "10.0.9.1"), route("10.0.0.3", "10.0.0.1"), "noise src x")
        names = ("10.0.0.1", "localhost", "127.0.0.1", "vip.example", "10.0.9.1")
        cluster = builders.etcd(one, *members("10.0.0.1", "10.0.0.2")[1:])
        assert desired.new_sans(cluster, one, facts) == names
        assert desired.sans(one) == names[:-1]

    def test_a_host_is_not_believed_that_it_has_the_address_of_another(self) -> None:
        one, two, three = members("10.0.0.1", "10.0.0.2", "fd00::3")
        two = replace(two, machine=Machine("10.0.7.2"), sans=("10.0.8.2", "vip.example"))
        claims = ("10.0.0.2", "10.0.7.2", "10.0.8.2", "fd00:0::3", "10.0.9.1")
        facts = told(*(route("10.0.0.2", claim) for claim in claims))
        assert routes.sources(builders.etcd(one, two, three), one, facts) == ("10.0.9.1",)
        many = told(*(route("10.0.0.2", f"10.1.0.{n}") for n in range(200)))
        assert len(routes.sources(builders.etcd(one), one, many)) == routes.MAX_SOURCES

    def test_an_address_that_a_dns_name_leads_to_is_served(self) -> None:
        facts = told(route("10.0.0.2", "10.0.9.1"), "name Alias.example 10.0.9.1")
        left = routes.unnamed(self.member, facts, {"10.0.0.1", "localhost"})
        assert [r.source for r in left] == ["10.0.9.1"]
        assert routes.unnamed(self.member, facts, {"10.0.0.1", "alias.example"}) == ()

    def test_a_declared_name_has_the_addresses_that_the_peers_give_for_it(self) -> None:
        """The host itself gives its loopback, as Debian's /etc/hosts has it."""
        one, two = members("one.example", "10.0.0.2")
        own = {"one.example", "localhost", "127.0.0.1"}
        source = route("10.0.0.2", "10.0.9.1")
        here = told(source, "name one.example 127.0.1.1")
        assert routes.unnamed(one, here, own) == ()
        for at, left in (("10.0.9.1", 0), ("10.0.0.1", 1)):
            facts = {one.machine: here, two.machine: told(f"name one.example {at}")}
            seen = routes.as_peers_see((one, two), facts)
            assert len(routes.unnamed(one, seen[one.machine], own)) == left
            assert seen[two.machine] == facts[two.machine]
        assert routes.as_peers_see((one, two), {one.machine: here}) == {one.machine: here}


class TestCertificates:
    @pytest.fixture
    def cluster(self, tmp_path: Path) -> EtcdCluster:
        those = members("10.0.0.1", "10.0.0.2", "10.0.0.3")
        return builders.etcd(*those, tls=EtcdTls(pki_dir=tmp_path))

    def seen(self, cluster: EtcdCluster, names: tuple[str, ...], *lines: str) -> HostFacts:
        ca = self.ca(cluster)
        pem = certificates.leaf(ca.signing, "infra1", names).cert_pem
        folder = layout.pki_dir(cluster)
        files = {"peer.crt": pem, "peer.key": b"key"}
        paths = {
            f"{folder}/{name}": PathState("file", "root", "etcd", 0o640, len(text), text)
            for name, text in files.items()
        }
        return told(*lines, paths=paths)

    def ca(self, cluster: EtcdCluster) -> own_ca.CaSet:
        ca = tls.authority(cluster, {}, write=True)
        assert isinstance(ca, own_ca.CaSet)
        return ca

    def test_only_one_that_lacks_an_address_is_issued_anew(self, cluster: EtcdCluster) -> None:
        ca, one = self.ca(cluster), cluster.members[0]
        second = route("10.0.0.2", "10.0.9.1")
        facts = self.seen(cluster, desired.sans(one), second)
        assert tls.due(cluster, one, "peer", facts, ca) == "it does not name 10.0.9.1"
        leaf = tls.leaf(cluster, one, facts, ca.signing, "")
        assert leaf.pair is not None
        assert "10.0.9.1" in certificates.names(leaf.pair[0])
        names = desired.new_sans(cluster, one, facts)
        # The second line: the address has gone away.
        for lines in ((second,), (route("10.0.0.2", "10.0.0.1"),), ()):
            facts = self.seen(cluster, names, *lines)
            assert tls.due(cluster, one, "peer", facts, ca) is None
            assert member_preflight.members(cluster, {one.machine: facts}) == []
        # A bridge's address is not named, so it is no reason either.
        facts = self.seen(cluster, names, route("10.0.0.2", "172.17.0.1", "bridge"))
        assert tls.due(cluster, one, "peer", facts, ca) is None
        wants = replace(one, sans=("vip.example",))
        assert tls.due(cluster, wants, "peer", facts, ca) == "it does not name vip.example"

    @pytest.mark.parametrize(
        ("ca", "bridge", "remedy"),
        [
            ("own", "-", "invoke deploy-etcd"),
            ("external", "-", "invoke export-csrs"),
            ("own", "bridge", "etcd.members.infra1.sans"),
        ],
    )
    def test_preflight_warns(self, cluster: EtcdCluster, ca: str, bridge: str, remedy: str) -> None:
        one = cluster.members[0]
        lines = [route(m.address, "10.0.9.1", bridge) for m in cluster.members[1:]]
        facts = self.seen(cluster, desired.sans(one), *lines)
        cluster = replace(cluster, tls=cluster.tls.model_copy(update={"ca": ca}))
        [warning] = member_preflight.members(cluster, {one.machine: facts})
        assert (warning.severity, warning.id) == ("warning", "address-not-in-certificate")
        assert warning.what == (
            "its routes to infra2, infra3 leave by 10.0.9.1, which its peer certificate does not "
            "name"
        )
        assert remedy in warning.remedy
        plain = replace(cluster, members=tuple(replace(m, peer_tls=False) for m in cluster.members))
        assert member_preflight.members(plain, {one.machine: facts}) == []
