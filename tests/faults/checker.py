"""A client beside an operation: no acknowledged write may be lost, no read may be stale.

Beside the numbered keys of :class:`~tests.integration.writes.Writes` there are registers: one
key each, written by one writer with increasing values, read by linearizable reads at the same
time. For such a register linearizability means three things, and all are checked of each read:
it returns nothing older than what was acknowledged, or read by anyone, before it began; and
nothing that had not been sent when it ended. A writer that does not know what became of a write
leaves that register and begins another: the write may still be made much later.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdError
from provision.etcd.api.values import Endpoint, Login

from ..integration.lab import Host
from ..integration.writes import PATIENCE, PAUSE, Writes

READERS = 2
#: Registers that are read: the newest ones.
READ = 3


@dataclass
class Register:
    """One key. ``floor`` is the newest value known to be there, ``sent`` the newest asked for."""

    key: str
    floor: int = 0
    sent: int = 0


class Registers:
    """One writer and some readers, each through whichever endpoint serves it."""

    def __init__(self, prefix: str, endpoints: Sequence[Endpoint], login: Login | None) -> None:
        self.prefix, self.endpoints, self.login = prefix, endpoints, login
        self.registers: list[Register] = []
        self.acknowledged = self.reads = 0
        self.stale: list[str] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._write)]
        self._threads += [threading.Thread(target=self._read, args=(n,)) for n in range(READERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def check(self, register: Register, floor: int, value: int, sent: int) -> None:
        """``floor`` is from before the read began, ``sent`` from after it ended."""
        if not floor <= value <= sent:
            self.stale.append(f"{register.key}: {value}, not from {floor} to {sent}")

    def _clients(self, turn: int) -> Iterator[EtcdClient]:
        """A client of one endpoint after another; the next when the caller has had enough."""
        while not self._over.is_set():
            endpoint = self.endpoints[turn % len(self.endpoints)]
            with EtcdClient(endpoint, timeout=PATIENCE, login=self.login) as client:
                yield client
            turn += 1
            time.sleep(PAUSE)

    def _write(self) -> None:
        for client in self._clients(0):
            register = Register(f"{self.prefix}{len(self.registers)}")
            with self._lock:
                self.registers.append(register)
            with contextlib.suppress(EtcdError):
                while not self._over.is_set():
                    with self._lock:
                        register.sent += 1
                    client.put(register.key, str(register.sent))
                    with self._lock:
                        register.floor = max(register.floor, register.sent)
                    self.acknowledged += 1
                    time.sleep(PAUSE)

    def _read(self, number: int) -> None:
        turn = 0
        for client in self._clients(number + 1):
            with contextlib.suppress(EtcdError):
                while not self._over.is_set():
                    with self._lock:
                        read = self.registers[-READ:]
                    if not read:
                        break
                    turn += 1
                    self.read(client, read[turn % len(read)])
                    time.sleep(PAUSE)

    def read(self, client: EtcdClient, register: Register) -> None:
        """One linearizable read, checked."""
        with self._lock:
            floor = register.floor
        found = client.get(register.key)
        value = int(found.value) if found is not None else 0
        with self._lock:
            self.check(register, floor, value, register.sent)
            register.floor = max(register.floor, value)
            self.reads += 1


@dataclass
class Verdict:
    """What the checker saw. ``pause`` is the longest time without an acknowledgement, seconds."""

    writes: Writes | None = None
    registers: Registers | None = None
    acknowledged: int = 0
    lost: int = 0
    reads: int = 0
    stale: int = 0
    pause: float = 0.0
    examples: list[str] = field(default_factory=list)

    def look(self) -> None:
        """Fill this in from what is there now, through every endpoint that serves."""
        writes, registers = self.writes, self.registers
        assert writes is not None
        assert registers is not None
        served = 0
        self.examples = []
        for endpoint in writes.endpoints:
            with (
                contextlib.suppress(EtcdError),
                EtcdClient(endpoint, timeout=10, login=writes.login) as client,
            ):
                _, found = client.range(writes.prefix)
                missing = sorted(set(writes.acknowledged) - {int(pair.value) for pair in found})
                self.lost = max(self.lost, len(missing))
                self.examples += [f"{writes.prefix}{n} is not at {endpoint}" for n in missing[:3]]
                for register in registers.registers:
                    registers.read(client, register)
                served += 1
        assert served, "no member serves reads"
        self.acknowledged = len(writes.acknowledged) + registers.acknowledged
        self.reads, self.stale = registers.reads, len(registers.stale)
        self.examples += registers.stale[:3]

    def document(self) -> dict[str, object]:
        return {
            "acknowledged_writes": self.acknowledged,
            "lost_writes": self.lost,
            "reads": self.reads,
            "stale_reads": self.stale,
            "longest_pause": round(self.pause, 2),
            **({"examples": self.examples} if self.examples else {}),
        }


@contextlib.contextmanager
def checking(hosts: Sequence[Host], prefix: str, login: Login | None = None) -> Iterator[Verdict]:
    """Write and read through ``hosts`` all the time; the verdict is there in the end.

    The last look is by linearizable reads through every one of ``hosts`` that serves then.
    """
    endpoints = [Endpoint(host.address, 2379) for host in hosts]
    writes = Writes(f"{prefix}writes/", endpoints, login=login)
    registers = Registers(f"{prefix}registers/", endpoints, login)
    verdict = Verdict(writes, registers)
    thread = threading.Thread(target=writes.run)
    thread.start()
    registers.start()
    try:
        yield verdict
    finally:
        writes.end()
        thread.join()
        registers.end()
        verdict.pause = max(writes.longest_pause, time.monotonic() - writes.last)
    verdict.look()
