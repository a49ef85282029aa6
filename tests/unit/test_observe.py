"""The facts script under real shells, and its parser on output that is broken or hostile."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.host import facts
from provision.host.facts import (
    BEGIN,
    END,
    PREFLIGHT,
    Disk,
    HostFacts,
    Kind,
    Probe,
    merged,
    parse,
    script,
)
from provision.host.resources import Directory, File, Link, Unit, User
from provision.ssh.session import Result, Unreachable, whole
from tests.unit import hosts
from tests.unit.hosts import ME

SHELLS = [("dash",), ("bash", "--posix")]
UUID = "11111111-2222-3333-4444-555555555555"

RECORDED = f"""\
Last login: yesterday
{BEGIN}
fact uid=0
fact tool=1.0.0
pending etcd.service
asked 0123456789abcdef host clock addresses listeners disks unreachable resolved
fact clock=1700000000.123456789
fact os=debian 12
fact arch=x86_64
fact hostname=etcd0
fact machine_id=2f0c4d2b5b1f4f0e9f6b7b1d2c3d4e5f
fact systemd=252
fact memory=67108864000
address 10.0.0.1
address fe80::1
user etcd:x:998:998::/var/lib/etcd:/usr/sbin/nologin
stat /etc/etcd|drwxr-xr-x|0|0|755|4096|root|root
stat /etc/etcd/etcd.conf.yml|-rw-r--r--|0|0|644|5|root|root
stat /opt/etcd/current|lrwxrwxrwx|0|0|777|6|root|root
stat /etc/empty|-rw-r--r--|0|0|644|0|root|root
stat /etc/a|b|-rw-r--r--|0|0|644|3|root|root
stat /etc/release|lrwxrwxrwx|0|0|777|20|root|root
stat /etc/nobodys|-rw-r--r--|12345|12346|644|1|UNKNOWN|UNKNOWN
stat /|drwxr-xr-x|0|0|755|4096|root|root
stat /etc|drwxr-xr-x|0|0|755|4096|root|root
stat /opt/etcd|drwxrwxrwt|998|998|1777|4096|etcd|etcd
link /opt/etcd/current
3.6|16
link /etc/release
../usr/lib/release
way /usr/lib|drwxr-xr-x|0|0|755|4096|root|root
size /etc/etcd/etcd.conf.yml|5
size /etc/empty|0
size /etc/a|b|3
data 8
hel
oabc
@@0123456789abcdef
file /etc/release
eA
==

hash /etc/etcd/pki/peer.key|{"0" * 64}  -
units
MainPID=4711
NRestarts=2
Id=etcd.service
LoadState=loaded
ActiveState=active
SubState=running
FragmentPath=/etc/systemd/system/etcd.service
UnitFileState=enabled
NeedDaemonReload=no

Id=alluxio-worker.service
LoadState=not-found
ActiveState=inactive
@@
serves 2379 etcd.service
listen 2379 4711 etcd
disk /var/lib/etcd
disk /mnt/not there
df
Filesystem     Type 1024-blocks     Used Available Capacity Mounted on
/dev/sda1      ext4    97656250 58593750  39062500      60% /var
//a b/share    cifs          10        5         5      50% /mnt
@@
lacks find -printf -delete
unreachable 10.0.0.2 2380 no answer in 3 s
resolved infra1 10.0.0.2
resolved infra2 
command none

@@0123456789abcdef
command java
openjdk version "11.0.20"
a | b
{END}
@@

