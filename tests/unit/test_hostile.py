"""A hostile host, registration or inventory: what it says is text wherever it goes, or is refused.

What comes in: facts, unit logs, ``info nodes``, audit logs (a host), values and ids (etcd), names,
paths and values (the inventory). Where it may go: the terminal, HTML, Prometheus, JSON, YAML,
systemd units, an ssh configuration, shell scripts, the audit log.
"""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoke.context import Context
from invoke.exceptions import Exit
from prometheus_client.parser import text_string_to_metric_families
from pydantic import Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML

from provision import tables as screen_tables
from provision import terminal
from provision.alluxio.commands.nodes import InfoNodes, NodesError, parse_info_nodes
from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import RegistrationSnapshot
from provision.alluxio.worker import desired as workers_desired
from provision.alluxio.worker import java
from provision.alluxio.worker.desired import Artifacts
from provision.check_nodes import CheckReport, page, prometheus, status, verdicts
from provision.check_nodes import table as on_screen
from provision.cli import console
from provision.cli.commands import namespace
from provision.engine import audit
from provision.engine.plan import HostChanges, Plan, Step, apply
from provision.errors import ChangeFailed, InventoryError, PreflightFailed, Unhealthy
from provision.etcd.api.values import KeyValue
from provision.etcd.cluster import guard, scratch
from provision.etcd.member import desired as etcd_desired
from provision.host import preflight
from provision.host.diff import Change
from provision.inventory import model, read
from provision.inventory.resolved import Machine
from provision.kubernetes import values
from provision.plans.alluxio import upgrade_workers, worker_preflight
from provision.plans.etcd.data import recover_etcd, retained
from provision.ssh.export import ssh_config
from provision.ssh.user_config import UserConfig
from provision.text import printable
from tests.unit import builders
from tests.unit.hosts import TARBALL, LocalFleet, facts, shell
from tests.unit.test_check import healthy, report
from tests.unit.test_inventory_loader import edited
from tests.unit.test_membership import DATA, WORKER1, recorded
from tests.unit.test_render import _files, load_properties

#: What each kind of output would obey, in one text.
EVIL = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\n[red]x[/red]<script>alert(1)</script>"
    "\"'`$(id);{{ 1234567*7 }}{% raw %}\n: - &a *a !!x %h%n \\"
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.just(EVIL)

#: What a value of an inventory can be: control characters and line ends are refused.
one_line = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20)
#: Numbers that ``str.isdigit`` or ``json`` let pass, and ``int`` does not.
NUMBERS = ["9" * 5000, "\u00b2", "\u0663", "-1", "1e999", "NaN", "Infinity", "", " ", EVIL]


def inert(text: str) -> bool:
    """Whether nothing in what a terminal gets steers it."""
    return all(line.isprintable() for line in text.split("\n"))


# -- what a host says of itself ----------------------------------------------------------------


@pytest.mark.parametrize("said", NUMBERS)
def test_facts_that_are_no_numbers(said: str) -> None:
    host = facts(1, values={"systemd": said, "memory": said}, commands={"kilobytes": said})
    (problem,) = preflight.hosts({Machine("a"): host}, {})
    assert problem.what == "systemd is not running"
    cluster = builders.alluxio(builders.worker("w1"))
    assert worker_preflight._memory(cluster.workers[0], host, "w1") == []
    with pytest.raises(PreflightFailed, match="cannot be used for the recovery"):
        recover_etcd._fit(builders.etcd(), builders.member(1), host)


@pytest.mark.parametrize("said", NUMBERS)
def test_lists_of_a_host_whose_numbers_are_none(said: str) -> None:
    member = builders.member(1)
    name = "member.removed-20260102T030405Z"
    listed = facts(1, commands={"kept infra1": f"{said}\t{member.data_dir}/{name}\n"})
    assert retained.read(member, listed) == []
    assert upgrade_workers.parse(f"{said} {'a' * 64} 313") == []
    assert scratch._free(f"no room free={said}") == 0
    assert java.major(f'openjdk version "{said}"') in (None, 1)  # 1e999 begins with a 1


