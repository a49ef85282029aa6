"""The declared workers and the ids in etcd, matched, and compared with ``info nodes``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from types import MappingProxyType

from provision.alluxio.commands.nodes import NodeRow
from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import (
    Entry,
    Registration,
    RegistrationSnapshot,
    UnknownRegistration,
)
from provision.check_nodes.verdict import (
    NodeVerdict,
    State,
    address,
    lower,
    undeclared,
    verdict,
)
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker

#: Ids that a note lists.
SHOWN = 4


@dataclass(slots=True)
class _Seen:
    """One worker id in etcd."""

    worker_id: str
    registration: Registration | UnknownRegistration
    live: bool
    host: str
    port: int
    revision: int
    notes: Sequence[str]
    lease: int = 0

    @property
    def address(self) -> tuple[str, int]:
        return lower(self.host), self.port

    def is_at(self, worker: AlluxioWorker) -> bool:
        """Whether this is the worker's address."""
        if self.host == worker.hostname and self.port == worker.rpc_port:
            return True
        return self.address == address(worker)

    @property
    def known(self) -> Registration | None:
        """The value, if its form is known."""
        return self.registration if isinstance(self.registration, Registration) else None


def join(
    alluxio: AlluxioCluster,
    registered: RegistrationSnapshot,
    info: Sequence[NodeRow] | None,
    identities: Mapping[str, str],
    expired: Mapping[int, int] = MappingProxyType({}),
) -> list[NodeVerdict]:
    """One verdict per declared worker, then one per id in etcd or ``info nodes`` that belongs to no
    declared worker.

    ``expired``: the seconds since the end of expired leases, by lease.
    """
    rows = {row.worker_id: row for row in info or ()}
    seen = _ids(registered, rows, with_authorized=alluxio.membership.permanent_keys)
    claimed = _claims(alluxio.workers, seen, identities)
    found: list[NodeVerdict] = []
    whose = {_bare(one.worker_id): name for name, one in claimed.items()} if identities else {}
    for worker in alluxio.workers:
        one, known = claimed.get(worker.name), identities.get(worker.name)
        if one is None:
            mine = whose.get(_bare(known)) if known is not None else None
            notes = [_same_identity(known, mine)] if mine is not None else []
            found.append(verdict(worker, State.UNREGISTERED, notes=notes))
            continue
        notes = list(one.notes)
        if one.host and not one.is_at(worker):
            notes.append(
                f"registered as {one.host}:{one.port}, "
                f"the inventory says {worker.hostname}:{worker.rpc_port}"
            )
        if known is not None and _bare(one.worker_id) != _bare(known):
            notes.append(_same_identity(known, whose.get(_bare(known))))
        status, differing = _compare(one, rows, asked=info is not None)
        state = State.LIVE if one.live else State.FAILED
        if one.lease in expired:
            state = State.STALE
            notes.append(_stale(expired[one.lease]))
        found.append(verdict(worker, state, one.worker_id, status, (*notes, *differing), one.known))
    owned = {one.worker_id for one in claimed.values()}
    strangers = [one for one in seen if one.worker_id not in owned]
    by_address = {address(w): w for w in alluxio.workers if strangers}
    by_host = {lower(w.hostname): w for w in alluxio.workers if strangers}
    for one in strangers:
        status, differing = _compare(one, rows, asked=info is not None)
        at = by_address.get(one.address)
        notes = [_stranger(one, at, by_host.get(lower(one.host)), claimed), *one.notes]
        if one.lease in expired:
            notes.append(_stale(expired[one.lease]))
        found.append(
            NodeVerdict(
                None,
                one.host,
                one.port,
                State.UNKNOWN,
                one.worker_id,
                status,
                (*notes, *differing),
                one.known,
            )
        )
    if not info:
        return found
    ids = {one.worker_id for one in seen}
    return _with_rows_of_no_id(found, info, ids, whole=not registered.cut)


def _same_identity(known: str | None, other: str | None) -> str:
    """The note about ``known``, the UUID in a worker's identity file; ``other`` has this id in
    etcd."""
    of = f", the identity of {other}: one is a clone of the other" if other is not None else ""
    return f"its identity file says {known}{of}"


def _stale(since: int) -> str:
    return (
        f"its lease expired {since} s ago, and etcd has not removed it: Alluxio counts it as live"
    )


