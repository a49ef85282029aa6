"""The scripts for shells have every task, and every option with what its value is.

tests/component/test_completion.py drives them in the shells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.cli import complete
from provision.cli.command import Command
from provision.cli.commands import namespace
from provision.cli.completion import SHELLS, script
from provision.cli.main import main
from provision.cli.values import Kind
from provision.ids import IDS

TASKS: dict[str, Command] = dict(namespace.tasks)


@pytest.fixture(scope="module", params=SHELLS)
def text(request: pytest.FixtureRequest) -> str:
    return script(request.param, TASKS)


def entries(text: str) -> Iterator[tuple[str, str]]:
    """The part of the script for each task."""
    for part in re.split(r"^ +(?:\(|case )(?=[a-z-]+\)?$)", text, flags=re.MULTILINE)[1:]:
        name, _, rest = part.partition("\n")
        yield name.rstrip(")"), rest


def test_it_is_whole(text: str) -> None:
    assert not re.findall(r"@[A-Z_]+@", text)
    assert " ".join(IDS) in text
    assert " ".join(TASKS) in text


def test_every_task_has_its_options(text: str) -> None:
    found = dict(entries(text))
    for name, task in TASKS.items():
        for argument in task.get_arguments():
            parameter = str(argument.name)
            if argument.positional or parameter == task.word != "limit":
                continue
            flag = f"--{argument.names[0]}"
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", found[name]), (name, flag)
            assert (f"{flag}=" in found[name]) == argument.takes_value, (name, flag)


def test_old_options_are_not_offered(text: str) -> None:
    found = dict(entries(text))
    for name, task in TASKS.items():
        for old in task.old:
            assert not re.search(rf"--{old}(?![\w-])", found[name]), (name, old)


def test_no_text_ends_a_quote(text: str) -> None:
    """Descriptions and ids stand in single quotes."""
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            assert line.count("'") % 2 == 0, line


def test_every_kind_of_names_is_answered(tmp_path: Path) -> None:
    file = tmp_path / "x.yml"
    file.write_text(
        "etcd: {members: {a: {host: h}}}\nalluxio: {masters: {m: {host: n}}, "
        "workers: {w1: {host: h}, w2: {host: h2}}}\n"
    )
    found = {kind: list(complete.candidates(kind.value, "", str(file))) for kind in Kind}
    assert {kind: names for kind, names in found.items() if names} == {
        Kind.MEMBERS: ["a"],
        Kind.MASTERS: ["m"],
        Kind.WORKERS: ["w1", "w2"],
        Kind.ROLES: ["a", "m", "w1", "w2"],
        Kind.HOSTS: ["a", "m", "w1", "w2", "h", "n", "h2"],
    }


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", ["w1", "w2"]),
        ("w2", ["w2"]),
        ("w2,", ["w2,w1"]),
        ("!", ["!w1", "!w2"]),
        ("*,!w", ["*,!w1", "*,!w2"]),
        ("w1,w2,", []),
        ("x", []),
    ],
)
def test_a_list(tmp_path: Path, value: str, found: list[str]) -> None:
    file = tmp_path / "x.yml"
    file.write_text("alluxio: {workers: {w1: {host: h}, w2: {host: h2}}}\n")
    assert list(complete.candidates("workers+", value, str(file))) == found


def test_words_are_read_as_the_shell_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a b.yml").write_text("alluxio: {workers: {w1: {host: h}}}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    for typed in (
        ["-i", "~/a\\ b.yml"],
        ["--inventory", '"$HOME/a b.yml"'],
        ["--inventory='~/a b.yml'"],
        ["-i", f"{tmp_path}/a' 'b.yml"],
    ):
        monkeypatch.setattr("sys.argv", ["x", complete.OPTION, "workers", "", *typed])
        main()
        assert capsys.readouterr().out == "w1\n", typed
    monkeypatch.setattr("sys.argv", ["x", complete.OPTION, "workers", "", "-i", '"~/a'])
    main()
    assert capsys.readouterr().out == ""
