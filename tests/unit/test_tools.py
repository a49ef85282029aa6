"""A program that a host lacks is named; it never makes a fact look like none."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.errors import PreflightFailed
from provision.host import facts as host_facts
from provision.host import gather, tools
from provision.host.facts import HostFacts, Probe, parse, script
from provision.host.resources import File
from provision.inventory.resolved import Machine
from provision.plans import destroy
from provision.ssh.session import Unreachable, whole
from tests.unit import builders, hosts, test_roots_paths
from tests.unit.hosts import LocalFleet
from tests.unit.shell_reader import commands

TEMPLATES = Path(__file__).parents[2] / "templates"
#: What the shell does itself; x is the change of an example.
SHELL = frozenset(
    {
        *("", ".", ":", "[", "break", "cd", "command", "continue", "echo", "eval", "exec"),
        *("exit", "export", "false", "kill", "printf", "pwd", "read", "return", "set"),
        *("shift", "test", "trap", "true", "umask", "unset", "wait", "x"),
    }
)
#: Asked for where they are needed, or with another way beside them.
ELSEWHERE = {
    "apt-get": "only for a package; the script says that there is none",
    "dnf": "only for a package; the script says that there is none",
    "getconf": "without it, the C library is not known",
    "hostname": "ip is asked in its place; without addresses, none is judged",
    "ip": "beside hostname",
    "java": "the preflight says that there is no Java",
    "openssl": "only where the host makes its key: its own preflight",
    "restorecon": "only where SELinux is on",
    "ss": "beside the tables below /proc/net",
    "systemd-analyze": "without it, the schedule is not known",
    "uname": "before Linux 6.1; the processor is unknown then, and refused",
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of PATH, with every program that the scripts need."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in {*tools.LOOK, *tools.CHANGE, "sh", "ip", "hostname"}:
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if found is not None:
            (folder / name).symlink_to(found)
        else:
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
    (folder / "systemctl").unlink()
    (folder / "systemctl").write_text("#!/bin/sh\n")
    (folder / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def asked(tmp_path: Path, probe: Probe, *, changes: bool = True) -> HostFacts:
    return parse(hosts.run(whole(script(probe, changes=changes)).encode(), tmp_path), "infra0")


@pytest.mark.process
def test_a_host_with_everything_lacks_nothing(path: Path, tmp_path: Path) -> None:
    assert asked(tmp_path, Probe()).lacks == ()
    assert path.is_dir()


@pytest.mark.process
@pytest.mark.parametrize("missing", sorted(tools.LOOK))
def test_without_what_a_look_needs_nothing_is_known(
    missing: str, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "unit").write_text("[Unit]")
    (path / missing).unlink()
    probe = Probe(
        resources=[File(f"{tmp_path}/unit", b"")],
        units=["etcd.service"],
        disks=["/"],
        ports=[1],
    )
    for changes in (True, False):
        with pytest.raises(Unreachable) as caught:
            asked(tmp_path, probe, changes=changes)
        first = caught.value.problems[0]
        assert first.id == "host-unsupported"
        assert re.search(rf"\bno {missing}\b", first.what), first.what
        assert tools.LOOK[missing] in first.remedy


@pytest.mark.process
@pytest.mark.parametrize("missing", sorted(tools.CHANGE))
def test_what_only_changes_need_is_asked_by_them_alone(
    missing: str, path: Path, tmp_path: Path
) -> None:
    (path / missing).unlink()
    assert asked(tmp_path, Probe(), changes=False).lacks == ()
    lacks = asked(tmp_path, Probe()).lacks
    assert lacks[0] == missing
    with pytest.raises(PreflightFailed) as refused:
        tools.require({"infra0": lacks})
    (problem,) = refused.value.problems
    assert (problem.where, refused.value.id) == ("infra0", "host-unsupported")
    assert re.search(rf"\bno {missing}\b", problem.what), problem.what
    assert tools.CHANGE[missing] in problem.remedy


@pytest.mark.process
@pytest.mark.parametrize(
    ("program", "body", "what"),
    [
        ("stat", "exit 1", "stat -c"),
        ("df", "exit 1", "df -T"),
        ("setpriv", "exit 1", "setpriv --reuid"),
        ("timeout", "exit 1", "timeout -k"),
        ("find", "exit 1", "find -printf -delete"),
        ("readlink", 'case $1 in -m) exit 1;; *) exec /bin/readlink "$@";; esac', "readlink -m"),
    ],
)
def test_a_program_that_cannot_do_what_is_needed(
    program: str, body: str, what: str, path: Path, tmp_path: Path
) -> None:
    if os.getuid() != 0 and program == "setpriv":
        pytest.skip("only root becomes another user")
    (path / program).unlink()
    (path / program).write_text(f"#!/bin/sh\n{body}\n")
    (path / program).chmod(0o755)
    with pytest.raises(PreflightFailed) as refused:  # Unreachable is one, too
        tools.require({"infra0": asked(tmp_path, Probe(disks=["/"])).lacks})
    assert f"no {what}" in refused.value.problems[0].what


@pytest.mark.process
def test_systemd_that_does_not_answer_is_no_host_without_units(path: Path, tmp_path: Path) -> None:
    (path / "systemctl").write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
    text = script(Probe(units=["etcd.service"])).replace("/run/systemd/system", str(tmp_path))
    with pytest.raises(Unreachable) as caught:
        parse(hosts.run(whole(text).encode(), tmp_path), "infra0")
    (problem,) = caught.value.problems
    assert problem.what == ("systemd does not say which services run: Failed to connect to bus")


@pytest.mark.process
@pytest.mark.parametrize(("said", "known"), [(["a"], False), (["a", "b"], True)])
def test_systemd_that_ends_with_an_error(
    said: list[str], known: bool, path: Path, tmp_path: Path
) -> None:
    """Releases of systemd did so after a complete answer ("Failed to parse bus message")."""
    answer = "\\n\\n".join(f"Id={name}.service\\nLoadState=loaded" for name in said)
    (path / "systemctl").write_text(f"#!/bin/sh\nprintf '{answer}\\n'\nexit 1\n")
    text = script(Probe(units=["a.service", "b.service"]))
    text = text.replace("/run/systemd/system", str(tmp_path))
    result = hosts.run(whole(text).encode(), tmp_path)
    if known:
        assert parse(result, "infra0").unit("b.service").load == "loaded"
    else:
        with pytest.raises(Unreachable):
            parse(result, "infra0")


@pytest.mark.process
def test_destroy_and_looks_with_a_host_that_lacks_a_program(path: Path, tmp_path: Path) -> None:
    """`destroy` would say that there is nothing."""
    inventory = builders.inventory(None, etcd=builders.etcd(builders.member(1)))
    folder = tmp_path / "hosts"
    folder.mkdir()
    (path / "flock").unlink()
    fleet = LocalFleet(folder)
    fleet.changes = True
    with pytest.raises(PreflightFailed) as refused:
        destroy.destroy(inventory, fleet)
    assert "no flock" in refused.value.problems[0].what
    machine = Machine("a")
    facts, problems = gather.gather_facts(LocalFleet(folder), {machine: Probe()})
    assert (list(facts), problems) == ([machine], [])
    (path / "stat").unlink()
    facts, problems = gather.gather_facts(LocalFleet(folder), {machine: Probe()})
    assert not facts
    assert "no stat" in problems[0].what


def test_the_facts_script_names_what_it_needs() -> None:
    text = host_facts._facts_script()
    (needed,) = re.findall(r"^needs (.*)$", text, re.M)
    assert set(needed.split()) == set(tools.LOOK)


def every_command(folder: Path) -> Iterator[tuple[str, str]]:
    facts = host_facts._facts_script()
    functions = set(re.findall(r"^(\w+)\(\) ", facts, re.M)) | test_roots_paths.FUNCTIONS
    for name, text in [("facts.sh", facts), *test_roots_paths.scripts(folder)]:
        for command in commands(text, ()):
            words = list(command.words)
            while words and words[0] in ("timeout", "exec", "command"):
                words = words[3:] if words[1:2] in (["-k"], ["-v"]) else words[1:]
                if words and words[0].isdecimal():
                    words = words[1:]
            if not words or "/" in words[0] or words[0] in functions:
                continue
            if re.fullmatch(r"[a-z][a-z0-9-]*", words[0]):
                yield words[0], name


@pytest.mark.long
def test_every_program_of_a_script_is_asked_for(tmp_path: Path) -> None:
    known = SHELL | set(tools.LOOK) | set(tools.CHANGE) | set(ELSEWHERE)
    found = set(every_command(tmp_path))
    assert sorted((c, n) for c, n in found if c not in known) == []
    assert {"stat", "setpriv", "flock", "tar", "base64"} <= {c for c, _ in found}


def test_nothing_is_asked_for_that_no_script_uses(tmp_path: Path) -> None:
    """A host must not be refused for the lack of it."""
    texts = [host_facts._facts_script(), *(text for _, text in test_roots_paths.scripts(tmp_path))]
    texts += [path.read_text() for path in TEMPLATES.glob("*.j2")]
    words = set(re.findall(r"[\w.-]+", "\n".join(texts)))
    assert {*tools.LOOK, *tools.CHANGE} - words == {"gzip"}  # tar -z starts it


@pytest.mark.process
def test_a_listener_that_ends_between_the_two_looks_is_none(path: Path, tmp_path: Path) -> None:
    """etcd that crashes again and again was "unknown (pid 0)"."""
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        seen = asked(tmp_path, Probe(ports=[port]))
        assert seen.listeners[port].pid == process.pid
        cgroup = Path(f"/proc/{process.pid}/cgroup").read_text().rsplit("/", 1)[-1].strip()
        expected = cgroup if cgroup.endswith(".service") else ""
        assert seen.listeners[port].unit == expected
        (path / "ls").unlink()
        (path / "ls").write_text(
            f"#!/bin/sh\nkill -9 {process.pid} 2>/dev/null\nwhile [ -e /proc/{process.pid}/fd/0 ]; "
            'do :; done\nexec /bin/ls "$@"\n'
        )
        (path / "ls").chmod(0o755)
        assert asked(tmp_path, Probe(ports=[port])).listeners == {}


@pytest.mark.process
def test_a_listener_whose_process_cannot_be_seen_stays_one(path: Path, tmp_path: Path) -> None:
    (path / "ls").unlink()
    (path / "ls").write_text("#!/bin/sh\n")
    (path / "ls").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = asked(tmp_path, Probe(ports=[port])).listeners[port]
    assert (found.pid, found.command) == (0, "unknown")
