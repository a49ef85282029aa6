"""Where a rotation stands, and what is left of it, from the files on hosts and of the CA."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from provision.engine.plan import Plan
from provision.errors import PreflightFailed, Unhealthy, UsageError
from provision.etcd.api.values import MemberStatus
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import desired, layout
from provision.etcd.pki import certificates, keyfiles, own_ca, tls
from provision.host.diff import answered, changes, questions
from provision.host.facts import HostFacts, PathState, UnitState
from provision.host.resources import Certificate
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plans.etcd import deploy_etcd
from provision.plans.etcd.certificates import rotate_certs
from provision.plans.etcd.state.observe import EtcdState
from provision.ssh.session import Fleet, Stats
from tests.unit import builders

PKI = "/etc/etcd/pki"
LONG_AGO = certificates.now_utc() - timedelta(days=20)


def facts(files: dict[str, bytes], *, openssl: bool = True, pending: bool = False) -> HostFacts:
    paths = {
        path: PathState("file", "root", "etcd", 0o640 if "key" in path else 0o644, len(c), c)
        for path, c in files.items()
    }
    paths[PKI] = PathState("dir", "root", "etcd", 0o750, 0)
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
        pending_restarts=frozenset({layout.UNIT} if pending else ()),
        commands={desired.OPENSSL: "/usr/bin/openssl\n" if openssl else ""},
    )


class World:
    """A cluster of three as its hosts' files and the CA's folder have it."""

    def __init__(self, folder: Path) -> None:
        members = [builders.member(i, peer_tls=True) for i in (1, 2, 3)]
        self.cluster: EtcdCluster = builders.etcd(*members, tls=EtcdTls(pki_dir=folder))
        self.inventory: Inventory = builders.inventory(etcd=self.cluster)
        ca = own_ca.ensure_ca(folder, "c")
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

    def observed(self, pending: str = "", *, sick: bool = False) -> EtcdState:
        seen = {
            m.machine: facts(self.files[m.name], pending=m.name == pending)
            for m in self.cluster.members
        }
        error = "no leader" if sick else ""
        healthy = tuple(
            MemberHealth(
                m, status=MemberStatus(1, i, "3.6.16", 1, 1, 3, 1, 1, 1, False, ()), error=error
            )
            for i, m in enumerate(self.cluster.members, 1)
        )
        return EtcdState(None, seen, ClusterHealth(self.cluster, healthy))

    def expire(self, *names: str, by: certificates.Authority | None = None) -> None:
        """These members' certificates are over."""
        ca = by or own_ca.load_ca(self.cluster.tls.pki_dir, "c")
        for m in self.cluster.members:
            if m.name in names:
                old = certificates.leaf(ca, m.name, desired.sans(m), days=5, now=LONG_AGO)
                self.files[m.name][f"{PKI}/peer.crt"] = old.cert_pem

    def expire_ca(self) -> certificates.Authority:
        """The CA is over, and with it what it has signed."""
        home = own_ca.home(self.cluster.tls.pki_dir, "c")
        key = keyfiles.load_key(home / own_ca.CA_KEY)
        pem = certificates.self_signed("c etcd CA", key, 10, LONG_AGO)
        keyfiles.replace_file(home / own_ca.CA_CERTIFICATE, pem, 0o644)
        old = certificates.Authority(x509.load_pem_x509_certificate(pem), key)
        pair = certificates.leaf(old, own_ca.CLIENT_NAME, (), days=5, now=LONG_AGO)
        keyfiles.replace_file(home / own_ca.CLIENT, pair.key_pem + pair.cert_pem, 0o600)
        for m in self.cluster.members:
            self.files[m.name][f"{PKI}/ca.crt"] = pem
        self.expire(*self.files, by=old)
        return old

    def leaves(self, *names: str) -> Plan:
        chosen = [m for m in self.cluster.members if m.name in names or not names]
        seen = self.observed(sick=True)
        return rotate_certs.leaves(on(self.inventory), seen, chosen, write=True)

    def plan(self, pending: str = "") -> Plan:
        return rotate_certs.authority(on(self.inventory), self.observed(pending), write=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


BOTH = [f"infra{i} trusts the old and the new CA" for i in (1, 2, 3)]
LEAVES = [f"renew infra{i}" for i in (1, 2, 3)]
OWN = ["renew this tool's own certificate"]
NEW = [f"infra{i} trusts the new CA only" for i in (1, 2, 3)]
END = ["retire the old CA"]


def on(inventory: Inventory) -> Etcd:
    return Etcd(inventory.etcd, Fleet(1, Stats()))


def titles(plan: Plan) -> list[str]:
    return [step.title for step in plan.steps]


def test_a_new_ca_from_the_start(world: World) -> None:
    assert titles(world.plan()) == BOTH + LEAVES + OWN + NEW + END


def test_a_new_ca_goes_on_wherever_it_was_left(world: World, tmp_path: Path) -> None:
    world.plan()
    ca = own_ca.authorities(tmp_path, "c")
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
    own_ca.renew_client(tmp_path, "c", ca.next)
    assert titles(world.plan()) == NEW + END
    assert own_ca.authorities(tmp_path, "c").signing.cert_pem == ca.next.cert_pem
    for done, member in enumerate(members):
        world.files[member.name][f"{PKI}/ca.crt"] = ca.next.cert_pem
        assert titles(world.plan()) == NEW[done + 1 :] + END
    world.plan().steps[-1].calls[0].do()
    assert own_ca.authorities(tmp_path, "c").next is None
    assert own_ca.load_ca(tmp_path, "c").cert_pem == ca.next.cert_pem


def test_deploy_etcd_leaves_a_rotation_under_way_as_it_is(world: World, tmp_path: Path) -> None:
    world.plan()
    ca = own_ca.authorities(tmp_path, "c")
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
    old = own_ca.ensure_ca(tmp_path, "c")
    new = own_ca.begin_replacement(tmp_path, "c").next
    assert new is not None
    home = own_ca.home(tmp_path, "c")
    (home / "next" / "ca.crt").replace(home / "ca.crt")
    assert own_ca.load_ca(tmp_path, "c").cert_pem == new.cert_pem
    assert (home / "next").exists()
    own_ca.finish_replacement(tmp_path, "c")
    assert not (home / "next").exists()
    assert own_ca.load_ca(tmp_path, "c").cert_pem == new.cert_pem != old.cert_pem


def test_both_are_trusted_meanwhile(tmp_path: Path) -> None:
    old = own_ca.ensure_ca(tmp_path, "c")
    assert own_ca.trusted(tmp_path, "c") == old.cert_pem
    ca = own_ca.begin_replacement(tmp_path, "c")
    assert ca.next is not None
    assert own_ca.trusted(tmp_path, "c") == ca.bundle == old.cert_pem + ca.next.cert_pem
    again = own_ca.begin_replacement(tmp_path, "c").next
    assert again is not None
    assert again.cert_pem == ca.next.cert_pem
    # Either CA's certificate is this tool's own, until it is made by the new one.
    for by in (ca.current, ca.next):
        own = own_ca.renew_client(tmp_path, "c", by)
        assert own_ca.client_pair(tmp_path, "c") == own


def test_nothing_to_rotate(world: World) -> None:
    world.files["infra2"].pop(f"{PKI}/peer.key")
    with pytest.raises(PreflightFailed) as caught:
        world.plan()
    assert "infra2" in caught.value.problems[0].where
    plain = builders.inventory()
    with pytest.raises(PreflightFailed, match="both listeners are plain"):
        rotate_certs.leaves(on(plain), world.observed(), (), write=False)


def test_a_key_is_made_on_the_host_when_it_has_openssl(world: World, tmp_path: Path) -> None:
    ca, member = own_ca.authorities(tmp_path, "c"), world.cluster.members[0]
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
    assert all(not c.script and not c.non_disruptive for c in todo)
    done = answered(todo, "one\n@@answered 0\ntwo\n@@answered 1\n")
    assert asked == [b"one\n", b"two\n"]
    assert all("mv -f" in c.script and "key.new" in c.script for c in done)


def test_an_installation_that_was_cut_is_finished() -> None:
    kept = Certificate("/p/peer", "root", group="etcd")
    whole = {"/p/peer.crt": b"c", "/p/peer.key": b"k"}
    assert changes([kept], facts(whole)) == ()
    assert changes([kept], facts({**whole, "/p/peer.crt.new": b"", "/p/peer.key.new": b""})) == ()
    [change] = changes([kept], facts({**whole, "/p/peer.crt.new": b""}))
    assert change.what == "finish /p/peer.crt"
    secured, moved, *_ = change.script.splitlines()
    assert secured == "folder /p root:etcd 0750"  # before anything is done by name in it
    assert moved == "mv -f /p/peer.crt.new /p/peer.crt"


HEALED = "renew {}: its certificate has expired"


@pytest.mark.parametrize(
    "names", [["infra2"], ["infra2", "infra3"], ["infra1", "infra2", "infra3"]]
)
def test_members_that_are_cut_off_come_first_and_without_a_gate(
    world: World, names: list[str]
) -> None:
    with pytest.raises(Unhealthy, match="wait until the others are back"):
        world.leaves()  # nothing has expired: something else is wrong
    world.expire(*names)
    plan = world.leaves()
    rest = [f"renew {m.name}" for m in world.cluster.members if m.name not in names]
    assert titles(plan) == [HEALED.format(n) for n in names] + rest + OWN
    first = plan.steps[: len(names)]
    assert [s.before for s in first] == [None] * len(names)
    assert [s.after is not None for s in first] == [False] * (len(names) - 1) + [True]
    assert all(s.before and s.after for s in plan.steps[len(names) : -1])
    # No restart: etcd reads a certificate and its key for each connection.
    assert not any(c.restarts for s in plan.steps for h in s.hosts for c in h.changes)


def test_a_replacement_that_was_cut_ends_before_members_that_are_cut_off_are_healed(
    world: World, tmp_path: Path
) -> None:
    """Their new certificates are signed with the key that this step moves."""
    new = own_ca.begin_replacement(tmp_path, "c").next
    assert new is not None
    world.files = {m.name: world.signed(m, new) for m in world.cluster.members}
    home = own_ca.home(tmp_path, "c")
    (home / own_ca.NEXT / own_ca.CA_CERTIFICATE).replace(home / own_ca.CA_CERTIFICATE)
    world.expire("infra2", by=new)
    assert titles(world.leaves("infra1", "infra2")) == [
        "finish retiring the old CA",
        HEALED.format("infra2"),
        "renew infra1",
    ]


def test_the_question_whether_the_ca_is_at_hand_makes_none(world: World, tmp_path: Path) -> None:
    """Hosts without certificates: there is nothing that a new CA would be beside."""
    shutil.rmtree(own_ca.home(tmp_path, "c"))
    for files in world.files.values():
        files.clear()
    rotate_certs.require_at_hand(world.cluster, world.observed())
    assert not own_ca.home(tmp_path, "c").exists()


def test_who_is_cut_off_cannot_be_left_out(world: World) -> None:
    world.expire("infra2", "infra3")
    with pytest.raises(UsageError, match="leaves out infra3, whose certificates have expired"):
        world.leaves("infra1", "infra2")
    assert titles(world.leaves("infra2", "infra3")) == [
        HEALED.format("infra2"),
        HEALED.format("infra3"),
    ]


def running(world: World, observed: EtcdState) -> EtcdState:
    seen = {
        m: replace(f, units={layout.UNIT: UnitState("loaded", "active", "running", "enabled")})
        for m, f in observed.facts.items()
    }
    return replace(observed, facts=seen)


OUTAGE = "OUTAGE: all members get the CA and new certificates, and restart together"


def test_a_ca_that_has_expired_is_replaced_from_wherever_it_was_left(
    world: World, tmp_path: Path
) -> None:
    old = world.expire_ca()
    for refused in (lambda: own_ca.ensure_ca(tmp_path, "c"), world.leaves):
        with pytest.raises(UsageError, match="invoke rotate-certs --ca") as caught:
            refused()
        assert caught.value.id == "ca-expired"
    assert rotate_certs.needs_outage(world.cluster, world.observed())

    shown = rotate_certs.authority(on(world.inventory), world.observed(), write=False)
    assert titles(shown) == [*OWN, OUTAGE, *END]
    assert not (own_ca.home(tmp_path, "c") / own_ca.NEXT).exists()

    seen = running(world, world.observed())
    plan = rotate_certs.authority(on(world.inventory), seen, write=True)
    assert titles(plan) == [*OWN, OUTAGE, *END]
    assert [len(h.changes) for h in plan.steps[1].hosts] == [3, 3, 3]
    assert [h.changes[0].restarts for h in plan.steps[1].hosts] == [(layout.UNIT,)] * 3
    assert plan.steps[1].after is not None
    assert plan.steps[1].at_once is None
    assert [n.id for n in plan.notes] == ["ca-replaced"]
    for write in (False, True):  # a dry run refuses what the run would refuse
        with pytest.raises(UsageError, match="invoke rotate-certs --ca"):
            tls.authority(world.cluster, {}, write=write)
    ca = own_ca.authorities(tmp_path, "c")
    assert ca.next is not None
    assert ca.signing == ca.next
    plan.steps[0].calls[0].do()
    # What this tool is to the members: of the new CA only.
    own = own_ca.client_pair(tmp_path, "c")
    assert certificates.issued(own.cert_pem, ca.next)
    for done, m in enumerate(world.cluster.members, 1):
        world.files[m.name] = world.signed(m, ca.next)
        # Those that are done are running by it: without them, no restart.
        seen = running(world, world.observed())
        plan = rotate_certs.authority(on(world.inventory), seen, write=True)
        assert [h.name for s in plan.steps for h in s.hosts] == [
            m.name for m in world.cluster.members[done:]
        ]
    world.plan().steps[-1].calls[0].do()
    assert own_ca.load_ca(tmp_path, "c").cert_pem == ca.next.cert_pem
    [gone] = (own_ca.home(tmp_path, "c") / own_ca.RETIRED).iterdir()
    assert gone.name == (
        f"expired-{old.certificate.not_valid_after_utc:%Y-%m-%d}-"
        f"{certificates.short_fingerprint(old.certificate)}"
    )
    assert sorted(p.name for p in gone.iterdir()) == [own_ca.CA_CERTIFICATE, own_ca.CA_KEY]


def test_a_successor_that_has_expired_as_well_is_put_aside(world: World, tmp_path: Path) -> None:
    world.expire_ca()
    home = own_ca.home(tmp_path, "c")
    own_ca._ensure(home / own_ca.NEXT, "c etcd CA", 5, LONG_AGO, timedelta(0))
    world.plan()
    ca = own_ca.authorities(tmp_path, "c")
    assert ca.next is not None
    assert certificates.is_current(ca.next.certificate)


def test_a_ca_that_is_not_at_hand_is_never_replaced_by_the_way(
    world: World, tmp_path: Path
) -> None:
    home = own_ca.home(tmp_path, "c")
    home.rename(tmp_path / "away")
    seen = running(world, world.observed())
    assert not rotate_certs.needs_outage(world.cluster, seen)
    with pytest.raises(PreflightFailed) as caught:
        rotate_certs.require_at_hand(world.cluster, seen)
    assert caught.value.id == "ca-unknown"
    assert "rotate-certs --ca --ca-lost c" in caught.value.message
    for write in (False, True):
        with pytest.raises(PreflightFailed):
            rotate_certs.leaves(on(world.inventory), seen, world.cluster.members, write=write)
        with pytest.raises(PreflightFailed):
            rotate_certs.authority(on(world.inventory), seen, write=write)
    assert not home.exists()


@pytest.mark.parametrize("active", [True, False])
def test_another_ca_that_has_expired_is_no_leave_for_an_outage(
    world: World, tmp_path: Path, active: bool
) -> None:
    """The folder of a CA of long ago, from a backup: the members have a newer one, which is not at
    hand. ``--ca --yes-outage`` is for the members' own CA that has expired."""
    here = {m: dict(files) for m, files in world.files.items()}
    world.expire_ca()
    (own_ca.home(tmp_path, "c") / own_ca.CA_KEY).unlink()
    other = own_ca.ensure_ca(tmp_path / "other", "c")
    keyfiles.replace_file(
        own_ca.home(tmp_path, "c") / own_ca.CA_CERTIFICATE,
        certificates.self_signed("c etcd CA", other.key, 10, LONG_AGO),
        0o644,
    )
    shutil.copy(tmp_path / "other" / "c" / own_ca.CA_KEY, own_ca.home(tmp_path, "c"))
    world.files = here
    seen = running(world, world.observed()) if active else world.observed()
    before = sorted(own_ca.home(tmp_path, "c").rglob("*"))
    for write in (False, True):
        with pytest.raises(PreflightFailed, match=r"move .* away") as caught:
            rotate_certs.authority(on(world.inventory), seen, write=write)
        assert caught.value.id == "ca-unknown"
        assert "--ca --ca-lost c" in caught.value.message
    assert sorted(own_ca.home(tmp_path, "c").rglob("*")) == before


def test_what_has_expired_is_no_unknown_ca(world: World) -> None:
    """Members with a CA that has expired are cut off, whoever has it: they are to be healed."""
    old = world.expire_ca()
    pem = world.files["infra1"][f"{PKI}/peer.crt"]
    assert tls.is_over(pem, b"")
    ca = own_ca.ensure_ca(world.cluster.tls.pki_dir, "d")
    good = certificates.leaf(ca, "infra1", ()).cert_pem
    assert not tls.is_over(good, b"")
    assert not tls.is_over(good, old.cert_pem + ca.cert_pem)
    # Its own time is not over, that of its CA is.
    pem = certificates.self_signed("d etcd CA", ca.key, 10, LONG_AGO)
    assert tls.is_over(good, pem)


def test_the_remedy_for_a_certificate_that_has_expired(world: World) -> None:
    failed = MemberHealth(
        world.cluster.members[0],
        error="TLS failed (certificate has expired)",
        remedy="something else",
        error_id="etcd-tls-failed",
    )
    assert health.member_problems(world.cluster, failed)[0].remedy == "invoke rotate-certs"
    world.expire_ca()
    assert "rotate-certs --ca" in health.member_problems(world.cluster, failed)[0].remedy
    other = replace(failed, error="TLS failed (unknown CA)")
    assert health.member_problems(world.cluster, other)[0].remedy == "something else"


def test_deploy_etcd_names_the_command_that_heals_several(world: World) -> None:
    """One by one, each of its members would wait for the others."""
    members = world.cluster.members
    world.expire("infra1")
    deploy_etcd._refuse_several_cut_off(world.cluster, world.observed(sick=True), members)
    world.expire("infra1", "infra3")
    deploy_etcd._refuse_several_cut_off(world.cluster, world.observed(), members)
    # What is down is changed together.
    deploy_etcd._refuse_several_cut_off(world.cluster, world.observed(sick=True), members[1:])
    with pytest.raises(PreflightFailed) as caught:
        deploy_etcd._refuse_several_cut_off(world.cluster, world.observed(sick=True), members)
    assert [p.remedy for p in caught.value.problems] == [
        "invoke rotate-certs, which begins with those"
    ] * 2


def test_the_client_port_has_its_pair_before_peers_accept_the_member(world: World) -> None:
    new = desired.MemberTls("infra1", b"", peer=desired.Leaf(), server=desired.Leaf())
    made = desired.certificates(world.cluster, new)
    assert [c.path for c in made if isinstance(c, Certificate)] == [f"{PKI}/server", f"{PKI}/peer"]
