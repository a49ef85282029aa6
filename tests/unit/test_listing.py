"""Names from a folder of a service's user, by a real shell: they say nothing but themselves."""

from __future__ import annotations

import base64
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from provision.etcd.member.recovery_marker import RecoveryMarker
from provision.host import listing
from provision.host.facts import HostFacts, Probe, parse, script
from provision.inventory.resolved import EtcdMember
from provision.plans import clean_host, destroy
from provision.plans.etcd.data import restore_etcd, retained, undo_restore
from tests.unit import builders, hosts

ID = "20260102T030405Z"
MARK = RecoveryMarker("restore", ID, "a" * 64)
OLD = f"member.before-restore-{ID}"
ODD = ("a\nb", "a\tb", " a ", "a\u2028b", "-n", "a'b", '$(id)"', "@@end", "é")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "it's data"
    folder.mkdir()
    return folder


@pytest.fixture
def member(data: Path) -> EtcdMember:
    return replace(builders.member(1), data_dir=str(data))


def look(root: Path, **commands: str) -> HostFacts:
    text = script(Probe(commands=commands))
    return parse(hosts.shell(text, root), "here")


@pytest.mark.process
def test_names_come_as_they_are(data: Path, tmp_path: Path) -> None:
    for name in ODD:
        (data / f"x{name}").mkdir()
        (data / f"y{name}").write_text("y")
    seen = look(
        tmp_path,
        names=listing.names(str(data), "x*", "y*"),
        sizes=listing.sizes(str(data), "x*", "y*"),
        files=listing.files(str(data), "x*", "y*"),
        nothing=listing.names(str(data), "z*"),
        missing=listing.names("/nothing/there", "*"),
        no_sizes=listing.sizes(str(data), "z*"),
    )
    said = {label: listing.records(text) for label, text in seen.commands.items()}
    assert sorted(said["names"]) == sorted(f"{kind}{name}" for kind in "xy" for name in ODD)
    sizes = dict(record.split("\t", 1)[::-1] for record in said["sizes"])
    assert {path.rpartition("/")[2] for path in sizes} == {f"x{name}" for name in ODD}
    assert all(int(size) >= 0 for size in sizes.values())
    assert {record.split("\t", 2)[2] for record in said["files"]} == {f"y{n}" for n in ODD}
    assert said["nothing"] == said["missing"] == said["no_sizes"] == []


@pytest.mark.process
def test_sizes_need_no_option_that_only_gnu_has(data: Path, tmp_path: Path) -> None:
    """du of busybox and of uutils 0.0.17 has no --files0-from, and a look named no folder."""
    for name in ODD:
        (data / f"x{name}").mkdir()
    du = tmp_path / "du"
    du.write_text('#!/bin/sh\n[ "$1 $#" = "-sk 2" ] || exit 1\nexec /usr/bin/du "$@"\n')
    du.chmod(0o755)
    seen = look(tmp_path, sizes=f"PATH={tmp_path}:$PATH; {listing.sizes(str(data), 'x*')}")
    found = dict(r.split("\t", 1)[::-1] for r in listing.records(seen.commands["sizes"]))
    assert {path.rpartition("/")[2] for path in found} == {f"x{name}" for name in ODD}
    assert all(int(size) >= 0 for size in found.values())


@pytest.mark.process
@pytest.mark.skipif(not shutil.which("busybox"), reason="no busybox here")
def test_the_tools_of_busybox_list_the_same(data: Path, tmp_path: Path) -> None:
    for name in ODD:
        (data / f"x{name}").mkdir()
        (data / f"y{name}").write_text("y" * 5000)
        os.utime(data / f"y{name}", (1_700_000_000, 1_700_000_000))
    busybox = Path(shutil.which("busybox") or "")
    for tool in ("sh", "find", "stat", "du"):
        (tmp_path / tool).symlink_to(busybox)
    commands = {
        "names": listing.names(str(data), "x*", "y*"),
        "files": listing.files(str(data), "y*"),
        "sizes": listing.sizes(str(data), "x*"),
    }
    gnu = look(tmp_path, **commands).commands
    small = look(tmp_path, **{k: f"PATH={tmp_path}:$PATH; {c}" for k, c in commands.items()})
    assert {r.split("\t")[1] for r in listing.records(gnu["files"])} == {"1700000000"}
    for label in commands:
        found = sorted(listing.records(small.commands[label]))
        assert found == sorted(listing.records(gnu[label]))
        assert len(found) >= len(ODD)


