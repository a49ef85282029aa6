"""The screens of the installed program, and what it says of a word that it does not know."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from invoke.main import program as invoke

from provision.cli import first_screen
from provision.cli import help as screens
from provision.cli.commands import namespace
from provision.cli.first_screen import NAME
from provision.cli.program import CORE_OPTIONS, TASKS
from provision.cli.program import program as ours
from provision.cli.values import _OF_TASK, _VALUES, Kind, value_of
from tests.unit.command_line import Line as AnyLine
from tests.unit.command_line import lines

Line = Callable[..., tuple[int, str, str]]


any_line = pytest.fixture(lines, name="any_line")


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, any_line: AnyLine) -> Line:
    """Runs a command line on a screen of 80 columns: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")
    return lambda words, program=ours: any_line(program, words)


@pytest.mark.parametrize("words", ["", "help", "--help", "-h", "help --help"])
def test_the_first_screen(line: Line, words: str) -> None:
    code, out, err = line(words)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) < 80
    for group in first_screen.GROUPS:
        assert sum(re.match(rf"  {group.key} +{group.title}: ", x) is not None for x in lines) == 1
    for command, about in first_screen.DAILY:
        assert sum(x.startswith(f"  {command} ") and x.endswith(about) for x in lines) == 1
    assert len(first_screen.DAILY) == 10


def test_the_daily_tasks_are_there_with_their_arguments() -> None:
    for command, _ in first_screen.DAILY:
        name, *rest = command.split()
        task = namespace[name]
        options = {f"--{a.names[0]}" for a in task.get_arguments()}
        assert {word for word in rest if word.startswith("--")} <= options
        for word in rest:
            subject = "limit" if word == "[NAMES]" else word.strip("[]").lower()
            if word.isupper() and not rest[0].startswith("--"):
                assert subject in (task.word, *task.arguments), command


def test_every_task_is_in_one_group() -> None:
    first, *others = first_screen.GROUPS
    assert {t for g in first_screen.GROUPS for t in g.tasks} == {*TASKS}
    for task in TASKS:
        groups = [g.key for g in others if task in g.tasks]
        # check-nodes looks at pods, too; the ends of a cluster are in the first group alone.
        most = 2 if task == "check-nodes" else 1
        assert len(groups) <= most
        assert groups or task in first.tasks


@pytest.mark.parametrize("group", first_screen.GROUPS, ids=lambda g: g.key)
def test_a_group(line: Line, group: first_screen.Group) -> None:
    code, out, _ = line(f"help {group.key}")
    assert code == 0
    shown = re.findall(r"^  ([a-z]\S*)", out, re.MULTILINE)
    assert shown == list(group.tasks)
    assert max(map(len, out.splitlines())) < 80


@pytest.mark.parametrize("group", first_screen.GROUPS, ids=lambda g: g.key)
def test_a_group_by_its_title(line: Line, group: first_screen.Group) -> None:
    """The first screen shows it beside the key: whoever types it means the group."""
    shown = line(f"help {group.key}")
    assert shown[0] == 0
    assert line(f"help {group.title}") == line(f"help {group.title.upper()}") == shown


def test_a_group_has_more_than_one_word() -> None:
    words = {"recovery": "backup", "Certificates": "access", "ETCD": "etcd", "start": "start"}
    for word, key in words.items():
        group = screens.find_group(word)
        assert group is not None
        assert group.key == key
    assert screens.find_group("and") is None or screens.find_group("x") is None
    assert not {*screens.group_words()} & {*TASKS, screens.ALL}


