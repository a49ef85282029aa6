"""Values of Alluxio's Helm chart from the inventory, for ``helm install -f``.

They contain no secret. The chart has one way to give a component a secret without writing it into a
ConfigMap: a Kubernetes Secret, mounted as files (``secrets``). Secrets that can only be given as
properties go into separate values, by :func:`secret_values`, when the operator asks for it.
"""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provision import bounds
from provision.alluxio.worker.desired import revealed
from provision.errors import Problem, UsageError
from provision.files import read_bytes, write_whole
from provision.host import ownership
from provision.inventory import chart
from provision.inventory.kubernetes import KubernetesCluster
from provision.inventory.model import Secret
from provision.inventory.resolved import AlluxioCluster, Inventory
from provision.inventory.sizes import jvm_size
from provision.render import property_key, property_value
from provision.text import printable


def declared(inventory: Inventory) -> tuple[AlluxioCluster, KubernetesCluster]:
    """The two sections for the values. Raises :class:`UsageError` when one is missing."""
    if inventory.alluxio is None or inventory.kubernetes is None:
        raise UsageError(f"{inventory.path}: has no 'kubernetes' section", id="section-missing")
    return inventory.alluxio, inventory.kubernetes


def values(inventory: Inventory) -> dict[str, Any]:
    """The chart's values, without any secret. Every property is text: Helm reads a number as a
    float, and would write 1073741824 as 1.073741824e+09."""
    alluxio, k = declared(inventory)
    found: dict[str, Any] = {
        "image": k.image,
        "imageTag": k.image_tag,
        "dataset": {"path": k.dataset_path},
        "properties": _texts(_properties(inventory, alluxio, k)),
        "worker": _worker(k),
        "pagestore": _page_store(k),
    }
    if k.image_pull_secrets:
        found["imagePullSecrets"] = list(k.image_pull_secrets)
    if k.service_account is not None:
        found["serviceAccountName"] = k.service_account
    if k.jvm_options:
        found["jvmOptions"] = list(k.jvm_options)
    if k.secrets:
        # The master lists and loads the same data.
        found["secrets"] = {"master": dict(k.secrets), "worker": dict(k.secrets)}
    if k.chart.etcd:
        found["etcd"] = _etcd(k)
    return found


def secret_values(inventory: Inventory) -> dict[str, Any]:
    """Values that are secrets: ``dataset.credentials`` and the secret properties, revealed.

    Empty when the inventory has none. Raises :class:`UsageError` when one cannot be read.
    """
    alluxio, k = declared(inventory)
    found: dict[str, Any] = {}
    if k.credentials:
        found["dataset"] = {"credentials": _texts(_revealed(k.credentials))}
    properties = _revealed(_secret_properties(alluxio, k))
    if properties:
        found["properties"] = _texts(properties)
    return found


def left_out(inventory: Inventory) -> list[Problem]:
    """Secrets that pods will lack unless they get :func:`secret_values`, too."""
    alluxio, k = declared(inventory)
    keys = [*k.credentials, *_secret_properties(alluxio, k)]
    if not keys:
        return []
    what = f"{', '.join(keys)}: the chart can only write them into a ConfigMap, so they are not in"
    remedy = "mount a Kubernetes Secret by kubernetes.secrets, or use --credentials FILE"
    return [
        Problem(str(inventory.path), f"{what} the values", remedy, "warning", id="secrets-left-out")
    ]


