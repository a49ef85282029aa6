"""``upgrade-workers`` and ``rollback-workers``: several releases side by side on the hosts.

Each release has a folder of its own below ``install_dir``, with the configuration in it. The link
``current`` names the running release, ``previous`` the release before. Releases are deleted only
when the operator asks for it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from provision import artifacts
from provision.alluxio.commands import readiness
from provision.alluxio.worker import desired
from provision.alluxio.worker.desired import Artifacts
from provision.artifacts import Artifact
from provision.dataclass import dataclass
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.cluster.handle import Etcd
from provision.host import gather
from provision.host.diff import Change
from provision.host.facts import HostFacts, Probe, merged_each
from provision.host.resources import MARKER, File
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory, Machine
from provision.plans.alluxio import restart_workers, start_workers, stop_workers
from provision.ssh.session import Fleet
from provision.text import number

#: The running release and the one before are always kept.
KEPT = 2
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is unpacked on a host. ``installed`` is in seconds since the epoch, ``digest``
    is its tarball's sha256."""

    name: str
    digest: str
    installed: int


@dataclass(frozen=True, slots=True)
class Rollback:
    """``to`` is the release that the workers run after it; None when there is no such release."""

    plan: Plan
    to: str | None
    digest: str = ""


def upgrade(
    inventory: Inventory,
    alluxio: AlluxioCluster,
    etcd: Etcd,
    chosen: Sequence[AlluxioWorker],
    *,
    at_once: int | None = None,
    keep: int | None = None,
) -> Plan:
    """The plan of ``upgrade-workers``: bring running workers to the inventory's release.

    ``keep``: how many releases stay on a host; older releases are deleted. None keeps all.
    """
    facts = _look(inventory, alluxio, chosen, etcd.fleet)
    stands = restart_workers.standing(
        alluxio, chosen, facts, start_workers.live(alluxio, etcd, chosen)
    )
    todo = [*stands.broken, *stands.live]
    if not todo:
        return Plan("upgrade-workers", inventory.cluster, (), stands.notes)
    plan = start_workers.plan(
        inventory,
        alluxio,
        etcd,
        start_workers.observe(alluxio, etcd, todo),
        todo,
        command="upgrade-workers",
        at_once=at_once or _share(chosen),
    )
    hosts = [_pruned(alluxio, w, facts[w.machine], keep) for w in todo] if keep else []
    if hosts := [h for h in hosts if h.changes]:
        prune = Step("delete older releases", tuple(hosts), at_once=inventory.parallel)
        plan = replace(plan, steps=(*plan.steps, prune))
    return replace(plan, notes=(*plan.notes, *stands.notes))


def rollback(
    inventory: Inventory,
    alluxio: AlluxioCluster,
    etcd: Etcd,
    chosen: Sequence[AlluxioWorker],
    *,
    to: str = "",
    at_once: int | None = None,
) -> Rollback:
    """The plan of ``rollback-workers``: from the inventory's release to the release before it, or
    to ``to``, with the configuration from the inventory.

    Workers that run another release already are left alone, so that a run which ended part-way
    goes on. Raises :class:`PreflightFailed` where the release is no longer on the host.
    """
    facts = _look(inventory, alluxio, chosen, etcd.fleet)
    stands = restart_workers.standing(
        alluxio, chosen, facts, start_workers.live(alluxio, etcd, chosen)
    )
    running = [*stands.broken, *stands.live]
    target = to or _before(alluxio, running, facts)
    command = "rollback-workers"
    if target is None or not running:
        return Rollback(Plan(command, inventory.cluster, (), stands.notes), None)
    if not _NAME.fullmatch(target):
        raise UsageError(f"--to is the name of a release, not {target!r}", id="option-invalid")
    digest = _digest(target, alluxio, running, facts)
    older = replace(alluxio, version=target, downgrade=True)
    jdk = alluxio.java.source
    tarballs = Artifacts(
        # Nothing is uploaded: the release is on the host, and its marker proves it.
        Artifact(Path(target), digest, 0),
        None if jdk is None else artifacts.fetch(jdk, artifacts.default_cache()),
    )
    plan = start_workers.plan(
        inventory,
        older,
        etcd,
        start_workers.observe(older, etcd, running, tarballs),
        running,
        command=command,
        at_once=at_once or _share(chosen),
        remember=False,
    )
    return Rollback(replace(plan, notes=(*plan.notes, *stands.notes)), target, digest)


def running(
    alluxio: AlluxioCluster, fleet: Fleet, chosen: Sequence[AlluxioWorker]
) -> dict[str, list[str]]:
    """The releases that ``current`` names on the chosen workers' hosts, each with its workers."""
    probe = Probe(paths=(desired.current_link(alluxio),))
    facts = gather.require_facts(fleet, {w.machine: probe for w in chosen})
    found: dict[str, list[str]] = {}
    for w in chosen:
        name = desired.target(facts[w.machine], desired.current_link(alluxio))
        if name is not None:
            found.setdefault(name, []).append(w.name)
    return found


def said(runs: Mapping[str, Sequence[str]], declared: str) -> str:
    """The running releases, each with the number of its workers."""
    text = ", ".join(
        f"{len(names)} on {name}" + ("" if name == declared else " (not the inventory's)")
        for name, names in sorted(runs.items())
    )
    return text or "no worker is installed"


