"""No CA is made beside one that hosts have and this machine has not; and how a lost one goes."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from provision.engine.guards import Guard
from provision.engine.plan import Plan
from provision.errors import PreflightFailed, Problem, Unhealthy, UsageError
from provision.etcd.member import layout, recovery_marker
from provision.etcd.pki import certificates, keyfiles, lost_ca, own_ca, tls
from provision.host import gather
from provision.host.facts import UnitState
from provision.inventory.resolved import Established
from provision.plans.etcd.certificates import replace_lost_ca, rotate_certs
from provision.plans.etcd.state.observe import EtcdState
from provision.ssh.session import Fleet
from tests.unit.test_rotate import OUTAGE, PKI, World, on, titles

REPO = Path(__file__).parents[2]
BOTH = [f"infra{i} trusts the lost and the new CA" for i in (1, 2, 3)]
LEAVES = [f"renew infra{i}" for i in (1, 2, 3)]
OWN = ["make this tool's own certificate"]
NEW = [f"infra{i} trusts the new CA only" for i in (1, 2, 3)]
END = ["forget the lost CA"]
Begin = Callable[..., bool]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def state(world: World, active: str = "active") -> EtcdState:
    seen = world.observed()
    unit = UnitState("loaded", active, "running", "enabled")
    return replace(
        seen, facts={m: replace(f, units={layout.UNIT: unit}) for m, f in seen.facts.items()}
    )


def lose(world: World) -> Path:
    home = own_ca.home(world.cluster.tls.pki_dir, "c")
    shutil.rmtree(home)
    return home


def refused(world: World, active: str = "active", *, write: bool = True) -> list[str]:
    with pytest.raises(PreflightFailed) as caught:
        tls.authority(world.cluster, state(world, active).facts, write=write)
    assert caught.value.id == "ca-unknown"
    assert "rotate-certs --ca --ca-lost c" in caught.value.message
    return [p.what for p in caught.value.problems]


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize("active", ["active", "inactive", "activating"])
def test_no_ca_is_made_beside_one_that_is_not_at_hand(
    world: World, active: str, write: bool
) -> None:
    home = lose(world)
    assert len(refused(world, active, write=write)) == 3
    assert not home.exists()


def test_a_certificate_that_has_expired_is_no_leave_to_make_a_ca(world: World) -> None:
    world.expire("infra1", "infra2", "infra3")
    home = lose(world)
    assert len(refused(world)) == 3
    with pytest.raises(PreflightFailed, match="not in"):
        rotate_certs.leaves(on(world.inventory), state(world), world.cluster.members, write=True)
    assert not home.exists()


def test_another_ca_at_hand_is_no_better_than_none(world: World, tmp_path: Path) -> None:
    """A CA that a run on this machine has made by mistake, and that no host has."""
    lose(world)
    own_ca.ensure_ca(tmp_path, "c")
    assert len(refused(world, "inactive")) == 3


def test_what_is_on_a_host_may_be_no_certificate(world: World) -> None:
    lose(world)
    world.files["infra1"][f"{PKI}/peer.crt"] = b"\x1b[2Jnonsense"
    said = refused(world, "inactive")
    assert said[0] == "has a peer certificate of another CA (its file is no certificate)"


def test_hosts_that_do_not_count(world: World, tmp_path: Path) -> None:
    """One member of the CA shows whose the CA is; then stopped and odd members do not count."""
    other = own_ca.ensure_ca(tmp_path / "other", "c")
    world.files["infra2"] = world.signed(world.cluster.members[1], other)
    facts = state(world, "inactive").facts
    assert tls.authority(world.cluster, facts, write=False) is not None
    assert refused(world) == ["runs with a peer certificate of another CA (CN=c etcd CA)"]
    odd = replace(world.cluster, established=Established(odd=frozenset({"infra2"})))
    assert tls.authority(odd, state(world).facts, write=False) is not None


def test_a_folder_without_a_ca_shows_nobody_whose_it_is(world: World, tmp_path: Path) -> None:
    """Only ``retired`` is left of it, and the hosts have two later CAs."""
    old = own_ca.load_ca(tmp_path, "c")
    home = lose(world)
    kept = home / own_ca.RETIRED / "x"
    kept.mkdir(parents=True)
    (kept / own_ca.CA_CERTIFICATE).write_bytes(old.cert_pem)
    assert len(refused(world, "inactive")) == 3
    assert not (home / own_ca.CA_KEY).exists()


def test_the_ca_of_the_other_listener_counts_too(world: World) -> None:
    """The inventory declares TLS for clients only now: the hosts have peer certificates."""
    members = tuple(replace(m, peer_tls=False, client_tls=True) for m in world.cluster.members)
    declared = world.cluster.tls.model_copy(update={"peer": False, "client": True})
    world.cluster = replace(world.cluster, members=members, tls=declared)
    facts = state(world).facts
    assert tls.authority(world.cluster, facts, write=False) is not None
    home = lose(world)
    assert refused(world) == ["has the ca.crt of another CA"] * 3
    assert not home.exists()
    odd = replace(world.cluster, established=Established(odd=frozenset(world.files)))
    assert tls.authority(odd, facts, write=False) is not None


def test_a_first_deploy_makes_its_ca(world: World) -> None:
    home = lose(world)
    assert tls.authority(world.cluster, {}, write=True) is not None
    assert (home / own_ca.CA_KEY).exists()


@pytest.mark.long
def test_only_these_functions_make_a_ca() -> None:
    """:func:`tls.authority` asks before it makes one. Every other maker replaces one."""
    names = ("ensure_ca", "begin_replacement", "preview_replacement", "preview")
    makers = [f"own_ca.{name}" for name in names]
    found: dict[str, set[str]] = {}
    for path in (REPO / "provision").rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and ast.unparse(node) in makers:
                    found.setdefault(path.name, set()).add(function.name)
    assert found == {
        "tls.py": {"_own"},
        "lost_ca.py": {"begin"},
        "rotate_certs.py": {"_outage", "_successor"},
    }
    source = (REPO / "provision/etcd/pki/tls.py").read_text(encoding="utf-8")
    assert source.count("_own(cluster,") == 2, "both in authority(), the first for the question"


class TestTheLostCa:
    def test_most_hosts_say_which_it_is(self, world: World, tmp_path: Path) -> None:
        """A host that somebody has taken over brings no CA of its own to the others."""
        old = own_ca.load_ca(tmp_path, "c").cert_pem
        bad = own_ca.ensure_ca(tmp_path / "bad", "c")
        assert lost_ca.found(world.cluster, state(world).facts) == old
        world.files["infra1"][f"{PKI}/ca.crt"] = old + bad.cert_pem
        assert lost_ca.found(world.cluster, state(world).facts) == old
        world.files["infra1"] = world.signed(world.cluster.members[0], bad)
        with pytest.raises(PreflightFailed) as caught:
            lost_ca.found(world.cluster, state(world).facts)
        assert [p.where.split()[0] for p in caught.value.problems] == ["infra1"]
        assert "--ca-lost c --yes-outage c" in caught.value.problems[0].remedy

    def test_what_is_left_in_the_folder_is_moved_aside(self, world: World, tmp_path: Path) -> None:
        """The key alone is lost: the tool's own pair is still good for the members."""
        home = own_ca.home(tmp_path, "c")
        pair = own_ca.renew_client(tmp_path, "c", own_ca.load_ca(tmp_path, "c"))
        old = (home / own_ca.CA_CERTIFICATE).read_bytes()
        (home / own_ca.CA_KEY).unlink()
        for _ in range(2):
            lost_ca.begin(world.cluster, old, b"another pair", timedelta(0))
        assert lost_ca.begun(world.cluster)
        new = own_ca.load_ca(tmp_path, "c").cert_pem
        assert new != old
        assert own_ca.trusted(tmp_path, "c") == new + old
        assert own_ca.client_pair(tmp_path, "c") == pair
        lost_ca.forget_pair(world.cluster)
        mine = own_ca.client_pair(tmp_path, "c").cert_pem
        assert certificates.issued(mine, own_ca.load_ca(tmp_path, "c"))

    def test_the_end_keeps_its_certificates_only(self, world: World, tmp_path: Path) -> None:
        old = own_ca.load_ca(tmp_path, "c")
        lose(world)
        lost_ca.begin(world.cluster, old.cert_pem, b"a pair", timedelta(0))
        assert lost_ca.folder(world.cluster).stat().st_mode & 0o777 == 0o700
        for _ in range(2):
            lost_ca.finish(world.cluster)
        assert not lost_ca.folder(world.cluster).exists()
        assert own_ca.retired(tmp_path, "c") == [old.certificate]
        kept = {p.name for p in own_ca.home(tmp_path, "c").rglob("*") if p.is_file()}
        assert kept == {own_ca.CA_CERTIFICATE, own_ca.CA_KEY}


