"""``enable-auth`` and ``disable-auth``: permissions in etcd, and the workers' login.

etcd needs a user root with the role root before it turns authentication on ("Role-based access
control" in its operations guide). The workers get a user of their own. Its role covers only what
Alluxio 313 asks for. Alluxio lists both prefixes without a slash at the end: with a role on
``/DHT/<cluster>/`` workers would join, but ``info nodes`` would see nothing.

While authentication is off, 313 cannot join with a login. While it is on, 313 cannot keep its lease
without a login (both tried). So the workers' files are written first, then etcd is switched, and
then all workers are restarted together, as many at a time as etcd can log in (:mod:`logins`). When
a worker's restart comes after the end of its lease (``alluxio.failure_detection_timeout``), the
worker is offline for others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, replace

from provision.alluxio.worker import desired as workers_desired
from provision.dataclass import dataclass
from provision.engine.plan import Action, HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.login import root_login
from provision.etcd.api.values import Login, Permission
from provision.etcd.cluster import gates, health
from provision.etcd.cluster.handle import Etcd
from provision.host import gather
from provision.host.diff import Change, changes
from provision.host.effects import Effect
from provision.host.ownership import owner
from provision.host.resources import File
from provision.inventory import etcd_releases
from provision.inventory.etcd_releases import State
from provision.inventory.model import AlluxioEtcd
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory
from provision.plans.alluxio import moved, start_workers
from provision.plans.etcd import logins
from provision.plans.etcd.state import other_clusters
from provision.plans.etcd.state.other_clusters import Harm, Others
from provision.text import counted

ROOT = "root"
_REFUSED = ": etcd will refuse them until they have their own login"
_ON = Harm(
    f"here{_REFUSED}",
    "plan a user and role for it, then use --lock-out {}",
    "--lock-out",
    _REFUSED,
)
_OFF = Harm(
    "here: while authentication is off, Alluxio cannot join with a login",
    "take its workers' login away at the same time, then use --lock-out {}",
    "--lock-out",
)


@dataclass(frozen=True, slots=True)
class AuthState:
    """The state in etcd. ``accepted``: whether etcd takes the workers' login, with authentication
    on."""

    enabled: bool
    users: dict[str, tuple[str, ...]]
    roles: dict[str, tuple[Permission, ...]]
    accepted: bool = False
    #: The other Alluxio clusters in this etcd.
    others: Others = field(default_factory=Others)
    #: The members, with the release of each.
    running: tuple[tuple[str, str], ...] = ()


def observe(inventory: Inventory, etcd: Etcd) -> AuthState:
    """Ask etcd, as root when authentication is on. Raises :class:`Unhealthy` when etcd refuses, and
    :class:`UsageError` when the inventory lacks a value that is needed."""
    cluster = etcd.cluster
    if root_login(cluster) is None:
        raise UsageError(
            f"{inventory.path}: etcd.auth.root_password is missing", id="inventory-incomplete"
        )
    seen = gates.wait_until_recovered(etcd, health.observe(etcd))
    gates.require_writable(seen)
    with etcd.any() as client:
        enabled = client.log_in()
        users, roles = client.users(), client.roles()
    login = _login(inventory)
    accepted = enabled and login is not None and _accepted(etcd, login)
    others = other_clusters.ask(inventory, etcd)
    return AuthState(enabled, users, roles, accepted, others, seen.releases)


def enable(
    inventory: Inventory,
    etcd: Etcd,
    seen: AuthState,
    lock_out: Sequence[str] = (),
    *,
    agreed: bool = False,
) -> Plan:
    """Make users and roles, write the workers' login, turn authentication on, restart the workers.

    Raises :class:`PreflightFailed` when another cluster has live workers here that would be cut
    off, unless ``lock_out`` names that cluster, and when this cannot be found out, unless the
    operator has ``agreed``. Raises it also when a running release damages data with authentication
    on.
    """
    cluster = etcd.cluster
    if not cluster.auth.enabled:
        raise UsageError(
            f"{inventory.path}: set etcd.auth.enabled: true to turn it on",
            id="command-not-applicable",
        )
    if not seen.enabled:
        etcd_releases.require_fit(seen.running, {State.AUTH}, "enable-auth")
    notes = () if seen.enabled else _others(_ON, inventory, etcd, seen, lock_out, agreed)
    steps: list[Step] = []
    if calls := _users(inventory, etcd, seen):
        steps.append(Step("make etcd's users and roles", calls=tuple(calls)))
    written, restarted = _workers(inventory, etcd)
    if written:
        steps.append(Step("give the workers their login", tuple(written)))
    if not seen.enabled:
        steps.append(_switch(etcd, "on", lambda client: client.auth_enable()))
    # Restart all workers together: without their login they can no longer keep their leases alive.
    if (alluxio := inventory.alluxio) is not None and restarted:
        at_once = min(inventory.parallel, logins.together(cluster, alluxio))
        steps += _restarts(inventory, etcd, restarted, len(restarted), at_once)
        if (slow := logins.note(cluster, alluxio, len(restarted), inventory.parallel)) is not None:
            notes = (*notes, slow)
    return replace(_plan("enable-auth", inventory, steps), notes=notes)


def disable(
    inventory: Inventory,
    etcd: Etcd,
    seen: AuthState,
    lock_out: Sequence[str] = (),
    *,
    agreed: bool = False,
) -> Plan:
    """Remove the workers' login, turn authentication off, and restart the workers, rolling.

    Users and roles stay in etcd: without authentication they mean nothing. Raises
    :class:`PreflightFailed` for live workers of another cluster, as :func:`enable` does.
    """
    cluster = etcd.cluster
    if cluster.auth.enabled is not False:
        raise UsageError(
            f"{inventory.path}: set etcd.auth.enabled: false to turn it off",
            id="command-not-applicable",
        )
    notes = _others(_OFF, inventory, etcd, seen, lock_out, agreed) if seen.enabled else ()
    steps: list[Step] = []
    written, restarted = _workers(inventory, etcd)
    if written:
        steps.append(Step("take the workers' login away", tuple(written)))
    if seen.enabled:
        steps.append(_switch(etcd, "off", lambda client: client.auth_disable()))
    share = max(1, len(restarted) // start_workers.RESTART_SHARE)
    steps += _restarts(inventory, etcd, restarted, share, inventory.parallel)
    return replace(_plan("disable-auth", inventory, steps), notes=notes)


def _others(
    harm: Harm,
    inventory: Inventory,
    etcd: Etcd,
    seen: AuthState,
    lock_out: Sequence[str],
    agreed: bool,
) -> tuple[Problem, ...]:
    harm = replace(harm, word=other_clusters.word_of(inventory))
    return other_clusters.require(etcd, seen.others, harm, lock_out, agreed=agreed)


def as_declared(inventory: Inventory, etcd: Etcd) -> Step:
    """For data of another time: make authentication, its users and roles as the inventory declares
    them. The workers' files are as declared already; workers that lack their login are restarted by
    others."""
    to = "on" if etcd.cluster.auth.enabled else "off"

    def run() -> None:
        login = _login(inventory)
        with etcd.any() as client:
            enabled = client.log_in()
        known = not enabled or login is None or _accepted(etcd, login)
        if enabled is etcd.cluster.auth.enabled and known:
            return
        seen = observe(inventory, etcd)
        if to == "on":
            for call in _users(inventory, etcd, seen):
                call.do()
        if enabled is not etcd.cluster.auth.enabled:
            for call in switch.calls:
                call.do()

    switch = _switch(etcd, to, EtcdClient.auth_enable if to == "on" else EtcdClient.auth_disable)
    what = f"authentication {to}, as declared" + (
        ", with its users and roles" if to == "on" else ""
    )
    return replace(switch, calls=(Action(what, run),))


def permissions(cluster: str) -> tuple[Permission, ...]:
    """What Alluxio's workers and its ``info nodes`` need in etcd, and nothing else."""
    return (Permission.below(f"/DHT/{cluster}"), Permission.below(f"/ServiceDiscovery/{cluster}"))


