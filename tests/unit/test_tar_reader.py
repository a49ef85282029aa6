"""Tarballs with the right sha256 that must not be unpacked, and those that may be."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from provision import artifacts, tar_headers, tar_reader
from provision.artifacts import Artifact
from provision.errors import PreflightFailed
from provision.etcd.member import tarball as etcd_tarball
from provision.host.kinds import trees
from provision.host.proof import Proof
from provision.host.resources import Tree
from provision.inventory.model import Source
from provision.tar_reader import Seen
from tests.unit import hosts

Fill = Callable[["Archive"], None]
ROOT = os.getuid() == 0


class Archive:
    """A tarball in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tar = tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT)  # noqa: SIM115

    def file(self, name: str, content: bytes = b"x", mode: int = 0o755) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), mode
        self.tar.addfile(entry, io.BytesIO(content))

    def folder(self, name: str, mode: int = 0o755) -> None:
        self.other(name, tarfile.DIRTYPE, mode=mode)

    def link(self, name: str, target: str) -> None:
        self.other(name, tarfile.SYMTYPE, target)

    def hard(self, name: str, target: str) -> None:
        self.other(name, tarfile.LNKTYPE, target)

    def other(self, name: str, kind: bytes, target: str = "", mode: int = 0o644) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.mode = kind, target, mode
        self.tar.addfile(entry)


def packed(folder: Path, fill: Fill, name: str = "some.tar.gz") -> Path:
    archive = Archive(folder / name)
    fill(archive)
    archive.tar.close()
    return archive.path


def seen(folder: Path, fill: Fill) -> Seen:
    return tar_reader.read(packed(folder, fill))[1]


def etcd(archive: Archive, top: str = "etcd-v3.6.16/") -> None:
    archive.file(f"{top}etcd", b"#!/bin/sh\necho etcd Version: 3.6.16\necho more\n")
    archive.file(f"{top}etcdctl")


NEEDS = b"\x00GLIBC_2.%d\x00"


@pytest.mark.parametrize(
    ("files", "needed"),
    [
        ({"bin/java": NEEDS % 4, "lib/server/libjvm.so": NEEDS % 34 + NEEDS % 17}, (2, 34)),
        ({"jre/lib/amd64/server/libjvm.so": b"\x00GLIBC_2.2.5\x00GLIBC_2.17\x00"}, (2, 17)),
        # At the end of what is read at a time.
        ({"lib/libjli.so": b"x" * ((1 << 20) - 5) + NEEDS % 38}, (2, 38)),
        ({"lib/libawt_xawt.so": NEEDS % 40, "bin/javac": NEEDS % 40}, ()),
        ({"bin/java": b"GLIBC_2.99 \x00GLIBC_PRIVATE\x00"}, ()),
    ],
)
def test_the_c_library_that_a_jdk_needs(
    files: dict[str, bytes], needed: tuple[int, ...], tmp_path: Path
) -> None:
    def jdk(archive: Archive) -> None:
        for name, content in files.items():
            archive.file(f"jdk-11/{name}", content)

    path = packed(tmp_path, jdk)
    digest, found = tar_reader.read(path)
    assert found.glibc == needed
    tar_reader.keep(tmp_path / "cache", digest, found)
    assert tar_reader.kept(tmp_path / "cache", digest) == found


def _flat(a: Archive) -> None:
    etcd(a, "")


def _two(a: Archive) -> None:
    etcd(a)
    a.file("other/README")


def _beside(a: Archive) -> None:
    etcd(a)
    a.file("README")


def _top_is_a_link(a: Archive) -> None:
    a.link("etcd-v3.6.16", "/opt")


def _with(*calls: tuple[str, ...]) -> Fill:
    def fill(a: Archive) -> None:
        etcd(a)
        for method, *given in calls:
            getattr(a, method)(*given)

    return fill


def _device(a: Archive) -> None:
    etcd(a)
    a.other("etcd-v3.6.16/null", tarfile.CHRTYPE)


def _disk(a: Archive) -> None:
    etcd(a)
    a.other("etcd-v3.6.16/sda", tarfile.BLKTYPE)


