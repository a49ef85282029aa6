"""Runs of ``python -m invoke`` without the half second of imports that each begins with: forks of a
process that has made the imports (:mod:`tests.fork_server`).

All of them are of one interpreter: they have the same seed for hashes, and modules that they have
not imported themselves. So what only a process of its own can show is never left to them: the
first run of each task in a file of tests, and a run with another folder, or with other values in
what Python and the imports read in the environment. With ``ALXP_FORKS=0`` every run is a process of
its own.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from tests.fork_server import LIMIT, ROOT, Run

#: What Python itself reads as it starts, and the libraries in C: by the first letters.
AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "MALLOC_", "GLIBC_", "OPENSSL_", "GRPC_")
#: What an import reads and no run depends on: sysconfig's place for the packages of a user, which a
#: virtualenv does not have.
INDIFFERENT = frozenset({"HOME"})
#: Seconds that the imports may take, on a machine that has other work.
READY_WITHIN = 120.0

#: Exit code, stdout, stderr.
Ended = tuple[int, str, str]


class Server:
    """The process that forks; it ends when this one does."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(READY_WITHIN)
        self._environment = dict(os.environ)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        read: Mapping[str, str | None] = json.loads(self._control.recv(LIMIT))
        self.read = {name: read[name] for name in read if name not in INDIFFERENT}
        self._control.settimeout(None)

    def close(self) -> None:
        self._control.close()
        self._process.wait()

    def refuses(self, environment: Mapping[str, str]) -> str:
        """Which variable an interpreter that starts with ``environment`` would read otherwise."""
        if "PYTHONUNBUFFERED" in environment:  # its files are others
            return "PYTHONUNBUFFERED"
        names = [n for n in {**environment, **self._environment} if n.startswith(AT_START)]
        changed = (n for n in names if environment.get(n) != self._environment.get(n))
        other = (n for n, value in self.read.items() if environment.get(n) != value)
        return next(changed, None) or next(other, "")

    def run(self, words: Sequence[str], environment: Mapping[str, str], timeout: float) -> Ended:
        """As ``subprocess.run`` of ``python -m WORD...``, with an empty stdin.

        Raises TimeoutExpired, as that does.
        """
        module, *arguments = words
        asked: Run = {
            "module": module,
            "arguments": arguments,
            "environment": dict(environment),
        }
        with contextlib.ExitStack() as stack:
            ours, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(ours)
            (out, stdout), (err, stderr) = os.pipe(), os.pipe()
            stack.callback(os.close, out)
            stack.callback(os.close, err)
            given = [told.detach(), os.open(os.devnull, os.O_RDONLY), stdout, stderr]
            socket.send_fds(self._control, [json.dumps(asked).encode()], given)
            for file in given:
                os.close(file)
            _, processes, _, _ = socket.recv_fds(ours, LIMIT, 1)
            (process,) = processes
            stack.callback(os.close, process)
            ours.settimeout(timeout)
            try:
                texts = [_lines(text) for text in read((out, err), timeout)]
                code = int(ours.recv(LIMIT))
            except TimeoutError:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                raise subprocess.TimeoutExpired(words, timeout) from None
        return code, texts[0], texts[1]


def read(
    files: Sequence[int], timeout: float, ended: Callable[[bytearray], object] = lambda _: False
) -> list[bytearray]:
    """What comes out of each of the pipes until its end, or until ``ended`` says so of its text.
    Raises TimeoutError."""
    texts = {file: bytearray() for file in files}
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as waiting:
        for file in files:
            waiting.register(file, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(deadline - time.monotonic())
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                block = os.read(key.fd, 1 << 16)
                texts[key.fd] += block
                if not block or ended(texts[key.fd]):
                    waiting.unregister(key.fd)
    return list(texts.values())


def _lines(text: bytearray) -> str:
    return bytes(text).decode().replace("\r\n", "\n")


@functools.cache
def server() -> Server:
    """That of this process."""
    made = Server()
    atexit.register(made.close)
    return made


#: File of tests and task of the runs that were processes of their own.
_FIRST: set[tuple[str, str]] = set()


def run(words: Sequence[str], environment: Mapping[str, str], timeout: float) -> Ended | None:
    """``python -m invoke WORD...`` in the repository's folder, if a fork will do."""
    file = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
    if (file, words[0]) not in _FIRST or os.environ.get("ALXP_FORKS") == "0":
        _FIRST.add((file, words[0]))
        return None
    if server().refuses(environment):
        return None
    return server().run(["invoke", *words], environment, timeout)
