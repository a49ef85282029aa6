"""The inventory as an OpenSSH configuration: ``ssh -F FILE worker17`` goes where the tool goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from provision import progress
from provision.inventory.resolved import Inventory, Machine
from provision.ssh.route import Hop, route
from provision.ssh.user_config import UserConfig
from provision.text import printable


def ssh_config(inventory: Inventory, config: UserConfig) -> str:
    """A Host block for each member and worker, by name and by host, and for each jump host.

    The options from ``config`` are written out, so the file needs no other file. Raises
    ``ValueError`` when jump hosts form a circle, and for a configuration with a mistake.
    """
    names: dict[Machine, list[str]] = {}
    roles: list[tuple[str, Machine]] = [(m.name, m.machine) for m in inventory.etcd.members]
    if inventory.alluxio is not None:
        roles += [(worker.name, worker.machine) for worker in inventory.alluxio.workers]
    for name, machine in roles:
        names.setdefault(machine, []).append(name)
    hosts = Counter(machine.host for machine in names)
    jumps: dict[tuple[Hop, ...], str] = {}
    blocks: list[str] = []

    def routed(machine: Machine) -> tuple[Hop, ...]:
        try:
            return route(machine, config)
        finally:
            shown.add()

    # Each may be a question to ssh.
    with (
        progress.waiting("routes to the hosts", of=len(names)) as shown,
        ThreadPoolExecutor(8, "route") as pool,
    ):
        routes = list(pool.map(routed, names))
    for (machine, own), hops in zip(names.items(), routes, strict=True):
        *before, hop = hops
        via = _jump_name(tuple(before), jumps) if before else None
        host = [machine.host] if hosts[machine.host] == 1 else []  # else ssh took the first of them
        blocks.append(_block(list(dict.fromkeys([*own, *host])), hop, via))
    for hops, name in jumps.items():
        *before, hop = hops
        blocks.append(_block([name], hop, jumps[tuple(before)] if before else None))
    head = f"# From {printable(str(inventory.path))}, cluster {inventory.cluster}.\n"
    return head + "\n".join(blocks)


def _jump_name(hops: tuple[Hop, ...], jumps: dict[tuple[Hop, ...], str]) -> str:
    """The name of the last of ``hops`` in the file. The hops before it get names, too."""
    if len(hops) > 1:
        _jump_name(hops[:-1], jumps)
    return jumps.setdefault(hops, f"jump-{len(jumps) + 1}")


def _block(names: Sequence[str], hop: Hop, via: str | None) -> str:
    # A domain's backslash, for example, needs quotes; OpenSSH reads % in these values as a token.
    lines = [
        f"Host {' '.join(names)}",
        f"  HostName {hop.address.replace('%', '%%')}",
        f'  User "{hop.user}"',
        f"  Port {hop.port}",
    ]
    lines += [f"  IdentityFile {_quoted(path)}" for path in hop.keys]
    lines += [f"  CertificateFile {_quoted(path)}" for path in hop.certificates]
    if hop.agent is not None:
        lines.append(f"  IdentityAgent {_quoted(Path(hop.agent))}")
    if hop.only_keys:
        lines.append("  IdentitiesOnly yes")
    if hop.known_hosts:
        lines.append(f"  UserKnownHostsFile {' '.join(map(_quoted, hop.known_hosts))}")
    if hop.host_key_alias is not None:
        lines.append(f"  HostKeyAlias {hop.host_key_alias}")
    lines.append("  StrictHostKeyChecking yes")
    lines.append(f"  ConnectTimeout {max(1, round(hop.timeout))}")
    if via is not None:
        lines.append(f"  ProxyJump {via}")
    elif hop.proxy_command is not None:
        lines.append(f"  ProxyCommand {hop.proxy_command.replace('%', '%%')}")
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
