"""Loading: what a file means, and for everything wrong with one its message at its place."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from provision.errors import InventoryError, Problem
from provision.inventory import Inventory, document, load, prefix_conflicts, read
from provision.inventory.findings import Findings, Mark
from provision.inventory.model import (
    DEFAULT_ETCD_SETTINGS,
    EXPECTED,
    URL,
    InventoryFile,
    Secret,
    jump_hosts,
    version_tuple,
)

BASE = """\
cluster: Main
etcd:
  version: 3.6.16
  source: {package: true}
  members:
    infra0: {host: infra0.example.com, address: 10.0.1.10}
    infra1: {host: infra1.example.com, address: 10.0.1.11}
    infra2: {host: infra2.example.com, address: 10.0.1.12}
alluxio:
  version: 313
  source: {path: alluxio.tar.gz, sha256: file:SUMS}
  workers:
    worker1:
      host: worker1.example.com
    worker2:
      host: worker2.example.com
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    return tmp_path / "lab.yml"


def edited(*edits: tuple[str, str]) -> str:
    """BASE with each first text replaced by its second."""
    text = BASE
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the file"
        text = text.replace(old, new)
    return text


def loaded(path: Path, *edits: tuple[str, str]) -> Inventory:
    path.write_text(edited(*edits))
    return load(path)


def findings(path: Path, data: bytes) -> Sequence[Problem]:
    """All errors and warnings of an inventory that is ``data``."""
    path.write_bytes(data)
    try:
        return read(path).warnings
    except InventoryError as error:
        return error.problems


def problems(path: Path, text: str) -> list[Problem]:
    """:func:`findings`, with the file's name cut from their places."""
    return [
        Problem(
            problem.where.removeprefix(f"{path}:"),
            problem.what.replace(f"{path}:", ""),
            problem.remedy.replace(f"{path}:", ""),
            problem.severity,
            id="disk-full",
        )
        for problem in findings(path, text.encode())
    ]


# --- what a file means


def test_defaults_and_overrides(inventory: Path) -> None:
    result = loaded(
        inventory,
        ("10.0.1.12}", "10.0.1.12, client_port: 12379, settings: {log-level: debug}}"),
        ("  members:", "  data_dir: /data/etcd\n  settings: {log-level: warn}\n  members:"),
        ("worker2.example.com", "worker2.example.com\n      heap: 8g"),
    )
    infra0, _, infra2 = result.etcd.members
    assert (infra0.client_port, infra2.client_port) == (2379, 12379)
    assert infra0.data_dir == infra2.data_dir == "/data/etcd"
    assert infra0.settings == {**DEFAULT_ETCD_SETTINGS, "log-level": "warn"}
    assert infra2.settings == {**DEFAULT_ETCD_SETTINGS, "log-level": "debug"}
    assert result.alluxio is not None
    assert [w.heap for w in result.alluxio.workers] == ["4g", "8g"]
    assert result.alluxio.worker("worker1").hostname == "worker1.example.com"
    assert infra0.machine.where == f"{inventory}:8:5"
    assert result.etcd.token == "Main"


def test_text_stays_as_written(inventory: Path) -> None:
    result = loaded(
        inventory,
        ("version: 313", "version: 3.10"),
        ("host: worker1.example.com", "host: no"),
        ("  workers:", "  properties: {a.b: 1.10, a.c: true, a.d: 007}\n  workers:"),
    )
    assert result.alluxio is not None
    assert result.alluxio.version == "3.10"
    assert result.alluxio.workers[0].machine.host == "no"
    assert result.alluxio.workers[0].properties == {"a.b": "1.10", "a.c": "true", "a.d": "007"}


def test_settings_follow_yaml_1_2(inventory: Path) -> None:
    keys = ("max-wals", "pre-vote", "snapshot-count", "cors", "logger", "metrics", "log-level")
    given = ("1", "true", "1.5e3", '"1"', '"yes"', "0x1F", "1e400")
    settings = ", ".join(f"{k}: {v}" for k, v in zip(keys, given, strict=True))
    settings = f"{{{settings}, enable-pprof: FALSE}}"
    result = loaded(inventory, ("  members:", f"  settings: {settings}\n  members:"))
    values = result.etcd.members[0].settings
    expected = dict(zip(keys, (1, True, 1500.0, "1", "yes", "0x1F", "1e400"), strict=True))
    assert values == {**DEFAULT_ETCD_SETTINGS, **expected, "enable-pprof": False}
    assert type(values["pre-vote"]) is bool


def test_booleans_in_all_their_words(inventory: Path) -> None:
    result = loaded(inventory, ("  members:", "  tls: {peer: off}\n  members:"))
    assert not result.etcd.tls.peer


def test_a_key_without_a_value_is_not_given(inventory: Path) -> None:
    result = loaded(
        inventory,
        ("  members:", "  tls:\n  settings:\n  client_port: ~\n  members:"),
        ("cluster: Main", "cluster: Main\nssh:"),
    )
    assert result.etcd.tls.peer
    assert result.etcd.members[0].client_port == 2379


def test_paths_start_at_the_file(inventory: Path) -> None:
    (inventory.parent / "key").touch()
    result = loaded(inventory, ("cluster: Main", "cluster: Main\nssh: {key: key}"))
    assert result.machines[0].key == inventory.parent / "key"
    assert result.alluxio is not None
    assert result.alluxio.source.path == inventory.parent / "alluxio.tar.gz"
    assert result.alluxio.source.sha256 == f"file:{inventory.parent / 'SUMS'}"


def test_ranges_expand_together(inventory: Path) -> None:
    result = loaded(
        inventory,
        ("    worker1:\n      host: worker1.example.com\n", ""),
        ("worker2:\n", "worker[01-03]:\n"),
        ("worker2.example.com", "10.0.1.[21-23]\n      hostname: w[1-2,7].example.com"),
    )
    assert result.alluxio is not None
    assert [(w.name, w.machine.host, w.hostname) for w in result.alluxio.workers] == [
        ("worker01", "10.0.1.21", "w1.example.com"),
        ("worker02", "10.0.1.22", "w2.example.com"),
        ("worker03", "10.0.1.23", "w7.example.com"),
    ]


def test_anchors_and_merge_keys(inventory: Path) -> None:
    result = loaded(
        inventory,
        ("worker1:\n", "worker1: &big\n      heap: 9g\n"),
        ("worker2:\n", "worker2:\n      <<: *big\n"),
    )
    assert result.alluxio is not None
    assert [(w.machine.host, w.heap) for w in result.alluxio.workers] == [
        ("worker1.example.com", "9g"),
        ("worker2.example.com", "9g"),
    ]


def test_what_is_inherited_is_reported_at_both_places(inventory: Path) -> None:
    text = edited(
        ("worker1:\n", "worker1: &big\n      heap: much\n"),
        ("worker2:\n", "worker2:\n      <<: *big\n"),
    )
    (problem,) = problems(inventory, text)
    assert (problem.where, "; used at 17:11" in problem.what) == ("14:13", True)


