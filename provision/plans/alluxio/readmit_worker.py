"""``readmit-worker``: writes back a registration that forget-worker removed."""

from __future__ import annotations

from pathlib import Path

from provision.alluxio.membership import removed
from provision.alluxio.worker import desired
from provision.engine.plan import Action, Plan, Step
from provision.errors import PreflightFailed, Problem, Unhealthy, UsageError
from provision.etcd.cluster.handle import Etcd
from provision.inventory.resolved import AlluxioCluster, Inventory
from provision.text import printable


def plan(inventory: Inventory, alluxio: AlluxioCluster, etcd: Etcd, file: Path) -> Plan:
    """The plan of ``readmit-worker``: write a removed registration back, if the id has none.

    Raises :class:`UsageError` when the file is not a saved registration of this cluster.
    """
    saved = removed.read(file)
    if saved.cluster != alluxio.name:
        raise UsageError(
            f"{file}: is of cluster {saved.cluster}, not {alluxio.name}", id="file-unusable"
        )
    with etcd.as_worker(desired.login(alluxio)).any() as client:
        there = client.get(saved.key)
    command = "readmit-worker"
    if there is not None and there.value == saved.value:
        return Plan(command, inventory.cluster)
    if there is not None:
        raise PreflightFailed(
            f"{saved.worker_id} now has another registration",
            [
                Problem(
                    "etcd",
                    f"{printable(saved.key, 300)} has another value than {file}",
                    id="changed-meanwhile",
                )
            ],
            id="changed-meanwhile",
        )

    def do() -> None:
        with etcd.as_worker(desired.login(alluxio)).any() as client:
            if not client.create(saved.key, saved.value):
                raise Unhealthy(
                    f"{saved.worker_id} has registered itself meanwhile", id="changed-meanwhile"
                )

    call = Action(f"etcd: write {printable(saved.key, 300)} as {file} has it", do)
    return Plan(command, inventory.cluster, (Step(f"readmit {saved.worker_id}", calls=(call,)),))
