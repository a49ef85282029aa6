"""Checking pods: the chart's etcd is real and behind forwards; the pods are given.

No kubelet runs here, so the forwards are plain ones (tests/kubernetes/forwarding_kubectl.py); that
kubectl's own work was not tried. Everything else that kubectl does goes to the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.alluxio.membership import registrations
from provision.check_nodes import State
from provision.errors import Unhealthy
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import Endpoint
from provision.etcd.cluster.handle import Etcd
from provision.inventory import Inventory, load
from provision.kubernetes import check
from provision.kubernetes.kubectl import Kubectl, KubectlError, Pod
from provision.ssh.session import Fleet
from tests.component.conftest import Boot, Running, free_ports
from tests.kubernetes import helm

PODS = [f"cache-etcd-{i}" for i in range(3)]
FORWARDING = Path(helm.__file__).with_name("forwarding_kubectl.py")
INVENTORY = """\
cluster: Cache
etcd:
  version: 3.6.16
  source: {{package: true}}
  members:
    infra[0-2]: {{host: "infra[0-2].example.com"}}
alluxio:
  version: 313
  source: {{path: alluxio.tar.gz, sha256: file:SUMS}}
  properties: {{alluxio.dora.client.ufs.root: s3://bucket/path}}
  workers:
    worker[1-2]: {{host: "worker[1-2].example.com"}}
kubernetes:
  release: cache
  namespace: data
  kubectl: ["{python}", "{forwarding}", "{places}"]
  kubeconfig: kubeconfig
"""
NOBODY = """\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:PORT"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {}}]
current-context: c
"""
ONE = Pod("cache-worker-a", "10.1.0.1", "Running")
TWO = Pod("cache-worker-b", "10.1.0.2", "Running")


@pytest.fixture(scope="module")
def running(boot: Boot) -> Iterator[Running]:
    with boot(3, names=PODS) as running:
        yield running


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[EtcdClient]:
    with EtcdClient(Endpoint("127.0.0.1", running.cluster.members[0].client_port)) as client:
        yield client


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> str:
    tools = helm.unpack("helm", tmp_path_factory.mktemp("kubectl"))
    found = str(tools / "kubectl") if tools is not None else shutil.which("kubectl")
    if found is None:
        helm.lacking("helm")
    return found


def forwards(tmp_path: Path, kubectl: str, ports: dict[str, int]) -> Path:
    places = tmp_path / "places.json"
    forward = {f"pod/{name}": port for name, port in ports.items()}
    places.write_text(json.dumps({"kubectl": kubectl, "forward": forward}))
    return places


def declared(tmp_path: Path, kubectl: str, ports: dict[str, int]) -> Inventory:
    places = forwards(tmp_path, kubectl, ports)
    path = tmp_path / "inventory.yml"
    path.write_text(INVENTORY.format(python=sys.executable, forwarding=FORWARDING, places=places))
    (tmp_path / "kubeconfig").write_text(NOBODY.replace("PORT", str(free_ports(1)[0])))
    return load(path)


def all_ports(running: Running) -> dict[str, int]:
    return {m.name: m.client_port for m in running.cluster.members}


def register(client: EtcdClient, identity: str, host: str, lease: int = 0) -> None:
    """A worker's keys, as Alluxio 313 writes them; the live one only with a lease."""
    address = {"Host": host, "RpcPort": 29999, "DataPort": 29997, "WebPort": 30000}
    worker = f"worker-{identity * 8}-0000-0000-0000-000000000000"
    own = {"version": 1, "identifier": worker.removeprefix("worker-").replace("-", "")}
    entity = {"WorkerNetAddress": address, "Identity": own, "State": "AUTHORIZED"}
    value = json.dumps(entity).encode()
    client.put(registrations.authorized_prefix("Cache") + worker, value)
    if lease:
        client.put(registrations.live_prefix("Cache") + worker, value, lease=lease)


def test_the_pods_of_a_release(
    running: Running, client: EtcdClient, fleet: Fleet, tmp_path: Path, kubectl: str
) -> None:
    lease = client.lease_grant(60)
    register(client, "a", ONE.address, lease)
    register(client, "b", TWO.address)
    register(client, "c", "10.1.0.9")  # of a pod that is no more
    inventory = declared(tmp_path, kubectl, all_ports(running))
    pending = Pod("cache-worker-c", "", "Pending")
    report = check.look(inventory, Etcd(inventory.etcd, fleet), [ONE, TWO, pending], [])

    assert report.etcd.all_healthy
    assert [m.member.name for m in report.etcd.members] == PODS
    assert report.etcd.leader in PODS
    assert report.etcd.problems == []
    assert [(n.name, n.state) for n in report.nodes] == [
        (ONE.name, State.LIVE),
        (TWO.name, State.FAILED),
        (pending.name, State.UNREGISTERED),
        (None, State.UNKNOWN),
    ]
    assert report.nodes[2].notes == ("its pod is Pending",)
    assert report.nodes[3].notes == ("no lease, no pod's address",)
    (info, missing) = report.problems
    # kubectl itself: there is no API server behind this kubeconfig.
    assert info.where == "info nodes"
    assert "refused" in info.what
    assert missing.what == "3 worker pods of the release cache, the inventory says 2"
    assert report.exit_code == 1
    client.lease_revoke(lease)


def test_a_member_that_cannot_be_forwarded_to_counts_for_the_quorum(
    running: Running, fleet: Fleet, tmp_path: Path, kubectl: str
) -> None:
    ports = all_ports(running)
    del ports[PODS[1]]
    report = check.look(
        declared(tmp_path, kubectl, ports),
        Etcd(declared(tmp_path, kubectl, ports).etcd, fleet),
        [ONE, TWO],
        [],
    )
    assert (report.etcd.healthy_count, report.etcd.quorum) == (2, 2)
    (sick,) = (m for m in report.etcd.members if not m.healthy)
    assert sick.member.name == PODS[1]
    assert f'pods "{PODS[1]}" not found' in sick.error
    assert report.revision is not None
    assert f"etcd member {PODS[1]}" in [p.where for p in report.problems]


def test_no_member_at_all(fleet: Fleet, tmp_path: Path, kubectl: str) -> None:
    with pytest.raises(Unhealthy, match="no member of the chart's etcd") as caught:
        check.look(
            declared(tmp_path, kubectl, {}),
            Etcd(declared(tmp_path, kubectl, {}).etcd, fleet),
            [ONE, TWO],
            [],
        )
    assert [p.where for p in caught.value.problems] == [f"etcd member {name}" for name in PODS]


def test_the_api_server_is_away(tmp_path: Path, fleet: Fleet, kubectl: str) -> None:
    with pytest.raises(KubectlError, match="could not be asked") as caught:
        check.run(
            declared(tmp_path, kubectl, {}), Etcd(declared(tmp_path, kubectl, {}).etcd, fleet)
        )
    assert "refused" in caught.value.problems[0].what
    assert caught.value.exit_code == 3


def children() -> set[str]:
    """The processes of forwards below this one."""
    line = ["ps", "-eww", "-o", "pid=", "-o", "ppid=", "-o", "args="]
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    rows = [row.split(maxsplit=2) for row in text.splitlines()]
    parents = {pid: parent for pid, parent, *_ in rows}

    def is_below(pid: str) -> bool:
        while pid in parents and pid != str(os.getpid()):
            pid = parents[pid]
        return pid == str(os.getpid())

    return {pid for pid, _, *args in rows if str(FORWARDING) in " ".join(args) and is_below(pid)}


def way(tmp_path: Path, kubectl: str, ports: dict[str, int]) -> Kubectl:
    places = forwards(tmp_path, kubectl, ports)
    return Kubectl((sys.executable, str(FORWARDING), str(places)), "data")


def test_a_forward_ends_with_its_context(running: Running, tmp_path: Path, kubectl: str) -> None:
    to = way(tmp_path, kubectl, all_ports(running))
    with to.forward(f"pod/{PODS[0]}", 2379) as port:
        assert children()
        with EtcdClient(Endpoint("127.0.0.1", port)) as client:
            assert client.status().version
    assert not children()


def test_a_forward_that_hangs_is_given_up_and_ended(tmp_path: Path, kubectl: str) -> None:
    stuck = tmp_path / "stuck.py"
    text = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)\n"
    stuck.write_text(f"# {FORWARDING}\n{text}")
    to = Kubectl((sys.executable, str(stuck), str(FORWARDING)), "data")
    with pytest.raises(KubectlError) as caught, to.forward("pod/x", 1, timeout=0.5):
        pass
    assert caught.value.problems[0].what == "pod/x: not there after 0.5 s"
    assert not children()


def test_a_forward_whose_owner_is_killed_ends_by_itself(tmp_path: Path, kubectl: str) -> None:
    """timeout(1) stays as its parent, and ends it; here it is given less time."""
    to = way(tmp_path, kubectl, {"x": free_ports(1)[0]})
    script = f"""
import time
from pathlib import Path
from provision.kubernetes import kubectl
kubectl.LONGEST_FORWARD = 2
way = kubectl.Kubectl({to.command!r}, "data")
with way.forward("pod/x", 1) as port:
    print(port, flush=True)
    time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert int(owner.stdout.readline()) > 0
    forwarding = children()
    assert forwarding
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in forwarding):
        assert time.monotonic() < deadline
        time.sleep(0.1)