def _plan(command: str, inventory: Inventory, steps: Sequence[Step]) -> Plan:
    guards = tuple(m.machine for m in inventory.etcd.members) if steps else ()
    return Plan(command, inventory.cluster, tuple(steps), guards=guards)


def _login(inventory: Inventory) -> Login | None:
    alluxio = inventory.alluxio
    if alluxio is None or not alluxio.membership.in_etcd:
        return None
    return workers_desired.login(alluxio)


def _accepted(etcd: Etcd, login: Login) -> bool:
    with etcd.as_worker(login).member(etcd.cluster.members[0]) as client:
        try:
            return client.log_in()
        except EtcdUnreachable as error:
            if error.reason is Reason.LOGIN:
                return False
            raise


def _users(inventory: Inventory, etcd: Etcd, seen: AuthState) -> list[Action]:
    """The calls for users and roles. A password that cannot be checked in etcd is set again."""
    cluster = etcd.cluster
    root = root_login(cluster)
    assert root is not None  # observe() has checked it
    calls: list[Action] = []

    def call(what: str, do: Callable[[EtcdClient], None]) -> None:
        def run() -> None:
            with etcd.any() as client:
                do(client)

        calls.append(Action(what, run))

    if not seen.enabled:
        call("user root with its password and role", lambda c: _user(c, root, ROOT))
    login = _login(inventory)
    if login is None:
        return calls
    wanted = permissions(inventory.cluster)
    if set(seen.roles.get(login.user, ())) != set(wanted):
        rights = ", ".join(map(str, wanted))
        call(f"role {login.user}: {rights}", lambda c: _role(c, login.user, wanted))
    if not seen.accepted or login.user not in seen.users.get(login.user, ()):
        call(f"user {login.user} with its password and role", lambda c: _user(c, login, login.user))
    return calls