def test_a_host_cannot_have_other_folders_removed() -> None:
    member = builders.member(1)
    paths = ["/etc", f"{member.data_dir}/member", f"{member.data_dir}/../x", "member.removed-x"]
    name = "member.removed-20260102T030405Z"
    paths += [f"/etc/{name}", f"{member.data_dir}/{name}\t/etc", f"{member.data_dir}/x/{name}"]
    said = "".join(f"16\t{path}\n" for path in paths)
    assert retained.read(member, facts(1, commands={"kept infra1": said})) == []


@pytest.mark.parametrize(
    "said", ["[" * 100_000, '{"revision": 1e999}', '{"revision": NaN}', "null", EVIL, "1\n["]
)
def test_the_status_of_a_snapshot_that_is_none(said: str) -> None:
    with pytest.raises(Unhealthy) as caught:
        scratch._status(builders.member(1), said)
    assert "is unreadable" in caught.value.message
    assert inert(caught.value.message)
    assert guard.revision(said) is None


AUDITED = audit.Author(f"me{EVIL}@host", "deploy-etcd", "c")


ENTRY: dict[str, Any] = dict.fromkeys(("when", "who", "command", "cluster", "name", "result"), EVIL)
DONE: list[Any] = [10**400, "9" * 5000, [], {}]


@pytest.mark.parametrize(
    "line",
    [
        *("[" * 60_000, '{"done": 1e999}', EVIL),
        json.dumps({"changes": [EVIL] * 1000}),
        *(json.dumps(ENTRY | {"changes": [EVIL], "done": done}) for done in DONE),
    ],
)
def test_lines_of_a_hosts_audit_log(line: str) -> None:
    (entry,) = audit.parse([line])
    assert all(inert(cell) and "\n" not in cell for cell in audit.rows([entry])[0])


@given(st.lists(texts, max_size=3), texts)
def test_an_entry_is_one_line_of_the_audit_log(
    tmp_path_factory: pytest.TempPathFactory, changes: list[str], name: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        audit.note(AUDITED, name, changes, ok=True)
        (line,) = audit.local_log().read_text().splitlines()
        assert line.isascii()
        assert line.isprintable()
        (entry,) = audit.read_local(2)
    assert entry.changes == tuple(printable(change, 500) for change in changes)


@pytest.mark.process
def test_an_entry_is_one_line_of_a_hosts_audit_log(tmp_path: Path) -> None:
    script = f"{audit.lines(AUDITED, EVIL, [EVIL, 'two'])}\naudit_done=2"
    assert shell(script, tmp_path).ok
    (line,) = (tmp_path / ".log" / "audit.log").read_text().splitlines()
    assert line.isascii()
    said = json.loads(line)
    assert (said["name"], said["changes"], said["who"]) == (EVIL, [EVIL, "two"], AUDITED.who)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".log"]  # no command was obeyed


