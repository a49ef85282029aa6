"""Parts of a whole (--batch K/N): what is read, what is refused, and what the whole is."""

from __future__ import annotations

import copy
import io
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision import bounds, check_nodes
from provision.alluxio.commands.nodes import InfoNodes
from provision.alluxio.commands.read import ReadProof
from provision.alluxio.membership.leases import Expired
from provision.alluxio.membership.registrations import Registration
from provision.check_nodes import CheckReport, NodeVerdict, State, screen
from provision.check_nodes.result import CheckDocument
from provision.check_nodes.status import Service, Status
from provision.cli import command, merge, parts
from provision.cli.commands import namespace
from provision.cli.program import program
from provision.cli.run import Run
from provision.cli.tasks import cluster, common
from provision.engine.plan import Action, Gate, HostChanges, Plan, Step
from provision.errors import ChangeFailed, Locked, PreflightFailed, Problem, UsageError
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.host.diff import Change
from provision.inventory.resolved import Machine
from provision.inventory.selection import Share, digest, part
from provision.plans.etcd.data.stored import Host, Stored
from provision.ssh.session import Fleet
from provision.text import documents as text_documents
from tests import documents
from tests.unit import builders
from tests.unit.command_line import Line, lines
from tests.unit.test_check import LIVE, A, Views, healthy, members, report, rows
from tests.unit.test_check import views as views

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
NOTE = Problem("w1 (h)", "a", "b", "warning", id="disk-full")
ERROR = Problem("w9", "no route", id="host-unreachable")

