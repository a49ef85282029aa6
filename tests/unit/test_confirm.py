"""The question before something that runs is ended, on a pseudo-terminal; and what is not asked."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import IO, Any, cast

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from provision.cli.command import command
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.engine.plan import Action, HostChanges, Plan, Step
from provision.errors import Problem
from provision.host.diff import Change
from provision.host.effects import Effect
from provision.host.kinds.units import Absent
from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet
from tests.unit import builders, hosts

pytestmark = pytest.mark.usefixtures("unguarded")


class Screen:
    """A pseudo-terminal in place of the standard streams. ``typed`` is there before it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, typed: str = "") -> None:
        self._master, slave = os.openpty()
        self._slave = slave
        os.write(self._master, typed.encode())
        self._seen = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self._streams: list[IO[str]] = []
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            stream = os.fdopen(os.dup(slave), mode, encoding="utf-8", closefd=True)
            self._streams.append(stream)
            monkeypatch.setattr(f"sys.{name}", stream)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 1 << 16):
                self._seen += data

    def text(self) -> str:
        """All that was shown, up to now. Ends the terminal."""
        for stream in self._streams:
            stream.close()
        os.close(self._slave)
        self._thread.join(10)
        os.close(self._master)
        return self._seen.decode().replace("\r\n", "\n")


@dataclass
class World:
    """Plans by the facts of each look, and what was done."""

    plans: list[Plan]
    looks: int = 0
    done: list[str] = field(default_factory=list)
    forgotten: int = 0

    def body(self, run: Run) -> int:
        run._fleet = run._fleet or Fleet(1)
        plan = self.plans[min(self.looks, len(self.plans) - 1)]
        self.looks += 1
        common.finish(run, plan, common.carry_out(run, plan))
        return 0


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    made: list[World] = []

    def of(*plans: Plan) -> World:
        made.append(World(list(plans)))
        return made[-1]

    def forgotten(run: Run) -> None:
        made[-1].forgotten += 1

    monkeypatch.setattr(Run, "forget_facts", forgotten)
    return of


def ends(world: World, **options: Any) -> int:
    def task(run: Run) -> int:
        return world.body(run)

    try:
        command(changes=True)(task).body(Context(), **options)
    except Exit as ended:
        return ended.code
    return 0


def plan(world: list[str], *what: str, effects: tuple[Effect, ...] = (Effect.REMOVAL,)) -> Plan:
    calls = tuple(Action(w, lambda w=w: world.append(w), effects) for w in what)  # type: ignore[misc]
    return Plan("task", "c", (Step("do it", calls=calls),))


def on(*changes: Change) -> Plan:
    return Plan("t", "c", (Step("s", (HostChanges("a", Machine("a"), changes),)),))


@pytest.mark.parametrize("typed", ["yes\n", "y\n", "YES\n"])
def test_after_yes_the_facts_are_read_again_and_the_plan_is_applied(
    monkeypatch: pytest.MonkeyPatch, world: Callable[..., World], typed: str
) -> None:
    done: list[str] = []
    screen = Screen(monkeypatch, typed)
    seen = world(plan(done, "stop a"), plan(done, "stop a"))
    assert ends(seen) == 0
    assert (done, seen.looks, seen.forgotten) == (["stop a"], 2, 1)
    shown = screen.text()
    assert shown.count("* stop a") == 1
    assert (
        shown.index("* stop a") < shown.index("Type yes to continue: ") < shown.index("1 changed")
    )


@pytest.mark.parametrize("typed", ["no\n", "\n", "yess\n", "\x04"])
def test_without_yes_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, world: Callable[..., World], typed: str
) -> None:
    done: list[str] = []
    screen = Screen(monkeypatch, typed)
    seen = world(plan(done, "stop a"))
    assert ends(seen) == 2
    assert (done, seen.looks) == ([], 1)
    assert "not applied: the answer was not yes; no host was changed" in screen.text()


def test_another_plan_after_the_answer_is_asked_about_again(
    monkeypatch: pytest.MonkeyPatch, world: Callable[..., World]
) -> None:
    done: list[str] = []
    screen = Screen(monkeypatch, "yes\nyes\n")
    seen = world(plan(done, "stop a"), plan(done, "stop a", "stop b"))
    assert ends(seen) == 0
    assert (done, seen.looks) == (["stop a", "stop b"], 3)
    shown = screen.text()
    assert shown.count("Type yes to continue: ") == 2
    assert (
        shown.count("the facts have changed: this plan differs from the plan that was shown") == 1
    )


def test_it_is_asked_about_also_when_it_ends_nothing_any_more(
    monkeypatch: pytest.MonkeyPatch, world: Callable[..., World]
) -> None:
    done: list[str] = []
    screen = Screen(monkeypatch, "yes\nno\n")
    assert ends(world(plan(done, "stop a"), plan(done, "look", effects=(Effect.ETCD,)))) == 2
    assert done == []
    assert "this plan differs from the plan that was shown" in screen.text()


def test_nothing_is_left_to_do_after_the_answer(
    monkeypatch: pytest.MonkeyPatch, world: Callable[..., World]
) -> None:
    screen = Screen(monkeypatch, "yes\n")
    seen = world(plan([], "stop a"), Plan("task", "c"))
    assert (ends(seen), seen.looks) == (0, 2)
    assert "0 changed" in screen.text()


