"""The plans of all parts of a change (--batch K/N), joined into the plan of the whole.

The parts were carried out side by side. So steps with one title are one step of the whole, and a
service is away on as many hosts at a time as all parts take together.
"""

from __future__ import annotations

from collections.abc import Sequence

from provision.dataclass import dataclass
from provision.engine.affected import Affected, AffectedDocument
from provision.engine.plan import (
    Action,
    Gate,
    HostChanges,
    Plan,
    PlanDocument,
    Step,
    StepDocument,
)
from provision.errors import ProblemDocument, from_document
from provision.host.diff import Change
from provision.inventory.resolved import Machine


def plan(parts: Sequence[PlanDocument]) -> PlanDocument:
    """The plan of the whole, of at least one part."""
    notes: dict[tuple[object, ...], ProblemDocument] = {}
    for part in parts:
        notes.update((tuple(note.items()), note) for note in part["notes"])
    return {
        "schema": "alluxio-provision/plan/1",
        "command": parts[0]["command"],
        "cluster": parts[0]["cluster"],
        "changed": sum(part["changed"] for part in parts),
        "notes": [*notes.values()],
        "affected": _affected(parts),
        "steps": _steps(parts),
    }


def _affected(parts: Sequence[PlanDocument]) -> list[AffectedDocument]:
    found: dict[tuple[str, bool], AffectedDocument] = {}
    for service in (service for part in parts for service in part["affected"]):
        key = service["unit"], service["started_again"]
        before = found.get(key)
        if before is None:
            found[key] = {**service}
            continue
        names = [*dict.fromkeys((*before["names"], *service["names"]))]
        found[key] = {
            "unit": service["unit"],
            "names": names,
            "started_again": service["started_again"],
            "at_once": min(before["at_once"] + service["at_once"], len(names)),
            "seconds": max(before["seconds"], service["seconds"]),
            "outage": before["outage"] or service["outage"],
        }
    return [*found.values()]


def _steps(parts: Sequence[PlanDocument]) -> list[StepDocument]:
    """The steps of the whole: each part's are in its own order. A step that only one part has comes
    before the next one that others have, too."""
    found: list[StepDocument] = []
    for part in parts:
        at = 0
        for number, step in enumerate(part["steps"]):
            keys = [_key(s) for s in found[at:]]
            if _key(step) in keys:
                at += keys.index(_key(step))
                same = found[at]
                calls = [*dict.fromkeys((*same["calls"], *step["calls"]))]
                found[at] = {**same, "calls": calls, "hosts": [*same["hosts"], *step["hosts"]]}
            else:
                later = [keys.index(k) for s in part["steps"][number:] if (k := _key(s)) in keys]
                at += min(later, default=len(keys))
                found.insert(at, step)
            at += 1
    return found


def _key(step: StepDocument) -> tuple[str, str | None]:
    return step["title"], step["gate"]


@dataclass(frozen=True, slots=True)
class Told(Plan):
    """A plan that a document tells of: to be shown, not to be applied."""

    services: tuple[Affected, ...] = ()

    @property
    def affected(self) -> tuple[Affected, ...]:
        return self.services


def told(document: PlanDocument) -> Told:
    """The plan in ``document``."""

    def nothing() -> None:
        raise AssertionError("a plan of a document cannot be applied")

    steps = tuple(
        Step(
            step["title"],
            tuple(
                HostChanges(
                    host["name"],
                    Machine(host["host"]),
                    tuple(Change(c["what"], diff=c["diff"]) for c in host["changes"]),
                )
                for host in step["hosts"]
            ),
            tuple(Action(what, nothing) for what in step["calls"]),
            after=None if step["gate"] is None else Gate(step["gate"], nothing),
        )
        for step in document["steps"]
    )
    services = tuple(
        Affected(
            a["unit"],
            tuple(a["names"]),
            a["started_again"],
            a["at_once"],
            a["seconds"],
            a["outage"],
        )
        for a in document["affected"]
    )
    notes = tuple(map(from_document, document["notes"]))
    return Told(document["command"], document["cluster"], steps, notes, services=services)
