"""etcd's settings in each type, and at the limits of their types, given to a real etcd's file.

A type that this tool has wrong (``etcd-settings.txt``) stops etcd at its start.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from provision.inventory import settings
from provision.inventory.model import OWNED_ETCD_SETTINGS, Setting

#: Values in each type: as an operator may write them, and at the ends of the type.
VALUES: dict[str, tuple[Setting, ...]] = {
    "bool": ("true", False),
    "int": ("1000", (1 << 63) - 1),
    "int64": ("-1", 2_000_000_000.0),
    "uint": ("1000000", 5_000_000),
    "uint32": ("1", (1 << 32) - 1),
    "uint64": ("5000", (1 << 64) - 1),
    "duration": ("1m30s", "500ms", 1_000_000_000),
}
#: They would start something else, or want more than a type: a file, a cluster, another setting.
NOT_TRIED = {
    *OWNED_ETCD_SETTINGS,
    *("force-new-cluster", "heartbeat-interval", "election-timeout", "max-learners"),
    *("bcrypt-cost", "self-signed-cert-validity", "memory-mlock", "enable-distributed-tracing"),
    *("experimental-memory-mlock", "experimental-enable-distributed-tracing"),
    *("ClientAutoTLS", "PeerAutoTLS", "enable-log-rotation", "distributed-tracing-sampling-rate"),
    *("experimental-distributed-tracing-sampling-rate", "auto-compaction-retention"),
}
#: Texts and lists mean something of their own.
TEXTS: dict[str, tuple[Setting, ...]] = {
    "auto-compaction-mode": ("periodic",),
    "auto-compaction-retention": (1, "30m"),
    "cipher-suites": (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    ),
    "log-outputs": ("stderr", ["stderr", "stdout"]),
    "log-level": ("debug",),
    "host-whitelist": ("*",),
    "metrics": ("extensive",),
    "v2-deprecation": ("write-only",),
    # The model refuses less: a client needs a stream for its lease and more beside it.
    "max-concurrent-streams": ("10", (1 << 32) - 1),
}


def tried(minor: str, former: bool) -> dict[str, tuple[Setting, ...]]:
    """The keys to try. Those with ``former`` names are others: etcd takes one of both."""
    found = {} if former else dict(TEXTS)
    for key in settings.keys(minor) - NOT_TRIED:
        if key.startswith("experimental-") == former:
            found.setdefault(key, VALUES.get(settings._rows()[key][0], ()))
    return {key: values for key, values in found.items() if values}


def starts(binary: Path, folder: Path, given: dict[str, Setting]) -> str:
    """Empty when etcd serves with these settings, else what it says."""
    folder.mkdir()
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        client, peer = (f"http://127.0.0.1:{s.getsockname()[1]}" for s in (one, two))
    own = {
        "name": "infra0",
        "data-dir": str(folder / "data"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"infra0={peer}",
    }
    typed = {key: settings.typed(key, value) for key, value in given.items()}
    config = folder / "etcd.conf.yml"
    # As the template writes them.
    config.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in {**own, **typed}.items()))
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([binary, "--config-file", config], stdout=out, stderr=out)
    try:
        for _ in range(200):
            said = log.read_text(errors="replace")
            if "ready to serve client requests" in said:
                return ""
            if process.poll() is not None:
                return said[-2000:]
            time.sleep(0.05)
        return f"not ready in time: {said[-2000:]}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("former", [False, True])
@pytest.mark.parametrize("number", range(3))
def test_etcd_starts_with_every_setting_in_its_type(
    etcd_binary: Path, tmp_path: Path, number: int, former: bool
) -> None:
    """All of them at once, each with another of its values a time."""
    given = {key: values[number % len(values)] for key, values in tried("3.6", former).items()}
    assert len(given) > 15
    assert starts(etcd_binary, tmp_path / "etcd", given) == ""


@pytest.mark.parametrize(
    "given", [{"snapshot-count": "many"}, {"pre-vote": "y"}, {"corrupt-check-time": "soon"}]
)
def test_what_is_refused_here_is_refused_by_etcd(
    etcd_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Setting]
) -> None:
    for key, value in given.items():
        with pytest.raises(ValueError, match=r"whole number|true or false|a duration"):
            settings.typed(key, value)
    monkeypatch.setattr(settings, "typed", lambda key, value: value)
    assert "cannot unmarshal" in starts(etcd_binary, tmp_path / "etcd", given)
