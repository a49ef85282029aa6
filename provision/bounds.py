"""How much this tool reads at most, in one place: each limit with its unit and its reason.

Whoever answers may be hostile: a member, a host, a worker's user in etcd, a file that is a device.
No reader waits, or collects, without an end. A limit never cuts the registrations of a real
cluster: 250,000 keys of 256 MiB together are read whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MIB = 1 << 20

#: Keys of one read of etcd, and of what a watch keeps below a prefix. A cluster of 100,000 workers
#: has as many keys below each prefix.
KEYS = 300_000
#: Bytes of keys and values of one read of etcd. A worker's value has some 400 bytes.
KEY_BYTES = 320 * MIB
#: Seconds for one read of etcd, all its pages together. 320 MiB take 600 s at 0.5 MiB/s.
READ_SECONDS = 600.0
#: Bytes of one answer of etcd. etcd's own limit for a request (--max-request-bytes) is 1.5 MiB, and
#: an answer has many keys.
ANSWER = 64 * MIB
#: Bytes that a page of keys should have: a page of larger values gets fewer keys.
PAGE_BYTES = 8 * MIB
#: Bytes of a value that is parsed as a worker's: JSON takes some twenty times its size in memory.
VALUE = 256 << 10
#: Names of Alluxio clusters in one etcd. Nobody has seen more than some dozens.
CLUSTERS = 10_000
#: Members in one answer. etcd advises against more than seven; learners and leaving members count.
MEMBERS = 100
#: Users, and roles, of one etcd: each needs a request of its own.
USERS = 2_000
#: Alarms, and errors, in one answer: a member has at most one of each kind.
ALARMS = 1_000

#: Bytes of a snapshot. etcd's largest advised database has 8 GiB; some sites raise it.
SNAPSHOT = 128 << 30
#: A stream of bytes must be at least so fast on average (bytes a second), after
#: :data:`STREAM_GRACE` seconds: one that drips would have no end. A modem is faster.
STREAM_RATE = 32 << 10
STREAM_GRACE = 120.0
#: Seconds for a stream in all. 128 GiB take a day at 1.5 MB/s.
STREAM_SECONDS = 86_400.0
#: Bytes of a tarball. A release of Alluxio has some 3 GB.
TARBALL = 32 << 30
#: Seconds and bytes until a server has sent the headers of a download, redirects included. Headers
#: have some thousand bytes.
DOWNLOAD_HEADER_SECONDS, DOWNLOAD_HEADER = 60.0, MIB

#: Bytes of a host's output, for stdout and stderr each. The facts of a worker have some 20 kB, and
#: `info nodes` some 100 bytes for each worker.
HOST_OUTPUT = 32 * MIB
#: Bytes that a host may send without being read: on a command that only holds a lock, or through a
#: tunnel. SSH's own window (2 MiB) is a promise that a hostile sshd does not keep.
HOST_UNREAD = 64 * MIB
#: Rows of `info nodes`: as many as etcd's keys.
ROWS = KEYS
#: Bytes of kubectl's output. 5,000 pods have some 40 MB of JSON.
KUBECTL_OUTPUT = 256 * MIB

#: Bytes of an inventory. None needs more; beyond it a document is a mistake or an attack.
INVENTORY = 8 * MIB
#: Bytes of a secret in a file, and of a key or certificate file. A bundle of 500 CAs has 1 MB.
SECRET, PEM = 64 << 10, 8 * MIB
#: Bytes of a file with checksums, of known_hosts, and of an SSH configuration.
CHECKSUMS, KNOWN_HOSTS, SSH_CONFIG = 8 * MIB, 64 * MIB, 8 * MIB
#: Bytes of a JSON document of this tool's own, such as a saved registration.
DOCUMENT = 64 * MIB
#: Bytes of the documents of all parts of one whole. A worker has some 1.5 kB in a document of
#: check-nodes, and up to 20 kB in the plan of its installation.
REPORTS = 256 * MIB
#: Seconds for a file: one that is a pipe may have no writer.
FILE_SECONDS = 10.0


class Flow:
    """The bytes of one stream, and whether they come so slowly that it has no end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._since, self.count = clock, clock(), 0

    def add(self, count: int) -> None:
        self.count += count

    @property
    def drips(self) -> bool:
        """Whether the stream is slower than :data:`STREAM_RATE` since :data:`STREAM_GRACE`, or goes
        on after :data:`STREAM_SECONDS`."""
        passed = self._clock() - self._since
        slow = self.count < (passed - STREAM_GRACE) * STREAM_RATE
        return passed > STREAM_SECONDS or (passed > STREAM_GRACE and slow)

    @property
    def slow(self) -> str:
        """What is wrong with a stream that drips."""
        if self._clock() - self._since > STREAM_SECONDS:
            return f"no end in {STREAM_SECONDS / 3600:g} hours"
        return f"less than {STREAM_RATE >> 10} KiB a second"
