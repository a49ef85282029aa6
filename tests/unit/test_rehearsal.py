"""No rehearsal changes anything, however it is spelled, alone or in a chain of tasks."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from invoke.main import program as invoke
from invoke.program import Program
from ruamel.yaml import YAML

from provision.cli.commands import namespace
from provision.cli.program import program as ours
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import PreflightFailed
from provision.host.diff import Change
from provision.inventory.resolved import Machine

ROOT = Path(__file__).parents[2]
CHANGING = sorted(
    name
    for name, task in namespace.tasks.items()
    if "dry_run" in inspect.signature(task.body).parameters
)
#: An option before the task, after it, and in a chain; T stands for the task with its arguments.
SPELLINGS = (
    "T --dry-run",
    "T -n",
    "T -nv",
    "T -d",
    "T --dry",
    "T -R",
    "--dry T",
    "-R T",
    "-d T",
    "-Rd T",
    "--debug T",
    "-R T -n",
    "status T -n",
    "T -n status",
    "T -R status",
    "T status --dry",
    "T status -d",
    "T stop-workers --dry-run",
    "T --dry-run stop-workers",
    "stop-workers T -n",
    "stop-workers -n T",
    "--dry T stop-workers",
    "T -n T",
    "T T -n",
)
Seen = list[tuple[str, bool]]
Called = Callable[[Program, Sequence[str]], tuple[int, Seen]]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[Called]:
    """Runs a command line; returns its exit code, and each action with whether it rehearses."""
    seen: Seen = []

    def record(name: str) -> Callable[..., int]:
        def action(run: Run, *_: object, **__: object) -> int:
            seen.append((name, run.dry_run))
            return 0

        return action

    for name, task in namespace.tasks.items():
        monkeypatch.setattr(task, "act", record(name))
    monkeypatch.setattr("invoke.program.enable_logging", lambda: None)
    monkeypatch.chdir(ROOT)

    every = dict(namespace.tasks)

    def call(program: Program, words: Sequence[str]) -> tuple[int, Seen]:
        # Invoke copies its parser's tables several times a run: these tasks are enough for it.
        tasks = {name: every[name] for name in {*words, "status"} & {*every}}
        monkeypatch.setattr(namespace, "tasks", type(namespace.tasks)(tasks))
        seen.clear()
        code = 0
        try:
            program.run(["program", *words])
        except SystemExit as done:
            code = int(done.code or 0)
        return code, list(seen)

    handler = signal.getsignal(signal.SIGINT)  # tasks.py has one of its own
    yield call
    signal.signal(signal.SIGINT, handler)


POSITIONAL = {name: len(task.positional or ()) for name, task in namespace.tasks.items()}


def words(spelling: str, task: str) -> list[str]:
    given = [task] + ["x"] * POSITIONAL[task]
    return [word for part in spelling.split() for word in (given if part == "T" else [part])]


@pytest.mark.parametrize("program", [ours, invoke], ids=["ours", "invoke"])
class TestEverySpelling:
    @pytest.mark.long
    def test_without_one_it_is_no_rehearsal(self, called: Called, program: Program) -> None:
        for task in CHANGING:
            assert called(program, words("T", task)) == (0, [(task, False)])

    @pytest.mark.long
    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_changes_nothing(self, called: Called, program: Program, spelling: str) -> None:
        for task in CHANGING:
            code, seen = called(program, words(spelling, task))
            changed = [name for name, dry in seen if name in CHANGING and not dry]
            assert not changed, f"{spelling}: {task}"
            assert (code, bool(seen)) in ((0, True), (2, False)), f"{spelling}: {task}"

    @pytest.mark.long
    def test_the_setting_of_invoke_counts(
        self, called: Called, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("INVOKE_RUN_DRY", "1")
        for task in CHANGING:
            assert called(program, words("T", task)) == (0, [(task, True)])

    @pytest.mark.parametrize(
        "line",
        [
            "backup-etcd stop-workers -n",
            "render-monitor stop-workers -n",
            "init-inventory stop-workers -n",
            "import-ansible x stop-workers -n",
            "check-nodes --html x stop-workers -n",
            "render-helm --to x stop-workers -n",
            "render-client-config --to x stop-workers -n",
        ],
    )
    def test_what_writes_files_refuses(
        self, called: Called, program: Program, capsys: pytest.CaptureFixture[str], line: str
    ) -> None:
        assert called(program, line.split()) == (2, [])
        assert "writes files and has no rehearsal" in capsys.readouterr().err

    def test_what_reads_goes_on(self, called: Called, program: Program) -> None:
        code, seen = called(program, ["check-nodes", "render-helm", "stop-workers", "-n"])
        assert code == 0
        assert [name for name, _ in seen] == ["check-nodes", "render-helm", "stop-workers"]


class TestOptionsOfInvoke:
    @pytest.mark.parametrize(
        "option", ["-T 5", "-w", "-e", "-p", "-f x", "--hide both", "-d", "-R", "--dry"]
    )
    def test_ours_has_none_of_them(
        self, called: Called, capsys: pytest.CaptureFixture[str], option: str
    ) -> None:
        assert called(ours, [*option.split(), "check-nodes"]) == (2, [])
        said = capsys.readouterr().err
        assert said.startswith(f"error: there is no option '{option.split()[0]}' before the tasks;")

    @pytest.mark.parametrize("option", ["-T 5", "-w", "-e", "-p", "-f invoke.yaml", "--hide both"])
    def test_invoke_refuses_what_has_no_effect(
        self, called: Called, capsys: pytest.CaptureFixture[str], option: str
    ) -> None:
        assert called(invoke, [*option.split(), "check-nodes"]) == (2, [])
        said = capsys.readouterr().err
        assert said.startswith("error: --")
        assert said.endswith("[option-invalid]\n")

    def test_a_sudo_password_that_nothing_uses_is_refused(
        self, called: Called, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("getpass.getpass", lambda _: "secret")
        assert called(invoke, ["--prompt-for-sudo-password", "check-nodes"]) == (2, [])

    @pytest.mark.process
    @pytest.mark.parametrize(
        "line",
        [
            "-fjson check-nodes",
            "-f json check-nodes",
            "--config=x.json check-nodes",
            "--prompt-for-sudo-password check-nodes",
            "check-nodes --prompt-for-sudo-password",
        ],
    )
    def test_invoke_does_not_act_on_them_first(self, line: str) -> None:
        command = [sys.executable, "-m", "invoke", *line.split()]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: --")
        assert len(done.stderr.splitlines()) == 1

    def test_debug_of_invoke_may_watch_what_changes_nothing(self, called: Called) -> None:
        assert called(invoke, ["-d", "status"]) == (0, [("status", False)])


@pytest.mark.parametrize("program", [ours, invoke], ids=["ours", "invoke"])
@pytest.mark.parametrize(
    ("line", "changing", "note"),
    [
        ("deploy-etcd start-workers", (), "nothing was changed"),
        (
            "deploy-etcd start-workers",
            ("deploy-etcd",),
            "nothing was changed by start-workers (deploy-etcd before it changed hosts)",
        ),
        (
            "backup-etcd deploy-etcd status start-workers",
            ("backup-etcd", "deploy-etcd"),
            "nothing was changed by start-workers (backup-etcd and deploy-etcd before it changed "
            "hosts)",
        ),
        ("start-workers deploy-etcd", ("deploy-etcd",), "nothing was changed"),
    ],
)
def test_an_error_says_what_earlier_tasks_of_the_line_have_changed(
    called: Called,
    program: Program,
    line: str,
    changing: Sequence[str],
    note: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("provision.engine.plan.apply", lambda *_: None)
    monkeypatch.setattr(Run, "fleet", None)
    host = HostChanges("infra0", Machine("a"), (Change("x", "true"),))

    def act(run: Run, *_: object, **__: object) -> int:
        if run.command == "start-workers":
            raise PreflightFailed("no", id="preflight-failed")
        run.established = True
        steps = (Step("roll", (host,)),) if run.command in changing else ()
        common.carry_out(run, Plan("render-monitor", "c", steps))
        return 0

    monkeypatch.setattr(common, "_guarded", lambda _, plan: plan)
    monkeypatch.setattr(common, "note", lambda _: None)
    for task in line.split():
        monkeypatch.setattr(namespace.tasks[task], "act", act)
    code, _ = called(program, line.split())
    assert code == 3
    assert capsys.readouterr().err.endswith(f"error: no; {note} [preflight-failed]\n")


def test_plain_invoke_has_our_executor() -> None:
    settings = YAML(typ="safe", pure=True).load((ROOT / "invoke.yaml").read_text())
    assert settings == {"tasks": {"executor_class": "provision.cli.chain.Executor"}}