@@0123456789abcdef
{END}
"""


def result(stdout: str, stderr: str = "", code: int = 0) -> Result:
    return Result(code, stdout, stderr, 0.1)


@pytest.mark.process
@pytest.mark.parametrize("shell", SHELLS, ids=lambda s: s[0])
def test_the_script_under_this_shell(shell: tuple[str, ...], tmp_path: Path) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]} here")
    (tmp_path / "a b").mkdir(mode=0o750)
    (tmp_path / "plain").write_bytes(b"x\n\x1b[31m'\"")
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "link").symlink_to("a b")
    (tmp_path / "to plain").symlink_to("plain")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "also|plain").write_bytes(b"\x00\n")
    (tmp_path / "large").write_bytes(bytes((256 << 10) + 1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        probe = Probe(
            resources=[
                User("root", "/root"),
                User("nobody-of-that-name", "/"),
                Directory(f"{tmp_path}/a b"),
                File(f"{tmp_path}/plain", b""),
                File(f"{tmp_path}/secret", b"", secret=True),
                File(f"{tmp_path}/absent", b""),
                File(f"{tmp_path}/also|plain", b""),
                File(f"{tmp_path}/large", b""),
                File(f"{tmp_path}/fifo", b""),
                File(f"{tmp_path}/to plain", b""),
                Link(f"{tmp_path}/link", "x"),
            ],
            ports=[port, 1],
            disks=[f"{tmp_path}/not/there/yet"],
            reach=[("127.0.0.1", port), ("127.0.0.1", 1)],
            resolve=["localhost", "no-such-host.invalid"],
            kinds=PREFLIGHT | Kind.ADDRESSES,
            commands={
                "say": "echo out; echo err >&2; cat",
                "fail": "exit 3",
                "end": "printf x",
                "arguments": 'echo $# "$@"',
            },
        )
        before = time.time()
        done = hosts.run(whole(script(probe)).encode(), tmp_path, sh=shell)
        seen = parse(done, "here", before, time.time())
    paths = seen.paths
    assert paths[f"{tmp_path}/a b"].kind == "dir"
    assert (paths[f"{tmp_path}/a b"].owner, paths[f"{tmp_path}/a b"].mode) == (ME, 0o750)
    assert paths[f"{tmp_path}/plain"].content == b"x\n\x1b[31m'\""
    secret = paths[f"{tmp_path}/secret"]
    assert secret.content is None
    assert secret.sha256 == "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7"
    assert paths[f"{tmp_path}/link"].target == "a b"
    assert f"{tmp_path}/absent" not in paths
    assert paths[f"{tmp_path}/also|plain"].content == b"\x00\n"
    assert (paths[f"{tmp_path}/large"].size, paths[f"{tmp_path}/large"].content) == (262145, None)
    target = paths[f"{tmp_path}/to plain"]
    assert (target.kind, target.target, target.content) == ("link", "plain", b"x\n\x1b[31m'\"")
    assert (paths[f"{tmp_path}/fifo"].kind, paths[f"{tmp_path}/fifo"].content) == ("fifo", None)
    assert seen.addresses
    assert set(seen.users) == {"root"}
    assert seen.clock_offset == 0.0
    assert seen.values["uid"] == str(os.getuid())
    assert seen.values["hostname"] == socket.gethostname()
    assert int(seen.values["memory"]) > 1 << 20
    assert list(seen.listeners) == [port]
    assert seen.disks[f"{tmp_path}/not/there/yet"].total > 0
    assert seen.unreachable == {}
    assert seen.resolved["localhost"] in ("127.0.0.1", "::1")
    assert seen.resolved["no-such-host.invalid"] == ""
    assert seen.commands == {"say": "out\nerr\n", "fail": "", "end": "x\n", "arguments": "0\n"}


@pytest.mark.process
def test_the_script_is_a_shell_script_and_changes_nothing(tmp_path: Path) -> None:
    text = script(
        Probe(resources=[Unit("a b; touch x"), File("/x'; touch y", b"")], disks=["/$(id)"])
    )
    assert subprocess.run(["sh", "-n"], input=text.encode(), timeout=10).returncode == 0
    hosts.run(whole(text).encode(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_recorded_output() -> None:
    seen = parse(result(RECORDED), "etcd0", 1700000000.0, 1700000000.5)
    assert seen.clock_offset == 0.0
    assert seen.paths["/etc/etcd/etcd.conf.yml"].content == b"hel\no"
    assert seen.paths["/etc/empty"].content == b""
    assert seen.paths["/etc/a|b"].content == b"abc"
    assert seen.paths["/etc/release"].content == b"x"
    assert seen.paths["/opt/etcd/current"].target == "3.6|16"
    assert seen.paths["/etc/nobodys"].owner == "12345"
    assert seen.paths["/etc/nobodys"].group == "12346"
    assert {path: way.is_roots for path, way in seen.ways.items()} == {
        "/": True,
        "/etc": True,
        "/opt/etcd": False,
        "/usr/lib": True,
    }
    assert "/etc" not in seen.paths
    unit = seen.unit("etcd.service")
    assert (unit.active, unit.pid, unit.restarts, unit.needs_reload) == ("active", 4711, 2, False)
    assert seen.unit("alluxio-worker.service").load == "not-found"
    assert seen.unit("never.asked").load == "not-found"
    assert seen.listeners[2379].command == "etcd"
    assert seen.listeners[2379].unit == "etcd.service"
    assert seen.lacks == ("find -printf -delete",)
    assert seen.disks["/var/lib/etcd"] == Disk(
        "/var/lib/etcd", "/dev/sda1", "ext4", 100000000000, 40000000000, "/var", 60000000000
    )
    assert seen.disks["/mnt/not there"].device == "//a b/share"
    assert seen.unreachable == {("10.0.0.2", 2380): "no answer in 3 s"}
    assert seen.resolved == {"infra1": "10.0.0.2", "infra2": ""}
    assert seen.pending_restarts == {"etcd.service"}
    java = f'openjdk version "11.0.20"\na | b\n{END}\n@@\n'
    assert seen.commands == {"none": "", "java": java}


@pytest.mark.parametrize(
    ("sent", "received", "offset"),
    [(1699999999, 1700000001, 0.0), (1700000005, 1700000006, -5), (1699999990, 1699999991, 9)],
)
def test_a_clock_is_off_only_by_what_the_round_trip_proves(
    sent: float, received: float, offset: float
) -> None:
    seen = parse(result(RECORDED), "etcd0", sent, received)
    assert seen.clock_offset == pytest.approx(offset, abs=0.2)


def test_output_cut_anywhere_is_refused() -> None:
    whole_length = RECORDED.rindex(END) + len(END)
    for end in range(0, whole_length, 7):
        with pytest.raises(Unreachable):
            parse(result(RECORDED[:end]), "etcd0")


@pytest.mark.parametrize(
    ("stderr", "says", "remedy"),
    [
        ("sh: 1: \x1b[31mboo\x07\n", "failed: sh: 1: \ufffd[31mboo\ufffd", "-v"),
        ("", "no output", "-v"),
    ],
)
def test_no_facts(stderr: str, says: str, remedy: str) -> None:
    with pytest.raises(Unreachable) as caught:
        parse(result("", stderr, 1), "etcd0")
    (problem,) = caught.value.problems
    assert says in problem.what
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    "line",
    [
        "\x1b[2J",
        "rm -rf /",
        "fact clock=nan",
        "fact clock=inf",
        "fact clock=1e999",
        "fact clock=",
        "stat /etc|d|root",
        "stat /etc|unheard of|0|0|755|1|root|root",
        "stat /etc|drwxr-xr-x|0|0|999|1|root|root",
        "stat /etc|drwxr-xr-x|root|0|755|1|root|root",
        "stat /etc||0|0|755|1|root|root",
        "way /etc|drwxr-xr-x|0|0|755",
        "data not a number",
        "data -1",
        "data 5\nhello",  # more than the sizes say
        "file /etc/x\nnot base64\n",
        "file /etc/x\naGVsbG8\n",
        "file /etc/x\naGVs",  # no end
        "units\nId=etcd.service",
        "units\nExecStart=x\n@@",
        "units\nId=x\nMainPID=x\n@@",
        "disk /",
        "df\nFilesystem\n/dev/sda1 ext4 1 1 1 1% /\n@@",
        "disk /\ndf\nFilesystem\n/dev/sda1 ext4 much 1 1 1% /\n@@",
        "command endless\nx",
        "link /x",
        "size /etc/more|1",
        "size /etc/etcd/etcd.conf.yml|-1",
        "size nothing",
        "hash /f|",
        "listen http 1 x",
        "listen 1",
        "serves http etcd.service",
        "lacks stat",
        "unasked systemd",
        "unreachable x",
        "asked",
        "listen " + "9" * 5000 + " 1 x",
    ],
)
def test_hostile_lines(line: str) -> None:
    with pytest.raises(Unreachable) as caught:
        parse(result(f"{RECORDED.removesuffix(f'{END}{chr(10)}')}{line}\n{END}\n"), "etcd0")
    (problem,) = caught.value.problems
    assert str(problem).isprintable()
    assert len(str(problem)) < 500


def test_nothing_of_a_host_steers_the_terminal() -> None:
    hostile = (
        RECORDED.replace("fact arch=x86_64", "fact arch=x86\x1b]0;owned\x07")
        .replace("/dev/sda1", "/dev/\x9b31m")
        .replace("4711 etcd", "4711 \u202ednilb")
    )
    seen = parse(result(hostile), "etcd0")
    assert seen.values["arch"].isprintable()
    assert seen.disks["/var/lib/etcd"].device.isprintable()
    assert seen.listeners[2379].command.isprintable()


def _parsed(text: str) -> HostFacts | None:
    try:
        return parse(result(text), "etcd0", 1.0, 2.0)
    except Unreachable:
        return None


LINES = RECORDED.splitlines()


@given(st.data())
def test_no_mutation_gives_another_error(data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        n = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "double", "cut", "insert", "replace"])):
            case "drop":
                lines[n] = ""
            case "double":
                lines.insert(n, lines[n])
            case "cut":
                lines[n] = lines[n][: data.draw(st.integers(0, len(lines[n])))]
            case "insert":
                at = data.draw(st.integers(0, len(lines[n])))
                lines[n] = lines[n][:at] + data.draw(st.text(max_size=5)) + lines[n][at:]
            case _:
                lines[n] = data.draw(st.text(max_size=40))
    _parsed("\n".join(lines))


@pytest.mark.parametrize(
    ("sent", "received", "offset"),
    [
        (1700000000.9, 1700000001.2, 0.0),
        (1700000001.5, 1700000002.0, -0.5),
        (1699999990.0, 1699999991.0, 9.0),
    ],
)
def test_a_clock_with_whole_seconds_proves_less(
    sent: float, received: float, offset: float
) -> None:
    """busybox's date: the time may be anything in that second."""
    text = RECORDED.replace("1700000000.123456789", "1700000000")
    assert parse(result(text), "etcd0", sent, received).clock_offset == pytest.approx(offset)


