"""Whether an etcd cluster works, as seen through every one of its members.

A member is healthy when a linearizable read through its own endpoint succeeds, as
``etcdctl endpoint health`` has it: that takes a leader and a quorum behind it. Members whose
client port cannot be reached from here are asked through SSH to their host.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal
from weakref import WeakKeyDictionary

from provision.errors import Problem, ProvisionError, Unhealthy, UsageError
from provision.etcd.client import DEFAULT_TIMEOUT, EtcdClient, preload
from provision.etcd.failures import EtcdUnreachable, Reason
from provision.etcd.values import ClientTls, Endpoint, Login, MemberStatus, RegisteredMember
from provision.ids import Id
from provision.inventory.resolved import EtcdCluster, EtcdMember, bracketed
from provision.remote import Fleet, tunnel
from provision.text import size

__all__ = [
    "CertificateState",
    "ClusterHealth",
    "MemberHealth",
    "any_client",
    "client_tls",
    "connect",
    "observe",
    "observing",
    "preload",
    "verify_write",
]

How = Literal["direct", "tunnel"]
#: Seconds to wait for a direct TCP connection before the tunnel is tried.
DIRECT_TIMEOUT = 1.0
EXPIRY_WARNING_DAYS = 30
#: Share of its quota from which a database is warned of: full, it takes no more writes.
NEARLY_FULL = 0.8

_PROHIBITED, _CONNECT_FAILED = 1, 2

#: Per fleet, the addresses that time out from here, so that only the first attempt waits.
_blocked: WeakKeyDictionary[Fleet, set[tuple[str, int]]] = WeakKeyDictionary()
#: Per fleet and cluster, the member that last served a read, and the way to it.
_serving: WeakKeyDictionary[Fleet, dict[str, tuple[EtcdMember, How]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class CertificateState:
    """The certificate a listener shows. ``error`` says why it is not accepted, or not known.

    ``fingerprint`` is the certificate's SHA-256, lower-case hex.
    """

    listener: Literal["client", "peer"]
    not_after: datetime | None
    error: str = ""
    fingerprint: str = ""

    def days_left(self, now: datetime | None = None) -> int | None:
        if self.not_after is None:
            return None
        return (self.not_after - (now or datetime.now(timezone.utc))) // timedelta(days=1)


@dataclass(frozen=True, slots=True)
class MemberHealth:
    """One declared member. ``error`` is why it is not healthy; ``seconds`` is the read's time."""

    member: EtcdMember
    how: How | None = None
    status: MemberStatus | None = None
    registered: tuple[RegisteredMember, ...] = ()
    seconds: float | None = None
    error: str = ""
    remedy: str = ""
    error_id: Id = "member-down"
    certificates: tuple[CertificateState, ...] = ()
    #: Whether it asked for a login; None when that is not known, or the inventory has none.
    authenticated: bool | None = None
    #: Whether it serves, but refuses the login (or asks for one that the inventory has not).
    refused: bool = False

    @property
    def healthy(self) -> bool:
        return not self.error


