"""``destroy``: removes what this tool put on the hosts, and nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from provision.alluxio.worker import desired as worker
from provision.alluxio.worker import state
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import Problem, ProvisionError
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import backup_timer, layout
from provision.host import former_owner, gather, safely, tool_version, unit_changes
from provision.host.diff import Change
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Probe, merged
from provision.host.ownership import has_header, owner
from provision.host.resources import MARKER, OWNER, DataDisk, File
from provision.inventory import journal_folder
from provision.inventory.resolved import (
    AlluxioCluster,
    AlluxioMaster,
    AlluxioWorker,
    EtcdCluster,
    EtcdMember,
    Inventory,
    Machine,
)
from provision.plans.etcd import before_3_6
from provision.plans.etcd.state import other_clusters
from provision.plans.etcd.state.other_clusters import Harm
from provision.ssh.session import Fleet
from provision.text import counted, number, size

#: The files of the units that this tool installs.
UNIT_PATHS = (layout.UNIT_PATH, worker.UNIT_PATH, worker.MASTER_UNIT_PATH)


def destroy(inventory: Inventory, fleet: Fleet) -> Plan:
    """Remove the cluster from its hosts, with its data: workers first, then etcd.

    Only files of this tool are removed, and only from hosts with units that carry this cluster's
    name. Users stay, and so do directories that hold something else.
    """
    alluxio = inventory.alluxio
    probes: dict[Machine, list[Probe]] = {}
    members = () if inventory.etcd.external else inventory.etcd.members
    for member in members:
        probes.setdefault(member.machine, []).append(_etcd_probe(inventory.etcd, member))
    for a in alluxio.masters if alluxio else ():
        assert alluxio is not None
        probes.setdefault(a.machine, []).append(_master_probe(alluxio))
    for w in alluxio.workers if alluxio else ():
        assert alluxio is not None
        probes.setdefault(w.machine, []).append(_worker_probe(alluxio, w))
    facts = gather.require_facts(
        fleet, {machine: merged(every) for machine, every in probes.items()}
    )
    steps: list[Step] = []
    if alluxio is not None and alluxio.masters:
        steps.append(
            Step(
                "remove masters",
                _hosts(alluxio.masters, lambda m: _master(alluxio, m, facts)),
            )
        )
    if alluxio is not None:
        steps.append(
            Step(
                "remove workers",
                _hosts(alluxio.workers, lambda w: _worker(alluxio, w, facts)),
                at_once=inventory.parallel,
            )
        )
    steps.append(
        Step(
            "remove etcd, with its data",
            _hosts(members, lambda m: _etcd(inventory.etcd, m, facts)),
        )
    )
    sized = (replace(s, title=s.title + _sizes(s, facts)) for s in steps if s.hosts)
    return Plan("destroy", inventory.cluster, tuple(sized))


#: Seconds for a host to count the bytes of deleted data; a page store can have millions of files.
_COUNTING = 10


def _count(paths: Sequence[str]) -> dict[str, str]:
    """The commands of a probe that print the sizes of ``paths``, by path."""
    one = f"timeout {max(1, _COUNTING // max(1, len(paths)))} du -skx"
    return {f"size of {path}": f"{one} {shlex.quote(path)} 2>/dev/null" for path in paths}


def _sizes(step: Step, facts: Mapping[Machine, HostFacts]) -> str:
    """The bytes of data that the step deletes, by path, on all of its hosts together."""
    total: dict[str, int] = {}
    uncounted: set[str] = set()
    for host in step.hosts:
        deleted = {change.what.removeprefix("delete ") for change in host.changes}
        for label, said in facts[host.machine].commands.items():
            path = label.removeprefix("size of ")
            if path == label or path not in deleted:
                continue
            kilobytes = number(said.partition("\t")[0])
            total[path] = total.get(path, 0) + 1024 * (kilobytes or 0)
            if kilobytes is None:
                uncounted.add(path)
    each = [
        f"{'more than ' if path in uncounted else ''}{size(count)} in {path}"
        for path, count in total.items()
    ]
    return f": {', '.join(each)}" if each else ""


def harm(inventory: Inventory) -> Harm:
    """What the end of etcd does to other clusters: nobody agrees to it for live workers."""
    word = f"{other_clusters.UNKNOWN} {inventory.cluster}"
    return Harm("in this etcd", "stop them first", word=word)


def others(inventory: Inventory, etcd: Etcd, agreed: bool = False) -> tuple[Problem, ...]:
    """What stays in an etcd of others, or what is not known about other clusters in this etcd.

    Raises :class:`PreflightFailed` when live workers of another cluster would lose their etcd, and
    also when this cannot be found out, unless the operator has ``agreed``. Without a quorum, the
    members are asked one by one for what they know.
    """
    if not etcd.cluster.external:
        found = other_clusters.look(inventory, etcd)
        return other_clusters.require(etcd, found, harm(inventory), agreed=agreed)
    try:
        kept = other_clusters.ask(inventory, etcd).own
    except ProvisionError:
        return ()  # that etcd is not destroyed
    what = (
        f"keeps {counted(kept, 'registration')} of cluster {inventory.cluster}: it is not destroyed"
    )
    return (Problem("etcd", what, "", "warning", id="registrations-unused"),) if kept else ()


def deletes_etcd(plan: Plan) -> bool:
    """Whether the plan deletes data of etcd, which others may use."""
    return Effect.ETCD_GONE in plan.effects


def _worker_paths(alluxio: AlluxioCluster, w: AlluxioWorker) -> tuple[list[str], list[str]]:
    """The paths to delete, and the directories to delete if they are empty afterwards."""
    gone = [
        worker.UNIT_PATH,
        worker.current_link(alluxio),
        worker.previous_link(alluxio),
        *(f"{path}/LOCAL" for path in w.page_store.dirs),
        worker.identity_file(alluxio),
        DataDisk(alluxio.state_dir).marker,
        *state.paths(alluxio, "worker"),
    ]
    return gone, [*w.page_store.dirs, alluxio.state_dir]


def _worker_releases(alluxio: AlluxioCluster) -> list[str]:
    """The folders below which each unpacked release has a folder of its own. The inventory may name
    no JDK any more: what was unpacked says so itself (:data:`MARKER`)."""
    return [alluxio.install_dir, alluxio.java.install_dir]


def _unpacked(alluxio: AlluxioCluster, facts: HostFacts) -> list[str]:
    """Those of :func:`_worker_releases` that may be deleted when they are empty, too. Without a
    JDK in the inventory, a folder of that name with nothing of this tool is not this tool's."""
    folders, jdks = _worker_releases(alluxio), alluxio.java.install_dir
    said = facts.commands.get(_label(jdks), "").splitlines()
    if alluxio.java.source is None and "release" not in said:
        folders.remove(jdks)
    return folders


