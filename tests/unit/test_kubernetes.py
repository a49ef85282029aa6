"""The Kubernetes section of the inventory, and the chart's values that are made of it."""

from __future__ import annotations

import json
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from provision.errors import InventoryError, Problem, UsageError
from provision.host import ownership
from provision.inventory import EXAMPLE, Inventory, chart, load, read
from provision.inventory.kubernetes import quantity_bytes
from provision.kubernetes import values
from provision.kubernetes.kubectl import Kubectl, KubectlError, Pod, last_line

BASE = """\
cluster: Main
etcd:
  version: 3.6.16
  source: {package: true}
  members:
    infra0: {host: infra0.example.com, address: 10.0.1.10}
    infra1: {host: infra1.example.com, address: 10.0.1.11}
    infra2: {host: infra2.example.com, address: 10.0.1.12}
alluxio:
  version: 313
  source: {path: alluxio.tar.gz, sha256: file:SUMS}
  heap: 2g
  direct_memory: 3g
  page_store: {dirs: [/a, /b], sizes: [10GB, 512MB]}
  properties: {alluxio.dora.client.ufs.root: s3://bucket/path, alluxio.x: 1073741824}
  workers:
    worker[1-4]: {host: "worker[1-4].example.com"}
kubernetes:
  namespace: data
"""


def loaded(tmp_path: Path, more: str = "", *edits: tuple[str, str]) -> Inventory:
    text = BASE + more
    for old, new in edits:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = tmp_path / "lab.yml"
    path.write_text(text)
    return load(path)


def refused(tmp_path: Path, more: str, *edits: tuple[str, str]) -> list[Problem]:
    with pytest.raises(InventoryError) as caught:
        loaded(tmp_path, more, *edits)
    return [p for p in caught.value.problems if p.severity == "error"]


def warned(tmp_path: Path, more: str, *edits: tuple[str, str]) -> list[str]:
    loaded(tmp_path, more, *edits)
    return [p.what for p in read(tmp_path / "lab.yml").warnings]


def test_everything_but_the_section_comes_from_the_rest(tmp_path: Path) -> None:
    assert values.values(loaded(tmp_path)) == {
        "image": "alluxio/alluxio",
        "imageTag": "313",
        "dataset": {"path": "s3://bucket/path"},
        "properties": {
            "alluxio.cluster.name": "Main",
            "alluxio.etcd.endpoints": ",".join(
                f"http://alluxio-etcd-{i}.alluxio-etcd-headless.data.svc.cluster.local:2379"
                for i in range(3)
            ),
            "alluxio.worker.failure.detection.timeout": "120s",
            "alluxio.worker.membership.manager.type": "ETCD",
            "alluxio.worker.rpc.port": "29999",
            "alluxio.x": "1073741824",
        },
        "worker": {
            "count": 4,
            "jvmOptions": ["-Xms2g", "-Xmx2g", "-XX:MaxDirectMemorySize=3g"],
            "resources": {"requests": {"memory": "6Gi"}, "limits": {"memory": "6Gi"}},
            "ports": {"rpc": 29999},
        },
        "pagestore": {"type": "emptyDir", "quota": "10752Mi"},
        "etcd": {"enabled": True, "replicaCount": 3},
    }


