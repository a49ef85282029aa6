"""The words of a command line: arguments that may be left out, and old options."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from invoke.parser import Parser

from provision.cli import usage
from provision.cli.command import SHORT_FLAGS, Command, placeholder
from provision.cli.commands import namespace
from provision.cli.complete import inventory_in_force
from provision.cli.words import Line, understood
from provision.errors import UsageError
from provision.inventory import names

TASKS: dict[str, Command] = {name: namespace[name] for name in namespace.task_names}
#: A task, the way of the release before, and what it is now.
OLD = [
    ("add-member", "--name infra3", "infra3"),
    ("audit", "--host infra3", "infra3"),
    ("export-csrs", "--to requests", "requests"),
    ("init-inventory", "--path a.yml", "a.yml"),
    ("logs", "--host infra3", "infra3"),
    ("move-leader", "--to infra3", "infra3"),
    ("recover-etcd", "--from infra3", "infra3"),
    ("upgrade-etcd", "--to 3.6.16", "3.6.16"),
]
#: What a task is about, where it may be left out.
LEFT_OUT = {
    "add-member": "name",
    "audit": "name",
    "init-inventory": "path",
    "merge-reports": "files",
    **dict.fromkeys(
        (
            *("kept-data", "restart-workers", "rollback-workers", "rotate-certs", "start-masters"),
            *("start-workers", "status", "stop-masters", "stop-workers", "upgrade-workers"),
            "check-nodes",
        ),
        "limit",
    ),
}


def line(words: str, named: Sequence[str] = ()) -> Line:
    return understood(shlex.split(words), TASKS, lambda _: frozenset(named))


def values(words: str) -> list[dict[str, object]]:
    """What each task of a line is called with."""
    given = line(words).words
    contexts = Parser(usage.of_line(namespace, given).to_contexts()).parse_argv(given)
    return [dict(context.as_kwargs) for context in contexts]


def test_which_arguments_may_be_left_out() -> None:
    assert {name: task.word for name, task in TASKS.items() if task.word} == LEFT_OUT


@pytest.mark.long
@pytest.mark.parametrize(("task", "before", "now"), OLD)
def test_the_way_of_the_release_before(task: str, before: str, now: str) -> None:
    assert values(f"{task} {before}") == values(f"{task} {now}")
    (note,) = line(f"{task} {before}").notes
    assert note.startswith(
        f"{task} {before.split()[0]} is an old option, and a later release refuses"
    )
    assert line(f"{task} {now}").notes == []


def test_every_old_option_is_in_the_table() -> None:
    there = {(name, f"--{old}") for name, task in TASKS.items() for old in task.old}
    assert there == {(task, before.split()[0]) for task, before, _ in OLD}


def test_an_old_option_is_no_option_of_today() -> None:
    for name, task in TASKS.items():
        today = {a.name for a in task.get_arguments()} - {task.word}
        assert not today & {*task.old}, name


@pytest.mark.long
@pytest.mark.parametrize("task", [name for name, word in LEFT_OUT.items() if word == "limit"])
def test_names_are_as_the_value_of_limit(task: str) -> None:
    (given,) = values(f"{task} 'worker[1-3],!worker2'")
    assert given["limit"] == "worker[1-3],!worker2"
    assert values(f"{task} worker1 edge* -v") == values(f"{task} --limit 'worker1,edge*' -v")
    assert values(f"{task} -v worker1") == values(f"{task} --limit=worker1 -v")
    assert values(task)[0]["limit"] == ""


def test_the_next_task_is_no_name() -> None:
    both = values("restart-workers worker1 check-nodes")
    assert [given["limit"] for given in both] == ["worker1", ""]
    assert len(values("restart-workers check-nodes")) == 2
    assert len(values("stop-workers -n start-workers worker1")) == 2


def test_an_argument_that_must_be_there_may_have_the_name_of_a_task() -> None:
    (given,) = values("remove-member status")
    assert given["name"] == "status"
    one, other = values("move-leader --to status status")
    assert one["name"] == "status"
    assert "name" not in other


def test_the_value_of_an_option_is_no_name() -> None:
    (given,) = values("restart-workers -i a.yml --at-once 3 -f json -nv worker1")
    seen = [given[k] for k in ("inventory", "at_once", "format", "dry_run", "verbose", "limit")]
    assert seen == ["a.yml", "3", "json", True, True, "worker1"]
    (given,) = values("restart-workers -nf json -vi a.yml worker1")
    assert [given[k] for k in ("inventory", "format", "limit")] == ["a.yml", "json", "worker1"]


def test_help_behind_a_task_is_all_that_counts() -> None:
    """Also without the arguments that Invoke's parser would ask for."""
    for words, task in {
        "move-leader --help": "move-leader",
        "remove-member a -h": "remove-member",
        "status restart-workers worker1 -h nope --nope": "restart-workers",
    }.items():
        assert line(words) == Line([], [], task)
    assert line("status --limit --help").help == ""  # it is the value


