"""The documents of all parts of a look (--batch K/N), joined into the document of the whole.

Each part has looked at all of etcd, and at its own workers. Of what all parts have looked at, the
worst counts: the whole is never better than its worst part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from provision.alike import named
from provision.alluxio.commands.read import ReadDocument
from provision.check_nodes.result import (
    AlluxioDocument,
    CheckDocument,
    EtcdDocument,
    InfoNodesDocument,
    LeasesDocument,
    NodeDocument,
)
from provision.check_nodes.screen import node
from provision.check_nodes.status import StatusDocument
from provision.check_nodes.verdict import counts, summary
from provision.errors import Problem, ProblemDocument, UsageError
from provision.plans.etcd.data.stored import StoredDocument
from provision.text import counted

T = TypeVar("T")


def check(parts: Mapping[str, CheckDocument]) -> CheckDocument:
    """``parts`` by their names, in their order; at least one. Raises :class:`UsageError` when they
    are not of one inventory."""
    found = [*parts.values()]
    _require_same(parts, "etcd's members", lambda d: _members(d["etcd"]))
    alluxio = _alluxio(parts)
    problems = _union(d["problems"] for d in found)
    problems += [p.document() for p in _disagreements(parts)]
    begun = [(datetime.fromisoformat(d["taken"]), d["taken"], d["seconds"]) for d in found]
    first, taken, _ = min(begun)
    end = max(when + timedelta(seconds=seconds) for when, _, seconds in begun)
    well = alluxio is None or all(n["ok"] for n in alluxio["nodes"])
    wrong = not well or any(p["severity"] == "error" for p in problems)
    return {
        "schema": "alluxio-provision/check-nodes/1",
        "cluster": found[0]["cluster"],
        "exit_code": max(int(wrong), *(d["exit_code"] for d in found)),
        "taken": taken,
        "seconds": round((end - first).total_seconds(), 3),
        "etcd": max(found, key=lambda d: (*_bad(d["etcd"]), d["taken"]))["etcd"],
        "alluxio": alluxio,
        "read": _first(found, _read),
        "backups": _first(found, _backups),
        "problems": problems,
    }


def status(parts: Mapping[str, StatusDocument]) -> StatusDocument:
    """As :func:`check`."""
    found = [*parts.values()]
    services = [s for d in found for s in d["services"]]
    _require_apart((s["name"], s["unit"]) for s in services)
    return {
        "schema": "alluxio-provision/status/1",
        "cluster": found[0]["cluster"],
        "services": services,
        "problems": _union(d["problems"] for d in found),
    }


def _members(etcd: EtcdDocument) -> list[tuple[str, str]]:
    return [(m["name"], m["endpoint"]) for m in etcd["members"]]


def _bad(etcd: EtcdDocument) -> tuple[int, bool]:
    """The larger, the worse."""
    return -etcd["healthy"], etcd["leader"] is None


def _view(etcd: EtcdDocument) -> tuple[tuple[str, ...], str | None]:
    return tuple(m["name"] for m in etcd["members"] if not m["healthy"]), etcd["leader"]


def _disagreements(parts: Mapping[str, CheckDocument]) -> list[Problem]:
    """Where the parts have seen different members well, or another leader: a network between them
    may be cut."""
    views: dict[Hashable, list[str]] = {}
    for name, document in parts.items():
        views.setdefault(_view(document["etcd"]), []).append(name)
    if len(views) == 1:
        return []
    said = []
    for names in views.values():
        etcd = parts[names[0]]["etcd"]
        down, leader = _view(etcd)
        text = f"{etcd['healthy']} of {counted(len(etcd['members']), 'member')} healthy"
        text += f" (not {', '.join(down)})" if down else ""
        said.append(f"{text}, leader {leader or 'none'}: {named(names)}")
    what = f"the parts have seen different states: {'; '.join(said)}"
    return [Problem("etcd", what, "invoke check-nodes", "warning", id="parts-disagree")]


def _alluxio(parts: Mapping[str, CheckDocument]) -> AlluxioDocument | None:
    _require_same(
        parts,
        "alluxio's membership, or its failure detection time",
        lambda d: (
            d["alluxio"] and (d["alluxio"]["membership"], d["alluxio"]["failure_detection_timeout"])
        ),
    )
    found = [d["alluxio"] for d in parts.values() if d["alluxio"] is not None]
    if not found:
        return None
    declared = [n for a in found for n in a["nodes"] if n["name"] is not None]
    _require_apart(n["name"] for n in declared)
    nodes = [*declared, *_strangers(parts.values())]
    verdicts = [node(n) for n in nodes]
    revisions = [a["revision"] for a in found]
    return {
        "membership": found[0]["membership"],
        "failure_detection_timeout": found[0]["failure_detection_timeout"],
        "summary": summary(verdicts),
        "counts": counts(verdicts),
        # A part without one has not read the registrations.
        "revision": None if None in revisions else min(r for r in revisions if r is not None),
        "leases": _first(found, _leases),
        "info_nodes": _first(found, _info_nodes),
        "nodes": nodes,
    }


def _strangers(found: Iterable[CheckDocument]) -> list[NodeDocument]:
    """Workers that the inventory does not have: each part has seen them. The newest look counts."""
    newest: dict[Hashable, tuple[str, NodeDocument]] = {}
    for document in found:
        for n in document["alluxio"]["nodes"] if document["alluxio"] is not None else ():
            if n["name"] is None:
                key = n["worker_id"], n["host"], n["port"]
                if key not in newest or newest[key][0] < document["taken"]:
                    newest[key] = document["taken"], n
    return [n for _, n in newest.values()]


def _read(document: CheckDocument) -> tuple[ReadDocument | None, int]:
    read = document["read"]
    return read, int(read is not None and bool(read["error"]))


def _backups(document: CheckDocument) -> tuple[StoredDocument | None, int]:
    stored = document["backups"]
    return stored, 0 if stored is None else sum(h["error"] is not None for h in stored["hosts"])


def _leases(alluxio: AlluxioDocument) -> tuple[LeasesDocument | None, int]:
    leases = alluxio["leases"]
    # Without them nobody knows whether a live worker's lease has expired.
    return leases, 0 if leases is None else leases["live"] - leases["asked"] + leases["expired"]


def _info_nodes(alluxio: AlluxioDocument) -> tuple[InfoNodesDocument | None, int]:
    info = alluxio["info_nodes"]
    return info, int(info is not None and bool(info["error"]))


def _first(parts: Iterable[T], of: Callable[[T], tuple[Any, int]]) -> Any:
    """The worst of what the parts have seen, if a part has: the first of those that are as bad."""
    found = [one for one in map(of, parts) if one[0] is not None]
    return max(found, key=lambda one: one[1])[0] if found else None


def _union(problems: Iterable[Sequence[ProblemDocument]]) -> list[ProblemDocument]:
    """Each problem once: every part has those of etcd."""
    every = itertools.chain.from_iterable(problems)
    return [*{tuple(p.items()): p for p in every}.values()]


def _require_same(
    parts: Mapping[str, CheckDocument], what: str, of: Callable[[CheckDocument], object]
) -> None:
    first, *others = parts
    for name in others:
        if of(parts[name]) != of(parts[first]):
            raise UsageError(
                f"{first} and {name} are of different inventories: they differ in {what}",
                id="parts-mixed",
            )


def _require_apart(names: Iterable[Hashable]) -> None:
    seen: set[Hashable] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"two parts have {name}", id="parts-mixed")
        seen.add(name)