def _etcd_paths(cluster: EtcdCluster, member: EtcdMember) -> tuple[list[str], list[str]]:
    gone = [
        *backup_timer.paths(cluster),
        layout.UNIT_PATH,
        layout.config_file(cluster),
        layout.last_seen(cluster),
        before_3_6.path(cluster),
        layout.pki_dir(cluster),
        f"{member.data_dir}/member",
        layout.unfinished(member),
        DataDisk(member.data_dir).marker,
        f"{cluster.install_dir}/current",
    ]
    return gone, [cluster.config_dir, member.data_dir]


def _units() -> tuple[File, ...]:
    return tuple(File(path, None) for path in UNIT_PATHS)


def _notes(folders: Sequence[str]) -> tuple[File, ...]:
    """The notes about who owned ``folders`` before."""
    return tuple(File(former_owner.note_path(path), None) for path in folders)


def _etcd_probe(cluster: EtcdCluster, member: EtcdMember) -> Probe:
    gone, empty = _etcd_paths(cluster, member)
    backup = cluster.backup
    return Probe(
        resources=(
            *_units(),
            File(layout.config_file(cluster), None),
            *_notes([*empty, cluster.install_dir, *([backup.dir] if backup else [])]),
        ),
        paths=(*gone, *empty, cluster.install_dir),
        units=(layout.UNIT,),
        commands=_count([f"{member.data_dir}/member"])
        | _listing(cluster.name, [cluster.install_dir]),
    )


def _worker_probe(alluxio: AlluxioCluster, w: AlluxioWorker) -> Probe:
    gone, empty = _worker_paths(alluxio, w)
    folders = [*empty, alluxio.log_dir, *_worker_releases(alluxio)]
    return Probe(
        resources=(*_units(), *_notes(folders)),
        paths=(*gone, *empty, *_worker_releases(alluxio)),
        units=(worker.UNIT,),
        commands=_count([f"{path}/LOCAL" for path in w.page_store.dirs])
        | _listing(alluxio.name, _worker_releases(alluxio)),
    )