def _fifo(a: Archive) -> None:
    etcd(a)
    a.other("etcd-v3.6.16/pipe", tarfile.FIFOTYPE)


def _unknown(a: Archive) -> None:
    etcd(a)
    a.other("etcd-v3.6.16/x", b"Z")


T = "etcd-v3.6.16"
CONTRADICT = "has an entry with headers that contradict each other"


@pytest.mark.parametrize(
    ("fill", "what"),
    [
        (_flat, "has no top folder: etcd is not in a folder"),
        (_two, "has 2 top folders, not one: etcd-v3.6.16, other"),
        (_beside, "has no top folder: README is not in a folder"),
        (_top_is_a_link, "has no top folder: etcd-v3.6.16 is not in a folder"),
        (_device, f"holds a device node: {T}/null"),
        (_disk, f"holds a device node: {T}/sda"),
        (_fifo, f"holds a FIFO: {T}/pipe"),
        (_unknown, f"holds an entry of an unknown kind: {T}/x"),
        (_with(("link", f"{T}/a", "/etc")), f"has a link that leads outside: {T}/a -> /etc"),
        (_with(("link", f"{T}/a", "../x")), f"has a link that leads outside: {T}/a -> ../x"),
        (_with(("link", f"{T}/d/a", "../../x")), "has a link that leads outside"),
        # Through another link: a/.. is not where it seems to be.
        (
            _with(
                ("folder", f"{T}/d/e"), ("link", f"{T}/s", "d/e"), ("link", f"{T}/a", "s/../../..")
            ),
            f"has a link that leads outside: {T}/a -> s/../../..",
        ),
        (_with(("link", f"{T}/a", "b"), ("link", f"{T}/b", "a")), "has a link that leads outside"),
        (_with(("link", f"{T}/a", "")), "holds a link to nothing"),
        (_with(("hard", f"{T}/a", "/etc/shadow")), "has a target that leads outside: /etc/shadow"),
        (_with(("hard", f"{T}/a", f"{T}/../../x")), "has a target that leads outside"),
        (_with(("hard", f"{T}/a", "elsewhere/x")), "has a hard link that leads outside"),
        (
            _with(("link", f"{T}/a", "etcd"), ("hard", f"{T}/d/b", f"{T}/a")),
            "has a hard link that leads outside",
        ),
        (
            _with(("link", f"{T}/a", "d"), ("file", f"{T}/a/x")),
            f"holds {T}/a/x, which is below a link",
        ),
        (_with(("file", "/etc/cron.d/x")), "has a path that leads outside: /etc/cron.d/x"),
        (_with(("file", f"{T}/../x")), "has a path that leads outside"),
        (_with(("link", f"{T}/{trees.MARKER}", "../../../etc/x")), "a name of this tool's own"),
        (_with(("file", f"{T}/{trees.MARKER}")), "a name of this tool's own files"),
        (_with(("folder", f"{T}/{trees.MARKER}")), "a name of this tool's own files"),
        (_with(("file", f"{T}/a\nstat /etc")), "has a path with control characters"),
        (_with(("link", f"{T}/a", "b\nfact")), "has a link target with control characters"),
    ],
)
def test_one_that_must_not_be_unpacked(fill: Fill, what: str, tmp_path: Path) -> None:
    path = packed(tmp_path, fill)
    body = path.read_bytes()
    sha = hashlib.sha256(body).hexdigest()
    artifact = artifacts.fetch(Source(path=path, sha256=sha), tmp_path / "cache")
    (problem,) = etcd_tarball.problems([artifact])
    assert what in problem.what
    assert "\n" not in problem.what
    assert problem.id == "tarball-unfit"


def test_several_flaws_are_one_line(tmp_path: Path) -> None:
    def fill(a: Archive) -> None:
        _device(a)
        for n in range(5):
            a.link(f"{T}/l{n}", "/etc")
        a.file("/abs")
        a.file(f"{T}/{trees.MARKER}")

    line = seen(tmp_path, fill).refusal
    assert line.count("; ") == 3
    assert line.endswith("; and 1 more")