def test_an_alias_that_is_used_often_names_a_few_places(inventory: Path) -> None:
    many = (f"    v{n}: {{host: v{n}, heap: {'*x' if n else '&x much'}}}\n" for n in range(9))
    (problem,) = problems(inventory, edited() + "".join(many))
    assert problem.where == "17:26"
    assert problem.what.endswith("; used at 18:26, 19:26, 20:26, 21:26 and 4 more places")


def test_hosts_that_an_alias_makes_alike_are_seen_at_both_places(inventory: Path) -> None:
    (problem,) = problems(inventory, edited() + "    v: &v {host: v.example.com}\n    w: *v\n")
    assert problem.where == "17:18"
    assert "'v' and 'w'" in problem.what
    assert problem.what.endswith("; used at 18:8")


def test_secrets_stay_references(inventory: Path) -> None:
    secrets = "{s3a.secretKey: {env: KEY}, s3a.accessKeyId: {file: id}}"
    result = loaded(inventory, ("  workers:", f"  secret_properties: {secrets}\n  workers:"))
    assert result.alluxio is not None
    assert result.alluxio.workers[0].secret_properties == {
        "s3a.secretKey": Secret(env="KEY"),
        "s3a.accessKeyId": Secret(file=inventory.parent / "id"),
    }


def test_a_secret_is_all_but_the_last_line_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text(" pässwordX \n\n", encoding="utf-8")
    assert Secret(file=file).reveal() == " pässwordX "
    file.write_text("X\n")
    assert Secret(file=file).reveal() == "X"
    monkeypatch.setenv("KEY", "x\n")
    assert Secret(env="KEY").reveal() == "x\n"
    with pytest.raises(LookupError, match=r"^environment variable NO_KEY is not set$"):
        Secret(env="NO_KEY").reveal()


def test_etcd_alone(inventory: Path) -> None:
    inventory.write_text(BASE[: BASE.index("alluxio:")])
    assert load(inventory).alluxio is None


# --- what is wrong with a file: (edits, place, severity, part of what, part of the remedy)

E, W = "error", "warning"
Case = tuple[list[tuple[str, str]], str, str, str, str]

