"""Tarballs by path and by URL: nothing goes on that does not have the declared sha256."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from provision import artifacts
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


class TestUrl:
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

    def test_another_content(self, serve: Callable[[Serve], str], tmp_path: Path) -> None:
        source = Source(url=serve(lambda r: whole(r, b"else")), sha256=SHA)
        assert "but the inventory says" in refused(source, tmp_path)
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == []

    def test_cut_short(self, serve: Callable[[Serve], str], tmp_path: Path) -> None:
        source = Source(url=serve(lambda r: whole(r, BODY[:-9], len(BODY))), sha256=SHA)
        refused(source, tmp_path)
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == []

    def test_refused_by_the_server(self, serve: Callable[[Serve], str], tmp_path: Path) -> None:
        source = Source(url=serve(lambda r: r.send_error(404)), sha256=SHA)
        assert "cannot be downloaded: HTTP Error 404" in refused(source, tmp_path)

    def test_not_http(self, serve: Callable[[Serve], str], tmp_path: Path) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.wfile.write(b"\x1b]0;x\x07" * 99)

        assert refused(Source(url=serve(answer), sha256=SHA), tmp_path).isprintable()

    def test_nobody_there(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        source = Source(url=f"http://127.0.0.1:{port}/x.tar.gz", sha256=SHA)
        assert "Connection refused" in refused(source, tmp_path)

    def test_a_server_that_says_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(artifacts, "DOWNLOAD_TIMEOUT", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/x.tar.gz"
            assert "timed out" in refused(Source(url=url, sha256=SHA), tmp_path)

    def test_a_cache_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        source = Source(url="http://127.0.0.1:1/x", sha256=SHA)
        assert "cannot be downloaded" in refused(source, tmp_path / "file")


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert artifacts.default_cache() == Path("/x/alluxio-provision")