@dataclass(frozen=True, slots=True)
class ClusterHealth:
    """Every declared member's health, and what they say together."""

    cluster: EtcdCluster
    members: tuple[MemberHealth, ...]

    @property
    def quorum(self) -> int:
        return self.cluster.quorum

    @property
    def healthy_count(self) -> int:
        return sum(m.healthy for m in self.members)

    @property
    def all_healthy(self) -> bool:
        return self.healthy_count == len(self.members)

    @property
    def established(self) -> bool:
        """Whether there is a running cluster: some member answered."""
        return any(m.status is not None for m in self.members)

    @property
    def registered(self) -> tuple[RegisteredMember, ...]:
        """The members as etcd knows them: the list of the leader, or else of who answered."""
        for m in self.members:
            if m.registered and m.status is not None and m.status.is_leader:
                return m.registered
        return next((m.registered for m in self.members if m.registered), ())

    @property
    def leader(self) -> str | None:
        """The declared name of the leader, when the members that know one agree on it."""
        known = {m.status.leader for m in self.members if m.status is not None and m.status.leader}
        if len(known) != 1:
            return None
        for m in self.members:
            if m.status is not None and m.status.member_id in known:
                return m.member.name
        return next((r.name or None for r in self.registered if r.id in known), None)

    def role(self, m: MemberHealth) -> str:
        """``leader``, ``follower`` or ``learner``; ``-`` of a member that did not answer."""
        if m.status is None:
            return "-"
        if m.member.name == self.leader:
            return "leader"
        return "learner" if m.status.is_learner else "follower"

    @property
    def revision(self) -> int | None:
        """The newest revision that a member has seen."""
        return max((m.status.revision for m in self.members if m.status is not None), default=None)

    @property
    def problems(self) -> list[Problem]:
        """Everything that is wrong or soon will be, worst first within a member."""
        found: list[Problem] = []
        for m in self.members:
            found.extend(_problems(self.cluster, m))
        return found + _disagreements(self) + self.auth_problems

    @property
    def auth_problems(self) -> list[Problem]:
        """Authentication that is not as the inventory says."""
        wanted = self.cluster.auth.enabled
        found = next((m.authenticated for m in self.members if m.authenticated is not None), None)
        if None in (wanted, found) or wanted is found:
            return []
        words = ("on", "enable-auth") if wanted else ("off", "disable-auth")
        what = f"authentication is {'on' if found else 'off'}, the inventory says {words[0]}"
        return [Problem("etcd", what, f"run invoke {words[1]}", id="auth-differs")]

    def healthy(self, name: str) -> bool:
        """Whether the member of that name is healthy; False for one that is not declared."""
        return any(m.healthy for m in self.members if m.member.name == name)


@contextlib.contextmanager
def connect(
    cluster: EtcdCluster,
    fleet: Fleet,
    member: EtcdMember,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    login: Login | None = None,
    how: How | None = None,
) -> Iterator[EtcdClient]:
    """A client of ``member``, directly or through SSH to its host.

    With client TLS the certificate is checked against the cluster's CA and the member's own
    address, through a tunnel, too. ``how`` skips the attempt of the other way. Raises
    :class:`provision.etcd.client.EtcdError`, and :class:`UsageError` without the CA's files.
    """
    tls = client_tls(cluster, member)
    login = login or root(cluster)
    with (
        _way(fleet, member, member.client_port, how) as (endpoint, _),
        EtcdClient(endpoint, timeout=timeout, tls=tls, login=login) as client,
    ):
        yield client


@contextlib.contextmanager
def any_client(
    cluster: EtcdCluster,
    fleet: Fleet,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    login: Login | None = None,
) -> Iterator[EtcdClient]:
    """A client of the first member that serves linearizable reads.

    Members are asked at once, so one that hangs costs nothing; the choice is kept for the fleet
    until a call fails. Raises :class:`Unhealthy` with every member's problem when none serves.
    """
    kept = _serving.setdefault(fleet, {})
    with contextlib.ExitStack() as stack:
        client = None
        if cluster.name in kept:
            member, how = kept[cluster.name]
            with contextlib.suppress(EtcdUnreachable):
                client = stack.enter_context(
                    connect(cluster, fleet, member, timeout=timeout, login=login, how=how)
                )
        if client is None:
            member, how = _first_serving(cluster, fleet, timeout, login)
            kept[cluster.name] = (member, how)
            client = stack.enter_context(
                connect(cluster, fleet, member, timeout=timeout, login=login, how=how)
            )
        try:
            yield client
        except EtcdUnreachable:
            kept.pop(cluster.name, None)
            raise


