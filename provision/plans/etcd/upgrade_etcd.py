"""``upgrade-etcd``: one minor release at a time, one member at a time, the leader last.

The order follows etcd's "Upgrading etcd clusters": all members healthy, a snapshot, then each
member in turn. The next minor release starts only when the whole cluster works by the release
before. The members' versions show how far an interrupted upgrade has come, so a second run goes on.
"""

from __future__ import annotations

import contextlib
import http.client
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from provision import artifacts, wait
from provision.artifacts import Artifact
from provision.dataclass import dataclass
from provision.engine.plan import Action, Gate, HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem, ProvisionError, Unhealthy, UsageError
from provision.etcd.cluster import gates, hashes, health, metrics, reconfigure
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth
from provision.etcd.cluster.rolling import rolling_step
from provision.etcd.member import desired, layout, tarball
from provision.etcd.pki import imported, tls
from provision.host import gather, preflight
from provision.host.diff import Change, changes
from provision.host.facts import Probe
from provision.host.predict import after, without
from provision.host.resources import File, Resource, Tree
from provision.inventory import etcd_releases
from provision.inventory.model import Source, minor, version_tuple
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plans.etcd import before_3_6, before_3_7
from provision.plans.etcd.data import backup_etcd
from provision.plans.etcd.members.declared_changes import declared_moves
from provision.plans.etcd.state.observe import EtcdState
from provision.text import document, verb

#: Seconds until the leader has seen all members' versions and raises the cluster's version. It
#: looks every four seconds (etcd's ``monitorVersionInterval`` is five).
VERSION_WITHIN = 60.0
#: Seconds until a member may be restarted; in a downgrade the member first rewrites its data.
READY_WITHIN = 90.0


@dataclass(frozen=True, slots=True)
class Release:
    version: str
    source: Source
    artifact: Artifact


def plan(
    inventory: Inventory,
    etcd: Etcd,
    observed: EtcdState,
    to: str,
    *,
    backup: Path | None = None,
    write: bool,
) -> Plan:
    """The steps from the running releases to release ``to``; empty when every member runs ``to``.

    Raises :class:`PreflightFailed` when a member is not healthy, an alarm is on, the members differ
    from the inventory, or the releases at hand give no way to ``to``.
    """
    cluster = etcd.cluster
    sources = _sources(cluster)
    _require_release(to)
    versions = _versions(cluster, observed, sources)
    works_by = _works_by(etcd, observed)
    way = etcd_releases.path([v for v in versions.values() if v], to, list(sources), works_by)
    if not way and all(versions.values()):
        return Plan("upgrade-etcd", cluster.name, notes=observed.warnings)
    way = way or (to,)
    unfit = _unfit(cluster, observed, way)
    _refuse_removed_settings(cluster, way)
    hashes.require_equal(observed.health, etcd)
    cache = artifacts.default_cache()
    tarballs = artifacts.fetch_all([sources[v] for v in way], cache)
    preflight.require(tarball.problems(tarballs))
    hops = [Release(v, sources[v], found) for v, found in zip(way, tarballs, strict=True)]
    lowest = min((v for v in versions.values() if v), key=version_tuple)
    ca = tls.authority(cluster, observed.facts, write=write)
    # An upgrade does not install new certificates.
    facts = {machine: imported.as_installed(f) for machine, f in observed.facts.items()}
    observed = replace(observed, facts=facts)
    tls.require_settled(cluster, observed.facts, ca)
    told = tls.require(cluster, cluster.members, observed.facts, ca)
    made = Steps(etcd, observed, ca, dict(versions))
    made.upload(hops)
    before = replace(inventory, etcd=replace(cluster, version=lowest))
    backup_step = backup_etcd.step(before, etcd.with_cluster(before.etcd), backup)
    done = before_3_6.restarted(cluster, observed.health, made.facts)
    made.require_ready(works_by, way, done)
    made.steps.append(backup_step)
    made.hop(hops, works_by, done, made.with_v2(works_by, way))
    notes = [*observed.warnings, *told, *unfit]
    guards = tuple(m.machine for m in cluster.members)
    return Plan("upgrade-etcd", cluster.name, tuple(made.steps), tuple(notes), guards)


