"""The documentation's command blocks on the lab: page after page, from hosts with nothing on them.

Tests build on each other. What one page leaves is where the next begins.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests import docs
from tests.docs import Reader

from .lab import CLUSTER, DECLARED_NET, NET, REPO, SSH, Lab, another_release

INVENTORY = "inventory/inventory.yml"
#: A document of `check-nodes`, of which the README's picture is drawn: made here, by
#: ALXP_RECORD=1 pytest tests/integration/test_docs.py, then `make docs`.
RECORDING = REPO / "docs" / "data" / "check-nodes.json"
#: As docs/workers.md has it.
STALE = "worker-a35c88ee-3346-4068-bd59-a3169f10f788"

pytestmark = pytest.mark.usefixtures("clean")
Reads = Callable[[str], Reader]


@pytest.fixture(scope="module")
def reads(clone: Path) -> Reads:
    """Somebody at work in ``clone``, with an empty home."""
    home = clone / "home"
    home.mkdir()
    return lambda page: Reader(page, docs.LAB, clone, HOME=str(home), XDG_STATE_HOME="")


def declare(lab: Lab, clone: Path, changes: Mapping[str, Any] | None = None) -> None:
    """Edit the reader's inventory."""
    (clone / INVENTORY).write_bytes(lab.inventory(changes).read_bytes())


def test_what_the_pages_begin_with(lab: Lab, clone: Path) -> None:
    declare(lab, clone)
    for task in ("deploy-etcd", "start-workers"):
        lab.invoke(task, clone / INVENTORY).expect(0)


def test_json(reads: Reads) -> None:
    with reads("docs/json.md") as reader:
        printed = reader.types("invoke check-nodes --format json | python3 -m json.tool")
    assert json.loads(printed)["alluxio"]["counts"] == {"LIVE": 2}


def test_monitoring(clone: Path, reads: Reads) -> None:
    with reads("docs/monitoring.md") as reader:
        reader.types("invoke check-nodes --watch", until="2 workers: 2 LIVE")
        reader.types("invoke check-nodes --format prometheus")
        reader.types("invoke check-nodes --html report.html")
    assert "alluxio_provision_healthy" in (clone / "alluxio.prom").read_text()
    assert (clone / "report.html").stat().st_size


def test_ssh(reads: Reads) -> None:
    with reads("docs/ssh.md") as reader:
        reader.types("invoke export-ssh-config > ssh_config", keys="hostname\n")


def test_performance(reads: Reads) -> None:
    with reads("docs/performance.md") as reader:
        printed = reader.types(
            "seq 2 | xargs -P 2 -I{} invoke status --limit 'worker[0-1]' --batch {}/2"
        )
    assert "worker0" in printed
    assert "worker1" in printed


def test_operations(lab: Lab, reads: Reads) -> None:
    kept = "/var/lib/etcd/member.removed-20260102T030405Z"
    lab.etcd[1].run(f"mkdir {kept}; head -c 1M /dev/zero >{kept}/db")
    with reads("docs/operations.md") as reader:
        printed = reader.types("invoke kept-data")
        assert "1 changed" in printed
        lab.etcd[1].run(f"[ ! -e {kept} ]")
        printed = reader.types("invoke audit")
    assert "kept-data" in printed
    assert "deploy-etcd" in printed


def test_the_workflow_in_ci(lab: Lab, clone: Path, tmp_path: Path) -> None:
    """Its steps, as the runner would execute them, and a cluster that has drifted."""
    packed = ["tar", "-C", str(Path(lab.pki).parent), "-cz", "pki"]
    pki = subprocess.run(packed, check=True, capture_output=True).stdout
    runner = Runner(
        clone,
        tmp_path,
        {
            "PROVISION_KEY": (SSH / "id_ed25519").read_text(),
            "PROVISION_KNOWN_HOSTS": (SSH / "known_hosts").read_text(),
            "PROVISION_PKI": base64.b64encode(pki).decode(),
        },
    )
    own: dict[str, Any] = {
        "ssh": {"key": None, "known_hosts": None},
        "etcd": {"tls": {"pki_dir": None}},
    }
    declare(lab, clone, own)
    steps = runner.steps("drift")
    install, secrets, etcd, workers, check, away = (name for name, *_ in steps)
    as_declared = runner.run(steps, without=(install, away))
    assert as_declared == {secrets: 0, etcd: 0, workers: 0, check: 0}
    assert (tmp_path / "home" / ".ssh" / "id_ed25519").stat().st_mode & 0o777 == 0o600

    drifted = {"etcd": {**own["etcd"], "settings": {"snapshot-count": 20000}}}
    declare(lab, clone, {**own, **drifted, "alluxio": {"heap": "97m"}})
    assert runner.run(steps, without=(install, secrets, check, away)) == {etcd: 1, workers: 1}
    # The page says that the CA's certificate is enough for this.
    (clone / "inventory" / "pki" / CLUSTER / "ca.key").unlink()
    last = runner.run(steps, without=(install, secrets, etcd, workers))
    assert last == {check: 0, away: 0}
    assert not (clone / "inventory" / "pki").exists()
    declare(lab, clone)