FIELDS: dict[str, Case] = {
    "unknown key, near": (
        [("  members:", "  memebrs:")],
        *("5:3", E, "unknown key 'memebrs' in 'etcd'", "did you mean 'members'?"),
    ),
    "unknown key, far": (
        [("cluster: Main", "cluster: Main\nqqq: 1")],
        *("2:1", E, "unknown key 'qqq'", "known here: cluster, other_clusters"),
    ),
    "missing key": (
        [("  version: 3.6.16\n", "")],
        *("2:1", E, "'version' of 'etcd' is missing", "etcd release"),
    ),
    "missing host": (
        [("      host: worker2.example.com\n", "      heap: 1g\n")],
        *("15:5", E, "'host' of 'worker2' is missing", "Where SSH goes"),
    ),
    "host without value": (
        [("host: worker2.example.com", "host:")],
        *("16:7", E, "'host' of 'worker2' has no value", ""),
    ),
    "worker without value": (
        [("      host: worker2.example.com\n", "")],
        *("15:5", E, "'worker2' must be a mapping", "its keys: host"),
    ),
    "port too high": (
        [("  members:", "  client_port: 65536\n  members:")],
        *("5:16", E, "'client_port' must be at most 65535, not '65536'", ""),
    ),
    "port not a number": (
        [("  members:", "  client_port: http\n  members:")],
        *("5:16", E, "'client_port' must be a whole number, not 'http'", ""),
    ),
    "port beyond all numbers": (
        [("  members:", f"  client_port: {'9' * 5000}\n  members:")],
        *("5:16", E, "'client_port' must be a whole number, not '999", ""),
    ),
    "not a boolean": (
        [("{package: true}", "{package: perhaps}")],
        *("4:21", E, "'package' must be true or false, not 'perhaps'", ""),
    ),
    "bad name": (
        [("    worker2:", "    -worker2:")],
        *("15:5", E, "'-worker2' is not a name", ""),
    ),
    "name with a line end": (
        [("    worker2:", '    "worker2\\n":')],
        *("15:5", E, "the value spans lines", "one line"),
    ),
    "bad host": (
        [("worker2.example.com", "'worker2;reboot'")],
        *("16:13", E, "'host' must be a host name or an IP address, not 'worker2;reboot'", ""),
    ),
    "host with port": (
        [("worker2.example.com", "worker2:22")],
        *("16:13", E, "'worker2:22' is not an IPv6 address; ports have keys", ""),
    ),
    "not an address": (
        [("address: 10.0.1.11", "address: 10.0.1.311")],
        *("7:49", E, "'10.0.1.311' is not an IPv4 address", ""),
    ),
    "choice": (
        [("version: 313", "version: 313\n  membership: ETC")],
        *("11:15", E, "'membership' must be ETCD, STATIC or SERVICE_REGISTRY", "mean 'ETCD'?"),
    ),
    "list wanted": (
        [("cluster: Main", "cluster: Main\nother_clusters: Second")],
        *("2:17", E, "'other_clusters' must be a list", "[first, second]"),
    ),
    "mapping wanted": (
        [("{package: true}", "here")],
        *("4:11", E, "'source' must be a mapping", "its keys: path, url"),
    ),
    "mapping of whatever wanted": (
        [("version: 313", "version: 313\n  properties: 3")],
        *("11:15", E, "'properties' must be a mapping", "as in 'key: value'"),
    ),
    "number wanted": (
        [("cluster: Main", "cluster: Main\nssh: {connect_timeout: soon}")],
        *("2:24", E, "'connect_timeout' must be a number, not 'soon'", ""),
    ),
    "number that is none": (
        [("cluster: Main", "cluster: Main\nssh: {connect_timeout: .nan}")],
        *("2:24", E, "'connect_timeout' must be", ""),
    ),
    "empty list": (
        [("version: 313", "version: 313\n  page_store: {dirs: [], sizes: [1GB]}")],
        *("11:16", E, "'dirs' must be given at least one entry", ""),
    ),
    "choice of a list": (
        [("version: 313", "version: 313\n  membership: [ETCD]")],
        *("11:3", E, "'membership' must be ETCD, STATIC or SERVICE_REGISTRY", ""),
    ),
    "property without a value": (
        [("version: 313", "version: 313\n  properties: {a: }")],
        *("11:16", E, "'a' has no value", "give one, or remove the key"),
    ),
    "text wanted": (
        [("cluster: Main", "cluster: [Main]")],
        *("1:1", E, "'cluster' must be one value", ""),
    ),
    "source of two kinds": (
        [("{package: true}", "{package: true, path: x}")],
        *("4:3", E, "exactly one of 'path', 'url' or 'package: true'", ""),
    ),
    "source without digest": (
        [(", sha256: file:SUMS", "")],
        *("11:3", E, "needs its 'sha256'", ""),
    ),
    "bad digest": (
        [("file:SUMS", "abc")],
        *("11:42", E, "'sha256' must be 64 hex digits, or file:PATH", ""),
    ),
    "bad url": (
        [("path: alluxio.tar.gz", "url: ftp://x/y.tar.gz")],
        *("11:17", E, "'url' must be an http:// or https:// URL", ""),
    ),
    "url without host": (
        [("path: alluxio.tar.gz", "url: 'http:///y.tar.gz'")],
        *("11:17", E, "names no host", ""),
    ),
    "url with a broken address": (
        [("path: alluxio.tar.gz", "url: 'http://[::1/y.tar.gz'")],
        *("11:17", E, "is not a URL: Invalid IPv6 URL", ""),
    ),
    "url with bad port": (
        [("path: alluxio.tar.gz", "url: 'http://x:99999/y.tar.gz'")],
        *("11:17", E, "is not a URL: Port out of range", ""),
    ),
    "url with a login": (
        [("path: alluxio.tar.gz", "url: 'http://me:pass@x/y.tar.gz'")],
        *("11:17", E, "the URL holds a login; secrets must not be in the inventory", ""),
    ),
    "url without a file": (
        [("path: alluxio.tar.gz", "url: 'https://example.com/'")],
        *("11:17", E, "names no file", ""),
    ),
    "system folder": (
        [("  members:", "  data_dir: /var/lib\n  members:")],
        *("5:13", E, "'/var/lib' belongs to the system", ""),
    ),
    "folder with dots": (
        [("  members:", "  data_dir: /data/../etc\n  members:")],
        *("5:13", E, "must be written without '//', '.' and '..'", ""),
    ),
    "root": (
        [("  members:", "  user: root\n  members:")],
        *("5:9", E, "must not run as root", ""),
    ),
    "home of nobody": (
        [("path: alluxio.tar.gz", "path: ~nobody-at-all/x")],
        *("11:18", E, "no such user's home", ""),
    ),
    "jump host that is an option": (
        [("cluster: Main", "cluster: Main\nssh: {jump: -oProxyCommand=x}")],
        *("2:13", E, "'jump' must be a jump host", ""),
    ),
    "jump host of a bad port": (
        [("cluster: Main", "cluster: Main\nssh: {jump: 'a,b:99999'}")],
        *("2:13", E, "99999 is not a port", ""),
    ),
    "sudo's password given inline": (
        [("cluster: Main", "cluster: Main\nssh: {sudo_password: hunter2}")],
        *("2:22", E, "'sudo_password' is a secret: give it by reference", "{env: NAME}"),
    ),
    "sudo's password given twice": (
        [("cluster: Main", "cluster: Main\nssh: {sudo_password: {ask: true, env: A}}")],
        *("2:7", E, "exactly one of 'env', 'file' or 'ask: true'", ""),
    ),
    "an endpoint by IPv6": (
        [("address: 10.0.1.11", "address: 'fd00::1'")],
        *("7:49", E, "Alluxio's etcd client cannot use the IPv6 address fd00::1", "give a name"),
    ),
    "secret given inline": (
        [("  workers:", "  secret_properties: {s3a.secretKey: hunter2}\n  workers:")],
        *("12:38", E, "'s3a.secretKey' is a secret: give it by reference", "{env: NAME}"),
    ),
    "secret given twice": (
        [("  workers:", "  secret_properties: {k: {env: A, file: b}}\n  workers:")],
        *("12:23", E, "exactly one of 'env' or 'file'", ""),
    ),
    "sizes do not pair": (
        [("  workers:", "  page_store: {dirs: [/a/b, /c/d], sizes: [1GB]}\n  workers:")],
        *("12:3", E, "'page_store': 2 dirs but 1 size", ""),
    ),
    "size": (
        [("  workers:", "  heap: 4 gigs\n  workers:")],
        *("12:9", E, "'heap' must be a size such as 512m, 4g or 100GB, not '4 gigs'", ""),
    ),
    "size with a look-alike letter": (
        [("  workers:", "  heap: 4\u212a\n  workers:")],
        *("12:9", E, "'heap' must be a size", ""),
    ),
    "item of a list": (
        [("  workers:", "  java: {versions: [8, eleven]}\n  workers:")],
        *("12:24", E, "'versions' must be a whole number, not 'eleven'", ""),
    ),
    "version": (
        [("3.6.16", "v3.6")],
        *("3:12", E, "'version' must be a full etcd release such as 3.6.16, not 'v3.6'", ""),
    ),
}

