"""``clean-host``: remove what this tool put on one host for another cluster, and nothing else.

The units in ``/etc/systemd/system`` name their cluster (:mod:`provision.host.ownership`) and the
folders that they use. The other cluster's own ``destroy`` would remove that whole cluster, and not
only its part on this host.

The unit file is removed last, so a killed run can be run again.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from provision.alluxio.membership.registrations import ID_LIMIT, LIVE_ROOT
from provision.alluxio.worker import desired as alluxio
from provision.dataclass import dataclass
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import backup_timer, desired, layout
from provision.host import former_owner, gather, listing, safely, unit_changes
from provision.host.diff import Change
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Probe
from provision.host.ownership import owner
from provision.host.resources import MADE_BY, MARKER, DataDisk, File, User
from provision.inventory.resolved import Inventory, Machine
from provision.inventory.system_folders import SYSTEM_DIRS
from provision.plans.alluxio.stop_workers import STOPPED
from provision.plans.destroy import delete_logs, delete_releases, forget_version
from provision.plans.etcd import before_3_6
from provision.plans.etcd.state import other_clusters
from provision.plans.etcd.state.other_clusters import Harm, Others
from provision.text import document, number, printable, size

#: The units that this tool installs, by role.
UNITS = {
    "etcd member": (layout.UNIT, layout.UNIT_PATH),
    "worker": (alluxio.UNIT, alluxio.UNIT_PATH),
    "master": (alluxio.MASTER_UNIT, alluxio.MASTER_UNIT_PATH),
}
#: Seconds that the host may count the bytes of one folder.
_COUNTING = 5
_MEMBERS, _MASTERS, _JAVA, _BACKUPS = "members", "masters", "java", "backups"
#: Keys of live workers that the host's etcd lists at most, and what follows the last.
_LIVE, _LIVE_KEYS, _END = "live workers", 2000, "end of keys"
#: A path in a unit of this tool: its characters need no quoting in systemd or in a shell.
_PATH = re.compile(r"(/[A-Za-z0-9_+@][A-Za-z0-9._+@:-]*)+")
_UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


@dataclass(frozen=True, slots=True)
class Installed:
    """One unit of this tool on a host, and the folders that the unit names.

    ``own``: what this tool wrote. ``releases``: folders with releases in them. ``data``: what the
    service wrote. ``shared``: the folders that contain all of these.
    """

    role: str
    unit: str
    unit_path: str
    cluster: str
    user: str
    own: tuple[str, ...]
    releases: tuple[str, ...]
    data: tuple[str, ...]
    logs: str
    shared: tuple[str, ...]
    binary: str
    config: str = ""


def plan(
    inventory: Inventory,
    etcd: Etcd,
    name: str,
    machine: Machine,
    *,
    delete_data: bool,
    agreed: bool = False,
) -> Plan:
    """Remove the units of other clusters from ``machine``, with all that belongs to them.

    Units that this inventory declares on the host stay. Without ``delete_data`` the services' data
    is kept aside. Raises :class:`PreflightFailed` while the host is a running member of an etcd
    cluster or of a masters' journal with other members, and when this cannot be found out. When an
    etcd ends with the host, it raises as ``destroy`` does for live workers elsewhere, and, unless
    the operator has ``agreed``, when they are not known. ``etcd`` is the inventory's own.
    """
    fleet = etcd.fleet
    facts = gather.require_facts(fleet, {machine: _units_probe()})[machine]
    where = machine.place_of(name)
    found = [i for role in UNITS if (i := installed(role, facts, where)) is not None]
    stay = [i for i in found if i.cluster == inventory.cluster and _declared(inventory, i, machine)]
    gone = [i for i in found if i not in stay]
    if not gone:
        return Plan("clean-host", inventory.cluster)
    seen = gather.require_facts(fleet, {machine: _probe(gone, stay, facts)})[machine]
    _refuse_voters(gone, facts, seen, where)
    keep = {path for i in stay for path in i.shared}
    keep |= {path for i in stay if (path := _jdk(i, seen)) is not None}
    steps = []
    others: list[Problem] = []
    for n, i in enumerate(gone):
        last = not any(later.user == i.user for later in gone[n + 1 :])
        if (jdk := _jdk(i, seen)) is not None and jdk not in i.releases:
            i = replace(i, releases=(*i.releases, jdk))
        todo = _removal(_without(i, keep), seen, delete_data, user=last)
        if _ends(i, facts, seen, delete_data):
            others += other_clusters.require(
                etcd, _live(gone, seen), _harm(name, i.cluster), agreed=agreed
            )
            todo = tuple(replace(c, effects=(*c.effects, Effect.ETCD_GONE)) for c in todo)
        title = f"remove the {i.role} of cluster {i.cluster}, which {_runs(facts, i)}"
        steps.append(Step(title + _sizes(todo, seen), (HostChanges(name, machine, todo),)))
    notes = [*others, *(n for i in gone for n in _notes(i, seen, where, delete_data))]
    return Plan("clean-host", inventory.cluster, tuple(steps), tuple(notes))


def installed(role: str, facts: HostFacts, where: str) -> Installed | None:
    """The unit of ``role`` on a host, if this tool wrote it.

    Raises :class:`PreflightFailed` when the unit names folders that this tool would not use.
    """
    unit_path = UNITS[role][1]
    cluster = owner(facts, unit_path)
    if cluster is None:
        return None
    text = facts.text(unit_path) or ""
    said: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        said.setdefault(key, value.strip())
    writable = [path.lstrip("-+") for path in said.get("ReadWritePaths", "").split()]
    command = said.get("ExecStart", "").split()
    binary, user = command[0] if command else "", said.get("User", "")
    if role == "etcd member":
        config = command[command.index("--config-file") + 1] if "--config-file" in command else ""
        data = writable[0] if writable else ""
        install = [] if binary == layout.PACKAGED_BINARY else [_up(binary, 2)]
        named = [data, binary, config, _up(config, 1), *install]
        _require_known(named, user, where, unit_path)
        made = _etcd(cluster, user, data, config, binary)
    else:
        state = said.get("WorkingDirectory", "").lstrip("-")
        known = re.search(r"'cd (\S+) && for k in", text)
        logs = known.group(1) if known else next((p for p in writable if p != state), "")
        pages = [path for path in writable if path not in (state, logs)]
        named = [state, logs, binary, _up(binary, 3), *pages]
        _require_known(named, user, where, unit_path)
        made = _alluxio(role, cluster, user, state, logs, pages, binary)
    return made


def _up(path: str, levels: int) -> str:
    return path.rsplit("/", levels)[0]


def _etcd(cluster: str, user: str, data: str, config: str, binary: str) -> Installed:
    folder = _up(config, 1)
    install = _up(binary, 2)
    packaged = binary == layout.PACKAGED_BINARY
    own = [
        backup_timer.TIMER_PATH,
        backup_timer.SERVICE_PATH,
        f"{folder}/backup.sh",
        f"{folder}/backup.env",
    ]
    own += [config, f"{folder}/last-seen", f"{folder}/pki", f"{data}/unfinished"]
    own += [f"{folder}/{before_3_6.FILE}", DataDisk(data).marker]
    return Installed(
        "etcd member",
        layout.UNIT,
        layout.UNIT_PATH,
        cluster,
        user,
        tuple(own if packaged else [*own, f"{install}/current"]),
        () if packaged else (install,),
        (f"{data}/member",),
        "",
        (folder, data, *(() if packaged else (install,))),
        binary,
        config,
    )


def _alluxio(
    role: str, cluster: str, user: str, state: str, logs: str, pages: Sequence[str], binary: str
) -> Installed:
    install = _up(binary, 3)
    if role == "worker":
        data = [f"{path}/LOCAL" for path in pages]
        data += [f"{state}/worker_identity", f"{state}/worker_metastore"]
        parts = [DataDisk(state).marker, f"{state}/worker_metastore.incoming"]
    else:
        data = [f"{state}/journal", f"{state}/metastore", f"{state}/job_results"]
        parts = []  # the marker is in the journal's folder
    unit, unit_path = UNITS[role]
    return Installed(
        role,
        unit,
        unit_path,
        cluster,
        user,
        (f"{install}/current", f"{install}/previous", f"{state}/tmp", *parts),
        (install,),
        tuple(data),
        logs,
        (install, state, logs, *pages),
        binary,
    )


def _require_known(paths: Sequence[str], user: str, where: str, unit_path: str) -> None:
    odd = [p or "nothing" for p in paths if not _PATH.fullmatch(p) or p in SYSTEM_DIRS]
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user) or user == "root":
        odd.append(f"the user {user or 'root'}")
    if odd or not paths:
        what = f"{unit_path} there names {printable(', '.join(odd), 200)}: it was changed by hand"
        raise PreflightFailed(
            "it is not clear what belongs to a unit",
            [Problem(where, what, "put the unit right, or clean by hand", id="path-in-the-way")],
            id="path-in-the-way",
        )


def _declared(inventory: Inventory, found: Installed, machine: Machine) -> bool:
    """Whether this inventory has the unit's role on that host, or may have it there."""
    cluster = inventory.alluxio
    if found.role == "etcd member":
        roles = () if inventory.etcd.external else inventory.etcd.members
        return any(m.machine.may_be(machine) for m in roles)
    if cluster is None:
        return False
    if found.role == "worker":
        return any(w.machine.may_be(machine) for w in cluster.workers)
    return any(m.machine.may_be(machine) for m in cluster.masters)


