"""One cluster's present registrations in etcd: read once, then updated by a watch."""

from __future__ import annotations

import threading

from provision import bounds
from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import RegistrationSnapshot, entries
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import Changes, KeyValue


class WatchCache:
    """Both prefixes of ``cluster``, read when the cache is made. Safe to use from several threads.

    Raises :class:`provision.etcd.api.errors.EtcdError`.
    """

    def __init__(self, client: EtcdClient, cluster: str) -> None:
        self._of = client.status().cluster_id
        self._last = registrations.read(client, cluster, partial=True)
        self._stale = False
        self._lock = threading.Lock()
        self._revision = self._last.revision
        self._authorized = registrations.authorized_prefix(cluster)
        self._live = registrations.live_prefix(cluster)
        self._keys: dict[str, dict[bytes, KeyValue]] = {
            self._authorized: {e.key.key: e.key for e in self._last.authorized.values()},
            self._live: {e.key.key: e.key for e in self._last.live.values()},
        }
        self._cut = self._last.cut
        self._size = sum(_size(k) for keys in self._keys.values() for k in keys.values())
        #: For each prefix, the revision from which a watch must begin.
        self.since = dict.fromkeys(self._keys, self._revision + 1)

    def goes_on(self, client: EtcdClient) -> bool:
        """Whether a watch with ``client`` continues the data that was read. It does not after a
        restore (another cluster id) or after a recovery from a lost quorum (an older revision)."""
        if client.status().cluster_id != self._of:
            return False
        revision, _ = client.range(self._authorized, limit=1, keys_only=True)
        return revision >= self._revision

    def apply(self, changes: Changes) -> bool:
        """Apply the events of a watch of :attr:`since`. Returns whether anything changed."""
        if not changes.events:
            return False
        with self._lock:
            keys = self._keys[changes.prefix]
            for event in changes.events:
                old = keys.pop(event.key.key, None)
                self._size -= _size(old) if old is not None else 0
                if event.deleted:
                    continue
                if len(keys) >= bounds.KEYS or self._size > bounds.KEY_BYTES:
                    self._cut = "the watch has told of more keys than are kept"
                    continue
                keys[event.key.key] = event.key
                self._size += _size(event.key)
            newest = max(event.key.mod_revision for event in changes.events)
            self.since[changes.prefix] = newest + 1
            self._revision = max(self._revision, newest)
            self._stale = True
        return True

    @property
    def membership(self) -> RegistrationSnapshot:
        """The present registrations. Unchanged values are not parsed again."""
        with self._lock:
            if self._stale:
                last = self._last
                authorized, live = (sorted(keys.values()) for keys in self._keys.values())
                known = entries(self._authorized, authorized, last.authorized)
                self._last = RegistrationSnapshot(
                    last.cluster,
                    self._revision,
                    known,
                    entries(self._live, live, known),
                    self._cut,
                )
                self._stale = False
            return self._last


def _size(key: KeyValue) -> int:
    return len(key.key) + len(key.value)
