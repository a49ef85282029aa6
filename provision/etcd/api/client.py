"""etcd's v3 API, typed.

Every call has a hard deadline and is sent once. Nothing runs in the background, and
:meth:`EtcdClient.close` leaves nothing behind. Messages and calls come from ``rpc.proto``, through
:mod:`provision.etcd.api.protocol`.

Importing this module is cheap. The first client imports gRPC; a caller can do this earlier in a
thread of its own, with :func:`preload`.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from provision import bounds, progress
from provision.etcd.api import paging, protocol
from provision.etcd.api.errors import (
    EtcdCompacted,
    EtcdRefused,
    EtcdTooMuch,
    EtcdUnreachable,
    Reason,
    classified,
    translated,
)
from provision.etcd.api.values import (
    Alarm,
    Changes,
    ClientTls,
    Endpoint,
    KeyValue,
    KvHash,
    LeaseTime,
    Login,
    MemberStatus,
    Permission,
    RegisteredMember,
    WatchEvent,
    after,
)
from provision.inventory.resolved import bracketed
from provision.text import printable, size

DEFAULT_TIMEOUT = 5.0
#: How many requests for leases are under way at the same time.
LEASES_AT_ONCE = 64
#: The releases of etcd whose leader lists its leases in the order of their ends.
LEASES_SORTED = ("3.5.", "3.6.", "3.7.")
HEALTH_PREFIX = "/alluxio-provision/health/"


#: ``auth.proto``, ``Permission.Type``.
_ACCESS = {0: "read", 1: "write", 2: "readwrite"}


class Tokens:
    """The tokens of a run's logins. Its clients share them: each login costs a member a bcrypt,
    some 0.1 s of a core. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[tuple[str, str, str], str] = {}

    def get(self, endpoint: Endpoint, login: Login) -> str | None:
        """The token of an earlier login at ``endpoint``; None without one."""
        with self._lock:
            return self._tokens.get((str(endpoint), login.user, login.password))

    def keep(self, endpoint: Endpoint, login: Login, token: str) -> None:
        with self._lock:
            self._tokens[(str(endpoint), login.user, login.password)] = token

    def forget(self, endpoint: Endpoint, login: Login) -> None:
        """Forget one token: its member no longer takes it."""
        with self._lock:
            self._tokens.pop((str(endpoint), login.user, login.password), None)

    def clear(self) -> None:
        """Forget all tokens: logins have to be proven again."""
        with self._lock:
            self._tokens.clear()


