"""``bin/alluxio`` on a worker's host: as the service user, time-limited, on one of two hosts."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

from provision.alluxio.worker import desired
from provision.errors import ProvisionError, Unhealthy
from provision.host import safely
from provision.inventory.resolved import AlluxioCluster
from provision.ssh.session import Result, Session

K = TypeVar("K")
T = TypeVar("T")

#: Seconds that one command may take. A real Alluxio 313 took 8 to 14 s for `info nodes` on a loaded
#: machine; this limit is three times the longest. Without etcd the command hangs for over a minute.
DEFAULT_TIMEOUT = 45.0
#: A second host is asked when the first has not answered in this fraction of the limit.
SECOND_AFTER = 1 / 3
#: The output of a script on a host without Alluxio, and the message about such a host.
NOT_INSTALLED, NOT_YET = "@@not-installed", "Alluxio is not installed yet"
#: Seconds between the two signals of timeout(1).
KILL_AFTER = 2
#: Seconds that a host may take in addition to the command: for the login and the script.
MARGIN = 3


class CommandFailed(Unhealthy):
    """A command of ``bin/alluxio`` gave no answer."""


class NotInstalled(Unhealthy):
    """The host has no Alluxio, or no service user, yet."""


def executable(alluxio: AlluxioCluster) -> str:
    """The path of ``bin/alluxio`` of the release that a host runs."""
    return f"{desired.current_link(alluxio)}/bin/alluxio"


def installed(alluxio: AlluxioCluster) -> str:
    """The shell condition that is true on a host with Alluxio and its service user."""
    tool = shlex.quote(executable(alluxio))
    return f"{{ [ -x {tool} ] && id -u {shlex.quote(alluxio.user)} >/dev/null 2>&1; }}"


def command(alluxio: AlluxioCluster, words: Sequence[str], timeout: float) -> str:
    """The shell command, as the service user and for at most ``timeout`` seconds."""
    line = shlex.join([executable(alluxio), *words])
    return (
        f"timeout -k {KILL_AFTER} {whole_seconds(timeout)} {safely.become(alluxio.user)} "
        # Without this, the command's standard input would be the rest of this script.
        f"{line} </dev/null"
    )


def run(session: Session, alluxio: AlluxioCluster, words: Sequence[str], timeout: float) -> Result:
    """Run ``bin/alluxio`` with ``words`` on the session's host.

    Raises :class:`NotInstalled`, and :class:`CommandFailed` when it does not end in ``timeout``
    seconds. Any other exit code is in the result.
    """
    script = f"{installed(alluxio)} || {{ echo {NOT_INSTALLED}; exit 1; }}\n"
    script += command(alluxio, words, timeout)
    what = " ".join(words[:2])
    result = session.run(script, what, timeout=timeout + KILL_AFTER + MARGIN)
    require_answer(result, timeout)
    return result


def require_answer(result: Result, timeout: float) -> None:
    """Raise :class:`NotInstalled` or :class:`CommandFailed` as :func:`run` does."""
    if result.stdout.strip() == NOT_INSTALLED:
        raise NotInstalled(NOT_YET, id="worker-not-installed")
    if result.code in safely.TIMED_OUT:
        raise CommandFailed(f"did not answer in {whole_seconds(timeout)} s", id="info-nodes-failed")


def reason(stdout: str, stderr: str) -> str:
    """The first line with the reason why a command failed; empty without such a line.

    A real Alluxio prints the reason on stdout (class ``FileSystemAdminShell``); stderr then has the
    stack of the Go program around it. A JVM that does not start prints on stderr.
    """
    for text in (stdout, stderr):
        for line in text.splitlines():
            if line.strip() and not line.startswith("Picked up "):  # JAVA_TOOL_OPTIONS
                return line.strip()
    return ""


def first_answer(
    ask: Callable[[K], T], places: Sequence[K], after: float
) -> tuple[tuple[K, T] | None, dict[K, ProvisionError]]:
    """The first answer of ``places``, and the errors until then. None: all places failed.

    When a place fails, the next one is asked at once. When it has not answered within ``after``
    seconds, the next one is asked in parallel. Slower places are not waited for, also not at the
    program's end.
    """
    errors: dict[K, ProvisionError] = {}
    ended: SimpleQueue[tuple[K, Future[T]]] = SimpleQueue()

    def begin(place: K) -> None:
        answer = in_background(lambda: ask(place))
        answer.add_done_callback(lambda answer: ended.put((place, answer)))

    waiting = list(places)
    running = 0
    while waiting or running:
        if waiting:
            begin(waiting.pop(0))
            running += 1
        with contextlib.suppress(Empty):
            place, answer = ended.get(timeout=after if waiting else None)
            running -= 1
            try:
                return (place, answer.result()), errors
            except ProvisionError as error:
                errors[place] = error
    return None, errors


def in_background(ask: Callable[[], T]) -> Future[T]:
    """The answer to come. Nobody has to wait for it, also not the program's end: threads of a pool
    would be waited for then."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="alluxio-command", daemon=True).start()
    return future


def whole_seconds(timeout: float) -> int:
    return max(1, math.ceil(timeout))