def _units_probe() -> Probe:
    files = [File(path, None) for _, path in UNITS.values()]
    services = [File(backup_timer.TIMER_PATH, None), File(backup_timer.SERVICE_PATH, None)]
    return Probe(resources=(*files, *services), units=[unit for unit, _ in UNITS.values()])


def _probe(gone: Sequence[Installed], stay: Sequence[Installed], facts: HostFacts) -> Probe:
    files: list[File] = [File(backup_timer.SERVICE_PATH, None)]
    folders = dict.fromkeys(path for i in gone for path in i.shared)
    files += [File(former_owner.note_path(path), None) for path in folders]
    paths: dict[str, None] = {}
    commands: dict[str, str] = {}
    for i in gone:
        paths |= dict.fromkeys((*i.own, *i.releases, *i.data, *i.shared))
        count = f"timeout {_COUNTING} du -skx"
        for path in (*i.data, *i.releases):
            commands[f"size of {path}"] = f"{count} {shlex.quote(path)} 2>/dev/null"
        commands[f"{_BACKUPS} {i.unit}"] = _backups(facts)
        if i.role == "etcd member":
            commands[_MEMBERS] = _etcdctl(i, "member list -w json")
            keys = f"get {LIVE_ROOT} --prefix --keys-only --limit {_LIVE_KEYS}"
            commands[_LIVE] = f"({_etcdctl(i, keys)}) && echo {shlex.quote(_END)}"
            files.append(File(i.config, None))
        else:
            home = _up(i.binary, 2)
            commands[f"{_JAVA} {i.unit}"] = _java(home)
        if i.role == "master":
            commands[_MASTERS] = f"grep -cE '^[^#[:space:]]' {home}/conf/masters"
        if i.role == "worker":
            files.append(File(next(p for p in i.data if p.endswith("/worker_identity")), None))
        commands[f"user {i.user}"] = _uses(i.user, [g.unit_path for g in gone])
    for i in stay:
        if i.role != "etcd member":
            commands[f"{_JAVA} {i.unit}"] = _java(_up(i.binary, 2))
    # The data of former members stays beside the data of the last member.
    for i in gone:
        if i.role == "etcd member":
            folder, starts = i.data[0].rpartition("/")[0], _aside(i)
            patterns = [f"{start.rpartition('/')[2]}*" for start in starts]
            commands["aside"] = listing.names(folder, *patterns)
    users = [User(i.user, "/") for i in gone]
    return Probe(resources=(*files, *users), paths=list(paths), commands=commands)


