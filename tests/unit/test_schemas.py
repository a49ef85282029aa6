"""The schemas of JSON documents: made of their types, shipped, and a promise to who reads them."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Optional, TypedDict, cast, get_args, get_type_hints, is_typeddict

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from invoke.context import Context
from invoke.exceptions import Exit

from provision.alluxio.commands.nodes import InfoNodes
from provision.alluxio.commands.read import ReadProof
from provision.alluxio.membership import removed
from provision.alluxio.membership.clusters import Cluster, Clusters
from provision.alluxio.membership.leases import Expired
from provision.alluxio.membership.registrations import Registration, RegistrationValue
from provision.check_nodes import status
from provision.check_nodes.status import Service, Status
from provision.cli import documents as own
from provision.cli import schemas
from provision.cli.commands import namespace
from provision.cli.debug import Recording
from provision.cli.run import Run
from provision.cli.tasks import cluster, common
from provision.engine.plan import Action, HostChanges, Plan, Step
from provision.errors import Problem, UsageError
from provision.etcd.api.values import KeyValue
from provision.etcd.cluster.health import ClusterHealth
from provision.etcd.cluster.served_certs import CertificateState
from provision.etcd.member.backups import Name
from provision.host.diff import Change
from provision.inventory.model import EtcdBackup
from provision.plans.etcd.certificates import csr_exchange
from provision.plans.etcd.data.backup_etcd import Backup
from provision.plans.etcd.data.defrag_etcd import usage
from provision.plans.etcd.data.fetch_backups import Fetched
from provision.plans.etcd.data.retained import Retained
from provision.plans.etcd.data.snapshot_proof import Proof
from provision.plans.etcd.data.stored import Host, Saved, Stored
from tests import documents
from tests.unit import builders
from tests.unit.test_check import LIVE, healthy, report
from tests.unit.test_kubernetes import BASE

REPO = Path(__file__).parents[2]
#: Documents as this tool printed them; see the README there.
RECORDED = [
    *sorted((REPO / "tests" / "unit" / "data" / "documents").glob("*.json")),
    REPO / "docs" / "data" / "check-nodes.json",
]
EXAMPLE = str(REPO / "inventory" / "example.yml")
NOTE = Problem("a", "b", "c", "warning", id="member-down")
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def test_the_files_are_those_that_are_made() -> None:
    """python -m provision.cli.schemas makes them."""
    made = {
        schemas.file_name(title): schemas.as_text(s) for title, s in schemas.generated().items()
    }
    there = {path.name: path.read_text(encoding="utf-8") for path in schemas.FOLDER.iterdir()}
    assert there == made


def test_every_document_of_the_code_has_one_and_stands_in_the_docs() -> None:
    said: set[str] = set()
    for path in (REPO / "provision").rglob("*.py"):
        said |= set(re.findall(r"alluxio-provision/[a-z-]+/\d+", path.read_text(encoding="utf-8")))
    page = (REPO / "docs" / "json.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(alluxio-provision/[a-z-]+/\d+)`", page, re.MULTILINE))
    assert set(schemas.generated()) == said == listed


def test_every_type_says_what_it_is() -> None:
    def descriptions(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            if "properties" in schema and "type" in schema:
                yield schema.get("description", "")
            for value in schema.values():
                yield from descriptions(value)

    found = [text for s in schemas.generated().values() for text in descriptions(s)]
    assert len(found) > 50
    assert all(text.endswith(".") and "``" not in text for text in found)


def test_what_commands_add_is_of_commands_that_change_something() -> None:
    changing = {
        name
        for name in namespace.task_names
        if "dry_run" in inspect.signature(namespace[name].body).parameters
    }
    assert set(own.EXTRAS) <= changing
    assert {extra for extras in own.EXTRAS.values() for extra in extras} == set(get_args(own.Extra))


def test_every_task_that_adds_something_is_known() -> None:
    """By the fourth argument of ``finish``."""
    adding = set()
    for path in (REPO / "provision" / "cli" / "tasks").glob("*.py"):
        for task in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(task, ast.FunctionDef):
                calls = [c for c in ast.walk(task) if isinstance(c, ast.Call)]
                if any(ast.unparse(c.func) == "common.finish" and c.args[3:] for c in calls):
                    adding.add(task.name.replace("_", "-"))
    assert adding == {*own.EXTRAS, "-undo-restore"}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_document_still_has_its_schema(path: Path) -> None:
    documents.require(json.loads(path.read_text(encoding="utf-8")))


def test_there_is_a_recording_of_each() -> None:
    found = {json.loads(path.read_text(encoding="utf-8"))["schema"] for path in RECORDED}
    assert set(schemas.generated()) == found


class TestBreaks:
    """What is not allowed under the same number."""

    class One(TypedDict):
        """One."""

        text: str
        number: float
        many: list[str]
        word: Literal["a", "b"]
        perhaps: Optional[str]  # noqa: UP045
        by_name: dict[str, int]

    @staticmethod
    def of(shape: Any, **changed: Any) -> dict[str, Any]:
        defs: dict[str, Any] = {}
        made = copy.deepcopy(schemas._shape(shape, defs))
        for key, value in changed.items():
            if value is None:
                del made["properties"][key]
                made["required"].remove(key)
            else:
                made["properties"][key] = value
        return made

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({}, []),
            ({"more": {"type": "string"}}, []),
            ({"number": {"type": "integer"}}, []),
            ({"word": {"const": "a"}}, []),
            ({"text": {"enum": ["x"]}}, []),
            ({"perhaps": {"type": "string"}}, []),
            ({"text": None}, ["text: is gone"]),
            ({"text": {"type": "integer"}}, ["text: another kind of value"]),
            ({"text": {"type": ["string", "null"]}}, ["text: another kind of value"]),
            ({"text": {}}, ["text: another kind of value"]),
            ({"number": {"type": "string"}}, ["number: another kind of value"]),
            ({"word": {"enum": ["a", "b", "c"]}}, ["word: another kind of value"]),
            ({"word": {"type": "string"}}, ["word: another kind of value"]),
            (
                {"many": {"type": "array", "items": {"type": "null"}}},
                ["many[]: another kind of value"],
            ),
            (
                {"by_name": {"type": "object", "additionalProperties": {"type": "null"}}},
                ["by_name[]: another kind of value"],
            ),
            (
                {"text": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
                ["text: a kind of value that was not there"],
            ),
        ],
    )
    def test_of_one_key(self, changed: dict[str, Any], said: list[str]) -> None:
        assert schemas.breaks(self.of(self.One), self.of(self.One, **changed)) == said

    def test_a_key_that_is_not_always_there(self) -> None:
        new = self.of(self.One)
        new["required"].remove("text")
        assert schemas.breaks(self.of(self.One), new) == ["text: is not always there"]
        assert schemas.breaks(new, self.of(self.One)) == []

    def test_of_a_plan(self) -> None:
        (plan,) = (s for t, s in schemas.generated().items() if t.endswith("/plan/1"))
        assert schemas.breaks(plan, plan) == []
        changed = copy.deepcopy(plan)
        del changed["$defs"]["Step"]["properties"]["calls"]
        del changed["$defs"]["Restore"]["properties"]["kept"]
        changed["allOf"] = [c for c in changed["allOf"] if "move-leader" not in str(c)]
        assert schemas.breaks(plan, changed) == [
            "steps[].calls: is gone",
            "move-leader: what it adds is gone",
            "restore-etcd: a kind of value that was not there",
        ]
        assert schemas.breaks(changed, plan) == []

    def test_nothing_is_written_that_breaks_a_reader(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert schemas.write(tmp_path) == []
        before = {path: path.read_text() for path in tmp_path.iterdir()}
        kept = schemas.generated()
        changed = copy.deepcopy(kept)
        del changed["alluxio-provision/logs/1"]["properties"]["lines"]
        changed["alluxio-provision/audit/1"]["properties"]["more"] = {"type": "string"}
        monkeypatch.setattr(schemas, "generated", lambda: changed)
        assert schemas.write(tmp_path) == [
            "alluxio-provision/logs/1: lines: is gone: its number must be 2"
        ]
        after = {path: path.read_text() for path in tmp_path.iterdir()}
        assert [p.name for p in after if after[p] != before[p]] == ["audit-1.json"]

    def test_a_type_that_a_document_cannot_hold(self) -> None:
        with pytest.raises(TypeError, match="cannot hold"):
            schemas._of(set[str], {})


class TestFaults:
    """The check itself: what it would find."""

    SCHEMA = json.loads((schemas.FOLDER / "plan-1.json").read_text(encoding="utf-8"))

    def plan(self, **changed: Any) -> dict[str, Any]:
        plan = Plan("deploy-etcd", "c", (Step("s", (on("a"),)),), notes=(NOTE,))
        extra: own.DeployEtcd = {"endpoints": [], "plain_endpoints": []}
        return {**plan.document(), "applied": True, **extra, **changed}

    @pytest.mark.parametrize(
        ("changed", "fault"),
        [
            ({}, None),
            ({"would_change": 3}, None),
            ({"command": "deploy-all"}, "endpoints is not in the schema"),
            ({"surprise": 1}, "surprise is not in the schema"),
            ({"changed": "1"}, "changed is a str, not ['integer']"),
            ({"changed": True}, "changed is a bool, not ['integer']"),
            ({"endpoints": [1]}, "endpoints[0] is a int, not ['string']"),
            ({"command": "move-leader"}, "leader is missing"),
            ({"schema": "x"}, "schema is 'x', not 'alluxio-provision/plan/1'"),
            ({"notes": [{**NOTE.document(), "severity": "odd"}]}, "notes[0].severity is 'odd'"),
            ({"steps": [{}]}, "steps[0].title is missing"),
        ],
    )
    def test_of_a_plan(self, changed: dict[str, Any], fault: str | None) -> None:
        found = documents.faults(self.plan(**changed), self.SCHEMA)
        assert found[:1] == [] if fault is None else found[0].startswith(fault), found

    def test_later_keys_are_no_fault_for_who_reads(self) -> None:
        found = documents.faults(self.plan(surprise=1), self.SCHEMA, closed=False)
        assert found == []

    def test_what_has_no_schema(self) -> None:
        nothing: list[Any] = [{"schema": "alluxio-provision/plan/99"}, {}, []]
        for document in nothing:
            assert documents.of_document(document) != []


def on(name: str) -> HostChanges:
    machine = builders.member(1).machine
    return HostChanges(name, machine, (Change("stop", stops=("x.service",), diff="-a\n"),))


def test_the_documents_of_what_was_found() -> None:
    """With every part that may be null, and with none."""
    seen = healthy()
    member = builders.member(1)
    certificates = (CertificateState("peer", WHEN), CertificateState("client", None, error="x"))
    members = (replace(seen.members[0], certificates=certificates), *seen.members[1:])
    registration = Registration("worker-1", "w1", 1, 2, 3, "AUTHORIZED", -1)
    name = Name("n.db", "20260102T030405Z", 5, 0xAB)
    saved = Saved(name, "h", "/b/n.db", 9, "infra1")
    stored = Stored(
        builders.etcd(backup=EtcdBackup(dir="/b")), (Host(member, saved=(saved,)),), now=WHEN
    )
    whole = report(
        LIVE._replace(registration=registration, ready=True),
        etcd=ClusterHealth(seen.cluster, members),
        taken=WHEN,
        info_nodes=InfoNodes("w1", seconds=0.5),
        leases=Expired({1: 2}, 3, 4),
        read=ReadProof("/f", "w1", 1, "ab", "w1", True, "", 0.1),
        stored=stored,
        view_problems=(NOTE,),
    )
    machine = builders.member(1).machine
    found: list[Any] = [
        whole.document(),
        report(taken=WHEN).document(),
        replace(report(taken=WHEN), alluxio=None).document(),
        Status("c", (Service("a", machine, "u", "c"),), (NOTE,)).document(),
        Backup(Path("/b"), "ab", 1, 2, 3, "infra1", 0.5, (Path("/c"),)).document(),
        Fetched(((Path("/b"), saved),), (saved,), (NOTE,)).document(),
        Clusters((Cluster("c", 1, 1, "", ("d",)),), True, 5, "cut").document(),
    ]
    for document in found:
        documents.require(document)
    assert set(registration.document()) == set(RegistrationValue.__annotations__)


@pytest.mark.usefixtures("unguarded")
class TestPlans:
    """What each command adds."""

    @pytest.mark.parametrize(
        ("command", "extra"),
        [
            ("deploy-etcd", {"endpoints": ["u"], "plain_endpoints": []}),
            ("upgrade-etcd", {"version": "3.6.16"}),
            ("move-leader", {"leader": "a"}),
            ("start-workers", {"live": ["w1"]}),
            (
                "start-workers",
                {
                    "live": ["w1"],
                    "read": ReadProof("/f", "w1").document(),
                    "problems": [NOTE.document()],
                },
            ),
            ("upgrade-workers", {"running": {"313": ["w1"]}}),
            ("rollback-workers", {"running": {"313": ["w1"]}, "to": None}),
            ("decommission-worker", {"kept": ["/f"]}),
            ("forget-worker", {"kept": []}),
            ("restore-etcd", {"kept": {"a": "/d"}, "snapshot": None}),
            (
                "restore-etcd",
                {
                    "kept": {"a": "/d"},
                    "snapshot": Proof("a", 1, 2, ("c",), False, True).document(),
                },
            ),
            ("restore-etcd", {"kept": {"a": "/d"}, "undone": "x"}),
            ("recover-etcd", {"kept": "/d"}),
            ("kept-data", {"kept": [Retained(builders.member(1), "m", WHEN, 1).document()]}),
            ("defrag-etcd", {"before": [u.document() for u in usage(healthy())], "after": []}),
            ("export-csrs", {"folder": "/f"}),
            ("destroy", None),
        ],
    )
    def test_as_it_is_printed(
        self, command: str, extra: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Another command's extras, or none, would be a fault (TestFaults)."""
        steps = (Step("s", (on("a"),), (Action("etcd: x", lambda: None),)),)
        run = Run(command, format="json", dry_run=True, left_out=[NOTE])
        plan = Plan(command, "c", steps, notes=(NOTE,))
        common.finish(run, plan, common.carry_out(run, plan), extra)
        documents.require(json.loads(capsys.readouterr().out))


