"""Tarballs by path and by URL: nothing goes on that does not have the declared sha256."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from provision import artifacts, bounds, tar_reader
from provision.errors import PreflightFailed
from provision.inventory.model import Source

BODY = b"a tarball" * 100_000
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    path = tmp_path / "etcd-v3.6.16-linux-amd64.tar.gz"
    path.write_bytes(BODY)
    return path


def refused(source: Source, cache: Path) -> str:
    with pytest.raises(PreflightFailed) as caught:
        artifacts.fetch(source, cache)
    assert caught.value.exit_code == 3
    (problem,) = caught.value.problems
    assert problem.remedy
    return f"{problem.where}: {problem.what}"


class TestPath:
    @pytest.mark.parametrize("digest", [SHA, SHA.upper()])
    def test_good(self, tarball: Path, digest: str) -> None:
        found = artifacts.fetch(Source(path=tarball, sha256=digest), tarball.parent / "cache")
        assert found == artifacts.Artifact(tarball, SHA, len(BODY))

    def test_what_is_declared_before_anybody_has_looked(self, tarball: Path) -> None:
        cache = tarball.parent / "cache"
        good, bad = Source(path=tarball, sha256=SHA.upper()), Source(path=tarball, sha256="0" * 64)
        assert artifacts.declared(good, cache) == artifacts.fetch(good, cache)
        assert artifacts.declared(bad, cache) == artifacts.Artifact(tarball, "0" * 64, len(BODY))
        assert artifacts.declared(Source(path=cache, sha256=SHA), cache) is None  # not there

    def test_another_digest(self, tarball: Path) -> None:
        said = refused(Source(path=tarball, sha256="0" * 64), Path("/nowhere"))
        assert f"sha256 is {SHA}, but the inventory says {'0' * 64}" in said

    def test_not_there(self, tmp_path: Path) -> None:
        source = Source(path=tmp_path / "x.tar.gz", sha256=SHA)
        assert refused(source, tmp_path).endswith("cannot be read: No such file or directory")

    def test_a_folder(self, tmp_path: Path) -> None:
        assert "Is a directory" in refused(Source(path=tmp_path, sha256=SHA), tmp_path)


class TestSums:
    def source(self, tarball: Path, sums: str) -> Source:
        file = tarball.with_name("SHA256SUMS")
        file.write_text(sums)
        return Source(path=tarball, sha256=f"file:{file}")

    @pytest.mark.parametrize("form", ["{sha}  {name}", "{sha} *{name}", "{sha}  ./dist/{name}"])
    def test_listed(self, tarball: Path, form: str) -> None:
        other = f"{'1' * 64}  other.tar.gz\n\n# comment\n"
        sums = other + form.format(sha=SHA, name=tarball.name) + "\n"
        assert artifacts.fetch(self.source(tarball, sums), tarball.parent).sha256 == SHA

    def test_not_listed(self, tarball: Path) -> None:
        said = refused(self.source(tarball, f"{SHA}  other.tar.gz\n"), tarball.parent)
        assert said.endswith(f"SHA256SUMS: does not list {tarball.name}")

    def test_no_digest(self, tarball: Path) -> None:
        said = refused(self.source(tarball, f"../../x  {tarball.name}\n"), tarball.parent)
        assert "has no sha256" in said

    def test_no_such_file(self, tarball: Path) -> None:
        said = refused(Source(path=tarball, sha256="file:/nowhere/SUMS"), tarball.parent)
        assert said == "/nowhere/SUMS: cannot be read: No such file or directory"


Serve = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Serve], str]]:
    """Start a server that answers like the function given; its URL."""
    servers = []

    def start(answer: Serve) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/dist/etcd.tar.gz?token=x"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def whole(request: BaseHTTPRequestHandler, body: bytes = BODY, length: int | None = None) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)


@contextlib.contextmanager
def endless(piece: bytes, count: int, start: bytes = b"") -> Iterator[tuple[str, list[int]]]:
    """A server that sends ``start`` and then ``piece`` again and again, ``count`` bytes at a time,
    until the client goes. Its URL, and how much was sent."""
    sent: list[int] = []

    def talk(client: socket.socket) -> None:
        text = itertools.cycle(piece)
        with client, contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.recv(1 << 16)
            client.sendall(start)
            while True:
                client.sendall(bytes(itertools.islice(text, count)))
                sent.append(count)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=talk, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x.tar.gz", sent
        server.shutdown(socket.SHUT_RDWR)


class TestUrl:
    @pytest.mark.process
    def test_downloaded_once(self, serve: Callable[[Serve], str], tmp_path: Path) -> None:
        asked = []

        def answer(request: BaseHTTPRequestHandler) -> None:
            asked.append(request.path)
            whole(request)

        source = Source(url=serve(answer), sha256=SHA)
        first = artifacts.fetch(source, tmp_path)
        assert first.path.name == artifacts.file_name(source) == "etcd.tar.gz"
        assert first.path.read_bytes() == BODY
        assert artifacts.fetch(source, tmp_path) == first
        assert len(asked) == 1
        first.path.write_bytes(b"rotten")
        assert artifacts.fetch(source, tmp_path) == first
        assert len(asked) == 2

    @pytest.mark.process
    def test_another_content(self, serve: Callable[[Serve], str], tmp_path: Path) -> None:
        source = Source(url=serve(lambda r: whole(r, b"else")), sha256=SHA)
        assert "but the inventory says" in refused(source, tmp_path)
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == []

    @pytest.mark.process
    def test_cut_short(self, serve: Callable[[Serve], str], tmp_path: Path) -> None:
        source = Source(url=serve(lambda r: whole(r, BODY[:-9], len(BODY))), sha256=SHA)
        refused(source, tmp_path)
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == []

    @pytest.mark.process
    def test_refused_by_the_server(self, serve: Callable[[Serve], str], tmp_path: Path) -> None:
        source = Source(url=serve(lambda r: r.send_error(404)), sha256=SHA)
        assert "cannot be downloaded: HTTP Error 404" in refused(source, tmp_path)

    @pytest.mark.process
    def test_not_http(self, serve: Callable[[Serve], str], tmp_path: Path) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.wfile.write(b"\x1b]0;x\x07" * 99)

        assert refused(Source(url=serve(answer), sha256=SHA), tmp_path).isprintable()

    @pytest.mark.process
    def test_nobody_there(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        source = Source(url=f"http://127.0.0.1:{port}/x.tar.gz", sha256=SHA)
        assert "Connection refused" in refused(source, tmp_path)

    @pytest.mark.process
    def test_a_server_that_says_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(artifacts, "DOWNLOAD_TIMEOUT", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/x.tar.gz"
            assert "timed out" in refused(Source(url=url, sha256=SHA), tmp_path)

    @pytest.mark.process
    @pytest.mark.parametrize(
        "line",
        [
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n" + b"x" * 999,
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60_000 + b"\r\n\r\n",
        ],
    )
    @pytest.mark.parametrize("fast", [True, False])
    def test_headers_without_an_end(
        self, line: bytes, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that sends them for ever, or byte by byte."""
        # 60,000 bytes, one by one, take longer than 0.001 s. An endless body follows.
        limits = (60.0, 1 << 14) if fast else (0.001, 1 << 40)
        monkeypatch.setattr(bounds, "DOWNLOAD_HEADER_SECONDS", limits[0])
        monkeypatch.setattr(bounds, "DOWNLOAD_HEADER", limits[1])
        monkeypatch.setattr(bounds, "TARBALL", 1 << 20)
        with endless(line, 1 << 16 if fast else 1) as (url, sent):
            what = refused(Source(url=url, sha256=SHA), tmp_path)
        if fast:
            # Python from 3.14.10 on counts answers such as 100 itself.
            of_python = "got more than 100 interim responses" in what
            assert "the server's headers have more than 16 kB" in what or of_python
        else:
            assert "the server's headers have no end in 0.001 s" in what
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
        assert sum(sent) < 64 << 20

    @pytest.mark.process
    def test_a_body_that_drips_or_has_no_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start = b"HTTP/1.1 200 OK\r\n\r\n"
        monkeypatch.setattr(bounds, "TARBALL", 1 << 20)
        with endless(b"x", 1 << 16, start) as (url, _):
            assert "it has more than 1.0 MB" in refused(Source(url=url, sha256=SHA), tmp_path)
        monkeypatch.setattr(bounds, "TARBALL", 1 << 40)
        monkeypatch.setattr(bounds, "STREAM_GRACE", 0.1)
        monkeypatch.setattr(bounds, "STREAM_RATE", 1 << 40)
        with endless(b"x", 1, start) as (url, _):
            said = refused(Source(url=url, sha256=SHA), tmp_path)
        assert "less than 1073741824 KiB a second" in said
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == []

    @pytest.mark.process
    def test_trailers_without_an_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After the last piece there may be more headers, which are read within one call."""
        monkeypatch.setattr(bounds, "TARBALL", 1 << 16)
        start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
        with endless(b"X: y\r\n", 1 << 12, start) as (url, _):
            what = refused(Source(url=url, sha256=SHA), tmp_path)
        # Python from 3.14.10 on counts them itself.
        assert "it has more than 66 kB" in what or "got more than 100 trailers" in what

    @pytest.mark.process
    def test_a_redirect(self, serve: Callable[[Serve], str], tmp_path: Path) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            if request.path == "/there":
                whole(request)
                return
            request.send_response(302)
            request.send_header("Location", "/there")
            request.send_header("Content-Length", "0")
            request.end_headers()

        assert artifacts.fetch(Source(url=serve(answer), sha256=SHA), tmp_path).sha256 == SHA

    @pytest.mark.process
    @pytest.mark.parametrize("elsewhere", ["ftp://127.0.0.1:1/x", "file:///etc/passwd"])
    def test_a_redirect_to_something_else(
        self, elsewhere: str, serve: Callable[[Serve], str], tmp_path: Path
    ) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(302)
            request.send_header("Location", elsewhere)
            request.end_headers()

        said = refused(Source(url=serve(answer), sha256=SHA), tmp_path)
        assert "unknown url type: ftp" in said or "not allowed" in said

    def test_a_cache_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        source = Source(url="http://127.0.0.1:1/x", sha256=SHA)
        assert "cannot be downloaded" in refused(source, tmp_path / "file")


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert artifacts.default_cache() == Path("/x/alluxio-provision")


class TestUnread:
    """A tarball that no host is to get is read again only when it may have changed."""

    @pytest.fixture
    def kept(self, tarball: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Source, Path]:
        """A tarball that an earlier run has read, and the cache."""
        monkeypatch.setattr(tar_reader, "SETTLED", -1.0)  # it was written just now
        source, cache = Source(path=tarball, sha256=SHA), tarball.parent / "cache"
        artifacts.remember(artifacts.fetch(source, cache), cache)
        return source, cache

    def test_unchanged(self, kept: tuple[Source, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        source, cache = kept
        monkeypatch.setattr(artifacts, "digest", lambda path: pytest.fail("it was read"))
        found = artifacts.fetch(source, cache, unread=True)
        assert found == artifacts.Artifact(found.path, SHA, len(BODY))
        assert found.unread
        assert found.seen is not None

    def test_it_is_read_for_a_host(self, kept: tuple[Source, Path]) -> None:
        source, cache = kept
        assert not artifacts.fetch(source, cache).unread

    @pytest.mark.parametrize("body", [BODY, BODY[:-1] + b"?", BODY[:-1]])
    def test_written_again(self, kept: tuple[Source, Path], body: bytes) -> None:
        """Also with the same size and the same time."""
        source, cache = kept
        assert source.path is not None
        before = source.path.stat()
        # Times of files go in steps of the kernel's clock.
        while source.path.stat().st_ctime_ns == before.st_ctime_ns:
            source.path.write_bytes(body)
            os.utime(source.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if body == BODY:
            assert not artifacts.fetch(source, cache, unread=True).unread
            return
        with pytest.raises(PreflightFailed, match="sha256 is"):
            artifacts.fetch(source, cache, unread=True)

    def test_another_digest_is_declared(self, kept: tuple[Source, Path]) -> None:
        source, cache = kept
        with pytest.raises(PreflightFailed, match="sha256 is"):
            artifacts.fetch(Source(path=source.path, sha256="0" * 64), cache, unread=True)

    @pytest.mark.parametrize("said", ["", "{}", "[1]", '["a"]', "null", "[[]]"])
    def test_what_was_kept_is_damaged(self, kept: tuple[Source, Path], said: str) -> None:
        source, cache = kept
        (cache / "contents" / f"{SHA}.stamp").write_text(said)
        assert not artifacts.fetch(source, cache, unread=True).unread

    def test_written_just_now(self, tarball: Path) -> None:
        """A second change in the same step of the clock would leave the same times."""
        source, cache = Source(path=tarball, sha256=SHA), tarball.parent / "cache"
        found = artifacts.fetch(source, cache)
        assert found.stamp is None
        artifacts.remember(found, cache)
        assert not artifacts.fetch(source, cache, unread=True).unread
