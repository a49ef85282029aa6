"""The documents of the parts of one whole (--batch K/N): read, and found to be complete.

They may come from other machines and from other people: what they hold is bounded, and is read as
its types say. What a folder has from another run is refused where it can be told.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard, cast

from provision import bounds, progress
from provision.alike import named
from provision.check_nodes import screen
from provision.check_nodes.result import CheckDocument
from provision.check_nodes.status import StatusDocument
from provision.cli import documents, typed
from provision.cli.documents import ErrorDocument
from provision.dataclass import dataclass
from provision.engine.plan import PlanDocument
from provision.errors import (
    ChangeFailed,
    PreflightFailed,
    Problem,
    ProblemDocument,
    ProvisionError,
    UsageError,
    from_document,
)
from provision.files import read_bytes
from provision.inventory.selection import MOST, BatchDocument, Share
from provision.text import counted, printable, share, size
from provision.text import documents as read_documents

STDIN = "-"
#: What each document is, beside the keys that all of them have.
TYPES: dict[str, Any] = {
    "alluxio-provision/check-nodes/1": CheckDocument,
    "alluxio-provision/status/1": StatusDocument,
    "alluxio-provision/plan/1": PlanDocument,
    "alluxio-provision/error/1": ErrorDocument,
}
#: The command of the documents that are of one command only.
COMMANDS = {
    "alluxio-provision/check-nodes/1": "check-nodes",
    "alluxio-provision/status/1": "status",
}
#: How many missing parts an error has a line for.
LISTED = 1000
#: Exit codes, the worst first. One that is not here is worse: nobody knows what it means.
WORST = (70, 130, 4, 3, 5, 2, 1, 0)


class PartsFailed(ProvisionError):
    """Parts that failed, or that are missing: the code is never better than the worst part's."""

    def __init__(self, message: str, problems: Sequence[Problem], code: int, **id: Any) -> None:
        super().__init__(message, problems, **id)
        self.exit_code = code


@dataclass(frozen=True, slots=True)
class Part:
    """A document of one part. ``place``: where it stood."""

    batch: BatchDocument
    document: dict[str, Any]
    place: str

    @property
    def name(self) -> str:
        return f"part {Share(self.batch['number'], self.batch['of'])}"

    @property
    def schema(self) -> str:
        return str(self.document["schema"])

    @property
    def code(self) -> int:
        """The exit code of a part that failed; 0 for others."""
        return int(self.document["exit_code"]) if self.failed else 0

    @property
    def failed(self) -> bool:
        return self.schema == "alluxio-provision/error/1"

    @property
    def problems(self) -> list[Problem]:
        """Of a part that failed."""
        error = cast(ErrorDocument, self.document)
        code, known = error["exit_code"], [from_document(p) for p in error["problems"]]
        what = f"{error['error']} (exit code {code})"
        first: ProblemDocument = {
            "id": error["id"],
            "where": self.name,
            "what": what,
            "remedy": "",
            "severity": "error",
        }
        return [from_document(first), *known]


@dataclass(frozen=True, slots=True)
class Whole:
    """All parts, in their order: those that have ``reported``, and those that ``failed``."""

    command: str
    schema: str | None
    reported: tuple[Part, ...]
    failed: tuple[Part, ...]

    @property
    def parts(self) -> list[Part]:
        return sorted((*self.reported, *self.failed), key=lambda p: p.batch["number"])

    @property
    def count(self) -> int | None:
        """How many names all parts have together."""
        return next((p.batch["count"] for p in self.parts if p.batch["count"] is not None), None)

    @property
    def is_plan(self) -> bool:
        """Whether the command changes something."""
        return self.command not in COMMANDS.values()

    @property
    def dry_run(self) -> bool:
        return any("would_change" in p.document for p in self.reported)

    @property
    def line(self) -> str:
        """What was joined: a folder may have an old document."""
        began = sorted(p.batch["began"] for p in self.parts)
        when = began[0] if began[0] == began[-1] else f"from {began[0]} to {began[-1]}"
        said = f"{self.command}: {counted(len(self.parts), 'part')}, begun {when}"
        return f"{said}; {len(self.failed)} failed" if self.failed else said