def cluster_version(etcd: Etcd, member: EtcdMember) -> tuple[int, int]:
    """The minor release that the cluster works by, from ``/version`` of ``member``.

    Raises :class:`Unhealthy`. gRPC has no call for it.
    """
    with etcd.member(member) as client:
        end = client.endpoint
        try:
            said = document(metrics.get(etcd.cluster, member, end, "/version")[1])
            return version_tuple(str(said["etcdcluster"]))[:2]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            where = member.place
            what = f"does not say which cluster version is in force: {error}"
            raise Unhealthy(
                f"{where}: {what}", [Problem(where, what, id="member-down")], id="member-down"
            ) from error


def to_3_6(works_by: tuple[int, int], release: str) -> bool:
    """Whether ``release`` begins to trust the v3 store, in a cluster that works by ``works_by``."""
    return works_by < etcd_releases.TRUSTS_V3_STORE <= version_tuple(release)[:2]


def to_3_7(works_by: tuple[int, int], release: str) -> bool:
    """Whether ``release`` is the first without v2 requests, in a cluster that works by
    ``works_by``."""
    return works_by < etcd_releases.WITHOUT_V2 <= version_tuple(release)[:2]


class Steps:
    """The steps of an upgrade so far, with the state of the hosts after these steps."""

    def __init__(
        self,
        etcd: Etcd,
        observed: EtcdState,
        ca: tls.Ca | None,
        versions: dict[str, str | None],
    ) -> None:
        self.etcd, self.cluster, self.ca = etcd, etcd.cluster, ca
        self.steps: list[Step] = []
        self.facts = {m.name: observed.facts[m.machine] for m in self.cluster.members}
        self._versions = versions
        self._leader = observed.health.leader
        cluster_id = next((a.cluster_id for m in observed.health.members if (a := m.status)), 0)
        self._ids = {r.name: (cluster_id, r.id) for r in observed.health.registered}

    def upload(self, hops: Sequence[Release]) -> None:
        """Upload every release to every host, before anything is restarted."""
        trees = [self._tree(hop) for hop in hops]
        note = File(before_3_6.path(self.cluster), None)
        there = gather.require_facts(
            self.etcd.fleet,
            {m.machine: Probe(resources=(*trees, note)) for m in self.cluster.members},
        )
        hosts = []
        for m in self.cluster.members:
            known = self.facts[m.name]
            self.facts[m.name] = replace(known, paths={**known.paths, **there[m.machine].paths})
            todo = tuple(c for c in changes(trees, self.facts[m.name]) if c.upload is not None)
            self.facts[m.name] = after(trees, self.facts[m.name])
            if todo:
                hosts.append(HostChanges(m.name, m.machine, todo))
        if hosts:
            self.steps.append(Step("put the releases on the members' hosts", tuple(hosts)))

    def require_ready(
        self, works_by: tuple[int, int], way: Sequence[str], done: Collection[str]
    ) -> None:
        """Check that the members are ready for 3.6, as far as known before anything changes.

        Where the running release cannot look for v2 data, the releases that are uploaded first do
        it. Raises :class:`PreflightFailed`.
        """
        if to_3_6(works_by, way[0]):
            _refuse_unprepared(self.cluster, self._versions, done)
            _refuse_v2_data(self.etcd, self._versions)
        elif any(to_3_6(works_by, release) for release in way):
            self.look_for_v2_data(way[0])

    def hop(
        self,
        hops: Sequence[Release],
        works_by: tuple[int, int],
        done: Collection[str],
        with_v2: Collection[str],
    ) -> None:
        """Bring a cluster that works by ``works_by`` through all of ``hops``.

        ``done``: the members that were restarted once more already. ``with_v2``: the members with a
        log that may hold v2 requests (:mod:`provision.plans.etcd.before_3_7`).
        """
        for number, hop in enumerate(hops):
            if etcd_releases.is_downgrade(works_by, hop.version):
                self.enable_downgrade(hop)
            elif to_3_6(works_by, hop.version):
                if number:
                    done = ()  # the members got a release of 3.5 after the note
                    self.look_for_v2_data(hops[number - 1].version)
                self.restart_again(done)
            elif to_3_7(works_by, hop.version):
                self.write_snapshots(with_v2 if not number else self._versions)
            self.roll(hop)
            works_by = version_tuple(hop.version)[:2]

    def with_v2(self, works_by: tuple[int, int], way: Sequence[str]) -> frozenset[str]:
        """The members with a log that may hold v2 requests. A member without a clear answer counts.

        The members are asked only before the first hop, and only when that hop goes to 3.7.
        """
        if not to_3_7(works_by, way[0]):
            return frozenset()
        return frozenset(name for name, said in self._ask_of_v2().items() if said != "none")

    def _ask_of_v2(self) -> Mapping[str, str]:
        members = self.cluster.members
        asked = {m.machine: {"v2": before_3_7.v2_requests(self.cluster, m)} for m in members}
        probes = {machine: Probe(commands=c) for machine, c in asked.items()}
        told = gather.require_facts(self.etcd.fleet, probes)
        return {m.name: told[m.machine].commands.get("v2", "").strip() for m in members}

    def look_for_v2_data(self, release: str) -> None:
        """Add the look for v2 data. Every host has ``release``; its etcdutl looks."""
        gate = before_3_6.no_v2_data(self.etcd, release)
        self.steps.append(Step("look for v2 data: etcd 3.6 does not start with it", before=gate))

    def restart_again(self, done: Collection[str]) -> None:
        """Restart every member once more on the release that it runs, the leader last. Each restart
        is noted on the member's host (see :mod:`provision.plans.etcd.before_3_6`)."""
        todo = [m for m in self.cluster.members if m.name not in done]
        for member, release in self._in_turn(todo):
            self.steps.append(
                rolling_step(
                    self.etcd,
                    member,
                    f"{member.name}: restart etcd {release} once more, to repair its lists",
                    self._restart(member),
                    before=_undisturbed(self.etcd, member, release),
                    after=_runs(self.etcd, member, release, whole=False),
                )
            )
            self.steps.append(
                Step(
                    f"record that {member.name} was restarted once more",
                    (HostChanges(member.name, member.machine, self._note(member)),),
                )
            )

    def write_snapshots(self, names: Collection[str]) -> None:
        """Let each of ``names`` that runs 3.6 write a snapshot, the leader last."""
        todo = [
            m
            for m in self.cluster.members
            if m.name in names
            and (v := self._versions[m.name])
            and version_tuple(v)[:2] < etcd_releases.WITHOUT_V2
        ]
        for member, release in self._in_turn(todo):
            self.steps.append(
                rolling_step(
                    self.etcd,
                    member,
                    f"{member.name}: etcd {release} writes a snapshot for 3.7 to start from",
                    self._snapshot_often(member, release),
                    before=_undisturbed(self.etcd, member, release),
                    after=before_3_7.snapshot_written(self.etcd, member),
                )
            )

    def _in_turn(self, members: Sequence[EtcdMember]) -> Iterator[tuple[EtcdMember, str]]:
        """Each of ``members`` with the release that it runs, the leader last. A step lets another
        member take the lead first."""
        todo = sorted(members, key=lambda m: m.name == self._leader)
        for number, member in enumerate(todo):
            others = [*todo[:number], *(m for m in self.cluster.members if m != member)]
            if member.name == self._leader and others:
                self._hand_over(member, others[0])
            release = self._versions[member.name]
            # The callers have checked it, or an earlier roll has set it.
            assert release is not None
            yield member, release

    def enable_downgrade(self, hop: Release) -> None:
        etcd = self.etcd
        lower = "{}.{}.0".format(*version_tuple(hop.version)[:2])
        self.steps.append(
            Step(
                f"enable the downgrade to {lower[:-2]}",
                (),
                (
                    Action(
                        f"etcd: enable the downgrade to {lower[:-2]}",
                        lambda: reconfigure.with_leader(etcd, lambda c: c.downgrade_enable(lower)),
                    ),
                ),
                before=_undisturbed(etcd, None),
            )
        )

    def roll(self, hop: Release) -> None:
        """Install ``hop`` on every member that does not run it, the leader last."""
        behind = [m for m in self.cluster.members if self._versions[m.name] != hop.version]
        behind.sort(key=lambda m: (self._versions[m.name] is not None, m.name == self._leader))
        back = min((v for v in self._versions.values() if v), key=version_tuple)
        for number, member in enumerate(behind, 1):
            if member.name == self._leader and len(self.cluster.members) > 1:
                done = [m for m in self.cluster.members if m not in behind] + behind[: number - 1]
                self._hand_over(member, done[0])
            last = number == len(behind)
            self.steps.append(
                rolling_step(
                    self.etcd,
                    member,
                    f"{member.name}: etcd {self._versions[member.name] or '(down)'} to "
                    f"{hop.version}",
                    self._changes(hop, member),
                    before=_undisturbed(self.etcd, member, hop.version),
                    after=_runs(self.etcd, member, hop.version, whole=last, back=back),
                )
            )
            self._versions[member.name] = hop.version

    def _hand_over(self, leader: EtcdMember, to: EtcdMember) -> None:
        etcd = self.etcd
        self._leader = to.name
        self.steps.append(
            Step(
                f"{to.name} takes the lead from {leader.name}",
                (),
                (
                    Action(
                        f"etcd: make {to.name} the leader",
                        lambda: reconfigure.move_leadership_to(etcd, to),
                    ),
                ),
            )
        )

    def _changes(self, hop: Release, member: EtcdMember) -> tuple[Change, ...]:
        facts = self.facts[member.name]
        at = replace(self.cluster, version=hop.version, source=hop.source, downgrade=True)
        material = tls.material(at, member, facts, self.ca)
        wanted = desired.resources(at, member, hop.artifact, material, facts)
        found = changes(wanted, facts)
        note = before_3_6.path(self.cluster)
        self.facts[member.name] = after(wanted, facts)
        if note in facts.paths and version_tuple(hop.version)[:2] < etcd_releases.TRUSTS_V3_STORE:
            # The note is about the process before. This release may lose a promotion again.
            self.facts[member.name] = without(note, self.facts[member.name])
            return (Change(f"forget {note}", f"rm -f {shlex.quote(note)}"), *found)
        return found

    def _restart(self, member: EtcdMember) -> tuple[Change, ...]:
        facts = self.facts[member.name]
        pending = replace(facts, pending_restarts=facts.pending_restarts | {layout.UNIT})
        self.facts[member.name] = after([desired.unit(member)], pending)
        return changes([desired.unit(member)], pending)

    def _snapshot_often(self, member: EtcdMember, release: str) -> tuple[Change, ...]:
        """The configuration of 3.6 with one more setting, until 3.7's configuration is written."""
        facts = self.facts[member.name]
        at = replace(self.cluster, version=release)
        often = replace(member, settings={**member.settings, **before_3_7.OFTEN})
        material = tls.material(at, member, facts, self.ca)
        path = layout.config_file(self.cluster)
        wanted = [
            resource
            for resource in desired.resources(at, often, None, material, facts)
            if isinstance(resource, File) and resource.path == path
        ]
        restarted: list[Resource] = [*wanted, desired.unit(member)]
        found = changes(restarted, facts)
        self.facts[member.name] = after(restarted, facts)
        return found

    def _note(self, member: EtcdMember) -> tuple[Change, ...]:
        note = before_3_6.note(self.cluster, *self._ids[member.name])
        found = changes([note], self.facts[member.name])
        self.facts[member.name] = after([note], self.facts[member.name])
        return found

    def _tree(self, hop: Release) -> Tree:
        at = replace(self.cluster, version=hop.version, source=hop.source)
        folder = f"{self.cluster.install_dir}/{hop.version}"
        return Tree(folder, hop.artifact, proof=desired.proof(at), cluster=self.cluster.name)


