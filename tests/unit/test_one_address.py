"""Several machines behind one address, each at an SSH port of its own: none stands for another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision import progress
from provision.alike import folded
from provision.cli.tasks import cluster as tasks
from provision.cli.tasks import hosts as trust
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.cluster.handle import Etcd
from provision.host import gather, preflight, tool_version
from provision.host.diff import Change
from provision.host.facts import HostFacts, Probe
from provision.inventory import load
from provision.inventory.resolved import Machine
from provision.plans import clean_host, proofs
from provision.plans.alluxio import masters, start_workers
from provision.ssh.export import ssh_config
from provision.ssh.fingerprints import Fingerprints
from provision.ssh.route import Hop
from provision.ssh.scan import Server, servers
from provision.ssh.session import Fleet, RoundTrip, Session, Stats
from provision.ssh.user_config import UserConfig
from tests.unit import builders, hosts
from tests.unit.test_master_gates import ARTIFACTS
from tests.unit.test_unreachable import left, run

A, B = (Machine("gate", port=2200 + n, where=f"i.yml:{n}:5") for n in (1, 2))
FINGERPRINT = {n: f"SHA256:{str(n) * 43}" for n in (1, 2)}


def down(machine: Machine) -> Problem:
    return Problem(machine.place, "connect: timed out after 10 s", id="host-unreachable")


class TestLines:
    def test_a_machine_has_a_line_of_its_own(self) -> None:
        assert [p.where for p in folded(map(down, (A, B)))] == [
            "gate (i.yml:1:5)",
            "gate (i.yml:2:5)",
        ]

    def test_as_often_as_it_is_named(self) -> None:
        assert folded(map(down, (A, A, B, A))) == [down(A), down(B)]

    def test_many_are_told_apart_by_their_lines(self) -> None:
        many = [replace(A, port=n, where=f"i.yml:{n}:5") for n in range(1, 7)]
        (one,) = folded(map(down, many))
        assert one.where == (
            "6 hosts: gate (i.yml:1:5), gate (i.yml:2:5), gate (i.yml:3:5), gate (i.yml:4:5), "
            "gate (i.yml:5:5) and 1 more"
        )

    def test_two_roles_at_one_host_are_one_place(self) -> None:
        """A member and a worker may have one name."""
        found = [
            Problem(Machine(f"h{n}", where=f"i.yml:{line}").place_of(f"n{n}"), "x", id="disk-full")
            for n in range(1, 5)
            for line in (n, n + 10)
        ]
        assert [p.where for p in folded(found)] == ["4 hosts: n1, n2, n3, n4"]

    def test_roles_have_names(self) -> None:
        found = [
            Problem(replace(A, port=n, where=f"i.yml:{n}:5").place_of(f"w{n}"), "x", id="disk-full")
            for n in range(1, 5)
        ]
        assert [p.where for p in folded(found)] == ["4 hosts: w1, w2, w3, w4"]

    def test_in_a_list_of_all_that_is_wrong_two_are_two(self) -> None:
        (one,) = folded(map(down, (A, B)), lambda _: True)
        assert one.where == "2 hosts: gate (i.yml:1:5), gate (i.yml:2:5)"

    @pytest.mark.parametrize(
        ("machine", "endpoint"),
        [
            (A, "gate:2201"),
            (replace(A, port=22), "gate"),
            (replace(A, port=None), "gate"),
            (replace(A, host="fd00::1"), "[fd00::1]:2201"),
        ],
    )
    def test_the_port_is_said_where_it_is_not_ssh_s_own(
        self, machine: Machine, endpoint: str
    ) -> None:
        assert machine.endpoint == endpoint

    def test_the_same_name_in_it(self) -> None:
        facts = {m: hosts.facts(n, values={"hostname": "x"}) for n, m in enumerate((A, B), 1)}
        (problem,) = preflight.hosts(facts, {})
        assert (problem.where, problem.id) == ("gate (i.yml:2:5)", "host-not-unique")
        assert problem.what == "gate (i.yml:1:5) has the same hostname: x"


class TestLooks:
    """What was seen of one is not what was seen of the other."""

    def test_each_has_facts_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Machine] = []

        def look(_: Fleet, probes: Mapping[Machine, Probe]) -> dict[Machine, HostFacts]:
            asked.extend(probes)
            return {m: hosts.facts() for m in probes}

        monkeypatch.setattr(gather, "require_facts", look)
        hosts_ = tuple(HostChanges(m.where, m, (Change("x", "true"),)) for m in (A, B))
        plan = Plan("c", "c", (Step("s", hosts_),))
        with Fleet(1) as fleet:
            fleet.stats.facts[A] = hosts.facts()
            etcd = Etcd(builders.etcd(), fleet)
            proofs._tool_version(plan, proofs.Subject("c", etcd, established=True, leases=False))
        assert asked == [B]

    def test_each_may_lack_programs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = {A: replace(hosts.facts(1), lacks=("flock",)), B: hosts.facts(2)}
        monkeypatch.setattr(gather, "_gather", lambda *_: (seen, []))
        for look in (gather.gather_facts, gather.require_facts):
            with Fleet(1, changes=True) as fleet, pytest.raises(PreflightFailed) as refused:
                look(fleet, {A: Probe(), B: Probe()})
            assert [p.where for p in refused.value.problems] == ["gate (i.yml:1:5)"]

    def test_each_may_have_a_newer_version(self) -> None:
        seen = {m: hosts.facts(values={tool_version.FACT: "99.0.0"}) for m in (A, B)}
        for some, where in (([A, B], "gate:2201, gate:2202"), ([A], "gate:2201")):
            facts = {m: seen[m] if m in some else hosts.facts() for m in (A, B)}
            with pytest.raises(PreflightFailed) as refused:
                tool_version.require_not_newer(facts)
            assert [p.where for p in refused.value.problems] == [where]

    def test_each_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waited: list[list[str]] = []

        def ask(session: Session) -> None:
            (wait,) = progress.BOARD.now()
            waited.append(list(wait.names))

        with Fleet(1) as fleet:
            fleet.map(ask, [A, B])
        assert waited == [["gate:2201", "gate:2202"], ["gate:2202"]]

    def test_each_has_round_trips_of_its_own(self) -> None:
        stats = Stats()
        for machine in (A, B):
            stats.add(RoundTrip(machine.endpoint, "facts", 1.0, 1, 1))
        assert stats.per_host() == {"gate:2201": 1, "gate:2202": 1}

    def test_a_worker_may_be_away_beside_a_member(self) -> None:
        """Only a member's host must answer."""
        given = run(a="host-unreachable")
        member = Machine("a", port=2201)
        given.inventory.etcd.members[0].machine = member
        assert left(given, "1") == ["b", "c", "m"]

    def test_a_master_s_neighbour_may_be_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It was asked for its journal only."""
        pair = tuple(
            builders.master(f"m{n}", "gate", machine=machine, hostname=f"m{n}")
            for n, machine in enumerate((A, B), 1)
        )
        alluxio = builders.alluxio(masters=pair)

        def look(_: Fleet, probes: Mapping[Machine, Probe]) -> Any:
            return {A: hosts.facts(1)}, [down(B)]

        monkeypatch.setattr(gather, "gather_facts", look)
        monkeypatch.setattr(start_workers, "fetch", lambda *_, **__: ARTIFACTS)
        monkeypatch.setattr(masters, "is_primary", lambda *_: False)
        with Fleet(1) as fleet:
            assert list(masters.observe(alluxio, fleet, pair[:1]).facts) == [A]
            with pytest.raises(PreflightFailed) as refused:
                masters.observe(alluxio, fleet, pair)
        assert down(B) in refused.value.problems


class TestNames:
    """A command for one host finds that one."""

    INVENTORY = builders.inventory(
        builders.alluxio(
            *(
                builders.worker(f"w{n}")._replace(machine=machine)
                for n, machine in enumerate((A, B), 1)
            ),
            builders.worker("gate", "elsewhere"),
        )
    )

    def test_of_a_worker(self) -> None:
        assert [tasks._machine(self.INVENTORY, name) for name in ("w1", "w2")] == [A, B]

    def test_a_name_comes_before_an_address(self) -> None:
        assert tasks._machine(self.INVENTORY, "gate") == Machine("elsewhere")

    def test_an_address_of_two_is_none(self) -> None:
        alluxio = self.INVENTORY.alluxio
        assert alluxio is not None
        two = replace(self.INVENTORY, alluxio=replace(alluxio, workers=alluxio.workers[:2]))
        with pytest.raises(UsageError, match="give a name, w1 or w2"):
            tasks._machine(two, "gate")

    def test_what_one_has_the_other_has_not(self) -> None:
        """clean-host removes from B what another cluster has there."""
        inventory = replace(
            self.INVENTORY, alluxio=builders.alluxio(builders.worker("w1")._replace(machine=A))
        )
        unit = clean_host.UNITS["worker"]
        text = "[Unit]\nX-Alluxio-Provision-Cluster=c\n[Service]\nUser=alluxio\n"
        text += "WorkingDirectory=/var/lib/alluxio\nReadWritePaths=/var/lib/alluxio /var/log/a\n"
        text += "ExecStart=/opt/alluxio/current/bin/launch-process worker\n"
        found = clean_host.installed("worker", hosts.facts(paths={unit[1]: hosts.text(text)}), "x")
        assert found is not None
        declared = [clean_host._declared(inventory, found, machine) for machine in (A, B)]
        assert declared == [True, False]


def hop(port: int, name: str = "gate") -> Hop:
    return Hop(name, "10.0.0.9", port, "op")


class TestKeys:
    @pytest.fixture
    def found(self) -> Sequence[Server]:
        names = {A: ["w1"], B: ["w2"]}
        return servers(names, lambda m: (hop(m.port or 22),), 2)[0]

    @pytest.mark.parametrize("name", ["gate", "10.0.0.9"])
    def test_a_line_of_both_is_of_none(
        self, found: Sequence[Server], tmp_path: Path, name: str
    ) -> None:
        """Else one could pass for the other."""
        aliases = trust._aliases(found, {A: ["w1"], B: ["w2"]})
        file = tmp_path / "f"
        file.write_text(f"{name} {FINGERPRINT[1]}\n")
        said = [Fingerprints(file).verdict(s, FINGERPRINT[1], aliases[s]) for s in found]
        assert said == ["missing", "missing"]

    @pytest.mark.parametrize("names", [("w1", "w2"), ("[10.0.0.9]:2201", "[10.0.0.9]:2202")])
    def test_a_line_of_one_counts(
        self, found: Sequence[Server], tmp_path: Path, names: Sequence[str]
    ) -> None:
        aliases = trust._aliases(found, {A: ["w1"], B: ["w2"]})
        file = tmp_path / "f"
        file.write_text("".join(f"{names[n - 1]} {FINGERPRINT[n]}\n" for n in (1, 2)))
        expected = Fingerprints(file)
        for n, server in enumerate(found, 1):
            assert expected.verdict(server, FINGERPRINT[n], aliases[server]) == "same"
            assert expected.verdict(server, FINGERPRINT[3 - n], aliases[server]) == "other"

    def test_the_host_alone_at_its_address(self, tmp_path: Path) -> None:
        found, _ = servers({A: ["w1"]}, lambda m: (hop(2201),), 1)
        aliases = trust._aliases(found, {A: ["w1"]})
        assert aliases == {found[0]: {"gate", "10.0.0.9", "w1"}}

    def test_jump_hosts(self) -> None:
        """Their problems are two, too."""
        routes = {A: (hop(2221, "jump"), hop(1, "a")), B: (hop(2222, "jump"), hop(2, "b"))}
        found, _ = servers({A: ["w1"], B: ["w2"]}, lambda m: routes[m], 2)
        assert [s.where for s in found if s.jump] == ["jump host jump:2221", "jump host jump:2222"]
        found, _ = servers({A: ["w1"]}, lambda m: routes[m], 2)
        assert [s.where for s in found if s.jump] == ["jump host jump"]


INVENTORY = """\
cluster: c
etcd:
  version: 3.6.16
  source: {package: true}
  members:
    infra0: {host: gate, address: 10.0.0.1, ssh: {port: 2201}}
