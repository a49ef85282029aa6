"""``check-nodes --kubernetes``: the same verdicts as on bare metal, over the pods of a release.

The worker pods replace the inventory's workers: each registers under its pod's address. The chart's
etcd is asked member by member through port-forwards, and ``info nodes`` runs in a pod.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from provision import check_nodes
from provision.alluxio.commands import alluxio_cli, nodes
from provision.alluxio.commands.nodes import InfoNodes, NodeRow, NodesError
from provision.check_nodes import CheckReport, NodeVerdict
from provision.errors import Problem, ProvisionError, Unhealthy
from provision.etcd.api.client import DEFAULT_TIMEOUT
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import MemberHealth
from provision.inventory import chart
from provision.inventory.kubernetes import KubernetesCluster
from provision.inventory.model import AlluxioEtcd, EtcdAuth, EtcdTls
from provision.inventory.resolved import (
    AlluxioCluster,
    AlluxioWorker,
    EtcdCluster,
    EtcdMember,
    Inventory,
    Machine,
)
from provision.kubernetes.kubectl import Kubectl, Pod
from provision.kubernetes.values import declared
from provision.ssh.session import Fleet
from provision.text import counted


def kubectl(k: KubernetesCluster) -> Kubectl:
    return Kubectl(k.kubectl, k.namespace, k.kubeconfig, k.context)


def run(
    inventory: Inventory,
    etcd: Etcd,
    *,
    nodes_timeout: float = alluxio_cli.DEFAULT_TIMEOUT,
    etcd_timeout: float = DEFAULT_TIMEOUT,
) -> CheckReport:
    """Look at everything at once; timeouts are in seconds, as in :func:`provision.check_nodes.run`.

    Raises :class:`provision.kubernetes.kubectl.KubectlError` when the API server does not answer,
    and :class:`Unhealthy` when no member of etcd can be reached.
    """
    started = time.monotonic()
    _, k = declared(inventory)
    way = kubectl(k)
    with ThreadPoolExecutor(2, "kubectl") as pool:
        asked = pool.submit(way.pods, chart.master_selector(k.release))
        workers = way.pods(chart.worker_selector(k.release))
        masters = asked.result()
    report = look(
        inventory, etcd, workers, masters, nodes_timeout=nodes_timeout, etcd_timeout=etcd_timeout
    )
    return replace(report, seconds=time.monotonic() - started)


def look(
    inventory: Inventory,
    etcd: Etcd,
    workers: Sequence[Pod],
    masters: Sequence[Pod],
    *,
    nodes_timeout: float = alluxio_cli.DEFAULT_TIMEOUT,
    etcd_timeout: float = DEFAULT_TIMEOUT,
) -> CheckReport:
    """The report over these pods; otherwise as :func:`run`."""
    alluxio, k = declared(inventory)
    way = kubectl(k)
    seen = replace(
        inventory,
        alluxio=replace(
            alluxio,
            workers=tuple(_worker(alluxio.workers[0], pod, k) for pod in workers),
            etcd_login=AlluxioEtcd() if k.etcd_enabled else alluxio.etcd_login,
        ),
    )
    ask = _asking(way, workers, masters)
    with contextlib.ExitStack() as stack:
        failed: dict[str, MemberHealth] = {}
        if k.etcd_enabled:
            cluster, failed = _forwarded(inventory.etcd, way, k, stack)
            seen, etcd = replace(seen, etcd=cluster), etcd.with_cluster(cluster)
        report = check_nodes.run(
            seen, etcd, nodes_timeout=nodes_timeout, etcd_timeout=etcd_timeout, ask=ask
        )
    report = _with_failed(report, failed, k)
    return replace(
        report,
        nodes=_in_terms_of_pods(report.nodes, workers),
        view_problems=(*report.view_problems, *_pods_missing(workers, k)),
    )


def _worker(like: AlluxioWorker, pod: Pod, k: KubernetesCluster) -> AlluxioWorker:
    machine = Machine(pod.name)  # nothing is asked over SSH
    return like._replace(name=pod.name, machine=machine, hostname=pod.address, rpc_port=k.rpc_port)


def _forwarded(
    declared_etcd: EtcdCluster, way: Kubectl, k: KubernetesCluster, stack: contextlib.ExitStack
) -> tuple[EtcdCluster, dict[str, MemberHealth]]:
    """The chart's etcd at the local ends of forwards, and the unreachable members with the reasons.
    ``stack`` ends the forwards."""
    names = chart.etcd_pods(k.release, k.etcd_replicas)
    failed: dict[str, MemberHealth] = {}
    members: list[EtcdMember] = []

    def begin(name: str) -> int | ProvisionError:
        try:
            return stack.enter_context(way.forward(f"pod/{name}", chart.ETCD_PORT))
        except ProvisionError as error:
            return error

    with ThreadPoolExecutor(len(names), "forward") as pool:
        begun = list(pool.map(begin, names))
    for name, local in zip(names, begun, strict=True):
        if isinstance(local, int):
            members.append(_member(name, local))
        else:
            what = local.problems[0].what if local.problems else local.message
            remedy = local.problems[0].remedy if local.problems else ""
            id = local.problems[0].id if local.problems else local.id
            failed[name] = MemberHealth(
                _member(name, chart.ETCD_PORT), error=what, remedy=remedy, error_id=id
            )
    if not members:
        problems = [
            Problem(f"etcd member {m.member.name}", m.error, id=m.error_id) for m in failed.values()
        ]
        raise Unhealthy("no member of the chart's etcd can be reached", problems, id="quorum-lost")
    cluster = replace(
        declared_etcd,
        version="",  # the image decides the version; it is not in the inventory
        tls=EtcdTls(peer=False),
        auth=EtcdAuth(),
        members=tuple(members),
        external=False,
    )
    return cluster, failed


def _member(name: str, port: int) -> EtcdMember:
    return EtcdMember(
        name=name,
        machine=Machine(name),
        address="127.0.0.1",
        client_port=port,
        peer_port=2380,
        data_dir="",
        settings={},
        peer_tls=False,
        client_tls=False,
        forwarded=True,
    )


def _asking(way: Kubectl, workers: Sequence[Pod], masters: Sequence[Pod]) -> check_nodes.Ask:
    """``info nodes`` in a running pod: a worker's, else a master's; a second when one fails."""

    def ask(fleet: Fleet, alluxio: AlluxioCluster, timeout: float) -> InfoNodes:
        started = time.monotonic()
        places = [(p, chart.WORKER_CONTAINER) for p in workers if p.phase == "Running"]
        places += [(p, chart.MASTER_CONTAINER) for p in masters if p.phase == "Running"]

        def table(place: tuple[Pod, str]) -> list[NodeRow]:
            pod, container = place
            script = f"{chart.ALLUXIO_HOME}/bin/alluxio"
            line = ("exec", pod.name, f"--container={container}", "--", script, *nodes.WORDS)
            return nodes.parse_info_nodes(way.run(*line, timeout=timeout))

        asked = places[: nodes.ASKED]
        answer, errors = alluxio_cli.first_answer(table, asked, timeout * alluxio_cli.SECOND_AFTER)
        seconds = time.monotonic() - started
        if answer is not None:
            (pod, _), rows = answer
            return InfoNodes(pod.name, tuple(rows), seconds=seconds)
        said = [
            f"{pod.name}: "
            + (error.message if isinstance(error, NodesError) else _first_problem(error))
            for (pod, _), error in errors.items()
        ]
        host = ", ".join(pod.name for pod, _ in asked)
        why = "; ".join(said) or "no Alluxio pod is running"
        return InfoNodes(host, error=why, seconds=seconds)

    return ask


def _first_problem(error: ProvisionError) -> str:
    return str(error.problems[0] if error.problems else error)


def _with_failed(
    report: CheckReport, failed: dict[str, MemberHealth], k: KubernetesCluster
) -> CheckReport:
    """``report`` with every expected member, so that the quorum is the real one."""
    if not failed:
        return report
    found = {m.member.name: m for m in report.etcd.members} | failed
    members = tuple(found[name] for name in chart.etcd_pods(k.release, k.etcd_replicas))
    cluster = replace(report.etcd.cluster, members=tuple(m.member for m in members))
    return replace(report, etcd=replace(report.etcd, cluster=cluster, members=members))


def _in_terms_of_pods(
    verdicts: Sequence[NodeVerdict], pods: Sequence[Pod]
) -> tuple[NodeVerdict, ...]:
    phases = {pod.name: pod.phase for pod in pods}
    found: list[NodeVerdict] = []
    for n in verdicts:
        notes = tuple(t.replace("not in the inventory", "no pod's address") for t in n.notes)
        phase = phases.get(n.name or "", "Running")
        if phase != "Running":
            notes = (*notes, f"its pod is {phase or 'of no phase'}")
        found.append(n._replace(notes=notes))
    return tuple(found)


def _pods_missing(pods: Sequence[Pod], k: KubernetesCluster) -> list[Problem]:
    if len(pods) == k.workers:
        return []
    there = counted(len(pods), "worker pod")
    what = f"{there} of the release {k.release}, the inventory says {k.workers}"
    remedy = "render the values again, and run helm upgrade"
    return [Problem(f"namespace {k.namespace}", what, remedy, id="pods-differ")]
