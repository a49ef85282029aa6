"""The README's picture of `check-nodes`: a recorded run, drawn by the tool's own code.

data/check-nodes.json is the document of a real run on the lab, recorded by
tests/integration/test_docs.py. `make docs` draws check-nodes.svg of it.
"""

from __future__ import annotations

import json
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from provision import inventory
from provision.alluxio.commands.nodes import InfoNodes
from provision.alluxio.membership.leases import Expired
from provision.alluxio.membership.registrations import Registration
from provision.check_nodes import CheckReport, NodeVerdict, State, table
from provision.errors import Problem
from provision.etcd.api.values import MemberStatus
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.served_certs import CertificateState
from provision.inventory.resolved import EtcdMember, Inventory
from provision.plans.etcd.data.stored import Host, Stored

DOCS = Path(__file__).resolve().parent
RECORDING = DOCS / "data" / "check-nodes.json"
PICTURE = DOCS / "check-nodes.svg"
WIDTH = 124

#: rich's own names a font that is fetched from elsewhere.
_SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<title>invoke check-nodes</title>
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px ui-monospace, Menlo, Consolas, \
"DejaVu Sans Mono", monospace }}
.{unique_id}-title {{ font: bold 18px sans-serif }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def keep(path: Path, text: str) -> None:
    """Write a picture, if the file has not this text already."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def svg() -> str:
    """The picture, in SVG that needs nothing but itself."""
    import io

    from rich.console import Console

    console = Console(
        record=True,
        file=io.StringIO(),
        width=WIDTH,
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        soft_wrap=False,
        markup=False,
    )
    console.print("$ invoke check-nodes")
    console.print(table.drawn(recorded()))
    return console.export_svg(title="", code_format=_SVG, unique_id="check-nodes")


def recorded() -> CheckReport:
    """The recorded document as the report that it was made of.

    Certificates end as many days from now as they did from then.
    """
    document = json.loads(RECORDING.read_text(encoding="utf-8"))
    declared = _declared()
    assert declared.alluxio is not None
    found = document["alluxio"]
    ids = {m["name"]: int(m["status"]["member_id"], 16) for m in document["etcd"]["members"]}
    leader = ids[document["etcd"]["leader"]]
    etcd = ClusterHealth(
        declared.etcd,
        tuple(
            _member(declared.etcd.member(m["name"]), m, leader) for m in document["etcd"]["members"]
        ),
    )
    info = found["info_nodes"]
    assert document["backups"]["newest"] is None, "a backup is drawn only when this can read one"
    kept = Stored(declared.etcd, tuple(map(Host, declared.etcd.members)))
    problems = [Problem(**one) for one in document["problems"]]
    return CheckReport(
        cluster=document["cluster"],
        alluxio=declared.alluxio,
        etcd=etcd,
        nodes=tuple(_node(one) for one in found["nodes"]),
        info_nodes=InfoNodes(info["host"], error=info["error"], seconds=info["seconds"]),
        revision=found["revision"],
        view_problems=tuple(p for p in problems if p not in (*etcd.problems, *kept.problems)),
        taken=datetime.fromisoformat(document["taken"]),
        seconds=document["seconds"],
        leases=_leases(found["leases"]),
        stored=kept,
    )


def _leases(found: dict[str, int] | None) -> Expired | None:
    """Their numbers: which leases these are is not recorded."""
    if found is None:
        return None
    return Expired(dict.fromkeys(range(found["expired"]), 1), found["asked"], found["live"])


def _declared() -> Inventory:
    """inventory/lab.yml without its login, whose files are there only while the lab is."""
    lab = (DOCS.parent / "inventory" / "lab.yml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lab.yml"
        lines = lab.splitlines(keepends=True)
        path.write_text("".join(x for x in lines if "/ssh/" not in x), encoding="utf-8")
        return inventory.load(path)


def _member(declared: EtcdMember, found: dict[str, Any], leader: int) -> MemberHealth:
    assert declared.client_url == found["endpoint"]
    said = found["status"]
    status = MemberStatus(
        cluster_id=0,
        member_id=int(said["member_id"], 16),
        version=said["version"],
        db_size=said["db_size"],
        db_in_use=said["db_in_use"],
        quota=said["quota"] or (-1 if said["quota_known"] else 0),
        leader=leader,
        revision=said["revision"],
        raft_term=said["raft_term"],
        raft_index=said["raft_index"],
        is_learner=said["learner"],
        errors=(),
    )
    return MemberHealth(
        declared,
        found["how"],
        status,
        seconds=found["read_seconds"],
        error=found["error"] or "",
        certificates=tuple(map(_certificate, found["certificates"])),
    )


def _certificate(found: dict[str, Any]) -> CertificateState:
    left = timedelta(days=found["days_left"], hours=12)
    return CertificateState(
        found["listener"], datetime.now(timezone.utc) + left, found["error"] or ""
    )


def _node(found: dict[str, Any]) -> NodeVerdict:
    return NodeVerdict(
        found["name"],
        found["host"],
        found["port"],
        State(found["state"]),
        found["worker_id"],
        found["info_nodes"],
        tuple(found["notes"]),
        Registration(**found["registration"]) if found["registration"] else None,
    )
