"""A client that writes all the time, and what became of every write that it was promised."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdError
from provision.etcd.api.values import Endpoint, Login

from .lab import Host

#: Seconds that a write may take before the client turns to the next endpoint.
PATIENCE = 2.0
#: Seconds between two writes. A learner that has more than 5000 entries to apply cannot publish
#: itself until it has (etcd's ``maxGapBetweenApplyAndCommitIndex``), and spins meanwhile.
PAUSE = 0.04


@dataclass
class Writes:
    """One client's writes: ``acknowledged`` by number, and when the last was. Seconds."""

    prefix: str
    endpoints: Sequence[Endpoint]
    acknowledged: list[int] = field(default_factory=list)
    failed: int = 0
    longest_pause: float = 0.0
    login: Login | None = None
    started: float = field(default_factory=time.monotonic)
    #: When the last one was acknowledged.
    last: float = field(default_factory=time.monotonic)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        number = turn = 0
        while not self._over.is_set():
            endpoint = self.endpoints[turn % len(self.endpoints)]
            with (
                contextlib.suppress(EtcdError),
                EtcdClient(endpoint, timeout=PATIENCE, login=self.login) as client,
            ):
                while not self._over.is_set():
                    number += 1
                    # A number is used once: a write that failed may yet have been made.
                    client.put(f"{self.prefix}{number}", str(number))
                    now = time.monotonic()
                    self.longest_pause = max(self.longest_pause, now - self.last)
                    self.last = now
                    self.acknowledged.append(number)
                    time.sleep(PAUSE)
                return
            self.failed += 1
            turn += 1
            time.sleep(PAUSE)

    def end(self) -> None:
        self._over.set()

    def pause(self) -> float:
        """The longest time without an acknowledgement since the last call, in seconds."""
        longest, self.longest_pause = self.longest_pause, 0.0
        return longest


@contextlib.contextmanager
def writing(hosts: Sequence[Host], prefix: str, port: int = 2379) -> Iterator[Writes]:
    """Write through whichever of ``hosts`` serves, and check in the end that nothing was lost.

    The check is a linearizable read through every host that serves then.
    """
    writes = Writes(prefix, [Endpoint(host.address, port) for host in hosts])
    thread = threading.Thread(target=writes.run)
    thread.start()
    try:
        yield writes
    finally:
        writes.end()
        thread.join()
    assert len(writes.acknowledged) > 20
    serving = 0
    for endpoint in writes.endpoints:
        with contextlib.suppress(EtcdError), EtcdClient(endpoint, timeout=10) as client:
            _, found = client.range(prefix)
            there = {int(pair.value) for pair in found}
            lost = set(writes.acknowledged) - there
            assert not lost, f"{len(lost)} of {len(writes.acknowledged)} lost: {sorted(lost)[:5]}"
            serving += 1
    assert serving
