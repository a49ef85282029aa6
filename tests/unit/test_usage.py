"""Command lines that Invoke's parser does not take, of both programs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from invoke.exceptions import Exit, ParseError
from invoke.main import program as invoke
from invoke.program import Program

from provision.cli import usage
from provision.cli.commands import namespace
from provision.cli.pipe import BROKEN_PIPE
from provision.cli.program import TASKS
from provision.cli.program import program as ours
from provision.cli.tasks import common
from provision.errors import UsageError
from provision.plans.etcd import auth, deploy_etcd
from provision.plans.etcd.members import remove_member, replace_member
from provision.plans.etcd.state import observe
from tests.unit.command_line import Line, lines
from tests.unit.test_cli import into_a_closed_pipe

line = pytest.fixture(lines, name="line")
both = pytest.mark.parametrize("program", [ours, invoke], ids=["ours", "invoke"])


def refused(line: Line, program: Program, words: str, id: str, *said: str) -> None:
    """The line ends with 2, and one line on stderr with ``id``."""
    code, out, err = line(program, words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.endswith(f" [{id}]\n")
    assert err.count("\n") == 1
    assert [text for text in said if text not in err] == []


@both
@pytest.mark.parametrize(
    ("words", "id"),
    [
        ("nope --format json", "task-unknown"),
        ("nope -f json", "task-unknown"),
        ("deploy-etcd --format=json nope", "argument-unexpected"),
        ("deploy-etcd -fjson status --nope", "option-unknown"),
        ("deploy-etcd -nf json x", "argument-unexpected"),
        ("move-leader --format json", "argument-missing"),
        ("move-leader --to --format json", "argument-missing"),
        ("remove-member -f=json", "argument-missing"),
        ("deploy-etcd -f json --list status", "option-unknown"),
        ("--format json deploy-etcd", "option-unknown"),
    ],
)
def test_the_document(line: Line, program: Program, words: str, id: str) -> None:
    code, out, err = line(program, words)
    assert code == 2
    document = json.loads(out)
    assert err == f"error: {document.pop('error')} [{id}]\n"
    schema = "alluxio-provision/error/1"
    known = {"schema": schema, "id": id, "exit_code": 2, "problems": [], "batch": None}
    assert document == known


def test_the_document_of_an_option_without_effect(line: Line) -> None:
    """Of Invoke alone."""
    code, out, _ = line(invoke, "-e check-nodes -f json")
    assert (code, json.loads(out)["id"]) == (2, "option-invalid")


@pytest.mark.parametrize(
    "words",
    [
        *("status", "status --format table", "status -- --format json", "status --limit json"),
        "-f json status",  # before the tasks it is an option of Invoke's own
        "-fjson status",
    ],
)
def test_who_asks_for_no_document(words: str) -> None:
    assert not usage.asks_for_json(words.split())


@pytest.mark.parametrize(
    "words",
    [
        *("deploy-etcd", "remove-member infra1", "replace-member infra1", "enable-auth"),
        *("disable-auth", "destroy --yes-delete c"),
    ],
)
def test_a_word_that_is_not_the_clusters_name(line: Line, tmp_path: Path, words: str) -> None:
    """It is refused before any host is contacted."""
    words += f" -i {an_inventory(tmp_path)} --other-clusters-unknown d"
    said = "--other-clusters-unknown names the cluster, c, not 'd'"
    refused(line, ours, words, "consent-missing", said)


@pytest.mark.parametrize("agreed", [True, False])
@pytest.mark.parametrize(
    ("words", "module", "name"),
    [
        ("deploy-etcd", deploy_etcd, "plan"),
        ("remove-member infra1", remove_member, "plan"),
        ("replace-member infra1", replace_member, "plan"),
        ("enable-auth", auth, "enable"),
        ("disable-auth", auth, "disable"),
    ],
)
def test_the_word_reaches_the_plan(
    line: Line,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    module: ModuleType,
    name: str,
    agreed: bool,
) -> None:
    given: list[bool] = []

    def plan(*args: Any, **options: Any) -> None:
        given.append(options["agreed"] if "agreed" in options else args[-1].agreed)
        raise UsageError("seen", id="option-invalid")

    monkeypatch.setattr(module, name, plan)
    monkeypatch.setattr(common, "load_own_etcd", lambda run, *_, **__: run.inventory)
    for looks in (observe, auth):
        monkeypatch.setattr(looks, "observe", lambda *_, **__: None)
    words += f" -i {an_inventory(tmp_path)}" + " --other-clusters-unknown c" * agreed
    refused(line, ours, words, "option-invalid", "seen")
    assert given == [agreed]


def an_inventory(folder: Path) -> Path:
    file = folder / "c.yml"
    members = ", ".join(f"infra{n}: {{host: 127.0.0.{n}, address: 10.0.0.{n}}}" for n in (1, 2, 3))
    etcd = f"{{version: 3.6.16, source: {{package: true}}, members: {{{members}}}}}"
    file.write_text(f"cluster: c\nssh: {{user: a, port: 1}}\netcd: {etcd}\n")
    return file


@both
def test_an_option_without_its_value(line: Line, program: Program) -> None:
    refused(line, program, "rollback-workers --to", "argument-missing", "--to needs a value")
    words = "check-nodes --nodes-timeout"
    refused(line, program, words, "argument-missing", "--nodes-timeout needs a value")


@both
def test_an_unknown_task(line: Line, program: Program) -> None:
    for words in ("nope", "--help nope", "deploy-etcd start-worker"):
        refused(line, program, words, "task-unknown", "see invoke --list")
    refused(line, program, "chek-nodes", "task-unknown", "did you mean check-nodes?")


@both
def test_an_unknown_option(line: Line, program: Program) -> None:
    refused(
        line,
        program,
        "deploy-etcd --remov",
        "option-unknown",
        "deploy-etcd has no option",
        "did you mean --remove?",
        "see invoke --help deploy-etcd",
    )
    refused(line, program, "--nope", "option-unknown", "before the tasks")
    refused(line, program, "status --dry-run", "option-unknown", "status has no option")


@both
@pytest.mark.parametrize("words", ["restart-workers -- w1", "stop-workers w1 --yes -- w2"])
def test_names_behind_two_dashes_are_not_dropped(line: Line, program: Program, words: str) -> None:
    """Invoke cuts the line at ``--``: the task would have all workers."""
    refused(line, program, words, "argument-unexpected", words.partition("-- ")[2], "without --")


@both
def test_an_argument_too_many(line: Line, program: Program) -> None:
    refused(line, program, "deploy-etcd x", "argument-unexpected", "takes no argument", "'x'")
    refused(line, program, "remove-member a b", "argument-unexpected", "takes NAME only", "'b'")
    refused(line, program, "deploy-etcd --dry-run=x", "argument-unexpected", "'x'")


@both
@pytest.mark.parametrize("task", [n for n in TASKS if namespace[n].positional])
def test_a_missing_argument(line: Line, program: Program, task: str) -> None:
    (name,) = namespace[task].positional
    refused(line, program, task, "argument-missing", f": invoke {task} {name.upper()} [")


@pytest.mark.long
@both
def test_an_argument_that_a_flag_stands_in_for(line: Line, program: Program) -> None:
    undo = "restore-etcd --undo --inventory nope.yml"
    for words in (undo, "restore-etcd --inventory nope.yml x.db"):  # both are understood
        code, _, err = line(program, words)
        assert (code, "[inventory-missing]" in err) == (2, True)
    refused(line, program, "restore-etcd", "argument-missing", "restore-etcd needs FILE")
    refused(line, program, "restore-etcd x.db --undo", "option-invalid", "FILE and --undo")
    refused(line, program, f"{undo} x.db", "argument-unexpected", "'x.db'")
    for option in ("--yes-restore c", "--without a", "--no-bump-revision"):
        refused(line, program, f"{undo} {option}", "option-invalid", "--undo takes no option")
    refused(line, program, "restore-etcd x.db --yes-undo c", "option-invalid", "--yes-undo is")


@both
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--list nope", "--list takes no name"),
    ],
)
def test_a_wrong_value(line: Line, program: Program, words: str, said: str) -> None:
    refused(line, program, words, "option-invalid", said)


def test_a_wrong_list_of_invoke_s_own(line: Line) -> None:
    said = "--list-format is flat, nested or json, not 'x'"
    refused(line, invoke, "-l --list-format x", "option-invalid", said)


def test_what_invoke_says_in_other_words_is_still_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another release of Invoke may have other texts."""
    with pytest.raises(Exit) as done, usage.answered([], TASKS):
        raise ParseError("Flag said \x1b[2J no")
    assert done.value.code == 2
    assert capsys.readouterr().err == "error: Flag said \ufffd[2J no [option-invalid]\n"


