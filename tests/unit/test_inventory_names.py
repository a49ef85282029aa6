"""The names for a completion are the same by both readers, and usual inventories need no library.

What the light reader does not know, it leaves to the other one: it never guesses.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provision.inventory import document, names, plain, range_names
from provision.inventory.findings import Findings
from tests.unit import test_inventory_external as external
from tests.unit import test_inventory_loader as loader
from tests.unit.test_inventory_mutations import VALID, mutations
from tests.unit.test_inventory_sentences import BASES, FILES

ROOT = Path(__file__).parents[2]
#: Inventories as people write them.
USUAL = {
    "example": (ROOT / "inventory" / "example.yml").read_text(encoding="utf-8"),
    "lab": (ROOT / "inventory" / "lab.yml").read_text(encoding="utf-8"),
    "valid": VALID,
    "loader": loader.BASE,
    "external": external.BASE,
    "a list below its key": "other_clusters:\n- a\n-  b # c\nalluxio: {workers: {w1: {host: h}}}\n",
    "a deeper list": "x:\n  y:\n    - 'a b'\n    - {c: [d, \"e\"]} # f\n  z: 1\n",
    "a document's start": "\n# a\n---\n# b\nc:\n  d: e\n",
    "comments": "# ä\n\na: # b\n   # c\n\n  d: e#f # g\n  #h\n  i: '#'\nj: k\n",
    "text": "a: -Xmx1g -Xms1g\nb: s3://c/d\ne f: g  h\n'i': j\n\"k: l\": ''\nm: ~\nn:\no: ./p\n",
    "flow": "a: {b: {c: d, \"e\": 'f'}, g: [h, [], {}], i: http://j:1/k}\nl: [ m , n o ]  # p\n",
    "ranges": "etcd:\n members:\n  a[1-2]: {host: 'h[1-2]'}\n  b[3,5]:\n   host: c[09-10].d\n",
}
#: Valid or not: what only the other reader may answer.
OTHER = {
    "two documents": "---\na: b\n---\nc: d\n",
    "a start twice": "---\n---\na: b\n",
    "a start behind a key": "a: b\n---\n",
    "an anchor": "a: &b {c: d}\n",
    "an alias": "a: *b\n",
    "a merge": "a:\n  <<: {b: c}\n",
    "a merge in flow": "a: {<<: {b: c}}\n",
    "a tag": "a: !!str b\n",
    "an escape": 'a: "\\u0041"\n',
    "a quote in a quote": "a: 'b''c'\n",
    "text over lines": "a: b\n  c\n",
    "quotes over lines": "a: 'b\n  c'\n",
    "a block of text": "a: |\n  b\n",
    "flow over lines": "a: {b: c,\n  d: e}\n",
    "a key over lines": "? a\n: b\n",
    "a tab": "a:\tb\n",
    "line ends of Windows": "a: b\r\n",
    "a byte order mark": "\ufeffa: b\n",
    "a document's start in the line": "--- a: b\n",
    "a document's end": "a: b\n...\n",
    "a document's end in the line": "a: b\n... c: d\n",
    "a directive": "%YAML 1.2\n---\na: b\n",
    "twice": "a: b\na: c\n",
    "twice in flow": "a: {b: c, b: d}\n",
    "a key too many": "a: b: c\n",
    "a value and a block": "a: b\n  c: d\n",
    "indented otherwise": "a:\n    b: c\n  d: e\n",
    "indented from the start": " a: b\n",
    "no colon": "a\n",
    "no value in flow": "a: {b}\n",
    "a comma at the end": "a: [b,]\n",
    "never closed": "a: [b\n",
    "closed otherwise": "a: [b}\n",
    "behind the end": "a: [b] c\n",
    "behind a quote": "a: 'b' c\n",
    "a list at the top": "- a\n",
    "a list of mappings": "a:\n  - b: c\n",
    "a list in a list": "a:\n  - - b\n",
    "a key in a list": "a:\n  - b\n  c: d\n",
    "a list behind a value": "a: b\n- c\n",
    "depth": "a: " + "[" * 15 + "]" * 15 + "\n",
    "a long key": "a" * 2000 + ": b\n",
    "nothing": "# a\n",
}
#: Where names stand, in all ways of writing them.
PARTS = (
    *("etcd:\n", "alluxio:\n", "  members:\n", "  workers:\n", "  masters: {m: {host: n}}\n"),
    *("    a:\n", "    'b[1-2]': {host: \"h[1-2]\"}\n", "      host: c\n", "    w[1-3]:\n"),
    *("    a: {host: null}\n", "    a: [b]\n", "    w[2-1]: {}\n", "    c:\n      host: x[1\n"),
    *("- a\n", "  - b\n", "# c\n", "\n", "  x: y\n", "z: [1, {a: b}]\n", "...\n", "---\n", "\t"),
)
SIGNS = "ab1 :#-?,[]{}&*!|>'\"%@`<.~/\\\n\t=\u00e9"


_composed = document.composed


def tree(node: document.Node) -> plain.Tree:
    """A document's text, as :mod:`provision.inventory.plain` has it."""
    if isinstance(node, document.Scalar):
        return node.text
    if isinstance(node, document.Sequence):
        return [tree(item) for item in node.items]
    return {key: tree(entry.value) for key, entry in node.entries.items()}


