"""Data that was kept aside: what is listed, and that only what is named goes."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from provision.engine import plan as plans
from provision.errors import PreflightFailed, UsageError
from provision.etcd.member import recovery_marker
from provision.inventory.resolved import Inventory
from provision.plans.etcd.data import retained
from tests.unit import builders, hosts

REMOVED = "member.removed-20260102T030405Z"
RESTORED = "member.before-restore-20260101T000000Z"
UNDONE = "member.before-undo-20260103T000000Z"
KILLED = "restoring-20260104T000000Z"
UPLOADS = ("restore-0123456789abcdef.db", "restore-0123456789abcdef.db.Ab12cD")
NOT_OURS = (
    "member",
    "member.mine",
    "restoring-mine",
    "member.removed-20261399T000000Z",
    f"{RESTORED}.part",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in (REMOVED, RESTORED, *NOT_OURS):
        (folder / name).mkdir(parents=True)
        (folder / name / "db").write_bytes(b"x" * 10_000)
    (folder / "member.removed-20260102T030406Z").symlink_to(folder / "member")
    return folder


@pytest.fixture
def inventory(data: Path) -> Inventory:
    return builders.inventory(etcd=builders.etcd(builders.member(1, data_dir=str(data))))


def observed(inventory: Inventory, root: Path) -> retained.RetainedState:
    return retained.observe(inventory, hosts.LocalFleet(root), inventory.etcd.members)


@pytest.mark.process
def test_what_there_is(inventory: Inventory, tmp_path: Path, data: Path) -> None:
    found = observed(inventory, tmp_path)
    assert [(k.path, k.why) for k in found.kept] == [
        (f"{data}/{RESTORED}", "restore"),
        (f"{data}/{REMOVED}", "removal"),
    ]
    assert all(10_000 < k.bytes < 50_000 for k in found.kept)
    assert retained.plan(inventory, found, ()).steps == ()


@pytest.mark.process
def test_only_what_is_named_goes(inventory: Inventory, tmp_path: Path, data: Path) -> None:
    found = observed(inventory, tmp_path)
    for name in ("member", "member.mine", f"{REMOVED}/../member", "*"):
        with pytest.raises(UsageError, match="no data is kept as"):
            retained.plan(inventory, found, [name])
    plan = retained.plan(inventory, found, [REMOVED])
    assert [c.what.split(" (")[0] for c in plan.steps[0].hosts[0].changes] == [
        f"DELETE {data}/{REMOVED}"
    ]
    plans.apply(plan, hosts.LocalFleet(tmp_path))
    left = {path.name for path in data.iterdir() if not path.is_symlink()}
    assert left == {RESTORED, *NOT_OURS}


@pytest.mark.process
def test_not_while_a_restore_has_not_ended(inventory: Inventory, tmp_path: Path) -> None:
    Path(recovery_marker.path(inventory.etcd.members[0])).touch()
    found = observed(inventory, tmp_path)
    with pytest.raises(PreflightFailed, match="finish it first"):
        retained.plan(inventory, found, [REMOVED])


@pytest.mark.process
def test_what_a_killed_restore_leaves_is_shown_and_goes(
    inventory: Inventory, tmp_path: Path, data: Path
) -> None:
    for name in (UNDONE, KILLED):
        (data / name).mkdir()
    for name in (*UPLOADS, "restore-0123456789abcdef.db.sh", "restore-mine.db"):
        (data / name).write_bytes(b"x" * 10_000)
    (data / "restore-00000000000000ff.db").symlink_to(data / "member" / "db")
    found = observed(inventory, tmp_path)
    shown = {k.name: (k.why, k.bytes) for k in found.kept}
    assert set(shown) == {REMOVED, RESTORED, UNDONE, KILLED, *UPLOADS}
    assert [shown[n][0] for n in (UNDONE, KILLED, *UPLOADS)] == [
        "undone restore",
        *["killed restore"] * 3,
    ]
    assert all(10_000 < shown[n][1] < 50_000 for n in UPLOADS)
    assert (datetime.now(timezone.utc) - found.kept[-1].when).total_seconds() < 3600
    plan = retained.plan(inventory, found, [UNDONE, KILLED, *UPLOADS])
    plans.apply(plan, hosts.LocalFleet(tmp_path))
    left = {path.name for path in data.iterdir() if not path.is_symlink()}
    others = ("restore-0123456789abcdef.db.sh", "restore-mine.db")
    assert left == {REMOVED, RESTORED, *NOT_OURS, *others}