def test_the_section_wins(tmp_path: Path) -> None:
    found = values.values(
        loaded(
            tmp_path,
            """\
  release: cache
  image: registry.example.com:5000/alluxio
  image_tag: "3.1"
  image_pull_secrets: [registry]
  service_account: reader
  dataset_path: hdfs://name/data
  secrets: {s3-credentials: /etc/s3}
  properties: {alluxio.x: "true"}
  jvm_options: [-XX:+UseG1GC]
  worker:
    count: 7
    heap: 1g
    direct_memory: 1g
    requests: {cpu: 500m, memory: 3Gi}
    limits: {cpu: 2}
    jvm_options: [-Da=b]
    env: {A: "b c"}
  page_store: {type: hostPath, host_path: /mnt/pages, size: 2Gi}
  etcd: {replicas: 5, size: 4Gi, storage_class: fast}
""",
        )
    )
    assert found["image"] == "registry.example.com:5000/alluxio"
    assert found["imageTag"] == "3.1"
    assert found["imagePullSecrets"] == ["registry"]
    assert found["serviceAccountName"] == "reader"
    assert found["dataset"] == {"path": "hdfs://name/data"}
    assert found["secrets"]["worker"] == {"s3-credentials": "/etc/s3"}
    assert found["properties"]["alluxio.x"] == "true"
    assert "alluxio.dora.client.ufs.root" not in found["properties"]
    assert found["properties"]["alluxio.etcd.endpoints"].count("cache-etcd-headless.data") == 5
    assert found["jvmOptions"] == ["-XX:+UseG1GC"]
    assert found["worker"] == {
        "count": 7,
        "jvmOptions": ["-Xms1g", "-Xmx1g", "-XX:MaxDirectMemorySize=1g", "-Da=b"],
        "resources": {
            "requests": {"cpu": "500m", "memory": "3Gi"},
            "limits": {"cpu": "2", "memory": "3Gi"},
        },
        "ports": {"rpc": 29999},
        "env": {"A": "b c"},
    }
    assert found["pagestore"] == {"type": "hostPath", "quota": "2Gi", "hostPath": "/mnt/pages"}
    assert found["etcd"] == {
        "enabled": True,
        "replicaCount": 5,
        "persistence": {"size": "4Gi", "storageClass": "fast"},
    }


@pytest.mark.parametrize(
    ("more", "etcd"), [("  chart: 0.7.0\n", None), ("  etcd: {enabled: false}\n", False)]
)
def test_without_the_charts_etcd_pods_use_the_inventorys(
    tmp_path: Path, more: str, etcd: bool | None
) -> None:
    found = values.values(loaded(tmp_path, more))
    assert found.get("etcd", {}).get("enabled") is etcd
    assert found["properties"]["alluxio.etcd.endpoints"] == (
        "http://10.0.1.10:2379,http://10.0.1.11:2379,http://10.0.1.12:2379"
    )


SECRETS = """\
  credentials:
    aws.accessKeyId: {env: TEST_KEY_ID}
    aws.secretKey: {file: key}
"""


def test_secrets_are_in_values_of_their_own_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY_ID", "hush-1")
    (tmp_path / "key").write_text("hush-2\\\n")
    more = ("  heap: 2g\n", "  heap: 2g\n  secret_properties: {s3a.x: {env: TEST_KEY_ID}}\n")
    inventory = loaded(tmp_path, SECRETS, more)
    text = values.as_yaml(values.values(inventory), inventory, "note")
    assert "hush" not in text
    assert "hush" not in repr(inventory)
    assert values.secret_values(inventory) == {
        # As java.util.Properties reads it back: the chart writes it into such a file.
        "dataset": {"credentials": {"aws.accessKeyId": "hush-1", "aws.secretKey": "hush-2\\\\"}},
        "properties": {"s3a.x": "hush-1"},
    }
    (warning,) = values.left_out(inventory)
    assert warning.what.startswith("aws.accessKeyId, aws.secretKey, s3a.x: the chart can only")
    assert values.left_out(loaded(tmp_path)) == []


def test_a_secret_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY_ID", raising=False)
    with pytest.raises(UsageError, match=r"secret for aws\.accessKeyId .* TEST_KEY_ID is not set"):
        values.secret_values(loaded(tmp_path, SECRETS))


def test_the_login_to_the_inventorys_etcd_is_for_the_secret_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PASSWORD", "hush")
    login = ("  heap: 2g\n", "  heap: 2g\n  etcd: {username: u, password: {env: TEST_PASSWORD}}\n")
    outside = loaded(tmp_path, "  etcd: {enabled: false}\n", login)
    assert values.values(outside)["properties"]["alluxio.etcd.username"] == "u"
    assert values.secret_values(outside) == {"properties": {"alluxio.etcd.password": "hush"}}
    own = loaded(tmp_path, "", login)  # the chart's etcd asks for none
    assert "alluxio.etcd.username" not in values.values(own)["properties"]
    assert values.secret_values(own) == {}