def _good(a: Archive) -> None:
    a.folder(".")
    a.folder(f"./{T}", 0o700)
    a.file(f"./{T}/etcd", b"#!/bin/sh\necho etcd Version: 3.6.16\necho more\n", 0o6777)
    a.file(f"./{T}/etcdctl", mode=0o600)
    a.file(f"./{T}/all", mode=0o666)
    a.folder(f"./{T}/shared", 0o3777)
    a.folder(f"./{T}/legal/base")
    a.file(f"./{T}/legal/base/LICENSE", mode=0o640)
    a.folder(f"./{T}/legal/other")
    a.link(f"./{T}/legal/other/LICENSE", "../base/LICENSE")
    a.hard(f"./{T}/again", f"./{T}/etcd")


def test_what_may_be_unpacked(tmp_path: Path) -> None:
    found = seen(tmp_path, _good)
    assert found.refusal == ""
    assert {"etcd", "etcdctl"} <= set(found.found)


def test_another_tarball_is_not_etcds(tmp_path: Path) -> None:
    path = packed(tmp_path, lambda a: a.file("x/bin/java"))
    artifact = Artifact(path, "0" * 64, 1, tar_reader.read(path)[1])
    (problem,) = etcd_tarball.problems([artifact, None])
    assert problem.what == "is not an etcd release: it has no etcd and no etcdctl"


def _calls(path: Path) -> int:
    """How many functions are called to read the tarball."""
    count = 0

    def profile(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        tar_reader.read(path)
    finally:
        sys.setprofile(None)
    return count


def _many(method: str, count: int, *given: str) -> Fill:
    return _with(*((method, f"{T}/{n}", *given) for n in range(count)))


class TestBounds:
    def test_entries(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tar_reader, "MAX_ENTRIES", 7)
        found = seen(tmp_path, _many("file", 6))
        assert found.refusal == "has more than 7 entries"
        assert seen(tmp_path, _many("file", 5)).flaws == ()

    def test_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tar_reader, "MAX_LINKS", 2)
        found = seen(tmp_path, _many("link", 3, "x"))
        assert found.refusal == "has more than 2 links"

    def test_links_cost_as_much_as_their_targets_are_long(self, tmp_path: Path) -> None:
        """Each of them leads through all those before it: followed one by one, a link would cost
        some hundred times the sixty folders of its target."""
        far = "/".join(["d"] * 60)

        def fill(count: int) -> Fill:
            def fill(a: Archive) -> None:
                for n in range(30):
                    a.link(f"{T}/s{n}", f"s{n - 1}/{far}" if n else far)
                for n in range(count):
                    a.link(f"{T}/l{n}", "s29/" + far)

            return fill

        count = 300
        few, many = (packed(tmp_path, fill(n), f"{n}.tar.gz") for n in (0, count))
        assert tar_reader.read(many)[1].flaws == ()
        for_links = _calls(many) - _calls(few)
        assert for_links < count * 60 * 10, for_links

    def test_folders_of_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tar_reader, "MAX_STEPS", 10)
        found = seen(tmp_path, _with(("link", f"{T}/a", "b/c/d/e/f"), ("link", f"{T}/b", "c/d")))
        assert found.refusal == "has links whose paths have too many folders"

    def test_bytes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tar_reader, "BOMB_BYTES", 1 << 20)
        found = seen(tmp_path, lambda a: a.file("t/zeros", b"\0" * (8 << 20)))
        assert "unpacks to more than" in found.refusal

    def test_zeros_after_its_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tar_reader, "BOMB_BYTES", 1 << 20)
        path = packed(tmp_path, etcd)
        path.write_bytes(path.read_bytes() + gzip.compress(b"\0" * (8 << 20)))
        assert "unpacks to more than" in tar_reader.read(path)[1].refusal

    @pytest.mark.process
    def test_a_sparse_file_says_how_big_it_is(self, tmp_path: Path) -> None:
        plain = tmp_path / "sparse"
        with plain.open("wb") as file:
            file.truncate(70 << 30)
        folder = tmp_path / "t"
        folder.mkdir()
        plain.rename(folder / "sparse")
        path = tmp_path / "s.tar.gz"
        subprocess.run(["tar", "-C", tmp_path, "-Sczf", path, "t"], check=True)
        assert "unpacks to more than" in tar_reader.read(path)[1].refusal

    @pytest.mark.parametrize("kind", tar_headers.EXTENDED)
    def test_an_extended_header_is_not_read_into_memory(self, kind: bytes, tmp_path: Path) -> None:
        entry = tarfile.TarInfo("././@LongLink")
        entry.type, entry.size = kind, 64 << 20
        path = tmp_path / "h.tar.gz"
        with gzip.open(path, "wb") as file:
            file.write(entry.tobuf(tarfile.GNU_FORMAT))
            file.write(b"\0" * 1024)
        assert "has an extended header of" in tar_reader.read(path)[1].refusal

    def test_many_extended_headers_in_a_row(self, tmp_path: Path) -> None:
        entry = tarfile.TarInfo("././@LongLink")
        entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 4
        path = tmp_path / "h.tar.gz"
        with gzip.open(path, "wb") as file:
            for _ in range(5000):
                file.write(entry.tobuf(tarfile.GNU_FORMAT) + b"t/x\0" + b"\0" * 508)
        assert tar_reader.read(path)[1].refusal == CONTRADICT

    def test_long_names(self, tmp_path: Path) -> None:
        found = seen(tmp_path, lambda a: a.file("t/" + "x" * 5000))
        assert found.refusal == "has names that are too long"
        assert seen(tmp_path, lambda a: a.link("t/a", "x" * 5000)).refusal == found.refusal


