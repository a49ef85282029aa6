"""Failures before a login that may pass: an overloaded sshd, a jump host without resources."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import paramiko

from provision.ssh.refused import Refused

#: Seconds between attempts. Each pause is between half of it and all of it, by chance: hundreds of
#: connections that failed together must not come back together.
PAUSES = (1.0, 2.0, 4.0)
#: What sshd says in place of its version, and closes. OpenSSH from 9.8 on says the second one in
#: both cases: when MaxStartups is reached, and to an address with penalties (PerSourcePenalties).
_FULL = "Exceeded MaxStartups"
_NOT_NOW = "Not allowed at this time"


class Passing(Refused):
    """A refusal that another attempt may not meet."""


class Attempts:
    """The attempts at one connection: ``limit`` is in seconds, from now on, for the last to begin.

    ``wait`` waits for so many seconds and returns whether the run ends meanwhile.
    """

    def __init__(self, limit: float, wait: Callable[[float], bool]) -> None:
        self._until = time.monotonic() + limit
        self._wait = wait
        self._pauses = list(PAUSES)

    def again(self, error: BaseException) -> bool:
        """Whether to try again after ``error``; waits before that."""
        if not self._pauses or not may_pass(error):
            return False
        pause = self._pauses.pop(0) * random.uniform(0.5, 1)  # nosec
        if time.monotonic() + pause > self._until:
            return False
        return not self._wait(pause)


def may_pass(error: BaseException) -> bool:
    """Whether a failure before the login may pass. A refused connection or a wrong host key does
    not, and a host that was silent has had its time."""
    if isinstance(error, Refused):
        return isinstance(error, Passing)
    if isinstance(error, EOFError | ConnectionResetError | BrokenPipeError):
        return True
    # Paramiko's words for an end of the connection where a version or an answer should come.
    said = str(error)
    return type(error) is paramiko.SSHException and (
        "protocol banner" in said or said in ("No existing session", "Server connection dropped: ")
    )


def turned_away(lines: list[str]) -> Passing | None:
    """The error that a server's lines before its version mean."""
    for line in lines:
        if line.startswith(_FULL):
            remedy = "run again later, or raise MaxStartups there"
            what = "takes no more connections at the moment (MaxStartups of its sshd)"
            return Passing(what, remedy, id="host-unreachable")
        if line.startswith(_NOT_NOW):
            what = (
                "refuses connections from this machine for now: it has too many logins at once "
                "(MaxStartups), or it counts failed logins from here (PerSourcePenalties, OpenSSH "
                "9.8 and newer)"
            )
            remedy = (
                "wait some minutes, then run again; the log of its sshd says which it is, and "
                "PerSourcePenaltyExemptList there can name this machine"
            )
            return Passing(what, remedy, id="host-unreachable")
    return None
