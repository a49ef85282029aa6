"""The command of ProxyCommand, as a socket: what it writes is what the host sends."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile

from provision.text import printable

#: Seconds that a command gets to end, when its connection is closed.
_GRACE = 1.0


class Proxied(socket.socket):
    """A socket whose other end is a command's standard input and output.

    Unlike Paramiko's own class, it notices at once that the command has ended.
    """

    def __init__(self, command: str) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        # As ssh does: the operator's shell reads the command, and the command takes its place.
        shell = os.environ.get("SHELL") or "/bin/sh"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            # The operator's own configuration names the command.
            self._process = subprocess.Popen(  # nosec
                [shell, "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
            )
        except OSError:
            super().close()
            raise
        finally:
            theirs.close()

    def said(self) -> str:
        """The last line of the command's standard error."""
        self._errors.seek(0)
        lines = self._errors.read(1 << 16).strip().splitlines()
        return printable(lines[-1], 200) if lines else ""

    def close(self) -> None:
        super().close()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