def _require_release(text: str) -> None:
    try:
        version_tuple(text)
    except ValueError:
        raise UsageError(
            f"VERSION is a full etcd release such as 3.6.16, not {text!r}", id="option-invalid"
        ) from None


def _sources(cluster: EtcdCluster) -> Mapping[str, Source]:
    if cluster.source.package:
        raise PreflightFailed(
            "etcd comes from the hosts' own packages; this tool does not choose their "
            "releases. First declare a tarball of the running release in etcd.source and invoke "
            "deploy-etcd",
            id="command-not-applicable",
        )
    return {**cluster.releases, cluster.version: cluster.source}


def _versions(
    cluster: EtcdCluster, observed: EtcdState, sources: Mapping[str, Source]
) -> Mapping[str, str | None]:
    """The release of each member; None for a member that an interrupted upgrade has left down.

    Raises :class:`PreflightFailed` unless the cluster is fit for an upgrade.
    """
    if observed.running is None:
        raise PreflightFailed(
            "the cluster is not running",
            [
                *observed.health.problems,
                Problem("etcd", "is not running", "invoke deploy-etcd", id="etcd-not-running"),
            ],
            id="etcd-not-running",
        )
    declared = declared_moves(cluster, observed, ())
    if declared.moves or declared.left:
        raise PreflightFailed(
            "the members differ from the inventory: run invoke deploy-etcd first",
            [replace(p, severity="error") for p in declared.notes],
            id="deploy-first",
        )
    found: dict[str, str | None] = {}
    sick: list[EtcdMember] = []
    for m in observed.health.members:
        found[m.member.name] = m.status.version if m.healthy and m.status is not None else None
        if not m.healthy:
            sick.append(m.member)
    running = {v for v in found.values() if v}
    resuming = len(sick) == 1 and _left_by_an_upgrade(cluster, observed, sick[0], sources, running)
    alarms = any(m.status.alarms for m in observed.health.members if m.status is not None)
    if (sick and not resuming) or alarms or not running:
        problems = [p for p in observed.health.problems if p.severity == "error"]
        raise PreflightFailed(
            "the cluster is not healthy; an upgrade needs a healthy cluster",
            problems,
            id="quorum-at-risk",
        )
    return found


