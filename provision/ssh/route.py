"""The route of an SSH connection: its jump hosts, its login and its keys.

The inventory comes first, then ``~/.ssh/config`` and ``/etc/ssh/ssh_config`` (see
ssh_config(5)): Host, Match, Include, HostName, User, Port, IdentityFile, IdentitiesOnly,
ProxyJump, ProxyCommand, UserKnownHostsFile, GlobalKnownHostsFile and HostKeyAlias. Host keys are
always checked, with any value of StrictHostKeyChecking.
"""

from __future__ import annotations

import getpass
import glob
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision import bounds
from provision.files import read_text
from provision.inventory.model import SshSecret, jump_hosts
from provision.inventory.resolved import Machine

DEFAULT_PORT = 22
#: Limits: how deep files may include each other, and how many jump hosts may follow each other.
MAX_DEPTH = 16
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_INCLUDE = re.compile(r"\s*include(?:\s+|\s*=\s*)(.*)", re.IGNORECASE)
_BLOCK = re.compile(r"\s*(host|match)(\s|=)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hop:
    """One SSH server on the way. ``name`` is the operator's name for it; ``timeout`` is in seconds.

    ``keys`` are the key files for the login; the agent's keys come after them. With ``only_keys``
    the agent may offer only keys in ``keys``. ``certificates`` are files with certificates of these
    keys; ``agent`` is the value of IdentityAgent, None for the agent of the environment.
    """

    name: str
    address: str
    port: int
    user: str
    keys: tuple[Path, ...] = ()
    only_keys: bool = False
    certificates: tuple[Path, ...] = ()
    agent: str | None = None
    known_hosts: tuple[Path, ...] = ()
    host_key_alias: str | None = None
    proxy_command: str | None = None
    passphrase: SshSecret | None = None
    timeout: float = 10.0

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{host}:{self.port}"


class UserConfig:
    """The operator's ssh_config(5) files, read once."""

    def __init__(self, paths: Sequence[Path] | None = None) -> None:
        from paramiko import SSHConfig

        if paths is None:
            paths = (Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config"))
        # The last Host block of a file must not continue in the next file.
        self._text = "\n".join(f"Host *\n{_text(path, path.parent)}" for path in paths)
        self._config = SSHConfig.from_text(self._text)

    def lookup(self, host: str, user: str | None, port: int | None) -> dict[str, Any]:
        """The options for ``host``, keywords in lower case; a given user and port win."""
        options: dict[str, Any] = self._config.lookup(host)
        if options.get("proxycommand") and (user or port):
            # %p and %r in it must be the port and the user that this tool uses.
            from paramiko import SSHConfig

            given = [f"User {user}"] * bool(user) + [f"Port {port}"] * bool(port)
            options = SSHConfig.from_text("\n".join([*given, self._text])).lookup(host)
        return options


def _text(path: Path, folder: Path, depth: int = 0) -> str:
    """The text of a file, with its included files written out: Paramiko does not know Include."""
    try:
        lines = read_text(path, bounds.SSH_CONFIG, errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    block, out = "Host *", []
    for line in lines:
        if (include := _INCLUDE.fullmatch(line)) and depth < MAX_DEPTH:
            for pattern in shlex.split(include[1], comments=True):
                for name in sorted(glob.glob(str(folder / os.path.expanduser(pattern)))):
                    out += [_text(Path(name), folder, depth + 1), block]
            continue
        if _BLOCK.match(line):
            block = line
        out.append(line)
    return "\n".join(out)


def route(machine: Machine, config: UserConfig) -> tuple[Hop, ...]:
    """The SSH servers on the route, in the order of connecting; the last is ``machine`` itself.

    A machine that is a jump host itself is reached through the jump hosts before it. Raises
    ``ValueError`` when the jump hosts form a circle.
    """
    options = config.lookup(machine.host, machine.user, machine.port)
    target = _hop(machine.host, machine.user, machine.port, options, machine)
    jumps = _jumps(machine.jump, options, machine, config)
    for place, jump in enumerate(jumps):
        if (jump.address, jump.port) == (target.address, target.port):
            return (*jumps[:place], target)
    return (*jumps, target)


def _jumps(
    given: str | None,
    options: dict[str, Any],
    machine: Machine,
    config: UserConfig,
    depth: int = 0,
) -> tuple[Hop, ...]:
    """The jump hosts of ``given``, or else of the host's own ``options``."""
    text = given if given is not None else options.get("proxyjump")
    if text is None or text.lower() == "none":
        return ()
    if depth > MAX_DEPTH:
        raise ValueError(f"the jump hosts form a circle through {text}")
    hops: list[Hop] = []
    for place, (user, host, port) in enumerate(jump_hosts(text)):
        own = config.lookup(host, user, port)
        hop = _hop(host, user, port, own, machine, jump=True)
        # "Host *" with a ProxyJump also matches the jump host, but is not meant for it.
        if place == 0 and own.get("proxyjump") != text:
            hops += _jumps(None, own, machine, config, depth + 1)
        hops.append(hop)
    return tuple(hops)


def _hop(
    name: str,
    user: str | None,
    port: int | None,
    options: dict[str, Any],
    machine: Machine,
    *,
    jump: bool = False,
) -> Hop:
    own_user = options.get("user") or (machine.user if jump else None)
    proxied = machine.jump is None or jump
    return Hop(
        name=name,
        address=str(options.get("hostname", name)),
        port=port or int(options.get("port", DEFAULT_PORT)),
        user=user or own_user or getpass.getuser(),
        keys=_keys(machine, options, jump),
        only_keys=options.get("identitiesonly", "no").lower() == "yes",
        known_hosts=_known_hosts(machine, options),
        host_key_alias=options.get("hostkeyalias"),
        proxy_command=options.get("proxycommand") if proxied else None,
        passphrase=machine.key_passphrase,
        timeout=machine.connect_timeout,
    )


def _keys(machine: Machine, options: dict[str, Any], jump: bool) -> tuple[Path, ...]:
    own = [Path(os.path.expanduser(name)) for name in options.get("identityfile", ())]
    given = [machine.key] if machine.key is not None else []
    if not jump and given:
        return tuple(given)
    found = [path for path in own if path.exists() or _public(path).exists()] + given
    if found or own:
        return tuple(found)
    folder = Path("~/.ssh").expanduser()
    return tuple(folder / name for name in _DEFAULT_KEYS if (folder / name).exists())


def _public(path: Path) -> Path:
    return path if path.suffix == ".pub" else path.with_name(path.name + ".pub")


def _known_hosts(machine: Machine, options: dict[str, Any]) -> tuple[Path, ...]:
    if machine.known_hosts is not None:
        return (machine.known_hosts,)
    named = [
        *_files(options, "userknownhostsfile", _USER_KNOWN_HOSTS),
        *_files(options, "globalknownhostsfile", _GLOBAL_KNOWN_HOSTS),
    ]
    return tuple(Path(os.path.expanduser(name)) for name in named if name.lower() != "none")


def _files(options: dict[str, Any], key: str, default: Sequence[str]) -> Sequence[str]:
    return shlex.split(options[key]) if key in options else default
