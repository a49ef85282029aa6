"""A shell on a host that runs one script after the other.

With a session of its own, ssh here and a login shell and sudo there, a script takes 14 ms of
processor time, and a run of all tests has some 8,000.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import threading
from collections.abc import Sequence

from tests import forks

#: As ssh ends when the connection is lost.
LOST = 255

#: Exit code, stdout, stderr.
Ended = tuple[int, str, str]


class Shell:
    """The process at this end. Several threads may ask; each script has the shell alone."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._one = threading.Lock()

    def run(self, script: str, timeout: float) -> Ended:
        """Runs ``script`` in a ``sh -s``. Raises TimeoutExpired, and gives the shell up."""
        with self._one:
            process = self._running()
            mark = secrets.token_hex(16)
            assert process.stdin is not None
            lines = f"sh -s <<'{mark}'\n{script}\n{mark}\n"
            lines += f"printf '\\n{mark} %s\\n' $?; printf '\\n{mark} \\n' >&2\n"
            with contextlib.suppress(BrokenPipeError):  # its end says why
                process.stdin.write(lines.encode())
                process.stdin.flush()
            try:
                ended, shell_ended = _read(process, mark, timeout)
            except TimeoutError:
                self._end()
                raise subprocess.TimeoutExpired(self._command, timeout) from None
            if shell_ended:  # Its process may still be there: the kernel closes its files first.
                self._end()
            return ended

    def close(self) -> None:
        with self._one:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=pipe)
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for file in (self._process.stdin, self._process.stdout, self._process.stderr):
                with contextlib.suppress(BrokenPipeError):  # what was not written yet
                    assert file is not None
                    file.close()
            self._process = None


def _read(process: subprocess.Popen[bytes], mark: str, timeout: float) -> tuple[Ended, bool]:
    """What comes until both files have the mark, or end with the shell itself; whether they did."""
    end = re.compile(rb"\n%s (\d*)\n" % mark.encode())
    assert process.stdout is not None
    assert process.stderr is not None
    code, texts, ended = LOST, [], False
    for text in forks.read((process.stdout.fileno(), process.stderr.fileno()), timeout, end.search):
        if found := end.search(text):
            code = int(found[1]) if found[1] else code
            del text[found.start() :]
        ended = ended or not found
        texts.append(_lines(bytes(text).decode()))
    return (code, texts[0], texts[1]), ended


def _lines(text: str) -> str:
    """With line ends as a subprocess in text mode gives them."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
