"""The list of functions that decide is complete, and mutants that change only words are known."""

import ast
from collections import Counter

import pytest

from tests.mutants import changes, decisions, results, survivors, typed

ORIGINAL = """
def gate(seen, sparing=()):
    kinds = sorted(seen.alarms - set(sparing))
    if "CORRUPT" in kinds or len(kinds) > 1:
        raise Unhealthy(f"{len(kinds)} alarms", seen.problems, id="alarm-raised")
    what = f"{kinds[0]} is raised"
    return Step("check the alarms", calls=(settle(kinds, standing=("NOSPACE",)),), after=what)
"""


@pytest.mark.long
def test_every_function_that_mutmut_can_change_is_in_the_list_once() -> None:
    listed = [function for function, _ in decisions.listed()]

    assert sorted(listed, key=repr) == sorted(decisions.present(), key=repr)


def test_the_list_knows_why() -> None:
    with pytest.raises(ValueError, match="not a line"):
        decisions.listed("plans/destroy.py\n  because: destroy\n")


def test_a_method_s_mutants_are_named_as_mutmut_names_them() -> None:
    function = decisions.Function("plans/etcd/upgrade_etcd.py", "Steps.roll")

    assert function.mangled == "provision.plans.etcd.upgrade_etcd.xǁStepsǁroll"


@pytest.mark.parametrize(
    ("old", "new", "words", "shown"),
    [
        ("> 1", ">= 1", False, ("len(kinds) > 1", "len(kinds) >= 1")),
        (" - set", " + set", False, ("seen.alarms - set(sparing)", "seen.alarms + set(sparing)")),
        ('"CORRUPT"', '"corrupt"', False, ("'CORRUPT'", "'corrupt'")),
        ('("NOSPACE",)', '("nospace",)', False, ("'NOSPACE'", "'nospace'")),
        ('{len(kinds)} alarms"', '{len(kinds)} ALARMS"', True, None),
        ("seen.problems, id", "None, id", True, None),
        (', id="alarm-raised"', "", True, None),
        ('f"{kinds[0]} is raised"', "None", True, None),
        ("kinds[0]", "kinds[1]", True, None),
        ('Step("check the alarms"', "Step(None", True, None),
        ("after=what", "after=None", False, ("what", "None")),
        (", after=what", "", False, None),
        (" or len", " and len", False, None),
    ],
)
def test_words_are_told_from_decisions(
    old: str, new: str, words: bool, shown: tuple[str, str] | None
) -> None:
    assert ORIGINAL.count(old) == 1
    found = changes.change("gate", _function(ORIGINAL), _function(ORIGINAL.replace(old, new)))

    assert found.words is words
    if shown is not None:
        assert (found.old, found.new) == shown


@pytest.mark.long
def test_every_survivor_is_of_the_code_as_it_is_and_has_a_reason() -> None:
    deciding = {f for f, word in decisions.listed() if word in decisions.DECIDING}
    parts: dict[str, dict[str, set[str]]] = {}
    for survivor in survivors.listed():
        assert survivor.why, survivor.line
        function = decisions.Function(survivor.module, survivor.function)
        assert function in deciding, survivor.line
        if survivor.module not in parts:
            path = decisions.ROOT / "provision" / survivor.module
            parts[survivor.module] = _parts(ast.parse(path.read_text("utf-8")))
        here = parts[survivor.module][survivor.function]
        assert {survivor.old, _as_python_here_writes(survivor.old)} & here, survivor.line


def test_the_reason_stands_above_its_survivors() -> None:
    found = survivors.listed(
        "# Two\n# lines.\nm.py f: a  ->  b\n\n# Another.\nm.py C.g: 1  ->  2\n"
    )

    assert [(s.function, s.old, s.new, s.why) for s in found] == [
        ("f", "a", "b", "Two lines."),
        ("C.g", "1", "2", "Another."),
    ]
    with pytest.raises(ValueError, match="not a line"):
        survivors.listed("m.py f: a\n")


def test_a_row_says_of_which_commit_it_is() -> None:
    """Rows of modules that were not measured stay as they are."""
    old = Counter({"refused by mypy": 3, "killed": 2, "survived": 1})
    new = Counter({"refused by mypy": 1, "killed": 1005, "timed out": 1, "survived": 1})
    rule = "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
    before = [results.row(f"`{n}`", old, "abc") for n in ("plans/destroy.py", "plans/gone.py")]
    page = "\n".join(["# x", "", results.HEAD, rule, *before, "", "The end."])

    page = results.with_rows(page, {"plans/clean_host.py": new}, "def")

    assert page.split("\n") == [
        *("# x", "", results.HEAD, rule),
        "| `plans/clean_host.py` | 1,008 | 1 | 1,006 | 1 | 0 | def |",
        "| `plans/destroy.py` | 6 | 3 | 2 | 1 | 0 | abc |",
        "| all | 1,014 | 4 | 1,008 | 2 | 0 |  |",
        *("", "The end."),
    ]
    assert results.with_rows(page, {}, "") == page
    assert "99.9 % of 1,008 are killed or refused, 99.9 % of the 1,007" in results.shares(new)
    with pytest.raises(ValueError, match="2 mutants were not run"):
        results.with_rows(page, {"plans/destroy.py": Counter({"not run": 2})}, "def")


def test_mypy_sees_the_mutants_that_count_where_they_are() -> None:
    text = "def x_f__mutmut_orig(): ...\ndef x_f__mutmut_1():\n    ...\ndef x_f__mutmut_2(): ...\n"
    lists = "mutants_x_f__mutmut['x_f__mutmut_1'] = x_f__mutmut_1 # type: ignore # mutmut generated"
    lean = typed._lean(f"{text}{lists}\n", "provision.m", {"provision.m.x_f__mutmut_2"})
    assert lean.split("\n") == [
        "def x_f__mutmut_orig(): ...",
        *("", "", "def x_f__mutmut_2(): ...", "", ""),
    ]


def _parts(tree: ast.Module) -> dict[str, set[str]]:
    """The text of every part of each function, as :mod:`tests.mutants.changes` shows it."""
    found: dict[str, set[str]] = {}
    for node in tree.body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for function in members:
            if isinstance(function, ast.FunctionDef):
                texts = (ast.unparse(n) for n in ast.walk(function))
                found[f"{owner}{function.name}"] = {" ".join(t.split()) for t in texts}
    return found


def _as_python_here_writes(part: str) -> str:
    """Each release of Python has its own quotes and parentheses in ``ast.unparse``."""
    try:
        return " ".join(ast.unparse(ast.parse(part)).split())
    except SyntaxError:  # a part such as an operator, or a statement of more than one line
        return part


def _function(text: str) -> ast.FunctionDef:
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    return node
