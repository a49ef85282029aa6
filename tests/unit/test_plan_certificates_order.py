"""rotate-certs: for how long a new CA is made, when an outage is needed, and who must be in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from provision.engine.guards import Guard
from provision.errors import PreflightFailed, UsageError
from provision.etcd.pki import certificates, imported, own_ca
from provision.host.effects import Effect
from provision.plans.etcd.certificates import rotate_certs
from tests.authority import Ca
from tests.unit import plan_text
from tests.unit import test_rotate as rotating
from tests.unit.test_deploy_plan import World as Plain
from tests.unit.test_rotate_order import (
    KINDS,
    NAMES,
    OWN,
    World,
    external,
    gates_of,
    own,
    take_in,
)

NOW = datetime.now(timezone.utc)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> plan_text.Done:
    return plan_text.spell(monkeypatch)


def lifetime(folder: Path) -> tuple[timedelta, timedelta]:
    """Since when the successor is valid, and for how long, from now on."""
    made = own_ca.authorities(folder, "c").next
    assert made is not None
    known = made.certificate
    return NOW - known.not_valid_before_utc, known.not_valid_after_utc - NOW


def test_a_new_ca_lives_as_long_as_the_inventory_says(done: plan_text.Done, tmp_path: Path) -> None:
    world = own(tmp_path)
    world.cluster = replace(world.cluster, tls=world.cluster.tls.model_copy(update={"ca_days": 90}))
    world.authority()
    _, left = lifetime(tmp_path)
    assert timedelta(days=88) < left < timedelta(days=92)


@pytest.mark.parametrize("behind", [0, 3])
def test_a_new_ca_is_valid_on_hosts_whose_clocks_are_behind(
    done: plan_text.Done, tmp_path: Path, behind: int
) -> None:
    """Or else no member would accept it for that long, and a quorum would be lost."""
    world = own(tmp_path)
    seen = world.observed()
    facts = {m: replace(f, clock_offset=-3600.0 * behind) for m, f in seen.facts.items()}
    world.authority(replace(seen, facts=facts))
    since, _ = lifetime(tmp_path)
    assert since >= timedelta(hours=behind)
    assert since < timedelta(hours=behind + 2)


@pytest.mark.parametrize(("days", "behind"), [(90, 0), (365, 3)])
def test_so_is_the_one_that_comes_with_an_outage(tmp_path: Path, days: int, behind: int) -> None:
    world = rotating.World(tmp_path)
    world.expire_ca()
    cluster = replace(world.cluster, tls=world.cluster.tls.model_copy(update={"ca_days": days}))
    world.inventory = replace(world.inventory, etcd=cluster)
    seen = world.observed()
    facts = {m: replace(f, clock_offset=-3600.0 * behind) for m, f in seen.facts.items()}
    rotate_certs.authority(rotating.on(world.inventory), replace(seen, facts=facts), write=True)
    since, left = lifetime(tmp_path)
    assert timedelta(days=days - 2) < left < timedelta(days=days + 2)
    assert timedelta(hours=behind) <= since < timedelta(hours=behind + 2)


class TestOutage:
    def test_a_plain_cluster_needs_none(self) -> None:
        """There are no certificates that could have expired."""
        plain = Plain()
        assert not rotate_certs.needs_outage(plain.cluster, plain.observed())

    def cut_off(self, folder: Path, *bundle: Ca, old: Ca) -> World:
        """infra1's certificates have expired."""
        world = external(folder, old, *bundle)
        first = world.cluster.members[0]
        for kind in KINDS:
            world.files["infra1"][f"{kind}.crt"] = world._signed(old, first, kind, days=-1)
        world.sick = {"infra1"}
        return world

    def test_all_members_must_be_in_it_not_only_who_is_cut_off(
        self, done: plan_text.Done, tmp_path: Path
    ) -> None:
        """Those left out would trust the old CA only, and cut off the others."""
        old, new = Ca("Old"), Ca("New")
        world = self.cut_off(tmp_path, old, new, old=old)
        take_in(world, new, *NAMES)
        assert rotate_certs.needs_outage(world.cluster, world.observed())
        with pytest.raises(UsageError, match="leaves out infra2, infra3"):
            world.leaves("infra1")

    def test_none_is_needed_where_the_running_members_trust_the_root_already(
        self, tmp_path: Path
    ) -> None:
        """Members trust a root; what it has signed may come through an intermediate."""
        old, root = Ca("Old"), Ca("Root")
        world = self.cut_off(tmp_path, old, root, old=old)
        for name in NAMES:
            world.files[name]["ca.crt"] = old.pem + root.pem
        take_in(world, Ca("Issuing", root), "infra1")
        assert not rotate_certs.needs_outage(world.cluster, world.observed())


class TestImported:
    def test_the_former_ca_must_stay_in_the_bundle_while_members_show_it(
        self, done: plan_text.Done, tmp_path: Path
    ) -> None:
        """Without it, the first member that trusts the new bundle would be alone."""
        old, new = Ca("Old"), Ca("New")
        world = external(tmp_path, old, new)
        take_in(world, new, *NAMES)
        with pytest.raises(PreflightFailed) as refused:
            world.leaves()
        assert refused.value.id == "ca-unknown"
        assert len(refused.value.problems) >= len(NAMES)

    @pytest.mark.parametrize(("chosen", "renews"), [(NAMES, True), (("infra1",), False)])
    def test_the_tools_own_certificate_comes_with_the_last_member(
        self,
        done: plan_text.Done,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        chosen: tuple[str, ...],
        renews: bool,
    ) -> None:
        monkeypatch.setattr(imported, "own_waiting", lambda _: b"an imported one")
        root = Ca("Root")
        world = external(tmp_path, root, root)
        take_in(world, root, *NAMES)
        assert (OWN in gates_of(world.leaves(*chosen))) is renews


def test_an_own_ca_renews_the_tools_certificate_only_with_all_members(
    done: plan_text.Done, tmp_path: Path
) -> None:
    world = own(tmp_path)
    assert gates_of(world.leaves())[-1] == OWN
    assert OWN not in gates_of(world.leaves("infra1", "infra2"))
    assert certificates.is_current(own_ca.load_ca(tmp_path, "c").certificate)


def test_a_plan_for_an_expired_ca_asks_nobody_for_a_known_ca(tmp_path: Path) -> None:
    """The CA that the members have is over; the new one is what they get. The folder of the CA on
    this machine changes."""
    world = rotating.World(tmp_path)
    world.expire_ca()
    plan = rotate_certs.authority(rotating.on(world.inventory), world.observed(), write=True)
    assert plan.waives == (Guard.KNOWN_CA,)
    retire = plan.steps[-1]
    assert retire.title == "retire the old CA"
    assert [c.effects for c in retire.calls] == [(Effect.HERE,)]
