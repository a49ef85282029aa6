"""Where a rotation stands, and what is left of it, from the files on hosts and of the CA."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provision.errors import PreflightFailed
from provision.etcd import certificates, desired, pki, rotate, tls
from provision.etcd.deploy import Observed
from provision.etcd.health import ClusterHealth, MemberHealth
from provision.etcd.values import MemberStatus
from provision.host.change import answered, changes, questions
from provision.host.observe import HostFacts, PathState
from provision.host.resources import Certificate
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plan import Plan
from provision.remote import Fleet, Stats
from tests.unit import builders

PKI = "/etc/etcd/pki"


def facts(files: dict[str, bytes], *, openssl: bool = True, pending: bool = False) -> HostFacts:
    paths = {
        path: PathState("file", "etcd", "etcd", 0o600 if "key" in path else 0o644, len(c), c)
        for path, c in files.items()
    }
    paths[PKI] = PathState("dir", "etcd", "etcd", 0o700, 0)
    return HostFacts(
        values={},
        clock_offset=0.0,
        paths=paths,
        users={},
        units={},
        listeners={},
        disks={},
        addresses=frozenset(),
        unreachable={},
        resolved={},
        pending_restarts=frozenset({desired.UNIT} if pending else ()),
        commands={desired.OPENSSL: "/usr/bin/openssl\n" if openssl else ""},
    )


class World:
    """A cluster of three as its hosts' files and the CA's folder have it."""

    def __init__(self, folder: Path) -> None:
        members = [builders.member(i, peer_tls=True) for i in (1, 2, 3)]
        self.cluster: EtcdCluster = builders.etcd(*members, tls=EtcdTls(pki_dir=folder))
        self.inventory: Inventory = builders.inventory(etcd=self.cluster)
        ca = pki.ensure_ca(folder, "c")
        self.files = {m.name: self.signed(m, ca) for m in members}

    def signed(
        self, member: EtcdMember, ca: certificates.Authority, trust: bytes = b""
    ) -> dict[str, bytes]:
        pair = certificates.leaf(ca, member.name, desired.sans(member))
        return {
            f"{PKI}/ca.crt": trust or ca.cert_pem,
            f"{PKI}/peer.crt": pair.cert_pem,
            f"{PKI}/peer.key": b"a key",
        }

    def observed(self, pending: str = "") -> Observed:
        seen = {
            m.machine: facts(self.files[m.name], pending=m.name == pending)
            for m in self.cluster.members
        }
        healthy = tuple(
            MemberHealth(m, status=MemberStatus(1, i, "3.6.16", 1, 1, 3, 1, 1, 1, False, ()))
            for i, m in enumerate(self.cluster.members, 1)
        )
        return Observed(None, seen, ClusterHealth(self.cluster, healthy))

    def plan(self, pending: str = "") -> Plan:
        return rotate.authority(
            self.inventory, Fleet(1, Stats()), self.observed(pending), write=True
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


BOTH = [f"infra{i} trusts the old and the new CA" for i in (1, 2, 3)]
LEAVES = [f"renew infra{i}" for i in (1, 2, 3)]
OWN = ["renew this tool's own certificate"]
NEW = [f"infra{i} trusts the new CA only" for i in (1, 2, 3)]
END = ["retire the old CA"]


def titles(plan: Plan) -> list[str]:
    return [step.title for step in plan.steps]


def test_a_new_ca_from_the_start(world: World) -> None:
    assert titles(world.plan()) == BOTH + LEAVES + OWN + NEW + END


def test_a_new_ca_goes_on_wherever_it_was_left(world: World, tmp_path: Path) -> None:
    world.plan()
    ca = pki.authorities(tmp_path, "c")
    assert ca.next is not None
    members = world.cluster.members
    for done, member in enumerate(members):
        world.files[member.name][f"{PKI}/ca.crt"] = ca.bundle
        assert titles(world.plan()) == BOTH[done + 1 :] + LEAVES + OWN + NEW + END
    # Killed between the file and the restart.
    assert titles(world.plan("infra2"))[0] == BOTH[1]
    for done, member in enumerate(members):
        world.files[member.name] = world.signed(member, ca.next, ca.bundle)
        assert titles(world.plan()) == LEAVES[done + 1 :] + OWN + NEW + END
    pki.renew_client(tmp_path, "c", ca.next)
    assert titles(world.plan()) == NEW + END
    assert pki.authorities(tmp_path, "c").signing.cert_pem == ca.next.cert_pem
    for done, member in enumerate(members):
        world.files[member.name][f"{PKI}/ca.crt"] = ca.next.cert_pem
        assert titles(world.plan()) == NEW[done + 1 :] + END
    world.plan().steps[-1].calls[0].do()
    assert pki.authorities(tmp_path, "c").next is None
    assert pki.load_ca(tmp_path, "c").cert_pem == ca.next.cert_pem


def test_deploy_etcd_leaves_a_rotation_under_way_as_it_is(world: World, tmp_path: Path) -> None:
    world.plan()
    ca = pki.authorities(tmp_path, "c")
    assert ca.next is not None
    stages: list[Callable[[EtcdMember], dict[str, bytes]]] = [
        lambda m: world.files[m.name],
        lambda m: {**world.files[m.name], f"{PKI}/ca.crt": ca.bundle},
        lambda m: world.signed(m, ca.next or ca.current, ca.bundle),
        lambda m: world.signed(m, ca.next or ca.current),
    ]
    member = world.cluster.members[0]
    for stage in stages:
        seen = facts(stage(member))
        material = tls.material(world.cluster, member, seen, ca)
        assert material is not None
        assert changes(desired.tls_files(world.cluster, material), seen) == ()


def test_a_kill_while_the_old_ca_is_retired_is_finished(tmp_path: Path) -> None:
    old = pki.ensure_ca(tmp_path, "c")
    new = pki.begin_replacement(tmp_path, "c").next
    assert new is not None
    home = pki.home(tmp_path, "c")
    (home / "next" / "ca.crt").replace(home / "ca.crt")
    assert pki.load_ca(tmp_path, "c").cert_pem == new.cert_pem
    assert not (home / "next").exists()
    pki.finish_replacement(tmp_path, "c")
    assert pki.load_ca(tmp_path, "c").cert_pem == new.cert_pem != old.cert_pem


def test_both_are_trusted_meanwhile(tmp_path: Path) -> None:
    old = pki.ensure_ca(tmp_path, "c")
    assert pki.trusted(tmp_path, "c") == old.cert_pem
    ca = pki.begin_replacement(tmp_path, "c")
    assert ca.next is not None
    assert pki.trusted(tmp_path, "c") == ca.bundle == old.cert_pem + ca.next.cert_pem
    again = pki.begin_replacement(tmp_path, "c").next
    assert again is not None
    assert again.cert_pem == ca.next.cert_pem
    # Either CA's certificate is this tool's own, until it is made by the new one.
    assert pki.ensure_client(tmp_path, "c") == pki.ensure_client(tmp_path, "c")
    own = pki.renew_client(tmp_path, "c", ca.next)
    assert pki.ensure_client(tmp_path, "c") == own


def test_nothing_to_rotate(world: World) -> None:
    world.files["infra2"].pop(f"{PKI}/peer.key")
    with pytest.raises(PreflightFailed) as caught:
        world.plan()
    assert "infra2" in caught.value.problems[0].where
    plain = builders.inventory()
    with pytest.raises(PreflightFailed, match="both listeners are plain"):
        rotate.leaves(plain, Fleet(1, Stats()), world.observed(), (), write=False)


def test_a_key_is_made_on_the_host_when_it_has_openssl(world: World, tmp_path: Path) -> None:
    ca, member = pki.authorities(tmp_path, "c"), world.cluster.members[0]
    for openssl, said in ((True, "the key is made on the host"), (False, "no openssl there")):
        seen = facts({}, openssl=openssl)
        material = tls.material(world.cluster, member, seen, ca)
        assert material is not None
        found = changes(desired.certificates(world.cluster, material), seen)
        assert [said in change.what for change in found] == [True]
        assert ("PRIVATE KEY" in repr(material)) is False
        assert bool(questions(found)) is openssl
        assert ("openssl genpkey" in questions(found)) is openssl


def test_the_answer_of_a_host_becomes_the_script() -> None:
    asked: list[bytes] = []

    def sign(request: bytes) -> bytes:
        asked.append(request)
        return b"a certificate"

    wanted = [Certificate(f"/p/{n}", "etcd", "m", sign=sign) for n in ("peer", "server")]
    todo = changes(wanted, facts({}))
    assert all(not c.script and not c.quiet for c in todo)
    done = answered(todo, "one\n@@answered 0\ntwo\n@@answered 1\n")
    assert asked == [b"one\n", b"two\n"]
    assert all("mv -f" in c.script and "key.new" in c.script for c in done)


def test_an_installation_that_was_cut_is_finished() -> None:
    kept = Certificate("/p/peer", "etcd")
    whole = {"/p/peer.crt": b"c", "/p/peer.key": b"k"}
    assert changes([kept], facts(whole)) == ()
    assert changes([kept], facts({**whole, "/p/peer.crt.new": b"", "/p/peer.key.new": b""})) == ()
    [change] = changes([kept], facts({**whole, "/p/peer.crt.new": b""}))
    assert change.what == "finish /p/peer.crt"
    assert change.script.startswith("mv -f /p/peer.crt.new /p/peer.crt\n")