def test_the_rotation_goes_on_wherever_it_was_left(world: World, tmp_path: Path) -> None:
    def plan() -> Plan:
        return replace_lost_ca.plan(on(world.inventory), state(world))

    assert titles(plan()) == []
    old = own_ca.load_ca(tmp_path, "c")
    home = lose(world)
    assert titles(plan()) == BOTH + LEAVES + OWN + NEW + END
    assert not home.exists()
    [note] = plan().notes
    assert note.id == "ca-replaced"
    assert plan().waives == (Guard.KNOWN_CA,)  # every host is of a CA that is not at hand

    found = lost_ca.found(world.cluster, state(world).facts)
    lost_ca.begin(world.cluster, found, None, timedelta(0))
    new = own_ca.load_ca(tmp_path, "c")
    assert len(refused(world)) == 3  # every other command waits for the end
    for i, m in enumerate(world.cluster.members):
        assert titles(plan()) == BOTH[i:] + LEAVES + OWN + NEW + END
        world.files[m.name][f"{PKI}/ca.crt"] = new.cert_pem + old.cert_pem
    for i, m in enumerate(world.cluster.members):
        assert titles(plan()) == LEAVES[i:] + OWN + NEW + END
        world.files[m.name] = world.signed(m, new, new.cert_pem + old.cert_pem)
    keyfiles.replace_file(lost_ca.folder(world.cluster) / own_ca.CLIENT, b"a pair", 0o600)
    plan().steps[0].calls[0].do()
    assert not lost_ca.has_pair(world.cluster)
    for i, m in enumerate(world.cluster.members):
        assert titles(plan()) == NEW[i:] + END
        world.files[m.name] = world.signed(m, new)
    plan().steps[0].calls[0].do()
    assert titles(plan()) == []
    assert own_ca.trusted(tmp_path, "c") == new.cert_pem


