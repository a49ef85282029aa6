"""What is read of a master's journal, and which starts are refused for it."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import journal
from provision.alluxio.worker.journal import Journal
from provision.errors import Problem
from provision.host import safely
from provision.host.facts import Probe, parse, script
from provision.inventory import journal_folder
from tests.unit import builders, hosts

NAMES = ("m0", "m1", "m2", "m3", "m4")
GROUP = "02511d47-d67c-49a3-9011-abb3109a44c1"


def field(number: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + length + content


def conf(*addresses: str) -> bytes:
    """Ratis' file of the group, as its class ``LogEntryProto`` writes it."""
    peers = b"".join(
        field(1, field(1, a.replace(":", "_").encode()) + field(2, a.encode()) + bytes([3 << 3, 0]))
        for a in addresses
    )
    return bytes([1 << 3, 2, 2 << 3, 0xAC, 0x02]) + field(4, peers)


def printed(data: bytes) -> str:
    return f"conf {base64.b64encode(data).decode()}\n"


def test_the_peers_of_the_group() -> None:
    addresses = ("m0:19200", "[fd00::1]:19200", "a" * 49 + ":1")
    found = journal.read("has /x\n" + printed(conf(*addresses)))
    assert found == Journal(True, frozenset((addresses[0], "fd00::1:19200", addresses[2])))
    assert journal.read("") == Journal()
    assert journal.read("has /x\n") == Journal(written=True)


def test_the_group_as_a_real_master_has_written_it() -> None:
    """By Alluxio 313 with Ratis 2.5.1, one master."""
    one = "CAEiLAoqChIxMC4yMTMuODUuMTRfMTkyMDASEjEwLjIxMy44NS4xNDoxOTIwMDgC"
    assert journal.read(f"conf {one}\n").peers == {"10.213.85.14:19200"}


@pytest.mark.parametrize(
    "text",
    ["conf \n", "conf ===\n", "conf\n", printed(b"\xff" * 30), printed(conf("m0:1")[:-3]), "?\n"],
)
def test_what_is_no_group_is_none(text: str) -> None:
    assert journal.read(text).peers == frozenset()


@pytest.mark.process
@pytest.mark.parametrize("old", [False, True])
def test_the_command_finds_what_is_there(tmp_path: Path, old: bool) -> None:
    """By a real shell. A master that has started and was never in a group has written nothing."""
    alluxio = replace(
        builders.alluxio(masters=(builders.master("m0"),)), state_dir=str(tmp_path / "it's")
    )
    folder = Path(journal_folder.folder(alluxio, alluxio.masters[0]), "" if old else "raft", GROUP)

    def look() -> Journal:
        command = journal.probe_commands(alluxio, alluxio.masters[0])[journal.LABEL]
        if Path(alluxio.state_dir).exists():
            hosts.given(Path(alluxio.state_dir))
        done = hosts.shell(f"{safely.FUNCTIONS}\n{command}", tmp_path)
        assert (done.code, done.stderr) == (0, "")
        return journal.read(done.stdout)

    assert look() == Journal()
    for inner in ("current", "sm"):
        (folder / inner).mkdir(parents=True)
    (folder / "current" / "raft-meta").write_text("#\n")
    (folder / "in_use.lock").write_text("1@m0")
    assert look() == Journal()
    (folder / "current" / "raft-meta.conf").write_bytes(conf("m0:19200"))
    assert look() == Journal(True, frozenset({"m0:19200"}))
    (folder / "current" / "raft-meta.conf").unlink()
    (folder / "sm" / "snapshot.1_20").mkdir()
    assert look() == Journal(written=True)


@pytest.mark.process
def test_a_long_log_does_not_hide_the_group(tmp_path: Path) -> None:
    """A probe takes 64 KB of a command's output."""
    alluxio = replace(builders.alluxio(masters=(builders.master("m0"),)), state_dir=str(tmp_path))
    master = alluxio.masters[0]
    current = Path(journal_folder.folder(alluxio, master), "raft", GROUP, "current")
    current.mkdir(parents=True)
    for number in range(800):
        (current / f"log_{number}-{number}").write_text("x")
    (current / "raft-meta.conf").write_bytes(conf("m0:19200"))
    probe = Probe(commands=journal.probe_commands(alluxio, master))
    hosts.given(tmp_path)
    facts = parse(hosts.shell(script(probe), tmp_path), "here")
    found = journal.read(facts.commands[journal.LABEL])
    assert found == Journal(True, frozenset({"m0:19200"}))


