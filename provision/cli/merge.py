"""One verdict, document and screen of the documents of all parts (--batch K/N).

The exit code is the command's own over the whole, and never better than the worst part's. A part
that failed with "nothing was changed" beside one that has changed something makes a change that
stopped part-way (4): running again continues it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from provision.check_nodes import joined as looks
from provision.check_nodes.result import CheckDocument
from provision.check_nodes.status import Service, Status, StatusDocument
from provision.cli.parts import Part, PartsFailed, Whole, worst
from provision.dataclass import dataclass
from provision.engine import joined as plans
from provision.engine.plan import PlanDocument
from provision.errors import ChangeFailed, Problem, ProblemDocument, from_document
from provision.inventory.resolved import Machine


@dataclass(frozen=True, slots=True)
class Merged:
    """The document of the whole, and the exit code. ``failed``: the problems of failed parts, which
    the document has, too."""

    document: dict[str, Any]
    code: int
    failed: tuple[Problem, ...] = ()


def merge(whole: Whole, *, drift: bool = False) -> Merged:
    """``drift``: a dry run with changes is no success, as with --exit-code.

    Raises :class:`PartsFailed` when no part has reported: there is nothing to join.
    """
    failed = tuple(problem for p in whole.failed for problem in p.problems)
    codes = [p.code for p in whole.failed]
    if not whole.reported:
        raise PartsFailed(
            f"every part failed ({len(whole.failed)} of {len(whole.failed)})",
            failed,
            worst(codes),
            id=failed[0].id,
        )
    more = [problem.document() for problem in failed]
    parts = {p.name: cast(Any, p.document) for p in whole.reported}
    if whole.schema == "alluxio-provision/check-nodes/1":
        check = looks.check(cast("dict[str, CheckDocument]", parts))
        _note_unseen(whole, check)
        code = worst([check["exit_code"], *codes])
        problems = [*check["problems"], *more]
        return Merged({**check, "exit_code": code, "problems": problems}, code, failed)
    if whole.schema == "alluxio-provision/status/1":
        seen = looks.status(cast("dict[str, StatusDocument]", parts))
        code = worst([status(seen).exit_code, *codes])
        return Merged({**seen, "problems": [*seen["problems"], *more]}, code, failed)
    return _plan(whole, failed, codes, drift=drift)


def _note_unseen(whole: Whole, check: CheckDocument) -> None:
    """The workers of failed parts are in no row, so the summary has to say it."""
    alluxio = check["alluxio"]
    if alluxio is None or whole.count is None or not whole.failed:
        return
    left = whole.count - sum(n["name"] is not None for n in alluxio["nodes"])
    if left:
        alluxio["summary"] += f"; {left} not looked at, because a part failed"


def status(document: StatusDocument) -> Status:
    """The status in a document."""
    return Status(
        document["cluster"],
        tuple(
            Service(
                s["name"],
                Machine(s["host"]),
                s["unit"],
                document["cluster"],
                s["active"],
                s["restarts"],
                s["cluster"],
                tuple(s["disks"]),
                s["pending_restart"],
                s["error"],
            )
            for s in document["services"]
        ),
        tuple(map(from_document, document["problems"])),
    )


def _plan(whole: Whole, failed: tuple[Problem, ...], codes: list[int], *, drift: bool) -> Merged:
    found = [p.document for p in whole.reported]
    document: dict[str, Any] = {**plans.plan([cast(PlanDocument, d) for d in found])}
    document["applied"] = any(d["applied"] for d in found)
    if whole.dry_run:
        document["would_change"] = sum(d["would_change"] for d in found)
    if left := _problems(found, "left_out"):
        document["left_out"] = left
    document.update(_extras(whole.reported))
    document["notes"] += [p.document() for p in failed]
    own = int(bool(left) or any(p["severity"] == "error" for p in document.get("problems", ())))
    if drift and document.get("would_change"):
        own = 1
    if codes and document["changed"] and not whole.dry_run:
        codes.append(ChangeFailed.exit_code)
    return Merged(document, worst([own, *codes]), failed)


def _extras(parts: Iterable[Part]) -> dict[str, Any]:
    """What the command adds to its plan: :class:`provision.cli.documents.StartWorkers`,
    ``UpgradeWorkers`` and ``RollbackWorkers``."""
    found = [p.document for p in parts]
    extras: dict[str, Any] = {}
    if any("live" in d for d in found):
        extras["live"] = sorted({name for d in found for name in d.get("live", ())})
    if any("running" in d for d in found):
        running: dict[str, list[str]] = {}
        for d in found:
            for release, names in d.get("running", {}).items():
                running.setdefault(release, []).extend(names)
        extras["running"] = running
    if any("to" in d for d in found):
        releases = [*dict.fromkeys(d["to"] for d in found if d.get("to") is not None)]
        extras["to"] = releases[0] if len(releases) == 1 else None
    reads = [d["read"] for d in found if "read" in d]
    if reads:
        extras["read"] = next((r for r in reads if r["error"]), reads[0])
    if any("problems" in d for d in found):
        extras["problems"] = _problems(found, "problems")
    return extras


def _problems(found: Iterable[dict[str, Any]], key: str) -> list[ProblemDocument]:
    return [*{tuple(p.items()): p for d in found for p in d.get(key, ())}.values()]


def line(whole: Whole, document: dict[str, Any]) -> str:
    """The last line of a command that changes something, for the whole."""
    if whole.dry_run:
        return f"{document['would_change']} would change; nothing was changed (--dry-run)"
    said = [f"{document['changed']} changed"]
    if "live" in document:
        said.append(f"{len(document['live'])} of {whole.count} live")
    if "running" in document:
        running = sorted(document["running"].items())
        said.append(", ".join(f"{len(names)} on {release}" for release, names in running))
    return "; ".join(filter(None, said))
