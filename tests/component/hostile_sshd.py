"""An SSH server in this process whose misbehaviour a test chooses; it takes any key."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from provision.inventory.resolved import Machine
from provision.ssh.remote import Marks
from provision.ssh.session import Fleet, Session


class LetsIn(paramiko.ServerInterface):
    """The login of every SSH server in these tests: any user with any key, and any channel."""

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED


class Behaviour(LetsIn):
    """``at_door``: called with each connection; returns whether it was turned away. ``at_login``:
    called before a key is answered. ``sessions`` and ``forwards``: SSH's code for a refusal, or 0.
    ``command``: what answers a command, with its channel."""

    def __init__(self) -> None:
        self.accepted = threading.Event()
        self.at_door: Callable[[socket.socket], bool] = lambda sock: False
        self.connections = self.forwards_asked = 0
        self.at_login: Callable[[], object] = lambda: None
        self.takes_keys = True
        self.sessions = self.forwards = 0
        self.command: Callable[[paramiko.Channel], None] = lambda channel: None
        self.marked = True
        self.marks = Marks()

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.at_login()
        return super().check_auth_publickey(username, key) if self.takes_keys else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return self.sessions

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        self.forwards_asked += 1
        return self.forwards

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        token = re.search(rb"--([0-9a-f]{16})-login--", command)
        self.marks = Marks(token[1].decode() if token else "")
        threading.Thread(target=self._run, args=(channel,), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel) -> None:
        with contextlib.suppress(Exception):
            if self.marked:
                channel.sendall(self.marks.login + self.marks.begin)
                channel.sendall_stderr(self.marks.login + self.marks.begin)
            self.command(channel)


class Sshd:
    """The server, its host key and a client's key."""

    def __init__(self, folder: Path, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        folder.mkdir(parents=True, exist_ok=True)
        self._key = paramiko.RSAKey.generate(2048)
        client = paramiko.RSAKey.generate(2048)
        self.key, self.known_hosts = folder / "key", folder / "known_hosts"
        client.write_private_key_file(str(self.key))
        self._stopping = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        line = f"[127.0.0.1]:{self.port} ssh-rsa {self._key.get_base64()}\n"
        self.known_hosts.write_text(line)
        self._transports: list[paramiko.Transport] = []

    def machine(self, **changed: Any) -> Machine:
        given: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "root",
            "key": self.key,
            "known_hosts": self.known_hosts,
            "connect_timeout": 2,
            "where": "i.yml:1",
        }
        return Machine(**{**given, **changed})

    def accept(self) -> None:
        while not self._stopping:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.behaviour.connections += 1
            if self.behaviour.at_door(client):
                client.close()
                continue
            transport = paramiko.Transport(client)
            transport.add_server_key(self._key)
            self._transports.append(transport)
            with contextlib.suppress(Exception):
                transport.start_server(event=threading.Event(), server=self.behaviour)

    def hang_up(self) -> None:
        for transport in self._transports:
            transport.close()

    def stop(self) -> None:
        self._stopping = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.hang_up()


@contextlib.contextmanager
def serving(folder: Path, behaviour: Behaviour) -> Iterator[Sshd]:
    sshd = Sshd(folder, behaviour)
    threading.Thread(target=sshd.accept, daemon=True).start()
    try:
        yield sshd
    finally:
        sshd.stop()


@contextlib.contextmanager
def session(sshd: Sshd, **changed: Any) -> Iterator[Session]:
    with Fleet(1) as fleet:
        yield fleet.session(sshd.machine(**changed))


def forced(channel: paramiko.Channel, data: bytes, *, stderr: bool = False) -> None:
    """Send ``data`` whatever the window says: the other side promised to take less."""
    from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
    from paramiko.message import Message

    message = Message()
    message.add_byte(bytes([MSG_CHANNEL_EXTENDED_DATA if stderr else MSG_CHANNEL_DATA]))
    message.add_int(channel.remote_chanid)
    if stderr:
        message.add_int(1)
    message.add_string(data)
    sent(channel, message)


def sent(channel: paramiko.Channel, message: paramiko.Message) -> None:
    """Send a message of a channel as it is."""
    transport: Any = channel.transport
    transport._send_user_message(message)


def flood(channel: paramiko.Channel, *, stderr: bool) -> None:
    while not channel.closed:
        forced(channel, b"x" * 30_000, stderr=stderr)


def drip(channel: paramiko.Channel) -> None:
    while not channel.closed:
        channel.sendall(b"x")
        time.sleep(0.1)
