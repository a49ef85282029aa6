"""What can be said of the client without a server; the rest is in tests/component."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from provision.etcd.api.errors import EtcdError, EtcdRefused, EtcdUnreachable, Reason, translated
from provision.etcd.api.values import Endpoint, Login, after

ENDPOINT = Endpoint("10.0.0.1", 2379)


def grpc_error(code: str, details: str) -> SimpleNamespace:
    return SimpleNamespace(code=lambda: SimpleNamespace(name=code), details=lambda: details)


# Details as grpcio 1.85 and etcd 3.4 to 3.7 give them.
@pytest.mark.parametrize(
    ("code", "details", "reason"),
    [
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:2379: "
            "Failed to connect to remote host: Connection refused",
            Reason.REFUSED,
        ),
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:4: Custom "
            "verification check failed with error: UNAUTHENTICATED: Hostname Verification Check "
            "failed.",
            Reason.TLS,
        ),
        ("UNAVAILABLE", "Handshake read failed (Socket closed)", Reason.TLS),
        ("UNAVAILABLE", "Socket closed", Reason.CLOSED),
        ("UNAVAILABLE", "etcdserver: no leader", Reason.NO_QUORUM),
        ("UNAVAILABLE", "etcdserver: request timed out", Reason.NO_QUORUM),
        ("UNAVAILABLE", "etcdserver: leader changed", Reason.NO_QUORUM),
        ("UNAVAILABLE", "something new", Reason.OTHER),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Reason.TIMEOUT),
        (
            "UNKNOWN",
            "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))",
            Reason.TIMEOUT,
        ),
        ("UNAVAILABLE", "Received RST_STREAM with error code 2", Reason.CLOSED),
        ("UNKNOWN", "Stream removed", Reason.CLOSED),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", Reason.LOGIN),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", Reason.LOGIN),
        (
            "INVALID_ARGUMENT",
            "etcdserver: authentication failed, invalid user ID or password",
            Reason.LOGIN,
        ),
        ("PERMISSION_DENIED", "etcdserver: permission denied", Reason.DENIED),
    ],
)
def test_errors_are_told_apart(code: str, details: str, reason: Reason) -> None:
    error = translated(ENDPOINT, grpc_error(code, details), 5)
    assert isinstance(error, EtcdUnreachable)
    assert error.reason is reason
    assert error.message.startswith(f"etcd at 10.0.0.1:2379: {reason.value}")
    assert "ipv4:" not in error.message


def test_a_refusal_says_what_the_server_said() -> None:
    details = "etcdserver: mvcc: database space\x1b[0m"
    error = translated(ENDPOINT, grpc_error("RESOURCE_EXHAUSTED", details), 5)
    assert type(error) is EtcdRefused
    assert isinstance(error, EtcdError)
    assert error.message == "etcd at 10.0.0.1:2379: etcdserver: mvcc: database space\ufffd[0m"
    assert error.exit_code == 1


def test_an_endpoint_is_named_by_the_member_not_by_the_tunnel() -> None:
    assert str(Endpoint("127.0.0.1", 40001, "10.0.0.1:2379")) == "10.0.0.1:2379"
    assert str(Endpoint("fd00::1", 2379)) == "[fd00::1]:2379"


def test_a_login_does_not_show_its_password() -> None:
    assert "hunter2" not in repr(Login("alluxio", "hunter2"))


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"/a/", b"/a0"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"\0", b"\0")],
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert after(prefix) == end


@pytest.mark.process
def test_importing_the_module_does_not_import_grpc() -> None:
    code = (
        "import sys, provision.etcd.cluster.health, provision.check_nodes.table; "
        "print([m for m in ('grpc', 'etcd3', 'rich', 'cryptography', 'paramiko', 'jinja2') "
        "if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.process
@pytest.mark.parametrize("folder", ["without", "another"])
def test_another_etcd3_is_one_line_with_the_remedy(folder: str, tmp_path: Path) -> None:
    package = tmp_path / "etcd3"
    package.mkdir()
    (package / "__init__.py").touch()
    if folder == "another":
        (package / "etcdrpc").mkdir()
        (package / "etcdrpc" / "kv_pb2.py").write_text("DESCRIPTOR = None\n")
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from provision.errors import UsageError\n"
        "from provision.etcd.api import client\n"
        "try:\n"
        "    client.preload()\n"
        "except UsageError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    what = {
        "without": "etcd3 without kv_pb2.py: No such file or directory",
        "another": "etcd3 is not version 0.12.0: no descriptor in kv_pb2.py",
    }
    assert run.stdout == (
        f"etcd3, grpcio and protobuf are needed: {what[folder]}; pip install this project\n"
    )
