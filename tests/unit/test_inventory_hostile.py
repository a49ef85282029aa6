"""Whatever a file holds, loading ends in an inventory or in problems with places: no traceback."""

from __future__ import annotations

import copy
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from provision.errors import InventoryError
from provision.etcd.member import desired as etcd_desired
from provision.inventory import EXAMPLE, provenance, range_names, read
from provision.inventory.document import MAX_BYTES
from provision.inventory.model import EtcdTls
from provision.ssh.export import ssh_config
from provision.ssh.user_config import UserConfig
from tests.unit.hosts import TARBALL

PLACE = re.compile(r":([0-9]+):([0-9]+)$")


def accept_or_explain(path: Path, data: bytes) -> bool:
    """Loads ``data``; asserts that all its problems have places inside it."""
    path.write_bytes(data)
    try:
        found = read(path).warnings
        accepted = True
    except InventoryError as error:
        found = error.problems
        accepted = False
        assert any(problem.severity == "error" for problem in found)
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for problem in found:
        match = PLACE.search(problem.where)
        assert match is not None, problem
        line, column = int(match[1]), int(match[2])
        assert 1 <= line <= len(lines), problem
        assert 1 <= column <= len(lines[line - 1]) + 1, problem
        assert problem.what
        assert str(problem).isprintable(), problem
    return accepted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inventory.yml"


@given(data=st.binary(max_size=200))
def test_any_bytes(path: Path, data: bytes) -> None:
    accept_or_explain(path, data)


@given(text=st.text(max_size=200))
def test_any_text(path: Path, text: str) -> None:
    accept_or_explain(path, text.encode("utf-8", "surrogatepass"))


@given(text=st.text(alphabet="ab:[]{},-?&*!|>'\"%@#~ \n\t0\\<", max_size=80))
def test_any_punctuation(path: Path, text: str) -> None:
    accept_or_explain(path, text.encode())


words = st.sampled_from(re.findall(r"(?m)^[ #]*([a-z_]+):", EXAMPLE))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), words
)
structures = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(words, scalars), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(data=st.dictionaries(words, structures, max_size=4))
def test_any_structure(path: Path, data: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    YAML(typ="safe", pure=True).dump(data, buffer)
    accept_or_explain(path, buffer.getvalue())


# The example with all its commented keys turned on covers the whole model. What stands before the
# first key is no key, and a remark goes on after its first word.
COMMENTED = re.compile(
    r"""^( *)# (?= *[A-Za-z0-9_.\[\]-]+:( *$| +([\[{"][^#]*|[^ #]+)( +#.*)?$))""", re.MULTILINE
)
HEAD, FIRST, KEYS = EXAMPLE.partition("\ncluster:")
WHOLE = HEAD + COMMENTED.sub(r"\1", FIRST + KEYS)
LINES = WHOLE.split("\n")
VALUES = st.sampled_from(
    [
        *("", "~", "0", "-1", "99999999999999999999", "true", "on", "x", "[]", "{}", "[a, b]"),
        *("{a: b}", "'*'", "..", "/", "~root", "file:", "http://", "[::1]", "'w[1-3]'", "w[3-1]"),
        *("*a", "&a a"),
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    lines = list(draw(st.sampled_from([EXAMPLE.split("\n"), LINES])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["delete", "repeat", "swap", "value", "indent", "text"]))
        if kind == "delete" and len(lines) > 1:
            del lines[at]
        elif kind == "repeat":
            lines.insert(at, lines[at])
        elif kind == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "value" and ":" in lines[at]:
            lines[at] = lines[at].split(":")[0] + ": " + draw(VALUES)
        elif kind == "indent":
            lines[at] = "  " + lines[at]
        else:
            lines[at] += draw(st.text(max_size=5))
    return "\n".join(lines)


@given(text=mutated())
def test_any_mutation_of_the_example(path: Path, text: str) -> None:
    accept_or_explain(path, text.encode("utf-8", "surrogatepass"))


HOSTILE: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, {}, [], [[]], {"": {}}, True, -1, 10**30, float("nan"), float("inf")]),
    st.sampled_from(["\x1b[2J", "a\nb", "\u202e", "{{ 7*7 }}", "$(id)", "../..", "\x85", "\ufeff"]),
    st.dates(),
    st.binary(max_size=8),
    structures,
)