def _left_by_an_upgrade(
    cluster: EtcdCluster,
    observed: EtcdState,
    member: EtcdMember,
    sources: Mapping[str, Source],
    running: set[str],
) -> bool:
    """Whether a member is down because a run was killed while it changed the member."""
    facts = observed.facts[member.machine]
    unit = facts.text(layout.UNIT_PATH) or ""
    others = {f"{cluster.install_dir}/{v}/" for v in sources}
    in_between = bool(facts.pending_restarts) or len(running) > 1
    moved = any(path in unit for path in others) and not any(
        f"{cluster.install_dir}/{v}/" in unit for v in running
    )
    return in_between or moved


def _works_by(etcd: Etcd, observed: EtcdState) -> tuple[int, int]:
    member = next(m.member for m in observed.health.members if m.healthy)
    return cluster_version(etcd, member)


def _refuse_removed_settings(cluster: EtcdCluster, way: Sequence[str]) -> None:
    problems = []
    for m in cluster.members:
        for key, release in etcd_releases.removed_settings(m.settings, way).items():
            where = m.place
            what = f"etcd {release} has no setting {key}, and would ignore it silently"
            remedy = "remove it from etcd.settings, or give it its new name; then deploy-etcd"
            problems.append(Problem(where, what, remedy, id="setting-removed"))
    if problems:
        raise PreflightFailed(
            "some settings would have no effect after the upgrade",
            problems,
            id="setting-removed",
        )