any_line = pytest.fixture(lines, name="any_line")
Said = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def said(any_line: Line, capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command line, also one that succeeds: exit code, stdout, stderr."""

    def run(words: str) -> tuple[int, str, str]:
        code = 0
        try:
            program.run(["program", *words.split()])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return run


def batch(share: Share, command: str = "check-nodes", count: int = 9, **changed: Any) -> Any:
    values = {
        "number": share.number,
        "of": share.of,
        "command": command,
        "cluster": "c",
        "limit": "",
        "count": count,
        "names": "ab",
        "began": f"2026-01-02T03:04:0{share.number % 10}+00:00",
    }
    return {**values, **changed}


def shares(of: int) -> list[Share]:
    return [Share(number, of) for number in range(1, of + 1)]


def joined(*found: Mapping[str, Any], folder: Path | None = None) -> merge.Merged:
    """As merge-reports does it: read from text, found complete, joined. The document has its
    schema."""
    text = "\n".join(json.dumps(document) for document in found)
    merged = merge.merge(parts.whole([*parts._parts("x", text.encode())]))
    document = {**merged.document, "batch": None}
    documents.require(document)
    return merged


def error(share: Share, code: int, command: str = "check-nodes", **changed: Any) -> dict[str, Any]:
    return {
        "schema": "alluxio-provision/error/1",
        "id": "preflight-failed",
        "error": "3 hosts",
        "exit_code": code,
        "problems": [ERROR.document()],
        "batch": batch(share, command, **changed),
    }


def looks(whole: CheckReport, of: int) -> list[dict[str, Any]]:
    """The documents of the parts of one look."""
    declared = [n for n in whole.nodes if n.name is not None]
    others = [n for n in whole.nodes if n.name is None]
    found = []
    for share in shares(of):
        mine = tuple(declared[i] for i in _places(len(declared), share))
        own = replace(whole, nodes=(*mine, *others)).document()
        found.append({**own, "batch": batch(share)})
    return found


def _places(count: int, share: Share) -> list[int]:
    roles = [SimpleNamespace(name=str(n), place=n) for n in range(count)]
    return [role.place for role in part(roles, share)]


# -- the parts of a look, joined, are the look at the whole ---------------------------------------


@st.composite
def fleets(draw: st.DrawFn) -> CheckReport:
    """Any fleet, with anything wrong in it."""
    states = st.sampled_from([s for s in State if s is not State.UNKNOWN])
    notes = st.lists(st.sampled_from(["a", "b", "info nodes does not list it"]), max_size=2)
    ready = st.sampled_from([None, True, False])
    nodes = [
        NodeVerdict(
            f"w{n}",
            f"h{n}",
            29999,
            draw(states),
            draw(st.sampled_from([None, f"worker-{n}"])),
            draw(st.sampled_from([None, "ONLINE"])),
            tuple(draw(notes)),
            draw(st.sampled_from([None, Registration(f"worker-{n}", "h", 1, 2, 3, "JOINED", -1)])),
            draw(ready),
        )
        for n in range(draw(st.integers(0, 40)))
    ]
    strangers = [
        NodeVerdict(None, "x", n, State.UNKNOWN, f"worker-x{n}", None, ("live",))
        for n in range(draw(st.integers(0, 3)))
    ]
    seen = healthy()
    down = MemberHealth(builders.member(3), error="refused", remedy="r")
    etcd = ClusterHealth(seen.cluster, (*seen.members[:2], down)) if draw(st.booleans()) else seen
    problem = st.sampled_from([NOTE, ERROR, replace(ERROR, where="w2")])
    proof = ReadProof("/f", "h1", 5, "ab", "h1", True, "", 0.5)
    workers = [builders.worker(f"w{n}", f"h{n}") for n in range(len(nodes))]
    return report(
        *nodes,
        *strangers,
        alluxio=builders.alluxio(*workers),
        etcd=etcd,
        taken=WHEN,
        seconds=draw(st.floats(0, 100).map(lambda s: round(s, 3))),
        view_problems=tuple(dict.fromkeys(draw(st.lists(problem, max_size=3)))),
        info_nodes=draw(st.sampled_from([None, InfoNodes("h1"), InfoNodes("h1", error="no")])),
        leases=draw(st.sampled_from([None, Expired({1: 2}, 3, 4)])),
        read=draw(st.sampled_from([None, proof, replace(proof, error="no")])),
        stored=draw(
            st.sampled_from(
                [None, Stored(builders.etcd(), (Host(builders.member(1), "no"),), now=WHEN)]
            )
        ),
    )


@given(fleets(), st.integers(1, 12))
def test_the_parts_of_a_look_are_the_look_at_the_whole(whole: CheckReport, of: int) -> None:
    document = json.loads(json.dumps(whole.document()))
    found = looks(whole, of)
    random.Random(of).shuffle(found)  # files have any order
    merged = joined(*found)
    assert merged.code == whole.exit_code
    assert merged.document.pop("batch", None) is None
    assert merged.document == document


@given(fleets(), st.integers(1, 6))
def test_the_screen_is_the_same(whole: CheckReport, of: int) -> None:
    merged = cast(CheckDocument, joined(*looks(whole, of)).document)
    shown, of_whole = screen.of_document(merged), screen.of_report(whole)
    # The value in etcd is not on the screen.
    nodes = [n._replace(registration=None) for n in of_whole.nodes]
    # "installed" is told by a problem, which a random fleet does not have.
    alike = {"nodes": nodes, "unlisted": shown.unlisted, "etcd": json_of(of_whole.etcd)}
    assert shown == replace(of_whole, **alike)


def json_of(value: Any) -> Any:
    return json.loads(json.dumps(value))


@given(st.integers(0, 30), st.integers(1, 9), st.randoms(use_true_random=False))
def test_the_parts_of_a_status_are_the_status_of_the_whole(
    count: int, of: int, chance: random.Random
) -> None:
    services = tuple(
        Service(
            f"w{n}",
            Machine(f"h{n}"),
            "alluxio-worker.service",
            "c",
            chance.choice(["active", "failed"]),
            chance.randrange(3),
            chance.choice([None, "c", "d"]),
            ("/d 5 % full",),
            chance.random() < 0.1,
            chance.choice(["", "", "no route"]),
        )
        for n in range(count)
    )
    seen = Status("c", services, (NOTE, ERROR)[: chance.randrange(3)])
    found = []
    for share in shares(of):
        own = replace(seen, services=tuple(services[i] for i in _places(count, share)))
        found.append({**own.document(), "batch": batch(share, "status")})
    merged = joined(*found)
    assert merged.document == json_of(seen.document())
    assert merged.code == seen.exit_code
    assert merge.status(cast(Any, merged.document)) == seen


def test_only_the_chosen_workers_are_in_a_report_and_all_who_are_not_declared(
    views: Views,
) -> None:
    """Whoever is declared and not chosen is no stranger."""
    workers = [builders.worker(f"w{n}") for n in (1, 2, 3)]
    inventory = builders.inventory(builders.alluxio(*workers))
    B, C = (A.replace("a", c) for c in "bc")

    def look(chosen: Sequence[Any] | None) -> CheckReport:
        known = members((A, "w1"), (B, "w2"), (C, "stranger"))
        views.reads = [known, known]
        views.info = InfoNodes("w1", tuple(rows((A, "w1", "ONLINE"), (B, "w2", "ONLINE"))))
        etcd = Etcd(inventory.etcd, Fleet(2))
        return replace(check_nodes.run(inventory, etcd, chosen=chosen), taken=WHEN, seconds=1.0)

    assert [n.name for n in look(workers[1:2]).nodes] == ["w2", None]
    assert [n.name for n in look(()).nodes] == [None]
    found = [
        {**look(part(workers, share)).document(), "batch": batch(share)} for share in shares(2)
    ]
    assert joined(*found).document == json_of(look(None).document())


# -- of what all have seen, the worst counts ------------------------------------------------------


def test_where_parts_have_seen_etcd_differently_the_worst_counts() -> None:
    seen = healthy()
    down = MemberHealth(builders.member(3), error="refused")
    bad = ClusterHealth(seen.cluster, (*seen.members[:2], down))
    found = [
        {**report(etcd=etcd, taken=WHEN).document(), "batch": batch(share)}
        for share, etcd in zip(shares(3), (seen, bad, seen), strict=True)
    ]
    merged = joined(*found)
    assert merged.document["etcd"]["healthy"] == 2
    assert merged.code == 1
    (odd,) = [p for p in merged.document["problems"] if p["id"] == "parts-disagree"]
    assert odd["what"] == (
        "the parts have seen different states: 3 of 3 members healthy, leader infra1: part 1/3, "
        "part 3/3; 2 of 3 members healthy (not infra3), leader infra1: part 2/3"
    )
    assert odd["severity"] == "warning"


def test_the_times_are_of_all() -> None:
    found = [
        {
            **report(taken=WHEN + timedelta(seconds=2 * n), seconds=3.5).document(),
            "batch": batch(Share(n, 3)),
        }
        for n in (3, 1, 2)
    ]
    document = joined(*found).document
    assert document["taken"] == "2026-01-02T03:04:07.000+00:00"
    assert document["seconds"] == 7.5


def test_of_a_stranger_the_newest_look_counts() -> None:
    def seen(n: int, note: str) -> dict[str, Any]:
        stranger = NodeVerdict(None, "x", 1, State.UNKNOWN, "worker-x", None, (note,))
        taken = WHEN + timedelta(seconds=n)
        return {**report(stranger, taken=taken).document(), "batch": batch(Share(n, 2))}

    (one,) = joined(seen(1, "live"), seen(2, "no lease")).document["alluxio"]["nodes"]
    assert one["notes"] == ["no lease"]


def test_the_worst_view_of_each_kind_counts() -> None:
    proof = ReadProof("/f", "h")
    one = report(
        taken=WHEN,
        info_nodes=InfoNodes("h"),
        leases=Expired({}, 4, 4),
        read=proof,
        stored=Stored(builders.etcd(), (Host(builders.member(1)),), now=WHEN),
    )
    other = replace(
        one,
        info_nodes=InfoNodes("h", error="no"),
        leases=Expired({1: 1}, 4, 4),
        read=replace(proof, error="no"),
        revision=7,
        stored=Stored(builders.etcd(), (Host(builders.member(1), error="no"),), now=WHEN),
    )
    for pair in ((one, other), (other, one)):
        document = joined(
            *({**r.document(), "batch": batch(Share(n, 2))} for n, r in enumerate(pair, 1))
        ).document
        assert document["alluxio"]["info_nodes"]["error"] == "no"
        assert document["alluxio"]["leases"]["expired"] == 1
        assert document["alluxio"]["revision"] == 7
        assert document["read"]["error"] == "no"
        assert document["backups"]["hosts"][0]["error"] == "no"


def test_a_part_that_did_not_read_the_registrations_leaves_no_revision() -> None:
    one, other = report(taken=WHEN), report(taken=WHEN, revision=None)
    document = joined(
        {**one.document(), "batch": batch(Share(1, 2))},
        {**other.document(), "batch": batch(Share(2, 2))},
    ).document
    assert document["alluxio"]["revision"] is None


# -- plans ----------------------------------------------------------------------------------------


def on(name: str, *what: str) -> HostChanges:
    changes = (Change(w, diff=f"+{w}", stops=("u",), starts=("u",)) for w in what)
    return HostChanges(name, Machine(f"h-{name}"), tuple(changes))


def planned(
    share: Share, *steps: Step, dry: bool = False, command: str = "start-workers", **extra: Any
) -> dict[str, Any]:
    plan = Plan(command, "c", steps)
    document: dict[str, Any] = {**plan.document(), "applied": bool(steps) and not dry, **extra}
    if dry:
        document |= {"changed": 0, "would_change": plan.changed}
    return {**document, "batch": batch(share, command)}


def test_steps_with_one_title_are_one_step_and_each_part_keeps_its_order() -> None:
    wait = Gate("all live", lambda: None)
    first = planned(
        Share(1, 2),
        Step("install", (on("w1", "x"), on("w2", "x"))),
        Step("restart w1", (on("w1", "y"),), after=wait),
        Step("tidy", (on("w1", "z"),)),
        live=["w1", "w2"],
    )
    second = planned(
        Share(2, 2),
        Step("install", (on("w3", "x"),), (Action("etcd: a", lambda: None),)),
        Step("restart w3", (on("w3", "y"),), after=wait),
        Step("tidy", (on("w3", "z"),)),
        live=["w3"],
    )
    merged = joined(second, first)
    document = merged.document
    assert [(s["title"], [h["name"] for h in s["hosts"]]) for s in document["steps"]] == [
        ("install", ["w1", "w2", "w3"]),
        ("restart w1", ["w1"]),
        ("restart w3", ["w3"]),
        ("tidy", ["w1", "w3"]),
    ]
    assert document["steps"][0]["calls"] == ["etcd: a"]
    assert document["changed"] == 8
    assert document["live"] == ["w1", "w2", "w3"]
    assert merged.code == 0
    (service,) = document["affected"]
    assert service["names"] == ["w1", "w2", "w3"]
    assert service["at_once"] == 3  # two of the first part, and one of the second


@given(st.data())
def test_whatever_the_plans_are_no_change_is_lost(data: st.DataObject) -> None:
    of = data.draw(st.integers(1, 5))
    titles = st.lists(st.sampled_from("abcde"), max_size=5, unique=True)
    found = []
    for share in shares(of):
        steps = [
            Step(title, (on(f"w{share.number}", *data.draw(st.lists(st.text("xy", max_size=2)))),))
            for title in data.draw(titles)
        ]
        found.append(planned(share, *steps, live=[]))
    document = joined(*found).document
    for one in found:
        mine = f"w{one['batch']['number']}"
        own = [s["title"] for s in document["steps"] if mine in [h["name"] for h in s["hosts"]]]
        assert own == [s["title"] for s in one["steps"]]
    made = sum(len(h["changes"]) for s in document["steps"] for h in s["hosts"])
    assert made == document["changed"] == sum(d["changed"] for d in found)


def test_what_commands_add() -> None:
    one = planned(Share(1, 2), command="rollback-workers", running={"313": ["w1"]}, to="312")
    other = planned(
        Share(2, 2),
        command="rollback-workers",
        running={"313": ["w2"], "312": ["w3"]},
        to=None,
        left_out=[ERROR.document()],
    )
    merged = joined(one, other)
    assert merged.document["running"] == {"313": ["w1", "w2"], "312": ["w3"]}
    assert merged.document["to"] == "312"
    assert merged.document["left_out"] == [ERROR.document()]
    assert merged.code == 1
    other["to"] = "311"
    assert joined(one, other).document["to"] is None


def test_a_read_that_failed_in_one_part() -> None:
    good, bad = ReadProof("/f", "h"), ReadProof("/f", "h", error="no")
    merged = joined(
        planned(Share(1, 2), live=["w1"], read=good.document(), problems=[]),
        planned(Share(2, 2), live=["w2"], read=bad.document(), problems=[ERROR.document()]),
    )
    assert merged.document["read"]["error"] == "no"
    assert merged.code == 1


def test_a_dry_run() -> None:
    step = Step("install", (on("w1", "x"),))
    found = [planned(share, step, dry=True, live=[]) for share in shares(2)]
    whole = parts.whole([parts._part("x", json_of(d)) for d in found])
    assert merge.merge(whole).code == 0
    assert merge.merge(whole, drift=True).code == 1
    assert merge.merge(whole).document["would_change"] == 2
    nothing = [planned(share, dry=True, live=[]) for share in shares(2)]
    whole = parts.whole([parts._part("x", json_of(d)) for d in nothing])
    assert merge.merge(whole, drift=True).code == 0


# -- parts that failed, and parts that are missing ------------------------------------------------


def test_a_part_that_failed_is_in_the_report() -> None:
    one = {**report(LIVE, taken=WHEN).document(), "batch": batch(Share(1, 2))}
    merged = joined(one, error(Share(2, 2), 3))
    assert merged.code == merged.document["exit_code"] == 3
    assert merged.document["alluxio"]["summary"] == (
        "1 worker: 1 LIVE; 8 not looked at, because a part failed"
    )
    assert [(p["where"], p["what"]) for p in merged.document["problems"]] == [
        ("part 2/2", "3 hosts (exit code 3)"),
        ("w9", "no route"),
    ]
    services = Status("c", ()).document()
    merged = joined(
        {**services, "batch": batch(Share(1, 2), "status")}, error(Share(2, 2), 3, "status")
    )
    assert (merged.code, len(merged.document["problems"])) == (3, 2)


@pytest.mark.parametrize(
    ("codes", "changed", "expected"),
    [
        ([3], False, 3),
        ([3], True, 4),  # "nothing was changed" is not true of the whole
        ([5], True, 4),
        ([1], True, 4),
        ([2, 5], False, 5),
        ([3, 5], False, 3),
        ([4, 3], False, 4),
        ([70, 4], True, 70),
        ([130, 4], True, 130),
        ([99, 70], False, 99),  # whatever a later release means by it
    ],
)
def test_the_exit_code_is_not_better_than_that_of_any_part(
    codes: list[int], changed: bool, expected: int
) -> None:
    of = len(codes) + 1
    steps = [Step("s", (on("w1", "x"),))] if changed else []
    failed = [error(Share(n, of), c, "start-workers") for n, c in enumerate(codes, 2)]
    merged = joined(planned(Share(1, of), *steps, live=[]), *failed)
    assert merged.code == expected
    assert [n["where"] for n in merged.document["notes"] if n["where"].startswith("part")] == [
        f"part {n}/{of}" for n in range(2, of + 1)
    ]


def test_every_part_failed() -> None:
    with pytest.raises(parts.PartsFailed, match="every part failed") as raised:
        joined(error(Share(1, 2), 3), error(Share(2, 2), 5))
    assert raised.value.exit_code == 3
    assert raised.value.id == "preflight-failed"
    assert [p.where for p in raised.value.problems] == ["part 1/2", "w9", "part 2/2", "w9"]


def test_a_missing_part_is_named() -> None:
    found = looks(report(LIVE, taken=WHEN), 5)
    with pytest.raises(parts.PartsFailed, match=r"^2 of 5 parts are missing: 2/5, 4/5$") as raised:
        joined(found[0], found[2], found[4])
    assert raised.value.exit_code == 3
    first = raised.value.problems[0]
    assert (first.id, first.where) == ("part-missing", "part 2/5")
    assert first.remedy == "invoke check-nodes --batch 2/5 --format json"


def test_a_missing_part_of_a_change_may_have_changed_something() -> None:
    def missing(*found: dict[str, Any]) -> parts.PartsFailed:
        with pytest.raises(parts.PartsFailed) as raised:
            joined(*found)
        return raised.value

    failed = missing(planned(Share(1, 2), live=[]))
    assert failed.exit_code == 4
    assert "they may have changed hosts" in failed.message
    assert missing(planned(Share(1, 2), dry=True, live=[])).exit_code == 3
    assert missing(error(Share(1, 2), 3, "stop-workers")).exit_code == 4
    assert missing(error(Share(1, 2), 70, "stop-workers")).exit_code == 70
    assert missing(error(Share(1, 2), 5)).exit_code == 3
    limited = batch(Share(2, 3), "status", limit="w[1-3]")
    only = {**Status("c", ()).document(), "batch": limited}
    assert missing(only).problems[0].remedy == (
        "invoke status --limit 'w[1-3]' --batch 1/3 --format json"
    )


def test_of_very_many_missing_parts_the_first_are_named() -> None:
    one = {**report(taken=WHEN).document(), "batch": batch(Share(999_999, 999_999))}
    with pytest.raises(parts.PartsFailed) as raised:
        joined(one)
    assert raised.value.message.startswith("999998 of 999999 parts are missing: 1/999999, ")
    assert raised.value.message.endswith("10/999999 and 999988 more")
    assert len(raised.value.problems) == parts.LISTED


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"of": 3}, "the number of parts differs"),
        ({"limit": "w1"}, "--limit differs"),
        ({"count": 8}, "the number of names differs"),
        ({"names": "cd"}, "which names there are, or their order differs"),
    ],
)
def test_parts_of_other_wholes(changed: dict[str, Any], what: str) -> None:
    one, other = looks(report(LIVE, taken=WHEN), 2)
    other["batch"].update(changed)
    with pytest.raises(UsageError, match=what) as raised:
        joined(one, other)
    assert raised.value.id == "parts-mixed"


def test_parts_of_another_cluster_and_of_another_command() -> None:
    one, other = looks(report(LIVE, taken=WHEN), 2)
    other["cluster"] = other["batch"]["cluster"] = "d"
    with pytest.raises(UsageError, match="the cluster differs: part 1/2 in x has 'c', part 2/2"):
        joined(one, other)
    status = {**Status("c", ()).document(), "batch": batch(Share(2, 2), "status")}
    with pytest.raises(UsageError, match="the command differs"):
        joined(one, status)
    with pytest.raises(UsageError, match="a dry run and one that is none: part 1/2 in x, part 2/2"):
        joined(planned(Share(1, 2), live=[]), planned(Share(2, 2), dry=True, live=[]))


def test_a_part_that_failed_early_knows_less() -> None:
    one = {**report(LIVE, taken=WHEN).document(), "batch": batch(Share(1, 2))}
    merged = joined(error(Share(2, 2), 2, cluster=None, count=None, names=None), one)
    assert merged.code == 2


def test_the_same_part_twice() -> None:
    one, other = looks(report(LIVE, taken=WHEN), 2)
    with pytest.raises(UsageError, match="part 2/2 is there twice: in x and in x") as raised:
        joined(one, other, error(Share(2, 2), 3))
    assert raised.value.id == "parts-mixed"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["etcd"]["members"].pop(),
        lambda d: d["etcd"]["members"][0].update(endpoint="http://x:1"),
        lambda d: d["alluxio"].update(membership="STATIC"),
        lambda d: d["alluxio"].update(failure_detection_timeout=5),
        lambda d: d.update(alluxio=None),
    ],
)
def test_looks_of_different_inventories(change: Any) -> None:
    one, other = map(copy.deepcopy, looks(report(LIVE, taken=WHEN), 2))
    change(other)
    with pytest.raises(UsageError, match="part 1/2 and part 2/2 are of different inventories"):
        joined(one, other)


def test_two_parts_with_one_worker() -> None:
    one, _ = looks(report(LIVE, taken=WHEN), 1), None
    twice = [{**one[0], "batch": batch(share)} for share in shares(2)]
    with pytest.raises(UsageError, match="two parts have w1"):
        joined(*twice)


# -- what is read ---------------------------------------------------------------------------------


def wrong(document: Any) -> str:
    with pytest.raises(UsageError) as raised:
        joined(document)
    assert raised.value.id == "file-unusable"
    return raised.value.message.partition("with --batch: ")[2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[1]", "its schema is None"),
        (b"{", "Expecting property name"),
        (b'{"schema": "alluxio-provision/logs/1"}', "its schema is alluxio-provision/logs/1"),
        (b'{"schema": ["alluxio-provision/plan/1"]}', "its schema is"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff", "can't decode byte"),
        (b'{"schema": NaN}', "NaN is not a number"),
        (b"no", "Expecting value"),
    ],
    ids=range(8),
)
def test_what_is_no_document(text: bytes, says: str) -> None:
    with pytest.raises(UsageError, match="no JSON document of a run with --batch") as raised:
        [*parts._parts("x", text)]
    assert says in raised.value.message


def test_documents_that_are_not_as_their_type_says() -> None:
    good = looks(report(LIVE, taken=WHEN), 1)[0]
    joined(good)

    def but(change: Any) -> str:
        document = json_of(good)
        change(document)
        return wrong(document)

    assert but(lambda d: d.pop("etcd")) == "etcd is missing"
    assert but(lambda d: d.update(etcd=5)) == "etcd is 5, not an object"
    assert but(lambda d: d["etcd"].update(members={})) == "etcd.members is {}, not a list"
    assert but(lambda d: d["etcd"].update(quorum="2")) == "etcd.quorum is '2', not a whole number"
    assert but(lambda d: d["etcd"].update(quorum=True)) == "etcd.quorum is True, not a whole number"
    assert "not a whole number" in but(lambda d: d["etcd"].update(quorum=2**63))
    nodes = "alluxio.nodes[0]"
    assert but(lambda d: d["alluxio"]["nodes"][0].pop("host")) == f"{nodes}.host is missing"
    assert (
        but(lambda d: d["alluxio"]["nodes"][0].update(ok=1))
        == f"{nodes}.ok is 1, not true or false"
    )
    assert but(lambda d: d["alluxio"]["counts"].update(LIVE="x")) == (
        "alluxio.counts.LIVE is 'x', not a whole number"
    )
    assert "'BAD' is not a valid State" in but(
        lambda d: d["alluxio"]["nodes"][0].update(state="BAD")
    )
    assert "Invalid isoformat" in but(lambda d: d.update(taken="now"))
    assert "severity is 'x', not error or warning" in but(
        lambda d: d["problems"].append({**NOTE.document(), "severity": "x"})
    )
    assert but(lambda d: d.update(batch=None)) == "batch is null: it is of a whole, not of a part"
    assert but(lambda d: d.pop("batch")) == "batch is null: it is of a whole, not of a part"
    assert but(lambda d: d["batch"].update(number=2)) == "batch is 2 of 1"
    assert but(lambda d: d["batch"].update(number=0)) == "batch is 0 of 1"
    assert but(lambda d: d["batch"].update(of=10**7)) == f"batch is 1 of {10**7}"
    assert but(lambda d: d["batch"].update(command="x")) == "batch is of x, not check-nodes"
    assert but(lambda d: d.update(cluster="d")) == "batch is of another cluster"
    failed = error(Share(1, 1), 256)
    assert wrong(failed) == "exit_code is 256"
    assert wrong(error(Share(1, 1), 0)) == "exit_code is 0"
    assert wrong(planned(Share(1, 1))) == "live is missing"


def test_a_document_of_a_later_release_may_have_more() -> None:
    document = looks(report(LIVE, taken=WHEN), 1)[0]
    document["later"] = document["batch"]["later"] = 5
    document["problems"] = [{**NOTE.document(), "id": "an-id-of-a-later-release"}]
    text = json.dumps(document)
    assert merge.merge(parts.whole([*parts._parts("x", text.encode())])).code == 0


def test_files_folders_and_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three, four = (json.dumps(d) for d in looks(report(LIVE, taken=WHEN), 4))
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "1.json").write_text(one)
    (tmp_path / "some" / "2.json").write_text("")  # as of a run that was killed
    (tmp_path / "some" / "notes.txt").write_text("no document")
    (tmp_path / "two").write_text(f"{two}\n{three}")
    stdin = io.TextIOWrapper(io.BytesIO(four.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    found = parts.read([str(tmp_path / "two"), "-", str(tmp_path / "some")])
    assert [p.name for p in found] == ["part 2/4", "part 3/4", "part 4/4", "part 1/4"]
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        parts.read([str(tmp_path / "none")])


def test_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text(" " * 600)
    monkeypatch.setattr(bounds, "REPORTS", 1000)
    assert parts.read([str(tmp_path / "a")]) == []
    with pytest.raises(UsageError, match=r"more than 1\.0 kB together"):
        parts.read([str(tmp_path / "a")] * 2)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b" " * 5000)))
    with pytest.raises(UsageError, match=r"more than 1\.0 kB together"):
        parts.read(["-"])
    monkeypatch.setattr(bounds, "DOCUMENT", 500)
    with pytest.raises(UsageError, match="has more than 500 B"):
        parts.read([str(tmp_path / "a")])


# -- which part a document is ---------------------------------------------------------------------


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "inventory.yml"
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  a.tar.gz\n")
    path.write_text(
        """
cluster: c
ssh: {user: u}
etcd: {external: true, members: {e1: {host: 127.0.0.1}}}
alluxio:
  version: "313"
  source: {path: a.tar.gz, sha256: file:SHA256SUMS}
  workers: {"w[1-9]": {host: "w[1-9].invalid"}}
"""
    )
    return path


@pytest.mark.parametrize("kept", [True, False], ids=["the file is kept", "the file is dropped"])
def test_every_document_of_a_part_says_which_it_is(
    kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same for a look, a plan and an error."""
    inventory = builders.inventory(
        builders.alluxio(*(builders.worker(f"w{n}") for n in range(1, 10)))
    )
    assert inventory.alluxio is not None
    workers = inventory.alluxio.workers
    run = Run("start-workers", format="json")
    run._loaded = cast(Any, SimpleNamespace(inventory=inventory))
    if not kept:
        run.drop_file()
    assert [w.name for w in run.choose(workers, "w[1-8]", "2/4")] == ["w3", "w4"]
    common.finish(run, Plan("start-workers", "c"), False, {"live": []})
    cluster._show_check(run, report(), "", "")
    command._say_error(run, PreflightFailed("x", id="preflight-failed"), 3)
    out = capsys.readouterr().out
    found = [*json_documents(out)]
    assert len(found) == 3
    for document in found:
        documents.require(document)
        assert document["batch"] == {
            "number": 2,
            "of": 4,
            "command": "start-workers",
            "cluster": "c",
            "limit": "w[1-8]",
            "count": 8,
            "names": digest(workers[:8]),
            "began": run.started.isoformat(timespec="seconds"),
        }


def json_documents(text: str) -> Iterator[dict[str, Any]]:
    yield from text_documents(text)


@pytest.mark.parametrize("task", ["check-nodes", "status", "start-workers", "stop-workers"])
def test_an_error_before_the_inventory_is_read_says_which_part_it_is(task: str, said: Said) -> None:
    code, out, _ = said(f"{task} w1 --batch 2/3 -i none.yml --format json")
    assert code == 2
    document = json.loads(out)
    documents.require(document)
    known = ("number", "of", "command", "cluster", "limit", "count")
    assert [document["batch"][key] for key in known] == [2, 3, task, None, "w1", None]
    code, out, _ = said(f"{task} --batch 4/3 -i none.yml --format json")
    assert json.loads(out)["batch"] is None


def test_every_task_with_batch_has_documents_that_are_joined() -> None:
    tasks = {
        n
        for n in namespace.task_names
        if any(a.name == "batch" for a in namespace[n].get_arguments())
    }
    plans = {"start-workers", "stop-workers", "restart-workers", "upgrade-workers"}
    assert tasks == {"check-nodes", "status", "rollback-workers", *plans}


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n, document in enumerate(looks(report(LIVE, taken=WHEN), 3), 1):
        (tmp_path / f"{n}.json").write_text(json.dumps(document))
    return tmp_path


def test_the_screen_of_a_look(folder: Path, said: Said) -> None:
    code, out, err = said(f"merge-reports {folder}")
    assert code == 0
    assert "1 worker: 1 LIVE" in out
    assert "etcd: 3 of 3 members healthy (quorum 2), leader infra1" in out
    assert err == (
        "check-nodes: 3 parts, begun from 2026-01-02T03:04:01+00:00 to 2026-01-02T03:04:03+00:00\n"
    )
    files = " ".join(str(folder / f"{n}.json") for n in (3, 1, 2))
    code, out, _ = said(f"merge-reports {files} --format json")
    assert code == 0
    document = json.loads(out)
    documents.require(document)
    assert document["batch"] is None


def test_a_missing_part_is_an_error_of_its_own(folder: Path, said: Said) -> None:
    (folder / "2.json").unlink()
    code, out, err = said(f"merge-reports {folder} --format json")
    assert code == 3
    document = json.loads(out)
    documents.require(document)
    assert (document["id"], [p["where"] for p in document["problems"]]) == (
        "part-missing",
        ["part 2/3"],
    )
    assert "1 of 3 parts is missing: 2/3" in err


def test_the_screen_of_a_plan_and_of_a_status(tmp_path: Path, said: Said) -> None:
    def put(*found: dict[str, Any]) -> None:
        for n, document in enumerate(found):
            (tmp_path / f"{n}.json").write_text(json.dumps(document))

    step = Step("install", (on("w1", "x"),))
    put(
        planned(Share(1, 2), step, live=["w1"]),
        planned(Share(2, 2), live=["w2"], left_out=[ERROR.document()]),
    )
    code, out, err = said(f"merge-reports {tmp_path}")
    assert (code, out) == (1, "1 changed; 2 of 9 live\n")
    assert "w9: no route" in err
    put(planned(Share(1, 2), step, dry=True, live=[]), planned(Share(2, 2), dry=True, live=[]))
    code, out, _ = said(f"merge-reports {tmp_path} --exit-code")
    assert code == 1
    assert "1. install" in out
    assert "affected: restarts u on w1" in out
    assert out.endswith("1 would change; nothing was changed (--dry-run)\n")
    services = Status("c", (Service("w1", Machine("h"), "u", "c", "active"),)).document()
    put(
        {**services, "batch": batch(Share(1, 2), "status")},
        error(Share(2, 2), Locked.exit_code, "status"),
    )
    code, out, err = said(f"merge-reports {tmp_path}")
    assert code == Locked.exit_code
    assert "w1" in out
    assert "part 2/2: 3 hosts (exit code 5)" in err
    put(
        planned(Share(1, 2), step, live=["w1"]),
        error(Share(2, 2), ChangeFailed.exit_code, "start-workers"),
    )
    code, out, err = said(f"merge-reports {tmp_path}")
    assert code == 4
    assert "part 2/2: 3 hosts (exit code 4)" in err


def test_text_of_a_document_is_no_markup_and_no_control(folder: Path, said: Said) -> None:
    document = json.loads((folder / "1.json").read_text())
    evil = {**NOTE.document(), "what": "[bold]x[/bold]\x1b[31m"}
    document["problems"].append(evil)
    (folder / "1.json").write_text(json.dumps(document))
    _, out, err = said(f"merge-reports {folder}")
    assert "[bold]x[/bold]\ufffd[31m" in out
    assert "\x1b" not in out + err


def test_words_that_are_files(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "status").mkdir()
    code, _, err = said("merge-reports status")
    assert code == 2
    assert "status is a task, and a file: for the file say ./status" in err
    code, _, err = said("merge-reports ./status")
    assert code == 3
    assert "part-missing" in err
