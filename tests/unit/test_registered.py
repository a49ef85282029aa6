"""What etcd says of this cluster's workers, and of others', before workers start or all is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provision.alluxio.membership import clusters, registrations
from provision.alluxio.membership.clusters import Cluster, Clusters
from provision.alluxio.worker import desired
from provision.engine.guards import Guard
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.api.values import Login
from provision.etcd.cluster.handle import Etcd
from provision.inventory.membership_type import MembershipType
from provision.inventory.resolved import AlluxioCluster
from provision.plans import destroy
from provision.plans.alluxio import start_workers
from provision.ssh.session import Fleet
from tests.unit import builders, fake_etcd
from tests.unit.fake_etcd import FakeEtcd

ALLUXIO = builders.alluxio()
LOGIN = Login("alluxio", "secret")


@pytest.fixture
def etcd(monkeypatch: pytest.MonkeyPatch) -> FakeEtcd:
    found = fake_etcd.install(monkeypatch)
    found.put(registrations.authorized_prefix("c") + "a", "{}")
    monkeypatch.setattr(clusters, "names_as_root", lambda etcd, client: ["c", "d"])
    return found


class TestRegistered:
    def registered(
        self, alluxio: AlluxioCluster = ALLUXIO, *, external: bool = False
    ) -> tuple[registrations.RegistrationSnapshot | None, list[Problem]]:
        with Fleet(1) as fleet:
            return start_workers._registered(
                alluxio, Etcd(replace(builders.etcd(), external=external), fleet)
            )

    def test_all_of_this_cluster(self, etcd: FakeEtcd) -> None:
        seen, problems = self.registered()
        assert seen is not None
        assert set(seen.authorized) == {"a"}
        assert problems == []
        assert etcd.clients == [("any", None)]

    def test_without_etcd_there_is_nothing_to_ask(self, etcd: FakeEtcd) -> None:
        static = replace(ALLUXIO, membership=MembershipType.STATIC)
        assert self.registered(static) == (None, [])
        assert etcd.clients == []

    def test_a_cluster_that_alluxio_would_mix_up_with_it(
        self, etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mixed = [Problem("cluster cc", "is mixed up with c", id="cluster-names-alike")]

        def mixed_up(
            name: str, names: list[str], seen: registrations.RegistrationSnapshot
        ) -> list[Problem]:
            assert (name, names, set(seen.authorized)) == ("c", ["c", "d"], {"a"})
            return mixed

        monkeypatch.setattr(clusters, "mixed_up", mixed_up)
        seen, problems = self.registered()
        assert seen is not None
        assert problems == mixed

    @pytest.mark.parametrize("external", [False, True])
    def test_a_login_while_authentication_is_off(
        self, etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch, external: bool
    ) -> None:
        monkeypatch.setattr(desired, "login", lambda alluxio: LOGIN)
        seen, problems = self.registered(external=external)
        assert seen is None
        assert [p.id for p in problems] == ["auth-differs"]
        assert ("enable-auth" in problems[0].remedy) is not external
        assert etcd.clients == [("any", LOGIN)]
        etcd.enabled = True
        assert self.registered()[1] == []

    @pytest.mark.parametrize("external", [False, True])
    def test_an_etcd_that_does_not_serve_is_a_problem(self, etcd: FakeEtcd, external: bool) -> None:
        down = Problem("etcd member infra1", "no answer", id="member-down")
        etcd.fail = {"range": Unhealthy("nobody serves", [down], id="quorum-lost")}
        seen, problems = self.registered(external=external)
        assert seen is None
        assert [(p.where, p.id) for p in problems] == [
            ("etcd member infra1", "member-down"),
            ("etcd", "etcd-not-running"),
        ]
        assert ("deploy-etcd" in problems[1].remedy) is not external
        etcd.fail = {"range": Unhealthy("nobody serves", id="quorum-lost")}
        assert [(p.what, p.id) for p in self.registered()[1]] == [
            ("nobody serves", "quorum-lost"),
            ("workers could not register", "etcd-not-running"),
        ]


class TestOthers:
    """Who would lose their etcd by destroy."""

    def others(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *found: Cluster,
        external: bool = False,
        fails: Exception | None = None,
        cut: str = "",
    ) -> tuple[Problem, ...]:
        inventory = builders.inventory(etcd=replace(builders.etcd(), external=external))

        def look(asked: object, etcd: Etcd) -> Clusters:
            assert (asked, etcd.cluster) == (inventory, inventory.etcd)
            if fails is not None:
                raise fails
            return Clusters(found, True, 9, cut)

        monkeypatch.setattr(clusters, "look", look)
        with Fleet(1) as fleet:
            return destroy.others(inventory, Etcd(inventory.etcd, fleet))

    OWN = Cluster("c", 2, 2, clusters.OURS, ())

    @pytest.mark.usefixtures("unplugged")
    def test_live_workers_of_others_end_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        some = [
            Cluster("d", 1, 1, clusters.DECLARED, ()),
            Cluster("e", 1, 0, "", ()),
            Cluster("f", 1, 3, "", ()),
        ]
        with pytest.raises(PreflightFailed) as refused:
            self.others(monkeypatch, self.OWN, *some)
        assert [p.where for p in refused.value.problems] == ["cluster d", "cluster f"]
        assert self.others(monkeypatch, self.OWN, some[1]) == ()

    @pytest.mark.usefixtures("unplugged")
    def test_an_etcd_that_cannot_be_asked_may_serve_others(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(PreflightFailed) as refused:
            self.others(monkeypatch, fails=Unhealthy("down", id="quorum-lost"))
        assert refused.value.id == "other-clusters-unknown"

    def test_an_etcd_of_others_keeps_the_registrations(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        live = Cluster("d", 1, 1, "", ())
        (note,) = self.others(monkeypatch, live, self.OWN, external=True)
        assert (note.severity, note.id) == ("warning", "registrations-unused")
        assert "keeps 2 registrations" in note.what
        none = Cluster("c", 0, 0, clusters.OURS, ())
        assert self.others(monkeypatch, live, none, external=True) == ()
        # It is not said how many they are when not all were read.
        assert self.others(monkeypatch, live, self.OWN, external=True, cut="more keys") == ()


@pytest.mark.parametrize(("asked", "known"), [(0, False), (1, False), (2, True), (3, True)])
def test_less_than_a_majority_of_members_knows_nothing_of_others(
    asked: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a quorum, a member that was cut off for weeks knows no cluster that came later."""
    inventory = builders.inventory()
    names = tuple(m.name for m in inventory.etcd.members[:asked])
    local = clusters.LocalLook({}, names, ())
    monkeypatch.setattr(clusters, "look_locally", lambda *_: local)

    def down(*_: object) -> Clusters:
        raise Unhealthy("no quorum", id="quorum-lost")

    monkeypatch.setattr(clusters, "look", down)
    with Fleet(1) as fleet:
        etcd = Etcd(inventory.etcd, fleet)
        if known:
            (note,) = destroy.others(inventory, etcd)
            assert (note.id, note.severity) == ("other-clusters-unknown", "warning")
            assert Guard.OTHER_CLUSTERS in etcd.learned.passed
            return
        with pytest.raises(PreflightFailed) as refused:
            destroy.others(inventory, etcd)
        assert refused.value.id == "other-clusters-unknown"
        assert Guard.OTHER_CLUSTERS not in etcd.learned.passed
        assert destroy.others(inventory, etcd, agreed=True)