def test_a_time_that_passes_is_no_other_plan(
    monkeypatch: pytest.MonkeyPatch, world: Callable[..., World]
) -> None:
    done: list[str] = []
    screen = Screen(monkeypatch, "yes\n")
    first = plan(done, "revoke, expired for 70 s; 512 GB in /mnt/p; keep x.20991129T200000Z")
    again = plan(done, "revoke, expired for 91 s; 1.2 TB in /mnt/p; keep x.20991129T200021Z")
    assert ends(world(first, again)) == 0
    assert screen.text().count("Type yes") == 1


def test_a_time_from_before_the_look_is_a_name(
    monkeypatch: pytest.MonkeyPatch, world: Callable[..., World]
) -> None:
    """Of a restore, for example: another one must not be undone by the same answer."""
    done: list[str] = []
    screen = Screen(monkeypatch, "yes\nno\n")
    first = plan(done, "back to before-restore-20261101T200000Z")
    assert ends(world(first, plan(done, "back to before-restore-20261102T200000Z"))) == 2
    assert screen.text().count("Type yes") == 2
    assert done == []


def test_a_note_is_not_told_again_after_the_answer(
    monkeypatch: pytest.MonkeyPatch, world: Callable[..., World]
) -> None:
    screen = Screen(monkeypatch, "yes\n")
    note = Problem("x", "is noted", severity="warning", id="inventory-unwise")
    assert ends(world(replace(plan([], "stop a"), notes=(note,)))) == 0
    assert screen.text().count("is noted") == 1


@pytest.mark.parametrize(
    ("options", "effects"),
    [
        ({"yes": True}, (Effect.REMOVAL,)),
        ({"dry_run": True}, (Effect.REMOVAL,)),
        ({}, (Effect.ETCD,)),
    ],
)
def test_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch,
    world: Callable[..., World],
    options: dict[str, bool],
    effects: tuple[Effect, ...],
) -> None:
    screen = Screen(monkeypatch, "no\n")
    seen = world(plan([], "stop a", effects=effects))
    assert (ends(seen, **options), seen.looks) == (0, 1)
    shown = screen.text()
    assert "Type yes" not in shown
    assert shown.count("* stop a") == 1


@pytest.mark.parametrize("piped", ["stdin", "stdout", "stderr"])
def test_scripts_and_pipes_are_not_asked(
    monkeypatch: pytest.MonkeyPatch, world: Callable[..., World], piped: str
) -> None:
    done: list[str] = []
    screen = Screen(monkeypatch, "no\n")
    with open(os.devnull, "r+", encoding="utf-8") as nowhere:
        monkeypatch.setattr(f"sys.{piped}", nowhere)
        assert ends(world(plan(done, "stop a"))) == 0
    assert done == ["stop a"]
    screen.text()


def test_with_json_the_question_leaves_stdout_to_the_document(
    monkeypatch: pytest.MonkeyPatch, world: Callable[..., World]
) -> None:
    screen = Screen(monkeypatch, "yes\n")
    assert ends(world(plan([], "stop a")), format="json") == 0
    _, question, rest = screen.text().partition("Type yes to continue: ")
    assert question
    assert json.loads(rest[rest.index("{") :])["changed"] == 1


def test_a_preview_is_never_applied(
    monkeypatch: pytest.MonkeyPatch, world: Callable[..., World]
) -> None:
    """A plan of a task that makes no file before the answer is made again, also when nothing is
    asked."""
    screen = Screen(monkeypatch, "no\n")
    done: list[str] = []
    seen = world()
    wrote: list[bool] = []

    def body(run: Run) -> int:
        run._fleet = Fleet(1)
        wrote.append(run.writes)
        made = plan(done, "renew", effects=(Effect.TRUST,))
        common.finish(run, made, common.carry_out(run, made))
        return 0

    cast(Any, seen).body = body
    assert ends(seen) == 0
    assert (wrote, done) == ([False, True], ["renew"])
    assert screen.text().count("* renew") == 1


def test_what_was_opened_is_closed_and_passwords_are_kept() -> None:
    run = Run("task")
    run._loaded = cast(Any, SimpleNamespace(inventory=builders.inventory()))
    first, run.established = run.fleet, True
    closed: list[bool] = []
    cast(Any, first).close = lambda: closed.append(True)
    etcd = run.etcd(run.inventory.etcd)
    passwords = run.passwords
    run.forget_facts()
    assert closed == [True]
    assert not run.established
    assert run.fleet is not first
    assert run.fleet.stats is first.stats
    assert run.fleet.since >= first.since
    assert run.passwords is passwords
    assert run.etcd(run.inventory.etcd).fleet is run.fleet is not etcd.fleet


STOP = Change("stop", stops=("x.service",), seconds=1)


@pytest.mark.parametrize(
    ("made", "ends_something"),
    [
        (on(STOP), True),
        (on(Change("restart", stops=("x.service",), starts=("x.service",))), True),
        (on(Change("start", starts=("x.service",), disrupts=True)), False),
        (on(Change("write")), False),
        (on(*Absent("x.timer", ("/u",)).change(hosts.facts(), hosts.facts())), True),
        (plan([], "x", effects=(Effect.MEMBERS, Effect.REMOVAL)), True),
        (plan([], "x", effects=(Effect.MEMBERS,)), False),
        (plan([], "x", effects=(Effect.ETCD_GONE,)), True),
        (plan([], "x", effects=(Effect.ETCD_BACK,)), True),
        (plan([], "x", effects=(Effect.HERE,)), False),
    ],
)
def test_what_is_asked_about_follows_from_the_effects(made: Plan, ends_something: bool) -> None:
    assert made.ends_something == ends_something