def _user(client: EtcdClient, login: Login, role: str) -> None:
    users = client.users()
    if login.user in users:
        client.user_change_password(login.user, login.password)
    else:
        client.user_add(login.user, login.password)
    if role == ROOT and ROOT not in client.roles():
        client.role_add(ROOT)
    if role not in users.get(login.user, ()):
        client.user_grant_role(login.user, role)


def _role(client: EtcdClient, name: str, wanted: Sequence[Permission]) -> None:
    roles = client.roles()
    if name not in roles:
        client.role_add(name)
    for permission in wanted:
        client.role_grant(name, permission)
    for permission in roles.get(name, ()):
        if permission not in wanted:
            client.role_revoke(name, permission)


def _switch(etcd: Etcd, to: str, do: Callable[[EtcdClient], None]) -> Step:
    def run() -> None:
        with etcd.any() as client:
            if client.log_in() is not (to == "on"):
                do(client)

    return Step(
        f"turn authentication {to}",
        calls=(Action(f"authentication {to}", run, (Effect.ETCD, Effect.CLIENTS)),),
        after=gates.all_healthy(etcd),
    )


def _workers(
    inventory: Inventory, etcd: Etcd
) -> tuple[list[HostChanges], list[tuple[AlluxioWorker, HostChanges]]]:
    """The changes on the hosts of installed workers, and the restarts of the running workers."""
    alluxio = inventory.alluxio
    if alluxio is None or not alluxio.membership.in_etcd:
        return [], []
    tarballs = start_workers.fetch(alluxio, unread=True)  # no host gets one
    probes = workers_desired.probes(alluxio, alluxio.workers, tarballs)
    seen, absent = gather.gather_facts(etcd.fleet, probes)
    if absent:
        # A worker that is left out would be cut off, or would never come back.
        raise PreflightFailed(
            "not every worker's host can be reached",
            absent,
            id="preflight-failed",
        )
    written: list[HostChanges] = []
    restarted: list[tuple[AlluxioWorker, HostChanges]] = []
    ours = [w for w in alluxio.workers if owner(seen[w.machine], workers_desired.UNIT_PATH)]
    # Asked as root: etcd may not know the workers' login yet, or may have lost it.
    as_root = replace(alluxio, etcd_login=AlluxioEtcd())
    if moving := moved.left_to_start_workers(as_root, etcd, ours, seen):
        raise PreflightFailed(
            f"the address of {counted(len(moving), 'worker')} changes",
            list(moving.values()),
            id="worker-address-changing",
        )
    for w in alluxio.workers:
        facts = seen[w.machine]
        if owner(facts, workers_desired.UNIT_PATH) != alluxio.name:
            continue
        unit = workers_desired.running()
        runs = facts.unit(unit.name).active in ("active", "activating")
        wanted = [r for r in workers_desired.resources(alluxio, w, tarballs, facts) if _is_site(r)]
        todo = changes([*wanted, *([unit] if runs else [])], facts)
        files = tuple(c for c in todo if not c.disrupts)
        if files:
            written.append(HostChanges(w.name, w.machine, files))
        units: tuple[Change, ...] = tuple(c for c in todo if c.disrupts)
        if units:
            restarted.append((w, HostChanges(w.name, w.machine, units)))
    return written, restarted


def _is_site(resource: object) -> bool:
    return isinstance(resource, File) and resource.path.endswith("/alluxio-site.properties")


def _restarts(
    inventory: Inventory,
    etcd: Etcd,
    restarted: Sequence[tuple[AlluxioWorker, HostChanges]],
    share: int,
    at_once: int,
) -> list[Step]:
    """Groups of ``share`` workers, each registered before the next; in a group ``at_once`` restart
    at a time."""
    alluxio: AlluxioCluster | None = inventory.alluxio
    if alluxio is None or not restarted:
        return []
    changed = {w.name: host for w, host in restarted}
    steps: list[Step] = []
    for some in start_workers.groups([w for w, _ in restarted], share):
        waiting = start_workers.RegistrationGate(alluxio, etcd, some)
        names = some[0].name if len(some) == 1 else f"{some[0].name} and {len(some) - 1} more"
        steps.append(
            Step(
                f"restart {names}",
                tuple(changed[w.name] for w in some),
                before=waiting.before,
                after=waiting.after,
                at_once=at_once,
            )
        )
    return steps
