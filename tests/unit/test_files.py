"""Files that an inventory, or an operator, names: devices, pipes and folders end in an error, soon.
And what this tool writes, with a umask that leaves everything to everybody."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision import artifacts, bounds, files
from provision.alluxio.membership import removed
from provision.ansible import source as ansible
from provision.engine import audit
from provision.errors import InventoryError, PreflightFailed, UsageError
from provision.etcd.api.values import KeyValue
from provision.etcd.pki import keyfiles, own_ca
from provision.files import make_folder, read_bytes, read_text, require_regular
from provision.inventory import example, loader
from provision.inventory.model import Secret, Source
from provision.plans.etcd.data import backup_etcd
from provision.ssh.known_hosts import KnownHosts
from provision.ssh.user_config import UserConfig

ZERO = Path("/dev/zero")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe without a writer is waited for a moment only."""
    wait_for(1.0, monkeypatch)


def wait_for(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long every reader waits: the defaults are bound at the import."""
    wait = read_bytes.__kwdefaults__
    assert wait is not None
    monkeypatch.setitem(wait, "seconds", seconds)


class TestRead:
    def test_a_file_up_to_its_limit(self, tmp_path: Path) -> None:
        file = tmp_path / "f"
        file.write_bytes(b"x" * 1000)
        assert read_bytes(file, 1000) == b"x" * 1000
        with pytest.raises(OSError, match="has more than 999 B"):
            read_bytes(file, 999)
        assert len(read_bytes(file, 10, cut=True)) == 11

    def test_a_device_without_an_end(self) -> None:
        with pytest.raises(OSError, match=r"has more than 1\.0 MB"):
            read_bytes(ZERO, 1_000_000)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(IsADirectoryError):
            read_bytes(tmp_path, 10)
        with pytest.raises(IsADirectoryError):
            require_regular(tmp_path, 10)

    def test_a_pipe_with_a_late_writer(self, tmp_path: Path) -> None:
        pipe = tmp_path / "p"
        os.mkfifo(pipe)
        writer = threading.Timer(0.05, lambda: pipe.write_bytes(b"hunter2\n"))
        writer.start()
        assert read_text(pipe, 100) == "hunter2\n"
        writer.join()

    def test_a_pipe_without_a_writer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pipe = tmp_path / "p"
        os.mkfifo(pipe)
        wait_for(0.01, monkeypatch)
        with pytest.raises(TimeoutError, match=r"gives nothing in 0\.01 s"):
            read_bytes(pipe, 100)

    @pytest.mark.process
    def test_what_a_shell_substitutes(self) -> None:
        code = (
            "import sys; from pathlib import Path; from provision.files import read_text; "
            "print(read_text(Path(sys.argv[1]), 100))"
        )
        line = f'exec {sys.executable} -c "$0" <(printf word)'
        run = subprocess.run(["bash", "-c", line, code], capture_output=True, text=True)
        assert run.stdout == "word\n", run.stderr

    def test_no_regular_file(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="is no regular file"):
            require_regular(ZERO, 10)
        (tmp_path / "f").write_bytes(b"12345")
        require_regular(tmp_path / "f", 5)
        with pytest.raises(OSError, match="has more than 4 B"):
            require_regular(tmp_path / "f", 4)


def trusted(path: Path) -> object:
    """The cluster's CA, when its certificate is ``path``."""
    folder = path.parent / "pki" / "c"
    folder.mkdir(parents=True)
    (folder / "ca.crt").symlink_to(path)
    return own_ca.trusted(path.parent / "pki", "c")


#: What reads a file that someone names, and the error that it ends with.
READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "a secret": (lambda path: Secret(file=path).reveal(), OSError),
    "a file of hashes": (
        lambda path: artifacts.fetch(
            Source(path=path.with_name("x.tar.gz"), sha256=f"file:{path}"), path.parent
        ),
        PreflightFailed,
    ),
    "a tarball": (
        lambda path: artifacts.fetch(Source(path=path, sha256="0" * 64), path.parent),
        PreflightFailed,
    ),
    "an inventory": (loader.load, InventoryError),
    "an Ansible inventory": (lambda path: ansible.read(path, ansible.Findings()), InventoryError),
    "a snapshot": (backup_etcd.check, PreflightFailed),
    "a saved registration": (removed.read, UsageError),
    "known_hosts": (lambda path: KnownHosts([path]), OSError),
    "an SSH configuration": (lambda path: UserConfig([path]), OSError),
    "a CA's certificate": (trusted, UsageError),
}


