"""How a command ends: exit codes, error lines, and one JSON document on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from provision import tables
from provision.cli.command import command
from provision.cli.commands import namespace
from provision.cli.inventory_path import DEFAULT_INVENTORY
from provision.cli.run import Run
from provision.cli.tasks import cluster, common
from provision.engine import lock
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import (
    ChangeFailed,
    InventoryError,
    Locked,
    PreflightFailed,
    Problem,
    ProvisionError,
    Unhealthy,
    UsageError,
)
from provision.host.diff import Change
from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet
from tests.unit import builders

ROOT = Path(__file__).parents[2]


def ends(body: Any, *, changes: bool = False, **options: Any) -> int:
    """The exit code of a task with this body."""
    given: dict[str, Any] = {
        "inventory": "",
        "format": "table",
        "verbose": False,
        "stats": False,
        "traceback": False,
    }
    if changes:
        given.update(dry_run=False, exit_code=False)
    try:
        command(changes=changes)(body).body(Context(), **{**given, **options})
    except Exit as done:
        return done.code
    return 0


def raising(error: BaseException) -> Any:
    def body(run: Run) -> int:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProvisionError("x", id="etcd-refused"), 1),
        (Unhealthy("x", id="member-down"), 1),
        (UsageError("x", id="option-invalid"), 2),
        (InventoryError("x", id="inventory-invalid"), 2),
        (PreflightFailed("x", id="preflight-failed"), 3),
        (ChangeFailed("x", id="change-failed"), 4),
        (Locked("x", id="locked"), 5),
    ],
)
def test_each_error_has_its_code(error: ProvisionError, code: int) -> None:
    assert ends(raising(error)) == code


@pytest.mark.parametrize("code", [None, 0, 1])
def test_what_a_command_returns_is_its_code(code: int | None) -> None:
    assert ends(lambda run: code) == (code or 0)


PROBLEMS = [
    Problem("b", "odd", severity="warning", id="memory-short"),
    Problem("a:3:1", "wrong", "right it", id="inventory-unknown-key"),
]


def test_an_error_is_a_line_each_and_errors_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(raising(PreflightFailed("two things", PROBLEMS, id="preflight-failed"))) == 3
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.splitlines() == [
        "error: two things [preflight-failed]",
        "  - a:3:1: wrong (right it) [inventory-unknown-key]",
        "  - warning: b: odd [memory-short]",
    ]


def test_an_id_that_stands_with_the_remedy_is_not_said_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problem = Problem("a", "locked by b", "wait", id="locked")
    ends(raising(Locked("another run", [problem], id="locked")))
    assert capsys.readouterr().err.splitlines() == [
        "error: another run",
        "  - a: locked by b (wait) [locked]",
    ]


def test_with_json_it_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    ends(
        raising(PreflightFailed("two \x9b31m things", PROBLEMS, id="preflight-failed")),
        format="json",
    )
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {
        "schema": "alluxio-provision/error/1",
        "batch": None,
        "id": "preflight-failed",
        "error": "two \x9b31m things",
        "exit_code": 3,
        "problems": [p.document() for p in PROBLEMS],
    }


def test_an_unknown_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(lambda run: 0, format="yaml") == 2
    assert "--format is table or json, not 'yaml'" in capsys.readouterr().err


def test_traceback_shows_the_error_itself() -> None:
    with pytest.raises(Unhealthy):
        ends(raising(Unhealthy("x", id="member-down")), traceback=True)


def test_the_inventory(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def body(run: Run) -> None:
        seen.append(str(run.inventory_path))

    monkeypatch.delenv("PROVISION_INVENTORY", raising=False)
    ends(body)
    monkeypatch.setenv("PROVISION_INVENTORY", "/env.yml")
    ends(body)
    ends(body, inventory="/given.yml")
    assert seen == [DEFAULT_INVENTORY, "/env.yml", "/given.yml"]


@pytest.mark.parametrize("text", ["0", "-1", "x", "nan", "inf", "1e12", ""])
def test_bad_numbers(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    def body(run: Run, interval: float = 2.0) -> None:
        raise AssertionError("was called")

    assert ends(body, interval=text) == 2
    assert "--interval is a number above 0" in capsys.readouterr().err


class TestAMistakeOfOurs:
    def test_it_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert ends(raising(KeyError("x\x1b[2J"))) == 70
        said = capsys.readouterr().err
        assert said.startswith("error: a mistake in this tool: KeyError: ")
        assert said.endswith("[internal-error]\n")
        assert said.count("\n") == 1
        assert "\x1b" not in said

    def test_with_its_traceback(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert ends(raising(KeyError("x")), traceback=True) == 70
        assert "Traceback" in capsys.readouterr().err

    def test_while_changing(self, capsys: pytest.CaptureFixture[str]) -> None:
        def body(run: Run) -> None:
            run.applying = True
            raise RuntimeError

        assert ends(body, format="json") == 70
        document = json.loads(capsys.readouterr().out)
        assert (document["id"], document["exit_code"]) == ("internal-error", 70)
        assert "hosts were being changed" in document["error"]


@pytest.mark.usefixtures("unguarded")
class TestInterrupted:
    def test_while_only_looking(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert ends(raising(KeyboardInterrupt())) == 130
        assert capsys.readouterr().err == "error: interrupted [interrupted]\n"

    def test_while_changing(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It says that hosts were being changed, and how to go on."""
        host = HostChanges("infra0", Machine("a"), (Change("x", "true"),))
        plan = Plan("deploy-etcd", "c", (Step("s", (host,)),))

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(lock, "held", interrupt)
        monkeypatch.setattr(Run, "fleet", None)
        code = ends(lambda run: common.carry_out(run, plan), changes=True, format="json")
        seen = capsys.readouterr()
        assert code == 130
        document = json.loads(seen.out)
        assert document["exit_code"] == 130
        assert "while hosts were being changed" in document["error"]
        assert "run the same command again" in document["error"]