@pytest.mark.parametrize(
    ("words", "id", "said"),
    [
        ("restart-workers ''", "argument-missing", "an empty NAMES"),
        ("audit ''", "argument-missing", "an empty NAME"),
        ("restart-workers chek-nodes", "task-unknown", "did you mean check-nodes?"),
        ("restart-workers worker1 --limit worker2", "option-invalid", "NAMES and --limit"),
        ("restart-workers --limit worker2 worker1", "option-invalid", "NAMES and --limit"),
    ],
)
def test_what_cannot_be_meant(words: str, id: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        line(words)
    assert refused.value.id == id


def test_a_task_that_is_a_name_too_is_asked_about() -> None:
    """Else all workers would be restarted, and not the one called audit."""
    with pytest.raises(UsageError, match="audit is a task, and a name in the inventory"):
        line("restart-workers audit", named=["audit"])
    assert line("restart-workers worker1 audit", named=["audit"]).words[-1] == "audit"
    assert line("restart-workers audit", named=["worker1"]).words[-1] == "audit"


def test_names_of_hosts_are_not_taken_for_mistyped_tasks() -> None:
    for name in ("worker1", "worker001", "etcd0", "infra0", "master1", "cache-node-7", "a"):
        assert values(f"status {name}")[0]["limit"] == name


def test_the_inventory_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROVISION_INVENTORY", raising=False)
    for words in ("status -i x.yml", "status -ix.yml", "status --inventory=x.yml -n"):
        assert inventory_in_force(words.split()) == "x.yml"
    assert inventory_in_force(["status"]) == "inventory/inventory.yml"
    monkeypatch.setenv("PROVISION_INVENTORY", "y.yml")
    assert inventory_in_force(["status"]) == "y.yml"
    file = tmp_path / "x.yml"
    file.write_text(
        "etcd: {members: {'a[1-2]': {host: 'h[1-2]'}}}\nalluxio: {workers: {audit: {host: w}}}\n"
    )
    assert usage.names_of(["status", "-i", str(file)]) == {"a1", "a2", "audit"}
    assert names.read(file).hosts == ("h1", "h2", "w")


@pytest.mark.parametrize("text", ["", "[", "a: [", "etcd: 3", "etcd: {members: [a]}", "\0"])
def test_an_inventory_that_cannot_be_read_has_no_names(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yml"
    file.write_text(text)
    assert names.read(file) == names.Names()
    assert names.read(tmp_path / "none.yml") == names.Names()
    assert names.read(tmp_path) == names.Names()


def test_names_that_a_shell_would_act_on_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "x.yml"
    file.write_text(
        'alluxio: {workers: {"$(touch x)": {host: "`id`"}, "-rf": {host: b}, ok: {host: c}}}\n'
    )
    assert names.read(file) == names.Names(workers=("ok",), hosts=("b", "c"))


def test_short_flags_are_the_same_everywhere() -> None:
    for name, task in TASKS.items():
        parameters = inspect.signature(task.body).parameters
        short = {a.name: a.names[1] for a in task.get_arguments() if len(a.names) > 1}
        assert short == {k: v for k, v in SHORT_FLAGS.items() if k in parameters}, name


def test_placeholders() -> None:
    assert [placeholder(n) for n in ("limit", "name", "from_")] == ["NAMES", "NAME", "FROM"]