class TestTheOutage:
    """``--ca-lost`` with ``--yes-outage``: no member has to trust both."""

    def plan(self, world: World, active: str = "active") -> Plan:
        return replace_lost_ca.together(on(world.inventory), state(world, active))

    def test_it_goes_on_wherever_it_was_left(self, world: World, tmp_path: Path) -> None:
        assert titles(self.plan(world)) == []
        home = lose(world)
        assert titles(self.plan(world)) == ["renew this tool's own certificate", OUTAGE]
        assert not home.exists()
        new = own_ca.ensure_ca(tmp_path, "c")
        world.expire("infra2", "infra3", by=own_ca.ensure_ca(tmp_path / "old", "c"))
        members = world.cluster.members
        for left in (3, 2, 1):
            plan = self.plan(world)
            assert len(plan.steps[-1].hosts) == left
            m = members[3 - left]
            world.files[m.name] = world.signed(m, new)
        assert titles(self.plan(world)) == []
        assert own_ca.load_ca(tmp_path, "c").cert_pem == new.cert_pem

    def test_it_ends_a_rotation_without_an_outage_that_cannot_go_on(
        self, world: World, tmp_path: Path
    ) -> None:
        old = own_ca.load_ca(tmp_path, "c").cert_pem
        lose(world)
        lost_ca.begin(world.cluster, old, b"a pair", timedelta(0))
        new = own_ca.load_ca(tmp_path, "c")
        plan = self.plan(world)
        assert titles(plan) == ["renew this tool's own certificate", OUTAGE, *END]
        plan.steps[0].calls[0].do()
        assert not lost_ca.has_pair(world.cluster)
        for m in world.cluster.members:
            world.files[m.name] = world.signed(m, new)
        plan = self.plan(world)
        assert titles(plan) == ["renew this tool's own certificate", *END]
        plan.steps[-1].calls[0].do()
        assert titles(self.plan(world)) == []

    def test_a_ca_that_has_expired_is_not_lost(self, world: World) -> None:
        world.expire_ca()
        with pytest.raises(UsageError) as caught:
            self.plan(world)
        assert caught.value.id == "ca-expired"


def test_each_member_is_restarted_between_gates(world: World) -> None:
    lose(world)
    steps = replace_lost_ca.plan(on(world.inventory), state(world)).steps
    for step in steps:
        if step.hosts:
            assert step.before is not None
            assert step.after is not None
            assert len(step.hosts) == 1