def _first_serving(
    cluster: EtcdCluster, fleet: Fleet, timeout: float, login: Login | None
) -> tuple[EtcdMember, How]:
    sick: list[Problem] = []
    with contextlib.closing(observing(cluster, fleet, timeout=timeout, login=login)) as seen:
        for m in seen:
            if m.healthy and m.how is not None:
                return m.member, m.how
            sick.extend(_problems(cluster, m))
    raise Unhealthy("no etcd member serves reads", sick, id="quorum-lost")


def observe(
    cluster: EtcdCluster,
    fleet: Fleet,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    login: Login | None = None,
    certificates: bool = False,
) -> ClusterHealth:
    """Ask every member at once; ``timeout`` (seconds) bounds each call. Never raises for a
    member: what it could not say is in its :class:`MemberHealth`.

    ``certificates`` also looks at the certificates of the members' TLS listeners.
    """
    seen = observing(cluster, fleet, timeout=timeout, login=login, certificates=certificates)
    by_name = {m.member.name: m for m in seen}
    return ClusterHealth(cluster, tuple(by_name[m.name] for m in cluster.members))


def observing(
    cluster: EtcdCluster,
    fleet: Fleet,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    login: Login | None = None,
    certificates: bool = False,
) -> Generator[MemberHealth, None, None]:
    """As :func:`observe`, one member at a time, in the order of their answers.

    Closing the generator early does not wait for the members that have not answered.
    """
    preload()
    login = login or root(cluster)
    pool = ThreadPoolExecutor(len(cluster.members), "etcd")
    try:
        asked = [
            pool.submit(_observe, cluster, fleet, m, timeout, login, certificates)
            for m in cluster.members
        ]
        for done in as_completed(asked):
            yield done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def root(cluster: EtcdCluster) -> Login | None:
    """This tool's own login: etcd's user root, if the inventory has its password.

    Raises :class:`UsageError` when the secret cannot be read.
    """
    secret = cluster.auth.root_password
    if secret is None:
        return None
    try:
        return Login("root", secret.reveal())
    except (LookupError, OSError, ValueError) as error:
        reason = error.args[0] if isinstance(error, LookupError) else error
        raise UsageError(
            f"the secret for etcd.auth.root_password cannot be read: {reason}",
            id="secret-unreadable",
        ) from error


def verify_write(
    cluster: EtcdCluster,
    fleet: Fleet,
    member: EtcdMember | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    login: Login | None = None,
) -> None:
    """A write and a read back by quorum through ``member``, or through every member at once.

    Raises :class:`Unhealthy` with all that failed.
    """
    members = cluster.members if member is None else (member,)

    def write(m: EtcdMember) -> list[Problem]:
        try:
            with connect(cluster, fleet, m, timeout=timeout, login=login) as client:
                client.quorum_write(m.name)
        except ProvisionError as error:
            what, remedy, error_id = _words(error)
            return [
                Problem(f"etcd member {m.name}", f"takes no writes: {what}", remedy, id=error_id)
            ]
        return []

    with ThreadPoolExecutor(len(members), "etcd") as pool:
        problems = [p for found in pool.map(write, members) for p in found]
    if problems:
        names = f"{len(problems)} of {len(members)} etcd members"
        raise Unhealthy(f"no quorum write through {names}", problems, id=problems[0].id)


def _observe(
    cluster: EtcdCluster,
    fleet: Fleet,
    member: EtcdMember,
    timeout: float,
    login: Login | None,
    certificates: bool,
) -> MemberHealth:
    how: How | None = None
    status: MemberStatus | None = None
    registered: tuple[RegisteredMember, ...] = ()
    seconds: float | None = None
    what = remedy = ""
    error_id: Id = "member-down"
    shown: tuple[CertificateState, ...] = ()
    authenticated: bool | None = None
    refused = False
    try:
        tls = client_tls(cluster, member)
        with contextlib.ExitStack() as stack:
            endpoint, how = stack.enter_context(_way(fleet, member, member.client_port))
            client = stack.enter_context(
                EtcdClient(endpoint, timeout=timeout, tls=tls, login=login)
            )
            status = client.status()
            registered = tuple(client.member_list())
            started = time.monotonic()
            _read(client)
            seconds = time.monotonic() - started
            authenticated = client.logged_in if login is not None else None
            _serving.setdefault(fleet, {}).setdefault(cluster.name, (member, how))
    except ProvisionError as error:
        what, remedy, error_id = _words(error)
        refused = isinstance(error, EtcdUnreachable) and error.reason is Reason.LOGIN
    if certificates and how is not None:
        shown = shown_certificates(cluster, fleet, member, how)
    return MemberHealth(
        member,
        how,
        status,
        registered,
        seconds,
        what,
        remedy,
        error_id,
        shown,
        authenticated,
        refused,
    )