Block = tuple[str | bytes, str, bytes]


def _pax(**records: str) -> bytes:
    """A pax header's records; each begins with its own length."""
    found = b""
    for key, value in records.items():
        line = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(line) + len(str(len(line)))
        found += str(length + (len(str(length)) > len(str(len(line))))).encode() + line
    return found


def raw(folder: Path, *blocks: Block) -> Path:
    """A tarball of an etcd and then these blocks: type, name, and what is in it (the target, of a
    link). Nothing checks that they fit together."""
    out = io.BytesIO()
    every: tuple[Block, ...] = (("0", f"{T}/etcd", b"x"), ("0", f"{T}/etcdctl", b"x"), *blocks)
    for kind, name, body in every:
        entry = tarfile.TarInfo(name)
        entry.type = kind.encode() if isinstance(kind, str) else kind
        entry.mode = 0o755
        if kind == "2":
            entry.linkname = body.decode()
            body = b""
        entry.size = len(body)
        out.write(entry.tobuf(tarfile.GNU_FORMAT) + body + b"\0" * (-len(body) % 512))
    path = folder / "raw.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(out.getvalue() + b"\0" * 1024)
    return path


def as_tar_sees(folder: Path, path: Path) -> list[tuple[str, str]]:
    """What GNU tar unpacks: names with the targets of links."""
    into = folder / "unpacked"
    into.mkdir()
    subprocess.run(["tar", "-xzf", path, "-C", into], check=True, capture_output=True)
    return sorted(
        (str(p.relative_to(into)), os.readlink(p) if p.is_symlink() else "")
        for p in into.rglob("*")
        if p.is_symlink() or p.is_file()
    )


GNU_NAME = ("L", "././@LongLink", f"{T}/gnu\0".encode())
GNU_TARGET = ("K", "././@LongLink", b"target\0")
PAX_NAME = ("x", "pax", _pax(path=f"{T}/pax"))
PAX_TARGET = ("x", "pax", _pax(linkpath="pax"))
IS_LINK, IS_FILE = ("2", f"{T}/own", b"own"), ("0", f"{T}/own", b"x")


