"""tests/remedies.py leaves no id and no command out, and what it points at is there."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from pathlib import Path

import pytest
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser import Parser

from provision.cli.commands import namespace
from provision.cli.explain import page
from provision.cli.words import understood
from provision.ids import IDS
from tests import named_commands, recording
from tests.recording import Event, Met, Ran
from tests.remedies import REMEDIES, NoRow, Row, missing, ran

TESTS = Path(__file__).parents[1]
ROWS = {id: row for id, row in REMEDIES.items() if isinstance(row, Row)}


def changes(command: str) -> bool:
    """Whether a command changes a host, etcd, or files."""
    task, *options = command.split()
    return "dry_run" in inspect.signature(namespace[task].body).parameters and (
        "--dry-run" not in options
    )


def test_every_id_has_its_row_or_its_reason() -> None:
    assert list(REMEDIES) == list(IDS)
    assert [id for id, row in REMEDIES.items() if isinstance(row, NoRow) and not row.why] == []


@pytest.mark.long
@pytest.mark.parametrize("id", ROWS)
def test_every_command_that_is_named_is_in_the_row(id: str) -> None:
    row = ROWS[id]
    run = {command for commands in row.heals.values() for command in commands}
    assert named_commands.named()[id] - run - set(row.named) == set()
    assert bool(row.end) == bool(row.heals)
    assert row.heals or row.why, "nothing is tried, and no reason is given"
    untried = [c for c in row.named if changes(c) and c not in run]
    assert not untried or row.why, f"no test runs {untried}, and no reason is given"


@pytest.mark.long
def test_every_command_of_a_text_belongs_to_an_id() -> None:
    assert named_commands.unattributed() == []


@pytest.mark.long
@pytest.mark.parametrize("id", IDS)
def test_every_command_exists_with_its_options(id: str) -> None:
    row = REMEDIES[id]
    commands = set(named_commands.named()[id])
    if isinstance(row, Row):
        commands |= {*row.named, *(c for some in row.heals.values() for c in some)}
    for command in commands:
        task, *flags = command.split()
        known = named_commands.options(task)
        assert {f.removeprefix("--").removeprefix("no-") for f in flags} <= {
            k.removeprefix("no-") for k in known
        }, command


def _lines() -> list[tuple[str, str]]:
    """The command lines of the pages' remedies that are this program's."""
    found: list[tuple[str, str]] = []
    for id in IDS:
        text = page(id).text
        for line in re.findall(r"^\$ (?:\.venv/bin/)?invoke (.*)$", text, re.MULTILINE):
            bare = re.split(r"\s+#|\s+[|>]", line)[0]
            found.append((id, bare))
    return found


@functools.cache
def _parser() -> Parser:
    return Parser(contexts=namespace.to_contexts())


@pytest.mark.long
@pytest.mark.parametrize(("id", "line"), _lines())
def test_a_line_of_a_page_is_one_that_the_program_takes(id: str, line: str) -> None:
    words, notes, _ = understood(line.split(), namespace.tasks, lambda _: frozenset())
    (context,) = _parser().parse_argv(words)
    assert notes == []
    assert context.name == line.split()[0]
    assert context.missing_positional_args == []


@functools.cache
def _functions(path: Path) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    found[f"{node.name}::{inner.name}"] = inner
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = node
    return found


@pytest.mark.long
@pytest.mark.parametrize("id", ROWS)
def test_the_tests_of_a_row_are_there(id: str) -> None:
    row = ROWS[id]
    for test in {row.raised, *row.heals}:
        file, _, name = test.partition("::")
        function = _functions(TESTS / file).get(name.partition("[")[0])
        assert function is not None, test
        if "[" in name:
            assert "parametrize" in "".join(map(ast.unparse, function.decorator_list)), test
        # A test that no target of the Makefile starts shows nothing.
        assert file.partition("/")[0] in ("unit", "component", "integration")


class TestWhatATestDid:
    """The check that goes with every test of the table."""

    def test_all_of_it(self) -> None:
        test = "integration/test_worker_life.py::test_decommissioned"
        events: list[Event] = []
        assert missing(f"tests/{test}", events) != []
        for id, row in ROWS.items():
            if row.raised == test:
                events.append(Met(id))
        commands = [c for row in ROWS.values() for c in row.heals.get(test, ())]
        assert commands
        events += [Ran(tuple(c.split()), 0) for c in commands]
        assert missing(f"tests/{test}", events) == []
        failed = [Ran(e.words, 1) if isinstance(e, Ran) else e for e in events]
        assert len(missing(f"tests/{test}", failed)) == len(commands)
        before = sorted(events, key=lambda e: isinstance(e, Met))
        assert missing(f"tests/{test}", before) != []

    def test_options_in_any_order_and_more_of_them(self) -> None:
        words = ("recover-etcd", "--inventory", "x", "--from=a", "--cluster-id", "1")
        assert ran("recover-etcd --cluster-id", Ran(words, 0))
        assert not ran("recover-etcd --cluster-id", Ran(words, 4))
        assert not ran("recover-etcd --dry-run", Ran(words, 0))

    def test_errors_are_seen_as_they_are_made_and_as_they_are_printed(self) -> None:
        with recording.recording() as events:
            recording.ran(["deploy-etcd"], 3, "error: x [locked]\n  - y [not-an-id]\n")
            recording.ran(["status"], 1, '{"id": "member-down"}')
        assert events == [
            *(Met("locked"), Ran(("deploy-etcd",), 3)),
            *(Met("member-down"), Ran(("status",), 1)),
        ]


@pytest.mark.parametrize("task", [n for n in namespace.task_names if namespace[n].positional])
def test_a_command_without_its_argument(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    body = namespace[task].body
    defaults = {n: p.default for n, p in inspect.signature(body).parameters.items() if n != "c"}
    (argument,) = (n for n, default in defaults.items() if default is inspect.Parameter.empty)
    with pytest.raises(Exit) as refused:
        body(Context(), **{**defaults, argument: ""})
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert said.endswith(" [argument-missing]\n")
    assert f"invoke {task} {argument.upper()}" in said