def printed(capsys: pytest.CaptureFixture[str], task: str, **given: Any) -> Any:
    with_code = 0
    try:
        namespace[task].body(Context(), **{"format": "json", **given})
    except Exit as ended:
        with_code = ended.code
    document = json.loads(capsys.readouterr().out)
    return with_code, document


@pytest.mark.process
def test_the_tasks_that_contact_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts").write_text("[etcd]\na\n")
    helm = tmp_path / "helm.yml"
    helm.write_text(BASE, encoding="utf-8")
    (tmp_path / "SUMS").write_text(f"{'0' * 64}  alluxio.tar.gz\n")
    show: list[tuple[str, dict[str, Any]]] = [
        ("show-inventory", {"inventory": EXAMPLE}),
        ("explain", {"id": "disk-full"}),
        ("explain", {"id": "nope"}),
        ("init-inventory", {"path": "new.yml"}),
        ("init-inventory", {"path": "hosts.yml", "etcd": "a,b,c", "workers": "w[1-2]"}),
        ("import-ansible", {"file": "hosts", "to": "made.yml"}),
        ("export-ssh-config", {"inventory": EXAMPLE}),
        ("render-client-config", {"inventory": EXAMPLE, "to": "conf"}),
        ("render-monitor", {"inventory": EXAMPLE, "into": "monitor"}),
        ("render-helm", {"inventory": str(helm)}),
        ("audit", {}),
        ("show-inventory", {"inventory": "none.yml"}),
    ]
    seen = {}
    for task, given in show:
        _, document = printed(capsys, task, **given)
        documents.require(document)
        seen[document["schema"].split("/")[1]] = document
    assert {"inventory", "explain", "init-inventory", "import-ansible", "error", "audit"} <= {*seen}
    assert {"ssh-config", "client-config", "render-monitor", "render-helm"} <= {*seen}