def test_yaml_reads_back_as_what_was_meant(tmp_path: Path) -> None:
    more = '  properties: {a.b: "x: #y", a.c: "1e3", a.d: "yes", a.e: "a\\\\b", a.f: "ü"}\n'
    inventory = loaded(tmp_path, more)
    found = values.values(inventory)
    text = values.as_yaml(found, inventory, "chart 1")
    assert text.startswith("# Managed by alluxio-provision for cluster Main")
    assert YAML(typ="safe").load(text) == found
    properties: dict[str, Any] = found["properties"]
    assert (properties["a.e"], properties["a.f"]) == (r"a\\b", r"\u00fc")


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    path, text = tmp_path / "v.yaml", ownership.header("c") + "\na: 1\n"
    assert values.write(path, text, secret=True)
    assert not values.write(path, text, secret=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert values.write(path, text, secret=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_somebody_elses_stays(tmp_path: Path) -> None:
    path = tmp_path / "v.yaml"
    path.write_text("mine: 1\n")
    with pytest.raises(UsageError, match="this tool did not write it"):
        values.write(path, "# Managed by alluxio-provision for cluster c\n")
    assert path.read_text() == "mine: 1\n"
    with pytest.raises(UsageError, match="cannot be written"):
        values.write(tmp_path / "none" / "v.yaml", "x")


@pytest.mark.parametrize(
    ("more", "edit", "line", "what"),
    [
        ("  chart: 0.7.0\n  etcd: {enabled: true}\n", None, 21, "chart 0.7.0 cannot start etcd"),
        ("  release: my-etcd\n", None, 20, "'etcd' in its name"),
        ("", ("  heap: 2g", "  membership: STATIC"), 12, "cannot have membership STATIC"),
        ("", ("  heap: 2g", "  membership: SERVICE_REGISTRY"), 12, "sets membership ETCD"),
        ("  worker: {limits: {memory: 4Gi}}\n", None, 20, "4Gi is less than a worker's heap (2g)"),
        (
            "  worker: {requests: {memory: 9Gi}, limits: {memory: 8Gi}}\n",
            None,
            20,
            "9Gi is more than the limit of 8Gi",
        ),
        ("  worker: {env: {A: 'x\"y'}}\n", None, 20, "cannot write the value of 'A'"),
        ("  worker: {env: {AWS_SECRET_KEY: x}}\n", None, 20, "looks like a secret"),
        ("  properties: {s3a.secretKey: x}\n", None, 20, "looks like a secret"),
        ("  properties: {s3a.secretFile: x}\n", None, 20, "looks like a secret"),
        ("  properties: {alluxio.etcd.endpoints: x}\n", None, 20, "is set by this tool"),
        ("  credentials: {aws.secretKey: x}\n", None, 20, "is a secret: give it by reference"),
        ("  secrets: {a: /etc/a, b: /etc/a}\n", None, 20, "is already the folder of 'a'"),
        ("  secrets: {a: /opt/alluxio/conf}\n", None, 20, "would hide files of the image"),
        ("  release: Upper\n", None, 20, "a name as Kubernetes has them"),
        ("  jvm_options: ['-Da=$(id)']\n", None, 20, "one JVM option"),
        ("  page_store: {type: hostPath}\n", None, 20, "'host_path' goes with type hostPath"),
        ("  etcd: {storage_class: fast, size: big}\n", None, 20, "a quantity as Kubernetes"),
        ("  chart: 2.0.0\n", None, 20, "must be 0.7.0 or 1.1.0-SNAPSHOT"),
        ("", ("alluxio.dora.client.ufs.root: s3://bucket/path, ", ""), 18, "where the data is"),
    ],
)
def test_what_cannot_work_is_said_at_its_place(
    tmp_path: Path, more: str, edit: tuple[str, str] | None, line: int, what: str
) -> None:
    found = refused(tmp_path, more, *([edit] if edit else []))
    assert len(found) == 1
    assert what in found[0].what
    assert found[0].where.split(":")[1] == str(line)


def test_it_needs_workers(tmp_path: Path) -> None:
    path = tmp_path / "lab.yml"
    path.write_text(BASE[: BASE.index("alluxio:")] + "kubernetes: {}\n")
    with pytest.raises(InventoryError) as caught:
        load(path)
    assert [p.what for p in caught.value.problems if p.severity == "error"] == [
        "'kubernetes' is about Alluxio, and there is no 'alluxio' section"
    ]


def test_what_has_no_place_or_effect_is_warned_of(tmp_path: Path) -> None:
    own = ('"worker[1-4].example.com"}', '"worker[1-4].example.com", heap: 8g}')
    assert any("all worker pods are the same" in w for w in warned(tmp_path, "", own))
    assert any("4 replicas" in w for w in warned(tmp_path, "  etcd: {replicas: 4}\n"))
    off = "  etcd: {enabled: false, replicas: 3}\n"
    assert any("'replicas' has no effect" in w for w in warned(tmp_path, off))


def test_the_examples_section_is_valid_when_it_is_uncommented(tmp_path: Path) -> None:
    before, after = EXAMPLE.split("# kubernetes:\n")
    section = re.sub(r"(?m)^# (?=  )", "", after)
    (tmp_path / "s3-secret-key").write_text("x")
    path = tmp_path / "lab.yml"
    path.write_text(f"{before}kubernetes:\n{section}")
    found = values.values(load(path))
    assert found["worker"]["resources"]["limits"] == {"cpu": "4", "memory": "9Gi"}
    assert read(path).warnings == ()


def test_the_install_line_is_safe_to_paste(tmp_path: Path) -> None:
    k = loaded(tmp_path, "  context: a b;c\n".replace(" b", "-b")).kubernetes
    assert k is not None
    line = values.install_line(k, Path("my values.yaml"), Path("s.yaml"))
    assert line == (
        "helm upgrade --install alluxio CHART --dependency-update --namespace=data "
        "'--kube-context=a-b;c' "
        "'--values=my values.yaml' --values=s.yaml"
    )


def test_names_of_the_charts() -> None:
    assert chart.etcd_pods("r", 2) == ["r-etcd-0", "r-etcd-1"]
    assert set(chart.CHARTS) == {"0.7.0", chart.NEWEST}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8Gi", 8 << 30),
        ("8G", 8 * 10**9),
        ("1k", 1000),
        ("5", 5),
        ("1500m", 2),
        ("2002m", 3),
        ("2Ki", 2048),
    ],
)
def test_quantities(text: str, size: int) -> None:
    assert quantity_bytes(text) == size