RULES: dict[str, Case] = {
    "one member": (
        [
            ("    infra1: {host: infra1.example.com, address: 10.0.1.11}\n", ""),
            ("    infra2: {host: infra2.example.com, address: 10.0.1.12}\n", ""),
        ],
        *("5:3", W, "one member only", "use 3"),
    ),
    "even members": (
        [("    infra2: {host: infra2.example.com, address: 10.0.1.12}\n", "")],
        *("5:3", W, "2 members survive no more losses than 1", "odd number"),
    ),
    "many members": (
        [
            (
                "infra2: {host: infra2.example.com, address: 10.0.1.12}",
                'infra[2-8]: {host: "infra[2-8].example.com"}',
            )
        ],
        *("5:3", W, "9 members: every write waits", "use 3, 5 or 7"),
    ),
    "old etcd": (
        [("3.6.16", "3.3.27")],
        "3:12",
        E,
        "etcd 3.3.27 is too old",
        "use 3.5.32 or later",
    ),
    "etcd 2": ([("3.6.16", "2.3.8")], "3:12", E, "etcd 2.3.8 is too old", "use 3.5.32 or later"),
    "corrupting etcd": (
        [("3.6.16", "3.5.2")],
        *("3:12", E, "etcd 3.5.2: the data of members can", "allow_corrupting_version: true"),
    ),
    "corrupting etcd, allowed": (
        [("3.6.16", "3.5.0\n  allow_corrupting_version: true")],
        *("3:12", W, "3.5.0: the data of members can differ", "use 3.5.32 or later"),
    ),
    "member hosts": (
        [("infra1.example.com", "Infra0.example.com")],
        *("7:20", E, "'infra0' and 'infra1' are on the same host", "its own host"),
    ),
    "member addresses": (
        [("10.0.1.11", "10.0.1.10")],
        *("7:49", E, "both have 10.0.1.10 port 2379 (see 6:49)", "its own address"),
    ),
    "member ports": (
        [("  members:", "  client_port: 2380\n  members:")],
        *("5:16", E, "client_port and peer_port are both 2380", "a port each"),
    ),
    "quota of one member": (
        [("10.0.1.11}", "10.0.1.11, settings: {quota-backend-bytes: 9999999999}}")],
        *("7:92", W, "above 8 GiB", "take long"),
    ),
    "heartbeat of one member": (
        [("10.0.1.11}", "10.0.1.11, settings: {heartbeat-interval: 0}}")],
        *("7:91", E, "must be a whole number of milliseconds", ""),
    ),
    "heartbeats of one member": (
        [("10.0.1.11}", "10.0.1.11, settings: {heartbeat-interval: 500}}")],
        *("7:91", E, "below 5 heartbeat-intervals (500 ms each)", "2500 at least"),
    ),
    "compaction of one member": (
        [("10.0.1.11}", "10.0.1.11, settings: {auto-compaction-mode: never}}")],
        *("7:93", E, "is periodic or revision, not 'never'", ""),
    ),
    "checkpoints that are kept and not sent": (
        [
            (
                "10.0.1.11}",
                "10.0.1.11, settings: {experimental-enable-lease-checkpoint-persist: true}}",
            )
        ],
        *("7:117", E, "does not start with LeaseCheckpointPersist and without", "checkpoint: true"),
    ),
    "retention of one member": (
        [("10.0.1.11}", "10.0.1.11, settings: {auto-compaction-retention: long}}")],
        *("7:98", E, "is a duration such as 30m", ""),
    ),
    "revisions that are hours": (
        [
            (
                "  members:",
                "  settings: {auto-compaction-mode: revision, auto-compaction-retention: 2h}\n"
                "  members:",
            )
        ],
        *("5:73", E, "is a number of revisions, not '2h'", "such as 1000"),
    ),
    "sums in nobody's home": (
        [("file:SUMS", "file:~nobody-at-all/SUMS")],
        *("11:42", E, "there is no such user's home folder", ""),
    ),
    "revisions of one member": (
        [("10.0.1.11}", "10.0.1.11, settings: {auto-compaction-mode: revision}}")],
        *("7:93", E, "is a number of revisions, not '1h'", "such as 1000"),
    ),
    "two masters": (
        [
            (
                "  workers:",
                "  masters: {m0: {host: m0.example.com}, m1: {host: m1.example.com}}\n  workers:",
            )
        ],
        *("12:3", W, "2 masters survive no more losses than 1", "an odd number of masters"),
    ),
    "a journal folder that is not written out": (
        [
            (
                "  workers:",
                "  masters: {m0: {host: m0.example.com}}\n"
                "  properties: {alluxio.master.journal.folder: '${alluxio.work.dir}/j'}\n"
                "  workers:",
            )
        ],
        *("13:47", E, "is not an absolute path", "without ${...}"),
    ),
    "a journal folder as an option": (
        [
            (
                "  workers:",
                "  masters: {m0: {host: m0.example.com}}\n"
                "  env: {ALLUXIO_MASTER_JAVA_OPTS: '-Dalluxio.master.journal.folder=j'}\n"
                "  workers:",
            )
        ],
        *("13:35", E, "journal folder 'j'", "write the path out"),
    ),
    "a socket of each start": (
        [
            (
                "  workers:",
                "  properties:\n"
                "    alluxio.worker.network.netty.channel: EPOLL\n"
                "    alluxio.worker.data.server.domain.socket.address: /run/alluxio\n"
                "    alluxio.worker.data.server.domain.socket.as.uuid: true\n"
                "  workers:",
            )
        ],
        *("15:55", E, "a new path at each start", "SERVICE_REGISTRY"),
    ),
    "three masters of two hosts": (
        [
            (
                "  workers:",
                "  masters:\n    m0: {host: m0.example.com}\n    m1: {host: m1.example.com}\n"
                "    m2: {host: M0.example.com}\n  workers:",
            )
        ],
        *("15:16", E, "'m0'", "give each its own host"),
    ),
    "a worker's own word on masters": (
        [
            ("  workers:", "  masters: {m0: {host: m0.example.com}}\n  workers:"),
            ("worker2.example.com", "w2\n      properties: {alluxio.master.hostname: x}"),
        ],
        *("18:20", E, "'alluxio.master.hostname'", "use alluxio.masters"),
    ),
    "a member's key that is not there": (
        [("address: 10.0.1.11", "address: 10.0.1.11, ssh: {key: nowhere}")],
        *("7:71", E, "there is no file", ""),
    ),
    "a worker's known hosts that are not there": (
        [("worker2.example.com", "w2\n      ssh: {known_hosts: nowhere}")],
        *("17:26", W, "there is no file", "invoke trust-hosts makes it"),
    ),
    "a cluster named twice": (
        [("cluster: Main", "cluster: Main\nother_clusters: [Second, Second]")],
        *("2:26", E, "", ""),
    ),
    "authentication without root": (
        [("  members:", "  auth: {enabled: true}\n  members:")],
        *("5:19", E, "only if it has a user root", "give etcd.auth.root_password"),
    ),
    "workers without a login": (
        [("  members:", "  auth: {enabled: true, root_password: {env: R}}\n  members:")],
        *("5:19", E, "the workers cannot join without a login", "username and password"),
    ),
    "workers as root": (
        [
            ("  members:", "  auth: {enabled: false, root_password: {env: R}}\n  members:"),
            ("version: 313", "version: 313\n  etcd: {username: root, password: {env: P}}"),
        ],
        *(
            "12:20",
            E,
            "as etcd's user root, the workers would have every right",
            "a user of their own",
        ),
    ),
    "backups on a member that is not there": (
        [("  members:", "  backup: {member: nobody}\n  members:")],
        *("5:20", E, "there is no member 'nobody'", "one of infra0, infra1, infra2"),
    ),
    "plain address without TLS": (
        [("  members:", "  tls: {plain_client_address: '::1'}\n  members:")],
        *("5:31", W, "'plain_client_address' has no effect", "set client: true"),
    ),
    "TLS that is neither": (
        [("  members:", "  tls: {client: perhaps, plain_client_port: 2378}\n  members:")],
        *("5:17", E, "'client' must be true or false", ""),
    ),
    "external CA without a good bundle": (
        [("  members:", "  tls: {ca: external, ca_bundle: [a]}\n  members:")],
        *("5:23", E, "'ca_bundle' must be", ""),
    ),
    "a CA that is neither": (
        [("  members:", "  tls: {ca: mine, ca_bundle: root.pem}\n  members:")],
        *("5:13", E, "'ca' must be own or external", ""),
    ),
    "plain port": (
        [("  members:", "  tls: {client: true, plain_client_port: 2380}\n  members:")],
        *("5:42", E, "peer_port and tls.plain_client_port are both 2380", "a port each"),
    ),
    "client TLS": (
        [("  members:", "  tls: {client: true}\n  members:")],
        *("5:17", E, "Alluxio 313 has no property for TLS to etcd", "plain_client_port"),
    ),
    "external CA": (
        [("  members:", "  tls: {ca: external}\n  members:")],
        *(
            "5:13",
            E,
            "an external CA needs its root certificate in the inventory",
            "give etcd.tls.ca_bundle",
        ),
    ),
    "bundle of no CA": (
        [("  members:", "  tls: {ca_bundle: root.pem}\n  members:")],
        *("5:20", W, "'ca_bundle' has no effect", "set ca: external"),
    ),
    "compaction by revisions needs their number": (
        [("  members:", "  settings: {auto-compaction-mode: revision}\n  members:")],
        *("5:36", E, "is a number of revisions, not '1h'", "such as 1000"),
    ),
    "compaction by time": (
        [("  members:", "  settings: {auto-compaction-retention: often}\n  members:")],
        *("5:41", E, "is a duration such as 30m or 1h", ""),
    ),
    "compaction": (
        [("  members:", "  settings: {auto-compaction-mode: never}\n  members:")],
        *("5:36", E, "is periodic or revision, not 'never'", ""),
    ),
    "quota": (
        [("  members:", "  settings: {quota-backend-bytes: 8GB}\n  members:")],
        *("5:35", E, "must be a whole number of bytes", "8589934592"),
    ),
    "large quota": (
        [("  members:", "  settings: {quota-backend-bytes: 9000000000}\n  members:")],
        *("5:35", W, "above 8 GiB", "take long"),
    ),
    "plain port without TLS": (
        [("  members:", "  tls: {plain_client_port: 2378}\n  members:")],
        *("5:28", W, "'plain_client_port' has no effect", "remove it"),
    ),
    "plain address": (
        [
            (
                "  members:",
                "  tls: {client: 1, plain_client_port: 1, plain_client_address: '::1'}\n  members:",
            )
        ],
        *("5:64", W, "the workers get only the address '::1'", "leave it out"),
    ),
    "owned setting": (
        [("  members:", "  settings: {data-dir: /x}\n  members:")],
        *("5:14", E, "'data-dir' is set by this tool", "it comes from data_dir"),
    ),
    "owned setting of a member": (
        [("10.0.1.12}", "10.0.1.12, settings: {name: x}}")],
        *("8:71", E, "'name' is set by this tool", ""),
    ),
    "underscores": (
        [("  members:", "  settings: {quota_backend_bytes: 1}\n  members:")],
        *("5:14", E, "not a key of etcd.conf.yml", "write it as 'quota-backend-bytes'"),
    ),
    "misspelled setting": (
        [("  members:", "  settings: {heartbeet-interval: 200}\n  members:")],
        *("5:14", E, "is not a key of etcd.conf.yml: etcd would ignore it"),
        "did you mean 'heartbeat-interval'?",
    ),
    "misspelled setting of a member": (
        [("10.0.1.12}", "10.0.1.12, settings: {no-such-thing: 1}}")],
        *("8:71", E, "would ignore it", "etcd --help lists the keys"),
    ),
    "setting of another release": (
        [
            ("{package: true}", "{path: /dev/null, sha256: " + 64 * "0" + "}"),
            ("  members:", "  settings: {enable-v2: true}\n  members:"),
        ],
        *("5:14", E, "would ignore it", "etcd 3.4, 3.5 have it, but etcd 3.6 does not"),
    ),
    "words that YAML 1.1 had": (
        [
            (
                "  members:",
                "  settings: {log-level: y, cors: Yes, metrics: off}\n  members:",
            )
        ],
        *("5:48", W, "'metrics' is the text 'off', not a boolean", "write false"),
    ),
    "ports of one member": (
        [("address: 10.0.1.11", "address: 10.0.1.11, peer_port: 2379")],
        *("7:71", E, "client_port and peer_port are both 2379", "a port each"),
    ),
    "on": (
        [("  members:", "  settings: {pre-vote: on}\n  members:")],
        *("5:24", E, "'pre-vote' must be true or false: etcd would not start", "write true"),
    ),
    "a setting of another type": (
        [("  members:", "  settings: {snapshot-count: many}\n  members:")],
        *("5:30", E, "'snapshot-count' must be a whole number from 0", ""),
    ),
    "one stream for all": (
        [("  members:", "  settings: {max-concurrent-streams: '1'}\n  members:")],
        *("5:38", E, "'max-concurrent-streams' must be more than 1", "write 100"),
    ),
    "election": (
        [("  members:", "  settings: {heartbeat-interval: 300}\n  members:")],
        *("5:34", E, "below 5 heartbeat-intervals (300 ms each)", "1500 at least"),
    ),
    "election of a member": (
        [("10.0.1.12}", "10.0.1.12, settings: {election-timeout: 400}}")],
        *("8:89", E, "an election-timeout (400 ms)", "500 at least"),
    ),
    "long election": (
        [("  members:", "  settings: {election-timeout: 60000}\n  members:")],
        *("5:32", E, "above 50000 ms", ""),
    ),
    "election in words": (
        [("  members:", "  settings: {election-timeout: 1s}\n  members:")],
        *("5:32", E, "'election-timeout' must be a whole number of milliseconds", ""),
    ),
    "sans of every host": (
        [("10.0.1.12", "10.0.1.12, sans: [203.0.113.9, fe80::1]")],
        *("8:60", E, "'sans' of 'infra2': 'fe80::1' is an address of every host", "no other"),
    ),
    "sans without TLS": (
        [("  members:", "  tls: {peer: false}\n  members:"), ("1.12", "1.12, sans: [vip]")],
        *("9:60", W, "'sans' of 'infra2' has no effect: etcd has no TLS", "remove it"),
    ),
    "loopback": (
        [("10.0.1.12", "127.0.0.1")],
        *("8:49", E, "other hosts cannot reach 'infra2' at the loopback address", ""),
    ),
    "loopback hostname": (
        [("host: worker2.example.com", "host: worker2.example.com\n      hostname: localhost")],
        *("17:17", E, "clients cannot reach 'worker2' at the loopback name", ""),
    ),
    "worker hosts": (
        [("worker2.example.com", "worker1.example.com\n      rpc_port: 1")],
        *("16:13", E, "'worker1' and 'worker2' are on the same host", "one worker on each host"),
    ),
    "worker hostnames": (
        [("worker2.example.com", "w2\n      hostname: worker1.example.com")],
        *("17:17", E, "at worker1.example.com:29999 (see 14:13)", ""),
    ),
    "ports of a worker": (
        [("version: 313", "version: 313\n  rpc_port: 30000")],
        *("11:13", E, "rpc_port and alluxio.worker.web.port are both 30000", ""),
    ),
    "ports of a worker by the cluster's properties": (
        [("version: 313", "version: 313\n  properties: {alluxio.worker.web.port: 29999}")],
        *("11:41", E, "rpc_port and alluxio.worker.web.port are both 29999", ""),
    ),
    "ports on a machine": (
        [("worker2.example.com", "infra0.example.com\n      rpc_port: 2379")],
        *("17:17", E, "(rpc_port) and member 'infra0' (client_port) both use port 2379", ""),
    ),
    "ports at an address": (
        [("worker2.example.com", "10.0.1.11\n      properties: {alluxio.worker.web.port: 2380}")],
        *("17:45", E, "(alluxio.worker.web.port) and member 'infra1' (peer_port)", ""),
    ),
    "two ways to a host": (
        [("worker2.example.com", "infra0.example.com\n      ssh: {user: admin}")],
        *("17:7", E, "has other ssh settings than at 6:20", "the same ssh settings"),
    ),
    "Alluxio from a package": (
        [("{path: alluxio.tar.gz, sha256: file:SUMS}", "{package: true}")],
        *("11:21", E, "no distribution packages Alluxio", "path or url"),
    ),
    "login with STATIC": (
        [
            (
                "version: 313",
                "version: 313\n  membership: STATIC\n  etcd: {username: a, password: {env: P}}",
            )
        ],
        *("12:3", W, "'etcd' has no effect: with membership STATIC", "remove it"),
    ),
    "owned property": (
        [("version: 313", "version: 313\n  properties: {alluxio.cluster.name: x}")],
        *("11:16", E, "'alluxio.cluster.name' is set by this tool", "use cluster"),
    ),
    "owned secret property": (
        [("version: 313", "version: 313\n  secret_properties: {alluxio.etcd.password: {env: P}}")],
        *("11:23", E, "'alluxio.etcd.password' is set", "use alluxio.etcd.password"),
    ),
    "inline secret": (
        [("version: 313", "version: 313\n  properties: {s3a.secretKey: hunter2}")],
        *("11:16", E, "'s3a.secretKey' looks like a secret", "s3a.secretKey: {env: NAME}"),
    ),
    "inline secret in parts": (
        [("worker2.example.com", "worker2\n      properties: {fs.access.key: hunter2}")],
        *("17:20", E, "'fs.access.key' looks like a secret", "secret_properties"),
    ),
    "inline secret in env": (
        [("version: 313", "version: 313\n  env: {AWS_SECRET_ACCESS_KEY: hunter2}")],
        *("11:9", E, "'AWS_SECRET_ACCESS_KEY' looks like a secret", "secret_properties"),
    ),
    "property twice": (
        [
            (
                "version: 313",
                "version: 313\n  properties: {k: v}\n  secret_properties: {k: {env: P}}",
            )
        ],
        *("11:16", E, "'k' is under secret_properties as well", ""),
    ),
    "pages in the install folder": (
        [
            (
                "version: 313",
                "version: 313\n  page_store: {dirs: [/opt/alluxio/pages], sizes: [1GB]}",
            )
        ],
        *("11:23", W, "'/opt/alluxio/pages' and the install folder", "separate folders"),
    ),
    "page folder twice": (
        [("version: 313", "version: 313\n  page_store: {dirs: [/a/b, /a/b], sizes: [1g, 1g]}")],
        *("11:29", E, "'/a/b' is listed twice", ""),
    ),
    "page folders nested": (
        [("version: 313", "version: 313\n  page_store: {dirs: [/a/b, /a/b/c], sizes: [1g, 1g]}")],
        *("11:29", W, "contains another folder of the list, or is inside one", ""),
    ),
    "data in the install folder": (
        [("  members:", "  data_dir: /opt/etcd/data\n  members:")],
        *("5:13", W, "'/opt/etcd/data' and the install folder", ""),
    ),
    "configuration in a folder of etcd's user": (
        [("  members:", "  config_dir: /var/lib/etcd/conf\n  members:")],
        *("5:15", E, "'/var/lib/etcd/conf' is inside '/var/lib/etcd'", "outside it"),
    ),
    "a JDK in a folder of Alluxio's user": (
        [
            (
                "version: 313",
                "version: 313\n  java: {source: {path: j, sha256: " + "0" * 64 + "}, "
                "install_dir: /var/lib/alluxio/jdk}",
            )
        ],
        *("11:116", E, "'/var/lib/alluxio/jdk' is inside '/var/lib/alluxio'", "outside it"),
    ),
    "key file": (
        [("cluster: Main", "cluster: Main\nssh: {key: none}")],
        *("2:12", E, "key: there is no file '", "start at the inventory's folder"),
    ),
    "known hosts of a worker": (
        [("worker2.example.com", "worker2\n      ssh: {known_hosts: none}")],
        *("17:26", W, "known_hosts: there is no file", "invoke trust-hosts makes it"),
    ),
    "cluster names": (
        [("cluster: Main", "cluster: Main\nother_clusters: [Other, Mai]")],
        *("2:25", E, "the cluster names 'Main' and 'Mai' can be confused", "rename one"),
    ),
    "cluster twice": (
        [("cluster: Main", "cluster: Main\nother_clusters: [Main]")],
        *("2:18", E, "'Main' is listed twice", ""),
    ),
    "range too short": (
        [("worker2:\n", "worker[2-4]:\n"), ("worker2.e", "worker[2-3].e")],
        *("16:13", E, "stands for 2, but the key 'worker[2-4]' for 3", "as long as the key's"),
    ),
    "range without one in the host": (
        [("worker2:\n", "worker[2-4]:\n")],
        *("16:13", E, "'worker2.example.com' stands for 1, but the key", ""),
    ),
    "host range without one in the key": (
        [("worker2.e", "worker[2-3].e")],
        *("16:13", E, "stands for 2, but the key 'worker2' for 1", ""),
    ),
    "names twice": (
        [("worker2:\n", "worker[1-2]:\n"), ("worker2.e", "w[1-2].e")],
        *("15:5", E, "'worker1' is already named at 13:5", ""),
    ),
    "backward range": (
        [("worker2:\n", "worker[4-2]:\n"), ("worker2.e", "worker[4-2].e")],
        *("15:5", E, "[4-2] runs backwards", ""),
    ),
    "hosts without end": (
        [("worker2:\n", "worker[0-999999999]:\n")],
        *("15:5", E, "too long", ""),
    ),
}

