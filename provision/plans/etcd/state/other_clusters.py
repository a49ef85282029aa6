"""Who else uses this etcd: the one question before a plan that other Alluxio clusters would notice.

Such a plan deletes etcd's data, takes the data back to an earlier state, or cuts off clients. That
follows from its steps (:class:`provision.host.effects.Effect`), and :mod:`provision.plans.proofs`
refuses the plan unless the question was answered: :func:`require` or :func:`passed` notes it.

A read with a quorum answers it. Without one, each member says what it knows (:func:`look`). For
plans that use or replace the members' data, the names in the data itself count, too
(:func:`with_data`): such plans are for an etcd that is down, so they must stay possible.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace

from provision.alluxio.membership import clusters, registrations
from provision.dataclass import dataclass
from provision.engine.guards import Guard
from provision.errors import PreflightFailed, Problem, ProvisionError, UsageError
from provision.etcd.api.errors import TOO_MUCH
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import desired, layout
from provision.host import gather, safely
from provision.host.facts import HostFacts, Probe
from provision.inventory.resolved import EtcdMember, Inventory, Machine
from provision.text import counted, printable

#: The operator's word, with a name, that no other cluster needs the etcd.
UNKNOWN = "--other-clusters-unknown"
#: The option that names clusters whose workers may lose registrations.
OTHER = "--other-cluster"
#: How many clusters a line names.
NAMED = 20
#: Names that a host lists at most, and seconds for it to read the data.
LISTED, READ_SECONDS = 200, 80
_LABEL, _END, _UNREAD = "clusters", "end of clusters", "(part of the data cannot be read)"


@dataclass(frozen=True, slots=True)
class Others:
    """The other clusters, with their numbers of live workers; None: some may be live.

    ``own``: this cluster's AUTHORIZED workers. ``why``: why there may be more clusters; empty when
    there are not. ``state``, ``by``: when no read with a quorum says it, what is wrong with etcd,
    and whose data says it. ``asked``: the members that answered for themselves. ``remedy``: what
    helps to find out.
    """

    live: Mapping[str, int | None] = field(default_factory=dict)
    own: int = 0
    why: str = ""
    state: str = ""
    by: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    remedy: str = "start the members, or give etcd.auth.root_password"

    def unnamed(
        self, named: Collection[str], option: str, more: Collection[str] = ()
    ) -> dict[str, int | None]:
        """The clusters with live workers that ``named``, the value of ``option``, does not name.

        Raises :class:`UsageError` for a name that is neither here nor in ``more``.
        """
        if unknown := sorted(set(named).difference(self.live, more)):
            what = f"{option}: no other cluster in this etcd is called {unknown[0]}"
            raise UsageError(what, id="name-unknown")
        return {name: n for name, n in self.live.items() if n != 0 and name not in named}


@dataclass(frozen=True, slots=True)
class Harm:
    """What a plan does to live workers of other clusters.

    ``what`` follows the number of workers, ``remedy`` has a place for a cluster's name. ``idle``:
    what it does to a cluster without live workers; empty when that is nothing. ``option``
    names the clusters that the operator gives up; empty when there is none. ``word`` is the command
    with the option for an etcd that cannot be asked; empty when there is none.
    """

    what: str
    remedy: str
    option: str = ""
    idle: str = ""
    word: str = ""


def ask(inventory: Inventory, etcd: Etcd) -> Others:
    """What a read with a quorum says. Raises :class:`ProvisionError` when there is none.

    When there are more keys than are read, the clusters count that were read, and ``own`` is 0.
    """
    found = clusters.look(inventory, etcd)
    live = {c.name: c.live for c in found.clusters if c.inventory != clusters.OURS}
    own = sum(c.authorized for c in found.clusters if c.inventory == clusters.OURS)
    why = "the login may read the keys of this cluster only, not which other clusters there are"
    if found.cut:
        return Others(live, 0, f"not everything was read: {found.cut}", remedy=TOO_MUCH)
    return Others(live, own, "" if found.complete else why)


def look(inventory: Inventory, etcd: Etcd) -> Others:
    """As :func:`ask`. Without a quorum, the members are asked one by one. Never raises for etcd."""
    try:
        found = ask(inventory, etcd)
    except ProvisionError as error:
        state = "etcd serves no reads with a quorum"
        return _by_members(inventory, etcd, state, error.problems)
    if not any(found.live.values()) and health.observe(etcd).parted:
        return _by_members(inventory, etcd, "the members form more than one cluster", ())
    return found


def _by_members(
    inventory: Inventory, etcd: Etcd, state: str, problems: Iterable[Problem]
) -> Others:
    local = clusters.look_locally(inventory, etcd)
    if not local.asked:
        why = "no member could be asked for them"
        return Others({}, 0, why, state, problems=local.problems or tuple(problems))
    why = ""
    if len(local.asked) < etcd.cluster.quorum:
        # Members that were cut off do not know clusters that came later.
        by = ", ".join(local.asked)
        why = f"{state}, and only {by} could be asked: less than a majority of the members"
    asked = local.asked
    return Others(local.live, 0, why, state, asked, asked, local.problems)


def with_data(
    inventory: Inventory,
    etcd: Etcd,
    found: Others,
    facts: Mapping[Machine, HostFacts],
    *,
    serving: bool,
    more: Collection[str] = (),
) -> Others:
    """``found``, with the clusters in the data of the members that could not be asked. What a
    quorum has said stays as it is.

    The data may name clusters that are long gone. ``facts`` are of the members' hosts: others are
    left out. ``serving``: a majority of members runs, so workers may be live that no data here
    names; then ``found`` stays as it is. ``more`` are names from elsewhere.
    """
    if not found.why or not found.state or serving:
        return found
    silent = [
        m
        for m in etcd.cluster.members
        if m.machine in facts
        and m.name not in found.asked
        and desired.has_data(m, facts[m.machine])
    ]
    probes = {m.machine: Probe(commands={_LABEL: names_in(m)}) for m in silent}
    said = gather.gather_facts(etcd.fleet, probes)[0] if probes else {}
    names, unread, long = {*more}, [], []
    for m in silent:
        *lines, end = (_said(said, m)).splitlines() or [""]
        names |= {printable(line, registrations.ID_LIMIT) for line in lines[:LISTED]}
        if end != _END:
            unread.append(m.name)
        elif len(lines) > LISTED:
            long.append(m.name)
    live = dict.fromkeys(sorted(names - {inventory.cluster}), None) | dict(found.live)
    by = (*found.by, *(m.name for m in silent if m.name not in unread))
    why = f"the data of {', '.join(long)} names more than {LISTED} clusters" if long else ""
    why = f"the data of {', '.join(unread)} could not be read" if unread else why
    return replace(found, live=live, why=why, by=by)


def names_in(member: EtcdMember) -> str:
    """A shell command that prints the names of the Alluxio clusters in a member's data, and then
    :data:`_END`. Zero bytes end a line, so no line is as long as the file."""
    data = "./member"
    roots = "|".join(r.strip("/") for r in (registrations.AUTHORIZED_ROOT, registrations.LIVE_ROOT))
    only = f"LC_ALL=C grep -aoE '/({roots})/[^/[:cntrl:]]{{1,255}}/'"
    files = f"{data}/snap/db {data}/wal/*.wal"
    script = (
        f'for f in {files}; do [ ! -e "$f" ] || head -c 1 "$f" >/dev/null || exit 0; done\n'
        # A disk that fails in the middle must not hide a name: it is shown as one.
        f'for f in {files}; do [ ! -e "$f" ] || tr "\\000" "\\n" <"$f" || '
        f"echo {shlex.quote(f'/DHT/{_UNREAD}/')}; done | {only} | "
        f"cut -d / -f 3 | sort -u | head -n {LISTED + 1}\necho {shlex.quote(_END)}"
    )
    return safely.as_owner(member.data_dir, script, seconds=READ_SECONDS)


def _said(said: Mapping[Machine, HostFacts], member: EtcdMember) -> str:
    facts = said.get(member.machine)
    return "" if facts is None else facts.commands.get(_LABEL, "")


def runs(facts: Mapping[Machine, HostFacts], members: Sequence[EtcdMember]) -> bool:
    """Whether etcd runs on a majority of the hosts, as far as systemd says."""
    up = [
        m for m in members if (f := facts.get(m.machine)) and f.unit(layout.UNIT).active == "active"
    ]
    return 2 * len(up) > len(members)


def require(
    etcd: Etcd,
    others: Others,
    harm: Harm,
    named: Collection[str] = (),
    *,
    agreed: bool = False,
    more: Collection[str] = (),
) -> tuple[Problem, ...]:
    """Warnings about other clusters; the plan may go on.

    ``named`` is the value of ``harm.option``, ``more`` are names that it may have, too. ``agreed``:
    the operator has given :data:`UNKNOWN`. Raises :class:`PreflightFailed` when live workers of
    another cluster would be harmed, and when this cannot be found out.
    """
    live = others.unnamed(named, harm.option, more)
    sure = not others.state
    if live and sure:
        raise PreflightFailed(
            "other clusters use this etcd",
            _told(others, live, harm),
            id="other-clusters-live",
        )
    notes: list[Problem] = []
    by = ", ".join(others.by)
    if live:
        listed = ", ".join(_counted(name, n) for name, n in [*live.items()][:NAMED])
        more_of = f" and {len(live) - NAMED} more" if len(live) > NAMED else ""
        there = (
            f"by the data of {by} there are other clusters" if by else "there are other clusters"
        )
        notes += _not_known(others, f"{others.state}, and {there}: {listed}{more_of}", harm, agreed)
    elif others.why:
        notes += _not_known(others, others.why, harm, agreed)
    elif not sure:
        known = f"by the data of {by} no other cluster has live workers"
        what = f"{others.state}; {known if by else 'no data here names another cluster'}"
        notes.append(Problem("etcd", what, "", "warning", id="other-clusters-unknown"))
    notes += (p for p in _told(others, live, harm) if p.severity == "warning")
    passed(etcd)
    return tuple(notes)


def of_data(
    inventory: Inventory,
    etcd: Etcd,
    facts: Mapping[Machine, HostFacts],
    named: Sequence[str],
    word: str,
    *,
    begun: bool,
    more: Collection[str] = (),
) -> tuple[Problem, ...]:
    """As :func:`require`, for a plan that takes etcd's data back to an earlier state.

    ``named`` is the value of :data:`OTHER`. ``word`` is the value of :data:`UNKNOWN`, the cluster's
    name. ``begun``: an earlier run has asked, and has stopped members since; then nobody is asked
    again. ``more``: the clusters in the data that is to come.
    """
    agreed = agrees(inventory, word)
    if begun:
        passed(etcd)
        return ()
    found = look(inventory, etcd)
    serving = runs(facts, etcd.cluster.members)
    found = with_data(inventory, etcd, found, facts, serving=serving, more=more)
    harm = Harm(
        "in this etcd, which lose what they have registered since that time",
        "stop them, or restart them afterwards and add --other-cluster {}",
        OTHER,
        word=word_of(inventory),
    )
    return require(etcd, found, harm, named, agreed=agreed, more=more)


def agrees(inventory: Inventory, word: str) -> bool:
    """Whether the operator has given ``word``, the value of :data:`UNKNOWN`. Raises
    :class:`UsageError` when it is not the cluster's name."""
    if word not in ("", inventory.cluster):
        what = f"{UNKNOWN} names the cluster, {inventory.cluster}, not {word!r}"
        raise UsageError(what, id="consent-missing")
    return bool(word)


