"""One run of a command: the objects that it uses, each made at its first use."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from provision import progress
from provision.cli.inventory_path import DEFAULT_INVENTORY

if TYPE_CHECKING:
    from provision.engine.plan import Plan
    from provision.errors import Problem
    from provision.etcd.cluster.handle import Etcd
    from provision.inventory import Inventory, LoadedInventory
    from provision.inventory.resolved import EtcdCluster
    from provision.inventory.selection import BatchDocument, Named, Share
    from provision.ssh.passwords import Passwords
    from provision.ssh.session import Fleet, RoundTrip, Stats

    Role = TypeVar("Role", bound=Named)


@dataclass(slots=True)
class Run:
    """The objects that a command uses. Each is made at its first use, and closed at the end."""

    command: str
    inventory_path: Path = Path(DEFAULT_INVENTORY)
    format: str = "table"
    dry_run: bool = False
    verbose: bool = False
    stats: bool = False
    #: Whether to ask nothing before something that runs is ended (--yes).
    yes: bool = False
    #: Whether a plan is shown with every difference of every host (--diff-full).
    diff_full: bool = False
    #: Whether the operator has agreed to what the command does by a name: it is not asked again.
    consented: bool = False
    #: The plan that was shown with a question, and to which the answer was yes.
    agreed: tuple[object, ...] | None = None
    #: When this look at the hosts began, as the plans write times.
    began: str = ""
    #: Whether the plan was made without the files on this machine that it needs.
    preview: bool = False
    #: Whether the command must know which etcd cluster it works on, and the value of --cluster-id.
    guarded: bool = False
    cluster_id: str = ""
    #: Whether the command changes something, also when it only shows the plan.
    changes: bool = False
    #: Whether the cluster was found out, and the cluster.
    established: bool = False
    found: EtcdCluster | None = None
    #: Whether a plan is being applied: the message of an interrupted run depends on it.
    applying: bool = False
    #: Whether a plan was applied to its end.
    changed: bool = False
    #: The tasks of the command line, up to now, that have applied a plan. They share it.
    earlier: list[str] = field(default_factory=list)
    #: Whether a dry run's plan has any change.
    drifted: bool = False
    #: For --debug: whether it was given, the plans that were made, and the end of the run.
    debug: bool = False
    plans: list[Plan] = field(default_factory=list)
    error: BaseException | None = None
    #: The hosts that --allow-unreachable does without.
    left_out: list[Problem] = field(default_factory=list)
    #: The notes about versions of this tool that were printed.
    told: set[Problem] = field(default_factory=set)
    #: The notes that were printed, and those from before a question.
    told_now: set[tuple[str, ...]] = field(default_factory=set)
    told_before: set[tuple[str, ...]] = field(default_factory=set)
    passwords: Passwords | None = None
    #: The values of --limit and --batch, and how many names --limit chose, with their digest.
    limit: str = ""
    share: Share | None = None
    chosen: tuple[int, str] | None = None
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    _loaded: LoadedInventory | None = field(default=None, init=False)
    _inventory: Inventory | None = field(default=None, init=False)
    _fleet: Fleet | None = field(default=None, init=False)
    _etcd: Etcd | None = field(default=None, init=False)

    @property
    def json(self) -> bool:
        return self.format == "json"

    @property
    def writes(self) -> bool:
        """Whether a plan may make the files on this machine that it needs. Not while a question may
        come: that plan is a preview, and is made again after the answer."""
        self.preview = self.may_ask
        return not (self.dry_run or self.preview)

    @property
    def may_ask(self) -> bool:
        """Whether a question may still come: a person is there and has not answered yet."""
        settled = self.dry_run or self.yes or self.consented or self.changed
        streams = (sys.stdin, sys.stdout, sys.stderr)
        return not settled and self.agreed is None and all(s and s.isatty() for s in streams)

    @property
    def loaded(self) -> LoadedInventory:
        """The inventory with its positions. Raises :class:`InventoryError` with every problem."""
        if self._loaded is None:
            from provision.inventory import read

            self._loaded = read(self.inventory_path)
        return self._loaded

    @property
    def inventory(self) -> Inventory:
        return self._inventory or self.loaded.inventory

    def drop_file(self) -> None:
        """Keep of the inventory's file what it declares, without positions: they take 1 kB for each
        of thousands of workers. --debug needs them at the end."""
        if not self.debug:
            self._inventory, self._loaded = self.inventory, None

    def part_of(self, limit: str, batch: str) -> None:
        """Note the values of --limit and --batch: the documents of this run have them. Raises
        :class:`UsageError` for a wrong ``batch``."""
        self.limit = limit
        if batch:
            from provision.inventory import selection

            self.share = selection.share(batch)

    def choose(self, roles: Sequence[Role], limit: str, batch: str) -> tuple[Role, ...]:
        """The ``roles`` that --limit and --batch choose. Raises :class:`UsageError`."""
        from provision.inventory import selection

        self.part_of(limit, batch)
        chosen = selection.limited(roles, limit)
        self.chosen = len(chosen), selection.digest(chosen)
        return chosen if self.share is None else selection.part(chosen, self.share)

    def document(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A document of this run, with which part of the whole it is."""
        return {**document, "batch": self._batch()}

    def _batch(self) -> BatchDocument | None:
        if self.share is None:
            return None
        count, names = self.chosen or (None, None)
        known = self._loaded is not None or self._inventory is not None
        return {
            "number": self.share.number,
            "of": self.share.of,
            "command": self.command,
            "cluster": self.inventory.cluster if known else None,
            "limit": self.limit,
            "count": count,
            "names": names,
            "began": self.started.isoformat(timespec="seconds"),
        }

    @property
    def fleet(self) -> Fleet:
        if self._fleet is None:
            from provision.ssh.passwords import Passwords
            from provision.ssh.session import Fleet, Stats

            stats = Stats(on_call=_say_call if self.verbose else None)
            self.passwords = Passwords()
            self.passwords.prepare(self.inventory.machines)
            self._fleet = Fleet(
                self.inventory.parallel, stats, self.passwords, changes=self.changes
            )
        return self._fleet

    def forget_facts(self) -> None:
        """Close what was opened, and forget what was learned about hosts and etcd, but for
        passwords and statistics: the next use opens it again."""
        self.established, self.found, self.left_out = False, None, []
        if self._etcd is not None:
            self._etcd.close()
            self._etcd = None
        if self._fleet is not None:
            from provision.ssh.session import Fleet

            before = self._fleet
            before.close()
            self._fleet = Fleet(
                self.inventory.parallel, before.stats, self.passwords, changes=self.changes
            )

    def etcd(self, cluster: EtcdCluster) -> Etcd:
        """The handle on ``cluster``, with this tool's own login. All handles of a run share what
        they learn about the members."""
        if self._etcd is None:
            from provision.etcd.cluster.handle import Etcd

            self._etcd = Etcd(cluster, self.fleet)
        return self._etcd.with_cluster(cluster)

    @property
    def stats_so_far(self) -> Stats | None:
        """The statistics so far; None while the run has asked no host."""
        return self._fleet.stats if self._fleet is not None else None

    def version_notes(self) -> list[Problem]:
        """Warnings about the versions of this tool on the hosts that were looked at, each once.

        Commands that change nothing warn about newer versions; other commands refuse.
        """
        if self._fleet is None or not self._fleet.stats.facts:
            return []
        from provision.host import tool_version
        from provision.host.facts import HostFacts

        seen = {machine.endpoint: f for machine, f in self._fleet.stats.facts.items()}
        facts = {host: f for host, f in sorted(seen.items()) if isinstance(f, HostFacts)}
        found = tool_version.unknown(facts)
        if not self.changes:
            found += tool_version.newer(facts, "warning")
        fresh = [problem for problem in found if problem not in self.told]
        self.told.update(fresh)
        return fresh

    def secrets(self) -> list[str]:
        """The SSH secrets that were read or asked for."""
        return self.passwords.known() if self.passwords is not None else []

    def close(self) -> None:
        if self._etcd is not None:
            self._etcd.close()
        if self._fleet is None:
            return
        if self.stats:
            _say_stats(self._fleet.stats)
        self._fleet.close()


def _say_call(call: RoundTrip) -> None:
    # One write call: print writes the newline separately, and another thread's line could come
    # between.
    noise = f"; its login shell prints: {call.noise}" if call.noise else ""
    with progress.hidden():
        sys.stderr.write(f"{call.host}: {call.what}: {call.seconds:.3f} s{noise}\n")


def _say_stats(stats: Stats) -> None:
    per_host = stats.per_host()
    seconds: dict[str, float] = {}
    for call in stats.calls:
        seconds[call.host] = seconds.get(call.host, 0.0) + call.seconds
    most = max(per_host.values(), default=0)
    print(f"SSH round trips: {len(stats.calls)}, at most {most} a host", file=sys.stderr)
    for host, count in per_host.items():
        print(f"  {host}: {count} in {seconds[host]:.3f} s", file=sys.stderr)
