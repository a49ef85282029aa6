"""All that is said of an inventory, whole, in one file to read: data/inventory-sentences.txt.

It is made anew by ``python -m tests.unit.test_inventory_sentences``; its diff is what changes for
an operator.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.unit import test_inventory_external as external
from tests.unit import test_inventory_loader as loader
from tests.unit import test_kubernetes as kubernetes

SENTENCES = Path(__file__).parent / "data" / "inventory-sentences.txt"
Edits = list[tuple[str, str]]

_PLAIN = '"worker[1-4].example.com"}'
_ROOT = "alluxio.dora.client.ufs.root: s3://bucket/path, "
_LAST = "  namespace: data\n"


def _k(more: str) -> Edits:
    return [(_LAST, f"{_LAST}  {more}\n")]


def _own(key: str) -> Edits:
    return [(_PLAIN, f"{_PLAIN[:-1]}, {key}}}")]


KUBERNETES: dict[str, Edits] = {
    "chart without etcd": _k("etcd: {enabled: true}\n  chart: 0.7.0"),
    "size of no etcd": _k("etcd: {enabled: false, size: 4Gi}"),
    "replicas of no etcd": _k("etcd: {enabled: false, replicas: 3}"),
    "storage of no etcd": _k("etcd: {enabled: false, storage_class: fast}"),
    "even replicas": _k("etcd: {replicas: 4}"),
    "even members": [("    infra2: {host: infra2.example.com, address: 10.0.1.12}\n", "")],
    "release": _k("release: my-etcd"),
    "static": [("  heap: 2g", "  membership: STATIC\n  heap: 2g")],
    "service registry": [("  heap: 2g", "  membership: SERVICE_REGISTRY\n  heap: 2g")],
    "limit below": _k("worker: {limits: {memory: 4Gi}}"),
    "request below": _k("worker: {requests: {memory: 4Gi}}"),
    "just enough": _k("worker: {requests: {memory: 5Gi}, limits: {memory: 5Gi}}"),
    "request above limit": _k("worker: {requests: {memory: 7Gi}, limits: {memory: 6Gi}}"),
    "both below": _k("worker: {limits: {memory: 4Gi}, requests: {memory: 3Gi}}"),
    "a quote": _k("worker: {env: {A: 'a\"b'}}"),
    "one folder": _k("secrets: {a: /etc/s3, b: /etc/s3}"),
    "hidden files": _k("secrets: {a: /opt/alluxio/conf}"),
    "no data": [(_ROOT, "")],
    "own direct memory": _own("direct_memory: 9g"),
    "own pages": _own("page_store: {dirs: [/x], sizes: [1GB]}"),
    "own port": _own("rpc_port: 31000"),
    "own properties": _own("properties: {a: b}"),
    "own variables": _own("env: {A: b}"),
    "own heap": _own("heap: 9g"),
    "no alluxio": [(kubernetes.BASE[kubernetes.BASE.index("alluxio:") :], "kubernetes: {}\n")],
}
_ENDPOINT = "http://10.0.1.10:2379"
EXTERNAL: dict[str, Edits] = {
    "beside external": [("etcd:\n", "etcd:\n  version: 3.6.16\n  auth: {enabled: true}\n")],
    "TLS endpoint": [(_ENDPOINT, "https://10.0.1.10:2379")],
    "endpoint without port": [(_ENDPOINT, "http://10.0.1.10")],
    "endpoint with port beyond all": [(_ENDPOINT, "http://10.0.1.10:99999")],
    "endpoint twice": [(_ENDPOINT, "http://etcd2:12379")],
    "no endpoint": [(_ENDPOINT, "10.0.1.10:2379")],
}
#: Whole files, that end before they have begun or hold what no editor shows.
FILES: dict[str, bytes] = {
    "empty": b"",
    "a comment": b"# x\n\n",
    "null": b"~",
    "a list": b"\n- a",
    "text": b"  x",
    "end in the line": b"a: [",
    "end of the line": b"a: [\n",
    "end behind empty lines": b"\n\na: [\n\n\n",
    "end of nothing but a bracket": b"\n\n[",
    "no colon": b"a: b\nc\nd: e\n",
    "UTF-16": "a: b".encode("utf-16"),
    "not UTF-8": b"a: b\r\nc: \r  d: \xff",
    "not UTF-8 behind a mark": b"\xef\xbb\xbfa: \xff",
    "control characters": b"".join(b"a%d: \x01\n" % n for n in range(12)),
    "a merged list": b"<<: [{cluster: -a}, 3]\netcd: {<<: *x}",
    "a merged mapping": b"<<: {cluster: -a, parallel: 0}\ncluster: -b",
    "aliases": b"a: &a [1]\nb: *a\nc: {d: *a}\netcd: &e {members: *e}",
    "keys of all kinds": b"1: 2\n~: 3\n? [a]\n: 4\n? {b: c}\n: 5",
    "a key too many in the last line": b"a: b: c",
    "an anchor without a name": b"a: &",
    "aliases of nothing for a name and a number": b"cluster: *x\nparallel: *y",
    "depth": b"a: " + b"[" * 25 + b"]" * 25,
}
_LOADER = {
    name: case[0]
    for table in (loader.FIELDS, loader.RULES, loader.TEXTS)
    for name, case in table.items()
}
BASES = (
    ("inventory", loader.BASE, _LOADER),
    ("kubernetes", kubernetes.BASE, KUBERNETES),
    ("external etcd", external.BASE, EXTERNAL),
)


def said(path: Path, data: bytes) -> Iterable[str]:
    """Everything that is wrong, or a warning, without what differs between machines."""
    for problem in loader.findings(path, data):
        line = f"{problem.severity} {problem.line}".replace(f"{path}:", "").replace(
            str(path.parent), ""
        )
        yield line.replace(str(Path.home()), "~")


def sentences(folder: Path) -> str:
    lines: list[str] = []
    for title, base, cases in BASES:
        lines.append(f"== {title}")
        for name, edits in cases.items():
            text = base
            for old, new in edits:
                assert text.count(old) == 1, (name, old)
                text = text.replace(old, new)
            lines += [f"-- {name}", *said(folder / "lab.yml", text.encode())]
    lines.append("== files")
    for name, data in FILES.items():
        lines += [f"-- {name}", *said(folder / "lab.yml", data)]
    return "\n".join(lines) + "\n"


def test_every_sentence_is_the_committed_one(tmp_path: Path) -> None:
    assert sentences(tmp_path).splitlines() == SENTENCES.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        SENTENCES.write_text(sentences(Path(temporary)), encoding="utf-8")