TEXTS: dict[str, Case] = {
    "key twice": (
        [("cluster: Main", "cluster: Main\ncluster: Other")],
        *("2:1", E, "the key 'cluster' is already given at 1:1", "keep one"),
    ),
    "tab": (
        [("    worker2:\n", "\tworker2:\n")],
        *("15:1", E, "a tab where YAML needs spaces", "indent with spaces"),
    ),
    "unquoted range": (
        [("infra2.example.com,", "infra[2-3].example.com,")],
        *(
            "8:25",
            E,
            "a range within { } must be in quotes",
            '{host: "worker[1-3].example.com"}',
        ),
    ),
    "colon": (
        [("version: 3.6.16", "version: 3.6: 16")],
        *("3:15", E, "a ':' where no key can be", "indentation"),
    ),
    "open bracket": (
        [("package: true}", "package: true")],
        "5:10",
        E,
        "not YAML",
        "check quotes, brackets",
    ),
    "tag": (
        [("version: 3.6.16", "version: !!python/object:os.system 3.6.16")],
        *("3:12", E, "the tag", "remove it"),
    ),
    "unknown alias": (
        [("version: 3.6.16", "version: *v")],
        *("3:12", E, "*v has no anchor &v above it", ""),
    ),
    "alias of itself": (
        [("cluster: Main", "cluster: &a [*a]")],
        *("1:14", E, "*a is inside its own anchor &a", ""),
    ),
    "second document": (
        [("alluxio:\n", "---\nalluxio:\n")],
        *("9:1", E, "a second document starts here", "one per file"),
    ),
    "key that is a list": (
        [("cluster: Main", "cluster: Main\n? [a]\n: b")],
        *("2:3", E, "a key must be text", ""),
    ),
    "merge of text": ([("cluster: Main", "<<: Main")], "1:1", E, "'<<' merges mappings only", ""),
    "nesting": (
        [("cluster: Main", f"cluster: {'[' * 30}{']' * 30}")],
        *("1:30", E, "nested more than 20 levels deep", ""),
    ),
    "control character": (
        [("cluster: Main", 'cluster: "Ma\\0in"')],
        *("1:10", E, "the value holds the control character U+0000", ""),
    ),
    "half a character": (
        [("cluster: Main", 'cluster: "Ma\\ud800in"')],
        *("1:10", E, "the value holds the control character U+D800", ""),
    ),
    "raw control character": (
        [("cluster: Main", "cluster: Ma\x1bin")],
        *("1:12", E, "the file holds the control character U+001B", ""),
    ),
}