def _ids(
    registered: RegistrationSnapshot, rows: Mapping[str, NodeRow], *, with_authorized: bool
) -> list[_Seen]:
    """Every id in etcd. The live key's value is the newer one."""
    authorized = registered.authorized if with_authorized else {}
    found: list[_Seen] = []
    sharing = _sharing(authorized, registered.live)
    for worker_id in dict.fromkeys([*authorized, *registered.live]):
        permanent, live = authorized.get(worker_id), registered.live.get(worker_id)
        entry = live or permanent
        assert entry is not None
        registration = entry.registration
        if live and permanent and _is_plain(worker_id, live, permanent, sharing):
            assert isinstance(registration, Registration)
            at = registration.host, registration.rpc_port
            revision, lease = entry.key.mod_revision, entry.key.lease
            found.append(_Seen(worker_id, registration, True, *at, revision, (), lease))
            continue
        notes: list[str] = _decommissioned(live, permanent)
        if isinstance(registration, Registration):
            host, port = registration.host, registration.rpc_port
        else:
            notes.append(f"its value in etcd is of an unknown form: {registration.excerpt}")
            # Alluxio itself may be able to read it.
            row = rows.get(worker_id)
            host, port = (row.host, row.port) if row is not None else ("", 0)
        if live is not None and not live.key.lease:
            notes.append("its live key has no lease, so the key does not show that the worker runs")
        notes += _identity_notes(worker_id, live, permanent, sharing)
        # Where not all keys were read, the AUTHORIZED key may be there.
        if live is not None and permanent is None and with_authorized and not registered.cut:
            notes.append("live without an AUTHORIZED key")
        if live is not None and permanent is not None and _differ(live, permanent):
            notes.append("its live and its AUTHORIZED key have different addresses")
        found.append(
            _Seen(
                worker_id,
                registration,
                live is not None and live.key.lease != 0,
                host,
                port,
                entry.key.mod_revision,
                notes,
                live.key.lease if live is not None else 0,
            )
        )
    return found


def _is_plain(
    worker_id: str, live: Entry, permanent: Entry, sharing: Mapping[str, dict[str, None]]
) -> bool:
    """Whether there is nothing to note: both keys have one value, of a member with this id alone,
    and the live key has a lease. So it is with nearly all of thousands of workers."""
    registration = live.registration
    return (
        registration is permanent.registration
        and isinstance(registration, Registration)
        and registration.identity == worker_id
        and registration.state != "DECOMMISSIONED"
        and live.key.lease != 0
        and not (sharing and _bare(worker_id) in sharing)
    )


def _decommissioned(live: Entry | None, permanent: Entry | None) -> list[str]:
    """The note that one or both keys say DECOMMISSIONED."""
    keys = [
        name
        for name, entry in (("live", live), ("AUTHORIZED", permanent))
        if entry is not None
        and isinstance(entry.registration, Registration)
        and entry.registration.state == "DECOMMISSIONED"
    ]
    there = sum(entry is not None for entry in (live, permanent))
    if not keys:
        return []
    which = "" if len(keys) == there else f" in its {keys[0]} key, not in the other"
    return [f"decommissioned in etcd{which}"]


def _identity(entry: Entry | None) -> str:
    """The id that the value itself has; empty when unknown."""
    registration = entry.registration if entry is not None else None
    return registration.identity if isinstance(registration, Registration) else ""


def _is_nameless(entry: Entry | None) -> bool:
    """Whether a value has no identity although its key is named by one. Earlier releases wrote
    neither: there the key's name is a hash of the address."""
    registration = entry.registration if entry is not None else None
    if not isinstance(registration, Registration) or registration.older:
        return False
    return registration.worker_id.startswith("worker-") and not registration.identity


def _sharing(
    authorized: Mapping[str, Entry], live: Mapping[str, Entry]
) -> Mapping[str, dict[str, None]]:
    """The identities that the values of several keys have, each with the ids of these keys."""
    first: dict[str, str] = {}
    found: dict[str, dict[str, None]] = {}
    if all(_has_own_id(*item) for entries in (authorized, live) for item in entries.items()):
        return found
    for entries in (authorized, live):
        for worker_id, entry in entries.items():
            known = authorized.get(worker_id) if entries is live else None
            if known is not None and known.registration is entry.registration:
                continue
            if identity := _identity(entry):
                bare = _bare(identity)
                other = first.setdefault(bare, worker_id)
                if other != worker_id:
                    found.setdefault(bare, {other: None})[worker_id] = None
    return found


def _has_own_id(worker_id: str, entry: Entry) -> bool:
    """Whether a value has the id of its key, or none. So it is with nearly all of thousands of
    workers, and then no two keys share one."""
    registration = entry.registration
    return not isinstance(registration, Registration) or registration.identity in ("", worker_id)


def _identity_notes(
    worker_id: str,
    live: Entry | None,
    permanent: Entry | None,
    sharing: Mapping[str, dict[str, None]],
) -> list[str]:
    """The notes about identities: Alluxio goes by the value, whatever the key is named."""
    notes: list[str] = []
    without = [
        name for name, entry in (("live", live), ("AUTHORIZED", permanent)) if _is_nameless(entry)
    ]
    if without:
        which = f"values of its {' and '.join(without)} keys have"
        which = which if len(without) > 1 else f"value of its {without[0]} key has"
        notes.append(f"the {which} no identity, which every Alluxio 313 worker writes")
    for identity in dict.fromkeys(filter(None, (_identity(live), _identity(permanent)))):
        if _bare(identity) != _bare(worker_id):
            notes.append(f"its key is named {worker_id}, its value says {identity}")
        if (same := sharing.get(_bare(identity))) is not None:
            others = [other for other in islice(same, SHOWN + 1) if other != worker_id][:SHOWN]
            more = len(same) - 1 - len(others)
            named = ", ".join(others) + (f" and {more} more" if more else "")
            notes.append(f"the same identity {identity} is in the key of {named}")
    return notes


