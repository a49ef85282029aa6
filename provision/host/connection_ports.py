"""Ports of services that the kernel may give to a connection.

A connection that begins on a host gets a port of ``ip_local_port_range`` that is not in
``ip_local_reserved_ports`` (the kernel's ip-sysctl document, "IP Variables"), and keeps it for a
minute after its end (``TCP_TIMEWAIT_LEN`` of the kernel's ``net/tcp.h``). While it has the port,
nobody can listen there, with SO_REUSEADDR neither: ``tests/unit/test_connection_ports.py``. So a
service that was stopped for a moment may not start again. By default the range begins above the
ports of etcd and Alluxio, but many hosts have a wider one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from provision.errors import Problem
from provision.host.facts import HostFacts, Probe
from provision.inventory.resolved import Machine
from provision.text import verb

_RANGE = re.compile(r"(\d{1,5}) (\d{1,5})", re.ASCII)
_RESERVED = "net.ipv4.ip_local_reserved_ports"


def problems(facts: Mapping[Machine, HostFacts], probes: Mapping[Machine, Probe]) -> list[Problem]:
    """A warning for each host on which a connection may get a port of one of its services."""
    found: list[Problem] = []
    for machine, f in facts.items():
        ports = [str(port) for port in given(f, probes[machine].ports or ())]
        if not ports:
            continue
        low, high = f.values["connection_ports"].split()
        reserved = [_text(some) for some in _reserved(f)]
        what = (
            f"the kernel gives ports {low} to {high} to connections: while one has "
            f"{' or '.join(ports)}, the service of that port cannot start"
        )
        remedy = (
            f"reserve {verb(ports, 'it', 'them')} now and in /etc/sysctl.d: sysctl {_RESERVED}="
            f"{','.join([*reserved, *ports])}; or choose {verb(ports, 'another port', 'others')}"
        )
        found.append(Problem(machine.place, what, remedy, "warning", id="port-not-reserved"))
    return found


def given(f: HostFacts, ports: Iterable[int]) -> list[int]:
    """Those of ``ports`` that the kernel of ``f`` may give to a connection."""
    between = _RANGE.fullmatch(f.values.get("connection_ports", ""))
    if between is None:
        return []
    low, high = int(between[1]), int(between[2])
    reserved = _reserved(f)
    return [
        port
        for port in dict.fromkeys(ports)
        if low <= port <= high and not any(port in some for some in reserved)
    ]


def _reserved(f: HostFacts) -> list[range]:
    """The ports that ``f`` reserves: ``1,2-4`` in the kernel's file."""
    parts = re.finditer(r"(\d{1,5})(?:-(\d{1,5}))?", f.values.get("reserved_ports", ""), re.ASCII)
    return [range(int(part[1]), int(part[2] or part[1]) + 1) for part in parts]


def _text(some: range) -> str:
    return str(some[0]) if len(some) == 1 else f"{some.start}-{some.stop - 1}"