@pytest.mark.usefixtures("unguarded")
class TestOutcome:
    notes = (Problem("a", "heap is large", severity="warning", id="memory-short"),)
    host = HostChanges("infra0", Machine("a"), (Change("x", "true"), Change("y", "true")))

    def say(
        self, plan: Plan, capsys: pytest.CaptureFixture[str], **options: Any
    ) -> tuple[str, str]:
        def body(run: Run) -> None:
            common.finish(run, plan, common.carry_out(run, plan))

        assert ends(body, changes=True, **options) == 0
        seen = capsys.readouterr()
        return seen.out, seen.err

    def test_nothing_to_do_still_shows_the_warnings(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, err = self.say(Plan("deploy-etcd", "c", notes=self.notes), capsys)
        assert out == "0 changed\n"
        assert err == "warning: a: heap is large [memory-short]\n"

    def test_a_dry_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        plan = Plan("add-member", "c", (Step("roll", (self.host,)),), self.notes)
        out, _ = self.say(plan, capsys, dry_run=True)
        assert out.endswith("2 would change; nothing was changed (--dry-run)\n")
        out, _ = self.say(plan, capsys, dry_run=True, format="json")
        document = json.loads(out)
        assert (document["changed"], document["would_change"]) == (0, 2)
        assert document["applied"] is False
        assert document["notes"][0]["what"] == "heap is large"

    @pytest.mark.parametrize("steps", [(), (Step("roll", (host,)),)])
    def test_the_verdict_of_a_dry_run(self, steps: tuple[Step, ...]) -> None:
        def body(run: Run) -> None:
            common.finish(run, plan, common.carry_out(run, plan))

        plan = Plan("deploy-etcd", "c", steps)
        assert ends(body, changes=True, dry_run=True, exit_code=True) == len(steps)

    def test_there_is_no_verdict_of_a_run_that_changes(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert ends(raising(AssertionError("ran")), changes=True, exit_code=True) == 2
        assert "the verdict of a --dry-run" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("error", "changes", "applied", "noted"),
        [
            (PreflightFailed("no", id="preflight-failed"), True, False, True),
            (Unhealthy("no", id="quorum-lost"), True, False, True),
            (Locked("no", id="changed-meanwhile"), True, False, True),
            (PreflightFailed("no", id="preflight-failed"), False, False, False),  # only a look
            (Unhealthy("no", id="quorum-lost"), True, True, False),
            (ChangeFailed("no", id="change-failed"), True, False, False),
            (UsageError("no", id="option-invalid"), True, False, False),
        ],
    )
    def test_an_error_says_when_nothing_was_changed(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        error: ProvisionError,
        changes: bool,
        applied: bool,
        noted: bool,
    ) -> None:
        monkeypatch.setattr("provision.engine.plan.apply", lambda *_: None)
        monkeypatch.setattr(Run, "fleet", None)

        def body(run: Run) -> None:
            if applied:
                common.carry_out(run, Plan("deploy-etcd", "c", (Step("roll", (self.host,)),)))
            raise error

        assert ends(body, changes=changes, format="json") == error.exit_code
        seen = capsys.readouterr()
        message = "no; nothing was changed" if noted else "no"
        assert json.loads(seen.out)["error"] == message
        assert seen.err.endswith(f"error: {message} [{error.id}]\n")


@pytest.mark.parametrize("name", ["", "nobody"])
def test_logs_of_nobody_says_who_there_is(name: str) -> None:
    from tests.unit import builders

    with pytest.raises(UsageError, match="infra1, infra2, infra3, w1, w2"):
        cluster._machine(builders.inventory(), name)


def test_every_task_says_what_it_and_its_options_do() -> None:
    for name, task in namespace.tasks.items():
        assert task.__doc__, name
        task.get_arguments()  # Invoke's own would take the help away
        options = {a.name: a for a in task.get_arguments()}
        for option, argument in options.items():
            assert argument.help, f"{name} --{option}"
        reads_one = name not in (
            *("init-inventory", "import-ansible", "inventory-schema", "show-schema", "explain"),
            "merge-reports",
        )
        assert ("inventory" in options) is reads_one


def invoke(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "invoke", "--search-root", str(ROOT), *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, timeout=60)


@pytest.mark.process
def test_an_import_never_overwrites(tmp_path: Path) -> None:
    hosts, made = tmp_path / "hosts", tmp_path / "new.yml"
    hosts.write_text("[etcd]\na\n")
    done = invoke("import-ansible", str(hosts), "--to", str(made))
    assert done.returncode == 0, done.stderr
    assert "1 member of etcd" in done.stdout
    hosts.write_text("[etcd]\nb\n")
    again = invoke("import-ansible", str(hosts), "--to", str(made))
    assert again.returncode == 2
    assert "this file exists already" in again.stderr
    assert "host: a" in made.read_text()


@pytest.mark.process
def test_the_schema_as_a_process() -> None:
    done = invoke("inventory-schema")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["type"] == "object"
    assert done.stderr == ""


@pytest.mark.process
def test_a_terminal_without_the_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code = "from provision.cli.command import perform; perform('x', {'format': 'table'}, lambda r: "
    line = [sys.executable, "-c", code + "print('\u2026'))"]
    done = subprocess.run(line, capture_output=True, cwd=ROOT, timeout=60)
    assert (done.stdout, done.stderr) == (b"?\n", b"")


@pytest.mark.process
def test_a_bad_inventory_as_a_process(tmp_path: Path) -> None:
    path = tmp_path / "bad.yml"
    path.write_text("etcd: {versoin: 3.6.16}\n")
    done = invoke("deploy-etcd", "--inventory", str(path), "--format", "json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["exit_code"] == 2
    assert any("bad.yml:1:8" in p["where"] for p in document["problems"])
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_a_host_that_is_not_there_as_a_process(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    (tmp_path / "etcd.tar.gz").write_bytes(b"")
    path.write_text(
        "ssh: {user: nobody, port: 1, connect_timeout: 2}\n"
        "etcd:\n  version: 3.6.16\n  tls: {peer: false}\n"
        f"  source: {{path: etcd.tar.gz, sha256: {'0' * 64}}}\n"
        "  members:\n    infra0: {host: 127.0.0.1}\n"
    )
    done = invoke("deploy-etcd", "--inventory", str(path), "--dry-run")
    assert done.returncode == 3
    assert "nothing was changed" in done.stderr
    assert "127.0.0.1" in done.stderr
    assert f"{path}:7" in done.stderr
    assert "but the inventory says" in done.stderr  # both are listed, not the first
    assert "Traceback" not in done.stderr


def test_a_table_cannot_be_marked_up(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show((tables.Texts("name"),), [("[red]x[/red]",)])
    assert "[red]x[/red]" in capsys.readouterr().out


def test_the_handles_of_a_run_share_what_they_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("deploy-etcd")
    monkeypatch.setattr(Run, "fleet", property(lambda _: Fleet(1)))
    first = builders.etcd()
    other = replace(first, members=first.members[:2])
    one, two = run.etcd(first), run.etcd(other)
    assert (one.cluster, two.cluster) == (first, other)
    assert one.login is None
    assert one.fleet is two.fleet
    assert one.learned is two.learned
    one.learned.block("10.0.0.1", 2379)
    run.close()
    assert not two.learned.is_blocked("10.0.0.1", 2379)
