"""The way to an etcd member: from here, or through SSH to its host.

When a member's client port cannot be reached from here, the member is asked through a tunnel.

:class:`Reach` has a client of each member. The handle on a cluster is more than that: it also knows
who serves and who leads (:mod:`provision.etcd.cluster.handle`).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from provision import progress
from provision.engine.guards import Guard
from provision.errors import ProvisionError
from provision.etcd.api.client import DEFAULT_TIMEOUT, EtcdClient, Tokens
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.login import root_login
from provision.etcd.api.values import ClientTls, Endpoint, Login
from provision.host.facts import HostFacts, Probe
from provision.ids import Id
from provision.inventory.resolved import Established, EtcdCluster, EtcdMember, Machine, bracketed
from provision.ssh.session import Fleet, Unreachable, tunnel

Route = Literal["direct", "tunnel"]
#: Seconds to wait for a direct TCP connection before the tunnel is tried.
DIRECT_TIMEOUT = 1.0

#: A cluster's name, and which of the clusters with that name is meant.
_Key = tuple[str, Established]


class Learned:
    """What the handles of one run have learned about the members, and share: blocked addresses, the
    logins' tokens, and the member that serves. Safe to use from several threads: members are asked
    in parallel."""

    def __init__(self) -> None:
        self.tokens = Tokens()
        #: The guards that were asked before the plan was made, and hold.
        self.passed: set[Guard] = set()
        #: What was last seen of the members' hosts that were looked at for a plan.
        self.facts: Mapping[Machine, HostFacts] = {}
        #: What the guard's look has seen for the plan, too, each with the probe that was asked.
        self.looked: Mapping[Machine, tuple[Probe, HostFacts]] = {}
        #: What the guard's look has seen of the members, all of which were healthy
        #: (:class:`provision.etcd.cluster.health.ClusterHealth`), with the login that it had.
        self.asked: tuple[Login | None, object] | None = None
        self._lock = threading.Lock()
        self._blocked: set[tuple[str, int]] = set()
        self._serving: dict[_Key, tuple[EtcdMember, Route]] = {}
        self._odd: set[tuple[str, int]] = set()

    def is_blocked(self, address: str, port: int) -> bool:
        """Whether the address has timed out from here: only the first attempt waits."""
        with self._lock:
            return (address, port) in self._blocked

    def block(self, address: str, port: int) -> None:
        with self._lock:
            self._blocked.add((address, port))

    def serving(self, cluster: EtcdCluster) -> tuple[EtcdMember, Route] | None:
        """The member that last served a read, and the way to it; None when it is not known, or no
        longer a member of ``cluster``: a member that was just removed may still answer for a
        moment."""
        with self._lock:
            found = self._serving.get(_key(cluster))
            if found is None or found[0] not in cluster.members or self._in_odd(found[0]):
                return None
            return found

    def note_serving(
        self, cluster: EtcdCluster, member: EtcdMember, how: Route, *, first: bool = False
    ) -> None:
        """Note that ``member`` serves. ``first``: an earlier note is kept."""
        with self._lock:
            found = self._serving.get(_key(cluster))
            if first and self._in_odd(member):
                return
            if not first or found is None or found[0] not in cluster.members:
                self._serving[_key(cluster)] = (member, how)

    def forget_serving(self, cluster: EtcdCluster) -> None:
        """Forget which member of ``cluster`` serves: a call to it has failed."""
        with self._lock:
            self._serving.pop(_key(cluster), None)

    def distrust(self, member: EtcdMember) -> None:
        """Note that ``member`` has answered as etcd never does: others are asked before it."""
        with self._lock:
            self._odd.add((member.address, member.client_port))

    def is_odd(self, member: EtcdMember) -> bool:
        with self._lock:
            return self._in_odd(member)

    def _in_odd(self, member: EtcdMember) -> bool:
        return (member.address, member.client_port) in self._odd

    def clear(self) -> None:
        """Forget everything."""
        self.tokens.clear()
        self.facts, self.looked, self.asked = {}, {}, None
        with self._lock:
            self._blocked.clear()
            self._serving.clear()
            self._odd.clear()


class NoWay(EtcdUnreachable):
    """The member cannot be reached from here, and its host's sshd forwards no connections to it:
    this tool cannot ask it, whether it serves or not."""


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """The members of ``cluster``, each by itself.

    ``fleet`` reaches the members' hosts. ``login``: the clients' login; None: this tool's own, if
    the inventory has it.
    """

    cluster: EtcdCluster
    fleet: Fleet
    login: Login | None = None
    learned: Learned = field(default_factory=Learned, repr=False)

    @property
    def credentials(self) -> Login | None:
        """The login that clients use. Raises :class:`UsageError` when it cannot be read."""
        return self.login or root_login(self.cluster)

    @contextlib.contextmanager
    def member(
        self, member: EtcdMember, *, timeout: float = DEFAULT_TIMEOUT, how: Route | None = None
    ) -> Iterator[EtcdClient]:
        """A client of ``member``, directly or through SSH to its host; ``timeout`` (seconds) limits
        each call. ``member`` need not be in ``cluster``: it may be leaving or coming.

        With client TLS the certificate is checked against the cluster's CA and the member's own
        address, also through a tunnel. With ``how`` the other way is not tried. Raises
        :class:`provision.etcd.api.errors.EtcdError`, and :class:`UsageError` without the CA's
        files.
        """
        tls = client_tls(self.cluster, member)
        login, tokens = self.credentials, self.learned.tokens
        with (
            open_route(self, member, member.served.port, how) as (endpoint, _),
            EtcdClient(endpoint, timeout=timeout, tls=tls, login=login, tokens=tokens) as client,
        ):
            yield client


@contextlib.contextmanager
def open_route(
    etcd: Reach, member: EtcdMember, port: int, how: Route | None = None
) -> Iterator[tuple[Endpoint, Route]]:
    """Where to connect for ``port`` of ``member``: a direct address, or a tunnel's local end."""
    name = f"{bracketed(member.address)}:{port}"
    how = "direct" if member.forwarded else how
    reason, detail = Reason.OTHER, ""
    if how != "tunnel":
        direct = _direct(etcd.learned, member.address, port)
        if isinstance(direct, str):
            yield Endpoint(direct, port, name), "direct"
            return
        reason, detail = direct
        if how == "direct":
            raise EtcdUnreachable(Endpoint(member.address, port), reason, detail)
    try:
        # Through the tunnel, a failure would only show as a connection that closes at once.
        session = etcd.fleet.session(member.machine)
        session.open_tcp(member.address, port, timeout=DIRECT_TIMEOUT * 5).close()
    except ProvisionError as error:
        prohibited = isinstance(error, Unreachable) and error.forwarding == "prohibited"
        # A refusal shows that the way from here is open: nothing listens there.
        closed = prohibited and reason is not Reason.REFUSED
        failed = NoWay if closed else EtcdUnreachable
        raise failed(Endpoint(member.address, port), *_neither(reason, detail, error)) from error
    if reason is Reason.TIMEOUT:
        etcd.learned.block(member.address, port)
    with tunnel(session, member.address, port) as local:
        yield Endpoint("127.0.0.1", local, name), "tunnel"