@pytest.mark.parametrize("client", [True, False])
def test_members_that_are_not_healthy_are_not_touched(world: World, client: bool) -> None:
    declared = world.cluster.tls.model_copy(update={"client": client})
    world.cluster = replace(world.cluster, tls=declared)
    world.inventory = replace(world.inventory, etcd=world.cluster)
    sick = replace(world.observed(sick=True), facts=state(world).facts)
    lose(world)
    if client:  # nobody can be asked before the run: only the plan is shown
        shown = replace_lost_ca.plan(on(world.inventory), sick)
        assert titles(shown)[:3] == BOTH
    else:
        with pytest.raises(Unhealthy):
            replace_lost_ca.plan(on(world.inventory), sick)
    found = lost_ca.found(world.cluster, sick.facts)
    lost_ca.begin(world.cluster, found, None, timedelta(0))
    with pytest.raises(Unhealthy):
        replace_lost_ca.plan(on(world.inventory), sick)


class TestTheBeginning:
    """What is kept of the lost CA, before a host is changed."""

    @pytest.fixture
    def begin(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Begin:
        def of(**options: bool) -> bool:
            facts = state(world).facts
            monkeypatch.setattr(gather, "require_facts", lambda _, probes: facts)
            with Fleet(1) as fleet:
                return replace_lost_ca.begin(world.cluster, fleet, **options)

        monkeypatch.setattr(replace_lost_ca, "_pair", lambda *_: b"a pair")
        return of

    def test_a_ca_that_is_at_hand_is_not_lost(
        self, world: World, begin: Begin, tmp_path: Path
    ) -> None:
        ca = own_ca.load_ca(tmp_path, "c").cert_pem
        assert not begin()
        assert not begin(outage=True)
        assert not lost_ca.begun(world.cluster)
        assert own_ca.load_ca(tmp_path, "c").cert_pem == ca

    def test_the_members_trust_both_when_there_is_no_outage(
        self, world: World, begin: Begin, tmp_path: Path
    ) -> None:
        old = own_ca.load_ca(tmp_path, "c").cert_pem
        lose(world)
        assert begin()
        assert lost_ca.trust(world.cluster) == old
        new = own_ca.load_ca(tmp_path, "c").cert_pem
        assert new != old
        # A killed run goes on with both, also when hosts are of the new CA meanwhile.
        for m in world.cluster.members:
            world.files[m.name] = world.signed(m, own_ca.load_ca(tmp_path, "c"))
        assert begin()
        assert lost_ca.trust(world.cluster) == old
        assert own_ca.load_ca(tmp_path, "c").cert_pem == new

    @pytest.mark.parametrize("wanted", [True, False])
    def test_a_pair_is_kept_where_members_ask_for_one(
        self, world: World, begin: Begin, wanted: bool
    ) -> None:
        changed = {"client": wanted, "client_auth": wanted}
        declared = world.cluster.tls.model_copy(update=changed)
        world.cluster = replace(world.cluster, tls=declared)
        lose(world)
        assert begin()
        assert lost_ca.has_pair(world.cluster) is wanted

    def test_in_an_outage_nothing_of_the_old_one_is_kept(
        self, world: World, begin: Begin, tmp_path: Path
    ) -> None:
        home = lose(world)
        assert begin(outage=True)
        assert (home / own_ca.CA_KEY).exists()
        assert not lost_ca.begun(world.cluster)
        # Without a word about an outage, there is none.
        shutil.rmtree(home)
        assert begin()
        assert lost_ca.begun(world.cluster)

    def test_an_unfinished_restore_comes_first(
        self, world: World, begin: Begin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home = lose(world)
        unended = [Problem("infra1", "a restore is not finished", id="recovery-unfinished")]
        monkeypatch.setattr(recovery_marker, "problems", lambda *_: unended)
        with pytest.raises(PreflightFailed):
            begin()
        assert not home.exists()

    def test_a_ca_that_has_expired_is_replaced_by_another_command(
        self, world: World, begin: Begin
    ) -> None:
        old = world.expire_ca()
        with pytest.raises(UsageError) as caught:
            begin()
        assert caught.value.id == "ca-expired"
        assert own_ca.expired(world.cluster.tls.pki_dir, "c")
        # Hosts of yet another CA: that one is lost, and the expired one is no leave to say so.
        for m in world.cluster.members:
            other = own_ca.ensure_ca(world.cluster.tls.pki_dir / "other", "c")
            world.files[m.name] = world.signed(m, other)
        with pytest.raises(PreflightFailed) as refused:
            begin()
        assert refused.value.id == "ca-unknown"
        assert old.cert_pem