alluxio:
  version: "313"
  source: {url: "https://example.com/alluxio.tar.gz", sha256: "%s"}
  java: {home: /java11}
  properties: {alluxio.dora.client.ufs.root: /tmp}
  masters:
    m1: {host: gate, hostname: m1, ssh: {port: 2201}}
    m2: {host: gate, hostname: m2, ssh: {port: 2202}}
    m3: {host: m3.example.com}
  workers:
    w1: {host: gate, hostname: w1, ssh: {port: 2201}, java_home: /other}
    w2: {host: gate, hostname: w2, ssh: {port: 2202}}
"""


class TestInventory:
    def load(self, path: Path, *edits: tuple[str, str]) -> Any:
        text = INVENTORY % ("0" * 64)
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        file = path / "i.yml"
        file.write_text(text)
        return load(file)

    def problems(self, path: Path, *edits: tuple[str, str]) -> list[str]:
        with pytest.raises(UsageError) as refused:
            self.load(path, *edits)
        return [p.what for p in refused.value.problems if p.severity == "error"]

    def test_no_port_and_ssh_s_own_are_one_host(self, tmp_path: Path) -> None:
        """clean-host, say, would take a role of this inventory for another cluster's."""
        ports = ("m2, ssh: {port: 2202}", "m2, ssh: {port: 22}"), (", ssh: {port: 2201}", "")
        found = self.problems(tmp_path, *ports)
        assert "masters 'm1' and 'm2' are on the same host 'gate'" in found
        assert any("'gate' has other ssh settings than at" in what for what in found)

    def test_where_the_port_is_not_known_a_role_is_not_another_clusters(self) -> None:
        known = Machine("gate", port=2201)
        assert known.may_be(Machine("Gate"))
        assert not known.may_be(Machine("gate", port=2202))
        assert not known.may_be(Machine("other"))

    def test_two_masters(self, tmp_path: Path) -> None:
        found = self.load(tmp_path).alluxio
        assert [m.java_home for m in found.masters] == ["/other", "/java11", "/java11"]

    def test_two_masters_of_one_name(self, tmp_path: Path) -> None:
        (what,) = self.problems(tmp_path, ("hostname: m2", "hostname: m1"))
        assert what == "workers would reach both masters 'm1' and 'm2' at m1:19998"

    def test_two_masters_on_one_host(self, tmp_path: Path) -> None:
        (what,) = self.problems(tmp_path, ("m2, ssh: {port: 2202}", "m2, ssh: {port: 2201}"))
        assert what == "masters 'm1' and 'm2' are on the same host 'gate'"

    def test_they_are_two_hosts(self, tmp_path: Path) -> None:
        """At its loopback address the member is reached by itself alone."""
        found = self.problems(
            tmp_path,
            ("address: 10.0.0.1", "address: 127.0.0.1"),
            ("    m3: {host: m3.example.com}\n", "    m3: {host: gate, ssh: {port: 2203}}\n"),
        )
        assert found == [
            "other hosts cannot reach 'infra0' at the loopback address '127.0.0.1'",
        ]

    def test_ssh_s_configuration_has_no_host_for_both(self, tmp_path: Path) -> None:
        text = ssh_config(self.load(tmp_path), UserConfig([]))
        blocks = [line for line in text.splitlines() if line.startswith("Host ")]
        assert blocks == ["Host infra0 w1", "Host w2"]