def worst(codes: Iterable[int]) -> int:
    """The worst of these exit codes; 0 of none."""
    rank = {code: n for n, code in enumerate(WORST)}
    return min(codes, key=lambda code: rank.get(code, -1), default=0)


def read(files: Sequence[str]) -> list[Part]:
    """The parts in these files and folders (`*.json`), and in ``-``, stdin. A file may have several
    documents, one behind the other, as the output of several runs has.

    Raises :class:`UsageError` for a file that cannot be read, or has anything else in it.
    """
    found: list[Part] = []
    left = bounds.REPORTS
    for place, data in _texts(files):
        left -= len(data)
        if left < 0:
            what = f"the documents have more than {size(bounds.REPORTS)} together"
            raise UsageError(what, id="file-unusable")
        found += _parts(place, data)
    return found


def _texts(files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in files:
        if name == STDIN:
            with progress.waiting("documents on stdin"):
                data = sys.stdin.buffer.read(bounds.REPORTS + 1)
            yield "stdin", data
            continue
        path = Path(name).expanduser()
        try:
            for one in sorted(path.glob("*.json")) if path.is_dir() else [path]:
                yield str(one), read_bytes(one, bounds.DOCUMENT)
        except OSError as error:
            what = f"{printable(name)} cannot be read: {error.strerror or error}"
            raise UsageError(what, id="file-unusable") from error


def _parts(place: str, data: bytes) -> Iterator[Part]:
    """The parts in one file. An empty file has none: its run was killed, or has not ended."""
    try:
        for document in read_documents(data):
            yield _part(place, document)
    except ValueError as error:
        what = f"{printable(place)}: no JSON document of a run with --batch: {error}"
        raise UsageError(what, id="file-unusable") from error


def _part(place: str, document: Any) -> Part:
    """Raises ``ValueError``."""
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or schema not in TYPES:
        said = printable(str(schema), typed.SHOWN)
        raise ValueError(f"its schema is {said}; commands with --batch have {', '.join(TYPES)}")
    hints: list[Any] = [TYPES[schema], documents.Part]
    if schema == "alluxio-provision/plan/1":
        hints += [documents.Finished, *documents.EXTRAS.get(str(document.get("command")), ())]
    for hint in hints:
        if (wrong := typed.fault(document, hint)) is not None:
            raise ValueError(wrong)
    batch: BatchDocument | None = document.get("batch")
    if batch is None:
        raise ValueError("batch is null: it is of a whole, not of a part")
    if not 1 <= batch["number"] <= batch["of"] <= MOST:
        raise ValueError(f"batch is {batch['number']} of {batch['of']}")
    command = COMMANDS.get(schema, document.get("command", batch["command"]))
    if batch["command"] != command:
        raise ValueError(f"batch is of {printable(batch['command'], typed.SHOWN)}, not {command}")
    if document.get("cluster", batch["cluster"]) != batch["cluster"]:
        raise ValueError("batch is of another cluster")
    if schema == "alluxio-provision/error/1" and not 0 < document["exit_code"] < 256:
        raise ValueError(f"exit_code is {document['exit_code']}")
    if _is_check(document):
        try:
            screen.of_document(document)
        except OverflowError as error:
            raise ValueError(str(error)) from error
    return Part(batch, document, place)


def _is_check(document: Any) -> TypeGuard[CheckDocument]:
    return bool(document["schema"] == "alluxio-provision/check-nodes/1")


def whole(parts: Sequence[Part]) -> Whole:
    """The whole of these parts.

    Raises :class:`UsageError` when they are not of one whole, or when a part is there twice, and
    :class:`PartsFailed` when one is missing.
    """
    if not parts:
        what = "every part is missing: there is no document of a run with --batch"
        raise PartsFailed(what, (), PreflightFailed.exit_code, id="part-missing")
    _require_one_whole(parts)
    by_number = {p.batch["number"]: p for p in parts}
    if len(by_number) < len(parts):
        seen: dict[int, Part] = {}
        for p in parts:
            before = seen.setdefault(p.batch["number"], p)
            if before is not p:
                what = f"{p.name} is there twice: in {before.place} and in {p.place}"
                raise UsageError(printable(what), id="parts-mixed")
    ordered = [by_number[number] for number in sorted(by_number)]
    failed = tuple(p for p in ordered if p.failed)
    reported = tuple(p for p in ordered if not p.failed)
    command = ordered[0].batch["command"]
    schema = reported[0].schema if reported else None
    found = Whole(command, schema, reported, failed)
    _require_all(found, ordered[0].batch)
    return found


def _require_one_whole(parts: Sequence[Part]) -> None:
    """What two parts say of the whole is the same, as far as both know it."""
    for key in ("command", "of", "limit", "cluster", "count", "names"):
        first: Part | None = None
        for p in parts:
            value = p.batch[key]
            if value is None:
                continue
            first = first or p
            before = first.batch[key]
            if value != before:
                raise _mixed(key, (first, before), (p, value))
    reported = [p for p in parts if not p.failed]
    for what, of in (
        ("documents of different kinds", lambda p: p.schema),
        ("a dry run and one that is none", lambda p: "would_change" in p.document),
    ):
        kinds = {of(p): p for p in reversed(reported)}
        if len(kinds) > 1:
            one, other = sorted(kinds.values(), key=lambda p: p.batch["number"])[:2]
            where = f"{one.name} in {one.place}, {other.name} in {other.place}"
            raise UsageError(
                f"not parts of one whole: {what}: {printable(where)}", id="parts-mixed"
            )


def _mixed(key: str, one: tuple[Part, Any], other: tuple[Part, Any]) -> UsageError:
    what = {
        "command": "the command",
        "of": "the number of parts",
        "limit": "--limit",
        "cluster": "the cluster",
        "count": "the number of names",
        "names": "which names there are, or their order",
    }[key]
    said = [
        f"{p.name} in {printable(p.place)}"
        + ("" if key == "names" else f" has {printable(str(value), typed.SHOWN)!r}")
        for p, value in (one, other)
    ]
    return UsageError(
        f"not parts of one whole: {what} differs: {', '.join(said)}; the inventory is the same on "
        "every control machine, and each run has a folder of its own",
        id="parts-mixed",
    )


def _require_all(found: Whole, batch: BatchDocument) -> None:
    of, there = batch["of"], {p.batch["number"] for p in found.parts}
    count = of - len(there)
    if not count:
        return
    limit = f" --limit '{batch['limit']}'" if batch["limit"] else ""
    missing = [n for n in range(1, of + 1) if n not in there][:LISTED]
    problems = [
        Problem(
            f"part {Share(n, of)}",
            "there is no document of it: it has not ended, or it was killed",
            f"invoke {found.command}{limit} --batch {Share(n, of)} --format json",
            id="part-missing",
        )
        for n in missing
    ]
    names = named([str(Share(n, of)) for n in missing], 10)
    if count > len(missing):
        names = f"{names.rpartition(' and ')[0]} and {count - 10} more"
    changes = found.is_plan and not found.dry_run
    own = ChangeFailed.exit_code if changes else PreflightFailed.exit_code
    raise PartsFailed(
        f"{share(count, of, 'part')} missing: {names}"
        + ("; they may have changed hosts" if changes else ""),
        [*problems, *(one for p in found.failed for one in p.problems)],
        worst([own, *(p.code for p in found.failed)]),
        id="part-missing",
    )
