"""Ansible inventories, read as Ansible itself reads them: see data/ansible/README.md."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.ansible import patterns
from provision.ansible.source import Findings, read
from provision.ansible.tree import Kind, Tree

DATA = Path(__file__).parent / "data" / "ansible"


def tree(path: Path) -> Tree:
    findings = Findings()
    found = read(path, findings)
    assert findings.all == ()
    return found


def problems(folder: Path, text: str, name: str = "hosts") -> list[str]:
    path = folder / name
    path.write_text(text)
    findings = Findings()
    read(path, findings)
    return [str(p).replace(f"{folder}/", "") for p in findings.all]


@pytest.mark.parametrize(("path", "answer"), [("ini/hosts", "ini"), ("yaml/hosts.yml", "yaml")])
class TestLikeAnsible:
    def test_every_hosts_variables(self, path: str, answer: str) -> None:
        expected: dict[str, Any] = json.loads((DATA / f"{answer}.json").read_text())
        found = tree(DATA / path).variables()
        hostvars = expected["_meta"]["hostvars"]
        assert set(found) >= set(hostvars)
        for host, variables in found.items():
            known = hostvars.get(host, {})
            assert set(variables) - {"ansible_group_priority"} == set(known), host
            for key, var in variables.items():
                if var.kind is Kind.TEXT and key in known:
                    assert var.text == str(known[key]), (host, key)

    def test_every_groups_hosts(self, path: str, answer: str) -> None:
        expected: dict[str, Any] = json.loads((DATA / f"{answer}.json").read_text())

        def members(group: str) -> list[str]:
            entry = expected[group]
            below = [host for child in entry.get("children", ()) for host in members(child)]
            return list(dict.fromkeys([*entry.get("hosts", ()), *below]))

        found = tree(DATA / path)
        for group in expected:
            if group not in ("_meta", "all"):
                assert sorted(found.members(group)) == sorted(members(group)), group


@pytest.mark.parametrize(
    ("pattern", "names", "port"),
    [
        ("a", ["a"], None),
        ("a:22", ["a"], 22),
        ("n[08:10]", ["n08", "n09", "n10"], None),
        ("n[1:7:3].x:22", ["n1.x", "n4.x", "n7.x"], 22),
        ("n[:2]", ["n0", "n1", "n2"], None),
        ("n[a:c]", ["na", "nb", "nc"], None),
        ("r[1:2]n[a:b]", ["r1na", "r1nb", "r2na", "r2nb"], None),
        ("fd00::1", ["fd00::1"], None),
        ("[fd00::1]:22", ["fd00::1"], 22),
        ("[fd00::1]", ["fd00::1"], None),
    ],
)
def test_patterns(pattern: str, names: list[str], port: int | None) -> None:
    assert patterns.expand(pattern) == (names, port)


@pytest.mark.parametrize(
    "pattern", ["n[3:1]", "n[01:100]", "n[1:c]", "n[1-3]", "n[", "n[1:9:0]", "n[1:99999999]", "a:b"]
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(patterns.PatternError):
        patterns.expand(pattern)


def test_everything_that_is_wrong_is_said_with_its_line(tmp_path: Path) -> None:
    text = "[etcd]\na b\nc[3:1]\n[x:odd]\n[y:vars]\nno\n[z:children]\nnobody\n'"
    assert problems(tmp_path, text) == [
        "hosts:2: 'b' is not a key=value pair of a host",
        "hosts:3: [3:1] runs backwards",
        "hosts:4: [x:odd] has an unknown kind (the kinds are children and vars)",
        "hosts:6: 'no' is not a key=value pair",
        "hosts:5: there is no group 'y' (add a section [y])",
        "hosts:8: there is no group 'nobody' (add a section [nobody])",
        "hosts:9: there is no group \"'\" (add a section ['])",
    ]


def test_everything_that_is_wrong_in_yaml(tmp_path: Path) -> None:
    text = "etcd:\n  hosts: [a]\n  host:\n    b:\n  children:\n    ? [1]\n    : 2\nx: 1\n"
    assert problems(tmp_path, text, "hosts.yml") == [
        "hosts.yml:2: the hosts of 'etcd' must be a mapping",
        "hosts.yml:3: 'host' is not a part of a group (the parts are hosts, children and vars)",
        "hosts.yml:6: a key must be text",
        "hosts.yml:8: the group 'x' must be a mapping",
    ]
    assert problems(tmp_path, "a: [", "hosts.yml")[0].startswith("hosts.yml:1: not YAML")


def test_groups_in_a_circle(tmp_path: Path) -> None:
    (said,) = problems(tmp_path, "[a:children]\nb\n[b:children]\na\n")
    assert "groups contain themselves: a > b > a" in said


COUNT = 5000


def nested(count: int, last: str = "h\n") -> str:
    """Each group is the only child of the one before; the last has the host ``h``."""
    links = [f"[g{n}:children]\ng{n + 1}\n" for n in range(count)]
    return "".join([*links, f"[g{count}]\n{last}"])


@pytest.mark.long
def test_groups_that_are_nested_deeper_than_calls_may_be(tmp_path: Path) -> None:
    text = nested(COUNT)
    text += "".join(f"[g{n}:vars]\na={n}\nb{n % 7}={n}\n" for n in range(COUNT))
    (tmp_path / "hosts").write_text(text)
    started = time.process_time()
    found = tree(tmp_path / "hosts")
    assert found.members("g0") == ["h"]
    assert found.variables()["h"]["a"].text == str(COUNT - 1)
    assert time.process_time() - started < 30


def chain(count: int) -> str:
    """Groups in groups, each with a variable, and as many hosts in the innermost."""
    return nested(count, f"h[1:{count}]\n") + values(count)


def ladder(count: int) -> str:
    """Each group is in the two before it, so there are as many ways as groups, and more."""
    rungs = [f"[g{n}:children]\ng{n + 1}\ng{n + 2}\n" for n in range(count)]
    return "".join([*rungs, f"[g{count}]\n[g{count + 1}]\nh\n", values(count)])


def values(count: int) -> str:
    return "".join(f"[g{n}:vars]\nansible_user=u{n}\nown{n}=x\n" for n in range(count))


@pytest.mark.parametrize("made", [chain, ladder])
def test_twice_as_many_groups_cost_twice_as_much(
    made: Callable[[int], str], tmp_path: Path
) -> None:
    few, many = (lines_run(tmp_path, made(count)) for count in (150, 600))
    assert many < 5 * few, (few, many)


def lines_run(folder: Path, text: str) -> int:
    """How many lines of Python run to find the login of every host."""
    (folder / "hosts").write_text(text)
    found, count = tree(folder / "hosts"), 0

    def trace(frame: object, event: str, arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        variables = found.variables({"ansible_user"})
    finally:
        sys.settrace(before)
    assert {v["ansible_user"].text for v in variables.values()} == {f"u{text.count('own') - 1}"}
    return count


def test_what_has_no_reasonable_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MAX_ALL", 500)
    assert problems(tmp_path, "h[1:100]\n" * 6)[-1].endswith("stand for more than 500 hosts")
    (said,) = problems(tmp_path, "h x=" + "y" * 20_000 + "\n")
    assert said.endswith("the line has more than 16384 characters")
    for name in ("hosts", "hosts.yml"):
        text = "x" * 1001 + "[1:9]"
        said = problems(
            tmp_path, f"etcd: {{hosts: {{'{text}': }}}}" if "." in name else text, name
        )[0]
        assert "a host's name has more than 1000 characters" in said


def test_a_long_circle_is_cut(tmp_path: Path) -> None:
    text = "".join(f"[g{n}:children]\ng{(n + 1) % COUNT}\n" for n in range(COUNT))
    (said,) = problems(tmp_path, text)
    assert "groups contain themselves: g0 > g1 > g2" in said
    assert said.endswith("> … > g4998 > g4999 > g0")
    assert len(said) < 200


def test_the_hosts_of_groups_come_in_their_order_and_once(tmp_path: Path) -> None:
    text = "[top:children]\nb\na\n[a:children]\nc\n[b:children]\nc\n[a]\nh1\n[b]\nh2\n[c]\nh3\nh1\n"
    (tmp_path / "hosts").write_text(text)
    assert tree(tmp_path / "hosts").members("top") == ["h2", "h3", "h1"]


@pytest.mark.long
def test_an_alias_bomb_ends(tmp_path: Path) -> None:
    lines = ["a0: &a0 {hosts: {h: }}"]
    for n in range(1, 30):
        below = ", ".join(f"g{n}x{i}: *a{n - 1}" for i in range(9))
        lines.append(f"a{n}: &a{n} {{children: {{{below}}}}}")
    said = problems(tmp_path, "\n".join(lines), "hosts.yml")
    assert any("without bounds" in one for one in said)


def test_vaults_and_templates_are_known_as_such(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("h a={{x}}\n")
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars" / "h.yml").write_text(
        "b: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  33\nc: !unsafe '{{x}}'\nd:\ne: '{% x %}'\n"
    )
    found = tree(tmp_path / "hosts").variables()["h"]
    kinds = {key: var.kind for key, var in found.items()}
    template = Kind.TEMPLATE
    assert kinds == dict(a=template, b=Kind.VAULT, c=Kind.TEXT, d=Kind.NONE, e=template)
    assert found["e"].where == f"{tmp_path}/host_vars/h.yml:6"
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all").write_text("$ANSIBLE_VAULT;1.1;AES256\n33\n")
    (said,) = problems(tmp_path, "h\n")
    assert "group_vars/all:1: encrypted with ansible-vault" in said