def _read(client: EtcdClient) -> None:
    """A linearizable read. etcd looks at the user's rights after the round of consensus, so a
    refusal for lack of them is proof, too (``etcdctl endpoint health`` has it so)."""
    try:
        client.get("health")
    except EtcdUnreachable as error:
        if error.reason is not Reason.DENIED:
            raise


@contextlib.contextmanager
def _way(
    fleet: Fleet, member: EtcdMember, port: int, how: How | None = None
) -> Iterator[tuple[Endpoint, How]]:
    """Where to connect for ``port`` of ``member``: a direct address, or a tunnel's local end."""
    name = f"{bracketed(member.address)}:{port}"
    how = "direct" if member.forwarded else how
    reason, detail = Reason.OTHER, ""
    if how != "tunnel":
        direct = _direct(fleet, member.address, port)
        if isinstance(direct, str):
            yield Endpoint(direct, port, name), "direct"
            return
        reason, detail = direct
        if how == "direct":
            raise EtcdUnreachable(Endpoint(member.address, port), reason, detail)
    try:
        # The tunnel itself would only show a connection that closes at once.
        session = fleet.session(member.machine)
        session.open_tcp(member.address, port, timeout=DIRECT_TIMEOUT * 5).close()
    except ProvisionError as error:
        raise EtcdUnreachable(
            Endpoint(member.address, port), *_neither(reason, detail, error)
        ) from error
    if reason is Reason.TIMEOUT:
        _blocked.setdefault(fleet, set()).add((member.address, port))
    with tunnel(session, member.address, port) as local:
        yield Endpoint("127.0.0.1", local, name), "tunnel"


def _neither(reason: Reason, detail: str, error: ProvisionError) -> tuple[Reason, str]:
    """What to say when the direct way failed for ``reason``, and the one through SSH, too."""
    # paramiko's ChannelException: SSH works, and the host did not connect (RFC 4254, 5.1).
    code = getattr(error.__cause__, "code", None)
    if code == _CONNECT_FAILED and reason is Reason.REFUSED:
        return Reason.REFUSED, "by its own host, too"
    if code == _CONNECT_FAILED:
        return Reason.REFUSED, f"by its own host; from here: {reason.value} {detail}".rstrip()
    if code == _PROHIBITED:
        through = "its sshd forwards nothing (AllowTcpForwarding)"
    else:
        through = f"through SSH: {_words(error)[0]}"
    return reason, f"{detail}; {through}" if detail else through


def _direct(fleet: Fleet, address: str, port: int) -> str | tuple[Reason, str]:
    """The IP address that answers on ``port``, or why none does.

    The name is resolved here, by the system's resolver, which is not the one gRPC uses.
    """
    if (address, port) in _blocked.get(fleet, ()):
        return Reason.TIMEOUT, ""
    try:
        with socket.create_connection((address, port), DIRECT_TIMEOUT) as probe:
            return str(probe.getpeername()[0])
    except TimeoutError:
        return Reason.TIMEOUT, f"in {DIRECT_TIMEOUT:g} s"
    except ConnectionRefusedError:
        return Reason.REFUSED, ""
    except socket.gaierror:
        return Reason.OTHER, f"the name {address} does not resolve here"
    except OSError as error:
        return Reason.OTHER, error.strerror or str(error)


