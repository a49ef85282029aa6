"""The end of a change of the members' client URLs: the workers are told, then the former URLs go.

``deploy-etcd`` first changes the members one by one. They listen at the declared and at the former
URLs (:mod:`provision.etcd.member.listeners`), so no client is cut off. Then the workers of the
inventory get the new endpoints, one group at a time. Only then the members drop the former URLs.
The members' configuration shows how far a killed run has come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from provision.dataclass import dataclass
from provision.engine.plan import Gate, Step
from provision.errors import Problem, ProvisionError, Unhealthy
from provision.etcd.cluster import gates
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.rolling import rolling_step
from provision.etcd.member import listeners
from provision.host.diff import Change
from provision.host.effects import Effect
from provision.inventory.resolved import EtcdMember, Inventory
from provision.plans.etcd.state.observe import EtcdState
from provision.text import verb

_UNKNOWN = "other clusters in this etcd cannot be listed"
REPEAT = "run invoke deploy-etcd again"


@dataclass(frozen=True, slots=True)
class Options:
    """How the operator wants the former URLs to go."""

    #: False leaves the workers' endpoints as they are; then the former URLs stay, too.
    workers: bool = True
    #: Other clusters in this etcd, whose live workers may lose a former URL.
    lock_out: Sequence[str] = ()
    #: The operator's word that no other cluster uses a former URL, when nobody can say.
    agreed: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """The last steps of the change. ``left``: why former URLs stay."""

    steps: tuple[Step, ...] = ()
    notes: tuple[Problem, ...] = ()
    left: tuple[Problem, ...] = ()


def former(
    etcd: Etcd, members: Sequence[EtcdMember], observed: EtcdState
) -> dict[str, tuple[str, ...]]:
    """The former client URLs of ``members``, by name; members without one are left out."""
    cluster, facts = etcd.cluster, observed.facts
    every = {m.name: listeners.former_urls(cluster, m, facts[m.machine]) for m in members}
    return {name: tuple(urls) for name, urls in every.items() if urls}


def end(
    inventory: Inventory,
    etcd: Etcd,
    observed: EtcdState,
    urls: Mapping[str, Sequence[str]],
    todo: Mapping[str, tuple[Change, ...]],
    waits_for: str,
    options: Options,
) -> Ending:
    """The workers' new endpoints, and then the end of the former ``urls``.

    ``todo`` are the changes that drop them, by the member's name. ``waits_for``: what comes first,
    in another run; then the former URLs stay. ``etcd`` is the handle on the members that stay.
    """
    if not urls or observed.running is None:
        return Ending()
    if waits_for:
        return Ending(left=(_stays(urls, waits_for, REPEAT),))
    steps: list[Step] = []
    notes: list[Problem] = []
    alluxio = inventory.alluxio
    if alluxio is not None and alluxio.membership.in_etcd:
        if not options.workers:
            why = "the workers still use it (--no-workers)"
            return Ending(left=(_stays(urls, why, "run invoke deploy-etcd without --no-workers"),))
        from provision.plans.alluxio import endpoints

        told = endpoints.steps(inventory, alluxio, etcd, observed.running.cluster)
        steps += told.steps
        notes += told.notes
        if not told.complete:
            why = "not every worker has the new endpoints"
            left = (_stays(urls, why, f"see the notes, then {REPEAT}"),)
            return Ending(tuple(steps), tuple(notes), left)
    plain = any(url.startswith("http:") for several in urls.values() for url in several)
    if plain:
        found = _others(inventory, etcd, options)
        if isinstance(found, str):
            remedy = "give their inventories the new endpoints; or --lock-out CLUSTER cuts it off"
            if found.startswith(_UNKNOWN):
                from provision.plans.etcd.state.other_clusters import word_of

                remedy = f"if no other cluster uses it: {word_of(inventory)}"
            return Ending(tuple(steps), tuple(notes), (_stays(urls, found, remedy),))
        notes += found
    notes.append(_cut(urls))
    cluster = etcd.cluster
    # From here on each member is reached at its declared URL.
    declared = replace(cluster, members=tuple(replace(m, serves_at=None) for m in cluster.members))
    reached = etcd.with_cluster(declared)
    going = [m for m in declared.members if m.name in urls and todo.get(m.name)]
    for member in gates.order(going, observed.health):
        title = f"{member.name} no longer listens at {' and '.join(urls[member.name])}"
        before = gates.require_others_healthy(reached, member)
        changes = todo[member.name]
        if plain:
            before = _nobody_new(before, inventory, reached, options)
            changes = tuple(replace(c, effects=(*c.effects, Effect.CLIENTS)) for c in changes)
        steps.append(rolling_step(reached, member, title, changes, before=before))
    return Ending(tuple(steps), tuple(notes))


def _others(inventory: Inventory, etcd: Etcd, options: Options) -> str | list[Problem]:
    """Why live workers of other clusters may still use the former URLs; or warnings about those
    that the operator cuts off."""
    from provision.plans.etcd.state import other_clusters

    try:
        found = other_clusters.ask(inventory, etcd)
    except ProvisionError as error:
        if not options.agreed:
            return f"{_UNKNOWN}: {error.message}"
        found = other_clusters.look(inventory, etcd)
    staying = found.unnamed(options.lock_out, "--lock-out")
    if staying and not found.state:
        live = ", ".join(f"{name} ({count} live)" for name, count in staying.items())
        return f"workers of other clusters may use it: {live}"
    if found.why and not options.agreed:
        return f"{_UNKNOWN}: {found.why}"
    harm = other_clusters.Harm("that lose etcd if they use a former URL", "", "--lock-out")
    agreed = options.agreed
    return list(other_clusters.require(etcd, found, harm, options.lock_out, agreed=agreed))


def _nobody_new(gate: Gate, inventory: Inventory, etcd: Etcd, options: Options) -> Gate:
    """``gate``, and no other cluster has come since the plan was made: workers may have started
    while the members and this inventory's workers were changed."""

    def check() -> None:
        gate.check()
        found = _others(inventory, etcd, options)
        if isinstance(found, str):
            problem = Problem(etcd.cluster.name, found, REPEAT, id="client-url-former")
            raise Unhealthy("the former client URLs stay", [problem], id="client-url-former")

    return Gate(f"{gate.title}; etcd shows no other cluster that uses the former URLs", check)


def _every(urls: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(dict.fromkeys(url for several in urls.values() for url in several))


def _stays(urls: Mapping[str, Sequence[str]], why: str, remedy: str) -> Problem:
    what = f"{verb(urls, 'listens', 'listen')} at former client URLs, too ({_every(urls)}): {why}"
    return Problem(", ".join(urls), what, remedy, "warning", id="client-url-former")


def _cut(urls: Mapping[str, Sequence[str]]) -> Problem:
    what = f"clients that use {_every(urls)} lose etcd at the end of this plan"
    remedy = "give Alluxio's clients their new configuration: invoke render-client-config"
    return Problem(", ".join(urls), what, remedy, "warning", id="client-url-former")
