"""The rendered values installed by real Helm through a real API server, over a real etcd.

There is no kubelet and no controller: nothing makes pods, and none runs. Pods are made here as the
worker's Deployment would, and given the addresses that a kubelet would report. What needs a running
pod fails as it does there, and that is tested, too: `make kubernetes`, which builds the server.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.membership import registrations
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import Endpoint
from provision.kubernetes.kubectl import Kubectl, KubectlError
from tests.component.conftest import Boot, Running, free_ports
from tests.kubernetes import helm as real
from tests.kubernetes.helm import Helm

ROOT = Path(__file__).parents[2]
FORWARDING = Path(__file__).with_name("forwarding_kubectl.py")
ETCD_PODS = [f"cache-etcd-{i}" for i in range(3)]
WORKERS = {"cache-worker-a": "10.1.0.1", "cache-worker-b": "10.1.0.2"}
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
  kubeconfig: kubeconfig
  context: test
  kubectl: ["{python}", "{forwarding}", "{places}"]
  secrets: {{s3: /etc/s3}}
  worker: {{requests: {{cpu: 500m}}, limits: {{cpu: 2}}}}
  etcd: {{size: 4Gi, storage_class: fast}}
"""


@dataclass
class Cluster:
    """One API server. ``kubeconfig`` is that of its administrator."""

    tools: Path
    kubeconfig: Path
    helm: Helm

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        line = [str(self.tools / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(
            line, input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done.stdout

    def get(self, kind: str, name: str) -> Any:
        return json.loads(self.kubectl("get", kind, name, "--namespace=data", "--output=json"))


@pytest.fixture(scope="module")
def store(boot: Boot) -> Iterator[Running]:
    """The API server's own etcd."""
    with boot() as running:
        yield running


@pytest.fixture(scope="module")
def cluster(store: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    work = tmp_path_factory.mktemp("kubernetes")
    tools = real.unpack("kubernetes", work)
    if tools is None:
        pytest.fail("no API server: run tests/lab/lab artifacts kubernetes", pytrace=False)
    (port,) = free_ports(1)
    token = secrets.token_hex(16)
    (work / "tokens.csv").write_text(f'{token},admin,1,"system:masters"\n')
    (work / "tokens.csv").chmod(0o600)
    key = work / "accounts.key"
    subprocess.run(
        ["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True, timeout=60
    )
    line = [
        str(tools / "kube-apiserver"),
        f"--etcd-servers={store.cluster.members[0].client_url}",
        *("--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={work / 'certs'}"),
        *("--authorization-mode=RBAC", f"--token-auth-file={work / 'tokens.csv'}"),
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=10.0.0.0/24",
        # Nothing makes a namespace's default account here.
        "--disable-admission-plugins=ServiceAccount",
    ]
    with (work / "apiserver.log").open("wb") as log:
        server = subprocess.Popen(line, stdout=log, stderr=log)
    try:
        kubeconfig = work / "kubeconfig"
        _wait(work, server)
        authority = base64.b64encode((work / "certs" / "apiserver.crt").read_bytes()).decode()
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": "test",
                            "cluster": {
                                "server": f"https://127.0.0.1:{port}",
                                "certificate-authority-data": authority,
                            },
                        }
                    ],
                    "users": [{"name": "admin", "user": {"token": token}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                    "current-context": "test",
                }
            )
        )
        kubeconfig.chmod(0o600)
        helm = Helm(tools / "helm", work / "home")
        helm.environment["KUBECONFIG"] = str(kubeconfig)
        made = Cluster(tools, kubeconfig, helm)
        _ready(made, server)
        yield made
    finally:
        server.kill()
        server.wait()


def _wait(work: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not (work / "certs" / "apiserver.crt").exists():
        _alive(work, server, deadline)


def _ready(made: Cluster, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            assert made.kubectl("get", "--raw", "/readyz") == "ok"
            return
        except AssertionError:
            _alive(made.kubeconfig.parent, server, deadline)


def _alive(work: Path, server: subprocess.Popen[bytes], deadline: float) -> None:
    if server.poll() is not None or time.monotonic() > deadline:
        log = (work / "apiserver.log").read_text()[-3000:]
        pytest.fail(f"the API server did not start:\n{log}", pytrace=False)
    time.sleep(0.2)


@pytest.fixture(scope="module")
def etcd(boot: Boot) -> Iterator[Running]:
    """What the chart's etcd would be."""
    with boot(3, names=ETCD_PODS) as running:
        yield running


@pytest.fixture(scope="module")
def inventory(cluster: Cluster, etcd: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inventory")
    forward = {f"pod/{m.name}": m.client_port for m in etcd.cluster.members}
    places = folder / "places.json"
    places.write_text(json.dumps({"kubectl": str(cluster.tools / "kubectl"), "forward": forward}))
    path = folder / "inventory.yml"
    path.write_text(INVENTORY.format(python=sys.executable, forwarding=FORWARDING, places=places))
    (folder / "kubeconfig").symlink_to(cluster.kubeconfig)
    return path


def invoke(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "invoke", *arguments, "--inventory", str(inventory)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def release(cluster: Cluster, inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart, installed with the rendered values."""
    work = tmp_path_factory.mktemp("chart")
    rendered = invoke(inventory, "render-helm", "--to", str(work / "values.yaml"))
    assert rendered.returncode == 0, rendered.stderr
    with real.repository(cluster.helm, work / "repository") as url:
        chart = real.chart(cluster.helm, url, work / "alluxio", update=False)
        cluster.helm.ok(*install(chart), "--create-namespace")
    return chart


def install(chart: Path) -> list[str]:
    values = chart.parent / "values.yaml"
    options = ["--dependency-update", "--namespace=data", f"--values={values}"]
    return ["upgrade", "--install", "cache", str(chart), *options]


def test_the_values_install(cluster: Cluster, release: Path) -> None:
    etcd = cluster.get("statefulset", "cache-etcd")["spec"]
    assert etcd["replicas"] == 3
    (claim,) = etcd["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert cluster.get("service", etcd["serviceName"])["spec"]["clusterIP"] == "None"
    worker = cluster.get("deployment", "cache-worker")["spec"]
    assert worker["replicas"] == 2
    (container,) = worker["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "500m", "memory": "9Gi"},
        "limits": {"cpu": "2", "memory": "9Gi"},
    }
    text = cluster.get("configmap", "cache-alluxio-conf")["data"]["alluxio-site.properties"]
    assert "alluxio.etcd.endpoints=http://cache-etcd:2379" in text.splitlines()
    assert "alluxio.cluster.name=Cache" in text.splitlines()


def test_a_second_install_changes_no_object(cluster: Cluster, release: Path) -> None:
    before = {kind: cluster.get(kind, name)["metadata"]["generation"] for kind, name in OBJECTS}
    cluster.helm.ok(*install(release))
    after = {kind: cluster.get(kind, name)["metadata"]["generation"] for kind, name in OBJECTS}
    assert after == before


OBJECTS = (("statefulset", "cache-etcd"), ("deployment", "cache-worker"))


def test_the_server_finds_no_field_that_it_does_not_know(cluster: Cluster, release: Path) -> None:
    values = release.parent / "values.yaml"
    text = cluster.helm.ok("template", "cache", release, "--namespace=data", "--values", values)
    strict = ("--dry-run=server", "--validate=strict", "--namespace=data", "--filename=-")
    said = cluster.kubectl("create", "--output=name", *strict, stdin=rename(text))
    assert len(said.split()) == len(real.split(text))
    wrong = rename(text).replace("replicas:", "replicaz:")
    with pytest.raises(AssertionError, match="unknown field"):
        cluster.kubectl("create", *strict, stdin=wrong)


def rename(manifests: str) -> str:
    """Under other names, since those are there."""
    return manifests.replace("name: cache-", "name: other-")


@pytest.fixture(scope="module")
def pods(cluster: Cluster, release: Path) -> dict[str, str]:
    """Pods of the worker's Deployment, made as its controller would make them."""
    template = cluster.get("deployment", "cache-worker")["spec"]["template"]
    for name, address in WORKERS.items():
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "data",
                "labels": template["metadata"]["labels"],
            },
            "spec": template["spec"],
        }
        cluster.kubectl("create", "--filename=-", stdin=json.dumps(pod))
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        cluster.kubectl(
            *("patch", "pod", name, "--namespace=data", "--subresource=status", "--type=merge"),
            *("--patch", json.dumps({"status": status})),
        )
    return WORKERS


def register(etcd: Running, workers: dict[str, str]) -> None:
    with EtcdClient(Endpoint("127.0.0.1", etcd.cluster.members[0].client_port)) as client:
        lease = client.lease_grant(300)
        for number, address in enumerate(workers.values()):
            worker = f"worker-{number}1111111-2222-3333-4444-555555555555"
            own = worker.removeprefix("worker-").replace("-", "")
            entity = {
                "WorkerNetAddress": {"Host": address, "RpcPort": 29999},
                "Identity": {"version": 1, "identifier": own},
                "State": "AUTHORIZED",
            }
            value = json.dumps(entity).encode()
            client.put(registrations.authorized_prefix("Cache") + worker, value)
            client.put(registrations.live_prefix("Cache") + worker, value, lease=lease)


def test_check_nodes_over_the_pods(inventory: Path, pods: dict[str, str], etcd: Running) -> None:
    register(etcd, pods)
    done = invoke(inventory, "check-nodes", "--kubernetes", "--format", "json")
    report = json.loads(done.stdout)
    assert [m["name"] for m in report["etcd"]["members"]] == ETCD_PODS
    assert report["etcd"]["healthy"] == 3
    found = {n["name"]: (n["host"], n["state"]) for n in report["alluxio"]["nodes"]}
    assert found == {name: (address, "LIVE") for name, address in pods.items()}
    # The API server itself says why kubectl exec has no place to go to.
    (problem,) = report["problems"]
    assert problem["where"] == "info nodes"
    assert "does not have a host assigned" in problem["what"]
    assert done.returncode == 1

    shown = invoke(inventory, "check-nodes", "--kubernetes")
    assert "2 workers: 2 LIVE" in shown.stdout
    elsewhere = invoke(inventory, "check-nodes", "--kubernetes", "--namespace", "other")
    assert "0 worker pods of the release cache, the inventory says 2" in elsewhere.stdout


def test_kubectl_says_why_it_does_not_forward(cluster: Cluster, pods: dict[str, str]) -> None:
    """The real port-forward, as far as it goes without a kubelet."""
    way = Kubectl((str(cluster.tools / "kubectl"),), "data", cluster.kubeconfig)
    with pytest.raises(KubectlError) as caught, way.forward("pod/cache-etcd-0", 2379):
        pass
    assert 'pods "cache-etcd-0" not found' in caught.value.problems[0].what
    with pytest.raises(KubectlError) as caught, way.forward(f"pod/{next(iter(pods))}", 2379):
        pass
    assert "does not have a host assigned" in caught.value.problems[0].what


def test_a_user_who_may_not_read_pods_is_told_so(cluster: Cluster, inventory: Path) -> None:
    text = cluster.kubeconfig.read_text().replace('"token"', '"as": "nobody", "token"')
    nobody = cluster.kubeconfig.with_name("nobody")
    nobody.write_text(text)
    done = invoke(inventory, "check-nodes", "--kubernetes", "--kubeconfig", str(nobody))
    assert done.returncode == 3
    assert 'User "nobody" cannot list resource "pods"' in done.stderr