def _etcd(
    cluster: EtcdCluster, member: EtcdMember, facts: Mapping[Machine, HostFacts]
) -> tuple[Change, ...]:
    gone, empty = _etcd_paths(cluster, member)
    f = facts[member.machine]
    # The timer's snapshots stay.
    stop_timer = Change(
        f"disable {backup_timer.UNIT}", f"systemctl disable -q --now {backup_timer.UNIT}"
    )
    first = (stop_timer,) if backup_timer.TIMER_PATH in f.paths else ()
    # A killed restore leaves its side folder and its upload.
    aside = "rm -rf ./member.* ./restoring-* ./restore-*.db*"
    kept = Change(
        f"delete what was kept aside in {member.data_dir}",
        _if_there(member.data_dir, aside),
    )
    # A first deploy that was killed between its first file and its unit belongs to this cluster.
    begun = has_header((f.text(layout.config_file(cluster)) or "").encode(), cluster.name)
    waiting: tuple[Change, ...] = ()
    if owner(f, layout.UNIT_PATH) is None and not begun and layout.pki_dir(cluster) in f.paths:
        # The keys come from an export-csrs before any deploy-etcd.
        pki = shlex.quote(layout.pki_dir(cluster))
        keys = f"rm -f {pki}/*.key.new\n" + "\n".join(
            map(former_owner.removed, (layout.pki_dir(cluster), cluster.config_dir))
        )
        waiting = (Change(f"delete the keys that wait in {layout.pki_dir(cluster)}", keys),)
    removal = _removal(
        f,
        layout.UNIT,
        layout.UNIT_PATH,
        cluster.name,
        gone,
        empty,
        [cluster.install_dir],
        first=(*first, kept),
        begun=begun,
        kept=[cluster.backup.dir] if cluster.backup is not None else [],
    )
    return _all_of_it((*waiting, *removal), layout.UNIT_PATH, f)


def _worker(
    alluxio: AlluxioCluster, w: AlluxioWorker, facts: Mapping[Machine, HostFacts]
) -> tuple[Change, ...]:
    gone, empty = _worker_paths(alluxio, w)
    f = facts[w.machine]
    alone = not _in_use(alluxio.java.install_dir, f, alluxio.name, jdk=True)
    removal = _removal(
        f,
        worker.UNIT,
        worker.UNIT_PATH,
        alluxio.name,
        [p for p in gone if alone or not p.startswith(f"{alluxio.install_dir}/")],
        [*empty, alluxio.log_dir],
        _unpacked(alluxio, f),
        first=(_logs(alluxio),) if alone else (),
        jdk=alluxio.java.install_dir,
        within=_service_folder(alluxio),
    )
    return _all_of_it(removal, worker.UNIT_PATH, f)


def _logs(alluxio: AlluxioCluster) -> Change:
    # Folders in it are deleted, too: `info nodes` makes one.
    logs = delete_logs(alluxio.log_dir, alluxio.user)
    return Change(f"delete the logs in {alluxio.log_dir}", logs)


def delete_logs(folder: str, user: str) -> str:
    """A shell command, after :data:`safely.FUNCTIONS`, that deletes everything of ``user`` in
    ``folder``."""
    find = f"find . -xdev -mindepth 1 -user {shlex.quote(user)} -delete 2>/dev/null || :"
    return _if_there(folder, find)


def _if_there(folder: str, commands: str) -> str:
    """A shell command that runs ``commands`` in ``folder``, if it is there."""
    return f"[ ! -d {shlex.quote(folder)} ] || {safely.in_folder(folder, commands)}"


def _master_paths(alluxio: AlluxioCluster) -> list[str]:
    return [
        worker.MASTER_UNIT_PATH,
        worker.current_link(alluxio),
        journal_folder.journal_dir(alluxio),
        *state.paths(alluxio, "master"),
    ]


def _master_folders(alluxio: AlluxioCluster) -> list[str]:
    return [alluxio.state_dir, alluxio.log_dir]


def _service_folder(alluxio: AlluxioCluster) -> str:
    """The folder in ``state_dir`` that the services of a worker and of a master make themselves."""
    return state.temp_dir(alluxio, "").rstrip("/")


def _master_probe(alluxio: AlluxioCluster) -> Probe:
    folders = [*_master_folders(alluxio), *_worker_releases(alluxio)]
    return Probe(
        resources=(*_units(), *_notes(folders)),
        paths=(*_master_paths(alluxio), *_worker_releases(alluxio)),
        units=(worker.MASTER_UNIT, worker.UNIT),
        commands=_count([journal_folder.journal_dir(alluxio)])
        | _listing(alluxio.name, _worker_releases(alluxio)),
    )