@pytest.mark.parametrize(
    "blocks",
    [
        (GNU_TARGET, PAX_TARGET, IS_LINK),
        (PAX_TARGET, GNU_TARGET, IS_LINK),
        (GNU_NAME, PAX_NAME, IS_FILE),
        (PAX_NAME, GNU_NAME, IS_FILE),
        (GNU_NAME, PAX_TARGET, IS_LINK),
        (GNU_NAME, GNU_NAME, IS_FILE),
        (GNU_TARGET, GNU_NAME, GNU_TARGET, IS_LINK),
        (PAX_NAME, ("x", "pax", _pax(mtime="1")), IS_FILE),
        (PAX_NAME, ("X", "pax", _pax(path=f"{T}/sun")), IS_FILE),
        (PAX_NAME, ("g", "all", _pax(comment="x")), IS_FILE),
        (("x", "pax", _pax(path=f"{T}/a") + _pax(path=f"{T}/b")), IS_FILE),
    ],
)
def test_headers_that_say_different_things(blocks: tuple[Block, ...], tmp_path: Path) -> None:
    """GNU tar and Python's own reader see different names or targets in some of them."""
    assert tar_reader.read(raw(tmp_path, *blocks))[1].refusal.startswith(CONTRADICT)


@pytest.mark.parametrize(
    ("blocks", "what"),
    [
        ((("x", "pax", b" " + _pax(linkpath="/etc")), IS_LINK), "an extended header that is odd"),
        ((("x", "pax", _pax(mtime="1") + b"\n"), IS_FILE), "an extended header that is odd"),
        ((("x", "pax", b"9 path=a\0\n"), IS_FILE), "an extended header that is odd"),
        ((("x", "pax", b"999 path=a\n"), IS_FILE), "an extended header that is odd"),
        ((("x", "pax", _pax(path="")), IS_FILE), "an extended header that is odd"),
        ((("L", "l", b"\0"), IS_FILE), "an extended header that is odd"),
        ((("L", "l", f"{T}/a\0b\0".encode()), IS_FILE), "an extended header that is odd"),
        ((("x", "pax", _pax(size="1_0")), IS_FILE), "a length that is no plain number"),
        ((("g", "all", _pax(path=f"{T}/a")), IS_FILE), "has path for all entries"),
        ((("g", "all", _pax(linkpath="/etc")), IS_LINK), "has linkpath for all entries"),
        ((("g", "all", _pax(**{f"k{n}": "x" for n in range(101)})),), "more than 100 attributes"),
        ((("x", "pax", _pax(GNU_dumpdir="x")), IS_FILE), "does not know: GNU.dumpdir"),
        ((("x", "pax", _pax(size="512")), IS_LINK, IS_FILE), "a link with contents"),
        ((("5", f"{T}/d", b"x" * 512),), "a folder or a link with contents"),
        ((("0", f"{T}/d/", b"x" * 512),), "a folder or a link with contents"),
        ((PAX_NAME,), "ends after an extended header"),
    ],
)
def test_headers_that_two_readers_may_read_differently(
    blocks: tuple[Block, ...], what: str, tmp_path: Path
) -> None:
    assert what in tar_reader.read(raw(tmp_path, *blocks))[1].refusal


@pytest.mark.parametrize(
    ("at", "field", "what"),
    [
        (124, b"1_0\0", "a length that is no plain number"),
        (124, b"+0000000001\0", "a length that is no plain number"),
        (124, b"\xff" * 12, "a length that is no plain number"),
        (257, b"ustarX00", "a header of an unknown format"),
    ],
)
def test_a_field_that_two_readers_may_read_differently(
    at: int, field: bytes, what: str, tmp_path: Path
) -> None:
    block = bytearray(tarfile.TarInfo(f"{T}/etcd").tobuf(tarfile.USTAR_FORMAT))
    block[at : at + len(field)] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path = tmp_path / "f.tar.gz"
    path.write_bytes(gzip.compress(bytes(block) + b"\0" * 1024))
    assert what in tar_reader.read(path)[1].refusal