@pytest.mark.process
def test_a_units_log_is_shown_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a host whose journalctl says what it likes."""
    (tmp_path / "said").write_text(f"{EVIL}\nlast\n", encoding="utf-8")
    command = tmp_path / "journalctl"
    command.write_text(f"#!/bin/sh\ncat {tmp_path}/said\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lines = status.journal(LocalFleet(tmp_path), Machine("a"), 9)
    assert lines[-1] == "last"
    assert all(inert(line) and "\n" not in line for line in lines)
    command.write_text(f"#!/bin/sh\ncat {tmp_path}/said >&2; exit 1\n")
    with pytest.raises(Unhealthy) as caught:
        status.journal(LocalFleet(tmp_path), Machine("a"), 9)
    console.error(caught.value)
    assert inert(capsys.readouterr().err)


@pytest.mark.process
def test_what_a_failed_change_says_is_shown_line_by_line(tmp_path: Path) -> None:
    said = "printf 'no \\033]0;owned\\007\\nroom\\r\\n' >&2; exit 1"
    step = Step("s", (HostChanges("w", Machine("a"), (Change("do", said),)),))
    with pytest.raises(ChangeFailed) as caught:
        apply(Plan("x", "c", (step,)), LocalFleet(tmp_path))
    assert caught.value.problems[0].what == "do failed: no \ufffd]0;owned\ufffd\n    room"


# -- info nodes, and what is registered in etcd --------------------------------------------------

TABLE = (DATA / "info-nodes-online.txt").read_text().splitlines()


@st.composite
def tables(draw: st.DrawFn) -> str:
    """The recorded table, changed here and there."""
    lines = list(TABLE)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "double", "column", "text", "line"])):
            case "drop" if len(lines) > 1:
                del lines[at]
            case "column":
                columns = lines[at].split("\t")
                columns[draw(st.integers(0, len(columns) - 1))] = draw(texts)
                lines[at] = "\t".join(columns)
            case "text":
                lines[at] += draw(texts)
            case "line":
                lines.insert(at, draw(texts))
            case _:
                lines.insert(at, lines[at])
    return "\n".join(lines)


def rows_of(text: str) -> InfoNodes:
    try:
        return InfoNodes("w1", tuple(parse_info_nodes(text)))
    except NodesError as error:
        return InfoNodes("w1", error=error.message)


@given(tables() | texts)
def test_any_mutation_of_info_nodes(text: str) -> None:
    answer = rows_of(text)
    assert inert(answer.error)
    for row in answer.rows:
        assert inert(f"{row.worker_id}{row.address}{row.status}")
        assert 0 <= row.port < 100_000


hostile_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """The value that a real worker wrote, mutated as JSON or as bytes."""
    value = recorded()[0].value
    if draw(st.booleans()):
        entity = json.loads(value)
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.sampled_from([entity, entity.get("WorkerNetAddress")]))
            if not isinstance(at, dict) or not at:
                continue
            key = draw(st.sampled_from(sorted(at)) | texts)
            if draw(st.booleans()):
                at.pop(key, None)
            else:
                at[key] = draw(hostile_values)
        return json.dumps(entity).encode()
    data = bytearray(value)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 20))] = draw(st.binary(max_size=20))
    return bytes(data)


def registered(values: list[bytes]) -> RegistrationSnapshot:
    prefix = registrations.live_prefix("c").encode()
    ids = [WORKER1.encode(), EVIL.encode(), b"\xff\x1b[2J"][: len(values)]
    keys = [KeyValue(prefix + i, v, 7, 1) for i, v in zip(ids, values, strict=True)]
    live = registrations.entries(prefix.decode(), keys, {})
    return RegistrationSnapshot("c", 1, {}, live)


@pytest.mark.long
@given(st.lists(written(), min_size=1, max_size=3), tables())
def test_any_mutation_of_a_registration_ends_in_a_verdict(
    capsys: pytest.CaptureFixture[str], values: list[bytes], table: str
) -> None:
    known, info = registered(values), rows_of(table)
    assert len(known.live) == len(values)
    found = verdicts(builders.alluxio(), known, None if info.error else info.rows)
    assert len(found) >= 2
    shown_safely(report(*found, info_nodes=info), capsys)


def shown_safely(seen: CheckReport, capsys: pytest.CaptureFixture[str]) -> None:
    """On the screen, as HTML, for Prometheus and as JSON."""
    on_screen.check(seen)
    out, err = capsys.readouterr()
    assert inert(out + err)
    text = page.html(seen)
    assert "<script" not in text
    assert inert(text)
    for family in text_string_to_metric_families(prometheus.exposition(seen)):
        assert family.name.startswith(prometheus.PREFIX)
    document = terminal.json_text(seen.document())
    assert inert(document)
    assert document.isascii()
    json.loads(document)


@pytest.mark.parametrize("value", [b"9" * 5000, b"[" * 100_000, b"x" * 10_000_000, b"\xff" * 100])
def test_huge_and_deep_values(value: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    found = verdicts(builders.alluxio(), registered([value]), None)
    shown_safely(report(*found), capsys)
    assert len(found[-1].notes[-1]) < 200


# -- the terminal, and what else a result is written as -------------------------------------------


@given(texts, texts)
def test_nothing_on_the_screen_steers_the_terminal(
    capsys: pytest.CaptureFixture[str], one: str, other: str
) -> None:
    todo = Change(one, "", f"-{other}\n+{one}\n")
    plan = Plan("x", one, (Step(other, (HostChanges(one, Machine(other), (todo,)),)),))
    failed = Unhealthy(one, id="member-down")
    with console.Progress() as progress:
        progress.step(1, 1, plan.steps[0])
        progress.host(plan.steps[0].hosts[0], failed)
    console.plan(plan)
    console.error(failed)
    screen_tables.show((screen_tables.Texts("a"),), [(one,), (other,)], title=other)
    out, err = capsys.readouterr()
    assert inert(out)
    assert inert(err)
    terminal.emit_json({one: [other]})
    terminal.emit_json_line({**plan.document(), "applied": False})
    said = capsys.readouterr().out
    assert inert(said)
    assert json.loads(said.rpartition("\n{")[0]) == {one: [other]}


def test_lines_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.error(Unhealthy("one\n    two\x1b[2J", id="member-down"))
    assert capsys.readouterr().err == "error: one\n    two\ufffd[2J [member-down]\n"


@given(st.lists(texts, min_size=3, max_size=3))
def test_any_label_is_read_back_by_prometheus(words: list[str]) -> None:
    name, host, worker_id = words
    (node,) = verdicts(builders.alluxio(builders.worker("w1")), None, None)
    node = node._replace(name=name or "w", host=host or "h", worker_id=worker_id)
    seen = {}
    for family in text_string_to_metric_families(prometheus.exposition(report(node))):
        for sample in family.samples:
            if sample.name == f"{prometheus.PREFIX}worker_disagreements":
                seen = dict(sample.labels)
    assert seen == {"cluster": "c", "worker": name or "w", "address": f"{host or 'h'}:29999"}


# -- the inventory -------------------------------------------------------------------------------


def inventory(folder: Path, *edits: tuple[str, str]) -> Path:
    path = folder / "lab.yml"
    path.write_text(edited(*edits))
    return path


BREAKS = ["a\nb", "a\n", "a\tb", 'a"b', "a'b", "a%h", "a$(id)", "a`id`", "a;b", "a|b", "a&b"]
BREAKS += ["{{7*7}}", "{%raw%}", "<script>", "\x1b[2J", "-rf", "a\u202eb", "a\0b", "a#b", "a>b"]
#: Never a word of a command line of their own.
NO_WORDS = (model.EXPECTED[model.CALENDAR], model.EXPECTED[model.ETCD_USER])
#: Types of values that go into units, shell scripts, configurations and paths as they are.
PLAIN: dict[str, Any] = {
    "name": model.Name,
    "host": model.HostName,
    "service user": model.ServiceUser,
    "setting": model.SettingKey,
    "variable": model.EnvName,
    "etcd release": model.EtcdVersion,
    "label": model.DnsLabel,
    "quantity": model.Quantity,
    "size": model.Size,
    **{
        text: Annotated[str, Field(pattern=pattern)]
        for pattern, text in model.EXPECTED.items()
        if pattern in (model.LOGIN, model.JUMP, model.CALENDAR, model.ETCD_USER)
        or pattern in (model.ALLUXIO_VERSION, model.IMAGE, model.IMAGE_TAG)
    },
}


@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_written_as_it_is_holds_nothing_that_breaks_out(kind: str) -> None:
    adapter = TypeAdapter[Any](PLAIN[kind])
    for text in BREAKS if kind not in NO_WORDS else [b for b in BREAKS if b != "-rf"]:
        with pytest.raises(ValidationError):
            adapter.validate_python(text)


@pytest.mark.parametrize("kind", ["own folder", "folder"])
def test_folders_on_hosts_hold_nothing_that_breaks_out(kind: str) -> None:
    adapter = TypeAdapter[Any]({"own folder": model.OwnDir, "folder": model.AbsolutePath}[kind])
    assert adapter.validate_python("/a/b-c@d+e") == "/a/b-c@d+e"
    for text in (*(f"/{b}/x" for b in BREAKS if b != "-rf"), "/a b", "x", "/a\\b"):
        with pytest.raises(ValidationError):
            adapter.validate_python(text)


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[2J", "a\0b", "a\x85b", "~/\r"])
def test_a_local_path_has_no_control_characters(text: str) -> None:
    for kind, of in ((model.LocalPath, "file:"), (model.Digest, "")):
        why = re.escape(repr(f"{of}{text}")) + " holds control characters|should match pattern"
        with pytest.raises(ValidationError, match=why):
            TypeAdapter[Any](kind).validate_python(f"file:{text}")


def command(name: str, **options: Any) -> int:
    task = namespace[name.replace("_", "-")]
    given = {p: d for p, d in task.body.__signature__.parameters.items() if p != "c"}
    values = {p: d.default for p, d in given.items()}
    try:
        task.body(Context(), **{**values, **options})
    except Exit as done:
        return int(done.code)
    return 0


@pytest.mark.parametrize(
    "edit",
    [
        ("cluster: Main", f"cluster: {json.dumps(EVIL)}"),
        ("infra1: {", f"{json.dumps(EVIL)}: {{"),
        ("worker1.example.com", json.dumps(EVIL)),
        ("alluxio.tar.gz", json.dumps(EVIL)),
        ("workers:\n", f"{json.dumps(EVIL)}: x\n  workers:\n"),
        ("cluster: Main", f"? {{a: {json.dumps(EVIL)}}}\n: x"),
        ("cluster: Main", f"cluster: !{'x' * 20}%1b[2J Main"),
        ("cluster: Main", 'cluster: "\\e[2J'),
        ("cluster: Main", "cluster: \x1b[2J"),
    ],
)
def test_an_inventory_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: tuple[str, str]
) -> None:
    path = inventory(tmp_path, edit)
    assert command("show_inventory", inventory=str(path)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert inert(err)
    with pytest.raises(InventoryError) as caught:
        read(path)
    assert all(inert(str(p)) and "\n" not in str(p) for p in caught.value.problems)


def test_a_file_whose_name_would_steer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a\nProxyCommand evil\x1b[2J"
    folder.mkdir()
    path = inventory(folder)
    assert command("show_inventory", inventory=str(path)) == 0
    assert command("show_inventory", inventory=f"{path}.gone") == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    text = ssh_config(read(path).inventory, UserConfig([]))
    assert not re.search(r"(?m)^ *ProxyCommand", text)
    assert inert(text)


FREE = [
    "{{ 7*7 }}",
    "{% raw %}<script>",
    "a: b # c",
    "*a &b !!x %h",
    "'\"`$(id); rm -rf /\\",
    "\u202e",
]


def with_free_values(folder: Path, text: str) -> Path:
    said = json.dumps(text)
    return inventory(
        folder,
        ("  members:", f"  settings: {{metrics: {said}}}\n  members:"),
        ("  workers:", f"  properties: {{alluxio.x: {said}}}\n  env: {{X: {said}}}\n  workers:"),
    )


@pytest.mark.process
@pytest.mark.parametrize("text", FREE)
def test_values_that_are_free_are_data_in_every_file(tmp_path: Path, text: str) -> None:
    found = read(with_free_values(tmp_path, text)).inventory
    member = found.etcd.members[0]
    files = _files(etcd_desired.resources(found.etcd, member, TARBALL, None, None))
    assert YAML(typ="safe").load(files["etcd.conf.yml"])["metrics"] == text
    assert found.alluxio is not None
    worker = found.alluxio.workers[0]
    release = Artifacts(TARBALL, None)
    files = _files(workers_desired.resources(found.alluxio, worker, release, None))
    assert load_properties(files["alluxio-site.properties"])["alluxio.x"] == text
    said = f'{files["alluxio-env.sh"]}\nprintf %s "$X"'.encode()
    assert subprocess.run(["sh"], input=said, capture_output=True).stdout.decode() == text


@pytest.mark.parametrize(
    ("text", "why"), [("a\nb: c", "spans lines"), (EVIL, "the control character U+001B")]
)
def test_values_that_break_lines_or_steer_are_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InventoryError) as caught:
        read(with_free_values(tmp_path, text))
    assert len(caught.value.problems) == 3
    assert all(why in p.what for p in caught.value.problems)


@given(one_line, st.lists(texts, max_size=3))
def test_any_environment_is_data_in_helms_values(text: str, notes: list[str]) -> None:
    inventory = builders.inventory()
    found = {"env": {"X": text}, "list": [text, {"y": text}]}
    made = values.as_yaml(found, inventory, "\n".join(notes))
    assert YAML(typ="safe").load(made) == found


def test_a_page_with_every_kind_of_text() -> None:
    (node,) = verdicts(builders.alluxio(builders.worker("w1")), None, None)
    node = node._replace(name=EVIL, host=EVIL, worker_id=EVIL, notes=(EVIL,))
    seen = healthy()
    sick = dataclasses.replace(seen.members[0], error=EVIL)
    etcd = dataclasses.replace(seen, members=(sick, *seen.members[1:]))
    text = page.html(report(node, etcd=etcd, cluster=EVIL))
    assert "<script" not in text
    assert "8641969" not in text
    assert html.escape("<script>alert(1)</script>") in text
