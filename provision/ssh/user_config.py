"""The operator's ssh_config(5) files: which there are, and who reads them.

ssh itself reads them (:mod:`provision.ssh.asked`), where it is installed: a second reader would
know less, and take another host for the one that is meant. Without ssh, it is
:mod:`provision.ssh.reader`.
"""

from __future__ import annotations

import getpass
import glob
import os
import pwd
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from provision import bounds, terminal
from provision.files import read_text
from provision.ssh.asked import SYSTEM, Ssh, home_of_ssh, is_openssh
from provision.ssh.options import Options
from provision.ssh.reader import MAX_DEPTH, Reader, split
from provision.text import printable

#: Keywords that change neither which host is reached nor who logs in with which key. Files with
#: nothing else, such as those that distributions bring, are no reason to start ssh for each host.
_HARMLESS = re.compile(
    r"(host|match|sendenv|setenv|hashknownhosts|gssapi\w+|forwardx11\w*|forwardagent|visualhostkey|"
    r"loglevel|stricthostkeychecking|serveralive\w+|tcpkeepalive|control(master|path|persist)|"
    r"addkeystoagent|compression|ciphers|macs|kexalgorithms|hostkeyalgorithms|rekeylimit|ipqos|"
    r"casignaturealgorithms|pubkeyaccepted\w+|hostbased\w+|requiredrsasize|connecttimeout|"
    r"connectionattempts|batchmode|checkhostip|updatehostkeys|verifyhostkeydns|requesttty|"
    r"passwordauthentication|kbdinteractive\w+|preferredauthentications|numberofpasswordprompts)"
)


class UserConfig:
    """The operator's ssh_config(5) files. Thread-safe; each host is looked up once.

    ``paths`` are the files; None for those that ssh reads. ``say`` gets the warnings, each once.
    """

    def __init__(
        self,
        paths: Sequence[Path] | None = None,
        *,
        say: Callable[[str], None] | None = None,
    ) -> None:
        user = Path("~/.ssh/config").expanduser()
        files = [user, SYSTEM] if paths is None else list(paths)
        self._say = say or _warn
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str | None, int | None, str | None], Future[Options]] = {}
        # Each answer is a process: as many at a time as this machine can take.
        self._turns = threading.BoundedSemaphore(max(4, 2 * (os.cpu_count() or 1)))
        self._ssh: Ssh | None = None
        self._reader: Reader | None = None
        # Every file is read, so that one that cannot be read is an error on any path.
        if not any([_matters(path) for path in files]):
            return
        program, home = shutil.which("ssh"), home_of_ssh()
        if program is None or home is None or not is_openssh(program):
            self._reader = Reader(files)
        elif paths is None and os.path.realpath(home) == os.path.realpath(user.parent.parent):
            self._ssh = Ssh(program, None)
        else:
            self._ssh = Ssh(program, [path for path in files if path.exists()])

    def lookup(
        self, host: str, user: str | None, port: int | None, *, or_user: str | None = None
    ) -> Options:
        """The options for ``host``. A given user and port win; ``or_user`` is for a host for which
        the files name none. Raises :class:`ConfigError` (a ``ValueError``) and ``OSError``."""
        key = (host, user, port, or_user)
        with self._lock:
            future = self._found.get(key)
            mine = future is None
            if future is None:
                future = self._found[key] = Future()
        if mine:
            try:
                future.set_result(self._lookup(host, user, port, or_user))
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def _lookup(
        self, host: str, user: str | None, port: int | None, or_user: str | None
    ) -> Options:
        if self._reader is not None:
            return self._read(self._reader, host, user, port, or_user)
        if self._ssh is None:
            return Options()
        with self._turns:
            found = self._ssh.lookup(host, user, port)
            # ssh answers with this machine's user where the files name none.
            if user is None and or_user is not None and found.user != or_user:
                ours = found.user in (getpass.getuser(), _own_name())
                if ours and not self._ssh.names_user(host, port):
                    found = self._ssh.lookup(host, or_user, port)
        for keyword in found.unsupported:
            self._once(f"{keyword} of the SSH configuration is not followed")
        return found

    def _read(
        self, reader: Reader, host: str, user: str | None, port: int | None, or_user: str | None
    ) -> Options:
        found = reader.lookup(host, user, port)
        if user is None and or_user is not None and found.user is None:
            found = reader.lookup(host, or_user, port)
        for what in reader.left_out:
            self._once(f"OpenSSH cannot be asked here; without it, this is left out: {what}")
        return found

    def _once(self, text: str) -> None:
        with self._lock:
            new = text not in self._said
            self._said.add(text)
        if new:
            self._say(text)


def _own_name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _text(path: Path) -> str:
    try:
        return read_text(path, bounds.SSH_CONFIG, errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _matters(path: Path, depth: int = 0) -> bool:
    """Whether the file, or one that it includes, may say something of a host's route."""
    for keyword, names in _keywords(_text(path)):
        if keyword == "include":
            if depth >= MAX_DEPTH or not names:
                return True
            found = [n for name in names for n in glob.glob(_absolute(name, path.parent))]
            if any([_matters(Path(name), depth + 1) for name in found]):
                return True
        elif not _HARMLESS.fullmatch(keyword):
            return True
    return False


def _keywords(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        try:
            keyword, _, words = split(line)
        except ValueError:
            keyword, words = "a mistake", []
        if keyword:
            yield keyword, words


def _absolute(name: str, folder: Path) -> str:
    return str(folder / os.path.expanduser(name))


def _warn(text: str) -> None:
    terminal.say(f"warning: {printable(text)}", stderr=True)
