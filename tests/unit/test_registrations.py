"""forget-worker's choice, kept files, and what the refusal of an id means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from provision.alluxio.membership import removed
from provision.alluxio.membership.registrations import (
    Entry,
    Registration,
    RegistrationSnapshot,
    UnknownRegistration,
)
from provision.check_nodes import status
from provision.errors import PreflightFailed, ProvisionError, Unhealthy, UsageError
from provision.etcd.api.values import KeyValue
from provision.etcd.cluster.handle import Etcd
from provision.plans.alluxio import forget_worker, join_conflict
from provision.ssh.session import Fleet
from tests.unit import builders

UUID = "a35c88ee-3346-4068-bd59-a3169f10f788"
#: As Alluxio 313 wrote it.
REFUSED = (
    "2026-11-24 05:52:11,243 ERROR [main] MembershipOnlyWorker - Worker failed: Some other member "
    "with same id registered on the ring, bail.Conflicting worker addr:WorkerNetAddress{"
    "host=10.0.0.21, containerHost=, rpcPort=29999, dataPort=29997, webPort=30000, "
    "domainSocketPath=, secureRpcPort=0, httpServerPort=28080}, worker identity:"
    f"worker-{UUID}.Different workers can't assume same worker identity in non-k8s env,clean "
    "local worker identity settings to continue."
)


def entry(worker_id: str, host: str, lease: int = 0) -> Entry:
    key = KeyValue(worker_id.encode(), b"{}", lease, 5)
    return Entry(key, Registration(worker_id, host, 29999, 0, 0, "AUTHORIZED", -1))


def seen(authorized: dict[str, str], live: dict[str, str]) -> RegistrationSnapshot:
    return RegistrationSnapshot(
        "c",
        9,
        {i: entry(i, host) for i, host in authorized.items()},
        {i: entry(i, host, 7) for i, host in live.items()},
    )


class TestStale:
    """Of the declared workers w1 and w2."""

    def stale(self, authorized: dict[str, str], live: dict[str, str]) -> list[str]:
        return forget_worker.stale(builders.alluxio(), seen(authorized, live))

    def test_an_address_that_is_nobodys(self) -> None:
        assert self.stale({"a": "w1", "b": "gone"}, {}) == ["b"]

    def test_one_whose_worker_is_live_under_another_id(self) -> None:
        assert self.stale({"a": "W1", "b": "w1"}, {"b": "w1"}) == ["a"]

    def test_never_a_live_one(self) -> None:
        assert self.stale({"a": "gone", "b": "w1"}, {"a": "gone", "b": "w1"}) == []

    def test_never_a_declared_worker_that_is_down(self) -> None:
        assert self.stale({"a": "w1", "b": "w2"}, {}) == []

    def test_never_what_cannot_be_read(self) -> None:
        found = seen({}, {})
        unknown = Entry(entry("x", "h").key, UnknownRegistration("x", "?"))
        found = RegistrationSnapshot("c", 9, {"x": unknown}, found.live)
        assert forget_worker.stale(builders.alluxio(), found) == []


def test_a_live_one_is_refused_with_what_to_do() -> None:
    found = seen({"a": "w1", "b": "gone", "c": "w2"}, {"a": "w1", "b": "gone"})
    with pytest.raises(PreflightFailed, match="2 ids are live") as caught:
        forget_worker.require_not_live(builders.alluxio(), found, ["a", "b", "c"])
    assert [(p.where, p.what, p.remedy) for p in caught.value.problems] == [
        (
            *("a", "is LIVE at w1:29999: nothing is removed"),
            "invoke decommission-worker w1 stops it first",
        ),
        (
            *("b", "is LIVE at gone:29999: nothing is removed"),
            "stop the worker there, and wait until its lease has ended",
        ),
    ]
    forget_worker.require_not_live(builders.alluxio(), found, ["c"])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"schema": "alluxio-provision/registration/2"}',
        json.dumps({"schema": removed.SCHEMA, "cluster": "c", "key_base64": "L2V0Yw=="}),
        json.dumps(
            {
                **{"schema": removed.SCHEMA, "cluster": "c", "worker_id": "w"},
                **{"key_base64": "L2V0Yw==", "value_base64": "e30="},
            }
        ),
    ],
)
def test_a_file_that_is_no_registration(content: str, tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    file.write_text(content)
    with pytest.raises(UsageError, match="is not a saved registration"):
        removed.read(file)


def test_an_id_makes_a_plain_file_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = removed.new_file("c", "../../etc/x\x1b[2J", b"raw")
    assert path.parent == tmp_path / "alluxio-provision" / "registrations"
    assert path.name.startswith("c-______etc_x__2J.")
    assert path.name != removed.new_file("c", "../../etc/x\x1b_2J", b"other").name


class TestRefusal:
    def found(self, lines: list[str], live: bool | None) -> str:
        alluxio = builders.alluxio()
        problem = join_conflict.found(lines, alluxio, alluxio.workers[1], live)
        return "" if problem is None else f"{problem.what} ({problem.remedy})"

    def test_stale(self) -> None:
        said = self.found(["x", REFUSED, "\tat alluxio..."], live=False)
        assert f"its id worker-{UUID} is registered as 10.0.0.21:29999" in said
        assert f"invoke forget-worker worker-{UUID}, then invoke start-workers w2" in said

    def test_a_clone_of_a_live_worker(self) -> None:
        said = self.found([REFUSED], live=True)
        assert "on w2 rm /var/lib/alluxio/worker_identity" in said
        assert "forget-worker" not in said

    def test_nobody_has_looked(self) -> None:
        said = self.found([REFUSED], live=None)
        assert "forget-worker" in said
        assert "rm /var/lib/alluxio/worker_identity" in said

    def test_other_logs(self) -> None:
        assert self.found(["Worker started"], None) == ""

    def test_an_odd_form_of_it(self) -> None:
        said = self.found([f"{join_conflict.TEXT}, and nothing more"], live=False)
        assert "registered at another address" in said
        assert "forget-worker ID" in said

    @pytest.mark.parametrize(("live", "says"), [({}, "forget-worker"), ({"w": "w9"}, "clone")])
    def test_it_is_looked_for_on_the_hosts_and_in_etcd(
        self, live: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alluxio = builders.alluxio()
        one, other = alluxio.workers
        away = ProvisionError("gone", id="etcd-refused")
        said = {one.machine: f"{REFUSED}\n", other.machine: away}
        found = seen({}, {f"worker-{UUID}": host for host in live.values()})
        with Fleet(1) as fleet:
            monkeypatch.setattr(fleet, "map", lambda *_: said)
            monkeypatch.setattr(forget_worker, "look", lambda *_: found)
            handle = Etcd(builders.inventory(alluxio).etcd, fleet)
            (name,) = refused = join_conflict.explained(alluxio, handle, alluxio.workers)
        assert name == "w1"
        assert says in refused[name].remedy

    def test_a_log_that_is_shown_is_read_with_etcds_answer(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever reads the clone's log must not be sent to forget a worker that is live."""
        inventory = builders.inventory(builders.alluxio())
        assert inventory.alluxio is not None
        machine = inventory.alluxio.workers[1].machine
        handle = Etcd(inventory.etcd, Fleet(1))
        away = Unhealthy("away", id="member-down")
        answers: list[Any] = [seen({}, {f"worker-{UUID}": "w9"}), away]

        def look(*_: object) -> RegistrationSnapshot:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return cast(RegistrationSnapshot, answer)

        monkeypatch.setattr(forget_worker, "look", look)
        (problem,) = status.meaning(inventory, handle, machine, ["x", REFUSED, "y"])
        assert problem.remedy.startswith("that worker is LIVE, so this host is a clone")
        (problem,) = status.meaning(inventory, handle, machine, [REFUSED])
        assert problem.remedy.startswith("if no worker runs there any more")
        assert status.meaning(inventory, handle, machine, ["Worker started"]) == []
