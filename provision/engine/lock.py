"""The run lock: two operators never change the same hosts at once.

The lock is a ``flock`` on each host. A process holds it, with this run's SSH channel as its
standard input. The process ends with that channel, so a killed run leaves no lock. When a run's
network dies, the run loses its lock after :data:`EXPIRY` seconds without heartbeats.

A plan is made before the lock is taken. So each run notes the host's uptime beside the lock, first
and last: the note shows whether another run has held the lock since this run began to look. The
kernel gives the uptime with fractions, whatever the host's ``date`` can do, and no step of the
clock changes it. Earlier versions of this tool left only the time of the lock file's last change.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone

from provision import progress
from provision.errors import ChangeFailed, Locked, PreflightFailed, Problem, ProvisionError
from provision.host.facts import STATE_DIR, state_file
from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet, Held, Session, failures
from provision.text import printable

#: Seconds between heartbeats, and seconds without a heartbeat until the host releases the lock.
HEARTBEAT = 10.0
EXPIRY = 45
#: Seconds that the release of all locks may take; a host that is gone releases its lock itself.
RELEASE = 5.0
#: The host's uptime when a run last took or released the lock, in seconds.
LAST_USE = f"{STATE_DIR}/run.last"
#: What the uptime is rounded down to, in seconds.
TICK = 0.01


def holder(command: str) -> str:
    """This run's description for the other operator: user, machine, process, command and time."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{getpass.getuser()}@{socket.gethostname()} (pid {os.getpid()}): {command}, since {now}"


@contextlib.contextmanager
def held(fleet: Fleet, machines: Sequence[Machine], command: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of every machine in ``machines``, or of none.

    Raises :class:`Locked`, with each machine's holder, when a lock is taken, or when another run
    has held it since this run's ``fleet`` was made or last held it. Raises
    :class:`PreflightFailed` when a machine cannot be reached. Nothing is left locked then. Two runs
    that begin at the same instant may each find the other's lock, and both give up.

    The yielded function raises :class:`ChangeFailed` when a lock has been lost.
    """
    me = holder(command)
    handles: dict[Machine, Held | ProvisionError] = {}
    locks: dict[Machine, Held] = {}

    def note(machine: Machine, handle: Held | ProvisionError) -> None:
        if isinstance(handle, Held):
            locks[machine] = handle

    def still() -> None:
        lost = [m for m, h in locks.items() if not h.alive]
        if lost:
            raise ChangeFailed(
                f"the run lock of {', '.join(m.host for m in lost)} was lost: the connection "
                "broke; run the same command again to continue",
                [Problem(m.place, "the run lock was lost", id="lock-lost") for m in lost],
                id="lock-lost",
            )

    try:
        with _heartbeat(locks):  # from the first lock on: it takes a while to take hundreds
            handles = fleet.map(
                lambda session: _take(session, me, fleet.since), machines, on_done=note
            )
            taken = [e for e in handles.values() if isinstance(e, Locked)]
            if taken:
                raise Locked(
                    taken[0].message, [p for e in taken for p in e.problems], id=taken[0].id
                )
            if problems := failures(handles):
                what = "the run lock could not be taken"
                raise PreflightFailed(what, problems, id="lock-unavailable")
            yield still
    finally:
        every = list(locks.values())
        for handle in every:
            handle.release()
        # Wait until the locks are free: the next run may begin at once, and must not find them.
        deadline = time.monotonic() + RELEASE
        with progress.waiting("run locks released", within=RELEASE, of=len(every)) as shown:
            for handle in every:
                handle.close(max(0.0, deadline - time.monotonic()))
                shown.add()
        fleet.since = time.monotonic()


def _take(session: Session, me: str, since: float) -> Held:
    command = f"""\
used=; [ ! -e {STATE_DIR}/run.lock ] || used=yes
{state_file(f"{STATE_DIR}/run.lock")}
exec 9>>{STATE_DIR}/run.lock
if ! flock -n 9; then echo "taken $(cat {STATE_DIR}/run.lock)"; exit 0; fi
last=; [ ! -f {LAST_USE} ] || [ {STATE_DIR}/run.lock -nt {LAST_USE} ] || read -r last <{LAST_USE}
read -r up _ </proc/uptime
case $used:$last in
  :*) ;;
  *:) used="s $(date +%s) $(stat -c %Y {STATE_DIR}/run.lock)";;
  *) used="$up $last";;
esac
note() {{ read -r up _ </proc/uptime; echo "$up" >{LAST_USE}; }}
echo {shlex.quote(me)} >{STATE_DIR}/run.lock; note; echo held $used
while [ -n "$(timeout {EXPIRY} head -c 1 | tr '\\n' x)" ]; do :; done
: >{STATE_DIR}/run.lock; note"""
    looking = time.monotonic() - since
    handle = session.hold(command, "lock")
    host, place = session.machine.host, session.machine.place
    said, _, used = handle.greeting.partition(" ")
    if said == "held":
        try:
            ago = _ago(used)
        except ValueError as error:
            handle.close(RELEASE)
            what = f"the last use of the run lock is unknown: {printable(used, 200)}"
            remedy = f"if no other run is at work: remove {STATE_DIR}/run.lock and {LAST_USE}"
            raise _no_lock(place, what, remedy) from error
        if ago is None or ago > looking:
            return handle
        handle.close(RELEASE)
        what = (
            f"another run ended on this host {ago:.1f} s ago, after this run had begun to "
            "read its state"
        )
        raise Locked(
            f"{host} may have changed since the plan was made",
            [Problem(place, what, "run again", id="changed-meanwhile")],
            id="changed-meanwhile",
        )
    handle.close(RELEASE)
    if not handle.greeting.startswith("taken "):
        said = f": {printable(handle.greeting, 200)}" if handle.greeting else ""
        what = f"the run lock cannot be taken{said}"
        remedy = f"check that the host has flock, and that root can write {STATE_DIR}"
        raise _no_lock(place, what, remedy)
    who = printable(handle.greeting.removeprefix("taken ").strip(), 300)
    who = who or "a run that began just now"
    problem = Problem(place, f"locked by {who}", "wait until it ends, then run again", id="locked")
    raise Locked(f"another run holds the lock of {host}: {who}", [problem], id="locked")


def _no_lock(place: str, what: str, remedy: str) -> PreflightFailed:
    problem = Problem(place, what, remedy, id="lock-unavailable")
    return PreflightFailed(f"{place}: no lock", [problem], id="lock-unavailable")


def _ago(used: str) -> float | None:
    """Seconds since the last use of the lock, from two times of the host, both rounded down.

    None when the lock was never used. Raises :class:`ValueError` when they are no times. Uptimes
    have ticks: of these the result is the most that it can be, because a run takes the lock several
    times, one right after the other. Of whole seconds (after "s") it is the least.
    """
    if not used:
        return None
    whole = used.startswith("s ")
    now, then = map(float, used.removeprefix("s ").split())
    return max(0.0, now - then - 1) if whole else max(0.0, now - then) + TICK


@contextlib.contextmanager
def _heartbeat(handles: Mapping[Machine, Held]) -> Iterator[None]:
    """Beats for ``handles``, which may grow meanwhile."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT):
            for handle in list(handles.values()):
                with contextlib.suppress(OSError, EOFError):
                    handle.beat()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(1.0)
