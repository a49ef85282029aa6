"""The plans of rotate-certs as values: the order of the members, the gates, and what they ask."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from provision.engine.plan import Gate, Plan, Step
from provision.errors import PreflightFailed, Unhealthy, UsageError
from provision.etcd.api.values import MemberStatus, RegisteredMember
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.served_certs import CertificateState
from provision.etcd.cluster.todo_keys import Pending
from provision.etcd.member import desired, layout, membership_diff
from provision.etcd.pki import certificates, external_ca, own_ca
from provision.host.facts import HostFacts, PathState, UnitState
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.plans.etcd.certificates import replace_lost_ca, rotate_certs
from provision.plans.etcd.state.observe import EtcdState, Running
from provision.ssh.session import Fleet
from tests.authority import Ca
from tests.unit import builders, clock, hosts, plan_text
from tests.unit.test_external_ca import Key

THREE = "infra1+infra2+infra3"
NAMES = ("infra1", "infra2", "infra3")
KINDS = ("peer", "server")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> plan_text.Done:
    return plan_text.spell(monkeypatch)


class World:
    """Three members that run, with certificates of ``ca`` for peers and clients."""

    def __init__(self, cluster: EtcdCluster, ca: Any, *, leader: int = 2) -> None:
        self.cluster, self.leader = cluster, leader
        self.files: dict[str, dict[str, bytes]] = {}
        self.keys = {(m.name, k): Key(m.address) for m in cluster.members for k in KINDS}
        self.sick: set[str] = set()
        self.pending: set[str] = set()
        for m in cluster.members:
            self.files[m.name] = {"ca.crt": self._trust(ca)}
            for kind in KINDS:
                self.files[m.name][f"{kind}.crt"] = self._signed(ca, m, kind)
                self.files[m.name][f"{kind}.key"] = b"key"

    @staticmethod
    def _trust(ca: Any) -> bytes:
        pem = ca.pem if isinstance(ca, Ca) else ca.cert_pem
        assert isinstance(pem, bytes)
        return pem

    def _signed(self, ca: Any, m: EtcdMember, kind: str, **options: Any) -> bytes:
        if isinstance(ca, Ca):
            return ca.sign(self.keys[m.name, kind].csr, **options)
        return certificates.leaf(ca, m.name, desired.sans(m)).cert_pem

    def facts(self, m: EtcdMember) -> HostFacts:
        folder = layout.pki_dir(self.cluster)
        paths = {
            f"{folder}/{name}": PathState(
                "file", "root", "etcd", 0o640 if "key" in name else 0o644, len(text), text
            )
            for name, text in self.files[m.name].items()
        }
        paths[folder] = PathState("dir", "root", "etcd", 0o750, 0)
        commands = {desired.OPENSSL: "/usr/bin/openssl"}
        for kind in KINDS:
            commands[f"{kind}.key.new"] = self.keys[m.name, kind].public.decode()
        return hosts.facts(
            int(m.name[-1]),
            paths=paths,
            commands=commands,
            units={layout.UNIT: UnitState("loaded", "active", "running", "enabled")},
            pending_restarts=frozenset({layout.UNIT} if m.name in self.pending else ()),
        )

    def observed(self) -> EtcdState:
        members = tuple(
            MemberHealth(m, error="no answer")
            if m.name in self.sick
            else MemberHealth(
                m, status=MemberStatus(1, n, "3.6.16", 1, 1, self.leader, 1, 1, 1, False, ())
            )
            for n, m in enumerate(self.cluster.members, 1)
        )
        facts = {m.machine: self.facts(m) for m in self.cluster.members}
        return EtcdState(None, facts, ClusterHealth(self.cluster, members))

    def authority(self, observed: EtcdState | None = None, *, write: bool = True) -> Plan:
        with Fleet(1) as fleet:
            seen = observed or self.observed()
            return rotate_certs.authority(Etcd(self.cluster, fleet), seen, write=write)

    def leaves(self, *names: str, write: bool = True) -> Plan:
        chosen = [m for m in self.cluster.members if m.name in names or not names]
        with Fleet(1) as fleet:
            etcd = Etcd(self.cluster, fleet)
            return rotate_certs.leaves(etcd, self.observed(), chosen, write=write)


def own(folder: Path) -> World:
    members = [builders.member(n, peer_tls=True, client_tls=True) for n in (1, 2, 3)]
    cluster = builders.etcd(*members, tls=EtcdTls(pki_dir=folder, client=True))
    return World(cluster, own_ca.ensure_ca(folder, "c"))


def external(folder: Path, ca: Ca, *bundle: Ca) -> World:
    path = folder / "bundle.pem"
    path.write_bytes(b"".join(c.pem for c in bundle))
    made = EtcdTls(ca="external", ca_bundle=path, pki_dir=folder / "pki")
    members = [builders.member(n, peer_tls=True, client_tls=True) for n in (1, 2, 3)]
    return World(builders.etcd(*members, tls=made), ca)


def take_in(world: World, ca: Ca, *names: str) -> dict[str, dict[str, str]]:
    """New certificates of ``ca`` for these members. Returns their fingerprints."""
    folder = external_ca.load(world.cluster).folder
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, dict[str, str]] = {}
    for m in world.cluster.members:
        if m.name not in names:
            continue
        for kind in KINDS:
            world.keys[m.name, kind] = Key(m.address)
            pem = world._signed(ca, m, kind)
            (folder / f"{m.name}-{kind}.crt").write_bytes(pem)
            made.setdefault(m.name, {})[kind] = certificates.inspect(pem).fingerprint
    return made


def gates_of(plan: Plan | Iterable[Step]) -> list[str]:
    kept = (" before:", " after:")
    return [
        line for line in plan_text.text(plan) if not line.startswith(" ") or line.startswith(kept)
    ]


def rolls(title: str, name: str) -> list[str]:
    return [title, f" before: {THREE} without {name}", f" after: healthy {THREE} through {name}"]


def renewed(name: str) -> list[str]:
    said = f"{name} shows the new certificates; healthy {THREE} through {name}"
    return [f"renew {name}", f" before: {THREE} without {name}", f" after: {said}"]


#: The second leads.
ORDER = ("infra1", "infra3", "infra2")
OWN = "renew this tool's own certificate"


def test_a_new_authority_is_trusted_by_all_before_any_shows_it(
    done: plan_text.Done, tmp_path: Path
) -> None:
    """And the old one is dropped when nobody shows it any more. The leader is last each time."""
    world = own(tmp_path)
    plan = world.authority()
    assert gates_of(plan) == [
        *(x for n in ORDER for x in rolls(f"{n} trusts the old and the new CA", n)),
        *(x for n in ORDER for x in renewed(n)),
        OWN,
        *(x for n in ORDER for x in rolls(f"{n} trusts the new CA only", n)),
        "retire the old CA",
    ]
    assert (plan.command, plan.cluster) == ("rotate-certs", "c")
    assert [m.host for m in plan.guards] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    restarts = []
    for step in plan.steps:
        if not step.hosts:
            continue
        (host,) = step.hosts
        assert host.name in step.title.split()
        assert host.machine == world.cluster.member(host.name).machine
        said = [c.what for c in host.changes]
        if "trusts" in step.title:
            assert said == ["change /etc/etcd/pki/ca.crt", "restart etcd.service"]
            restarts.append(host.name)
        else:
            # The client's pair comes first: its listener is what this tool asks.
            assert [w.split(" and ")[0] for w in said] == [
                "change /etc/etcd/pki/server.crt",
                "change /etc/etcd/pki/peer.crt",
            ]
            assert not any(c.restarts for c in host.changes)
    assert restarts == [*ORDER, *ORDER]
    # First both, and then the new one alone.
    ca = own_ca.authorities(tmp_path, "c")
    assert ca.next is not None
    trusted = [
        "".join(c.script for c in s.hosts[0].changes) for s in plan.steps if "trusts" in s.title
    ]
    both, new = (b64encode(pem).decode() for pem in (ca.bundle, ca.next.cert_pem))
    flat = [text.replace("\n", "") for text in trusted]
    assert [both in text for text in flat] == [True] * 3 + [False] * 3
    assert [new in text for text in flat[3:]] == [True] * 3


def test_a_member_that_owes_its_restart_gets_it(done: plan_text.Done, tmp_path: Path) -> None:
    world = own(tmp_path)
    world.authority()
    ca = own_ca.authorities(tmp_path, "c")
    for name in NAMES:
        world.files[name]["ca.crt"] = ca.bundle
    world.pending.add("infra3")
    titles = [s.title for s in world.authority().steps]
    assert titles[0] == "infra3 trusts the old and the new CA"
    assert titles[1] == "renew infra1"
    first = world.authority().steps[0].hosts[0]
    assert [c.what for c in first.changes] == ["restart etcd.service"]
    # At the second restart, too: whoever has the file already.
    assert ca.next is not None
    for m in world.cluster.members:
        world.files[m.name]["ca.crt"] = ca.next.cert_pem
        for kind in KINDS:
            world.files[m.name][f"{kind}.crt"] = world._signed(ca.next, m, kind)
    own_ca.renew_client(tmp_path, "c", ca.next)
    assert [s.title for s in world.authority().steps] == [
        "infra3 trusts the new CA only",
        "retire the old CA",
    ]


def test_one_certificate_of_the_old_authority_keeps_it_trusted(
    done: plan_text.Done, tmp_path: Path
) -> None:
    """Either listener's."""
    world = own(tmp_path)
    world.authority()
    ca = own_ca.authorities(tmp_path, "c")
    assert ca.next is not None
    for m in world.cluster.members:
        world.files[m.name]["ca.crt"] = ca.bundle
        for kind in KINDS:
            if (m.name, kind) != ("infra3", "server"):
                world.files[m.name][f"{kind}.crt"] = world._signed(ca.next, m, kind)
    assert [s.title for s in world.authority().steps][:2] == ["renew infra3", OWN]