def _aside(found: Installed) -> tuple[str, ...]:
    """How the paths beside a member's data begin: former data, and what a killed restore has
    left."""
    folder = found.data[0].rpartition("/")[0]
    return f"{found.data[0]}.", f"{folder}/restoring-", f"{folder}/restore-"


def _etcdctl(found: Installed, arguments: str) -> str:
    """A shell command that asks the host's own member, without a login.

    etcd gives the list of its members to a client without a login, too (``v3rpc``,
    ``ClusterServer.MemberList``).
    """
    folder, pki = _up(found.binary, 1), f"{_up(found.config, 1)}/pki"
    read = f"sed -n 's/^listen-client-urls: \"\\(.*\\)\"$/\\1/p' {found.config}"
    return (
        f"u=$({read} | tr , '\\n' | sed -e 's,//0\\.0\\.0\\.0:,//127.0.0.1:,' "
        "-e 's,//\\[::\\]:,//127.0.0.1:,' | sed -n '/127\\.0\\.0\\.1/p;$p' | head -n 1)\n"
        f"case $u in https:*) set -- --cacert={pki}/ca.crt --cert={pki}/server.crt "
        f"--key={pki}/server.key;; esac\n"
        f'ETCDCTL_API=3 timeout 15 {folder}/etcdctl "$@" --endpoints="$u" --dial-timeout=5s '
        f"--command-timeout=10s {arguments}"
    )