def placed(node: document.Node) -> object:
    """A document with every place, in order. A value that is not there has none of its own:
    ruamel.yaml gives it that of whatever follows, and problems name its key."""
    if isinstance(node, document.Scalar):
        return "" if node.plain and not node.text else tuple(node)
    if isinstance(node, document.Sequence):
        return [placed(item) for item in node.items], node.mark
    return [(e.key, placed(e.value)) for e in node.entries.values()], node.mark


def check(data: bytes) -> bool:
    """Asserts that both readers agree, also on every place; whether the light one answers."""
    parsed: list[tuple[document.Mapping | None, bool]] = []

    def composed(data: bytes, findings: Findings) -> document.Mapping | None:
        root = _composed(data, findings)
        parsed.append((root, bool(findings.errors)))
        return root

    # Parsing takes nearly all of the time: it is done once for both comparisons.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "composed", composed)
        any_names = names.in_any(data)
    ((root, is_wrong),) = parsed
    read = plain.parse(data)
    if read is not None:
        assert not is_wrong
        assert root is not None
        assert tree(root) == read
        lightly = document.parse(data, Findings(""))
        assert lightly is not None
        assert placed(lightly) == placed(root)
    found = names.in_plain(data)
    assert found in (None, any_names)
    return found is not None


@pytest.mark.parametrize("text", USUAL.values(), ids=USUAL)
def test_usual_inventories_are_read_lightly(text: str) -> None:
    assert check(text.encode())


def test_every_sign_of_a_usual_inventory_counts() -> None:
    assert names.in_plain(USUAL["valid"].encode()) == names.Names(
        members=("infra0", "infra1", "infra2"),
        workers=("worker001", "worker002", "worker003"),
        hosts=(
            *("infra0.example.com", "infra1.example.com", "infra2.example.com"),
            *("worker001.example.com", "worker002.example.com", "worker003.example.com"),
        ),
    )


@pytest.mark.parametrize("text", OTHER.values(), ids=OTHER)
def test_the_rest_is_left_to_the_other_reader(text: str) -> None:
    assert plain.parse(text.encode()) is None


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_files_without_an_inventory(data: bytes) -> None:
    check(data)


def test_the_inventories_of_the_other_tests() -> None:
    texts = [text for _, text in mutations()]
    for _, base, cases in BASES:
        for edits in cases.values():
            text = base
            for old, new in edits:
                text = text.replace(old, new)
            texts.append(text)
    lightly = [check(text.encode()) for text in texts]
    assert lightly.count(True) > len(texts) / 2


@pytest.mark.parametrize(
    "text",
    [
        "{a[1-2]: {host: h}}",
        "{'a[1-2]': {host: h}}",
        "{'a[2-1]': {host: h}}",
        "{a: {host: 'h[1-2]'}}",
        "{a: {host: 'h['}}",
        "{a1: {host: x}, 'a[1-2]': {host: 'h[1-2]'}}",
        "{'a[1-2]': {host: 'h[1-2]'}, a2: {host: x}}",
    ],
)
def test_ranges_with_a_mistake_are_left_to_the_other_reader(text: str) -> None:
    assert not check(f"alluxio: {{workers: {text}}}\n".encode())


def test_too_many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_names, "MAX_ENTRIES", 3)
    monkeypatch.setattr(names, "MAX_ENTRIES", 3)
    assert check(b"alluxio: {workers: {'a[1-3]': {}}}\n")
    assert not check(b"alluxio: {workers: {'a[1-3]': {}, b: {}}}\n")


def test_a_file_that_is_too_large_has_no_names(tmp_path: Path) -> None:
    file = tmp_path / "x.yml"
    text = b"alluxio: {workers: {w: {host: h}}}\n"
    file.write_bytes(text.ljust(document.MAX_BYTES, b"\n"))
    assert names.read(file).all == ("w", "h")
    file.write_bytes(text.ljust(document.MAX_BYTES + 1, b"\n"))
    assert names.read(file) == names.Names()


@given(parts=st.lists(st.sampled_from(PARTS), max_size=12))
def test_parts_in_any_order(parts: list[str]) -> None:
    check("".join(parts).encode())


@given(text=st.text(alphabet=SIGNS, max_size=24))
@example("a: b\n--- c: d")
@example("a: {b: c:}")
def test_any_signs(text: str) -> None:
    check(text.encode())
    check(f"a: {text}".encode())
    check(f"a: {{b: {text}}}".encode())
    check(f"a:\n  - {text}\n".encode())


@given(at=st.integers(0, len(VALID)), drop=st.integers(0, 3), text=st.text(SIGNS, max_size=4))
def test_a_slip_anywhere(at: int, drop: int, text: str) -> None:
    check((VALID[:at] + text + VALID[at + drop :]).encode())