def problems(
    held: str, chosen: str | None = None, primary: str | None = None, count: int = 3
) -> list[Problem]:
    """``held``: for each master ``x`` it has a journal, ``-`` it has none, ``?`` not looked at."""
    masters = tuple(builders.master(name) for name in NAMES[:count])
    alluxio = builders.alluxio(masters=masters)
    journals = {m.name: Journal(h == "x") for m, h in zip(masters, held, strict=True) if h != "?"}
    some = [m for m in masters if chosen is None or m.name in chosen.split(",")]
    return journal.problems(alluxio, some, journals, primary)


@pytest.mark.parametrize(
    ("held", "chosen", "primary"),
    [
        ("---", None, None),  # a first start
        ("--?", "m0", None),  # one of three elects nobody
        ("xxx", None, "m0"),
        ("xxx", None, None),  # after a power cut
        ("x-x", None, "m2"),  # a disk was replaced
        ("x--", "m1", "m0"),  # growth, one at a time
        ("x--", "m0", "m0"),
        ("x--", "m0", None),
        ("xx-", None, "m0"),
    ],
)
def test_what_may_start(held: str, chosen: str | None, primary: str | None) -> None:
    assert problems(held, chosen, primary) == []


@pytest.mark.parametrize(
    ("held", "chosen", "primary", "what", "remedy"),
    [
        (
            "x--",
            None,
            "m0",
            "m1, m2 have no journal, but there is one on m0: if",
            "start-masters m1, then",
        ),
        ("x--", None, None, "m1, m2 have no journal", "start-masters m1, then"),
        (
            "x--",
            "m1",
            None,
            "m1 has no journal, but there is one on m0, and no master is the primary",
            "m0",
        ),
        (
            "x-?",
            "m1",
            "m0",
            "m1 has no journal, and it is not known whether there is one on m2",
            "reachable",
        ),
        (
            "?--",
            "m1,m2",
            None,
            "m1, m2 have no journal, and it is not known whether there is one on m0",
            "reachable",
        ),
    ],
)
def test_what_would_lose_the_journal(
    held: str, chosen: str | None, primary: str | None, what: str, remedy: str
) -> None:
    (found,) = problems(held, chosen, primary)
    assert (found.id, found.severity) == ("journal-outvoted", "error")
    assert found.what.startswith(what)
    assert remedy in found.remedy
    assert found.where == "m1 at m1"


def test_a_growth_from_three_to_five_is_one_at_a_time_too() -> None:
    """Two empty ones and one that lags behind are a majority of five."""
    assert [p.id for p in problems("xxx--", None, "m0", 5)] == ["journal-outvoted"]
    assert problems("xxx--", "m3", "m0", 5) == []


def test_a_group_with_masters_that_are_not_declared() -> None:
    masters = tuple(builders.master(name) for name in ("m0", "m1"))
    alluxio = builders.alluxio(masters=masters)
    group = Journal(True, frozenset({"m0:19200", "m1:19200", "m2:19200"}))
    (found,) = journal.problems(alluxio, masters[:1], {"m0": group, "m1": group}, "m0")
    assert (found.id, found.severity) == ("journal-group-differs", "error")
    assert found.what.startswith(
        "its journal's Raft group still has m2:19200, which alluxio.masters"
    )
    more = builders.alluxio(masters=(*masters, builders.master("m2")))
    assert journal.problems(more, masters, {"m0": group, "m1": group}, "m0") == []


def test_another_kind_of_journal_is_not_looked_at() -> None:
    master = builders.master("m0")
    properties = {"alluxio.master.journal.type": "UFS"}
    alluxio = builders.alluxio(masters=(master,), properties=properties)
    assert journal.probe_commands(alluxio, master) == {}


def test_the_folder_is_where_the_masters_jvm_is_told() -> None:
    env = {"ALLUXIO_MASTER_JAVA_OPTS": "-Dalluxio.master.journal.folder=/data/journal"}
    master = builders.master("m0")
    alluxio = builders.alluxio(masters=(master,), env=env)
    assert journal_folder.folder(alluxio, master) == "/data/journal"
    assert "walk /data/journal " in journal.probe_commands(alluxio, master)[journal.LABEL]
    other = {"alluxio.master.journal.folder": "/other"}
    assert (
        journal_folder.folder(builders.alluxio(masters=(master,), properties=other), master)
        == "/other"
    )
