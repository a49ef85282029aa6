"""One cluster's registrations as etcd has them now: read once, then kept up to date by a watch."""

from __future__ import annotations

import threading

from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import RegistrationSnapshot, entries
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import Changes, KeyValue


class WatchCache:
    """Both prefixes of ``cluster``, read when this is made. Safe to use from several threads.

    Raises :class:`provision.etcd.api.client.EtcdError`.
    """

    def __init__(self, client: EtcdClient, cluster: str) -> None:
        self._of = client.status().cluster_id
        self._last = registrations.read(client, cluster)
        self._stale = False
        self._lock = threading.Lock()
        self._revision = self._last.revision
        self._authorized = registrations.authorized_prefix(cluster)
        self._live = registrations.live_prefix(cluster)
        self._keys: dict[str, dict[bytes, KeyValue]] = {
            self._authorized: {e.key.key: e.key for e in self._last.authorized.values()},
            self._live: {e.key.key: e.key for e in self._last.live.values()},
        }
        #: For each prefix, the revision from which on a watch has to go.
        self.since = dict.fromkeys(self._keys, self._revision + 1)

    def goes_on(self, client: EtcdClient) -> bool:
        """Whether a watch there continues what was read. It does not where a snapshot has been
        restored (another cluster id), or a lost quorum given up (an older revision)."""
        if client.status().cluster_id != self._of:
            return False
        revision, _ = client.range(self._authorized, limit=1, keys_only=True)
        return revision >= self._revision

    def apply(self, changes: Changes) -> bool:
        """Take over what a watch of :attr:`since` saw. Returns whether that is a change."""
        if not changes.events:
            return False
        with self._lock:
            keys = self._keys[changes.prefix]
            for event in changes.events:
                if event.deleted:
                    keys.pop(event.key.key, None)
                else:
                    keys[event.key.key] = event.key
            newest = max(event.key.mod_revision for event in changes.events)
            self.since[changes.prefix] = newest + 1
            self._revision = max(self._revision, newest)
            self._stale = True
        return True

    @property
    def membership(self) -> RegistrationSnapshot:
        """The registrations as they are. Values that did not change are not parsed again."""
        with self._lock:
            if self._stale:
                last = self._last
                authorized, live = (sorted(keys.values()) for keys in self._keys.values())
                known = entries(self._authorized, authorized, last.authorized)
                self._last = RegistrationSnapshot(
                    last.cluster, self._revision, known, entries(self._live, live, known)
                )
                self._stale = False
            return self._last