@given(st.text())
def test_no_text_gives_another_error(body: str) -> None:
    _parsed(f"{BEGIN}\n{body}\n{END}\n")


def test_one_host_with_two_roles_is_asked_once() -> None:
    a = Probe(resources=[File("/a", b"")], ports=[1], disks=["/"], commands={"x": "true"})
    b = Probe(resources=[File("/b", b"")], ports=[1, 2], disks=["/"], units=["u"])
    both = merged([a, b])
    assert [r.path for r in both.resources if isinstance(r, File)] == ["/a", "/b"]
    assert (list(both.ports or ()), list(both.disks or ()), list(both.units)) == (
        [1, 2],
        ["/"],
        ["u"],
    )


def test_a_script_has_the_functions_that_it_calls_and_no_others() -> None:
    every = {name for name, _ in facts._parts() if name}
    assert {"paths", "reader", "by", "listeners", "told", "climb", "host", "none"} <= every
    assert re.findall(r"^(\w+)\(\) ", facts._facts_script(), re.MULTILINE) == [
        name for name, _ in facts._parts() if name
    ]
    status = script(Probe(resources=[File("/x", None)], units=["a.service"], disks=["/"]))
    has = set(re.findall(r"^(\w+)\(\) ", status, re.MULTILINE))
    assert {"paths", "reader", "by", "units", "disks", "climb", "tries"} <= has
    assert not has & {"listeners", "host", "clock", "reach", "addresses", "lookup", "users"}
    assert len(status) < len(facts._facts_script()) / 2
    assert "#!" not in status
    assert "needs base64" in status