def _differ(one: registrations.Entry, other: registrations.Entry) -> bool:
    a, b = one.registration, other.registration
    return (
        a is not b
        and isinstance(a, Registration)
        and isinstance(b, Registration)
        and (a.host, a.rpc_port) != (b.host, b.rpc_port)
    )


def _claims(
    workers: Sequence[AlluxioWorker], seen: Sequence[_Seen], identities: Mapping[str, str]
) -> dict[str, _Seen]:
    """The id of each declared worker: a live id before a dead id, and the newest of several.

    Among live ids the address decides, because clients connect to it. Among dead ids the identity
    decides, because the worker comes back with it.
    """
    # Nearly every address has one id: thousands of lists of one would take a megabyte.
    first: dict[tuple[str, int], _Seen] = {}
    others: dict[tuple[str, int], list[_Seen]] = {}
    by_identity: dict[str, list[_Seen]] = {}
    for one in sorted(seen, key=attrgetter("revision"), reverse=True):
        at = one.address
        if first.setdefault(at, one) is not one:
            others.setdefault(at, []).append(one)
        if identities:
            by_identity.setdefault(_bare(one.worker_id), []).append(one)

    def at_address(worker: AlluxioWorker) -> Sequence[_Seen]:
        at = address(worker)
        return (first[at], *others.get(at, ())) if at in first else ()

    def of_identity(worker: AlluxioWorker) -> Sequence[_Seen]:
        known = identities.get(worker.name)
        return by_identity.get(_bare(known), []) if known else []

    claimed: dict[str, _Seen] = {}
    taken: set[str] = set()
    left = workers
    for live, candidates in (
        (True, at_address),
        (True, of_identity),
        (False, of_identity),
        (False, at_address),
    ):
        for worker in left:
            for one in candidates(worker):
                if one.live == live and one.worker_id not in taken:
                    claimed[worker.name] = one
                    taken.add(one.worker_id)
                    break
        left = [worker for worker in left if worker.name not in claimed]
    return claimed


def _compare(
    one: _Seen, rows: Mapping[str, NodeRow], *, asked: bool
) -> tuple[str | None, tuple[str, ...]]:
    """The status in ``info nodes``, and its difference from etcd."""
    if not asked:
        return None, ()
    row = rows.get(one.worker_id)
    if row is None:
        known = isinstance(one.registration, Registration) and one.registration.older
        why = ": Alluxio 313 cannot read an older release's registration" if known else ""
        return None, (f"info nodes does not list it{why}",)
    notes: list[str] = []
    if row.status != ("ONLINE" if one.live else "OFFLINE"):
        notes.append(f"{'live' if one.live else 'no lease'} in etcd, {row.status} in info nodes")
    if one.host and (row.host.lower(), row.port) != one.address:
        notes.append(f"info nodes has it at {row.address}")
    return row.status, tuple(notes)


def _stranger(
    one: _Seen,
    worker: AlluxioWorker | None,
    same_host: AlluxioWorker | None,
    claimed: Mapping[str, _Seen],
) -> str:
    """Why an id belongs to no declared worker."""
    life = "live" if one.live else "no lease"
    if worker is not None and worker.name in claimed:
        other = claimed[worker.name]
        if one.live:
            return f"live at the address of {worker.name}, which is {other.worker_id}"
        if other.live:
            return f"stale: {worker.name} is live as {other.worker_id}"
        return f"stale: {worker.name} has the newer registration {other.worker_id}"
    if same_host is not None:
        return (
            f"{life}, on the host of {same_host.name}, whose port is {same_host.rpc_port} "
            "in the inventory"
        )
    return f"{life}, not in the inventory"


def _with_rows_of_no_id(
    found: list[NodeVerdict], info: Sequence[NodeRow], ids: set[str], *, whole: bool
) -> list[NodeVerdict]:
    """``found``, with the rows of ``info nodes`` that are not in etcd."""
    missing = {
        (n.host.lower(), n.port): i for i, n in enumerate(found) if n.state is State.UNREGISTERED
    }
    result = list(found)
    for row in info:
        if row.worker_id in ids:
            continue
        at = missing.get((row.host.lower(), row.port))
        note = f"info nodes lists {row.worker_id}, etcd does not"
        if not whole:
            note = f"info nodes lists {row.worker_id}; not all keys of etcd were read"
        if at is None:
            result.append(undeclared(row, note))
        else:
            old = result[at]
            result[at] = NodeVerdict(
                old.name, old.host, old.port, old.state, None, row.status, (*old.notes, note)
            )
    return result


def _bare(identity: str) -> str:
    """An identity in one spelling: without ``worker-`` and dashes. A number may be below 0."""
    bare = identity.removeprefix("worker-").lower()
    return bare[:1] + bare[1:].replace("-", "")