def test_a_dry_run_begins_no_replacement(done: plan_text.Done, tmp_path: Path) -> None:
    world = own(tmp_path)
    shown = [s.title for s in world.authority(write=False).steps]
    assert not (own_ca.home(tmp_path, "c") / own_ca.NEXT).exists()
    assert shown == [s.title for s in world.authority().steps]
    assert (own_ca.home(tmp_path, "c") / own_ca.NEXT).exists()


def test_new_leaves_one_by_one_the_leader_last(done: plan_text.Done, tmp_path: Path) -> None:
    world = own(tmp_path)
    plan = world.leaves()
    assert gates_of(plan) == [*(x for n in ORDER for x in renewed(n)), OWN]
    assert not any(c.restarts for s in plan.steps for h in s.hosts for c in h.changes)
    some = world.leaves("infra2", "infra3")
    assert gates_of(some) == [*renewed("infra3"), *renewed("infra2")]


def test_with_a_member_down_nothing_is_rotated(done: plan_text.Done, tmp_path: Path) -> None:
    world = own(tmp_path)
    world.sick = {"infra3"}
    for rotate in (world.leaves, world.authority):
        with pytest.raises(Unhealthy, match="2 of 3 members are healthy"):
            rotate()
    assert not (own_ca.home(tmp_path, "c") / own_ca.NEXT).exists()