def test_a_host_is_asked_for_no_more_than_the_probe_names() -> None:
    text = facts.calls(Probe(resources=[File("/x", None)], units=["a.service"]), "mark")
    assert [line.split()[0] for line in text.splitlines() if not line.startswith("/x")] == [
        *("echo", "mark=mark", "wanted=/x", "paths", "units", "echo")
    ]


UNKNOWN: list[tuple[str, Callable[[HostFacts], object]]] = [
    ("listeners", lambda f: f.listeners.get(1)),
    ("disks", lambda f: "/" in f.disks),
    ("addresses", lambda f: bool(f.addresses)),
    ("unreachable", lambda f: list(f.unreachable.items())),
    ("resolved", lambda f: f.resolved["infra1"]),
    ("memory", lambda f: f.values.get("memory", "")),
    ("arch", lambda f: f.values["arch"]),
    ("systemd", lambda f: "systemd" in f.values),
    ("the clock", lambda f: -f.clock_offset),
    ("the clock", lambda f: abs(f.clock_offset)),
    ("the clock", lambda f: sorted([f.clock_offset, 1.0])),
    ("the clock", lambda f: f.clock_offset > 1),
]


@pytest.mark.parametrize(("name", "use"), UNKNOWN)
def test_who_uses_a_fact_that_was_not_asked_is_told(
    name: str, use: Callable[[HostFacts], object]
) -> None:
    """It is a defect, and no empty answer."""
    asked = re.search("asked .*\n", RECORDED)
    assert asked is not None
    text = RECORDED.replace(asked[0], "asked 0123456789abcdef\n")
    seen = parse(result(text), "etcd0")
    assert use(parse(result(RECORDED), "etcd0")) is not None or name == "listeners"
    with pytest.raises(facts.NotAsked, match=name):
        use(seen)
    with pytest.raises(facts.NotAsked, match=name):
        use(facts.seen_by(Probe(), parse(result(RECORDED), "etcd0")))
    assert seen.values["uid"] == "0"


def test_facts_that_were_asked_and_are_none_are_known() -> None:
    asked = Probe(ports=[], reach=[], disks=[], resolve=[])
    seen = facts.seen_by(asked, hosts.facts(disks={}))
    assert not seen.listeners
    assert not seen.unreachable
    assert not seen.disks
    assert not seen.resolved


