"""The values of render-helm under real ``helm lint`` and ``helm template``.

The charts are our own: one that takes the keys of Alluxio's chart and no other, and an etcd chart
that it depends on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes import helm as real
from tests.kubernetes.helm import Helm

ROOT = Path(__file__).parents[2]
INVENTORY = """\
cluster: Cache
etcd:
  version: 3.6.16
  source: {package: true}
  members:
    infra[0-2]: {host: "infra[0-2].example.com"}
alluxio:
  version: 313
  source: {path: alluxio.tar.gz, sha256: file:SUMS}
  properties:
    alluxio.dora.client.ufs.root: s3://bucket/path
    alluxio.user.block.size.bytes.default: 1073741824
    alluxio.odd: 'a "quoted" \\ value: #1'
  workers:
    worker[1-4]: {host: "worker[1-4].example.com"}
kubernetes:
  release: cache
  namespace: data
"""
MORE = """\
  image: registry.example.com/alluxio
  image_pull_secrets: [registry]
  service_account: reader
  secrets: {s3: /etc/s3}
  jvm_options: [-XX:+UseG1GC]
  worker: {env: {AWS_CREDENTIAL_PROFILES_FILE: /etc/s3/credentials}, limits: {cpu: 2}}
  page_store: {type: hostPath, host_path: /mnt/pages, size: 20Gi}
  etcd: {size: 4Gi, storage_class: fast}
  credentials: {aws.accessKeyId: {env: TEST_ID}, aws.secretKey: {file: secret}}
"""


@pytest.fixture(scope="module", params=["helm", "kubernetes"])
def helm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm 4 of the lab's artifact `helm`, and Helm 3 if `kubernetes` was built, too."""
    work = tmp_path_factory.mktemp("helm")
    tools = real.unpack(request.param, work)
    if tools is None:
        real.lacking(request.param)
    return Helm(tools / "helm", work)


