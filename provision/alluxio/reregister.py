"""Whether workers still hold their registrations after etcd's data was put back in time.

A worker keeps its lease alive by the lease's id. When the restored data does not have that
lease, the worker's keep-alive finds nothing: it goes on serving, but is registered no more until
it is restarted. When the data has an older lease of its, the key is there until that one ends.
"""

from __future__ import annotations

import contextlib
import shlex
import time

from provision.alluxio import desired, membership, start
from provision.errors import Unhealthy
from provision.etcd import health
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory
from provision.plan import Call
from provision.remote import Fleet, Session, failures

#: etcd's client sends a keep-alive three times within a lease's time to live.
KEEP_ALIVES = 3


def call(inventory: Inventory, fleet: Fleet) -> Call:
    """Restart the running workers whose leases nobody keeps alive, and wait until all are live."""
    return Call(
        "restart the workers that have lost their registration, and wait until all are live",
        lambda: _do(inventory, fleet),
    )


def _do(inventory: Inventory, fleet: Fleet) -> None:
    alluxio = inventory.alluxio
    if alluxio is None or alluxio.membership == "STATIC":
        return
    lost = _lost(inventory, alluxio, fleet, _running(alluxio, fleet))
    if not lost:
        return

    def restart(session: Session) -> None:
        done = session.run(f"systemctl restart {shlex.quote(desired.UNIT)}", "restart the worker")
        if not done.ok:
            raise Unhealthy(
                f"{session.machine.host}: {done.stderr.strip()[-300:]}", id="change-failed"
            )

    machines = [w.machine for w in lost]
    if problems := failures(fleet.map(restart, machines, at_once=inventory.parallel)):
        raise Unhealthy(
            f"{len(problems)} workers could not be restarted", problems, id="change-failed"
        )
    limit = alluxio.start_timeout + alluxio.failure_detection_timeout
    deadline = time.monotonic() + limit
    while missing := _lost(inventory, alluxio, fleet, lost):
        if time.monotonic() > deadline:
            start.require_live(inventory, alluxio, fleet, missing)
            names = ", ".join(w.name for w in missing)
            raise Unhealthy(
                f"nobody keeps the leases of {names} alive after {limit} s", id="worker-not-live"
            )


def _running(alluxio: AlluxioCluster, fleet: Fleet) -> list[AlluxioWorker]:
    """The workers whose unit is active; one that is stopped, or whose host is away, is none of
    our business: nothing here made it so."""

    def active(session: Session) -> bool:
        return session.run(f"systemctl is-active -q {desired.UNIT}", "is the worker up").ok

    seen = fleet.map(active, [w.machine for w in alluxio.workers])
    return [w for w in alluxio.workers if seen[w.machine] is True]


def _lost(
    inventory: Inventory, alluxio: AlluxioCluster, fleet: Fleet, workers: list[AlluxioWorker]
) -> list[AlluxioWorker]:
    """The workers whose live key is not there, or whose lease only runs out.

    A lease that is kept alive has more time left than a moment before, once within a third of
    its time to live; whoever has none after that, and a second more, is lost.
    """
    waiting = {(w.hostname, w.rpc_port): w for w in workers}
    least: dict[int, int] = {}
    deadline = time.monotonic() + alluxio.failure_detection_timeout / KEEP_ALIVES + 1.5
    while waiting and time.monotonic() < deadline:
        with (
            contextlib.suppress(Unhealthy),  # etcd may change its leader meanwhile
            health.any_client(inventory.etcd, fleet) as client,
        ):
            for key, worker in membership.read(client, alluxio.name).live_registrations():
                if (worker.host, worker.rpc_port) not in waiting or not key.lease:
                    continue
                ttl = client.lease_ttl(key.lease)
                if ttl > least.setdefault(key.lease, ttl):
                    del waiting[worker.host, worker.rpc_port]
                least[key.lease] = min(ttl, least[key.lease])
        time.sleep(0.2)
    return list(waiting.values())