def test_a_mistake_of_ours_is_not_taken_for_a_wrong_line() -> None:
    with pytest.raises(ValueError, match="Help field"), usage.answered([], TASKS):
        raise ValueError("Help field was set for param(s) that don't exist")


def test_ours_answers_what_it_reads_before_the_tasks(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain Invoke reads these before it loads the tasks."""
    monkeypatch.setattr(ours, "argv", [])  # as in a new process
    words = "--print-completion-script x status --format json"
    code, out, _ = line(ours, words)
    assert (code, json.loads(out)["id"]) == (2, "option-invalid")
    script = "--print-completion-script"
    refused(line, ours, script, "argument-missing", "see invoke --help")
    refused(line, ours, f"{script} tcsh", "option-invalid", "bash, fish, zsh")


@both
def test_a_word_steers_no_terminal(line: Line, program: Program) -> None:
    for words in ("\x1b[2J", "--\x1b[2J", "status \x1b[2J", "--help \x1b[2J"):
        code, _, err = line(program, words)
        assert code == 2
        assert "\x1b" not in err
    assert len(line(program, "x" * 5000)[2]) < 500


@both
def test_help_is_complete(line: Line, program: Program) -> None:
    """Although the arguments of a task on the line are read twice."""
    for words in ("deploy-etcd --help", "--help deploy-etcd"):
        code, out, _ = line(program, words)
        assert code == 0
        assert "Members to remove that the inventory does not declare" in " ".join(out.split())


def test_another_program_may_load_the_tasks() -> None:
    usage.check(Program(), namespace)


@pytest.mark.process
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("program", ["alluxio-provision", "invoke"])
def test_a_reader_that_goes_away_is_no_error(program: str, unbuffered: str) -> None:
    done = into_a_closed_pipe(program, ("nope", "--format", "json"), unbuffered or None)
    assert done.returncode == BROKEN_PIPE
    assert "BrokenPipe" not in done.stderr