@pytest.fixture(scope="module")
def chart(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    work = tmp_path_factory.mktemp("chart")
    with real.repository(helm, work / "repository") as url:
        yield real.chart(helm, url, work / "alluxio")


def render(folder: Path, more: str = "", *options: str) -> tuple[Path, str]:
    """``invoke render-helm``, run as an operator does; the file, and what it said."""
    inventory = folder / "inventory.yml"
    inventory.write_text(INVENTORY + more)
    (folder / "secret").write_text("hush-2\n")
    line = [sys.executable, "-m", "invoke", "render-helm", "--inventory", str(inventory)]
    done = subprocess.run(
        [*line, "--to", str(folder / "values.yaml"), *options],
        cwd=ROOT,
        env={**os.environ, "TEST_ID": "hush-1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "hush" not in done.stdout + done.stderr
    return folder / "values.yaml", done.stdout + done.stderr


def worker(manifests: dict[tuple[str, str], Any]) -> Any:
    return manifests["Deployment", "cache-worker"]["spec"]


def test_a_cluster_with_the_charts_etcd(helm: Helm, chart: Path, tmp_path: Path) -> None:
    file, said = render(tmp_path)
    line = "helm upgrade --install cache CHART --dependency-update --namespace=data"
    assert said.startswith(f"1 changed; {line}")
    assert render(tmp_path)[1].startswith("0 changed;")
    helm.ok("lint", chart, "--strict", "--values", file)
    seen = helm.manifests("cache", chart, "--namespace", "data", "--values", file)

    etcd = seen["StatefulSet", "cache-etcd"]["spec"]
    assert etcd["replicas"] == 3
    assert ("Service", etcd["serviceName"]) in seen
    lines = real.properties(seen, "cache")
    effective = dict(lines)
    assert effective["alluxio.cluster.name"] == "Cache"
    assert effective["alluxio.worker.membership.manager.type"] == "ETCD"
    assert effective["alluxio.dora.client.ufs.root"] == "s3://bucket/path"
    assert effective["alluxio.user.block.size.bytes.default"] == "1073741824"
    assert effective["alluxio.odd"] == r'a "quoted" \\ value: #1'
    # The chart's own line is the last one, and names etcd's Service; ours, every replica of it.
    assert effective["alluxio.etcd.endpoints"] == "http://cache-etcd:2379"
    assert ("Service", "cache-etcd") in seen
    ours = next(value for key, value in lines if key == "alluxio.etcd.endpoints")
    assert ours.split(",") == [
        f"http://cache-etcd-{i}.{etcd['serviceName']}.data.svc.cluster.local:2379"
        for i in range(etcd["replicas"])
    ]

    assert worker(seen)["replicas"] == 4
    (container,) = worker(seen)["template"]["spec"]["containers"]
    assert container["image"] == "alluxio/alluxio:313"
    assert container["resources"]["limits"] == {"memory": "9Gi"}


def test_all_that_can_be_said(helm: Helm, chart: Path, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.yaml"
    file, said = render(tmp_path, MORE, "--credentials", str(secrets))
    assert said.startswith("2 changed;")
    assert "hush" not in file.read_text()
    assert secrets.stat().st_mode & 0o777 == 0o600
    both = ("--values", file, "--values", secrets)
    helm.ok("lint", chart, "--strict", *both)
    seen = helm.manifests("cache", chart, "--namespace", "data", *both)
    effective = dict(real.properties(seen, "cache"))
    assert (effective["aws.accessKeyId"], effective["aws.secretKey"]) == ("hush-1", "hush-2")
    assert "alluxio.cluster.name" in effective  # the second file added, and replaced nothing

    pod = worker(seen)["template"]["spec"]
    assert pod["serviceAccountName"] == "reader"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    (container,) = pod["containers"]
    assert container["image"] == "registry.example.com/alluxio:313"
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "9Gi"}
    assert {"name": "AWS_CREDENTIAL_PROFILES_FILE", "value": "/etc/s3/credentials"} in container[
        "env"
    ]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert mounts["s3-volume"] == "/etc/s3"
    assert volumes["s3-volume"]["secret"]["secretName"] == "s3"
    assert volumes["pagestore"]["hostPath"]["path"] == "/mnt/pages"
    (claim,) = seen["StatefulSet", "cache-etcd"]["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"]["requests"]["storage"] == "4Gi"


@pytest.mark.parametrize("more", ["  chart: 0.7.0\n", "  etcd: {enabled: false}\n"])
def test_a_cluster_with_the_inventorys_etcd(
    helm: Helm, chart: Path, tmp_path: Path, more: str
) -> None:
    file, _ = render(tmp_path, more)
    helm.ok("lint", chart, "--strict", "--values", file)
    seen = helm.manifests("cache", chart, "--namespace", "data", "--values", file)
    assert not [name for kind, name in seen if "etcd" in name]
    effective = dict(real.properties(seen, "cache"))
    assert effective["alluxio.worker.membership.manager.type"] == "ETCD"
    assert effective["alluxio.etcd.endpoints"].split(",") == [
        f"http://infra{i}.example.com:2379" for i in range(3)
    ]


def test_a_key_that_the_chart_does_not_have_is_refused(
    helm: Helm, chart: Path, tmp_path: Path
) -> None:
    """The proof that the tests above would find a wrong key or type."""
    file, _ = render(tmp_path)
    schema = json.loads((chart / "values.schema.json").read_text())
    assert schema["additionalProperties"] is False
    for wrong in ("imagetag: x\n", "worker: {replicas: 3}\n", "properties: {a: 1}\n"):
        extra = tmp_path / "wrong.yaml"
        extra.write_text(wrong)
        refused = helm.run("template", "cache", chart, "--values", file, "--values", extra)
        assert refused.returncode != 0
        assert "values don't meet the specifications" in refused.stdout + refused.stderr