def parse(text: str) -> list[Release]:
    """The releases in a host's list, the newest first. Other lines are ignored."""
    found = []
    for line in text.splitlines():
        installed, _, rest = line.partition(" ")
        digest, _, name = rest.partition(" ")
        when = number(installed)
        if when is not None and _DIGEST.fullmatch(digest) and _NAME.fullmatch(name):
            found.append(Release(name, digest, when))
    return sorted(found, key=lambda r: (-r.installed, r.name))


def surplus(there: Iterable[Release], kept: Iterable[str | None], keep: int) -> list[str]:
    """The oldest releases of ``there`` beyond ``keep``. Releases in ``kept`` count, and stay."""
    safe = set(kept)
    names = [r.name for r in there]
    stay = sum(name in safe for name in names)
    return [name for name in names if name not in safe][max(0, keep - stay) :]


def _look(
    inventory: Inventory, alluxio: AlluxioCluster, chosen: Sequence[AlluxioWorker], fleet: Fleet
) -> dict[Machine, HostFacts]:
    folder = shlex.quote(alluxio.install_dir)
    listing = (
        f'for d in {folder}/*; do m=$d/{MARKER}; if [ ! -L "$d" ] && [ -f "$m" ]; then '
        'echo "$(stat -c %Y "$m") $(head -c 64 "$m") ${d##*/}"; fi; done'
    )
    probe = Probe(
        resources=(File(desired.UNIT_PATH, None),),
        units=(desired.UNIT,),
        paths=(desired.current_link(alluxio), desired.previous_link(alluxio)),
        commands={"releases": listing},
    )
    asked = readiness.probes(alluxio, chosen)
    probes = merged_each(dict.fromkeys(asked, probe), asked)
    facts = gather.require_facts(fleet, probes)
    stop_workers.require_ours(inventory, chosen, facts)
    return facts


def _share(chosen: Sequence[AlluxioWorker]) -> int:
    return max(1, len(chosen) // start_workers.RESTART_SHARE)


def _before(
    alluxio: AlluxioCluster, workers: Sequence[AlluxioWorker], facts: Mapping[Machine, HostFacts]
) -> str | None:
    """The release before the inventory's release, on the hosts that run the inventory's release."""
    befores: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for w in workers:
        f = facts[w.machine]
        now = desired.target(f, desired.current_link(alluxio))
        if now != alluxio.version:
            continue
        before = desired.target(f, desired.previous_link(alluxio))
        if before is None or before == now:
            what = f"has run no release before {now}"
            problems.append(
                Problem(
                    w.place,
                    what,
                    "name a release that is on the host with --to, if there is one",
                    id="release-missing",
                )
            )
        else:
            befores.setdefault(before, []).append(w.name)
    if len(befores) > 1:
        said = "; ".join(f"{', '.join(names)} ran {name}" for name, names in befores.items())
        problems.append(
            Problem(
                "alluxio.workers",
                f"the releases before are different: {said}",
                "name one of them with --to",
                id="release-missing",
            )
        )
    if problems:
        raise PreflightFailed(
            "it is not clear which release to go back to",
            problems,
            id="release-missing",
        )
    return next(iter(befores), None)


def _digest(
    target: str,
    alluxio: AlluxioCluster,
    workers: Sequence[AlluxioWorker],
    facts: Mapping[Machine, HostFacts],
) -> str:
    """The digest of ``target`` on every host. Raises :class:`PreflightFailed` without it."""
    digests: dict[str, str] = {}
    problems: list[Problem] = []
    for w in workers:
        there = {r.name: r for r in parse(facts[w.machine].commands.get("releases", ""))}
        if target in there:
            digests.setdefault(there[target].digest, w.name)
            continue
        has = ", ".join(there) or "none"
        what = f"release {target} is not in {alluxio.install_dir} (there: {has})"
        remedy = f"set alluxio.version to {target} and alluxio.source, then invoke upgrade-workers"
        problems.append(Problem(w.place, what, remedy, id="release-missing"))
    if len(digests) > 1:
        what = f"release {target} is not the same build on {' and '.join(digests.values())}"
        problems.append(
            Problem(
                "alluxio.workers",
                what,
                "roll them back one by one: invoke rollback-workers NAME",
                id="release-missing",
            )
        )
    if problems:
        raise PreflightFailed("preflight failed", problems, id="release-missing")
    return next(iter(digests))


def _pruned(alluxio: AlluxioCluster, w: AlluxioWorker, f: HostFacts, keep: int) -> HostChanges:
    now = desired.target(f, desired.current_link(alluxio))
    before = desired.target(f, desired.previous_link(alluxio))
    there = parse(f.commands.get("releases", ""))
    coming = alluxio.version not in {r.name for r in there}
    kept = (alluxio.version, now if now != alluxio.version else before)
    link = shlex.quote(desired.current_link(alluxio))
    changes = []
    for name in surplus(there, kept, keep - coming):
        path = f"{alluxio.install_dir}/{name}"
        # A master on the host may still run from it. (The path is not in grep's own arguments.)
        script = f"""\
[ "$(readlink {link})" != {shlex.quote(name)} ] || exit 1
if grep -qsaF -f - /proc/[0-9]*/cmdline <<'@@path'
{path}/
@@path
then echo "a process still runs from it" >&2; exit 1; fi
rm -rf {shlex.quote(path)}"""
        changes.append(Change(f"delete {path}", script))
    return HostChanges(w.name, w.machine, tuple(changes))
