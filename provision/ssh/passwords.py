"""sudo passwords and key passphrases: read from the inventory's sources, or asked for, once."""

from __future__ import annotations

import getpass
import os
import threading
from collections.abc import Iterable

from provision import progress
from provision.errors import UsageError
from provision.inventory.model import SshSecret
from provision.inventory.resolved import Machine


class Passwords:
    """The secrets of one run's SSH. Thread-safe; the secrets are never shown or written."""

    def __init__(self) -> None:
        self._known: dict[tuple[SshSecret, str], str] = {}
        self._lock = threading.Lock()

    def prepare(self, machines: Iterable[Machine]) -> None:
        """Read, or ask for, all secrets that ``machines`` need. Raises :class:`UsageError`.

        It is called before the first thread starts: Ctrl-C at a prompt ends the run.
        """
        for machine in machines:
            self.sudo(machine)
            if machine.key is not None and machine.key_passphrase is not None:
                self.passphrase(machine.key_passphrase, str(machine.key))

    def sudo(self, machine: Machine) -> str | None:
        """The password for sudo on ``machine``; None when sudo should need none."""
        if machine.sudo_password is None:
            return None
        user = machine.user or "your login"
        return self._get(machine.sudo_password, "ssh.sudo_password", f"sudo password of {user}")

    def passphrase(self, secret: SshSecret, key: str) -> str:
        return self._get(secret, "ssh.key_passphrase", f"passphrase of {key}")

    def known(self) -> list[str]:
        """All secrets that were read or asked for: they must not appear anywhere."""
        with self._lock:
            return list(self._known.values())

    def _get(self, secret: SshSecret, field: str, what: str) -> str:
        with self._lock:
            known = self._known.get((secret, what))
            if known is None:
                known = _asked(field, what) if secret.ask else _revealed(secret, field)
                self._known[secret, what] = known
            return known


def _revealed(secret: SshSecret, field: str) -> str:
    try:
        value = secret.reveal()
    except (LookupError, OSError, ValueError) as error:
        raise UsageError(f"{field} cannot be read: {error}", id="secret-unreadable") from None
    if not value or "\n" in value or "\0" in value:
        raise UsageError(f"{field} must be one line that is not empty", id="secret-unreadable")
    return value


def _asked(field: str, what: str) -> str:
    try:
        # Without a terminal, getpass would wait for a script's standard input.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise UsageError(
            f"the tool must ask for {field}, but there is no terminal: give it as {{env: NAME}} "
            "or {file: PATH}",
            id="secret-unreadable",
        ) from None
    try:
        with progress.hidden():
            value = getpass.getpass(f"{what}: ")
    except EOFError:
        value = ""
    if not value:
        raise UsageError(f"no {what} was given", id="secret-unreadable")
    return value
