"""The addresses that a member's connections to its peers come from.

etcd accepts a peer when the peer's certificate names the address that it comes from, or a DNS name
that resolves to this address (``checkCertSAN`` in its ``client/pkg/transport/listener_tls.go``). A
host with several addresses need not use the declared one: its routes say which one it uses.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from provision.dataclass import dataclass
from provision.host.facts import HostFacts
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine, is_ip

#: Label of the probe for the routes.
ROUTES = "routes"
#: The most addresses of routes in one certificate.
MAX_SOURCES = 16

#: Arguments of ``way``: a peer, then its addresses. A name is asked for only when it matters: an
#: answer may take as long as the resolver waits.
_FUNCTIONS = r"""
at() { timeout 5 getent ahosts "$1" | cut -d ' ' -f 1 | sort -u; }
names() { for a in $(at "$1"); do echo "name $1 $a"; done; }
way() {
  peer=$1
  shift
  for to in "$@"; do
    found=$(ip -o route get "$to" 2>/dev/null) || continue
    found=${found%%
*}
    device=${found#* dev }
    bridge=-
    [ ! -e "/sys/class/net/${device%% *}/bridge" ] || bridge=bridge
    echo "route $peer $bridge $found"
    case "$found " in *" src $own "*) ;; *) odd=1;; esac
  done
}"""


@dataclass(frozen=True, slots=True)
class Route:
    """The route to a peer. ``source``: the address that connections leave by; ``bridge``: they
    leave through a bridge of the host."""

    peer: str
    source: str
    bridge: bool = False


def probe(cluster: EtcdCluster, member: EtcdMember) -> dict[str, str]:
    """The probe command for the routes from the member's host to its peers. A host without ``ip``
    answers nothing."""
    peers = [m for m in cluster.members if m.name != member.name]
    if not (member.peer_tls and peers):
        return {}
    q = shlex.quote
    lines = ["command -v ip >/dev/null || exit 0", f"own={q(member.address)} odd="]
    for m in peers:
        if is_ip(m.address):
            lines.append(f"way {q(m.address)} {q(m.address)}")
        else:
            lines += [f"names {q(m.address)}", f"way {q(m.address)} $(at {q(m.address)})"]
    if member.machine.host != member.address and not is_ip(member.machine.host):
        lines.append(f'[ -z "$odd" ] || names {q(member.machine.host)}')
    return {ROUTES: "\n".join((_FUNCTIONS, *lines, ""))}


def as_peers_see(
    members: Iterable[EtcdMember], facts: Mapping[Machine, HostFacts]
) -> dict[Machine, HostFacts]:
    """``facts``, in which each member's own name has the addresses that its peers' hosts give for
    it. The own host may resolve it to the loopback."""
    seen = dict(facts)
    for m in members:
        if m.machine not in facts or is_ip(m.address):
            continue
        told = {
            line
            for other in members
            if other.machine != m.machine and other.machine in facts
            for line in facts[other.machine].commands.get(ROUTES, "").splitlines()
            if line.startswith(f"name {m.address} ")
        }
        here = facts[m.machine]
        text = here.commands.get(ROUTES, "") + "".join(f"{line}\n" for line in sorted(told))
        seen[m.machine] = replace(here, commands={**here.commands, ROUTES: text})
    return seen


def routes(facts: HostFacts) -> tuple[Route, ...]:
    """The routes that the host has told, each once; lines that cannot be read are left out."""
    found = []
    for line in facts.commands.get(ROUTES, "").splitlines():
        match = re.match(r"route (\S+) (bridge|-) .*\bsrc (\S+)", line)
        if match is not None and is_ip(match[3]):
            source = str(ipaddress.ip_address(match[3]))
            found.append(Route(match[1], source, match[2] == "bridge"))
    return tuple(dict.fromkeys(found))


def sources(cluster: EtcdCluster, member: EtcdMember, facts: HostFacts) -> tuple[str, ...]:
    """The addresses of the host's routes to its peers that the member's certificate names, sorted.

    Several hosts may have the same address on a bridge of their own, on the loopback, or on a link.
    The address of another member is never named, whatever the host says: the certificate would be
    good for that member.
    """
    others = [m for m in cluster.members if m.name != member.name]
    theirs = {a for m in others for a in _ips(m.address, m.machine.host, *m.sans)}
    found = {r.source for r in routes(facts) if not r.bridge} - (theirs - _ips(*member.sans))
    return tuple(sorted(a for a in found if not _is_local(a))[:MAX_SOURCES])


def _ips(*names: str) -> set[str]:
    return {str(ipaddress.ip_address(name)) for name in names if is_ip(name)}


def _is_local(address: str) -> bool:
    at = ipaddress.ip_address(address)
    return at.is_loopback or at.is_link_local or at.is_unspecified or at.is_multicast


def unnamed(member: EtcdMember, facts: HostFacts, names: Collection[str]) -> tuple[Route, ...]:
    """The routes by which peers would refuse the member's certificate with ``names``.

    A member that is declared with a name has no such routes while no peer has resolved this name.
    """
    at: dict[str, set[str]] = {name.lower(): set() for name in names if not is_ip(name)}
    at.pop("localhost", None)
    for line in facts.commands.get(ROUTES, "").splitlines():
        match = re.match(r"name (\S+) (\S+)$", line)
        if match is not None and is_ip(match[2]) and match[1].lower() in at:
            address = ipaddress.ip_address(match[2])
            if not address.is_loopback:
                at[match[1].lower()].add(str(address))
    if not at.get(member.address.lower(), {"an address"}):
        return ()
    served = {name for name in names if is_ip(name)}.union(*at.values())
    return tuple(r for r in routes(facts) if r.source not in served)