TREES = [YAML(typ="safe", pure=True).load(text) for text in (EXAMPLE, WHOLE)]


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """The whole example as a tree: keys and items dropped, renamed, given what is no value of
    theirs, and nested in one another."""
    root = copy.deepcopy(draw(st.sampled_from(TREES)))
    for _ in range(draw(st.integers(1, 4))):
        at: Any = root
        while isinstance(at, dict | list) and at:
            keys = sorted(at, key=str) if isinstance(at, dict) else list(range(len(at)))
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], dict | list) and at[key] and draw(st.integers(0, 3)):
                at = at[key]
                continue
            match draw(st.sampled_from(["drop", "value", "rename", "nest", "double"])):
                case "drop":
                    del at[key]
                case "rename" if isinstance(at, dict):
                    at[draw(words | st.text(max_size=8))] = at.pop(key)
                case "nest":
                    at[key] = {key: at[key]} if draw(st.booleans()) else [at[key]]
                case "double":
                    at[key] = [at[key]] * 2  # written as an anchor and its alias
                case _:
                    at[key] = copy.deepcopy(draw(HOSTILE))  # what is drawn stays as it is
            break
    buffer = io.BytesIO()
    YAML(typ="safe", pure=True).dump(root, buffer)
    return buffer.getvalue()


@pytest.mark.long
@given(data=changed())
def test_any_change_of_the_examples_tree(path: Path, data: bytes) -> None:
    if not accept_or_explain(path, data):
        return
    loaded = read(path)
    found = loaded.inventory
    assert provenance(loaded)
    tls = EtcdTls(peer=False)  # certificates are of what is in force, not of the inventory
    members = tuple(replace(m, peer_tls=False, client_tls=False) for m in found.etcd.members)
    etcd = replace(found.etcd, tls=tls, members=members)
    for member in members:
        etcd_desired.resources(etcd, member, TARBALL, None, None)
    ssh_config(found, UserConfig([]))


LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))


@pytest.mark.long
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a0: &a0 [lol]\n" + LAUGHS, id="billion laughs"),
        pytest.param(
            "a0: &a0 {b: lol}\n" + LAUGHS.replace("[", "{<<: [").replace("]", "]}"), id="merged"
        ),
        pytest.param("[" * 20_000, id="brackets"),
        pytest.param("{a: " * 100_000, id="braces"),
        pytest.param("- " * 100_000, id="dashes"),
        pytest.param("? " * 100_000, id="questions"),
        pytest.param("\n".join(" " * n + "a:" for n in range(1000)), id="stairs"),
        pytest.param('a: "\\UFFFFFFFF"', id="code point beyond all"),
        pytest.param("%YAML 1." + "1" * 6000 + "\n---\na: b", id="number beyond all"),
        pytest.param("%YAML 2.0\n---\na: b", id="later YAML"),
        pytest.param("!!python/object/apply:os.system [id]", id="tag"),
        pytest.param("", id="empty"),
        pytest.param("# only a comment\n\n", id="comment"),
        pytest.param("---\n...\n", id="empty document"),
        pytest.param("- a\n- b\n", id="list"),
        pytest.param("text", id="text"),
        pytest.param("a: \u2028b\u0085: c", id="line ends of others"),
        pytest.param("1: 2\ntrue: 3\n~: 4\n? {a: b}\n: 5", id="keys of all kinds"),
        pytest.param("etcd: &e\n  members: *e", id="recursion"),
        pytest.param("<<: [{a: b}, c]\n<<: 1", id="merges"),
        pytest.param("etcd: {members: {'w[1-2999]': {}, 'w[1-2999,1]': {}}}", id="ranges"),
        pytest.param(f"cluster: {'a' * 1_000_000}", id="long"),
        pytest.param("\ufeff\ufeffa: b", id="two byte order marks"),
        pytest.param("*\U00018d09", id="a character that there is not"),
    ],
)
def test_refused_soon(path: Path, text: str) -> None:
    assert not accept_or_explain(path, text.encode())


def test_many_ranges_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_names, "MAX_ENTRIES", 1000)
    keys = "".join(f"    w[1-30,{n}]: {{}}\n" for n in range(40))
    assert not accept_or_explain(path, f"etcd:\n  members:\n{keys}".encode())


def test_size_is_bounded(path: Path) -> None:
    assert not accept_or_explain(path, b"#" * (MAX_BYTES + 1))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", "utf-32"])
def test_other_encodings(path: Path, encoding: str) -> None:
    assert not accept_or_explain(path, "cluster: Zürich".encode(encoding))


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte order mark"])
def test_line_ends(path: Path, line_end: str, mark: bytes) -> None:
    assert accept_or_explain(path, mark + EXAMPLE.replace("\n", line_end).encode())