def _unfit(cluster: EtcdCluster, observed: EtcdState, way: Sequence[str]) -> list[Problem]:
    """Warnings about releases on the way that are known to damage data.

    Raises :class:`PreflightFailed` when a release would damage data in this cluster, unless it is
    allowed.
    """
    holding = etcd_releases.states(len(cluster.members), auth=observed.health.asks_for_login)
    allowed = cluster.allow_corrupting_version
    found = [
        problem
        for release in way
        if (
            problem := etcd_releases.unfit_problem(
                release, "etcd.releases", holding, allowed=allowed
            )
        )
    ]
    if any(p.severity == "error" for p in found):
        raise PreflightFailed(
            "a release on the way is known to damage data",
            found,
            id="etcd-version-unfit",
        )
    return found


def _refuse_unprepared(
    cluster: EtcdCluster, versions: Mapping[str, str | None], done: Collection[str]
) -> None:
    """Raises :class:`PreflightFailed` when a member has 3.6 already and was not restarted before.

    A member that is down has no release for a restart: it is upgraded first, if it is ready.
    """
    early = [
        name
        for name, v in versions.items()
        if name not in done and (v is None or version_tuple(v)[:2] >= etcd_releases.TRUSTS_V3_STORE)
    ]
    if not early:
        return
    back = max((v for v in versions.values() if v and _is_3_5(v)), key=version_tuple, default="3.5")
    remedy = f"invoke upgrade-etcd {back}, then upgrade again"
    what = "was not restarted once more before etcd 3.6; etcd 3.6 may then treat voters as learners"
    raise PreflightFailed(
        f"{', '.join(early)} may have a member list that is not repaired",
        [Problem(cluster.member(name).place, what, remedy, id="upgrade-path") for name in early],
        id="upgrade-path",
    )


def _refuse_v2_data(etcd: Etcd, versions: Mapping[str, str | None]) -> None:
    """Raises :class:`PreflightFailed` when 3.6 would not start with the data of a member."""
    tools = {name: v for name, v in versions.items() if v is not None and _is_3_5(v)}
    try:
        before_3_6.require_no_v2_data(etcd, tools)
    except PreflightFailed as error:
        raise PreflightFailed(error.message, error.problems, id=error.id) from error