@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
@pytest.mark.parametrize("reader", READERS)
def test_whatever_a_file_is_its_reader_ends(
    reader: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "named"
    if kind == "device":
        path.symlink_to(ZERO)
    elif kind == "pipe":
        os.mkfifo(path)
        wait_for(0.01, monkeypatch)
    else:
        path.mkdir()
    read, error = READERS[reader]
    started = time.monotonic()
    with pytest.raises(error):
        read(path)
    assert time.monotonic() - started < 30


@pytest.fixture
def open_to_all() -> Iterator[None]:
    umask = os.umask(0)
    try:
        yield
    finally:
        os.umask(umask)


def modes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): f"{stat.S_IMODE(p.stat().st_mode):o}"
        for p in sorted(folder.rglob("*"))
    }


@pytest.mark.usefixtures("open_to_all")
class TestUmask:
    def test_the_folder_of_the_ca_and_those_above_it(self, tmp_path: Path) -> None:
        own_ca.ensure_ca(tmp_path / "pki", "c")
        found = modes(tmp_path)
        assert found == {"pki": "700", "pki/c": "700", "pki/c/ca.key": "600", "pki/c/ca.crt": "644"}

    def test_backups(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "deep" / "backups")
        backup_etcd.write_digest(tmp_path / "deep" / "backups" / "b", "0")
        assert modes(tmp_path) == {
            "deep": "700",
            "deep/backups": "700",
            "deep/backups/b.sha256": "600",
        }

    def test_the_state(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        audit.note(audit.author("test", "c"), "w", ["x"], ok=True)
        key = KeyValue(b"/DHT/c/AUTHORIZED/w", b"{}", 0, 1)
        removed.keep(removed.new_file("c", "w", key.key), "c", "w", key, "test")
        assert set(modes(tmp_path).values()) == {"700", "600"}
        assert len(modes(tmp_path)) == 5

    def test_what_others_may_read_they_may_not_write(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "out", private=False)
        files.write_whole(tmp_path / "out" / "f", "x")
        files.write_whole(tmp_path / "out" / "secret", "x", private=True)
        assert modes(tmp_path) == {"out": "775", "out/f": "664", "out/secret": "600"}

    def test_a_new_inventory(self, tmp_path: Path) -> None:
        example.write_example(tmp_path / "i.yml")
        assert modes(tmp_path) == {"i.yml": "664"}
        with pytest.raises(UsageError, match="no inventory was written"):
            example.write_example(tmp_path / "i.yml")

    def test_a_folder_that_is_there_stays_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir(mode=0o755)
        make_folder(tmp_path / "there" / "new")
        assert modes(tmp_path) == {"there": "755", "there/new": "700"}
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="Not a directory"):
            make_folder(tmp_path / "file" / "new")


def test_a_umask_that_leaves_nothing(tmp_path: Path) -> None:
    umask = os.umask(0o777)
    try:
        make_folder(tmp_path / "a" / "b")
    finally:
        os.umask(umask)
    assert modes(tmp_path) == {"a": "700", "a/b": "700"}


def test_private_keys_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "PEM", 100)
    key = tmp_path / "k"
    key.write_bytes(b"x" * 101)
    key.chmod(0o600)
    with pytest.raises(UsageError, match="has more than 100 B"):
        keyfiles.own_pair(key)