def _java(home: str) -> str:
    """A shell command that prints the size and the path of a JDK that this tool unpacked."""
    return (
        f"j=$(sed -n 's/^export JAVA_HOME=//p' {home}/conf/alluxio-env.sh | tr -d \"\\\"'\")\n"
        f'[ -z "$j" ] || [ ! -e "$j/{MARKER}" ] || timeout {_COUNTING} du -skx "$j"'
    )


def _backups(facts: HostFacts) -> str:
    """A shell command that prints the folder of the timer's snapshots, if there are snapshots."""
    for line in (facts.text(backup_timer.SERVICE_PATH) or "").splitlines():
        key, _, value = line.partition("=")
        folder = value.strip().lstrip("-+")
        if key == "ReadWritePaths" and _PATH.fullmatch(folder):
            return f'[ -z "$(ls -A {folder} 2>/dev/null)" ] || echo {folder}'
    return ":"


def _uses(user: str, units: Sequence[str]) -> str:
    """A shell command that prints other uses of ``user`` than by ``units``."""
    globs = " ".join(f"{folder}/*.service" for folder in _UNIT_FOLDERS)
    skipped = "|".join(units)
    return (
        f"for f in {globs}; do case $f in {skipped}|{backup_timer.SERVICE_PATH}) continue;; esac\n"
        f'grep -qsE "^(User|Group|SupplementaryGroups)=(.* )?{user}( |$)" "$f" '
        '&& echo "the unit $f"; done\n'
        f"for f in /var/spool/cron/crontabs/{user} /var/spool/cron/{user}; do "
        '[ ! -e "$f" ] || echo "$f"; done\n'
        f"getent group {user} | while IFS=: read -r n x g m; do "
        '[ -z "$m" ] || echo "$m, of the same group"; done'
    )


def _refuse_voters(
    gone: Sequence[Installed], facts: HostFacts, seen: HostFacts, where: str
) -> None:
    problems = []
    for i in gone:
        if facts.unit(i.unit).active in STOPPED:
            continue
        if i.role == "etcd member" and (count := _members(seen)) != 1:
            others = (
                f"{count} members: without it they lose a vote"
                if count
                else "an unknown number of members"
            )
            what = f"is a running member of the etcd of cluster {i.cluster}, which has {others}"
            remedy = (
                "invoke remove-member NAME --inventory OTHER.yml, then run this again; if that "
                f"etcd has already removed the member: systemctl disable --now {i.unit} on the "
                "host"
            )
            problems.append(Problem(where, what, remedy, id="quorum-at-risk"))
        if i.role == "master" and number(seen.commands.get(_MASTERS, "").strip()) != 1:
            what = f"is a running master of cluster {i.cluster}, which has other masters"
            remedy = "invoke stop-masters NAME --inventory OTHER.yml, then run this again"
            problems.append(Problem(where, what, remedy, id="quorum-at-risk"))
    if problems:
        raise PreflightFailed("another cluster needs this host", problems, id="quorum-at-risk")


def _members(seen: HostFacts) -> int | None:
    """The number of members according to the host's etcd; None when it does not answer."""
    lines = seen.commands.get(_MEMBERS, "").strip().splitlines() or [""]
    try:
        return len(document(lines[-1])["members"])
    except (ValueError, KeyError, TypeError):
        return None


def _ends(found: Installed, facts: HostFacts, seen: HostFacts, delete_data: bool) -> bool:
    """Whether an etcd ends with the host: it is the only member, or its data is the only copy."""
    if found.role != "etcd member":
        return False
    if facts.unit(found.unit).active not in STOPPED:
        return _members(seen) == 1
    alone = len(desired.initial_members(seen.text(found.config) or "")) <= 1
    return delete_data and alone and any(path in seen.paths for path in found.data)