def test_a_member_that_is_not_declared_would_not_know_the_new_authority(
    done: plan_text.Done, tmp_path: Path
) -> None:
    world = own(tmp_path)
    registered = [
        RegisteredMember(n, m.name, (m.peer_url,), (m.client_url,), False)
        for n, m in enumerate((*world.cluster.members, builders.member(4)), 1)
    ]
    seen = world.observed()
    there = membership_diff.member_list(world.cluster, registered)
    running = Running(there, seen.health, seen.health, Pending())
    with pytest.raises(PreflightFailed, match="would not know the new CA") as refused:
        world.authority(replace(seen, running=running))
    (problem,) = refused.value.problems
    assert (problem.where, problem.id) == ("etcd member infra4", "member-not-declared")
    assert "deploy-etcd --remove infra4" in problem.remedy
    there = membership_diff.member_list(world.cluster, registered[:3])
    known = replace(seen, running=replace(running, roster=there))
    assert world.authority(known).steps


def test_members_of_a_lost_authority_get_no_new_leaves(
    done: plan_text.Done, tmp_path: Path
) -> None:
    world = own(tmp_path)
    own_ca.home(tmp_path, "c").rename(tmp_path / "away")
    with pytest.raises(PreflightFailed) as refused:
        world.leaves()
    assert refused.value.id == "ca-unknown"
    assert not own_ca.ca_exists(tmp_path, "c")
    with pytest.raises(PreflightFailed) as refused:
        world.authority()
    assert refused.value.id == "ca-unknown"
    assert not own_ca.ca_exists(tmp_path, "c")
    with Fleet(1) as fleet:
        plan = replace_lost_ca.together(Etcd(world.cluster, fleet), world.observed())
    own_step, outage = plan.steps
    assert own_step.title == OWN
    assert gates_of([outage])[1:] == [f" after: healthy {THREE}"]
    assert outage.at_once is None
    assert [h.name for h in outage.hosts] == list(NAMES)
    for host in outage.hosts:
        said = " ".join(c.what for c in host.changes)
        for file in ("ca.crt", "peer.crt", "server.crt", "restart"):
            assert file in said
    (note,) = plan.notes
    assert (note.id, note.severity, note.where) == ("ca-replaced", "warning", "c")