@pytest.mark.long
@pytest.mark.parametrize(
    "case", [*FIELDS.items(), *RULES.items(), *TEXTS.items()], ids=lambda c: c[0]
)
def test_problem(inventory: Path, case: tuple[str, Case]) -> None:
    edits, where, severity, what, remedy = case[1]
    found = problems(inventory, edited(*edits))
    fitting = [
        p
        for p in found
        if (p.where, p.severity) == (where, severity) and what in p.what and remedy in p.remedy
    ]
    assert len(fitting) == 1, "\n".join(f"{p.severity} {p}" for p in found)
    assert not any("hunter2" in str(p) or "pass@" in str(p) for p in found), "a secret was printed"


def test_the_base_has_no_problem(inventory: Path) -> None:
    assert problems(inventory, BASE) == []


def test_everything_at_once_in_the_files_order(inventory: Path) -> None:
    text = edited(
        ("cluster: Main", "cluster: -Main"),
        ("3.6.16", "3.5.1"),
        ("  members:", "  colour: blue\n  client_port: 2380\n  members:"),
        ("infra1.example.com", "infra0.example.com"),
        ("worker2.example.com", "worker1.example.com\n      rpc_port: none"),
    )
    assert [(p.where, p.severity) for p in problems(inventory, text)] == [
        ("1:10", E),  # name
        ("3:12", E),  # corrupting version
        ("5:3", E),  # unknown key
        ("6:16", E),  # client_port == peer_port
        ("9:20", E),  # same host
        ("18:13", E),  # same host
        ("19:17", E),  # not a number
    ]


