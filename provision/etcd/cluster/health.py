"""Whether an etcd cluster works, seen through each of its members.

A member is healthy when a linearizable read through its own endpoint succeeds, as in
``etcdctl endpoint health``: such a read needs a leader and a quorum behind the member. When a
member's client port cannot be reached from here, the member is asked through SSH to its host.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from provision import progress
from provision.dataclass import dataclass
from provision.errors import Problem, ProvisionError, Unhealthy, UsageError
from provision.etcd.api.client import DEFAULT_TIMEOUT, EtcdClient, preload
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import Endpoint, Login, MemberStatus, RegisteredMember
from provision.etcd.cluster import groups
from provision.etcd.cluster.groups import Answer
from provision.etcd.cluster.reach import NoWay, Reach, Route, client_tls, describe, open_route
from provision.ids import Id
from provision.inventory import etcd_releases
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.text import counted, size, verb

if TYPE_CHECKING:
    from provision.etcd.cluster.served_certs import CertificateState

__all__ = [
    "ClusterHealth",
    "MemberHealth",
    "member_problems",
    "observe",
    "observing",
    "preload",
    "verify_write",
]

#: Share of the quota from which a database gets a warning: a full database takes no more writes.
NEARLY_FULL = 0.8


@dataclass(frozen=True, slots=True)
class MemberHealth:
    """One declared member. ``error``: why it is not healthy; ``seconds``: the duration of the
    read."""

    member: EtcdMember
    how: Route | None = None
    status: MemberStatus | None = None
    registered: tuple[RegisteredMember, ...] = ()
    seconds: float | None = None
    error: str = ""
    remedy: str = ""
    error_id: Id = "member-down"
    certificates: tuple[CertificateState, ...] = ()
    #: Whether the member asked for a login; None when unknown, or when the inventory has no login.
    authenticated: bool | None = None
    #: Whether the member serves, but refuses the login (or asks for a login that the inventory
    #: lacks).
    refused: bool = False
    #: For members before etcd 3.6: the quota in ``/metrics`` (bytes; negative: none), or why it
    #: cannot be read; None when nobody has asked.
    measured_quota: int | str | None = None
    #: Whether there is no way to it from here, neither directly nor through SSH.
    no_way: bool = False

    @property
    def healthy(self) -> bool:
        return not self.error

    @property
    def quota(self) -> int | None:
        """The quota in force (bytes); None without a quota, or when it is not known. The member
        reports it: the inventory's quota may not be in force yet."""
        told = self._told_quota
        return told if told is not None and told > 0 else None

    @property
    def quota_known(self) -> bool:
        return self._told_quota is not None

    @property
    def _told_quota(self) -> int | None:
        if self.status is not None and self.status.quota:
            return self.status.quota
        return self.measured_quota if isinstance(self.measured_quota, int) else None

    @property
    def answer(self) -> Answer | None:
        """The member's answer about itself, for :mod:`groups`; None when it does not answer."""
        status = self.status
        if status is None:
            return None
        return Answer(
            cluster_id=status.cluster_id,
            member_id=status.member_id,
            term=status.raft_term,
            index=status.raft_index,
            revision=status.revision,
            leader=status.leader,
            members=frozenset(r.id for r in self.registered),
            serves=None if self.refused else self.healthy,
            listed=frozenset(
                text for r in self.registered for text in (r.name, *r.peer_urls) if text
            ),
        )