def client_tls(cluster: EtcdCluster, member: EtcdMember) -> ClientTls | None:
    """What a client of ``member`` needs; None when its listener is plain."""
    if not member.client_tls:
        return None
    from provision.etcd import tls

    authority = tls.trusted(cluster)
    if not cluster.tls.client_auth:
        return ClientTls(authority, server_name=member.address)
    own = tls.own_pair(cluster)
    return ClientTls(authority, own.cert_pem, own.key_pem, server_name=member.address)


def shown_certificates(
    cluster: EtcdCluster, fleet: Fleet, member: EtcdMember, how: How | None = None
) -> tuple[CertificateState, ...]:
    """The certificates that the member's TLS listeners show to a new connection."""
    listeners: list[tuple[Literal["client", "peer"], int]] = []
    if member.client_tls:
        listeners.append(("client", member.client_port))
    if member.peer_tls:
        listeners.append(("peer", member.peer_port))
    found: list[CertificateState] = []
    for listener, port in listeners:
        try:
            context = tls_context(cluster)
            with _way(fleet, member, port, how) as (endpoint, _):
                found.append(_shown(listener, context, endpoint, member.address))
        except ProvisionError as error:
            found.append(CertificateState(listener, None, _words(error)[0]))
    return tuple(found)


def tls_context(cluster: EtcdCluster) -> ssl.SSLContext:
    from provision.etcd import pki, tls

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=tls.trusted(cluster).decode("ascii", "replace"))
        with contextlib.suppress(UsageError):
            # Members that ask for a client's certificate log every connection without one.
            tls.own_pair(cluster)
            context.load_cert_chain(pki.home(cluster.tls.pki_dir, cluster.name) / pki.CLIENT)
    except OSError as error:
        raise UsageError(f"{cluster.tls.pki_dir}: {error}", id="pki-unusable") from error
    return context


def _shown(
    listener: Literal["client", "peer"], context: ssl.SSLContext, endpoint: Endpoint, name: str
) -> CertificateState:
    """What a TLS listener shows of itself, checked against the CA and the member's name."""
    try:
        with (
            socket.create_connection((endpoint.address, endpoint.port), DIRECT_TIMEOUT * 3) as raw,
            context.wrap_socket(raw, server_hostname=name) as secured,
        ):
            end = (secured.getpeercert() or {}).get("notAfter")
            fingerprint = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
    except ssl.SSLCertVerificationError as error:
        return CertificateState(listener, None, error.verify_message or str(error))
    except OSError as error:
        return CertificateState(listener, None, error.strerror or str(error))
    if not isinstance(end, str):
        return CertificateState(listener, None, "shows no certificate")
    seconds = ssl.cert_time_to_seconds(end)
    until = datetime.fromtimestamp(seconds, timezone.utc)
    return CertificateState(listener, until, fingerprint=fingerprint)


def _words(error: ProvisionError) -> tuple[str, str, Id]:
    """What, remedy and id of an error, without the endpoint that the caller names better."""
    if error.problems:
        return error.problems[0].what, error.problems[0].remedy, error.problems[0].id
    return error.message, "", error.id


def _problems(cluster: EtcdCluster, m: MemberHealth) -> list[Problem]:
    where = f"etcd member {m.member.name}"
    found: list[Problem] = []
    if m.error:
        serves = "answers, but serves no reads: " if m.status is not None else ""
        found.append(Problem(where, serves + m.error, m.remedy, id=m.error_id))
    if m.status is not None:
        for alarm in m.status.alarms:
            found.append(
                Problem(
                    where,
                    f"alarm {alarm}",
                    _ALARM_REMEDIES.get(alarm, ""),
                    id=_ALARM_IDS.get(alarm, "alarm-raised"),
                )
            )
        quota = m.member.quota
        if quota is not None and m.status.db_size >= quota * NEARLY_FULL and not m.status.alarms:
            share = f"{100 * m.status.db_size // quota} % of its quota, {size(quota)}"
            remedy = "invoke defrag-etcd --compact, or raise quota-backend-bytes"
            found.append(
                Problem(where, f"the database has {share}", remedy, "warning", id="etcd-space-low")
            )
        if m.status.is_learner:
            found.append(
                Problem(
                    where,
                    "is a learner: it does not count for the quorum",
                    "",
                    "warning",
                    id="member-is-learner",
                )
            )
    renew = "run deploy-etcd again"
    if cluster.tls.ca == "external":
        renew = "run export-csrs, import-certs and rotate-certs"
    for certificate in m.certificates:
        found.extend(_expiry(where, certificate, renew))
    return found