def test_a_broken_value_has_no_consequences(inventory: Path) -> None:
    # client_port's default would collide with peer_port, but it was not what was meant.
    text = edited(("  members:", "  client_port: none\n  peer_port: 2379\n  members:"))
    assert [p.where for p in problems(inventory, text)] == ["5:16"]
    text = edited(("{package: true}", "{package: maybe}"))
    assert [p.where for p in problems(inventory, text)] == ["4:21"]


def test_what_is_missing_hides_nothing_else(inventory: Path) -> None:
    """It has a stand-in for the checks across fields, of which nothing is said."""
    text = edited(
        ("  version: 3.6.16\n", ""),
        ("  source: {package: true}\n", ""),
        ("infra0: {host: infra0.example.com, address", "infra0: {address"),
        ("infra1: {host: infra1.example.com, address", "infra1: {address"),
        ("      host: worker1.example.com", "      host: infra9.example.com"),
        ("worker2.example.com", "infra9.example.com"),
    )
    assert [(p.where, p.what) for p in problems(inventory, text)] == [
        ("2:1", "'version' of 'etcd' is missing"),
        ("2:1", "'source' of 'etcd' is missing"),
        ("4:5", "'host' of 'infra0' is missing"),
        ("5:5", "'host' of 'infra1' is missing"),
        (
            "14:13",
            "workers 'worker1' and 'worker2' are on the same host 'infra9.example.com' (see 12:13)",
        ),
    ]


def test_stand_ins_stay_unmentioned_in_later_rounds(inventory: Path) -> None:
    text = edited(("  source: {path: alluxio.tar.gz, sha256: file:SUMS}\n", ""), ("3.6.16", "[1]"))
    assert [p.where for p in problems(inventory, text)] == ["3:3", "9:1"]


def test_a_list_s_item_is_left_out_with_its_list(inventory: Path) -> None:
    text = edited(
        ("  workers:", "  page_store: {dirs: [/a, /b], sizes: [1GB, x]}\n  workers:"),
        ("worker2.example.com", "worker1.example.com"),
    )
    assert [p.where for p in problems(inventory, text)] == ["12:45", "17:13"]


def test_a_bad_name_is_pointed_at(inventory: Path) -> None:
    (problem,) = problems(inventory, edited(("    infra1: {", "    infra_: {")))
    assert problem.where == "7:5"
    assert problem.what.startswith("'infra_' is not a name")