def _live(gone: Sequence[Installed], seen: HostFacts) -> Others:
    """The clusters with live workers in the host's etcd, by its own answer. The workers on this
    host do not count: they go, too."""
    # etcdctl prints an empty line after each key.
    *lines, end = [line for line in seen.commands.get(_LIVE, "").splitlines() if line] or [""]
    here = {
        f"{LIVE_ROOT}{i.cluster}/worker-{_identity(i, seen)}" for i in gone if i.role == "worker"
    }
    keys = [line for line in lines if line.startswith(LIVE_ROOT) and line not in here]
    names = (printable(key.split("/")[2], ID_LIMIT) for key in keys)
    why = "" if end == _END else "the etcd on this host could not be asked for them"
    if len(lines) >= _LIVE_KEYS:
        why = why or f"the etcd on this host has more than {_LIVE_KEYS} of their keys"
    return Others(Counter(names), why=why)


def _harm(name: str, cluster: str) -> Harm:
    word = f"{other_clusters.UNKNOWN} {name}"
    return Harm(f"in the etcd of cluster {cluster}, which ends", "stop them first", word=word)


def _without(found: Installed, keep: set[str]) -> Installed:
    """``found`` without the paths in ``keep``: units that stay use these folders."""

    def free(paths: Sequence[str]) -> tuple[str, ...]:
        return tuple(
            p
            for p in paths
            if not any(p == k or p.startswith(f"{k}/") or k.startswith(f"{p}/") for k in keep)
        )

    logs = found.logs if free([found.logs]) else ""
    return replace(
        found,
        own=free(found.own),
        releases=free(found.releases),
        data=free(found.data),
        shared=free(found.shared),
        logs=logs,
    )


def _removal(
    found: Installed, seen: HostFacts, delete_data: bool, *, user: bool
) -> tuple[Change, ...]:
    q, unit = shlex.quote, found.unit
    timer_off = f"systemctl disable -q --now {backup_timer.UNIT} 2>/dev/null || :\n"
    todo = [
        Change(
            f"stop and disable {unit}",
            (
                timer_off
                if backup_timer.TIMER_PATH in seen.paths and found.role == "etcd member"
                else ""
            )
            + f"systemctl disable -q {unit} 2>/dev/null || :\n"
            # No SIGKILL: a worker first leaves the ring and finishes the reads of its clients.
            f"systemctl stop {unit}; systemctl reset-failed {unit} 2>/dev/null || :",
            disrupts=True,
            seconds=120,
            stops=(unit,),
        )
    ]
    todo += [
        Change(f"delete {path}", f"gone {q(path)}") for path in found.own if path in seen.paths
    ]
    jdk = _jdk(found, seen)
    todo += [delete_releases(path) for path in found.releases if path in seen.paths or path == jdk]
    there = [path for path in found.data if path in seen.paths]
    if delete_data:
        former = _former(found, seen) if found.role == "etcd member" and found.data else []
        todo += [
            Change(f"DELETE {path}", f"gone {q(path)}", seconds=600) for path in (*there, *former)
        ]
        if found.logs:
            logs = delete_logs(found.logs, found.user)
            todo.append(Change(f"DELETE the logs in {found.logs}", logs, seconds=300))
    else:
        # A rename in the same folder: its time does not depend on the size.
        todo += [
            Change(
                f"keep {path} aside as {path}.removed-DATE",
                f"[ ! -e {q(path)} ] || {_renamed(path)}",
            )
            for path in there
        ]
    empty = [path for path in found.shared if path in seen.paths]
    if empty:
        todo.append(
            Change(
                f"remove {', '.join(empty)} if empty",
                "\n".join(map(former_owner.removed, empty)),
            )
        )
    others = [path for _, path in UNITS.values() if path != found.unit_path]
    todo += former_owner.give_back(found.shared, seen, others)
    if user and delete_data and _why_user_stays(found, seen) is None:
        todo.append(_delete_user(found.user))
    todo.append(unit_changes.delete(unit, found.unit_path))
    return forget_version(tuple(todo), found.unit_path)


def _former(found: Installed, seen: HostFacts) -> list[str]:
    """The paths beside a member's data: former data, and what a killed restore has left."""
    folder = found.data[0].rpartition("/")[0]
    paths = (f"{folder}/{name}" for name in listing.records(seen.commands.get("aside", "")))
    return [path for path in paths if path.startswith(_aside(found))]


