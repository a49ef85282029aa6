"""Where a member listens for clients: the declared URLs, and former ones that clients still use.

A change of the inventory may replace the URL at which the workers reach etcd, for example when TLS
is turned on for the client port. A member that is changed keeps its former URLs beside the new
ones. Only a plan that has told the workers drops them. One port serves http and https (etcd's
``embed`` package: ``configureClientListeners`` and ``serveCtx.serve``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from provision.etcd.member import layout
from provision.host.facts import HostFacts
from provision.host.ownership import owner
from provision.inventory.resolved import ClientPort, EtcdCluster, EtcdMember, bracketed, is_ip
from provision.text import document

_LISTEN = re.compile(r'^listen-client-urls: ("[^"]*")$', re.MULTILINE)
_ANYWHERE = ("0.0.0.0", "::")
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, order=True)
class _Listener:
    """``host`` is empty for all addresses."""

    port: int
    tls: bool
    host: str

    def url(self, anywhere: str) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{bracketed(self.host) if self.host else anywhere}:{self.port}"


def urls(
    cluster: EtcdCluster, member: EtcdMember, facts: HostFacts | None, *, former: bool = True
) -> list[str]:
    """The URLs for ``listen-client-urls``. ``former``: with those of :func:`former_urls`."""
    found = _declared(cluster, member)
    if former and former_urls(cluster, member, facts):
        found = _joined(found, _present(cluster, member, facts))
    return [listener.url(wildcard(facts)) for listener in found]


def former_urls(cluster: EtcdCluster, member: EtcdMember, facts: HostFacts | None) -> list[str]:
    """The URLs at which clients reach the member now, and that are not declared any more."""
    declared = _declared(cluster, member)
    wide = {(d.tls, d.port) for d in declared if not d.host}
    # A listener on all addresses may get a narrower one at the member's own address, which clients
    # use. Another address, such as plain_client_address, is not where they are.
    narrow = {(d.tls, d.port) for d in declared if d.host in ("", member.address)}
    return [
        p.url(wildcard(facts))
        for p in _present(cluster, member, facts)
        if p.host != _LOOPBACK
        and p not in declared
        and (p.tls, p.port) not in (wide if p.host else narrow)
    ]


def served_elsewhere(
    cluster: EtcdCluster, member: EtcdMember, facts: HostFacts
) -> ClientPort | None:
    """The port at which the member serves clients now, by its configuration; None when that is the
    declared one, or when the configuration does not say it."""
    present = [p for p in _present(cluster, member, facts) if p.host != _LOOPBACK]
    declared = ClientPort(member.client_tls, member.client_port)
    ports = [ClientPort(p.tls, p.port) for p in present]
    return ports[0] if ports and declared not in ports else None


def wildcard(facts: HostFacts | None) -> str:
    """The address to listen on all addresses: ``[::]`` includes IPv4, but needs IPv6 on the
    host."""
    has_ipv6 = facts is not None and any(":" in a for a in facts.addresses)
    return "[::]" if has_ipv6 else "0.0.0.0"


def at(address: str, *, loopback: bool = True) -> list[str]:
    """The hosts to listen at for a member's ``address``. etcd listens only on addresses; for a host
    name it listens on all of them (an empty text)."""
    if not is_ip(address):
        return [""]
    return [address, _LOOPBACK] if loopback and address != _LOOPBACK else [address]


def _declared(cluster: EtcdCluster, member: EtcdMember) -> list[_Listener]:
    found = [_Listener(member.client_port, member.client_tls, h) for h in at(member.address)]
    plain = cluster.tls.plain_client_port
    if member.client_tls and plain is not None:
        where = cluster.tls.plain_client_address or member.address
        found.append(_Listener(plain, False, at(where, loopback=False)[0]))
    return found


def _present(cluster: EtcdCluster, member: EtcdMember, facts: HostFacts | None) -> list[_Listener]:
    """The listeners in the member's configuration, at addresses that it has. Without data it has
    never served, and another cluster's configuration does not count."""
    if facts is None or owner(facts, layout.UNIT_PATH) != cluster.name:
        return []
    if f"{member.data_dir}/member" not in facts.paths:
        return []
    found = _LISTEN.search(facts.text(layout.config_file(cluster)) or "")
    try:
        listed = str(document(found[1])).split(",") if found is not None else []
        parsed = [_parsed(url) for url in listed]
    except ValueError:
        return []
    there = {p.host for p in parsed}
    own = {"", _LOOPBACK, *(d.host for d in _declared(cluster, member))}
    if there & {"", member.address}:
        own |= facts.addresses
    # Otherwise the member moves to another address: its workers are told as for a new member.
    return [p for p in parsed if p.host in own]


def _parsed(url: str) -> _Listener:
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        raise ValueError(url)
    host = "" if parts.hostname in _ANYWHERE else parts.hostname
    return _Listener(parts.port, parts.scheme == "https", host)


def _joined(declared: Iterable[_Listener], present: Iterable[_Listener]) -> list[_Listener]:
    """Both. A port that is listened at on all addresses cannot be listened at on one of them."""
    declared, present = list(declared), list(present)
    wide = {e.port for e in (*declared, *present) if not e.host}

    def widened(found: Iterable[_Listener]) -> list[_Listener]:
        return [_Listener(f.port, f.tls, "" if f.port in wide else f.host) for f in found]

    return list(dict.fromkeys((*widened(declared), *sorted(widened(present)))))
