"""The login at one SSH server: key after key, as OpenSSH; at the end, why none was accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko.auth_strategy import AuthStrategy

from provision.ssh.agent import AgentKey, agent_keys
from provision.ssh.keys import Certificate, Unusable, public_blob, with_certificate
from provision.ssh.refused import Refused
from provision.ssh.route import Hop

#: The keys that are offered at one login: as many as sshd takes when nobody set its MaxAuthTries.
#: After more it ends the login, and OpenSSH from 9.8 on may then refuse this machine for a while.
MAX_KEYS = 6
_AGENT = "ssh-agent"

#: The private key in a file. Raises :class:`Unusable`.
Load = Callable[[Path], paramiko.PKey]


class Login(AuthStrategy):
    """Logs in with the hop's keys, then with the keys of ssh-agent.

    A key that cannot be used is left out, and the next one is tried. Raises :class:`Refused`.
    """

    def __init__(self, hop: Hop, load: Load) -> None:
        self._hop, self._load = hop, load
        self._tried: list[str] = []
        self._left_out: list[tuple[str, Unusable]] = []
        self._offered = self._untried = 0
        self._ended = False
        #: Whether a key may have been offered.
        self.begun = False

    def get_sources(self) -> Any:
        raise NotImplementedError  # a source cannot say which keys were left out

    def authenticate(self, transport: paramiko.Transport) -> Any:
        self.begun = True
        with agent_keys(self._hop.agent) as (held, silent):
            if silent is not None:
                self._left_out.append((silent, Unusable("")))
            for name, key in self._keys(held):
                if self._ended or self._offered == MAX_KEYS:
                    self._untried += 1
                    continue
                self._tried.append(name)
                self._offered += 1
                if self._accepted(transport, name, key):
                    return None
        raise self._refusal()

    def _accepted(self, transport: paramiko.Transport, name: str, key: paramiko.PKey) -> bool:
        try:
            more = transport.auth_publickey(self._hop.user, key)
        except paramiko.BadAuthenticationType as error:
            allowed = ", ".join(error.allowed_types)
            what = f"login refused: the host accepts {allowed}, not keys"
            raise Refused(what, "", id="ssh-login-refused") from None
        except paramiko.AuthenticationException as error:
            if timed_out(error):
                if isinstance(key, AgentKey) and key.signing:
                    raise self._unsigned() from None
                raise silent(self._hop) from None
            if isinstance(key, AgentKey) and key.failure is not None:
                self._tried.pop()
                why = Unusable(f"does not sign with {_called(key)}: {key.failure}")
                self._left_out.append((_AGENT, why))
            if not transport.is_active():
                self._end()
            return False
        except (OSError, EOFError):
            self._end()
            return False
        if more:
            what = f"login refused: beside the key the host requires {', '.join(more)}"
            raise Refused(what, "", id="ssh-login-refused")
        return True

    def _end(self) -> None:
        """The host has ended the connection: after too many keys it accepts no more."""
        if self._offered == 1 and self._tried:
            raise self._closed() from None
        self._ended = True

    def _keys(self, held: list[paramiko.AgentKey]) -> Iterator[tuple[str, paramiko.PKey]]:
        """The keys to offer, each with its name; a key's certificates before the key alone."""
        wanted: set[bytes] = set()
        blobs = {key.asbytes() for key in held}
        certificates = list(self._certificates())
        for path in self._hop.keys:
            if (public := public_blob(path)) is not None:
                wanted.add(public)
            if path.suffix == ".pub" or not path.exists():
                continue
            try:
                key = self._load(path)
            except Unusable as why:
                if public is None or public not in blobs:
                    self._left_out.append((str(path), why))
                continue
            for certificate in certificates:
                if certificate.of == key.asbytes():
                    name = f"{path} with {certificate.path}"
                    yield name, with_certificate(key, certificate)
            yield str(path), key
        # Keys that the configuration names come first: a host accepts only a few attempts.
        for held_key in sorted(held, key=lambda key: key.asbytes() not in wanted):
            blob = held_key.asbytes()
            if blob in wanted or not self._hop.only_keys:
                for certificate in certificates:
                    if certificate.of == blob:
                        yield _AGENT, AgentKey(held_key, certificate.blob)
                yield _AGENT, AgentKey(held_key)

    def _certificates(self) -> Iterator[Certificate]:
        named = list(self._hop.certificates)
        beside = [
            found
            for path in self._hop.keys
            if (found := path.with_name(f"{path.name.removesuffix('.pub')}-cert.pub")).exists()
        ]
        for path in dict.fromkeys([*named, *beside]):
            try:
                yield Certificate(path)
            except Unusable as why:
                self._left_out.append((str(path), why))

    def _unsigned(self) -> Refused:
        what = f"ssh-agent does not sign in {self._hop.timeout:g} s"
        remedy = "it may wait for you to confirm, or to touch the security key"
        return Refused(what, remedy, id="ssh-key-unusable")

    def _closed(self) -> Refused:
        what = f"closed the connection at the login for {self._hop.user} with {self._tried[0]}"
        remedy = "check ssh.user and ssh.key; the log of the host's sshd says why"
        return Refused(what, remedy, id="ssh-login-refused")

    def _refusal(self) -> Refused:
        from_agent = self._tried.count(_AGENT)
        tried = [name for name in self._tried if name != _AGENT]
        if from_agent:
            tried.append(f"{from_agent} key{'s' * (from_agent > 1)} of ssh-agent")
        what = "login refused"
        if tried or not self._left_out:
            what += f" for {self._hop.user}" + (f" with {', '.join(tried)}" if tried else "")
        if self._ended:
            what += f"; the host ended the login after {self._offered} keys (its MaxAuthTries)"
        if self._untried:
            what += f"; {self._untried} more were not tried"
        if self._left_out:
            what += ": " + "; ".join(f"{name} {why}".rstrip() for name, why in self._left_out)
        elif not tried:
            what += ": there is no key to try"
        locked = [name for name, why in self._left_out if why.locked]
        if locked:
            remedy = f"ssh-add {' '.join(locked)}, or give ssh.key_passphrase"
        else:
            remedies = [why.remedy for _, why in self._left_out if why.remedy]
            remedy = (
                "name the key by ssh.key, with IdentitiesOnly yes in ~/.ssh/config"
                if self._untried
                else "; ".join(dict.fromkeys(remedies))
                or "check ssh.user and ssh.key, or load the key into ssh-agent"
            )
        unusable = bool(locked) or (bool(self._left_out) and not tried)
        return Refused(what, remedy, id="ssh-key-unusable" if unusable else "ssh-login-refused")


def timed_out(error: BaseException) -> bool:
    return isinstance(error, paramiko.AuthenticationException) and "timeout" in str(error).lower()


def silent(hop: Hop) -> Refused:
    """The error that a host has taken the connection, and then does not answer the login."""
    what = f"does not answer the login for {hop.user} in {hop.timeout:g} s"
    remedy = (
        "the host is overloaded, or what its login asks (PAM, a name service) hangs: try ssh to "
        "that host by hand"
    )
    return Refused(what, remedy, id="host-unreachable")


def _called(key: paramiko.AgentKey) -> str:
    return key.comment or key.get_name()