@dataclass(frozen=True, slots=True)
class ClusterHealth:
    """Every declared member's health, and the facts from all their answers together."""

    cluster: EtcdCluster
    members: tuple[MemberHealth, ...]

    @property
    def quorum(self) -> int:
        """How many voters make a quorum. The voters in etcd count, if etcd answers; the inventory
        may declare more, or fewer. For an external etcd the endpoints are counted."""
        if self.cluster.external:
            return self.cluster.quorum
        voters = sum(not r.is_learner for r in self.registered)
        return voters // 2 + 1 if voters else self.cluster.quorum

    @property
    def healthy_count(self) -> int:
        return sum(m.healthy for m in self.members)

    @property
    def all_healthy(self) -> bool:
        return self.healthy_count == len(self.members)

    @property
    def established(self) -> bool:
        """Whether a running cluster exists: some member answered."""
        return any(m.status is not None for m in self.members)

    @property
    def alarms(self) -> frozenset[str]:
        """The kinds of alarm that stand. Every member reports all alarms of the cluster (``Status``
        of etcd's ``v3rpc/maintenance.go``), also alarms about other members."""
        return frozenset(a for m in self.members if m.status is not None for a in m.status.alarms)

    @property
    def registered(self) -> tuple[RegisteredMember, ...]:
        """The members in etcd: from the leader's list, or else from a member that answered."""
        for m in self.members:
            if m.registered and m.status is not None and m.status.is_leader:
                return m.registered
        return next((m.registered for m in self.members if m.registered), ())

    @property
    def leader(self) -> str | None:
        """The declared name of the leader, when the members that know one agree on it."""
        known = {m.status.leader for m in self.members if m.status is not None and m.status.leader}
        if len(known) != 1:
            return None
        for m in self.members:
            if m.status is not None and m.status.member_id in known:
                return m.member.name
        return next((r.name or None for r in self.registered if r.id in known), None)

    def role(self, m: MemberHealth) -> str:
        """``leader``, ``follower`` or ``learner``; ``-`` for a member that did not answer."""
        if m.status is None:
            return "-"
        if m.member.name == self.leader:
            return "leader"
        return "learner" if m.status.is_learner else "follower"

    @property
    def revision(self) -> int | None:
        """The newest revision that a member has seen."""
        return max((m.status.revision for m in self.members if m.status is not None), default=None)

    @property
    def parted(self) -> tuple[groups.Group, ...]:
        """The clusters that the members' answers show, when there are more than one."""
        formed = self._groups
        serving = [g for g in formed if g.serves is not False]
        ids = {g.cluster_id for g in formed}
        newer = len(serving) == 1 and groups.newer_than(serving[0], formed)
        return formed if len(ids) > 1 or len(serving) > 1 or newer else ()

    @property
    def unseen(self) -> groups.Unseen | None:
        """Set when members that do not answer may be the cluster instead of the members that
        serve."""
        serving = [g for g in self._groups if g.serves]
        if self.cluster.external or self.parted or len(serving) != 1:
            return None
        return groups.unseen(serving[0], self._seen)

    @property
    def _seen(self) -> tuple[groups.Seen, ...]:
        return tuple(
            groups.Seen(
                m.member.name,
                m.answer,
                looked=False,
                refuses=m.refused,
                peer_url=m.member.peer_url,
            )
            for m in self.members
        )

    @property
    def _groups(self) -> tuple[groups.Group, ...]:
        return groups.form([m for m in self._seen if m.answer is not None])

    @property
    def problems(self) -> list[Problem]:
        """All present problems and problems to come, the worst first within a member."""
        found: list[Problem] = []
        for m in self.members:
            found.extend(member_problems(self.cluster, m))
        return found + _disagreements(self) + self.auth_problems + self.unfit_releases

    @property
    def asks_for_login(self) -> bool:
        """Whether authentication is on, or declared in the inventory."""
        return bool(self.cluster.auth.enabled) or any(m.authenticated for m in self.members)

    @property
    def releases(self) -> tuple[tuple[str, str], ...]:
        """The members that answered, each with its release."""
        return tuple(
            (m.member.name, m.status.version) for m in self.members if m.status is not None
        )

    @property
    def unfit_releases(self) -> list[Problem]:
        """Warnings about running releases that are known to damage data."""
        voters = sum(not r.is_learner for r in self.registered) or len(self.members)
        holding = etcd_releases.states(voters, auth=self.asks_for_login)
        running = dict.fromkeys(release for _, release in self.releases)
        told = (etcd_releases.unfit_problem(r, "etcd", holding, allowed=True) for r in running)
        return [problem for problem in told if problem is not None]

    @property
    def auth_problems(self) -> list[Problem]:
        """Problems where authentication differs from the inventory."""
        wanted = self.cluster.auth.enabled
        found = next((m.authenticated for m in self.members if m.authenticated is not None), None)
        if None in (wanted, found) or wanted is found:
            return []
        describe = ("on", "enable-auth") if wanted else ("off", "disable-auth")
        what = f"authentication is {'on' if found else 'off'}, the inventory says {describe[0]}"
        return [Problem("etcd", what, f"run invoke {describe[1]}", id="auth-differs")]

    def is_member_healthy(self, name: str) -> bool:
        """Whether the member with that name is healthy; False for an undeclared member."""
        return any(m.healthy for m in self.members if m.member.name == name)