def test_of_one_place_all_is_said_in_the_order_found() -> None:
    collected = Findings("x.yml")
    for line, what in (2, "b"), (2, "a"), (1, "c"), (2, "b"):
        collected.error(Mark(line, 1), what, id="inventory-syntax")
        collected.warning(Mark(line, 2), what, id="inventory-syntax")
    assert [str(p) for p in collected.errors] == ["x.yml:1:1: c", "x.yml:2:1: b", "x.yml:2:1: a"]
    assert [p.remedy for p in collected.warnings] == [""] * 3


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a", [(None, "a", None)]),
        ("a:1,me@b:65535", [(None, "a", 1), ("me", "b", 65535)]),
        ("DOM\\me@[fd00::1]:22", [("DOM\\me", "fd00::1", 22)]),
        ("[fd00::1]", [(None, "fd00::1", None)]),
        ("fd00::1", [(None, "fd00::1", None)]),
        ("me@example.com@b", [("me@example.com", "b", None)]),
    ],
)
def test_jump_hosts(text: str, hosts: list[tuple[str | None, str, int | None]]) -> None:
    assert jump_hosts(text) == hosts


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a:0", "'a:0': 0 is not a port"),
        ("a,b:65536", "'b:65536': 65536 is not a port"),
        ("a,me@-b", "'me@-b' is not a host name or an IP address"),
        ("1.2.3", "'1.2.3' is not an IPv4 address"),
    ],
)
def test_what_is_no_jump_host(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        jump_hosts(text)


@pytest.mark.parametrize("text", ["none", "NONE", "a,b"])
def test_a_jump_that_is_taken(inventory: Path, text: str) -> None:
    assert problems(inventory, edited(("cluster: Main", f"ssh: {{jump: '{text}'}}"))) == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://h/X", ""),
        ("https://me@h/x.tgz", "the URL holds a login; secrets must not be in the inventory"),
        ("https://:pw@h/x.tgz", "the URL holds a login; secrets must not be in the inventory"),
        ("https://h//", "'https://h//' names no file; give the tarball's own URL"),
        ("https://h/@scope/x.tgz", ""),
        ("https://me:pa/ss@h/x.tgz", "this is not a URL"),
        ("https://me:p@[h/x.tgz", "this is not a URL"),
        ("https://me:pa ss@h/x.tgz", f"must be {EXPECTED[URL]}"),
    ],
)
def test_urls(inventory: Path, url: str, why: str) -> None:
    source = f"  source: {{url: '{url}', sha256: {'a' * 64}}}"
    found = problems(inventory, edited(("  source: {package: true}", source)))
    assert [p.what for p in found] == (
        [f"'url'{'' if why.startswith('must') else ':'} {why}"] if why else []
    )


def test_machines_know_their_place(inventory: Path) -> None:
    found = loaded(inventory, ("  workers:", "  masters: {m: {host: m.example.com}}\n  workers:"))
    assert found.alluxio is not None
    places = [
        role.machine.where.removeprefix(f"{inventory}:")
        for role in (found.etcd.members[1], found.alluxio.masters[0], found.alluxio.workers[1])
    ]
    assert places == ["7:5", "12:13", "16:5"]


def test_a_range_s_mistake_is_said_once(inventory: Path) -> None:
    text = edited(
        ("worker2:\n", "worker[2-2000]:\n"), ("worker2.example.com", "w_[2-2000]_\n      heap: x")
    )
    found = problems(inventory, text)
    assert [p.where for p in found] == ["16:13", "17:13"]


def test_headline_and_exit_code(inventory: Path) -> None:
    inventory.write_text(edited(("3.6.16", "3.5.2")))
    with pytest.raises(InventoryError, match=f"^1 problem in {inventory}$") as caught:
        load(inventory)
    assert (caught.value.exit_code, caught.value.id) == (2, "inventory-invalid")
    inventory.write_text(edited(("3.6.16", "3.5.2"), ("cluster: Main", "cluster: -a")))
    with pytest.raises(InventoryError, match=f"^2 problems in {inventory}$"):
        load(inventory)


@pytest.mark.parametrize(
    ("names", "conflicts"),
    [
        (["a", "b"], []),
        (["prod2", "prod", "test"], [("prod", "prod2")]),
        (["a", "ab", "abc"], [("a", "ab"), ("a", "abc"), ("ab", "abc")]),
        (["a", "a"], []),
    ],
)
def test_prefix_conflicts(names: list[str], conflicts: list[tuple[str, str]]) -> None:
    assert prefix_conflicts(names) == conflicts


# --- files that cannot be read


def unread(path: Path, id: str) -> str:
    """What is said of a file that cannot be read, by an error of that id."""
    with pytest.raises(InventoryError, match=r"^the inventory cannot be read$") as caught:
        load(path)
    (problem,) = caught.value.problems
    assert caught.value.id == problem.id == id
    return str(problem)


def test_missing_file(tmp_path: Path) -> None:
    assert unread(tmp_path / "none.yml", "inventory-missing") == (
        f"{tmp_path}/none.yml: no such file (write one: invoke init-inventory {tmp_path}/none.yml)"
    )


def test_folder(tmp_path: Path) -> None:
    said = unread(tmp_path, "inventory-unreadable")
    assert said == f"{tmp_path}: this is a folder (name the inventory file in the folder)"


@pytest.mark.parametrize(("most", "read_on"), [(7, True), (6, False)])
def test_what_aliases_stand_for_is_counted(
    inventory: Path, monkeypatch: pytest.MonkeyPatch, most: int, read_on: bool
) -> None:
    monkeypatch.setattr(document, "MAX_ALIASED_NODES", most)
    text = "a: &a [1]\nb: *a\nc: &c [*a]\nd: *c\n"  # of two nodes twice, and of three
    found = problems(inventory, text)
    said = [(p.where, p.what) for p in found if "without bounds" in p.what]
    assert said == ([] if read_on else [("4:4", "the aliases of this file expand without bounds")])
    assert len(found) > 1 or not read_on


def test_the_largest_file(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_BYTES", len(BASE))
    assert loaded(inventory).cluster == "Main"
    assert len(problems(inventory, BASE + "#")) == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a\0b", ".*embedded null (byte|character.*)"),  # Python's words changed in 3.13
        ("x" * 5000, "File name too long"),
        ("/proc/self/mem", "Input/output error"),
    ],
)
def test_unreadable(name: str, why: str) -> None:
    said = unread(Path(name), "inventory-unreadable")
    wanted = str(Problem(name, "cannot be read: WHY", id="inventory-unreadable"))
    assert re.fullmatch(re.escape(wanted).replace("WHY", why), said)


@pytest.mark.parametrize(("path", "found"), [((0,), True), ((1,), False), (("a",), False)])
def test_what_stands_in_a_list(path: tuple[int | str, ...], found: bool) -> None:
    mark = Mark(1, 1)
    root = document.Sequence((document.Scalar("x", mark),), mark)
    assert (document.find(root, path) is not None) is found


def test_every_pattern_is_known_in_words() -> None:
    schema = json.dumps(InventoryFile.model_json_schema())
    patterns = {json.loads(p) for p in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', schema)}
    assert len(patterns) > 15
    assert patterns <= set(EXPECTED), patterns - set(EXPECTED)


def test_what_is_no_version() -> None:
    with pytest.raises(ValueError, match=r"^not a version: 'v3'$"):
        version_tuple("v3")


# --- scale


@pytest.mark.long
def test_ten_thousand_workers(inventory: Path) -> None:
    text = edited(("worker2:\n", "n[00001-10000]:\n"), ("worker2.e", "n[00001-10000].e"))
    inventory.write_text(text)
    result = load(inventory)
    assert result.alluxio is not None
    assert len(result.alluxio.workers) == 10_001
