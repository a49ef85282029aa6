"""Every error an operator can meet, with the exit code it ends the run with.

An error says what is wrong, on which host, and what to do. The exit codes are the tool's
contract with scripts:

====  =================================================================================
0     as declared
1     something is unhealthy or drifted
2     bad usage or inventory, or a question was not answered; no host was changed
3     a host could not be reached, or preflight failed; nothing was changed
4     a change failed part-way; the message says where, and running again continues
5     another run holds the lock
70    a mistake in this tool; the message says whether hosts were being changed
130   interrupted (Ctrl-C); the message says whether hosts were being changed
====  =================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Literal, TypedDict, cast

from provision.dataclass import dataclass
from provision.ids import Id

Severity = Literal["error", "warning"]


class ProblemDocument(TypedDict):
    """A problem: ``where`` is a host, or a place in a file."""

    id: str
    where: str
    what: str
    remedy: str
    severity: Severity


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (a host, or ``file:line:column``), what, and the remedy.

    ``id`` is the kind of trouble, which ``explain ID`` has a page about.
    """

    where: str
    what: str
    remedy: str = ""
    severity: Severity = "error"
    id: Id = field(kw_only=True)

    def document(self) -> ProblemDocument:
        """The problem for ``--format json``."""
        return {
            "id": self.id,
            "where": self.where,
            "what": self.what,
            "remedy": self.remedy,
            "severity": self.severity,
        }

    @property
    def line(self) -> str:
        """The problem as a person sees it: at the end is what ``explain`` takes."""
        return f"{self} [{self.id}]"

    def __str__(self) -> str:
        tail = f" ({self.remedy})" if self.remedy else ""
        return f"{self.where}: {self.what}{tail}"


def from_document(document: ProblemDocument) -> Problem:
    """The problem of a document. A later release may have ids that this one does not have."""
    return Problem(
        document["where"],
        document["what"],
        document["remedy"],
        document["severity"],
        id=cast(Id, document["id"]),
    )


class ProvisionError(Exception):
    """Base of all errors of this tool. ``problems`` lists everything found, not the first.

    ``id`` is the kind of trouble, as in :class:`Problem`; with several problems, of them all.
    """

    exit_code = 1
    headline = "error"

    def __init__(self, message: str, problems: Sequence[Problem] = (), *, id: Id) -> None:
        super().__init__(message)
        self.id = id
        self.message = message
        self.problems = tuple(problems)


class Unhealthy(ProvisionError):
    """A cluster, member or worker is not in the state it should be in."""

    exit_code = 1


class UsageError(ProvisionError):
    """A command that cannot work, or a question that was not answered; no host was changed."""

    exit_code = 2


class InventoryError(UsageError):
    """The inventory is wrong; nothing was contacted."""


class PreflightFailed(ProvisionError):
    """A host cannot be reached or is not fit for the change; nothing was changed."""

    exit_code = 3


class ChangeFailed(ProvisionError):
    """A change stopped part-way; running the same command again continues it."""

    exit_code = 4


class Locked(ProvisionError):
    """Another run is changing the same hosts."""

    exit_code = 5