def _master(
    alluxio: AlluxioCluster, master: AlluxioMaster, facts: Mapping[Machine, HostFacts]
) -> tuple[Change, ...]:
    f = facts[master.machine]
    # Otherwise the worker, or another cluster's service, uses the releases and the logs, too.
    alone = f.unit(worker.UNIT).load == "not-found"
    alone = alone and not _in_use(alluxio.java.install_dir, f, alluxio.name, jdk=True)
    removal = _removal(
        f,
        worker.MASTER_UNIT,
        worker.MASTER_UNIT_PATH,
        alluxio.name,
        [p for p in _master_paths(alluxio) if alone or not p.endswith("/current")],
        _master_folders(alluxio),
        _unpacked(alluxio, f) if alone else [],
        first=(_logs(alluxio),) if alone else (),
        jdk=alluxio.java.install_dir,
        within=_service_folder(alluxio),
    )
    return _all_of_it(removal, worker.MASTER_UNIT_PATH, f)


def _removal(
    facts: HostFacts,
    unit: str,
    unit_path: str,
    cluster: str,
    gone: Sequence[str],
    empty: Sequence[str],
    releases: Sequence[str],
    first: Sequence[Change] = (),
    begun: bool = False,
    jdk: str = "",
    kept: Sequence[str] = (),
    within: str = "",
) -> tuple[Change, ...]:
    """The removal of one role from a host; nothing when the unit belongs to another cluster.

    The unit file goes last: while it is there, a killed run can be run again. A host without the
    unit may have releases that a killed first run had uploaded. With ``begun``, that run had also
    begun to write the other files, all but the unit. Releases that another cluster's service uses
    stay, and so do the folders in ``kept`` with their files. A folder that was there before this
    tool stays and gets its owner back. ``within`` is a folder that the service itself has made.
    """
    there = [path for path in releases if path in facts.paths]
    free = [path for path in there if not _in_use(path, facts, cluster, path == jdk)]
    absent = owner(facts, unit_path) is None and facts.unit(unit).load == "not-found"
    if absent and not begun:
        # This cluster may never have run here: only what it has unpacked is its own.
        every = not _foreign(facts, cluster)
        ours = [path for path in free if facts.commands.get(_label(path), "?").strip()]
        return tuple(delete_releases(path, cluster, nameless=every) for path in ours)
    unpacked = [delete_releases(path) for path in free]
    if not absent and owner(facts, unit_path) != cluster:
        return ()
    # A process that starts during the look at the host may create paths that were not there.
    since = shlex.join(path for path in gone if path not in facts.paths and path != unit_path)
    result = [
        Change(
            f"stop and disable {unit}",
            # The data is deleted, so a leader does not have to hand on its leadership first.
            unit_changes.kill(unit) + (f"\ngone {since}" if since else ""),
            disrupts=True,
            seconds=120,
            stops=(unit,),
            # Wherever its data is: the inventory may name another folder than the running etcd's.
            effects=(Effect.ETCD_GONE,) if unit == layout.UNIT and _runs(facts, unit) else (),
        ),
        *first,
        *unpacked,
    ]
    result += [
        Change(f"delete {path}", f"gone {shlex.quote(path)}", effects=_effects(path, unit))
        for path in gone
        if path in facts.paths and path != unit_path
    ]
    if within:
        result.append(Change(f"remove {within} if empty", f"empty {shlex.quote(within)} || :"))
    result += [
        Change(f"remove {path} if empty", former_owner.removed(path))
        for path in (*empty, *releases)
    ]
    others = [path for path in UNIT_PATHS if path != unit_path]
    result += former_owner.give_back((*empty, *releases, *kept), facts, others)
    result.append(unit_changes.delete(unit, unit_path))
    return tuple(result)


def _all_of_it(removal: tuple[Change, ...], unit_path: str, facts: HostFacts) -> tuple[Change, ...]:
    """``removal`` with the note of this tool's version. A run whose first change failed may have
    left the note alone."""
    noted = tool_version.FACT in facts.values
    if noted and not removal and not any(owner(facts, path) for path in UNIT_PATHS):
        removal = (Change(f"delete {tool_version.FILE}"),)
    return forget_version(removal, unit_path)


