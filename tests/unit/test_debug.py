"""--debug: what a bug report needs is in the file, however the run ended, and no secret is."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.check_nodes import status
from provision.cli.command import command
from provision.cli.redact import MARK, Redactor
from provision.cli.run import Run
from provision.engine import audit
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import ChangeFailed, Problem, Unhealthy
from provision.host.diff import Change
from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet, RoundTrip, Stats

from .hosts import facts, text

KEY = (
    "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIDthisisthekeymaterial\n-----END EC PRIVATE KEY-----\n"
)
SECRETS = {
    "root": "Root$pa\"ss'wo\\rd",
    "worker": "two\nlines-of-a-secret",
    "property": "üñí-пароль=#!",
    "sudo": ".*sudo+[secret](",
    "passphrase": "pass phrase %41&x=y",
    "credential": "colon:equals=bang!",
}
INVENTORY = """
cluster: c
ssh:
  key: id
  sudo_password: {env: DEBUG_SUDO}
  key_passphrase: {file: passphrase}
etcd:
  version: 3.6.16
  source: {path: etcd.tar.gz, sha256: "DIGEST"}
  auth: {enabled: true, root_password: {file: root}}
  members:
    infra0: {host: a}
    infra1: {host: b}
    infra2: {host: c}
alluxio:
  version: "313"
  source: {path: alluxio.tar.gz, sha256: "DIGEST"}
  properties: {alluxio.dora.client.ufs.root: s3://b/p}
  secret_properties: {s3a.secretKey: {file: property}}
  etcd: {username: alluxio, password: {file: worker}}
  workers:
    w1: {host: d}
"""


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DEBUG_SUDO", SECRETS["sudo"])
    for name in ("root", "worker", "property", "passphrase"):
        (tmp_path / name).write_text(f"{SECRETS[name]}\n")
    (tmp_path / "id").write_text(KEY)
    path = tmp_path / "inventory.yml"
    path.write_text(INVENTORY.replace("DIGEST", "0" * 64))
    return path


def ends(body: Callable[[Run], int | None], inventory: Path, **options: Any) -> int:
    """The exit code of a command of that body, as :command: makes it."""
    from invoke.context import Context
    from invoke.exceptions import Exit

    @command(changes=True)
    def task(run: Run) -> int | None:
        return body(run)

    try:
        task.body(Context(), **{"inventory": str(inventory), **options})
    except Exit as exit:
        return exit.code
    return 0


def unpacked(file: Path) -> dict[str, str]:
    with tarfile.open(file) as tar:
        found = {}
        for entry in tar:
            content = tar.extractfile(entry)
            assert content is not None
            found[entry.name.removeprefix("debug/")] = content.read().decode()
    return found


def everywhere(run: Run) -> None:
    """Every secret in everything that a bundle is made of."""
    loud = " | ".join([*SECRETS.values(), KEY])
    print(loud, json.dumps(loud), repr(loud), sep="\n")
    print(base64.b64encode(SECRETS["root"].encode()).decode())
    print("https://user:urlpassword@x/  client.password=looselyknown")
    change = Change(loud, "true", diff=f"+ key = {loud}")
    step = Step(loud, (HostChanges(loud, Machine("a"), (change,)),))
    run.plans.append(Plan("deploy-etcd", "c", (step,), (Problem(loud, loud, id="disk-full"),)))
    audit.note(audit.author("task", "c"), loud, [loud], ok=False)
    stats = Stats([RoundTrip("a", loud, 0.25, 10, 20, 7), RoundTrip("d", "facts", 0.5, 1, 2, 0)])
    stats.broken.append(("b", loud, loud))
    state = text(f"secret file {loud}")
    stats.facts[Machine("a")] = dataclasses.replace(
        facts(), paths={f"/etc/{SECRETS['root']}": state}, commands={"java": loud}
    )
    run._fleet = Fleet(2, stats)


def logs(_: Fleet, machine: Machine, lines: int) -> list[str]:
    assert lines > 0
    return [f"log of {machine.host}", *SECRETS.values(), *KEY.splitlines()]


class TestNoSecret:
    @pytest.fixture
    def bundle(
        self, inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> dict[str, str]:
        def body(run: Run) -> None:
            everywhere(run)
            loud = " | ".join([*SECRETS.values(), KEY])
            raise ChangeFailed(
                loud, [Problem(loud, loud, loud, id="disk-full")], id="change-failed"
            )

        monkeypatch.setattr(status, "journal", logs)
        monkeypatch.setattr("sys.argv", ["invoke", "deploy-etcd", SECRETS["root"]])
        assert ends(body, inventory, debug=str(tmp_path / "b.tar.gz")) == 4
        return unpacked(tmp_path / "b.tar.gz")

    @pytest.mark.process
    def test_is_anywhere(self, bundle: dict[str, str]) -> None:
        said = "\n".join([*bundle, *bundle.values()])
        assert said.count(MARK) > 20
        declared = [v for k, v in SECRETS.items() if k != "credential"]
        for secret in (*declared, "thisisthekeymaterial", "urlpassword", "looselyknown"):
            for form in (
                *secret.splitlines(),
                *(json.dumps(line)[1:-1] for line in secret.splitlines()),
                base64.b64encode(secret.encode()).decode().rstrip("="),
            ):
                assert form not in said, form

    @pytest.mark.process
    def test_and_the_rest_is_there(self, bundle: dict[str, str]) -> None:
        assert set(bundle) == {
            *("manifest.json", "run.json", "versions.json", "inventory.json", "facts.json"),
            *("plan.json", "calls.json", "audit.json", "stdout.txt", "stderr.txt"),
            *("traceback.txt", "logs/a.txt", "logs/d.txt"),
        }
        documents = {k: json.loads(v) for k, v in bundle.items() if k.endswith(".json")}
        assert documents["run.json"]["exit_code"] == 4
        assert documents["run.json"]["id"] == "change-failed"
        assert documents["run.json"]["command_line"][:2] == ["invoke", "deploy-etcd"]
        assert documents["calls.json"]["calls"][0]["code"] == 7
        assert documents["calls.json"]["broken"][0]["host"] == "b"
        assert documents["plan.json"][0]["command"] == "deploy-etcd"
        assert documents["audit.json"][0]["result"] == "failed"
        assert documents["versions.json"]["dependencies"]["pydantic"]
        (state,) = documents["facts.json"]["a"]["paths"].values()
        assert re.fullmatch("[0-9a-f]{64}", state["sha256"])
        rows = {row["path"]: row["value"] for row in documents["inventory.json"]}
        assert rows["cluster"] == "c"
        assert "ChangeFailed" in bundle["traceback.txt"]
        assert "log of d" in bundle["logs/d.txt"]
        manifest = documents["manifest.json"]
        assert set(manifest["files"]) == set(bundle) - {"manifest.json"}
        assert "contents of files on hosts" in manifest["left_out"]


class TestHoweverItEnds:
    @pytest.mark.process
    @pytest.mark.parametrize(
        ("error", "code"),
        [(None, 0), (KeyboardInterrupt(), 130), (KeyError("x"), 70)],
    )
    def test_it_is_written(
        self, error: BaseException | None, code: int, inventory: Path, tmp_path: Path
    ) -> None:
        def body(run: Run) -> None:
            print("as shown")
            if error is not None:
                raise error

        file = tmp_path / "b.tar.gz"
        assert ends(body, inventory, debug=str(file)) == code
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        found = unpacked(file)
        assert json.loads(found["run.json"])["exit_code"] == code
        assert found["stdout.txt"] == "as shown\n"
        assert ("traceback.txt" in found) == (error is not None)

    @pytest.mark.process
    def test_with_a_bad_inventory(self, tmp_path: Path) -> None:
        bad, file = tmp_path / "bad.yml", tmp_path / "b.tgz"
        bad.write_text("etcd: {versoin: 1}\n")
        assert ends(lambda run: int(bool(run.loaded)), bad, debug=str(file)) == 2
        found = unpacked(file)
        assert "inventory-unknown-key" in found["stderr.txt"]
        assert "inventory.json" in json.loads(found["manifest.json"])["left_out"]

    @pytest.mark.process
    def test_with_a_traceback_on_the_screen(self, inventory: Path, tmp_path: Path) -> None:
        def body(run: Run) -> None:
            raise Unhealthy("x", id="member-down")

        file = tmp_path / "b.tar.gz"
        with pytest.raises(Unhealthy):
            ends(body, inventory, debug=str(file), traceback=True)
        assert "Unhealthy" in unpacked(file)["traceback.txt"]

    @pytest.mark.process
    def test_a_host_whose_logs_cannot_be_had(
        self, inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(_: Fleet, machine: Machine, lines: int) -> list[str]:
            raise Unhealthy(f"{machine.host} is away", id="host-unreachable")

        def body(run: Run) -> None:
            everywhere(run)
            raise Unhealthy("x", id="member-down")

        monkeypatch.setattr(status, "journal", away)
        file = tmp_path / "b.tar.gz"
        assert ends(body, inventory, debug=str(file)) == 1
        left_out = json.loads(unpacked(file)["manifest.json"])["left_out"]
        assert left_out["logs/a.txt"] == "a is away"


class TestNeverInTheWay:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("b.zip", "called ....tar.gz"),
            ("no/b.tar.gz", "no such folder"),
            ("old.tar.gz", "not ov"),
        ],
    )
    def test_a_bad_file_is_said_first(
        self, name: str, said: str, inventory: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def body(run: Run) -> None:
            raise AssertionError("was called")

        (inventory.parent / "old.tar.gz").write_text("mine")
        assert ends(body, inventory, debug=str(inventory.parent / name)) == 2
        assert said in capsys.readouterr().err
        assert (inventory.parent / "old.tar.gz").read_text() == "mine"

    @pytest.mark.process
    @pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), RuntimeError("x")])
    def test_what_cannot_be_written_keeps_the_runs_code(
        self,
        error: BaseException,
        inventory: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fail(*_: object) -> bytes:
            raise error

        def body(run: Run) -> None:
            raise Unhealthy("the reason", id="member-down")

        monkeypatch.setattr("provision.cli.debug._packed", fail)
        assert ends(body, inventory, debug=str(tmp_path / "b.tar.gz")) == 1
        err = capsys.readouterr().err
        assert "the reason" in err
        assert "warning: " in err
        assert not list(tmp_path.glob("*.tar.gz*"))

    @pytest.mark.process
    def test_json_on_stdout_stays_one_document(
        self, inventory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def body(run: Run) -> None:
            raise Unhealthy("x", id="member-down")

        ends(body, inventory, debug=str(tmp_path / "b.tar.gz"), format="json")
        assert json.loads(capsys.readouterr().out)["id"] == "member-down"


def test_what_looks_like_a_secret_and_is_none() -> None:
    redactor = Redactor([])
    for harmless in ("peer port 2380", "http://host:2379/x", "token", "a=b", "users: alluxio"):
        assert redactor.text(harmless) == harmless
    assert redactor.document({"a": [1, None, True, 0.5]}) == {"a": [1, None, True, 0.5]}


def test_a_secret_within_another() -> None:
    assert Redactor(["abc", "abcdef"]).text("xabcdefx abc") == f"x{MARK}x {MARK}"
    assert Redactor(["", " "]).text("a b") == "a b"
    assert Redactor(["12345"]).document({"12345": 12345}) == {MARK: MARK}