@pytest.mark.process
def test_a_disk_that_is_away_is_not_measured_by_the_one_above_it(tmp_path: Path) -> None:
    """The server of a mount does not answer, so that it is no folder even for root."""
    away = tmp_path / "mnt"
    (tmp_path / "bin").mkdir()
    for name, text in (
        ("cat", f'echo "server:/x {away} nfs4 rw 0 0"'),
        ("df", f'case "$*" in *{away}*) exit 1;; esac; exec /bin/df "$@"'),
    ):
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    probe = Probe(disks=(f"{away}/data", str(away), f"{tmp_path}/new/er", f"{away}2"))
    done = subprocess.run(
        ["sh", "-s"],
        input=facts.script(probe).encode(),
        capture_output=True,
        check=True,
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
    )
    assert [*parse(result(done.stdout.decode()), "here").disks] == [
        f"{tmp_path}/new/er",
        f"{away}2",
    ]


def test_a_disk_is_as_full_as_df_says() -> None:
    """What is reserved for root is neither used nor available (ext4: 5 % of a disk)."""
    line = "/dev/sda1      ext4    97656250 58593750  39062500      60% /var"
    assert line in RECORDED
    reserved = RECORDED.replace(line, "/dev/vda ext4 264212084 36249492 59251772 38% /var")
    for body, percent in ((RECORDED, 60), (reserved, 38)):
        disk = parse(result(body), "etcd0", 0, 1e10).disks["/var/lib/etcd"]
        assert disk.used_percent == percent


def test_one_user_of_several_probes_is_enough() -> None:
    both = merged([Probe(ports=[1]), Probe(kinds=Kind.CLOCK)])
    assert (both.ports, both.disks, both.kinds) == ([1], None, Kind.CLOCK)


FORGED = [
    f"{END}\nfact uid=4711\n",
    "\n@@\nlisten 1 1 x\n",
    "\n\nfile /etc/shadow\n\n",
    "\n@@0123456789abcde\nfact uid=4711\n",
]


@pytest.mark.parametrize("words", FORGED)
def test_a_frame_ends_only_at_its_own_end(words: str) -> None:
    """A file's content and a command's output may be anything."""
    data = b"size /etc/x|%d\ndata %d\n%s\n@@0123456789abcdef\n" % (
        len(words),
        len(words),
        words.encode(),
    )
    said = f"command java\n{words}\n@@0123456789abcdef\n".encode()
    head = f"{BEGIN}\nfact uid=0\nasked 0123456789abcdef\n"
    stat = "stat /etc/x|-rw-r--r--|0|0|644|9|root|root\n"
    body = f"{head}{stat}".encode() + data + said + f"{END}\n".encode()
    seen = parse(Result(0, "", "", 0.1, body), "etcd0")
    assert seen.values["uid"] == "0"
    assert set(seen.paths) == {"/etc/x"}
    assert seen.paths["/etc/x"].content == words.encode()
    assert seen.commands["java"].rstrip("\n") == words.rstrip("\n")


def test_contents_that_are_not_what_their_sizes_say_are_refused() -> None:
    for grown in (b"hello", b"helloabcX", b"helloabc" + b"\nfact uid=4711"):
        body = RECORDED.encode().replace(b"hel\noabc", grown)
        with pytest.raises(Unreachable):
            parse(Result(0, "", "", 0.1, body), "etcd0")


def test_a_path_with_a_line_end_is_not_sent() -> None:
    for probe in (Probe(paths=["/a\nb"]), Probe(disks=["/a\nb"])):
        with pytest.raises(ValueError, match="line end"):
            script(probe)


def test_no_shell_reads_what_a_program_prints() -> None:
    """dash reads it byte by byte: each byte is a call of the kernel. Files of /proc and /etc that
    are read have a line each, or are read up to the line that is wanted; a batch's mark is one."""
    text = facts._facts_script()
    assert "<<" not in text
    assert not re.search(r"[^|]\|\s*(\{\s*)?(while|read)\b", text)
    # bash reads the connections' answers: a line each.
    reads = [x for x in re.findall(r"\bread -r.*", text) if "answers[n]" not in x]
    loops = [x for x in reads if x.endswith("; do")]
    ends = re.findall(r"\bdone <.*", text)
    assert len(loops) == len(ends) == 2
    for one in (*ends, *(x for x in reads if x not in loops)):
        assert re.search(r"</(proc|etc)/|<\$noted|<\"\$STATE/batch.lock\"", one), one