def observe(
    etcd: Reach,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    certificates: bool = False,
    quotas: bool = False,
) -> ClusterHealth:
    """Ask all members at the same time; ``timeout`` (seconds) limits each call. Never raises for a
    member: its failure is in its :class:`MemberHealth`.

    ``certificates``: also look at the certificates of the members' TLS listeners. ``quotas``: also
    read the quota in force from members that do not report it in ``Status`` (before etcd 3.6).
    """
    seen = observing(etcd, timeout=timeout, certificates=certificates, quotas=quotas)
    by_name = {m.member.name: m for m in seen}
    return ClusterHealth(etcd.cluster, tuple(by_name[m.name] for m in etcd.cluster.members))


def observing(
    etcd: Reach,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    certificates: bool = False,
    quotas: bool = False,
) -> Generator[MemberHealth, None, None]:
    """As :func:`observe`, but yields one member at a time, in the order of the answers.

    Closing the generator early does not wait for the members that have not answered.
    """
    preload()
    login, members = etcd.credentials, etcd.cluster.members
    pool = ThreadPoolExecutor(len(members), "etcd")
    names = [m.name for m in members]
    with progress.waiting("etcd's members", names=names) as shown:
        # One by one: a generator's caller goes on meanwhile.
        def observe_one(m: EtcdMember) -> MemberHealth:
            with progress.part_of(shown, m.name):
                return _observe(etcd, m, timeout, login, certificates, quotas)

        try:
            for done in as_completed([pool.submit(observe_one, m) for m in members]):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def verify_write(
    etcd: Reach, member: EtcdMember | None = None, *, timeout: float = DEFAULT_TIMEOUT
) -> None:
    """A quorum write, and a read back, through ``member``, or through all members at the same time.

    Raises :class:`Unhealthy` with all failures.
    """
    members = etcd.cluster.members if member is None else (member,)

    def write(m: EtcdMember) -> list[Problem]:
        try:
            with progress.part_of(shown, m.name), etcd.member(m, timeout=timeout) as client:
                client.quorum_write(m.name)
        except ProvisionError as error:
            what, remedy, error_id = describe(error)
            return [
                Problem(f"etcd member {m.name}", f"takes no writes: {what}", remedy, id=error_id)
            ]
        return []

    with (
        progress.waiting("a quorum write", names=[m.name for m in members]) as shown,
        ThreadPoolExecutor(len(members), "etcd") as pool,
    ):
        problems = [p for found in pool.map(write, members) for p in found]
    if problems:
        names = f"{len(problems)} of {counted(len(members), 'etcd member')}"
        raise Unhealthy(f"no quorum write through {names}", problems, id=problems[0].id)