@pytest.mark.process
def test_a_folder_behind_a_link_is_listed_and_a_link_in_it_is_no_folder(
    data: Path, tmp_path: Path
) -> None:
    (data / "xa").mkdir()
    (data / "xb").symlink_to("/etc")
    link = tmp_path / "link"
    link.symlink_to(data)
    seen = look(tmp_path, sizes=listing.sizes(str(link), "x*"))
    (record,) = listing.records(seen.commands["sizes"])
    assert record.endswith("/xa")


@pytest.mark.parametrize("cut", range(9))
def test_what_is_cut_off_or_no_text_is_left_out(cut: int) -> None:
    data = b"first\0\xff\0second\0third\0"
    text = base64.b64encode(data).decode()
    found = listing.records(text[: len(text) - cut])
    assert found[:2] == ["first", "second"]
    assert found[2:] in ([], ["third"])
    assert listing.records("no base64!") == listing.records("") == []
    assert listing.records("éé==") == []


@pytest.mark.process
def test_a_name_is_not_taken_for_the_data_from_before(
    data: Path, member: EtcdMember, tmp_path: Path
) -> None:
    (data / "member").mkdir()
    (data / f"member.before-restore-x\n{OLD}").mkdir()
    cluster = builders.etcd(member)
    probe = undo_restore._probe(cluster, member)
    hosts.given(data)  # the folder's owner looks into it
    seen = look(tmp_path, **probe.commands)
    assert OLD not in undo_restore._folders(seen)
    assert "member" in undo_restore._folders(seen)
    (data / OLD).mkdir()
    assert OLD in undo_restore._folders(look(tmp_path, **probe.commands))


@pytest.mark.process
def test_a_name_is_not_taken_for_a_side_folder(
    data: Path, member: EtcdMember, tmp_path: Path
) -> None:
    user = hosts.ME if hosts.ME != "root" else "daemon"
    cluster = replace(builders.etcd(member), user=user)
    command = restore_etcd._complete_folders(cluster, member)
    # Only root can become another user.
    command = command.replace(f"setpriv --reuid {user} --regid {user} --init-groups", "")

    def prepared() -> bool:
        return restore_etcd._prepared(member, look(tmp_path, prepared=command), MARK)

    for name in (f"restoring-x\nrestoring-{ID} {ID}\n", f"restoring-x\nrestoring-{ID}"):
        (data / name / "member").mkdir(parents=True)
        (data / name / "member/restored-by").write_text(f"{ID}\n")
    assert not prepared()
    (data / f"restoring-{ID}/member").mkdir(parents=True)
    assert not prepared()
    (data / f"restoring-{ID}/member/restored-by").write_text(f"{ID}\n")
    assert prepared()


@pytest.mark.process
def test_a_name_is_not_taken_for_kept_data(data: Path, member: EtcdMember, tmp_path: Path) -> None:
    (data / f"member.x\n9\t{OLD}").mkdir()
    (data / f"restore-x.db\n9\t9\trestore-{'a' * 16}.db").touch()
    assert retained.read(member, look(tmp_path, **retained._probe(member).commands)) == []
    (data / OLD).mkdir()
    (data / f"restore-{'a' * 16}.db").write_text("x" * 9000)
    found = retained.read(member, look(tmp_path, **retained._probe(member).commands))
    assert [k.name for k in found] == [OLD, f"restore-{'a' * 16}.db"]
    assert all(0 < k.bytes < 100_000 for k in found)


@pytest.mark.process
def test_a_name_is_not_taken_for_the_data_of_a_former_member(data: Path, tmp_path: Path) -> None:
    # Both were one name and a part of another, or two.
    (data / "member.x member.w").mkdir()
    (data / "member.y\n").mkdir()
    (data / "restoring-z").mkdir()
    (data / "memberx").mkdir()
    own = clean_host.Installed(
        *("etcd member", "etcd.service", "/unit", "c", "etcd"),
        *((), (), (f"{data}/member",)),
        *("", (), "/etcd"),
    )
    starts = clean_host._aside(own)
    patterns = [f"{start.rpartition('/')[2]}*" for start in starts]
    seen = look(tmp_path, aside=listing.names(str(data), *patterns))
    assert sorted(clean_host._former(own, seen)) == [
        f"{data}/member.x member.w",
        f"{data}/member.y\n",
        f"{data}/restoring-z",
    ]


@pytest.mark.process
def test_a_name_is_not_taken_for_what_a_killed_upload_has_left(data: Path, tmp_path: Path) -> None:
    (data / "x\n.incoming.AbCdEf").mkdir()
    label = destroy._label(str(data))

    def said() -> str:
        return look(tmp_path, **destroy._listing("c", [str(data)])).commands[label].strip()

    assert said() == ""
    (data / ".incoming.AbCdEf").mkdir()
    assert said() == "begun"