@pytest.mark.process
@pytest.mark.parametrize(
    "blocks",
    [
        (GNU_TARGET, IS_LINK),
        (GNU_TARGET, GNU_NAME, IS_LINK),
        (PAX_TARGET, IS_LINK),
        (PAX_NAME, IS_FILE),
        (("g", "all", _pax(comment="0" * 40)), IS_FILE),
        (("X", "pax", _pax(path=f"{T}/sun")), IS_FILE),
        (("x", "pax", _pax(path=f"{T}/pax", linkpath="x" * 200, mtime="1.5")), IS_LINK),
        (("x", "pax", _pax(size="513")), ("0", f"{T}/big", b"x" * 513), IS_FILE),
        (("0", f"{T}/d/", b""), IS_FILE),
    ],
)
def test_the_host_unpacks_what_was_seen(
    blocks: tuple[Block, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _compare(raw(tmp_path, *blocks), tmp_path, monkeypatch)


@pytest.mark.process
@pytest.mark.parametrize("format", ["v7", "ustar", "pax", "gnu", "oldgnu"])
def test_what_tar_itself_packs(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / T
    deep = top / ("f" * 30) / ("g" * 30)
    deep.mkdir(parents=True)
    (top / "etcd").write_bytes(b"x" * 1025)
    with (deep / ("h" * 25)).open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"x" * 10)
    (top / "link").symlink_to("etcd")
    os.link(top / "etcd", top / "zz-hard")
    if format in ("pax", "gnu", "oldgnu"):
        (deep / ("i" * 200)).write_bytes(b"x")
        (deep / "umlaut-\N{LATIN SMALL LETTER U WITH DIAERESIS}").write_bytes(b"x")
        (top / "far").symlink_to("f" * 30 + "/" + "g" * 30 + "/" + "i" * 200)
    path = tmp_path / "t.tar.gz"
    flags = ["-S"] if format in ("pax", "gnu", "oldgnu") else []
    command = ["tar", f"--format={format}", *flags, "-C", str(tmp_path), "-czf", str(path), T]
    subprocess.run(command, check=True)
    _compare(path, tmp_path, monkeypatch)


def _compare(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine: list[tuple[str, str]] = []
    real = tar_reader._Look._entry

    def noted(look: tar_reader._Look, entry: tar_headers.Entry) -> None:
        if entry.kind != tar_headers.FOLDER:
            target = entry.target if entry.kind == tar_headers.LINK else ""
            mine.append((entry.name, target))
        real(look, entry)

    monkeypatch.setattr(tar_reader._Look, "_entry", noted)
    found = tar_reader.read(path)[1]
    assert found.refusal == ""
    assert sorted(mine) == as_tar_sees(folder, path)


def test_what_comes_after_a_damaged_header(tmp_path: Path) -> None:
    """GNU tar goes on after it, so nobody may hide entries there."""
    good, bad = io.BytesIO(), io.BytesIO()
    for into, name in ((good, "t/etcd"), (bad, "t/null")):
        with tarfile.open(fileobj=into, mode="w") as archive:
            entry = tarfile.TarInfo(name)
            if into is bad:
                entry.type = tarfile.CHRTYPE
            archive.addfile(entry)
    path = tmp_path / "d.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(good.getvalue()[:512] + b"damaged " * 64 + bad.getvalue())
    assert "has a damaged header, or data after its end" in tar_reader.read(path)[1].refusal


def test_the_digest_is_of_the_whole_file_whatever_it_holds(tmp_path: Path) -> None:
    path = packed(tmp_path, _two)
    body = path.read_bytes()
    for content in (body, body[:-20], body + b"trailing", b"", b"no tarball" * 1000):
        path.write_bytes(content)
        assert tar_reader.read(path)[0] == hashlib.sha256(content).hexdigest()


def test_it_is_read_in_one_pass_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path, _two)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    source, cache = Source(path=path, sha256=sha), tmp_path / "cache"
    digests: list[Path] = []
    real = artifacts.digest

    def counted(path: Path) -> str:
        digests.append(path)
        return real(path)

    monkeypatch.setattr(artifacts, "digest", counted)
    first = artifacts.fetch(source, cache)
    assert digests == []
    assert first.seen is not None
    assert first.seen.refusal
    assert not cache.exists(), "this may be a dry run"
    artifacts.remember(first, cache)
    monkeypatch.setattr(tar_reader, "read", lambda path: pytest.fail("it was read again"))
    again = artifacts.fetch(source, cache)
    assert again.seen == first.seen
    assert digests == [path]


def test_the_room_on_a_host_is_for_what_is_really_in_it(tmp_path: Path) -> None:
    found = Artifact(tmp_path, "0" * 64, 10, Seen(unpacked=1000))
    assert (found.room(3), found.room(200)) == (1010, 2000)
    assert Artifact(tmp_path, "0" * 64, 10).room(3) == 30


def test_nothing_is_kept_under_a_digest_that_the_file_does_not_have(tmp_path: Path) -> None:
    path = packed(tmp_path, _two)
    with pytest.raises(PreflightFailed):
        artifacts.fetch(Source(path=path, sha256="1" * 64), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_every_tarball_with_a_problem_is_named(tmp_path: Path) -> None:
    sources = [Source(path=tmp_path / f"{n}.tar.gz", sha256="0" * 64) for n in range(2)]
    with pytest.raises(PreflightFailed) as caught:
        artifacts.fetch_all(sources, tmp_path)
    assert [Path(p.where).name for p in caught.value.problems] == ["0.tar.gz", "1.tar.gz"]


# On a host: the script that unpacks, by a real shell.


def artifact(path: Path) -> Artifact:
    body = path.read_bytes()
    return Artifact(path, hashlib.sha256(body).hexdigest(), len(body))


def receive(tree: Tree, root: Path) -> subprocess.CompletedProcess[bytes]:
    command = hosts.below(root, tree.receive())
    body = tree.artifact.path.read_bytes()
    return subprocess.run(["sh", "-c", command], input=body, capture_output=True)


@pytest.mark.process
def test_modes_are_normal_after_unpacking(tmp_path: Path) -> None:
    tree = Tree(f"{tmp_path}/opt/3.6.16", artifact(packed(tmp_path, _good)))
    done = receive(tree, tmp_path)
    assert done.returncode == 0, done.stderr
    modes = {
        str(p.relative_to(tree.path)): p.stat().st_mode & 0o7777
        for p in [Path(tree.path), *Path(tree.path).rglob("*")]
        if not p.is_symlink()
    }
    assert modes == {
        ".": 0o755,
        "etcd": 0o755,
        "again": 0o755,
        "etcdctl": 0o644,
        "all": 0o644,
        "shared": 0o755,
        "legal": 0o755,
        "legal/base": 0o755,
        "legal/base/LICENSE": 0o644,
        "legal/other": 0o755,
        trees.MARKER: 0o644,
    }
    assert Path(tree.path, "legal/other/LICENSE").read_bytes() == b"x"


@pytest.mark.process
@pytest.mark.skipif(not ROOT, reason="only root makes devices")
@pytest.mark.parametrize("fill", [_flat, _two, _beside, _device, _fifo])
def test_the_host_refuses_as_well(fill: Fill, tmp_path: Path) -> None:
    tree = Tree(f"{tmp_path}/opt/3.6.16", artifact(packed(tmp_path, fill)))
    assert receive(tree, tmp_path).returncode != 0
    assert list((tmp_path / "opt").iterdir()) == []


@pytest.mark.process
@pytest.mark.parametrize("target", ["/etc/cron.d", "../../../..", "../x"])
def test_the_host_looks_at_links_itself(target: str, tmp_path: Path) -> None:
    """Two readers of an archive may see two targets; what counts is what was unpacked."""
    tree = Tree(
        f"{tmp_path}/opt/3.6.16", artifact(packed(tmp_path, _with(("link", f"{T}/conf", target))))
    )
    done = receive(tree, tmp_path)
    assert done.returncode != 0
    assert b"leads outside" in done.stderr
    assert list((tmp_path / "opt").iterdir()) == []


@pytest.mark.process
@pytest.mark.parametrize("name", [trees.MARKER, trees.OWNER, ".artifact.new"])
@pytest.mark.parametrize("method", ["file", "folder"])
def test_the_host_looks_at_names_itself(method: str, name: str, tmp_path: Path) -> None:
    tree = Tree(
        f"{tmp_path}/opt/3.6.16", artifact(packed(tmp_path, _with((method, f"{T}/{name}"))))
    )
    done = receive(tree, tmp_path)
    assert done.returncode != 0
    assert b"a name of this tool's own files" in done.stderr
    assert list((tmp_path / "opt").iterdir()) == []


@pytest.mark.process
def test_the_own_mark_is_not_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    fill = _with(("link", f"{T}/{trees.MARKER}", str(victim)))
    tree = Tree(f"{tmp_path}/opt/3.6.16", artifact(packed(tmp_path, fill)))
    assert receive(tree, tmp_path).returncode != 0
    assert not victim.exists()


def _proven(tmp_path: Path, fill: Fill, says: str = "etcd Version: 3.6.16") -> Tree:
    path = f"{tmp_path}/opt/3.6.16"
    proof = Proof(path, "etcd", ("--version",), "nobody", says)
    return Tree(path, artifact(packed(tmp_path, fill)), ("etcd.service",), proof=proof)


@pytest.mark.skipif(not ROOT, reason="only root becomes another user")
class TestProof:
    @pytest.mark.process
    def test_a_program_that_answers(self, tmp_path: Path) -> None:
        tree = _proven(tmp_path, etcd)
        done = receive(tree, tmp_path)
        assert done.returncode == 0, done.stderr

    @pytest.mark.process
    @pytest.mark.parametrize(
        "content",
        [
            b"#!/bin/sh\necho broken; exit 1\n",
            b"#!/bin/sh\necho etcd Version: 3.6.1\n",
            b"#!/bin/sh\necho etcd Version: 3.6.160\n",
            b"\x7fELF not for this CPU",
            b"",
        ],
    )
    def test_one_that_does_not_answer_never_comes_to_its_place(
        self, content: bytes, tmp_path: Path
    ) -> None:
        """What is there stays there, and no restart is noted."""
        old = tmp_path / "opt/3.6.16"
        old.mkdir(parents=True)
        (old / "running").touch()

        def fill(a: Archive) -> None:
            a.file(f"{T}/etcd", content)

        done = receive(_proven(tmp_path, fill), tmp_path)
        assert done.returncode != 0
        assert b"does not answer as user nobody" in done.stderr
        assert [p.name for p in (tmp_path / "opt").iterdir()] == ["3.6.16"]
        assert (old / "running").exists()
        assert not (tmp_path / ".state").exists()

    @pytest.mark.process
    def test_a_user_that_is_not_made_yet(self, tmp_path: Path) -> None:
        path = f"{tmp_path}/opt/3.6.16"
        proof = Proof(path, "etcd", ("--version",), "no-such-user", "etcd Version: 3.6.16")
        tree = Tree(path, artifact(packed(tmp_path, etcd)), proof=proof)
        assert receive(tree, tmp_path).returncode == 0

    @pytest.mark.process
    def test_from_its_final_place(self, tmp_path: Path) -> None:
        """A folder above it that the user may not enter."""
        with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
            root = Path(name)
            root.chmod(0o755)
            path = f"{root}/opt/3.6.16"
            proof = Proof(path, "etcd", ("--version",), "nobody", "etcd Version: 3.6.16")
            tree = Tree(path, artifact(packed(tmp_path, etcd)), proof=proof)
            assert receive(tree, tmp_path).returncode == 0
            done = hosts.shell(proof.script(), tmp_path)
            assert done.ok, done.stderr
            (root / "opt").chmod(0o700)
            done = hosts.shell(proof.script(), tmp_path)
            assert not done.ok
            assert "does not answer as user nobody" in done.stderr

    @pytest.mark.process
    def test_what_only_has_to_be_there(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("")
        (tmp_path / "version.sh").write_text("VERSION=313\n")
        proof = Proof(str(tmp_path), "run", (), "root", readable=("version.sh",))
        assert not hosts.shell(proof.script(), tmp_path).ok
        (tmp_path / "run").chmod(0o755)
        assert hosts.shell(proof.script(), tmp_path).ok
        (tmp_path / "version.sh").unlink()
        assert "cannot read version.sh" in hosts.shell(proof.script(), tmp_path).stderr
