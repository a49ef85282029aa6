"""The run lock: two operators never change the same hosts at once.

The lock is a ``flock`` on each host, held by a process whose standard input is our SSH channel.
It ends with that channel, so a run that was killed leaves no lock; a run whose network died
loses its lock when its heartbeats have been missing for :data:`EXPIRY` seconds.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import socket
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

from provision.errors import Locked, PreflightFailed, Problem, ProvisionError
from provision.host.observe import PENDING_DIR
from provision.inventory.resolved import Machine
from provision.remote import Fleet, Held, Session, failures

#: Seconds between heartbeats, and without one after which the host lets go of the lock.
HEARTBEAT = 10.0
EXPIRY = 45


def holder(command: str) -> str:
    """Who we are, for the other operator: user, machine, process, command and since when."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{getpass.getuser()}@{socket.gethostname()} (pid {os.getpid()}): {command}, since {now}"


@contextlib.contextmanager
def held(fleet: Fleet, machines: Sequence[Machine], command: str) -> Iterator[None]:
    """Hold the lock of every machine in ``machines``, or of none.

    Raises :class:`Locked` with each machine's holder when one is taken, and
    :class:`PreflightFailed` when one cannot be reached; nothing is left locked then.
    """
    me = holder(command)
    handles: dict[Machine, Held | ProvisionError] = {}
    try:
        handles = fleet.map(lambda session: _take(session, me), machines)
        taken = [e for e in handles.values() if isinstance(e, Locked)]
        if taken:
            raise Locked(taken[0].message, [p for e in taken for p in e.problems])
        if problems := failures(handles):
            raise PreflightFailed("the run lock could not be taken; nothing was changed", problems)
        with _heartbeat([h for h in handles.values() if isinstance(h, Held)]):
            yield
    finally:
        for handle in handles.values():
            if isinstance(handle, Held):
                handle.close()


def _take(session: Session, me: str) -> Held:
    command = f"""\
mkdir -p {PENDING_DIR}; exec 9>>{PENDING_DIR}/run.lock
if ! flock -n 9; then echo "taken $(cat {PENDING_DIR}/run.lock)"; exit 0; fi
echo {shlex.quote(me)} >{PENDING_DIR}/run.lock; echo held
while [ -n "$(timeout {EXPIRY} head -c 1 | tr '\\n' x)" ]; do :; done
: >{PENDING_DIR}/run.lock"""
    handle = session.hold(command, "lock")
    if handle.greeting == "held":
        return handle
    handle.close()
    host = session.machine.host
    if not handle.greeting.startswith("taken "):
        raise PreflightFailed(f"{host}: no lock", [Problem(host, "the run lock cannot be taken")])
    who = handle.greeting.removeprefix("taken ") or "a run that has just begun"
    problem = Problem(host, f"locked by {who}", "wait until it ends, then run again")
    raise Locked(f"another run holds the lock of {host}: {who}", [problem])


@contextlib.contextmanager
def _heartbeat(handles: Sequence[Held]) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT):
            for handle in handles:
                with contextlib.suppress(OSError, EOFError):
                    handle.beat()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
