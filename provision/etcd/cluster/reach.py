"""The way to an etcd member: from here, or through SSH to its host.

When a member's client port cannot be reached from here, the member is asked through a tunnel.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Literal
from weakref import WeakKeyDictionary

from provision.errors import ProvisionError
from provision.etcd.api.client import DEFAULT_TIMEOUT, EtcdClient
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.login import root_login
from provision.etcd.api.values import ClientTls, Endpoint, Login
from provision.ids import Id
from provision.inventory.resolved import EtcdCluster, EtcdMember, bracketed
from provision.ssh.session import Fleet, tunnel

Route = Literal["direct", "tunnel"]
#: Seconds to wait for a direct TCP connection before the tunnel is tried.
DIRECT_TIMEOUT = 1.0

_PROHIBITED, _CONNECT_FAILED = 1, 2

#: Per fleet, the addresses that time out from here: only the first attempt waits.
_blocked: WeakKeyDictionary[Fleet, set[tuple[str, int]]] = WeakKeyDictionary()


@contextlib.contextmanager
def connect(
    cluster: EtcdCluster,
    fleet: Fleet,
    member: EtcdMember,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    login: Login | None = None,
    how: Route | None = None,
) -> Iterator[EtcdClient]:
    """A client of ``member``, directly or through SSH to its host.

    With client TLS the certificate is checked against the cluster's CA and the member's own
    address, also through a tunnel. With ``how`` the other way is not tried. Raises
    :class:`provision.etcd.api.errors.EtcdError`, and :class:`UsageError` without the CA's files.
    """
    tls = client_tls(cluster, member)
    login = login or root_login(cluster)
    with (
        open_route(fleet, member, member.client_port, how) as (endpoint, _),
        EtcdClient(endpoint, timeout=timeout, tls=tls, login=login) as client,
    ):
        yield client


@contextlib.contextmanager
def open_route(
    fleet: Fleet, member: EtcdMember, port: int, how: Route | None = None
) -> Iterator[tuple[Endpoint, Route]]:
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
        # Through the tunnel, a failure would only show as a connection that closes at once.
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
    """The reason to report when both the direct way (``reason``) and the way through SSH failed."""
    # paramiko's ChannelException: SSH works, but the host could not connect (RFC 4254, 5.1).
    code = getattr(error.__cause__, "code", None)
    if code == _CONNECT_FAILED and reason is Reason.REFUSED:
        return Reason.REFUSED, "by its own host, too"
    if code == _CONNECT_FAILED:
        return Reason.REFUSED, f"by its own host; from here: {reason.value} {detail}".rstrip()
    if code == _PROHIBITED:
        through = "its sshd does not forward connections (AllowTcpForwarding)"
    else:
        through = f"through SSH: {describe(error)[0]}"
    return reason, f"{detail}; {through}" if detail else through


def _direct(fleet: Fleet, address: str, port: int) -> str | tuple[Reason, str]:
    """The IP address that answers on ``port``, or why none does.

    The system's resolver resolves the name here; gRPC uses another resolver.
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
    """The TLS material for a client of ``member``; None when the member's listener is plain."""
    if not member.client_tls:
        return None
    from provision.etcd.pki import tls

    authority = tls.trusted(cluster)
    if not cluster.tls.client_auth:
        return ClientTls(authority, server_name=member.address)
    own = tls.own_pair(cluster)
    return ClientTls(authority, own.cert_pem, own.key_pem, server_name=member.address)


def describe(error: ProvisionError) -> tuple[str, str, Id]:
    """The problem, remedy and id of an error, without the endpoint: the caller names it better."""
    if error.problems:
        return error.problems[0].what, error.problems[0].remedy, error.problems[0].id
    return error.message, "", error.id
