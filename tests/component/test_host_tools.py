"""The scripts for hosts under each shell that may be /bin/sh, with the programs that hosts have.

Contract. GNU's programs are this machine's. busybox's are the applets of the Debian package
``busybox``: its find has no -printf and no -delete (findutils/find.c of busybox, where both are
options of the build), its sha256sum no --status, its date no %N, its sed no -u, its setpriv no
--reuid, and it has no getent. uutils (rust-coreutils) is two releases of Debian's
(:mod:`tests.component.uutils`): 0.0.17 has a tr for text only, and is refused; 0.0.30 answers
``date -r`` with now (github.com/uutils/coreutils, issue 8621).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from provision.check_nodes import status
from provision.errors import PreflightFailed
from provision.etcd.cluster.handle import Etcd
from provision.host import facts as host_facts
from provision.host import tools
from provision.host.facts import PREFLIGHT, HostFacts, Kind, Probe, parse, script
from provision.host.resources import Directory, File, Link, User
from provision.plans import destroy
from provision.ssh.session import whole
from tests.component import uutils
from tests.unit import builders, hosts, test_roots_paths
from tests.unit.hosts import LocalFleet

SHELLS = ("dash", "bash", "busybox")
SYSTEM = f"{os.environ['PATH']}:/usr/sbin:/sbin"
#: The tests of the unit suite that run the scripts of every kind of change, of the lock, and of
#: root's ways through folders of others.
SCRIPTED = ("predict", "lock", "change", "service_user_attacks", "proof", "destroy_releases")

#: The releases of uutils with which nothing is changed, and what they lack.
REFUSED = {"0.0.17": "tr of every byte"}
#: All that start a shell, in place of these: ``tests/matrix tools``.
EVERY = os.environ.get("ALXP_TOOLS") == "every"
_STARTS = re.compile(r'LocalFleet|LocalSession|hosts\.(do|look|shell|run)\b|"sh"|"bash"')


def every() -> list[str]:
    """The files of unit tests that start a shell."""
    folder = Path(__file__).parents[1] / "unit"
    return sorted(str(p) for p in folder.glob("test_*.py") if _STARTS.search(p.read_text()))


def found(name: str) -> str:
    """A program of this machine; a test is worth nothing without."""
    path = shutil.which(name, path=SYSTEM)
    assert path is not None, f"no {name} here: tests/lab/lab deps installs it"
    return path


def linked(folder: Path, **programs: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, target in programs.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    return folder


def with_shell(folder: Path, shell: str) -> Path:
    return linked(folder, sh=found(shell))


def of_gnu(folder: Path) -> Path:
    """This machine's own programs."""
    named = {name: found(name) for name in (*tools.LOOK, *tools.CHANGE, "hostname", "ip", "env")}
    return _with_systemctl(linked(folder, **named))


def of_busybox(folder: Path, *others: str) -> Path:
    """busybox's applets, and nothing else but ``others`` and bash."""
    busybox = found("busybox")
    applets = subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True, timeout=10
    ).stdout.split()
    made = linked(folder, **dict.fromkeys(applets, busybox))
    return _with_systemctl(linked(made, bash=found("bash"), **{o: found(o) for o in others}))


def of_uutils(folder: Path, release: str) -> Path:
    """GNU's programs, but uutils' in the place of coreutils'."""
    theirs = {path.name: str(path) for path in uutils.programs(release).iterdir()}
    return linked(of_gnu(folder), **theirs)


def _with_systemctl(folder: Path) -> Path:
    (folder / "systemctl").unlink(missing_ok=True)
    (folder / "systemctl").write_text("#!/bin/sh\n")
    (folder / "systemctl").chmod(0o755)
    return folder


def example(root: Path) -> list[str]:
    """Files of many kinds below ``root``: their paths."""
    (root / "a b").mkdir(mode=0o750)
    (root / "plain").write_bytes(b"x\n\x1b[31m'\"")
    (root / "empty").touch()
    (root / "large").write_bytes(bytes((256 << 10) + 1))
    (root / "also|plain").write_bytes(b"\x00\n")
    (root / "nobodys").write_text("y")
    os.chown(root / "nobodys", 12345, 12345)
    (root / "link").symlink_to("a b")
    (root / "to plain").symlink_to("plain")
    os.mkfifo(root / "pipe")
    return sorted(str(path) for path in [*root.iterdir(), root / "absent"])


def seen(root: Path, port: int, paths: Sequence[str], *, changes: bool = False) -> HostFacts:
    probe = Probe(
        resources=[
            User("root", "/root"),
            *(File(path, b"") for path in paths),
            File(f"{root}/plain", b"", secret=True),
            Directory(f"{root}/a b"),
            Link(f"{root}/link", "x"),
        ],
        ports=[port, 1],
        disks=[str(root), f"{root}/not/there/yet", "/dev/shm"],
        units=["etcd.service"],
        reach=[("127.0.0.1", port), ("127.0.0.1", 1)],
        resolve=["localhost"],
        kinds=PREFLIGHT | Kind.ADDRESSES,
        commands={"say": "echo out; echo err >&2"},
    )
    text = whole(script(probe, changes=changes)).encode()
    return parse(hosts.run(text, root), "infra0")


def plain(facts: HostFacts) -> HostFacts:
    """Without what another moment changes."""
    values = {k: v for k, v in facts.values.items() if k != "clock"}
    disks = {p: replace(d, available=0, used=0) for p, d in facts.disks.items()}
    return replace(facts, values=values, disks=disks, clock_offset=0.0, lacks=())


