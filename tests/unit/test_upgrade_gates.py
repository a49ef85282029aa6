"""The gates before etcd 3.6 and 3.7: every member is asked, and what it says is waited for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from provision.engine.plan import Gate
from provision.errors import PreflightFailed, Problem, ProvisionError, Unhealthy
from provision.etcd.cluster import gates, health
from provision.etcd.cluster.handle import Etcd
from provision.inventory.resolved import EtcdMember, Machine
from provision.plans.etcd import before_3_6, before_3_7
from provision.ssh.session import Fleet, Result
from tests.unit import builders, clock, fake_etcd

CLUSTER = builders.etcd()
ONE, TWO, THREE = CLUSTER.members
CLEAN = f"{before_3_6.CLEAN}\n"


class Hosts(Fleet):
    """What the command of each host says."""

    def __init__(self) -> None:
        super().__init__(1)
        self.said: dict[str, Result | ProvisionError] = {}
        self.commands: dict[str, str] = {}

    def map(self, work: Any, machines: Sequence[Machine], **_: Any) -> dict[Machine, Any]:
        found: dict[Machine, Any] = {}
        for machine in machines:
            try:
                found[machine] = work(_Session(self, machine))
            except ProvisionError as error:
                found[machine] = error
        return found


class _Session:
    def __init__(self, fleet: Hosts, machine: Machine) -> None:
        self.fleet, self.machine = fleet, machine

    def run(self, command: str, what: str, *, timeout: float) -> Result:
        assert (what, timeout) == ("check v2store", before_3_6.CHECKED_WITHIN)
        self.fleet.commands[self.machine.host] = command
        said = self.fleet.said.get(self.machine.host, Result(0, CLEAN, "", 0.0))
        if isinstance(said, ProvisionError):
            raise said
        return said


class TestV2Data:
    def test_every_member_is_asked_with_the_tool_of_the_release(self) -> None:
        fleet = Hosts()
        gate = before_3_6.no_v2_data(Etcd(CLUSTER, fleet), "3.5.35")
        assert isinstance(gate, Gate)
        gate.check()
        assert fleet.commands == {
            m.machine.host: before_3_6.script(CLUSTER, m, "3.5.35") for m in CLUSTER.members
        }

    def test_only_the_named_are_asked_each_with_its_own(self) -> None:
        fleet = Hosts()
        before_3_6.require_no_v2_data(
            Etcd(CLUSTER, fleet), {"infra1": "3.5.34", "infra3": "3.5.35"}
        )
        assert fleet.commands == {
            "10.0.0.1": before_3_6.script(CLUSTER, ONE, "3.5.34"),
            "10.0.0.3": before_3_6.script(CLUSTER, THREE, "3.5.35"),
        }

    def test_all_that_may_not_start_are_named(self) -> None:
        fleet = Hosts()
        away = Problem("infra3", "no route", id="host-unreachable")
        fleet.said = {
            "10.0.0.1": Result(0, f"{before_3_6.FOUND} content: /a\n", "", 0.0),
            # A failed command shows why on its other output.
            "10.0.0.2": Result(1, CLEAN.replace("No", "?"), f"{before_3_6.FOUND} /b", 0.0),
            "10.0.0.3": PreflightFailed("no route", [away], id="host-unreachable"),
        }
        with pytest.raises(PreflightFailed) as refused:
            before_3_6.require_no_v2_data(
                Etcd(CLUSTER, fleet), dict.fromkeys(("infra1", "infra2", "infra3"), "3.5.35")
            )
        assert [(p.where, p.id) for p in refused.value.problems] == [
            ("infra3", "host-unreachable"),
            ("infra1 at 10.0.0.1", "etcd-v2-data"),
            ("infra2 at 10.0.0.2", "etcd-v2-data"),
        ]
        assert refused.value.id == "host-unreachable"

    def test_errors_of_a_command_that_succeeds_say_nothing(self) -> None:
        fleet = Hosts()
        fleet.said = {"10.0.0.1": Result(0, "", CLEAN, 0.0)}
        with pytest.raises(PreflightFailed) as refused:
            before_3_6.require_no_v2_data(Etcd(CLUSTER, fleet), {"infra1": "3.5.35"})
        assert "not known" in refused.value.problems[0].what

    def test_no_room_is_seen_among_other_lines(self) -> None:
        problem = before_3_6.verdict(ONE, "noise\nroom free=1 need=2\nnoise\n")
        assert problem is not None
        assert problem.id == "disk-full"


class TestSnapshot:
    """The gate after a member of 3.6 was told to write snapshots often."""

    @pytest.fixture
    def now(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[clock.Clock]:
        self.etcd = fake_etcd.install(monkeypatch)
        self.handle = Etcd(CLUSTER, Fleet(1))
        self.newest = [10]
        self.done: list[str] = []
        monkeypatch.setattr(before_3_7, "_newest", self._newest)
        monkeypatch.setattr(health, "verify_write", self._write)
        monkeypatch.setattr(gates, "all_healthy", self._healthy)
        found = clock.install(monkeypatch)
        yield found
        assert set(found.slept) <= {gates.POLL_SECONDS}

    def _newest(self, etcd: Etcd, member: EtcdMember) -> int:
        assert (etcd, member) == (self.handle, TWO)
        return self.newest.pop(0) if len(self.newest) > 1 else self.newest[0]

    def _write(self, etcd: Etcd, member: EtcdMember) -> None:
        assert (etcd, member) == (self.handle, TWO)
        self.done.append("write")

    def _healthy(self, etcd: Etcd, member: EtcdMember) -> Gate:
        assert (etcd, member) == (self.handle, TWO)
        return Gate("healthy", lambda: self.done.append("healthy"))

    def test_it_has_one_of_all_that_it_had_applied(self, now: clock.Clock) -> None:
        self.newest = [10, 29, 30]  # its log is at 30
        before_3_7.snapshot_written(self.handle, TWO).check()
        assert self.done == ["healthy", "write", "write"]
        assert self.etcd.clients == [("infra2", None)]
        assert len(now.slept) == 2

    def test_it_had_one_already(self, now: clock.Clock) -> None:
        self.newest = [30]
        before_3_7.snapshot_written(self.handle, TWO).check()
        assert self.done == ["healthy"]

    def test_it_writes_none(self, now: clock.Clock) -> None:
        with pytest.raises(Unhealthy, match="writes no snapshot") as refused:
            before_3_7.snapshot_written(self.handle, TWO).check()
        assert refused.value.id == "upgrade-stopped"
        assert sum(now.slept) == pytest.approx(before_3_7.WRITTEN_WITHIN, abs=0.1)
