"""The route of an SSH connection: its jump hosts, its login and its keys.

The inventory comes first, then ssh_config(5) (see :mod:`provision.ssh.user_config`). Host keys are
always checked, with any value of StrictHostKeyChecking.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path

from provision.dataclass import dataclass
from provision.inventory.model import SshSecret, jump_hosts
from provision.inventory.resolved import Machine
from provision.ssh.options import Options
from provision.ssh.user_config import UserConfig

DEFAULT_PORT = 22
#: How many jump hosts may follow each other.
MAX_DEPTH = 16
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")


@dataclass(frozen=True, slots=True)
class Hop:
    """One SSH server on the way. ``name`` is the operator's name for it; ``timeout`` is in seconds.

    ``keys`` are the key files for the login; the agent's keys come after them. With ``only_keys``
    the agent may offer only keys in ``keys``. ``certificates`` are files with certificates of these
    keys; ``agent`` is the value of IdentityAgent, None for the agent of the environment.
    ``new_keys_to`` is the file of known_hosts that a new host key belongs into, None without one.
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
    new_keys_to: Path | None = field(default=None, compare=False)

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{host}:{self.port}"


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
    options: Options,
    machine: Machine,
    config: UserConfig,
    depth: int = 0,
) -> tuple[Hop, ...]:
    """The jump hosts of ``given``, or else of the host's own ``options``."""
    text = given if given is not None else options.proxy_jump
    if text is None or text.lower() == "none":
        return ()
    if depth > MAX_DEPTH:
        raise ValueError(f"the jump hosts form a circle through {text}")
    hops: list[Hop] = []
    for place, (user, host, port) in enumerate(jump_hosts(text)):
        own = config.lookup(host, user, port, or_user=machine.user)
        hop = _hop(host, user, port, own, machine, jump=True)
        # "Host *" with a ProxyJump also matches the jump host, but is not meant for it.
        if place == 0 and own.proxy_jump != text:
            hops += _jumps(None, own, machine, config, depth + 1)
        hops.append(hop)
    return tuple(hops)


def _hop(
    name: str,
    user: str | None,
    port: int | None,
    options: Options,
    machine: Machine,
    *,
    jump: bool = False,
) -> Hop:
    proxied = machine.jump is None or jump
    return Hop(
        name=name,
        address=options.hostname or name,
        port=port or options.port or DEFAULT_PORT,
        user=user or options.user or (machine.user if jump else None) or getpass.getuser(),
        keys=_keys(machine, options, jump),
        only_keys=options.identities_only,
        certificates=tuple(map(Path, options.certificate_files)),
        agent=options.identity_agent,
        known_hosts=_known_hosts(machine, options),
        host_key_alias=options.host_key_alias,
        proxy_command=options.proxy_command if proxied else None,
        passphrase=machine.key_passphrase,
        timeout=machine.connect_timeout,
        new_keys_to=_new_keys_to(machine, options),
    )


def _keys(machine: Machine, options: Options, jump: bool) -> tuple[Path, ...]:
    named = options.identity_files
    own = [Path(name) for name in named or ()]
    given = [machine.key] if machine.key is not None else []
    if not jump and given:
        return tuple(given)
    found = [path for path in own if path.exists() or _public(path).exists()] + given
    if found or named is not None:
        return tuple(found)
    folder = Path("~/.ssh").expanduser()
    return tuple(folder / name for name in _DEFAULT_KEYS if (folder / name).exists())


def _public(path: Path) -> Path:
    return path if path.suffix == ".pub" else path.with_name(path.name + ".pub")


def _known_hosts(machine: Machine, options: Options) -> tuple[Path, ...]:
    if machine.known_hosts is not None:
        return (machine.known_hosts,)
    system = options.global_known_hosts
    return (*_own_known_hosts(options), *_paths(_GLOBAL_KNOWN_HOSTS if system is None else system))


def _own_known_hosts(options: Options) -> tuple[Path, ...]:
    named = options.user_known_hosts
    return _paths(_USER_KNOWN_HOSTS if named is None else named)


def _paths(names: Iterable[str]) -> tuple[Path, ...]:
    return tuple(Path(os.path.expanduser(name)) for name in names if name.lower() != "none")


def _new_keys_to(machine: Machine, options: Options) -> Path | None:
    """As ssh, the operator's first file. A device such as /dev/null keeps nothing."""
    first = machine.known_hosts or next(iter(_own_known_hosts(options)), None)
    return None if first is None or first.is_char_device() else first
