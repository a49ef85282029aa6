"""The host keys of all hosts of an inventory, jump hosts included, each by one connection.

Nothing logs in at a server whose key is not known: what is behind a jump host waits until the jump
host's key is accepted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from provision import progress
from provision.dataclass import dataclass
from provision.errors import Problem
from provision.ids import Id
from provision.inventory.resolved import Machine
from provision.ssh.connect import Connector, reason
from provision.ssh.host_key import KeyRefused
from provision.ssh.known_hosts import HostKey, entry_name
from provision.ssh.route import DEFAULT_PORT, Hop
from provision.text import LINE_LIMIT, printable

State = Literal["known", "new", "changed", "revoked", "failed"]


@dataclass(frozen=True, slots=True)
class Server:
    """One SSH server: a host of the inventory, a jump host, or both.

    ``where`` is where a problem of it is; ``names`` are those that the inventory has for it.
    """

    names: tuple[str, ...]
    hops: tuple[Hop, ...]
    where: str
    jump: bool

    @property
    def hop(self) -> Hop:
        return self.hops[-1]

    @property
    def before(self) -> tuple[Hop, ...]:
        return self.hops[:-1]

    @property
    def entry(self) -> str:
        """The host's name in known_hosts."""
        return entry_name(self.hop.address, self.hop.port, self.hop.host_key_alias)

    @property
    def address(self) -> str:
        """For a person: with the port, unless it is SSH's own."""
        if self.hop.port == DEFAULT_PORT:
            return self.hop.address
        host = f"[{self.hop.address}]" if ":" in self.hop.address else self.hop.address
        return f"{host}:{self.hop.port}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a server has shown. ``known`` are the keys of the same type in known_hosts.

    ``problem`` says why the key is not accepted, or why there is none.
    """

    server: Server
    state: State
    key: HostKey | None = None
    known: tuple[HostKey, ...] = ()
    problem: Problem | None = None


class Scan:
    """The scan of some servers, in rounds: see :meth:`round`."""

    def __init__(self, connector: Connector, servers: Sequence[Server], parallel: int) -> None:
        self._connector, self._parallel = connector, parallel
        self._waiting = list(servers)
        self._jumps = {server.hops: server for server in servers if server.jump}
        self._found: dict[Server, Found] = {}

    @property
    def found(self) -> tuple[Found, ...]:
        """All that was found."""
        return tuple(self._found.values())

    def round(self) -> tuple[Found, ...]:
        """Scan every server that can be reached by now. Returns what is new."""
        fresh: dict[Server, Found] = {}
        while ready := [server for server in self._waiting if self._ready(server)]:
            self._waiting = [server for server in self._waiting if server not in ready]
            pool = ThreadPoolExecutor(max(1, min(self._parallel, len(ready))), "scan")
            try:
                with progress.waiting("SSH keys", names=[s.where for s in ready]) as shown:
                    results = list(pool.map(lambda server: self._part(shown, server), ready))
            except BaseException:
                self._connector.close()
                raise
            finally:
                pool.shutdown(cancel_futures=True)
            for found in results:
                self._found[found.server] = fresh[found.server] = found
        return tuple(fresh.values())

    def _part(self, shown: progress.Wait, server: Server) -> Found:
        with progress.part_of(shown, server.where):
            return self._scanned(server)

    def accept(self, accepted: Collection[Server]) -> None:
        """The keys of these servers are in known_hosts now."""
        self._connector.forget_known_hosts()
        for server in accepted:
            if server.jump:
                self._waiting.append(server)  # once more, and this time with a login
            else:
                key = self._found[server].key
                self._found[server] = Found(server, "known", key)

    def rest(self) -> tuple[Found, ...]:
        """What waits for the key of a jump host that nobody has accepted is given up."""
        given_up = []
        for server in self._waiting:
            jump = next(s for s in self._befores(server) if self._state(s) != "known")
            what = f"behind jump host {jump.hop.name}, whose key is not trusted: not scanned"
            problem = Problem(server.where, what, id="host-key-unknown")
            given_up.append(Found(server, "failed", problem=problem))
        self._waiting = []
        self._found.update({found.server: found for found in given_up})
        return tuple(given_up)

    def _ready(self, server: Server) -> bool:
        """Whether the way there is open, or closed for good."""
        return all(self._state(jump) not in ("new", None) for jump in self._befores(server))

    def _befores(self, server: Server) -> list[Server]:
        return [self._jumps[server.hops[:n]] for n in range(1, len(server.hops))]

    def _state(self, server: Server) -> State | None:
        if server in self._waiting or server not in self._found:
            return None
        return self._found[server].state

    def _scanned(self, server: Server) -> Found:
        for jump in self._befores(server):
            if self._state(jump) != "known":
                problem = self._found[jump].problem
                what = f"behind jump host {jump.hop.name}, which cannot be passed: not scanned"
                id: Id = problem.id if problem is not None else "host-unreachable"
                return Found(server, "failed", problem=Problem(server.where, what, id=id))
        look = self._connector.jump_host_key if server.jump else self._connector.host_key
        try:
            return Found(server, "known", look(server.hops))
        except KeyRefused as refused:
            problem = _problem(server, refused)
            return Found(server, refused.state, refused.key, refused.known, problem)
        except Exception as error:  # whatever a server does, the others are scanned
            return Found(server, "failed", problem=_problem(server, error))


def servers(
    machines: Mapping[Machine, Sequence[str]],
    route: Callable[[Machine], tuple[Hop, ...]],
    parallel: int,
) -> tuple[list[Server], list[Problem]]:
    """The servers on the routes to ``machines``, each with its names; and what has no route.

    Jump hosts come first. Two machines at one address and port are one server.
    """

    def routed(machine: Machine) -> tuple[Hop, ...] | Problem:
        try:
            return route(machine)
        except Exception as error:
            what, remedy, id = reason(error)
            return Problem(machine.place, what, remedy, id=id)
        finally:
            shown.add()

    with (
        progress.waiting("routes to the hosts", of=len(machines)) as shown,
        ThreadPoolExecutor(max(1, min(parallel, len(machines))), "route") as pool,
    ):
        routes = list(pool.map(routed, machines))
    jumps: dict[tuple[Hop, ...], list[str]] = {}
    for hops in routes:
        if not isinstance(hops, Problem):
            for count in range(1, len(hops)):
                jumps.setdefault(hops[:count], [])
    hosts: dict[object, tuple[tuple[Hop, ...], list[str], str]] = {}
    by_place = {_place(hops): names for hops, names in jumps.items()}
    problems = []
    for (machine, names), hops in zip(machines.items(), routes, strict=True):
        if isinstance(hops, Problem):
            problems.append(hops)
        elif (jump := by_place.get(_place(hops))) is not None:
            jump += names
        else:
            where = machine.place
            hosts.setdefault(_place(hops), (hops, [], where))[1].extend(names)
    called = Counter(hops[-1].name for hops in jumps)
    found = [
        Server(_unique(names or [hops[-1].name]), hops, _jump_place(hops[-1], called), True)
        for hops, names in jumps.items()
    ]
    found += [Server(_unique(n), hops, where, False) for hops, n, where in hosts.values()]
    return found, problems


def _jump_place(hop: Hop, called: Mapping[str, int]) -> str:
    """Where a problem of a jump host is; two may be behind one address."""
    port = f":{hop.port}" if called[hop.name] > 1 else ""
    return f"jump host {hop.name}{port}"


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _place(hops: tuple[Hop, ...]) -> tuple[object, ...]:
    """What makes two routes end at the same server, with the same entry in the same files."""
    hop = hops[-1]
    files: tuple[Path, ...] = hop.known_hosts
    return (hops[:-1], hop.address, hop.port, hop.host_key_alias, hop.proxy_command, files)


def _problem(server: Server, error: BaseException) -> Problem:
    what, remedy, id = reason(error)
    return Problem(server.where, printable(what, LINE_LIMIT), remedy, id=id)