class Runner:
    """As much of GitHub's runner as docs/ci/*.yml wants."""

    def __init__(self, folder: Path, temporary: Path, secrets: Mapping[str, str]) -> None:
        self._folder, self._secrets = folder, secrets
        self._files = {name: temporary / name for name in ("GITHUB_ENV", "GITHUB_PATH")}
        for file in self._files.values():
            file.touch()
        files = {name: str(file) for name, file in self._files.items()}
        self._environment = {**os.environ, **files, "RUNNER_TEMP": str(temporary)}
        self._environment["PATH"] = f"{REPO}/.venv/bin:{os.environ['PATH']}"

    def steps(self, workflow: str) -> list[tuple[str, str, dict[str, str]]]:
        """The steps that run something: name, script, environment."""
        path = REPO / "docs" / "ci" / f"{workflow}.yml"
        (job,) = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))["jobs"].values()
        self._environment.update(job["env"])
        return [
            (step["name"], step["run"], {k: self._value(v) for k, v in step.get("env", {}).items()})
            for step in job["steps"]
            if "run" in step
        ]

    def _value(self, text: str) -> str:
        name = text.removeprefix("${{ secrets.").removesuffix(" }}")
        return self._secrets[name].rstrip("\n")

    def run(
        self, steps: list[tuple[str, str, dict[str, str]]], without: tuple[str, ...]
    ) -> dict[str, int]:
        """The exit codes by name. Those after a failure are run, too."""
        found = {}
        for name, script, more in steps:
            if name in without:
                continue
            set_by_steps = self._files["GITHUB_ENV"].read_text().splitlines()
            environment = {**self._environment, **dict(x.split("=", 1) for x in set_by_steps)}
            found[name] = subprocess.run(
                ["bash", "-e", "-c", script],
                cwd=self._folder,
                env={**environment, **more},
                stdin=subprocess.DEVNULL,
                timeout=120,
                check=False,
            ).returncode
        return found


def test_workers(lab: Lab, clone: Path, reads: Reads) -> None:
    (release,) = (
        YAML(typ="safe", pure=True).load(b.text) for b in docs.fenced("docs/workers.md", "yaml")
    )
    tarball = another_release(clone / "inventory")
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    (clone / "inventory" / "SHA256SUMS").write_text(f"{digest}  {tarball.name}\n")
    worker1 = f"worker-{lab.workers[1].read('/var/lib/alluxio/worker_identity')}"
    with reads("docs/workers.md") as reader:
        declare(lab, clone, release)
        printed = reader.types("invoke upgrade-workers --dry-run")
        assert "2 on 314" in printed
        assert "2 on 313" in printed
        declare(lab, clone)
        reader.types("invoke decommission-worker worker1")
        registered(lab, STALE)
        printed = reader.types(f"invoke forget-worker {STALE}")
        assert "1 changed" in printed
        registered(lab, STALE, STALE.replace("f", "0"))
        printed = reader.types("invoke forget-worker stale --count 2")
        assert "2 changed" in printed
        kept = clone / "home/.local/state/alluxio-provision/registrations"
        (file,) = (path.name for path in kept.iterdir() if worker1 in path.read_text())
        reader.types(
            "invoke readmit-worker ~/.local/state/alluxio-provision/registrations/FILE.json",
            **{"FILE.json": file},
        )


def registered(lab: Lab, *workers: str) -> None:
    """Workers that were on hosts which nobody declares any more."""
    with lab.client(lab.etcd[0]) as client:
        _, (known, *_) = client.range(f"/DHT/{CLUSTER}/AUTHORIZED/")
        for number, worker in enumerate(workers, 3):
            entity = json.loads(known.value)
            entity["Identity"]["identifier"] = worker.removeprefix("worker-").replace("-", "")
            entity["WorkerNetAddress"]["Host"] = f"{NET}.2{number}"
            entity["ServiceEntityName"] = worker
            client.put(f"/DHT/{CLUSTER}/AUTHORIZED/{worker}", json.dumps(entity))


def test_the_recording_is_of_today(lab: Lab, clone: Path) -> None:
    """What the picture shows: a worker that was put back and does not run, and a stale id."""
    registered(lab, STALE)
    seen = lab.invoke("check-nodes", clone / INVENTORY, "--format", "json").expect(1).json
    assert seen["alluxio"]["counts"] == {"LIVE": 1, "FAILED": 1, "UNKNOWN": 1}
    if os.environ.get("ALXP_RECORD"):
        RECORDING.parent.mkdir(exist_ok=True)
        text = json.dumps(seen, indent=2).replace(f"{NET}.", f"{DECLARED_NET}.")
        RECORDING.write_text(f"{text}\n", encoding="utf-8")
    recorded = json.loads(RECORDING.read_text(encoding="utf-8"))
    assert shape(seen) == shape(recorded), "record it anew"
    lab.invoke("forget-worker", clone / INVENTORY, STALE).expect(0)


def shape(value: Any) -> Any:
    """A document's keys and kinds of values."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value]
    return "number" if isinstance(value, int | float) else type(value).__name__


def test_membership(lab: Lab, clone: Path, reads: Reads) -> None:
    declare(lab, clone, {"alluxio": {"membership": "STATIC"}})
    with reads("docs/membership.md") as reader:
        printed = reader.types("invoke start-workers --dry-run")
    assert "from ETCD to STATIC" in printed
    assert "2 of 2 live" in printed