@pytest.mark.long
@pytest.mark.parametrize("task", TASKS)
def test_a_task(line: Line, task: str) -> None:
    code, out, _ = line(f"help {task}")
    assert code == 0
    assert out == line(f"{task} --help")[1] == line(f"--help {task}")[1] == line(f"-h {task}")[1]
    assert out.startswith(f"Usage: {NAME} {task} ")
    said = " ".join(out.split())
    for argument in namespace[task].get_arguments():
        if argument.positional or (argument.name == namespace[task].word != "limit"):
            assert f"\n  {value_of(task, str(argument.name)).shown} " in out
        else:
            assert re.search(rf"--(\[no-\])?{argument.names[0]}\b", out), argument.name
        assert argument.help
        assert " ".join(argument.help.split()) in said or argument.name == "limit"


def test_all_of_it(line: Line) -> None:
    code, out, _ = line("help all")
    assert code == 0
    assert out == line("--list")[1] == line("-l")[1]
    assert all(f"\n  {task} " in out for task in TASKS)


def test_no_option_of_invoke_without_a_use(line: Line) -> None:
    there = {argument.name for argument in ours.core_args()}
    assert there == {*CORE_OPTIONS, "explain"}
    said = line("help all")[1].partition("before a task:")[2]
    assert {*re.findall(r"--([a-z-]+)", said)} == there
    for option in ("--complete", "--list-depth 1", "--list-format nested", "--write-pyc", "-T 5"):
        code, _, err = line(f"{option} status")
        assert (code, "[option-unknown]" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "id", "said"),
    [
        ("help deploy-etdc", "task-unknown", "did you mean deploy-etcd"),
        ("help worker", "task-unknown", "did you mean workers"),
        ("help a b", "argument-unexpected", "help takes one TASK or GROUP"),
        ("--help \x1b[2J", "task-unknown", "no task is called"),
        ("upgrade", "task-unknown", "did you mean upgrade-etcd or upgrade-workers"),
        ("restart", "task-unknown", "restart-workers"),
        ("deploy-etcd --dryrun", "option-unknown", "did you mean --dry-run?"),
        ("start-workers --unreachable", "option-unknown", "did you mean --allow-unreachable?"),
        ("deploy-etcd -V", "option-unknown", "deploy-etcd has no option '-V'"),
    ],
)
def test_did_you_mean(line: Line, words: str, id: str, said: str) -> None:
    code, out, err = line(words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.endswith(f"[{id}]\n")
    assert "\x1b" not in err


def test_under_invoke_the_word_help_says_what_to_type(line: Line) -> None:
    code, _, err = line("help move-leader", invoke)
    assert (code, err) == (2, "error: for help say invoke --help TASK [task-unknown]\n")


@pytest.mark.parametrize("option", ["-c x", "-r x", "-V", "-D 3", "-e", "-l", "--search-root=x"])
def test_behind_a_task_invoke_s_own_options_are_refused(line: Line, option: str) -> None:
    code, out, err = line(f"status {option} -i nope.yml", invoke)
    assert (code, out) == (2, "")
    assert err.startswith("error: status has no option '-")


def test_an_old_option_is_noted_once_by_both(line: Line) -> None:
    for program in (ours, invoke):
        code, _, err = line("move-leader --to infra1 -i nope.yml", program)
        assert code == 2
        assert err.count("note: move-leader --to is an old option") == 1
        assert "no such file" in err


@pytest.mark.process
def test_help_is_quick() -> None:
    """It imports nothing that a screen does not need."""
    show = "import sys; sys.argv = ['x', 'help']; import atexit;"
    show += "atexit.register(lambda: print({*sys.modules} & {'rich', 'pydantic', 'ruamel'}));"
    show += "from provision.cli.main import main; main()"
    env = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", show], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_values_are_of_parameters_that_are_there() -> None:
    parameters = {(n, a.name) for n in TASKS for a in namespace[n].get_arguments()}
    assert {*_OF_TASK} <= parameters
    assert {*_VALUES} <= {name for _, name in parameters}


def test_consent_is_not_completed() -> None:
    for task in TASKS:
        for argument in namespace[task].get_arguments():
            name = str(argument.name)
            if name.startswith("yes_") or name in ("other_clusters_unknown", "delete_data"):
                assert value_of(task, name).kind is Kind.NOTHING
