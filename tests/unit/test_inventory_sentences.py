"""All that is said of an inventory, whole, in one file to read: data/inventory-sentences.txt.

It is made anew by ``python -m tests.unit.test_inventory_sentences``; its diff is what changes for
an operator.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from provision.inventory import document
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
_MEMBERS, _WORKERS, _SSH = "  members:", "  workers:", "cluster: Main"
_ONE, _TWO = "{host: infra1.example.com, address: 10.0.1.11}", "worker2.example.com"
_FIRST, _NONE = "worker1.example.com", "tls: {plain_client_port: 2378, plain_client_address"


def _before(at: str, text: str) -> tuple[str, str]:
    return (at, f"{text}\n{at}")


def _after(at: str, text: str) -> tuple[str, str]:
    return (at, f"{at}\n{text}")


#: What :mod:`tests.unit.test_inventory_loader` has no case for: other places, other forms, and two
#: mistakes at once, of which the second is only the first one's consequence and so is not said.
MORE: dict[str, Edits] = {
    "two dots": [(_TWO, "worker2..example.com")],
    "doubled slash": [_before(_MEMBERS, "  data_dir: /data//x")],
    "a dot alone": [_before(_MEMBERS, "  data_dir: /data/./x")],
    "no path": [_after(_SSH, "ssh: {key: ''}")],
    "no path of sums": [("file:SUMS", "'file:'")],
    "a mapping in a list": [_after(_SSH, "other_clusters: [Second, {third: x}]")],
    "a cluster's name, beside others": [
        (_SSH, "cluster: -a\nother_clusters: [DefaultAlluxio]"),
    ],
    "a variable's name": [_before(_WORKERS, "  env: {1A: x}")],
    "two keys missing": [_before(_WORKERS, "  page_store: {}")],
    "a value of two kinds, beside others": [
        _before(_MEMBERS, "  settings: {a: [1]}\n  client_port: 0"),
        _before(_WORKERS, "  rpc_port: 0"),
    ],
    "a key that is there, known hosts that are not": [
        _after(_SSH, "ssh: {key: lab.yml, known_hosts: none}"),
    ],
    "a master's key": [
        _before(_WORKERS, "  masters: {m0: {host: m0.example.com, ssh: {key: none}}}"),
    ],
    "a master at loopback": [
        _before(_WORKERS, "  masters: {m0: {host: m0.example.com, hostname: localhost}}"),
    ],
    "a master on this host": [
        _before(_WORKERS, "  masters: {m0: {host: 127.0.0.1, hostname: localhost}}"),
    ],
    "all on two hosts": [
        ("    infra0: {host: infra0.example.com, address: 10.0.1.10}\n", ""),
        (f"    infra1: {_ONE}\n", ""),
        (f"    worker1:\n      host: {_FIRST}\n", ""),
        ("10.0.1.12", "127.0.0.1"),
    ],
    "all on one host": [
        ("    infra0: {host: infra0.example.com, address: 10.0.1.10}\n", ""),
        (f"    infra1: {_ONE}\n", ""),
        (f"    worker1:\n      host: {_FIRST}\n", ""),
        ("10.0.1.12", "127.0.0.1"),
        (_TWO, "infra2.example.com"),
    ],
    "members of one host, then of one address": [
        (_ONE, "{host: infra0.example.com, address: 10.0.1.11}"),
        ("10.0.1.12", "10.0.1.10"),
    ],
    "three members of one address": [("10.0.1.11", "10.0.1.10"), ("10.0.1.12", "10.0.1.10")],
    "a member's address, another's host": [(_ONE, "{host: 10.0.1.10}")],
    "a member's host, another's address": [
        ("{host: infra0.example.com, address: 10.0.1.10}", "{host: 10.0.1.11}"),
    ],
    "a member's broken address, another's host": [
        ("{host: infra0.example.com, address: 10.0.1.10}", "{host: 10.0.1.11, address: 10.0.1}"),
    ],
    "workers of one host, then of one name": [
        (_TWO, f"{_FIRST}\n    worker3: {{host: w3, hostname: {_FIRST}}}"),
    ],
    "a worker's name, another's host": [(_FIRST, f"w1\n      hostname: {_TWO}")],
    "a worker's names": [
        (_FIRST, "w1\n      hostname: w.example.com"),
        (_TWO, "w2\n      hostname: w.example.com"),
    ],
    "a worker's broken name, another's": [
        (_FIRST, f"{_FIRST}\n      hostname: -w"),
        (_TWO, f"w2\n      hostname: {_FIRST}"),
    ],
    "ports at a name": [(_TWO, "w2\n      hostname: 10.0.1.11\n      rpc_port: 2379")],
    "ports at a host that is an address": [
        (_TWO, "10.0.1.11\n      hostname: w2\n      rpc_port: 2379"),
    ],
    "ports of the plain listener": [
        _before(_MEMBERS, "  tls: {client: true, plain_client_port: 29999}"),
        (_TWO, "infra1.example.com"),
    ],
    "a member's broken port": [
        (_ONE, _ONE.replace("}", ", client_port: 0}")),
        (_TWO, "infra1.example.com\n      rpc_port: 2379"),
    ],
    "two ways to a host, one of them broken": [
        (_ONE, _ONE.replace("}", ", ssh: {user: 'a b'}}")),
        (_TWO, "infra1.example.com\n      ssh: {user: admin}"),
    ],
    "one host in capitals": [(_TWO, "INFRA1.example.com")],
    "one host in capitals, and by other settings": [
        (_TWO, "INFRA1.example.com\n      ssh: {user: admin}"),
    ],
    "an IPv6 host of a member": [(_ONE, "{host: 'fd00::1'}")],
    "an IPv6 host, STATIC": [
        (_ONE, "{host: 'fd00::1'}"),
        _before(_WORKERS, "  membership: STATIC"),
    ],
    "a plain IPv6 address without TLS": [_before(_MEMBERS, f"  {_NONE}: '::1'}}")],
    "a plain IPv6 address": [
        _before(_MEMBERS, f"  {_NONE}: '::1'}}".replace("{", "{client: true, ")),
    ],
    "a plain IPv6 address without its port": [
        _before(_MEMBERS, "  tls: {client: true, plain_client_address: '::1'}"),
    ],
    "a list for a secret": [_before(_WORKERS, "  properties: {s3a.secretKey: [hunter2]}")],
    "a login with STATIC, broken": [
        _before(_WORKERS, "  membership: STATIC\n  etcd: {username: [a]}"),
    ],
    "a member's own data in the install folder": [
        (_ONE, _ONE.replace("}", ", data_dir: /opt/etcd/data}")),
    ],
    "data beside a broken install folder": [
        _before(_MEMBERS, "  install_dir: opt\n  data_dir: /opt/etcd/data"),
    ],
    "state in the install folder": [_before(_WORKERS, "  state_dir: /opt/alluxio/state")],
    "state beside a broken install folder": [
        _before(_WORKERS, "  install_dir: opt\n  state_dir: /opt/alluxio/state"),
    ],
    "the install folder in a broken one for state": [
        _before(_WORKERS, "  install_dir: /var/lib/alluxio/opt\n  state_dir: var"),
    ],
    "pages beside a broken install folder": [
        _before(
            _WORKERS, "  install_dir: opt\n  page_store: {dirs: [/opt/alluxio/p], sizes: [1g]}"
        ),
    ],
    "a worker's pages in the install folder": [
        (_TWO, f"{_TWO}\n      page_store: {{dirs: [/opt/alluxio/p], sizes: [1g]}}"),
    ],
    "pages around pages": [
        _before(_WORKERS, "  page_store: {dirs: [/a/b/c, /a/b], sizes: [1g, 1g]}"),
    ],
    "pages that are a list, and others": [
        _before(_WORKERS, "  page_store: {dirs: [[x], /a/b, /a/b], sizes: [1g, 1g, 1g]}"),
    ],
    "no workers": [
        (f"    worker1:\n      host: {_FIRST}\n    worker2:\n      host: {_TWO}\n", "    {}\n"),
    ],
    "workers that are a list": [
        (
            f"    worker1:\n      host: {_FIRST}\n    worker2:\n      host: {_TWO}\n",
            f"    - {_FIRST}\n    - {_TWO}\n",
        ),
    ],
}
_ENDPOINT = "http://10.0.1.10:2379"
EXTERNAL: dict[str, Edits] = {
    "beside external": [("etcd:\n", "etcd:\n  version: 3.6.16\n  auth: {enabled: true}\n")],
    "TLS endpoint": [(_ENDPOINT, "https://10.0.1.10:2379")],
    "endpoint without port": [(_ENDPOINT, "http://10.0.1.10")],
    "endpoint with port beyond all": [(_ENDPOINT, "http://10.0.1.10:99999")],
    "endpoint twice": [(_ENDPOINT, "http://etcd2:12379")],
    "no endpoint": [(_ENDPOINT, "10.0.1.10:2379")],
    "endpoint with an end": [(_ENDPOINT, f"{_ENDPOINT}/")],
    "endpoint with a path": [(_ENDPOINT, f"{_ENDPOINT}/v3")],
    "endpoint with a login": [(_ENDPOINT, "http://me:pass@10.0.1.10:2379")],
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
    "too large": b"#" * (document.MAX_BYTES + 1),
    "UTF-16": b"\xff\xfea\0",
    "UTF-16 the other way": b"\xfe\xff\0a",
    "line ends of Windows": b"cluster: -a\r\nparallel: 0\r\n",
    "end of a line that ends in spaces": b"a: [  \n",
    "end of a line that ends in a letter": b"a: [X\n",
    "beyond all characters": b'a: b\nc: "\\U00110000"',
    "an alias of nothing for a key": b"*x : 1",
    "deep keys": b"? " * 25 + b"a",
    "two merges": b"etcd: {<<: {install_dir: x}, <<: {data_dir: y}}",
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
    ("more of inventories", loader.BASE, MORE),
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


@pytest.mark.long
def test_every_sentence_is_the_committed_one(tmp_path: Path) -> None:
    assert sentences(tmp_path).splitlines() == SENTENCES.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        SENTENCES.write_text(sentences(Path(temporary)), encoding="utf-8")