def forget_version(removal: tuple[Change, ...], unit_path: str) -> tuple[Change, ...]:
    """``removal``, of the unit at ``unit_path``. Its last change also removes the note of this
    tool's version, unless another unit of this tool is on the host."""
    if not removal:
        return removal
    *first, last = removal
    others = [path for path in UNIT_PATHS if path != unit_path]
    forget = f"{former_owner.give_back_rest(others)}\n{tool_version.forget(others)}"
    # Before the unit file goes: while it is there, a killed run can be run again.
    return (*first, replace(last, script=f"{forget}\n{last.script}"))


def _effects(path: str, unit: str) -> tuple[Effect, ...]:
    is_data = unit == layout.UNIT and path.endswith("/member")
    return (Effect.ETCD_GONE,) if is_data else ()


def _runs(facts: HostFacts, unit: str) -> bool:
    return facts.unit(unit).active in ("active", "activating", "reloading", "deactivating")


def _foreign(facts: HostFacts, cluster: str) -> list[str]:
    """The texts of the units that other clusters have on the host, by this tool."""
    return [
        facts.text(path) or "" for path in UNIT_PATHS if owner(facts, path) not in (None, cluster)
    ]


def _in_use(path: str, facts: HostFacts, cluster: str, jdk: bool) -> bool:
    """Whether a service of another cluster may use a release in the folder ``path``. Alluxio's
    units do not name their JDK, so with ``jdk`` every such unit may."""
    alluxio = (worker.UNIT_PATH, worker.MASTER_UNIT_PATH)
    if jdk and any(owner(facts, unit) not in (None, cluster) for unit in alluxio):
        return True
    return any(f"{path}/" in text for text in _foreign(facts, cluster))


def _listing(cluster: str, folders: Sequence[str]) -> dict[str, str]:
    """The commands of a probe that print something for each of ``folders`` with a release that
    ``cluster`` or an earlier version of this tool has unpacked, or with what a killed upload has
    left. No name is printed: it may be anything."""
    return {
        _label(path): _each_release(path, cluster, nameless=True, do="echo release")
        + f"\n[ -z \"$(find {shlex.quote(f'{path}/')} -mindepth 1 -maxdepth 1 -name '.*' "
        '2>/dev/null | head -c 1)" ] || echo begun\n'
        f'[ -n "$(ls -A {shlex.quote(path)} 2>/dev/null)" ] || '
        f"{{ {former_owner.is_made(path)} && echo empty; }}"
        for path in folders
    }


def _label(path: str) -> str:
    return f"releases in {path}"


def _each_release(path: str, cluster: str, *, nameless: bool, do: str) -> str:
    """A shell loop over the releases below ``path`` with this tool's mark. With ``cluster``, only
    those that it has unpacked, and with ``nameless`` those of an earlier version of this tool."""
    folder, wanted = shlex.quote(path), ""
    if cluster:
        names = f"{shlex.quote(cluster)} | ''" if nameless else shlex.quote(cluster)
        noted = f'"$(head -n 1 "$d/{OWNER}" 2>/dev/null || :)"'
        wanted = f" && case {noted} in {names}) ;; *) false;; esac"
    return (
        f"for d in {folder}/*; do\n"
        f'if [ ! -L "$d" ] && [ -e "$d/{MARKER}" ]{wanted}; then {do}; fi\ndone'
    )


def delete_releases(path: str, cluster: str = "", *, nameless: bool = True) -> Change:
    """Delete every release below ``path`` with this tool's mark, older releases too, and the links
    that then lead nowhere. ``cluster`` and ``nameless``: see :func:`_each_release`."""
    folder = shlex.quote(path)
    begun = f'for d in {folder}/.incoming.*; do rm -rf "$d"; done\n' if nameless else ""
    loop = _each_release(path, cluster, nameless=nameless, do='rm -rf "$d"')
    return Change(
        f"delete the releases in {path}",
        f"{begun}{loop}\n"
        f'for d in {folder}/*; do [ ! -L "$d" ] || [ -e "$d" ] || rm -f "$d"; done\n'
        f"{former_owner.removed(path)}",
    )


_T = TypeVar("_T", EtcdMember, AlluxioMaster, AlluxioWorker)


def _hosts(
    roles: Sequence[_T], removal: Callable[[_T], tuple[Change, ...]]
) -> tuple[HostChanges, ...]:
    hosts = (HostChanges(role.name, role.machine, removal(role)) for role in roles)
    return tuple(h for h in hosts if h.changes)