class EtcdClient:
    """A connection to one endpoint; ``timeout`` (seconds) limits each call.

    All methods raise :class:`EtcdUnreachable` or :class:`EtcdRefused`. The first call connects and
    logs in; a token in ``tokens`` saves the login. A client is safe to use from several threads.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        tls: ClientTls | None = None,
        login: Login | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self.tls = tls
        #: Whether :meth:`range` reads what this member has, without a quorum; it may be old.
        self.serializable = False
        self._login = login
        self._tokens = tokens if tokens is not None else Tokens()
        self._token: tuple[tuple[str, str], ...] | None = None
        lib = self._lib = protocol.load()
        options: list[tuple[str, object]] = [
            # The control machine's http_proxy is for the internet, not for members.
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            # Without this, the next client to the same address shares a failed connection's
            # back-off.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", bounds.ANSWER),
            # During a long call, a ping now and then checks that the member is still there. etcd
            # treats more than one ping in 5 s (--grpc-keepalive-min-time) as an attack.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        target = f"{bracketed(endpoint.address)}:{endpoint.port}"
        if tls is None:
            channel = lib.grpc.insecure_channel(target, options=options)
        else:
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            credentials = lib.grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
            channel = lib.grpc.secure_channel(target, credentials, options=options)
        self._channel = channel
        self._kv = lib.service(channel, "KV")
        self._cluster = lib.service(channel, "Cluster")
        self._maintenance = lib.service(channel, "Maintenance")
        self._lease = lib.service(channel, "Lease")
        self._watch = lib.service(channel, "Watch")
        self._auth = lib.service(channel, "Auth")

    def __enter__(self) -> EtcdClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def status(self) -> MemberStatus:
        """This member's own view. The member answers without a quorum."""
        answer = self._ask(self._maintenance.Status, self._lib.pb.StatusRequest())
        return MemberStatus(
            cluster_id=answer.header.cluster_id,
            member_id=answer.header.member_id,
            version=printable(answer.version, 40),
            db_size=answer.dbSize,
            db_in_use=answer.dbSizeInUse,
            leader=answer.leader,
            revision=answer.header.revision,
            raft_term=answer.raftTerm,
            raft_index=answer.raftIndex,
            is_learner=answer.isLearner,
            errors=tuple(printable(e, 200) for e in answer.errors[: bounds.ALARMS]),
            storage_version=printable(answer.storageVersion, 40),
            quota=answer.dbSizeQuota,
        )

    def member_list(self) -> list[RegisteredMember]:
        """The members in this endpoint's own list. The member answers without a quorum."""
        answer = self._ask(self._cluster.MemberList, self._lib.pb.MemberListRequest())
        if len(answer.members) > bounds.MEMBERS:
            raise self._odd(f"it lists {len(answer.members)} members")
        return [_member(m) for m in answer.members]

    def member_add(self, peer_urls: Sequence[str], *, learner: bool = True) -> RegisteredMember:
        """Add a member, as a learner by default. Returns the member with its new id and no name.

        etcd refuses while a voter is not connected (``unhealthy cluster``). It refuses a peer URL
        that a member has already, and, in 3.4, a second learner.
        """
        request = self._lib.pb.MemberAddRequest(peerURLs=peer_urls, isLearner=learner)
        return _member(self._call(self._cluster.MemberAdd, request).member)

    def member_promote(self, member: int) -> None:
        """Make a learner a voter. etcd refuses while the learner lacks more than a tenth of the
        log."""
        self._call(self._cluster.MemberPromote, self._lib.pb.MemberPromoteRequest(ID=member))

    def member_remove(self, member: int) -> None:
        """Remove a member. etcd refuses when the remaining started voters would be no quorum."""
        self._call(self._cluster.MemberRemove, self._lib.pb.MemberRemoveRequest(ID=member))

    def member_update(self, member: int, peer_urls: Sequence[str]) -> None:
        """Give a member other peer URLs. The member's own configuration must change, too."""
        request = self._lib.pb.MemberUpdateRequest(ID=member, peerURLs=peer_urls)
        self._call(self._cluster.MemberUpdate, request)

    def move_leader(self, member: int) -> None:
        """Make the voter ``member`` the leader. Only the leader itself accepts this call."""
        request = self._lib.pb.MoveLeaderRequest(targetID=member)
        self._call(self._maintenance.MoveLeader, request)

    def downgrade_enable(self, version: str) -> None:
        """Let members of the next lower minor release join; ``version`` such as ``3.5.0``.

        etcd accepts a second request while such a downgrade goes on.
        """
        enable = self._lib.pb.DowngradeRequest(action=1, version=version)
        try:
            self._call(self._maintenance.Downgrade, enable)
        except EtcdRefused as error:
            if "downgrade job" not in error.message:
                raise

    def alarms(self) -> list[Alarm]:
        """The cluster's alarms. Goes through consensus; :attr:`MemberStatus.alarms` does not."""
        pb = self._lib.pb
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET)
        answer = self._call(self._maintenance.Alarm, request)
        names = {0: "NONE", 1: "NOSPACE", 2: "CORRUPT"}
        return [
            Alarm(a.memberID, names.get(a.alarm, str(a.alarm)))
            for a in answer.alarms[: bounds.ALARMS]
        ]

    def disarm(self, alarm: Alarm) -> None:
        """Disarm an alarm. etcd raises it again when its cause is still there."""
        pb = self._lib.pb
        request = pb.AlarmRequest(
            action=pb.AlarmRequest.DEACTIVATE, memberID=alarm.member_id, alarm=alarm.kind
        )
        self._call(self._maintenance.Alarm, request)

    def hash_kv(self, revision: int = 0) -> KvHash:
        """The hash of this member's own keys up to ``revision`` (0: its newest).

        The member reads its whole database: give the client a long enough timeout.
        """
        answer = self._call(self._maintenance.HashKV, self._lib.pb.HashKVRequest(revision=revision))
        return KvHash(answer.hash, revision or answer.header.revision, answer.compact_revision)

    def compact(self, revision: int) -> None:
        """Drop every key's history up to ``revision``, and wait until it is gone from disk."""
        request = self._lib.pb.CompactionRequest(revision=revision, physical=True)
        self._call(self._kv.Compact, request)

    def defragment(self) -> None:
        """Give free pages of this member's database back to its disk.

        The member answers nothing else meanwhile: give the client a long enough timeout.
        """
        self._call(self._maintenance.Defragment, self._lib.pb.DefragmentRequest())

    def snapshot(self, *, silence: float = 60.0, most: int = bounds.SNAPSHOT) -> Iterator[bytes]:
        """This member's database as it is now, in pieces. The last 32 bytes are the sha256 of
        everything before: the format of ``etcdctl snapshot save``.

        ``silence`` (seconds) limits the wait for one piece, ``most`` (bytes) and
        :data:`bounds.STREAM_RATE` the whole call.
        """
        self._authenticate()
        # No deadline: a large database may take long. The watchdog ends a silent stream, and one
        # that drips.
        stream = self._maintenance.Snapshot(self._lib.pb.SnapshotRequest(), metadata=self._token)
        flow, done = bounds.Flow(), threading.Event()
        last = [time.monotonic()]
        late: list[str] = []

        def watch() -> None:
            while not done.wait(1.0):
                if time.monotonic() - last[0] > silence:
                    late.append(f"no data for {silence:g} s")
                elif flow.drips:
                    late.append(flow.slow)
                if late:
                    stream.cancel()
                    return

        threading.Thread(target=watch, name="snapshot", daemon=True).start()
        try:
            for piece in stream:
                flow.add(len(piece.blob))
                if flow.count > most:
                    what = f"the snapshot has more than {size(most)}"
                    raise EtcdTooMuch(self.endpoint, what)
                yield piece.blob
                if piece.blob:  # an empty piece is no progress
                    last[0] = time.monotonic()
        except self._lib.grpc.RpcError as error:
            if late:
                raise EtcdUnreachable(self.endpoint, Reason.TIMEOUT, late[0]) from None
            raise translated(self.endpoint, error, silence) from None
        finally:
            done.set()
            with contextlib.suppress(Exception):
                stream.cancel()

    def count(self, revision: int = 0) -> int:
        """How many keys there are at ``revision`` (0: now). Linearizable."""
        request = self._lib.pb.RangeRequest(
            key=b"\0", range_end=b"\0", count_only=True, revision=revision
        )
        return int(self._call(self._kv.Range, request).count)

    def range(
        self,
        prefix: str | bytes,
        *,
        keys_only: bool = False,
        limit: int | None = None,
        revision: int = 0,
        page: int = paging.PAGE,
    ) -> tuple[int, list[KeyValue]]:
        """The keys below ``prefix`` (at most ``limit``), sorted, and the revision of the read.

        Linearizable, unless :attr:`serializable` is set. All pages are from that one revision. Give
        this revision as ``revision`` to read another prefix at the same revision. Raises
        :class:`EtcdTooMuch` when keys or values would be missing: see :mod:`provision.bounds`.
        """
        start = _bytes(prefix) or b"\0"
        return self.interval(
            start, after(start), keys_only=keys_only, limit=limit, revision=revision, page=page
        )

    def interval(
        self,
        start: bytes,
        end: bytes,
        *,
        keys_only: bool = False,
        limit: int | None = None,
        revision: int = 0,
        page: int = paging.PAGE,
        values: dict[bytes, bytes] | None = None,
    ) -> tuple[int, list[KeyValue]]:
        """As :meth:`range`, for the keys from ``start`` up to ``end``, without ``end``."""
        found = self.scan(
            *(start, end),
            keys_only=keys_only,
            limit=limit,
            revision=revision,
            page=page,
            values=values,
        )
        if found.cut:
            raise EtcdTooMuch(self.endpoint, f"below {printable(start, 120)}: {found.cut}")
        return found.revision, found.keys

    def scan(
        self,
        start: bytes,
        end: bytes,
        *,
        keys_only: bool = False,
        limit: int | None = None,
        revision: int = 0,
        page: int = paging.PAGE,
        values: dict[bytes, bytes] | None = None,
    ) -> paging.Scan:
        """As :meth:`interval`; what is larger than the bounds is cut, and the result says so.

        ``values``: the values of this and of other reads, by themselves; a value that is there is
        not kept a second time.
        """

        def ask(start: bytes, count: int, revision: int, keys_only: bool) -> paging.Page:
            request = self._lib.pb.RangeRequest(
                key=start,
                range_end=end,
                keys_only=keys_only,
                limit=count,
                revision=revision,
                serializable=self.serializable,
            )
            try:
                answer = self._call(self._kv.Range, request)
            except EtcdTooMuch:
                raise paging.TooLarge from None
            keys = [_key_value(kv, values) for kv in answer.kvs]
            return paging.Page(keys, answer.more, answer.header.revision)

        try:
            return paging.read(
                *(ask, start, end), keys_only=keys_only, limit=limit, revision=revision, page=page
            )
        except paging.Odd as error:
            raise self._odd(str(error)) from None

    def watch(self, since: Mapping[str, int]) -> Generator[Changes, None, None]:
        """Every change below the prefixes in ``since``, each from its revision on, as it happens.

        One stream. For each prefix, the first item is etcd's confirmation of the watch, without
        events. The stream ends only with an error: :class:`EtcdCompacted` when a revision is older
        than etcd's history; :class:`EtcdUnreachable` when the member is gone, or has had no leader
        for some election timeouts (the header ``hasleader`` asks for this error). Another thread
        ends the stream with :meth:`close`.
        """
        pb = self._lib.pb
        prefixes, done = list(since), threading.Event()

        def requests() -> Iterator[Any]:
            for prefix in prefixes:
                start = _bytes(prefix)
                create = pb.WatchCreateRequest(
                    key=start, range_end=after(start), start_revision=since[prefix]
                )
                yield pb.WatchRequest(create_request=create)
            done.wait()  # etcd ends the watch when the requests end

        self._authenticate()
        metadata = (*(self._token or ()), ("hasleader", "true"))
        created: dict[int, str] = {}
        stream = None
        try:
            stream = self._watch.Watch(requests(), metadata=metadata)
            for answer in stream:
                if answer.compact_revision:
                    what = f"etcd compacted the history before revision {answer.compact_revision}"
                    raise EtcdCompacted(self.endpoint, what, id="etcd-refused")
                if answer.canceled:
                    reason = answer.cancel_reason or "etcd ended the watch"
                    raise classified(self.endpoint, "UNKNOWN", reason, self.timeout)
                if answer.created:  # these answers come in the order of the requests
                    if len(created) == len(prefixes) or answer.watch_id in created:
                        raise self._odd("it began a watch that nobody asked for")
                    created[answer.watch_id] = prefixes[len(created)]
                if answer.watch_id not in created:
                    raise self._odd("it tells of a watch that nobody asked for")
                head = answer.header
                stem = _bytes(created[answer.watch_id])
                if not all(e.kv.key.startswith(stem) for e in answer.events):
                    raise self._odd("it tells of a key that nobody watches")
                events = tuple(
                    WatchEvent(e.type == e.DELETE, _key_value(e.kv)) for e in answer.events
                )
                yield Changes(created[answer.watch_id], head.cluster_id, head.revision, events)
        except self._lib.grpc.RpcError as error:
            raise translated(self.endpoint, error, self.timeout) from None
        except ValueError:  # another thread has closed the channel
            raise EtcdUnreachable(self.endpoint, Reason.CLOSED) from None
        finally:
            done.set()
            if stream is not None:
                stream.cancel()
        raise EtcdUnreachable(self.endpoint, Reason.CLOSED)

    def get(self, key: str | bytes) -> KeyValue | None:
        """One key, linearizable: the answer proves a quorum behind this endpoint."""
        answer = self._call(self._kv.Range, self._lib.pb.RangeRequest(key=_bytes(key)))
        return _key_value(answer.kvs[0]) if answer.kvs else None

    def put(self, key: str | bytes, value: str | bytes, *, lease: int = 0) -> int:
        """Write one key. Returns the revision of the write."""
        request = self._lib.pb.PutRequest(key=_bytes(key), value=_bytes(value), lease=lease)
        return int(self._call(self._kv.Put, request).header.revision)

    def delete(
        self,
        key: str | bytes,
        *,
        if_mod_revision: int | None = None,
        if_absent: str | bytes | None = None,
    ) -> bool:
        """Delete one key, in a transaction. Returns whether it was deleted.

        With ``if_mod_revision``, only when the key has not changed since that revision. With
        ``if_absent``, only when this other key does not exist.
        """
        pb = self._lib.pb
        name = _bytes(key)
        wanted = [
            pb.Compare(key=name, result=pb.Compare.GREATER, target=pb.Compare.VERSION, version=0)
            if if_mod_revision is None
            else pb.Compare(
                key=name,
                result=pb.Compare.EQUAL,
                target=pb.Compare.MOD,
                mod_revision=if_mod_revision,
            )
        ]
        if if_absent is not None:
            wanted.append(self._absent(_bytes(if_absent)))
        delete = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=name))
        answer = self._call(self._kv.Txn, pb.TxnRequest(compare=wanted, success=[delete]))
        return bool(answer.succeeded)

    def create(self, key: str | bytes, value: str | bytes) -> bool:
        """Write one key unless it exists, in a transaction. Returns whether it was written."""
        pb = self._lib.pb
        name = _bytes(key)
        put = pb.RequestOp(request_put=pb.PutRequest(key=name, value=_bytes(value)))
        request = pb.TxnRequest(compare=[self._absent(name)], success=[put])
        return bool(self._call(self._kv.Txn, request).succeeded)

    def _absent(self, key: bytes) -> Any:
        """The condition that the key does not exist: its version is 0."""
        pb = self._lib.pb
        return pb.Compare(key=key, result=pb.Compare.EQUAL, target=pb.Compare.VERSION, version=0)

    def lease_ttl(self, lease: int) -> int:
        """Seconds that the lease has left; -1 when it is gone."""
        request = self._lib.pb.LeaseTimeToLiveRequest(ID=lease)
        return int(self._call(self._lease.LeaseTimeToLive, request).TTL)

    def lease_time(self, lease: int) -> LeaseTime:
        """How long a lease has left, and its keys."""
        request = self._lib.pb.LeaseTimeToLiveRequest(ID=lease, keys=True)
        return _lease_time(self._call(self._lease.LeaseTimeToLive, request))

    def lease_times(self, leases: Sequence[int], seconds: float) -> dict[int, LeaseTime]:
        """How long each of ``leases`` has left, by lease. Leases that cannot be asked within
        ``seconds`` are left out.

        etcd has no request for several leases. :data:`LEASES_AT_ONCE` requests are under way at the
        same time.
        """
        found: dict[int, LeaseTime] = {}
        deadline = time.monotonic() + seconds
        waiting: deque[tuple[int, Any]] = deque()

        def take() -> None:
            lease, answer = waiting.popleft()
            found[lease] = _lease_time(answer.result())

        try:
            for lease in leases:
                if time.monotonic() >= deadline:
                    break
                if not found:  # the first call logs in, if needed
                    request = self._lib.pb.LeaseTimeToLiveRequest(ID=lease)
                    found[lease] = _lease_time(self._call(self._lease.LeaseTimeToLive, request))
                    continue
                if len(waiting) >= LEASES_AT_ONCE:
                    take()
                request = self._lib.pb.LeaseTimeToLiveRequest(ID=lease)
                ask = self._lease.LeaseTimeToLive.future
                waiting.append((lease, ask(request, timeout=self.timeout, metadata=self._token)))
            while waiting:
                take()
        except self._lib.grpc.RpcError as error:
            raise translated(self.endpoint, error, self.timeout) from None
        except ValueError:  # another thread has closed the channel
            raise EtcdUnreachable(self.endpoint, Reason.CLOSED) from None
        return found

    def leases_by_end(self) -> list[int] | None:
        """All leases of etcd: those that have expired, then the others. None where this endpoint
        does not tell: it is not the leader, or the login may not see all keys under leases.

        A leader of :data:`LEASES_SORTED` sorts its answer by the time that each lease has left
        (``lessor.Leases``). The others know no end of a lease, and do not ask the leader.
        """
        before = self.status()
        if not (before.is_leader and before.version.startswith(LEASES_SORTED)):
            return None
        try:
            answer = self._call(self._lease.LeaseLeases, self._lib.pb.LeaseLeasesRequest())
        except EtcdUnreachable as error:
            if error.reason is not Reason.DENIED:
                raise
            return None
        except EtcdTooMuch:
            return None
        after = self.status()
        if not after.is_leader or after.raft_term != before.raft_term:
            return None
        return [lease.ID for lease in answer.leases]

    def lease_grant(self, ttl: int) -> int:
        """A new lease of ``ttl`` seconds. Returns its id."""
        return int(self._call(self._lease.LeaseGrant, self._lib.pb.LeaseGrantRequest(TTL=ttl)).ID)

    def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys."""
        self._call(self._lease.LeaseRevoke, self._lib.pb.LeaseRevokeRequest(ID=lease))

    def quorum_write(self, member: str) -> None:
        """Prove that this endpoint takes writes: put, read back and delete one key of this tool.

        The key is ``/alluxio-provision/health/<member>``.
        """
        key, token = HEALTH_PREFIX + member, secrets.token_hex(8)
        revision = self.put(key, token)
        found = self.get(key)
        if found is None or found.mod_revision < revision:
            raise EtcdRefused(
                self.endpoint,
                f"an acknowledged write to {key} cannot be read back",
                id="etcd-refused",
            )
        # Another run's check may have written the key since; then that run deletes it.
        self.delete(key, if_mod_revision=revision)

    def auth_enabled(self) -> bool:
        """Whether etcd's authentication is on. For a client without a login.

        A read shows it, because ``AuthStatus`` came only with 3.5. Where clients have certificates,
        the common name counts as a user; etcd then refuses the read, because that user lacks the
        right.
        """
        try:
            self.get("health")
        except EtcdUnreachable as error:
            if error.reason in (Reason.LOGIN, Reason.DENIED):
                return True
            raise
        return False

    @property
    def logged_in(self) -> bool:
        """Whether etcd asked for the login: False where authentication is off."""
        return bool(self._token)

    def log_in(self) -> bool:
        """Prove the login now. Returns False where authentication is off.

        Raises :class:`EtcdUnreachable` with ``Reason.LOGIN`` when it is refused.
        """
        self._forget()
        self._tokens.clear()
        self._authenticate()
        return self.logged_in

    def users(self) -> dict[str, tuple[str, ...]]:
        """etcd's users, and the roles of each."""
        pb = self._lib.pb
        names = self._call(self._auth.UserList, pb.AuthUserListRequest()).users
        return {
            name: tuple(self._call(self._auth.UserGet, pb.AuthUserGetRequest(name=name)).roles)
            for name in self._each(names, "users")
        }

    def user_add(self, name: str, password: str) -> None:
        request = self._lib.pb.AuthUserAddRequest(name=name, password=password)
        self._call(self._auth.UserAdd, request)

    def user_change_password(self, name: str, password: str) -> None:
        request = self._lib.pb.AuthUserChangePasswordRequest(name=name, password=password)
        self._call(self._auth.UserChangePassword, request)

    def user_grant_role(self, name: str, role: str) -> None:
        request = self._lib.pb.AuthUserGrantRoleRequest(user=name, role=role)
        self._call(self._auth.UserGrantRole, request)

    def roles(self) -> dict[str, tuple[Permission, ...]]:
        """etcd's roles, and what each permits."""
        pb = self._lib.pb
        found: dict[str, tuple[Permission, ...]] = {}
        names = self._call(self._auth.RoleList, pb.AuthRoleListRequest()).roles
        for name in self._each(names, "roles"):
            answer = self._call(self._auth.RoleGet, pb.AuthRoleGetRequest(role=name))
            found[name] = tuple(
                Permission(p.key, p.range_end, _ACCESS.get(p.permType, str(p.permType)))
                for p in answer.perm
            )
        return found

    def role_add(self, name: str) -> None:
        self._call(self._auth.RoleAdd, self._lib.pb.AuthRoleAddRequest(name=name))

    def role_grant(self, role: str, permission: Permission) -> None:
        """Give ``role`` this ``permission``; it keeps its other permissions."""
        perm = self._lib.permissions.Permission(
            permType=next(n for n, access in _ACCESS.items() if access == permission.access),
            key=permission.key,
            range_end=permission.end,
        )
        request = self._lib.pb.AuthRoleGrantPermissionRequest(name=role, perm=perm)
        self._call(self._auth.RoleGrantPermission, request)

    def role_revoke(self, role: str, permission: Permission) -> None:
        request = self._lib.pb.AuthRoleRevokePermissionRequest(
            role=role, key=permission.key, range_end=permission.end
        )
        self._call(self._auth.RoleRevokePermission, request)

    def auth_enable(self) -> None:
        """Turn authentication on. etcd refuses without a user root that has the role root."""
        self._call(self._auth.AuthEnable, self._lib.pb.AuthEnableRequest())

    def auth_disable(self) -> None:
        self._call(self._auth.AuthDisable, self._lib.pb.AuthDisableRequest())
        self._tokens.clear()

    def _call(self, method: Any, request: Any) -> Any:
        self._authenticate()
        try:
            return self._send(method, request)
        except EtcdUnreachable as error:
            # After a restore, the index in an old token may be ahead of the log, and etcd waits for
            # that index in vain. The next call logs in again.
            if error.reason is Reason.TIMEOUT:
                self._forget()
            # A token expires with its member's process, and after some minutes without use.
            if error.reason is not Reason.LOGIN or not self._forget():
                raise
        self._authenticate()
        return self._send(method, request)

    def _authenticate(self) -> None:
        """Log in, once. Where authentication is off, etcd refuses a login, and the calls go without
        a token: an inventory may have the login before authentication is turned on."""
        if self._login is None or self._token is not None:
            return
        token = self._tokens.get(self.endpoint, self._login)
        if token is None:
            try:
                token = self._send(self._auth.Authenticate, self._credentials()).token
            except EtcdRefused as error:
                if "authentication is not enabled" not in error.message:
                    raise
                self._token = ()
                return
            self._tokens.keep(self.endpoint, self._login, token)
        self._token = (("token", token),)

    def _credentials(self) -> Any:
        assert self._login is not None
        return self._lib.pb.AuthenticateRequest(
            name=self._login.user, password=self._login.password
        )

    def _ask(self, method: Any, request: Any) -> Any:
        """A call that etcd may answer without a login. It logs in only when etcd asks for it; a
        wrong password shows in the other calls."""
        try:
            return self._send(method, request)
        except EtcdUnreachable as error:
            if error.reason not in (Reason.LOGIN, Reason.DENIED):
                raise
        return self._call(method, request)

    def _forget(self) -> bool:
        """Drop a token that etcd no longer takes, or the note that no token is needed. Returns
        whether there was one."""
        if self._token is None or self._login is None:
            return False
        self._tokens.forget(self.endpoint, self._login)
        self._token = None
        return True

    def _each(self, names: Sequence[str], what: str) -> Iterator[str]:
        """``names``, each of which needs a request of its own. Raises :class:`EtcdTooMuch`."""
        if len(names) > bounds.USERS:
            raise EtcdTooMuch(self.endpoint, f"it has {len(names)} {what}")
        deadline = time.monotonic() + bounds.READ_SECONDS
        for name in names:
            if time.monotonic() > deadline:
                raise EtcdUnreachable(
                    self.endpoint, Reason.TIMEOUT, f"its {what} took {bounds.READ_SECONDS:g} s"
                )
            yield name

    def _odd(self, why: str) -> EtcdUnreachable:
        return EtcdUnreachable(self.endpoint, Reason.ODD, why)

    def _send(self, method: Any, request: Any) -> Any:
        try:
            with progress.calling(f"etcd at {self.endpoint}", "an answer", self.timeout):
                return method(request, timeout=self.timeout, metadata=self._token)
        except self._lib.grpc.RpcError as error:
            raise translated(self.endpoint, error, self.timeout) from None
        except ValueError:  # another thread has closed the channel
            raise EtcdUnreachable(self.endpoint, Reason.CLOSED) from None


def preload() -> None:
    """Import gRPC and protobuf. Raises :class:`UsageError` when they cannot be imported."""
    protocol.load()


def _member(m: Any) -> RegisteredMember:
    return RegisteredMember(
        id=m.ID,
        name=printable(m.name, 500),
        peer_urls=tuple(printable(url, 500) for url in m.peerURLs[: bounds.MEMBERS]),
        client_urls=tuple(printable(url, 500) for url in m.clientURLs[: bounds.MEMBERS]),
        is_learner=m.isLearner,
    )


def _lease_time(answer: Any) -> LeaseTime:
    return LeaseTime(int(answer.TTL), int(answer.grantedTTL), tuple(answer.keys))


def _key_value(kv: Any, values: dict[bytes, bytes] | None = None) -> KeyValue:
    value = kv.value
    if values is not None:
        value = values.setdefault(value, value)
    return KeyValue(kv.key, value, kv.lease, kv.mod_revision)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