def _observe(
    etcd: Reach,
    member: EtcdMember,
    timeout: float,
    login: Login | None,
    certificates: bool,
    quotas: bool,
) -> MemberHealth:
    cluster = etcd.cluster
    how: Route | None = None
    status: MemberStatus | None = None
    registered: tuple[RegisteredMember, ...] = ()
    seconds: float | None = None
    what = remedy = ""
    error_id: Id = "member-down"
    shown: tuple[CertificateState, ...] = ()
    authenticated: bool | None = None
    refused = no_way = False
    quota: int | str | None = None
    try:
        tls = client_tls(cluster, member)
        with contextlib.ExitStack() as stack:
            endpoint, how = stack.enter_context(open_route(etcd, member, member.served.port))
            tokens = etcd.learned.tokens
            client = stack.enter_context(
                EtcdClient(endpoint, timeout=timeout, tls=tls, login=login, tokens=tokens)
            )
            status = client.status()
            if not cluster.established.has(status.cluster_id, status.member_id):
                number, status = status.cluster_id, None
                raise _outside(cluster, member, number)
            if quotas and not status.quota:
                quota = _measured_quota(cluster, member, endpoint)
            registered = tuple(client.member_list())
            started = time.monotonic()
            _read(client)
            seconds = time.monotonic() - started
            authenticated = client.logged_in if login is not None else None
            etcd.learned.note_serving(cluster, member, how, first=True)
    except ProvisionError as error:
        what, remedy, error_id = describe(error)
        refused = isinstance(error, EtcdUnreachable) and error.reason is Reason.LOGIN
        no_way = isinstance(error, NoWay)
    if certificates and how is not None:
        from provision.etcd.cluster.served_certs import shown_certificates

        shown = shown_certificates(etcd, member, how)
    return MemberHealth(
        member,
        how,
        status,
        registered,
        seconds,
        what,
        remedy,
        error_id,
        shown,
        authenticated,
        refused,
        quota,
        no_way,
    )


def _measured_quota(cluster: EtcdCluster, member: EtcdMember, endpoint: Endpoint) -> int | str:
    from provision.etcd.cluster import metrics

    try:
        return metrics.quota(cluster, member, endpoint)
    except ProvisionError as error:
        return error.message


def _outside(cluster: EtcdCluster, member: EtcdMember, number: int) -> Unhealthy:
    """The error that a member answers, but belongs to another cluster than the command works on."""
    what = f"is not a member of the cluster that this command works on, but of cluster {number:x}"
    option = f" --cluster-id {cluster.established.name}" if cluster.established.name else ""
    remedy = f"invoke replace-member {member.name}{option}"
    where = f"etcd member {member.name}"
    return Unhealthy(
        f"{where} {what}", [Problem(where, what, remedy, id="member-odd")], id="member-odd"
    )


def _read(client: EtcdClient) -> None:
    """A linearizable read. etcd checks the user's rights after the round of consensus, so a refusal
    for lack of rights is proof, too (as in ``etcdctl endpoint health``)."""
    try:
        client.get("health")
    except EtcdUnreachable as error:
        if error.reason is not Reason.DENIED:
            raise


def member_problems(cluster: EtcdCluster, m: MemberHealth) -> list[Problem]:
    """The problems of one member."""
    where = f"etcd member {m.member.name}"
    found: list[Problem] = []
    if m.error:
        serves = "answers, but serves no reads: " if m.status is not None else ""
        over = m.error_id == "etcd-tls-failed" and "expired" in m.error
        remedy = _renewal(cluster) if over else m.remedy
        found.append(Problem(where, serves + m.error, remedy, id=m.error_id))
    if m.status is not None:
        for alarm in m.status.alarms:
            found.append(
                Problem(
                    where,
                    f"alarm {alarm}",
                    ALARM_REMEDIES.get(alarm, ""),
                    id=ALARM_IDS.get(alarm, "alarm-raised"),
                )
            )
        quota = m.quota
        if quota is not None and m.status.db_size >= quota * NEARLY_FULL and not m.status.alarms:
            share = f"{100 * m.status.db_size // quota} % of its quota of {size(quota)}"
            what = f"the database uses {share}"
            space = "invoke defrag-etcd --compact, or raise quota-backend-bytes"
            found.append(Problem(where, what, space, "warning", id="etcd-space-low"))
        if isinstance(m.measured_quota, str) and not m.quota_known:
            what = f"the quota in force is not known: {m.measured_quota}"
            look = (
                "check that the client port serves /metrics; until then, no warning says "
                "that the database is nearly full"
            )
            found.append(Problem(where, what, look, "warning", id="etcd-space-low"))
        if m.status.is_learner:
            found.append(
                Problem(
                    where,
                    "is a learner: it does not count for the quorum",
                    "",
                    "warning",
                    id="member-is-learner",
                )
            )
    renew = "run deploy-etcd again"
    if cluster.tls.ca == "external":
        renew = "run export-csrs, import-certs and rotate-certs"
    for certificate in m.certificates:
        from provision.etcd.cluster.served_certs import expiry

        found.extend(expiry(where, certificate, renew, _renewal(cluster)))
    return found