def word_of(inventory: Inventory) -> str:
    """The option and its value, for a remedy."""
    return f"{UNKNOWN} {inventory.cluster}"


def passed(etcd: Etcd) -> None:
    """Note that the question was answered: the plan may go on."""
    etcd.learned.passed.add(Guard.OTHER_CLUSTERS)


def _counted(name: str, count: int | None) -> str:
    return f"{name} ({_workers(count)})"


def _workers(count: int | None) -> str:
    return "perhaps with live workers" if count is None else counted(count, "live worker")


def _told(others: Others, live: Collection[str], harm: Harm) -> list[Problem]:
    """An error for each cluster in ``live``, a warning for each other one that is named."""
    told = []
    for name, count in others.live.items():
        if count == 0:
            what = f"has registrations here, none live{harm.idle}"
            idle = Problem(f"cluster {name}", what, severity="warning", id="other-clusters-live")
            told += [idle] if harm.idle and not others.why else []
        elif name in live:
            told.append(_live(name, count, harm))
        else:
            told.append(replace(_live(name, count, harm), severity="warning", remedy=""))
    return told


def _live(name: str, count: int | None, harm: Harm) -> Problem:
    has = "perhaps has live workers" if count is None else f"has {counted(count, 'live worker')}"
    remedy = harm.remedy.format(name)
    return Problem(f"cluster {name}", f"{has} {harm.what}", remedy, id="other-clusters-live")


def _not_known(others: Others, why: str, harm: Harm, agreed: bool) -> list[Problem]:
    """A warning when the operator has ``agreed``. Otherwise it raises :class:`PreflightFailed`."""
    if agreed:
        what = f"other clusters are not looked for ({UNKNOWN}): {why}"
        return [Problem("etcd", what, "", "warning", id="other-clusters-unknown")]
    remedy = others.remedy
    if harm.option and others.live:
        remedy += f"; for clusters that you give up: {harm.option} NAME"
    if harm.word:
        remedy += f"; if no other cluster needs this etcd: {harm.word}"
    raise PreflightFailed(
        "it is not known whether other clusters use this etcd",
        [*others.problems, Problem("etcd", why, remedy, id="other-clusters-unknown")],
        id="other-clusters-unknown",
    )
