"""`make audit`'s three answers, by the real pip-audit and a service on loopback that speaks OSV."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.component.conftest import free_ports

AUDIT = Path(__file__).parents[1] / "audit"
FOUND = {
    "id": "GHSA-0000-0000-0000",
    "aliases": [],
    "summary": "breaks",
    "affected": [{"package": {"name": "protobuf", "ecosystem": "PyPI"}, "ranges": []}],
}


@contextlib.contextmanager
def osv(known: dict[str, list[dict[str, Any]]], status: int = 200) -> Iterator[str]:
    """A service that knows ``known``, by package; its URL."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = known.get(asked.get("package", {}).get("name", ""))
            body = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        server.server_close()


def audit(url: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(AUDIT), "--osv-url", url]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)


def test_nothing_known_is_no_failure() -> None:
    with osv({}) as url:
        done = audit(url)
    assert done.returncode == 0, done.stderr
    assert "No known vulnerabilities found" in done.stderr


def test_a_vulnerability_is_one() -> None:
    with osv({"protobuf": [FOUND]}) as url:
        done = audit(url)
    assert done.returncode == 1
    assert "GHSA-0000-0000-0000" in done.stdout


def test_a_service_that_fails_is_one() -> None:
    with osv({}, status=500) as url:
        assert audit(url).returncode != 0


def test_nobody_to_ask_is_said() -> None:
    done = audit(f"http://127.0.0.1:{free_ports(1)[0]}/v1/query")
    assert done.returncode == 0
    assert "NOTHING WAS AUDITED" in done.stderr
