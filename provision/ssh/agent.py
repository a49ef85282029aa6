"""ssh-agent, at the socket that the environment or IdentityAgent of ssh_config names."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import paramiko
from paramiko.agent import AgentSSH

#: Seconds that an agent may take for an answer. It may ask the operator for a touch or a word.
PATIENCE = 60.0
_ENVIRONMENT = "SSH_AUTH_SOCK"
_NO_SIGNATURE = bytes(64)


class AgentKey(paramiko.AgentKey):
    """A key of the agent, that an agent which cannot sign does not end the login with.

    Paramiko signs in the thread of the connection, where an error ends the connection, and with it
    the attempts with other keys. So the host gets a signature that is not valid, and refuses this
    key. ``failure`` is why the agent did not sign; ``signing``: it has been asked.
    """

    def __init__(self, key: paramiko.AgentKey, certificate: bytes | None = None) -> None:
        super().__init__(key.agent, key.blob, key.comment)
        if certificate is None and key.get_name().endswith("-cert-v01@openssh.com"):
            certificate = key.blob
        if certificate is not None:
            self.public_blob: Any = paramiko.pkey.PublicBlob.from_message(
                paramiko.Message(certificate)
            )
        self.failure: str | None = None
        self.signing = False

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> Any:
        self.signing = True
        try:
            return super().sign_ssh_data(data, algorithm)
        except Exception as error:  # whatever the agent answers, the next key is tried
            self.failure = str(error) or type(error).__name__
        finally:
            self.signing = False
        message = paramiko.Message()
        message.add_string(algorithm or self.get_name())
        message.add_string(_NO_SIGNATURE)
        return message.asbytes()


@contextlib.contextmanager
def agent_keys(where: str | None) -> Iterator[tuple[list[paramiko.AgentKey], str | None]]:
    """The agent's keys, and why there are none when the agent that is named does not answer.

    ``where`` is the value of IdentityAgent: a socket's path, ``none``, ``SSH_AUTH_SOCK``, or
    ``$NAME`` of the environment. None is the environment's agent.
    """
    path = _path(where)
    if not path:
        yield [], None
        return
    agent: Any = AgentSSH()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as conn:
        conn.settimeout(PATIENCE)
        keys: list[paramiko.AgentKey] = []
        why: str | None = None
        try:
            conn.connect(path)
            agent._connect(conn)
            keys = list(agent.get_keys())
        except Exception as error:  # whatever answers there, it is no agent
            said = error.strerror if isinstance(error, OSError) else None
            why = f"ssh-agent at {path}: {said or str(error) or type(error).__name__}"
        yield keys, why


def _path(where: str | None) -> str:
    if where is None or where == _ENVIRONMENT:
        return os.environ.get(_ENVIRONMENT, "")
    if where.startswith("$"):
        return os.environ.get(where[1:].strip("{}"), "")
    return "" if where.lower() == "none" else os.path.expanduser(where)