def as_yaml(found: Mapping[str, Any], inventory: Inventory, note: str) -> str:
    """A values file: a header, ``note`` as comments, and ``found``."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(dict(found), text)
    lines = [
        ownership.header(inventory.cluster),
        *(f"# {printable(n)}" for n in note.splitlines()),
    ]
    return "\n".join(lines) + "\n" + text.getvalue()


def install_line(k: KubernetesCluster, to: Path | None, secret: Path | None) -> str:
    """The command that installs or upgrades the release with these files."""
    files = [str(to) if to is not None else "values.yaml", *([str(secret)] if secret else [])]
    line = ["helm", "upgrade", "--install", k.release, "CHART"]
    if k.chart.etcd:  # a chart that the chart depends on
        line.append("--dependency-update")
    line.append(f"--namespace={k.namespace}")
    if k.kubeconfig is not None:
        line.append(f"--kubeconfig={k.kubeconfig}")
    if k.context is not None:
        line.append(f"--kube-context={k.context}")
    return shlex.join([*line, *(f"--values={f}" for f in files)])


def write(path: Path, text: str, *, secret: bool = False) -> bool:
    """Writes a values file unless it has that text; returns whether it was written.

    A secret file has mode 0600 from its first byte. Raises :class:`UsageError` for a file that this
    tool did not write, and when the file cannot be written.
    """
    try:
        old = read_bytes(path, bounds.DOCUMENT) if path.exists() else None
        private = old is not None and path.stat().st_mode & 0o077 == 0
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", id="file-unusable") from error
    if old is not None and not ownership.has_header(old):
        raise UsageError(
            f"{path} exists, and this tool did not write it: name another file", id="file-exists"
        )
    if old == text.encode() and (private or not secret):
        return False
    write_whole(path, text, private=secret)
    return True


def endpoints(inventory: Inventory) -> list[str]:
    """The etcd endpoints for pods: every member of the chart's etcd, or of the inventory's etcd."""
    alluxio, k = declared(inventory)
    if k.etcd_enabled:
        return chart.etcd_endpoints(k.release, k.namespace, k.etcd_replicas)
    return list(alluxio.etcd_endpoints)


def _properties(
    inventory: Inventory, alluxio: AlluxioCluster, k: KubernetesCluster
) -> dict[str, object]:
    login = alluxio.etcd_login.username if not k.etcd_enabled else None
    return {
        "alluxio.cluster.name": alluxio.name,
        "alluxio.worker.membership.manager.type": alluxio.membership.value,
        "alluxio.etcd.endpoints": ",".join(endpoints(inventory)),
        "alluxio.worker.failure.detection.timeout": f"{alluxio.failure_detection_timeout}s",
        "alluxio.worker.rpc.port": k.rpc_port,
        **({"alluxio.etcd.username": login} if login is not None else {}),
        **k.properties,
    }


def _secret_properties(alluxio: AlluxioCluster, k: KubernetesCluster) -> dict[str, Secret]:
    found = dict(k.secret_properties)
    if not k.etcd_enabled and alluxio.etcd_login.password is not None:
        found["alluxio.etcd.password"] = alluxio.etcd_login.password
    return found


def _worker(k: KubernetesCluster) -> dict[str, Any]:
    memory = _mebibytes(k.memory)
    resources: dict[str, dict[str, str]] = {}
    for name, given in (("requests", k.worker.requests), ("limits", k.worker.limits)):
        resources[name] = {**({"cpu": given.cpu} if given.cpu else {}), "memory": memory}
        if given.memory:
            resources[name]["memory"] = given.memory
    found: dict[str, Any] = {
        "count": k.workers,
        "jvmOptions": [
            f"-Xms{jvm_size(k.heap)}",
            f"-Xmx{jvm_size(k.heap)}",
            f"-XX:MaxDirectMemorySize={jvm_size(k.direct_memory)}",
            *k.worker.jvm_options,
        ],
        "resources": resources,
        "ports": {"rpc": k.rpc_port},
    }
    if k.worker.env:
        found["env"] = dict(k.worker.env)
    return found


def _page_store(k: KubernetesCluster) -> dict[str, Any]:
    store = k.page_store
    found: dict[str, Any] = {
        "type": store.type,
        "quota": store.size or _mebibytes(k.page_store_bytes),
    }
    if store.host_path is not None:
        found["hostPath"] = store.host_path
    if store.storage_class is not None:
        found["storageClass"] = store.storage_class
    return found


def _etcd(k: KubernetesCluster) -> dict[str, Any]:
    if not k.etcd_enabled:
        return {"enabled": False}
    found: dict[str, Any] = {"enabled": True, "replicaCount": k.etcd_replicas}
    persistence = {
        **({"size": k.etcd.size} if k.etcd.size else {}),
        **({"storageClass": k.etcd.storage_class} if k.etcd.storage_class else {}),
    }
    return {**found, "persistence": persistence} if persistence else found


def _texts(properties: Mapping[str, object]) -> dict[str, str]:
    """The properties as texts. The chart writes them unchanged into alluxio-site.properties, one on
    each line."""
    return {property_key(key): property_value(properties[key]) for key in sorted(properties)}


def _revealed(secrets: Mapping[str, Secret]) -> dict[str, str]:
    return {key: revealed(key, secret) for key, secret in secrets.items()}


def _mebibytes(size: int) -> str:
    """``size`` bytes as a quantity that Kubernetes and Alluxio both read, rounded up."""
    for unit, power in (("Gi", 30), ("Mi", 20)):
        if size >= 1 << power and size % (1 << power) == 0:
            return f"{size >> power}{unit}"
    return f"{-(-size >> 20)}Mi"