def test_logs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run("logs", format="json")
    run._loaded = cast(Any, SimpleNamespace(inventory=builders.inventory()))
    monkeypatch.setattr(status, "journal", lambda *_: ["2026-01-02T03:04:05+0000 a etcd[1]: x"])
    monkeypatch.setattr(status, "meaning", lambda *_: [NOTE])
    assert cluster.logs.act(run, "infra1", 3) == 0
    documents.require(json.loads(capsys.readouterr().out))


@pytest.mark.process
def test_the_files_that_tasks_leave(tmp_path: Path) -> None:
    removed.keep(tmp_path / "r.json", "c", "worker-1", KeyValue(b"k", b"v", 1, 2), "x")
    documents.require(json.loads((tmp_path / "r.json").read_text()))
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    wanted = csr_exchange._Wanted("a", builders.member(1), "peer", ("DNS:a",))
    made = csr_exchange._Export(builders.etcd(), tmp_path / "csrs", [wanted])
    made.answers["a"] = request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    made.write()
    documents.require(json.loads((tmp_path / "csrs" / csr_exchange.MANIFEST).read_text()))
    bundle = Recording(tmp_path / "debug.tar.gz")._files(Run("status"), 0)
    documents.require(json.loads(bundle["manifest.json"]))


class TestShowSchema:
    @pytest.mark.parametrize("name", ["plan", "plan/1", "plan-1", "alluxio-provision/plan/1"])
    def test_by_its_name(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        code, shown = printed(capsys, "show-schema", name=name)
        assert (code, shown["title"]) == (0, "alluxio-provision/plan/1")

    @pytest.mark.parametrize("name", ["plan/2", "pla", "../explain", "nope"])
    def test_of_no_document(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        code, shown = printed(capsys, "show-schema", name=name)
        assert (code, shown["id"]) == (2, "name-unknown")
        assert "there are audit, backup, backups-fetched, check-nodes" in shown["error"]

    def test_a_name_that_begins_another(self) -> None:
        from provision.cli.explain import schema

        assert schema("backup")["title"] == "alluxio-provision/backup/1"
        with pytest.raises(UsageError):
            schema("")


def test_no_two_types_have_one_name() -> None:
    """They would be one in a schema."""
    found: dict[str, Any] = {}

    def visit(hint: Any) -> None:
        for argument in get_args(hint):
            visit(argument)
        if is_typeddict(hint) and hint not in found.values():
            assert hint.__name__ not in found
            found[hint.__name__] = hint
            for one in get_type_hints(hint).values():
                visit(one)

    for parts in schemas.DOCUMENTS:
        for part in parts:
            for one in get_type_hints(part).values():
                visit(one)
    for extras in own.EXTRAS.values():
        for extra in extras:
            visit(extra)
    assert len(found) > 30