@pytest.mark.skipif(os.getuid() != 0, reason="gives files to others")
@pytest.mark.parametrize("kind", ["gnu", "busybox", *uutils.RELEASES])
@pytest.mark.parametrize("shell", SHELLS)
def test_the_facts_are_the_same(
    shell: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    paths = example(root)
    kinds: dict[str, Callable[[Path], Path]] = {
        "gnu": of_gnu,
        # With util-linux, and getent of the C library: less is no host with systemd.
        "busybox": lambda at: of_busybox(at, "setpriv", "flock", "getent"),
        **{r: functools.partial(of_uutils, release=r) for r in uutils.RELEASES},
    }
    programs = kinds[kind](tmp_path / "bin")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("PATH", str(with_shell(of_gnu(tmp_path / "gnu"), "dash")))
        expected = seen(root, port, paths)
        monkeypatch.setenv("PATH", str(with_shell(programs, shell)))
        found_by = seen(root, port, paths)
        changing = seen(root, port, paths, changes=True)
    assert plain(found_by) == plain(expected)
    assert found_by.listeners[port].pid == os.getpid()
    assert found_by.paths[f"{root}/nobodys"].owner == "12345"
    assert found_by.disks["/dev/shm"].kind == "tmpfs"
    if kind == "busybox":
        lacks = ("find -printf -delete", "readlink -m")
        assert tuple(w for w in changing.lacks if w not in tools.CHANGE) == lacks
        with pytest.raises(PreflightFailed) as refused:
            tools.require({"infra0": changing.lacks})
        assert "findutils" in refused.value.problems[0].remedy
    elif kind in REFUSED:
        assert changing.lacks == (REFUSED[kind],)
        with pytest.raises(PreflightFailed, match="hosts lack programs"):
            tools.require({"infra0": changing.lacks})
    else:
        assert changing.lacks == ()


@pytest.mark.parametrize("kind", ["busybox", *uutils.RELEASES])
def test_every_size_is_counted_the_same(kind: str, tmp_path: Path) -> None:
    """du with the options of every script: busybox's may have no -b, and neither has it and uutils
    0.0.17 a --files0-from."""
    texts = [text for _, text in test_roots_paths.scripts(tmp_path)]
    given = {tuple(words.split()) for t in texts for words in re.findall(r"\bdu((?: -\S+)+)", t)}
    assert {("-skx",), ("-sk",), ("-ck",), ("-k",)} <= given
    (tmp_path / "data/sub").mkdir(parents=True)
    for name, length in {"db": 300_000, "sub/wal": 70_000, "sub/a b": 1}.items():
        (tmp_path / "data" / name).write_bytes(os.urandom(length))
    du = [found("busybox"), "du"] if kind == "busybox" else [str(uutils.programs(kind) / "du")]

    def counted(*command: str) -> str:
        done = subprocess.run([*command, "data"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), command
        return done.stdout.splitlines()[-1].partition("\t")[0]

    for options in sorted(given):
        assert counted(*du, *options) == counted(found("du"), *options)


@pytest.mark.parametrize("shell", SHELLS)
def test_with_busybox_alone_nothing_is_known_and_nothing_is_changed(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`destroy` said "0 changed" of a host on which etcd ran."""
    monkeypatch.setenv("PATH", str(with_shell(of_busybox(tmp_path / "bin"), shell)))
    (tmp_path / "hosts").mkdir()
    inventory = builders.inventory(None, etcd=builders.etcd(builders.member(1)))
    fleet = LocalFleet(tmp_path / "hosts")
    fleet.changes = True
    with pytest.raises(PreflightFailed) as refused:
        destroy.destroy(inventory, fleet)
    problem = refused.value.problems[0]
    assert problem.id == "host-unsupported"
    assert "no getent" in problem.what
    assert "no setpriv --reuid" in problem.what or os.getuid() != 0
    assert "util-linux" in problem.remedy or os.getuid() != 0
    looking = LocalFleet(tmp_path / "hosts")
    (service,) = status.look(
        inventory, Etcd(inventory.etcd, looking), inventory.etcd.members
    ).services
    assert not service.good
    assert "no getent" in service.error


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_is_one_for_this_shell(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sh = str(with_shell(tmp_path / "bin", shell) / "sh")
    every = [("facts", host_facts._facts_script()), *test_roots_paths.scripts(tmp_path)]
    bad = []
    for name, text in every:
        done = subprocess.run([sh, "-n"], input=text.encode(), capture_output=True, timeout=10)
        if done.returncode or done.stderr:
            bad.append((name, done.stderr))
    assert bad == []


@pytest.mark.parametrize("shell", ["bash", "busybox"])  # the unit tests run under dash
def test_the_scripts_do_the_same_under_this_shell(shell: str, tmp_path: Path) -> None:
    with_shell(tmp_path / "bin", shell)
    require_same(tmp_path / "bin")


@pytest.mark.parametrize("release", [r for r in uutils.RELEASES if r not in REFUSED])
def test_the_scripts_do_the_same_with_uutils(release: str) -> None:
    require_same(uutils.programs(release))


def require_same(programs: Path) -> None:
    """With ``programs`` first on PATH, the unit tests that run scripts pass."""
    files = every() if EVERY else [f"tests/unit/test_{name}.py" for name in SCRIPTED]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=3600 if EVERY else 600,
    )
    assert done.returncode == 0, done.stdout[-3000:]
