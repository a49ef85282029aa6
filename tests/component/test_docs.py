"""Command blocks of the documentation that need an etcd, or Helm, and no host."""

from __future__ import annotations

import shutil
from pathlib import Path

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import Endpoint, Permission
from tests.component.conftest import Boot
from tests.docs import COMPONENT, PODS, REPO, Reader, fenced
from tests.kubernetes import helm as real
from tests.kubernetes.helm import Helm


def test_membership(boot: Boot, etcd_binary: Path, tmp_path: Path) -> None:
    """A login for another cluster, made on a member's host."""
    with boot() as running:
        member = running.cluster.members[0]
        endpoint = {"ETCDCTL_ENDPOINTS": member.client_url}
        page = "docs/membership.md"
        with Reader(page, COMPONENT, tmp_path, etcd_binary.parent, **endpoint) as reader:
            reader.types("etcdctl user add analytics", keys="a-secret\n" * 2)
        with EtcdClient(Endpoint("127.0.0.1", member.client_port)) as client:
            assert client.users() == {"analytics": ("analytics",)}
            prefixes = ("/DHT/Analytics", "/ServiceDiscovery/Analytics")
            assert client.roles() == {"analytics": tuple(map(Permission.below, prefixes))}


def test_kubernetes(tmp_path: Path) -> None:
    tools = real.unpack("helm", tmp_path / "tools")
    if tools is None:
        real.lacking("helm")
    helm = Helm(tools / "helm", tmp_path / "helm")
    folder = tmp_path / "clone"
    (folder / "inventory").mkdir(parents=True)
    for name in ("tasks.py", "invoke.yaml", "provision", "templates"):
        (folder / name).symlink_to(REPO / name)
    # The README's inventory, whose login's key need not be there.
    (declared,) = (b.text for b in fenced("README.md", "yaml"))
    lines = [line for line in declared.splitlines() if not line.startswith("ssh:")]
    text = "\n".join((*lines, "kubernetes: {}", ""))
    (folder / "inventory" / "inventory.yml").write_text(text, encoding="utf-8")
    chart = folder / "chart"
    shutil.copytree(real.HERE / "chart", chart)
    with real.repository(helm, tmp_path / "repository") as url:
        manifest = chart / "Chart.yaml"
        manifest.write_text(manifest.read_text().replace("@loopback@", url))
        page = "docs/kubernetes.md"
        with Reader(page, COMPONENT, folder, tools, **helm.environment) as reader:
            reader.types("invoke render-helm --to values.yaml")
        values = ("--values", folder / "values.yaml")
        helm.ok("template", "alluxio", chart, "--dependency-update", *values)
        first = folder / "first"
        first.mkdir()
        with Reader("README.md", COMPONENT, first, tools, **helm.environment) as reader:
            said = reader.types(PODS)
        assert "helm upgrade --install alluxio CHART --dependency-update" in said
        assert "nothing is left to edit; next: alluxio-provision render-helm" in said
        values = ("--values", first / "values.yaml")
        seen = helm.manifests("alluxio", chart, "--dependency-update", *values)
    assert seen["Deployment", "alluxio-worker"]["spec"]["replicas"] == 4
    assert seen["StatefulSet", "alluxio-etcd"]["spec"]["replicas"] == 3
