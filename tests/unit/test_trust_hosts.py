"""The parts of trust-hosts that need no host: the file, the table, one line for many hosts."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from threading import Barrier
from typing import cast

import pytest

from provision.alike import folded
from provision.cli import console
from provision.errors import Problem, UsageError
from provision.ssh import trust_file
from provision.ssh.connect import Connector
from provision.ssh.known_hosts import HostKey, KnownHosts
from provision.ssh.route import Hop
from provision.ssh.scan import Scan, Server

KIND = "ssh-ed25519"


def key(text: str) -> HostKey:
    return HostKey(KIND, text.encode())


def _adds(path: Path, who: int) -> None:
    for number in range(50):
        trust_file.append(path, [(f"host{who}-{number}", key(f"{who} {number}"))])


@pytest.mark.process
def test_two_that_write_at_once_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=_adds, args=(path, who)) for who in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert len(path.read_text().splitlines()) == 150
    known = KnownHosts([path])
    for who in range(3):
        assert known.of(f"host{who}-49", 22).keys[0].blob == f"{who} 49".encode()


def test_a_line_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    entries = [("[a]:2222", key("1")), ("b", key("1")), ("b", key("1"))]
    assert trust_file.append(path, entries) == 2
    assert trust_file.append(path, entries) == 0
    assert trust_file.append(path, [("b", key("2"))]) == 1
    assert len(path.read_text().splitlines()) == 3


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("# mine\n")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    with pytest.raises(UsageError, match="No space left on device"):
        trust_file.append(path, [("a", key("1"))])
    assert path.read_text() == "# mine\n"


def test_a_link_stays_one(tmp_path: Path) -> None:
    path, target = tmp_path / "known_hosts", tmp_path / "shared"
    target.write_text("")
    path.symlink_to(target)
    trust_file.append(path, [("a", key("1"))])
    assert path.is_symlink()
    assert target.read_text().startswith(f"a {KIND} ")


def unknown(host: str, what: str = "connect: the host key is not in known_hosts") -> Problem:
    return Problem(f"{host} (i.yml:1:1)", what, "do it", id="host-key-unknown")


def test_many_hosts_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.problems(
        [unknown(f"w{n}") for n in range(200)] + [unknown("w0"), unknown("x", "other")]
    )
    assert capsys.readouterr().err.splitlines() == [
        "200 hosts: w0, w1, w2, w3, w4 and 195 more: connect: the host key is not in known_hosts "
        "(do it) [host-key-unknown]",
        "x (i.yml:1:1): other (do it) [host-key-unknown]",
    ]


def test_one_host_keeps_its_place_in_the_inventory() -> None:
    assert folded([unknown("w"), unknown("w")]) == [unknown("w")]


@pytest.mark.parametrize(("count", "lines"), [(3, 3), (4, 1)])
def test_another_cause_on_few_hosts_is_a_line_for_each(
    count: int, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    down = [Problem(f"w{n} (h{n})", f"h{n} is down", id="host-unreachable") for n in range(count)]
    console.problems(down)
    assert len(capsys.readouterr().err.splitlines()) == lines


@pytest.mark.parametrize(("hosts", "parallel", "together"), [(4, 20, 4), (4, 2, 2)])
def test_hosts_are_asked_at_the_same_time(hosts: int, parallel: int, together: int) -> None:
    """As many as the inventory's ``parallel``: each waits until so many are asked."""
    meeting = Barrier(together)

    class Asked:
        def host_key(self, hops: tuple[Hop, ...]) -> HostKey:
            meeting.wait(30)
            return key(hops[-1].name)

    names = [f"w{n}" for n in range(hosts)]
    servers = [Server((n,), (Hop(n, n, 22, "deploy"),), n, jump=False) for n in names]
    scan = Scan(cast(Connector, Asked()), servers, parallel)
    assert [f.state for f in scan.round()] == ["known"] * hosts