def _is_3_5(version: str) -> bool:
    return version_tuple(version)[:2] == (3, 5)


def _undisturbed(etcd: Etcd, member: EtcdMember | None, release: str = "") -> Gate:
    """The gate before ``member`` is restarted: the others are healthy, no alarm is on, and
    ``release`` can read the member's data."""

    def check() -> None:
        seen = gates.until(
            lambda: health.observe(etcd),
            lambda h: not _trouble(h, member, release),
            within=READY_WITHIN,
        )
        if trouble := _trouble(seen, member, release):
            raise Unhealthy(trouble, seen.problems, id="upgrade-stopped")
        if member is not None and seen.is_member_healthy(member.name):
            hashes.require_equal(seen, etcd)

    who = f"every member except {member.name}" if member is not None else "every member"
    return Gate(f"{who} healthy, no alarm", check)


def _trouble(seen: ClusterHealth, member: EtcdMember | None, release: str = "") -> str:
    for m in seen.members:
        # In a downgrade a member first rewrites its data; the older release would refuse to start
        # on the newer data. storageVersion shows when this is done ("Downgrading etcd clusters").
        data = minor(m.status.storage_version) if m.status is not None else None
        if m.member == member and release and data and data > version_tuple(release)[:2]:
            return f"{member.name} still has data of etcd {data[0]}.{data[1]}"
    sick = [m.member.name for m in seen.members if not m.healthy]
    alarms = sorted({a for m in seen.members if m.status is not None for a in m.status.alarms})
    if alarms:
        return health.raised(alarms)
    others = [name for name in sick if member is None or name != member.name]
    return f"{', '.join(others)} {verb(others)} not healthy" if others else ""


def _runs(
    etcd: Etcd,
    member: EtcdMember,
    version: str,
    *,
    whole: bool,
    back: str = "",
) -> Gate:
    """The gate after a restart: every member is healthy, and ``member`` runs ``version``.

    ``whole``: the cluster must also work by ``version``; the next minor release needs this.
    ``back``: the release to go back to when a voter shows as a learner.
    """

    def check() -> None:
        gates.all_healthy(etcd, member).check()
        require_voters(health.observe(etcd), version, back)
        with etcd.member(member) as client:
            now = client.status().version
        if now != version:
            raise Unhealthy(
                f"{member.name} runs etcd {now} after its upgrade to {version}",
                id="upgrade-stopped",
            )
        if whole:
            _wait_for_version(etcd, member, version_tuple(version)[:2])

    title = f"every member healthy, {member.name} runs {version}"
    if whole:
        title += ", and the cluster version matches"
    return Gate(title, check)


def require_voters(seen: ClusterHealth, version: str, back: str) -> None:
    """Raises :class:`Unhealthy` when a member takes a voter for a learner.

    From 3.6 on this matters: such a member does not start when it takes two voters for learners.
    These voters cannot be promoted, because they are voters in raft.
    """
    wrong = before_3_6.false_learners(seen)
    if not wrong:
        return
    remedy = f"invoke upgrade-etcd {back}, then invoke upgrade-etcd {version} again"
    if not back or not _is_3_5(back):
        remedy = "invoke remove-member {0}, and then invoke add-member {0}"
    raise Unhealthy(
        "a member lists voters as learners",
        [
            Problem(
                f"etcd member {by}",
                f"lists the voter {name} as a learner",
                remedy.format(name),
                id="voter-taken-for-learner",
            )
            for by, name in wrong
        ],
        id="voter-taken-for-learner",
    )


def _wait_for_version(etcd: Etcd, member: EtcdMember, wanted: tuple[int, int]) -> None:
    def look() -> tuple[int, int] | None:
        with contextlib.suppress(ProvisionError):
            return cluster_version(etcd, member)
        return None

    now = wait.until(
        *(look, lambda version: version == wanted, VERSION_WITHIN, 0.25),
        what=f"the cluster version {wanted[0]}.{wanted[1]}",
    )
    if now != wanted:
        said = ".".join(map(str, now)) if now else "not known"
        raise Unhealthy(
            f"all members run etcd {wanted[0]}.{wanted[1]}, but after {VERSION_WITHIN:g} s "
            f"the cluster version is {said}",
            id="upgrade-stopped",
        )