def test_members_are_healed_without_a_gate_until_the_last(
    done: plan_text.Done, tmp_path: Path
) -> None:
    """Cut off, no member could pass one."""
    world = external(tmp_path, Ca("Root"), ca := Ca("Root"))
    world = World(world.cluster, ca)
    for m in world.cluster.members[1:]:
        for kind in KINDS:
            world.files[m.name][f"{kind}.crt"] = world._signed(ca, m, kind, days=-1)
    world.sick = {"infra2", "infra3"}
    world.leader = 1
    take_in(world, ca, *NAMES)
    plan = world.leaves()
    over = "its certificate has expired"
    assert gates_of(plan)[:3] == [
        f"renew infra2: {over}",
        f"renew infra3: {over}",
        " after: infra2 shows the new certificates; infra3 shows the new certificates; "
        "every member healthy",
    ]
    assert gates_of(plan)[3:6] == renewed("infra1")
    with pytest.raises(UsageError, match="leaves out infra3"):
        world.leaves("infra1", "infra2")


def test_imported_certificates_come_after_all_trust_their_authority(
    done: plan_text.Done, tmp_path: Path
) -> None:
    old, new = Ca("Old"), Ca("New")
    world = external(tmp_path, old, old, new)
    take_in(world, new, *NAMES)
    trusts = f"trusts the CAs of {world.cluster.tls.ca_bundle}"
    plan = world.leaves()
    assert gates_of(plan)[:18] == [
        *(x for n in ORDER for x in rolls(f"{n} {trusts}", n)),
        *(x for n in ORDER for x in renewed(n)),
    ]
    for step in plan.steps[:6]:
        (host,) = step.hosts
        said = [c.what.split(" and ")[0] for c in host.changes]
        if "trusts" in step.title:
            assert said == ["change /etc/etcd/pki/ca.crt", "restart etcd.service"]
        else:
            assert [w.split("/")[-1] for w in said] == ["server.crt", "peer.crt"]
    # All trust the bundle, whoever was chosen; a member that has no new one is left.
    some = world.leaves("infra3")
    assert gates_of(some) == [
        *(x for n in ORDER for x in rolls(f"{n} {trusts}", n)),
        *renewed("infra3"),
    ]


def test_with_nothing_imported_it_is_said_what_to_do(done: plan_text.Done, tmp_path: Path) -> None:
    root = Ca("Root")
    world = external(tmp_path, root, root)
    plan = world.leaves("infra1", "infra2")
    assert plan.steps == ()
    (note,) = plan.notes
    assert (note.where, note.severity, note.id) == ("c", "warning", "external-certificate-needed")
    assert note.what == "every imported certificate is already in place"
    assert "invoke export-csrs DIR --all" in note.remedy
    take_in(world, root, "infra1")
    plan = world.leaves("infra1", "infra2")
    assert gates_of(plan) == renewed("infra1")
    assert "external-certificate-needed" not in [n.id for n in plan.notes]


def test_an_outage_gives_all_the_bundle_and_their_certificates(
    done: plan_text.Done, tmp_path: Path
) -> None:
    """The members are cut off, and do not trust the root of their new certificates."""
    old, new = Ca("Old"), Ca("New")
    world = external(tmp_path, old, new)
    for m in world.cluster.members:
        for kind in KINDS:
            world.files[m.name][f"{kind}.crt"] = world._signed(old, m, kind, days=-1)
    world.sick = set(NAMES)
    take_in(world, new, *NAMES)
    assert rotate_certs.needs_outage(world.cluster, world.observed())
    plan = world.leaves()
    outage = plan.steps[-1]
    assert gates_of([outage]) == [
        "OUTAGE: all members get the CA and new certificates, and restart together",
        f" after: healthy {THREE}",
    ]
    for host in outage.hosts:
        said = " ".join(c.what for c in host.changes)
        for file in ("ca.crt", "peer.crt", "server.crt", "restart"):
            assert file in said
    assert [h.name for h in outage.hosts] == list(NAMES)
    assert [n.id for n in plan.notes][-1] == "ca-replaced"
    with pytest.raises(UsageError, match="leaves out infra3"):
        world.leaves("infra1", "infra2")