_ALARM_REMEDIES = {
    "NOSPACE": "compact and defragment, or raise quota-backend-bytes",
    "CORRUPT": "replace the member whose data differs",
}
_ALARM_IDS: dict[str, Id] = {"NOSPACE": "alarm-nospace", "CORRUPT": "alarm-corrupt"}


def _expiry(where: str, certificate: CertificateState, renew: str) -> list[Problem]:
    which = f"{certificate.listener} certificate"
    left = certificate.days_left()
    if left is None:
        severity = "error" if "expired" in certificate.error else "warning"
        return [
            Problem(
                where,
                f"{which} not verified: {certificate.error}",
                "",
                severity,
                id="certificate-unverified",
            )
        ]
    if left >= EXPIRY_WARNING_DAYS:
        return []
    when = f"{certificate.not_after:%Y-%m-%d}"
    return [
        Problem(
            where,
            f"{which} expires in {left} days, on {when}",
            renew,
            "warning",
            id="certificate-expiring",
        )
    ]


def _disagreements(health: ClusterHealth) -> list[Problem]:
    found: list[Problem] = []
    answered = [(m, m.status) for m in health.members if m.status is not None]
    ids: dict[int, list[str]] = {}
    leaders: dict[int, list[str]] = {}
    for m, status in answered:
        ids.setdefault(status.cluster_id, []).append(m.member.name)
        if status.leader:
            leaders.setdefault(status.leader, []).append(m.member.name)
    if len(ids) > 1:
        said = "; ".join(f"{', '.join(names)}: {i:x}" for i, names in ids.items())
        found.append(
            Problem(
                "etcd",
                f"the members belong to different clusters ({said})",
                id="etcd-clusters-differ",
            )
        )
        return found
    if len(leaders) > 1:
        said = "; ".join(f"{', '.join(names)}: {i:x}" for i, names in leaders.items())
        found.append(
            Problem("etcd", f"the members do not agree on a leader ({said})", id="quorum-lost")
        )
    registered = health.registered
    if not registered or health.cluster.external:  # its members are not this inventory's to know
        return found
    declared = {m.member.name for m in health.members}
    urls = {m.member.peer_url for m in health.members}
    for r in registered:
        # A member that has never started has no name yet; its peer URL says who it is to be.
        if r.name not in declared and not (not r.name and urls & set(r.peer_urls)):
            found.append(
                Problem(
                    f"etcd member {r.name or f'{r.id:x}'}",
                    f"is in the cluster ({', '.join(r.peer_urls)}), but not in the inventory",
                    id="member-not-declared",
                )
            )
    names = {r.name for r in registered}
    for m in health.members:
        if m.member.name not in names and not any(
            m.member.peer_url in r.peer_urls for r in registered
        ):
            found.append(
                Problem(
                    f"etcd member {m.member.name}",
                    "is not a member of the running cluster",
                    id="member-not-joined",
                )
            )
    for m, status in answered:
        if health.cluster.version and status.version != health.cluster.version:
            found.append(
                Problem(
                    f"etcd member {m.member.name}",
                    f"runs etcd {status.version}, the inventory says {health.cluster.version}",
                    "",
                    "warning",
                    id="etcd-version-differs",
                )
            )
    return found
