"""Which cluster it is: the groups of members, computed from what was seen of the members.

A linearizable read through a member proves a quorum behind it (etcd's ``ReadIndex``). So a member
that serves such a read belongs to a group that serves. A count of the inventory's hosts proves
nothing. Equal ids prove nothing either: etcd computes a member's id from its peer URLs and the
cluster token, and the cluster's id from its first members' ids (``membership.NewMember``,
``genID``). So a member that was emptied and bootstrapped again has its old ids.
``--force-new-cluster`` keeps both ids, too. Therefore revisions and the note of the last run are
compared as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from provision.dataclass import dataclass
from provision.errors import Problem
from provision.text import counted, share

#: A member's database file may lack so many writes that the member has applied: etcd commits after
#: so many writes (``backend.defaultBatchLimit``), or after 100 ms.
FILE_LAG = 10_000
#: The revision of a database without any write.
EMPTY = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """A running member's answer about itself.

    ``members`` are the ids in its own list of members, ``listed`` the names and peer URLs in that
    list. ``serves`` is None when the member refuses the login: it may still serve other logins.
    """

    cluster_id: int
    member_id: int
    term: int
    index: int
    revision: int
    leader: int
    members: frozenset[int]
    serves: bool | None
    listed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Disk:
    """The data of a member that does not answer. A value of None could not be read."""

    cluster_id: int | None = None
    member_id: int | None = None
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One declared member. Without ``answer`` and ``disk`` the member has no data; but when
    ``looked`` is False, its host did not answer and its data is unknown. ``refuses``: the member
    runs and refuses the login, even for ``Status`` (from etcd 3.6 on); it may serve other
    logins."""

    name: str
    answer: Answer | None = None
    disk: Disk | None = None
    looked: bool = True
    refuses: bool = False
    peer_url: str = ""

    @property
    def cluster_id(self) -> int | None:
        known = self.answer or self.disk
        return known.cluster_id if known is not None else None

    @property
    def member_id(self) -> int | None:
        known = self.answer or self.disk
        return known.member_id if known is not None else None

    @property
    def revision(self) -> int | None:
        known = self.answer or self.disk
        return known.revision if known is not None else None

    @property
    def has_data(self) -> bool:
        return self.answer is not None or self.disk is not None


@dataclass(frozen=True, slots=True)
class Note:
    """The last run's note about the cluster. ``when`` is UTC, and sorts by time. ``members`` are
    the names of the cluster's members; the notes of earlier versions do not have them."""

    cluster_id: int
    term: int
    index: int
    revision: int
    when: str
    members: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Group:
    """Members of one history. ``name`` is the value for ``--cluster-id``: the cluster's id. When
    several groups have the same id, the first member's name follows it.

    ``serves`` is None when all members in the group refuse the login.
    """

    name: str
    cluster_id: int
    members: tuple[Seen, ...]
    serves: bool | None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.members)

    @property
    def term(self) -> int:
        return max((a.term for a in self.answers), default=0)

    @property
    def index(self) -> int:
        return max((a.index for a in self.answers), default=0)

    @property
    def revision(self) -> int | None:
        """The newest known revision; None when no member's revision could be read."""
        return max((r for m in self.members if (r := m.revision) is not None), default=None)

    @property
    def answers(self) -> list[Answer]:
        return [m.answer for m in self.members if m.answer is not None]