def _renewal(cluster: EtcdCluster) -> str:
    """The remedy for a certificate that has expired."""
    from provision.etcd.pki import external_ca, own_ca

    if cluster.tls.ca == "external":
        return f"{external_ca.HOW}, invoke rotate-certs"
    with contextlib.suppress(UsageError):  # an unreadable file is reported elsewhere
        if own_ca.expired(cluster.tls.pki_dir, cluster.name):
            return own_ca.REPLACE
    return "invoke rotate-certs"


ALARM_REMEDIES = {
    "NOSPACE": "invoke defrag-etcd --compact and invoke disarm-alarms; or raise "
    "etcd.settings.quota-backend-bytes and invoke deploy-etcd",
    # The alarm itself may name a wrong member, or none (etcd issue 14849).
    "CORRUPT": "invoke disarm-alarms: it compares the members' data and says which to replace",
}
ALARM_IDS: dict[str, Id] = {"NOSPACE": "alarm-nospace", "CORRUPT": "alarm-corrupt"}


def raised(kinds: Collection[str], tie: str = "and") -> str:
    """That these alarms stand: ``the alarm CORRUPT is raised``, ``the alarms CORRUPT and NOSPACE
    are raised``."""
    return f"{named(kinds, tie)} {verb(kinds)} raised"


def named(kinds: Collection[str], tie: str = "and") -> str:
    """These alarms: ``the alarm CORRUPT``, ``the alarms CORRUPT and NOSPACE``."""
    return f"the {verb(kinds, 'alarm', 'alarms')} {f' {tie} '.join(sorted(kinds))}"


def _disagreements(health: ClusterHealth) -> list[Problem]:
    found: list[Problem] = []
    answered = [(m, m.status) for m in health.members if m.status is not None]
    leaders: dict[int, list[str]] = {}
    for m, status in answered:
        if status.leader:
            leaders.setdefault(status.leader, []).append(m.member.name)
    if parted := health.parted:
        said = "; ".join(f"{', '.join(g.names)}: {g.name}" for g in parted)
        what = f"the members belong to different clusters ({said})"
        remedy = (
            "find out which cluster has the right data, and replace the members of the "
            "other clusters"
        )
        whole = Problem("etcd", what, remedy, id="etcd-clusters-differ")
        return [*groups.shown(parted), whole]
    if len(leaders) > 1:
        said = "; ".join(f"{', '.join(names)}: {i:x}" for i, names in leaders.items())
        found.append(
            Problem("etcd", f"the members do not agree on a leader ({said})", id="quorum-lost")
        )
    registered = health.registered
    if not registered or health.cluster.external:  # the inventory does not declare its members
        return found
    declared = {m.member.name for m in health.members}
    urls = {m.member.peer_url for m in health.members}
    for r in registered:
        # A member that has never started has no name yet; its peer URL identifies it.
        if r.name not in declared and not (not r.name and urls & set(r.peer_urls)):
            name = r.name or f"{r.id:x}"
            found.append(
                Problem(
                    f"etcd member {name}",
                    f"is in the cluster ({', '.join(r.peer_urls)}), but not in the inventory",
                    f"declare it, or remove it: invoke deploy-etcd --remove {name}",
                    id="member-not-declared",
                )
            )
    if (away := health.unseen) is not None:
        found.append(groups.not_seen("etcd", away))
    names = {r.name for r in registered}
    for m in health.members:
        if m.member.name not in names and not any(
            m.member.peer_url in r.peer_urls for r in registered
        ):
            found.append(
                Problem(
                    f"etcd member {m.member.name}",
                    "is not a member of the running cluster",
                    id="member-not-joined",
                )
            )
    for m, status in answered:
        if health.cluster.version and status.version != health.cluster.version:
            found.append(
                Problem(
                    f"etcd member {m.member.name}",
                    f"runs etcd {status.version}, the inventory says {health.cluster.version}",
                    "",
                    "warning",
                    id="etcd-version-differs",
                )
            )
    return found