def _neither(reason: Reason, detail: str, error: ProvisionError) -> tuple[Reason, str]:
    """The reason to report when both the direct way (``reason``) and the way through SSH failed."""
    forwarding = error.forwarding if isinstance(error, Unreachable) else None
    if forwarding == "refused" and reason is Reason.REFUSED:
        return Reason.REFUSED, "by its own host, too"
    if forwarding == "refused":
        return Reason.REFUSED, f"by its own host; from here: {reason.value} {detail}".rstrip()
    if forwarding == "prohibited":
        through = "its sshd does not forward connections (AllowTcpForwarding)"
    else:
        through = f"through SSH: {describe(error)[0]}"
    return reason, f"{detail}; {through}" if detail else through


def _key(cluster: EtcdCluster) -> _Key:
    return cluster.name, cluster.established


def _direct(learned: Learned, address: str, port: int) -> str | tuple[Reason, str]:
    """The IP address that answers on ``port``, or why none does.

    The system's resolver resolves the name here; gRPC uses another resolver.
    """
    if learned.is_blocked(address, port):
        return Reason.TIMEOUT, ""
    try:
        with (
            progress.calling(f"etcd at {address}:{port}", "connect", DIRECT_TIMEOUT),
            socket.create_connection((address, port), DIRECT_TIMEOUT) as probe,
        ):
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
    """The TLS material for a client of ``member``; None when the member's listener is plain."""
    if not member.served.tls:
        return None
    from provision.etcd.pki import tls

    authority = tls.trusted(cluster)
    if not cluster.tls.client_auth:
        return ClientTls(authority, server_name=member.address)
    own = tls.own_pair(cluster)
    return ClientTls(authority, own.cert_pem, own.key_pem, server_name=member.address)


def describe(error: ProvisionError) -> tuple[str, str, Id]:
    """The problem, remedy and id of an error, without the endpoint: the caller names the member."""
    if error.problems:
        return error.problems[0].what, error.problems[0].remedy, error.problems[0].id
    return error.message, "", error.id