def _renamed(path: str) -> str:
    folder, _, name = path.rpartition("/")
    then = f"./{shlex.quote(name)}.removed-$(date -u +%Y%m%dT%H%M%SZ)"
    return safely.in_folder(folder, f"mv -T ./{shlex.quote(name)} {then}")


def _jdk(found: Installed, seen: HostFacts) -> str | None:
    """The folder with the JDK of the unit's release, when this tool unpacked it."""
    _, _, path = seen.commands.get(f"{_JAVA} {found.unit}", "").strip().partition("\t")
    folder = path.rsplit("/", 1)[0]
    return folder if _PATH.fullmatch(folder) and folder not in SYSTEM_DIRS else None


def _why_user_stays(found: Installed, seen: HostFacts) -> str | None:
    """Why the unit's user stays although all its data is deleted; None: the user is deleted."""
    fields = seen.users.get(found.user, "").split(":")
    if len(fields) < 5 or fields[4] != MADE_BY:
        return "no mark says that this tool made it"
    used = seen.commands.get(f"user {found.user}", "").strip()
    kept = seen.commands.get(f"{_BACKUPS} {found.unit}", "").strip()
    if used:
        return f"it is used by {printable(', '.join(used.splitlines()), 200)}"
    return f"the snapshots in {kept} belong to it" if kept else None


def _delete_user(user: str) -> Change:
    """The user stays when a process of this user has begun meanwhile, or when its mark is gone."""
    return Change(
        f"delete the user {user}, which this tool made",
        f"busy=\nfor p in /proc/[0-9]*; do\n"
        f'[ "$(stat -c %U "$p" 2>/dev/null)" != {user} ] || busy=yes\ndone\n'
        f"case $(getent passwd {user} | cut -d : -f 5) in '{MADE_BY}') ;; *) busy=yes;; esac\n"
        f'if [ -z "$busy" ]; then\n'
        f"userdel {user}; ! getent group {user} >/dev/null || groupdel {user} 2>/dev/null || :\nfi",
    )


def _runs(facts: HostFacts, found: Installed) -> str:
    return "is stopped" if facts.unit(found.unit).active in STOPPED else "runs"


def _sizes(todo: Sequence[Change], seen: HostFacts) -> str:
    """The bytes that are deleted, and the bytes that are kept aside."""
    told = []
    for change in todo:
        for label, said in seen.commands.items():
            path = label.removeprefix("size of ")
            if label == path or path not in change.what.split():
                continue
            kilobytes = number(said.partition("\t")[0])
            count = "an unknown size" if kilobytes is None else size(kilobytes * 1024)
            verb = "kept aside" if change.what.startswith("keep ") else "deleted"
            if path in seen.paths:
                told.append(f"{count} in {path} {verb}")
    return f": {', '.join(dict.fromkeys(told))}" if told else ""


def _notes(found: Installed, seen: HostFacts, where: str, delete_data: bool) -> list[Problem]:
    """What stays, on the host and in the other cluster."""
    notes = []
    of = f"cluster {found.cluster}"
    if found.role == "etcd member" and _members(seen) != 1:
        what = f"{of} may still count it as a member of its etcd"
        remedy = "with that cluster's inventory: invoke remove-member NAME --inventory OTHER.yml"
        notes.append(Problem(where, what, remedy, "warning", id="another-clusters-host"))
    if found.role == "etcd member" and _members(seen) == 1:
        what = f"is the only member of the etcd of {of}: that etcd ends"
        notes.append(Problem(where, what, "", "warning", id="another-clusters-host"))
    if found.role == "worker":
        uuid = _identity(found, seen)
        registered = f"worker-{uuid}" if uuid else "ID"
        what = f"the registration {registered} stays in the etcd of {of}"
        remedy = f"when it is FAILED there: invoke forget-worker {registered} --inventory OTHER.yml"
        notes.append(Problem(where, what, remedy, "warning", id="registrations-unused"))
    why = _why_user_stays(found, seen) if delete_data else "the kept data belongs to it"
    if why is not None and found.user in seen.users:
        what = f"the user {found.user} stays: {why}"
        notes.append(Problem(where, what, "", "warning", id="another-clusters-host"))
    return notes


def _identity(found: Installed, seen: HostFacts) -> str:
    path = next(p for p in found.data if p.endswith("/worker_identity"))
    match = re.search(
        r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", seen.text(path) or "", re.MULTILINE
    )
    return match.group() if match else ""