def kubectl(script: str, *arguments: str) -> Kubectl:
    """A command that says what the test has it say; what is tested is how we take it."""
    return Kubectl((sys.executable, "-c", script, *arguments), "data")


@pytest.mark.process
def test_pods_are_read_and_those_that_go_left_out() -> None:
    items = [
        {"metadata": {"name": "b"}, "status": {"podIP": "10.1.0.2", "phase": "Running"}},
        {"metadata": {"name": "a\x1b[31m"}, "status": {"phase": "Pending"}},
        {"metadata": {"name": "gone", "deletionTimestamp": "2026"}, "status": {}},
    ]
    way = kubectl("import sys; print(sys.argv[1])", json.dumps({"items": items}))
    assert way.pods("x=y") == [Pod("a\ufffd[31m", "", "Pending"), Pod("b", "10.1.0.2", "Running")]


@pytest.mark.process
@pytest.mark.parametrize("text", ["", "nonsense", "{}", '{"items": [{}]}', '{"items": 3}'])
def test_no_list_of_pods(text: str) -> None:
    with pytest.raises(KubectlError) as caught:
        kubectl("import sys; print(sys.argv[1])", text).pods("x=y")
    assert "printed no list of pods" in caught.value.problems[0].what
    assert caught.value.exit_code == 3


@pytest.mark.process
def test_what_kubectl_complains_of_is_one_line() -> None:
    way = kubectl("import sys; sys.exit('W1 warning\\nerror: no \\x1b]0;x server\\n\\n')")
    with pytest.raises(KubectlError) as caught:
        way.run("get", "pods")
    assert caught.value.problems[0].what == "no \ufffd]0;x server"
    assert last_line("") == "it printed nothing"


@pytest.mark.process
def test_no_answer_and_no_kubectl() -> None:
    with pytest.raises(KubectlError, match="could not be asked") as caught:
        kubectl("import time; time.sleep(60)").run("get", timeout=0.2)
    assert caught.value.problems[0].what == "no answer in 0.2 s"
    with pytest.raises(UsageError, match="cannot be run") as missing:
        Kubectl(("/nowhere/kubectl",), "data").run("get")
    assert "kubernetes.kubectl" in missing.value.problems[0].remedy


def test_the_command_line_names_the_place() -> None:
    way = Kubectl(("k3s", "kubectl"), "data", Path("/k"), "prod")
    assert way.line("get", "pods") == [
        *("k3s", "kubectl", "--namespace=data", "--kubeconfig=/k", "--context=prod"),
        *("get", "pods"),
    ]