@dataclass(frozen=True, slots=True)
class Serving:
    """One group is the cluster. ``odd`` are the other declared members with data, ``empty`` the
    other declared members without data on their hosts."""

    group: Group
    odd: tuple[Seen, ...]
    empty: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class Two:
    """More than one group serves or may serve; or several groups answer and none serves."""

    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Behind:
    """One group serves, but newer data or a newer note exists: ``why``."""

    group: Group
    groups: tuple[Group, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Silent:
    """No group serves."""

    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Unseen:
    """One group serves, and another group may serve. Nothing can be seen of ``members``: they are
    declared, but not in the group's own lists. And the group has no majority of ``known``: the
    members that the last run noted, or else the declared members."""

    group: Group
    members: tuple[Seen, ...]
    known: frozenset[str]
    noted: bool


Verdict = Serving | Two | Behind | Silent | Unseen


def form(seen: Sequence[Seen]) -> tuple[Group, ...]:
    """The groups; groups that serve come first. Members without data are in no group."""
    serving: list[list[Seen]] = []
    for m in seen:
        if m.answer is not None and m.answer.serves:
            _join(serving, m)
    maybe: list[list[Seen]] = []
    left: list[Seen] = []
    for m in seen:
        if not m.has_data or (m.answer is not None and m.answer.serves):
            continue
        home = next((g for g in serving if _belongs(m, g)), None)
        if home is not None:
            home.append(m)
        elif m.answer is not None and m.answer.serves is None:
            _join(maybe, m)
        elif m.refuses:
            same = next((g for g in maybe if g[0].cluster_id == m.cluster_id), None)
            if same is not None:
                same.append(m)
            else:
                maybe.append([m])
        else:
            left.append(m)
    rest: dict[int, list[Seen]] = {}
    for m in left:
        rest.setdefault(m.cluster_id or 0, []).append(m)
    found: list[tuple[list[Seen], bool | None]] = [(g, True) for g in serving]
    found += [(g, None) for g in maybe]
    found += [(g, False) for g in rest.values()]
    ids = [g[0].cluster_id or 0 for g, _ in found]
    order = {m.name: n for n, m in enumerate(seen)}
    made = []
    for (g, serves), number in zip(found, ids, strict=True):
        members = tuple(sorted(g, key=lambda m: order[m.name]))
        name = f"{number:x}"
        if ids.count(number) > 1:
            name += f"-{members[0].name}"
        made.append(Group(name, number, members, serves))
    return tuple(made)


def decide(
    seen: Sequence[Seen], groups: Sequence[Group], note: Note | None = None, wanted: str = ""
) -> Verdict:
    """Decide which group is the cluster. ``wanted`` is the name of the group that the operator
    chose; it must be one of ``groups``."""
    serving = [g for g in groups if g.serves is not False]
    answering = [g for g in groups if g.answers]
    if wanted:
        chosen = next(g for g in groups if g.name == wanted)
        return _serving(chosen, seen) if chosen.serves is not False else Silent(tuple(groups))
    if not serving and len(answering) < 2:
        return Silent(tuple(groups))
    if len(serving) != 1:
        return Two(tuple(groups))
    group = serving[0]
    if why := newer_than(group, groups) or below(group, note):
        return Behind(group, tuple(groups), why)
    return unseen(group, seen, note) or _serving(group, seen)


def unseen(group: Group, seen: Sequence[Seen], note: Note | None = None) -> Unseen | None:
    """Whether the unseen members may be the cluster instead of ``group``.

    A quorum of its own list is behind the group. But a member that was restored by hand, or started
    with ``--force-new-cluster``, has a list of its own, in which one member is a quorum. The other
    members keep their list and go on without that member. So the group counts as the cluster when
    it lists every unseen member, or a majority of the known members.
    """
    listed = frozenset(group.names).union(*(a.listed for a in group.answers))
    missing = tuple(
        m
        for m in seen
        if m not in group.members
        and not m.has_data
        and (not m.looked or m.refuses)
        and not {m.name, m.peer_url} & listed
    )
    noted = note is not None and bool(note.members)
    known = note.members if note is not None and noted else frozenset(m.name for m in seen)
    urls = {m.name: m.peer_url for m in seen}
    covered = sum(bool({name, urls.get(name, name)} & listed) for name in known)
    if not missing or covered > len(known) // 2:
        return None
    return Unseen(group, missing, known, noted)


def shown(formed: Sequence[Group]) -> list[Problem]:
    """The groups in the operator's words: one problem for each group."""
    found = []
    for g in formed:
        state = {True: "serves", None: "refuses the login", False: "does not serve"}[g.serves]
        at = f"revision {g.revision}" if g.revision is not None else "an unknown revision"
        answered = f", raft term {g.term}, index {g.index}" if g.term else ""
        ids = ", ".join(f"{m.name} ({m.member_id or 0:x})" for m in g.members)
        what = f"{state} at {at}{answered}; members here: {ids}"
        newest = max(g.members, key=lambda m: m.revision or 0)
        if len(g.members) > 1 and newest.revision is not None:
            what += f"; newest data: {newest.name}"
        found.append(Problem(f"cluster {g.name}", what, id="etcd-clusters-differ"))
    return found


def not_seen(where: str, verdict: Unseen) -> Problem:
    """The problem, and its remedy, that the group which serves may not be the cluster."""
    names = ", ".join(m.name for m in verdict.members)
    of = "that the last run noted" if verdict.noted else "in the inventory"
    what = (
        f"cluster {verdict.group.name} serves through {', '.join(verdict.group.names)}; {names} "
        "cannot be checked and may form the right cluster, because the members that serve are "
        f"not a majority of the {len(verdict.known)} members {of}"
    )
    remedy = (
        f"make the hosts of {names} reachable; if the cluster that serves is the right one: "
        f"--cluster-id {verdict.group.name}"
    )
    return Problem(where, what, remedy, id="etcd-members-unseen")


def newer_than(group: Group, groups: Iterable[Group]) -> str:
    """Which member has newer data than ``group``; empty when no member has."""
    now = group.revision or 0
    for other in groups:
        if other is group:
            continue
        for m in other.members:
            if m.revision is not None and m.revision > now:
                names = ", ".join(group.names)
                return (
                    f"{m.name} has data of revision {m.revision}, newer than revision {now} of "
                    f"the members that serve ({names})"
                )
    return ""


def below(group: Group, note: Note | None) -> str:
    """Which value of the last run's note ``group`` has not reached; empty when it has all."""
    if note is None:
        return ""
    at = f"the last run noted cluster {note.cluster_id:x}"
    if note.cluster_id != group.cluster_id:
        return f"{at} ({note.when}), but cluster {group.cluster_id:x} serves"
    now = group.revision or 0
    if note.revision > now:
        return f"{at} at revision {note.revision} ({note.when}); now it is at {now}"
    if not group.answers:
        return ""  # for data on disks, raft index and term are not known
    if note.index > group.index:
        return f"{at} at raft index {note.index} ({note.when}); now it is at {group.index}"
    if note.term > group.term:
        return f"{at} in raft term {note.term} ({note.when}); now it is in {group.term}"
    return ""


def may_be_electing(formed: Sequence[Group]) -> bool:
    """Whether, of several groups, one does not serve although a quorum of its members answers. This
    ends when these members have elected a leader."""
    answering = [g for g in formed if g.answers]
    return len(answering) > 1 and any(
        g.serves is False and len(g.answers) > len(_registered(g.members)) // 2 for g in answering
    )


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """No host has data, and none ever had."""


@dataclass(frozen=True, slots=True)
class Start:
    """Equal histories: the members ``names`` may be started together. ``lost`` are members without
    data: they must not be started like new members."""

    names: tuple[str, ...]
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unclear:
    """A start could lose acknowledged writes: ``why``. ``best`` is the member with the newest data,
    or empty."""

    why: str
    best: str = ""


def start(
    seen: Sequence[Seen], note: Note | None, members: Collection[str], exists: bool = False
) -> Bootstrap | Start | Unclear:
    """What may be done when no member serves.

    ``members`` are the names of the first members in the configurations on the hosts. ``exists``:
    one of these configurations says that the cluster has been bootstrapped.
    """
    data = [m for m in seen if m.has_data]
    if not data:
        if note is None and not exists:
            return Bootstrap()
        if note is None:
            return Unclear(
                "no host has data, but the configuration on the hosts says that the cluster exists"
            )
        return Unclear(
            f"no host has data, but the last run ({note.when}) noted a cluster at revision "
            f"{note.revision}"
        )
    known = [m for m in data if m.revision is not None]
    best = max(known, key=lambda m: m.revision or 0, default=None)
    name = best.name if best is not None else ""
    newest = (best.revision or 0) if best is not None else 0
    ids = {m.cluster_id for m in data}
    if len(ids) > 1:
        said = "; ".join(f"{m.name}: {m.cluster_id or 0:x}" for m in data)
        return Unclear(f"the hosts have data of different clusters ({said})", name)
    own = [m.member_id for m in data if m.member_id is not None]
    if len(own) != len(set(own)):
        return Unclear("two hosts have data of the same member", name)
    number = next(iter(ids))
    if note is not None and number != note.cluster_id:
        return Unclear(
            f"the hosts have data of cluster {number or 0:x}, but the last run ({note.when}) noted "
            f"cluster {note.cluster_id:x}",
            name,
        )
    lost = tuple(m.name for m in seen if not m.has_data and m.looked and m.name in members)
    begun = note is None and not exists
    if begun and best is not None and len(known) == len(data) and newest <= EMPTY:
        return Start(tuple(m.name for m in data) + lost)  # a bootstrap that ended half-way
    away = sum(not m.looked and not m.has_data and m.name in members for m in seen)
    total = len(data) + len(lost) + away
    needed = total // 2 + 1
    if len(data) < needed:
        return Unclear(
            f"{share(len(data), total, 'member')} known to have data: that is not a quorum",
            name,
        )
    revisions = sorted((m.revision or 0 for m in known), reverse=True)
    if len(revisions) < needed:
        return Unclear(
            f"the revision of {len(data) - len(known)} of {counted(len(data), 'member')} cannot be "
            "read from the data",
            name,
        )
    majority = revisions[needed - 1]
    if note is not None and majority < note.revision:
        return Unclear(
            f"a majority of the members is below revision {note.revision}, which the last run "
            f"({note.when}) noted; the newest data are of revision {newest}",
            name,
        )
    if majority <= EMPTY and len(known) < len(data):
        unread = ", ".join(m.name for m in data if m not in known)
        return Unclear(
            f"a majority has an empty database, and the data of {unread} cannot be read", name
        )
    if newest - majority > FILE_LAG or majority <= EMPTY < newest:
        return Unclear(
            f"{name} has data of revision {newest}, and a majority of revision {majority} or less "
            "would outvote it",
            name,
        )
    return Start(tuple(m.name for m in data), lost)


def _serving(group: Group, seen: Sequence[Seen]) -> Serving:
    outside = [m for m in seen if m not in group.members]
    return Serving(
        group,
        tuple(m for m in outside if m.has_data),
        tuple(m for m in outside if not m.has_data and m.looked),
    )


def _join(groups: list[list[Seen]], member: Seen) -> None:
    """Put a member into the group that follows the same leader, or has the same list of members.
    Two quorums of one list have a member in common, so they are one cluster even in an
    election."""
    answer = member.answer
    assert answer is not None
    for group in groups:
        for other in group:
            its = other.answer
            if (
                its is not None
                and its.cluster_id == answer.cluster_id
                and (its.leader == answer.leader != 0 or its.members == answer.members)
            ):
                group.append(member)
                return
    groups.append([member])


def _belongs(member: Seen, group: Sequence[Seen]) -> bool:
    """Whether a member that does not serve belongs to a group that serves, as far as known."""
    first = group[0].answer
    assert first is not None
    newest = max(m.answer.revision for m in group if m.answer is not None)
    if member.cluster_id != first.cluster_id or (member.revision or 0) > newest:
        return False
    if member.member_id not in _registered(group):
        return False
    if member.answer is None:
        return True
    serving = {m.answer.member_id for m in group if m.answer is not None and m.answer.serves}
    return bool(serving & member.answer.members)


def _registered(members: Iterable[Seen]) -> frozenset[int]:
    """The ids in the lists of the members that serve, or else of all members that answer."""
    answers = [m.answer for m in members if m.answer is not None]
    best = [a for a in answers if a.serves] or answers
    return frozenset().union(*(a.members for a in best))