def test_no_outage_is_needed_while_nobody_is_cut_off(tmp_path: Path) -> None:
    old, new = Ca("Old"), Ca("New")
    world = external(tmp_path, old, new)
    take_in(world, new, *NAMES)
    assert not rotate_certs.needs_outage(world.cluster, world.observed())


class Shown:
    """What listeners show, at each look."""

    def __init__(self, *looks: dict[str, str]) -> None:
        self.looks = list(looks)
        self.asked: list[tuple[Etcd, str]] = []

    def __call__(self, etcd: Etcd, member: EtcdMember) -> list[CertificateState]:
        self.asked.append((etcd, member.name))
        now = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return [
            CertificateState(kind, None, error="" if print else "TLS failed", fingerprint=print)  # type: ignore[arg-type]
            for kind, print in now.items()
        ]


def test_the_gate_after_a_leaf_looks_at_each_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port of the clients shows the server's certificate."""
    said: list[object] = []

    def healthy(etcd: Etcd, member: EtcdMember) -> Gate:
        return Gate("healthy", lambda: said.append((member.name, len(shown.asked))))

    monkeypatch.setattr("provision.etcd.cluster.gates.all_healthy", healthy)
    ticks = clock.install(monkeypatch)
    late, good = {"peer": "a", "client": "old"}, {"peer": "a", "client": "b"}
    shown = Shown(late, late, good)
    monkeypatch.setattr(rotate_certs, "shown_certificates", shown)
    member = builders.member(2)
    with Fleet(1) as fleet:
        etcd = Etcd(builders.etcd(), fleet)
        gate = rotate_certs._shown(etcd, member, {"peer": "a", "server": "b"})
        gate.check()
        assert shown.asked == [(etcd, "infra2")] * 3
        assert said == [("infra2", 0)]  # before the first look
        assert ticks.slept == [0.1, 0.1]
        assert gate.title == "infra2 shows the new certificates; healthy"
        # The listener of a certificate that was not made may show what it likes.
        shown.looks = [{"peer": "a", "client": "old"}]
        rotate_certs._shown(etcd, member, {"peer": "a"}).check()
        shown.looks, ticks.slept = [late], []
        with pytest.raises(Unhealthy, match="infra2 does not show its new") as stopped:
            gate.check()
        assert stopped.value.id == "certificate-unverified"
        assert sum(ticks.slept) == pytest.approx(rotate_certs.SHOWN_WITHIN, abs=0.1)
        (problem,) = stopped.value.problems
        assert problem.where == "infra2 at 10.0.0.2"
        assert problem.what.startswith("client listener: still shows another certificate")
        shown.looks = [{"peer": "", "client": "b"}]
        with pytest.raises(Unhealthy) as stopped:
            gate.check()
        assert stopped.value.problems[0].what == "peer listener: TLS failed"


def test_the_gate_after_a_healing_asks_every_listener(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the fingerprints of what was imported."""
    ca = Ca("Root")
    world = World(external(tmp_path, ca, ca).cluster, ca)
    for m in world.cluster.members[1:]:
        for kind in KINDS:
            world.files[m.name][f"{kind}.crt"] = world._signed(ca, m, kind, days=-1)
    world.sick = {"infra2", "infra3"}
    made = take_in(world, ca, "infra2", "infra3")
    asked: list[tuple[str, dict[str, str]]] = []

    def shown(etcd: Etcd, member: EtcdMember, prints: dict[str, str]) -> Gate:
        return Gate(f"{member.name};", lambda: asked.append((member.name, prints)))

    monkeypatch.setattr(rotate_certs, "_shown", shown)
    plan = world.leaves("infra2", "infra3")
    last = plan.steps[1].after
    assert last is not None
    last.check()
    assert asked == [(name, made[name]) for name in ("infra2", "infra3")]


def test_an_expired_ca_of_this_tool_says_nothing_where_another_ca_is_declared(
    tmp_path: Path,
) -> None:
    """It was left in its folder when the members changed to the external CA."""
    ca = Ca("Root")
    world = external(tmp_path, ca, ca)
    own = world.cluster.tls.pki_dir
    made = own_ca.ensure_ca(own, "c")
    home = own_ca.home(own, "c")
    long_ago = datetime(2020, 1, 1, tzinfo=timezone.utc)
    old = certificates.self_signed("c etcd CA", made.key, 10, long_ago)
    (home / own_ca.CA_CERTIFICATE).write_bytes(old)
    assert own_ca.expired(own, "c")
    rotate_certs.require_at_hand(world.cluster, world.observed())
