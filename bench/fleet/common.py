"""What both programs here need: a process measured, an etcd of their own, the tool's command."""

from __future__ import annotations

import contextlib
import datetime
import importlib.machinery
import importlib.util
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / ".lab" / "artifacts"
#: What a process that is stopped has to end by itself.
STOP_SECONDS = 5
TOOL = [str(Path(sys.executable).with_name("invoke")), "--search-root", str(ROOT)]
#: Starts a command and writes what it took to a file: seconds, bytes. The kernel counts the peak
#: memory of whoever starts a process as that process's, too (``exec_mmap``, which calls
#: ``setmax_mm_hiwater_rss``), and the program here holds the output of all runs before.
STARTER = """\
import json, os, signal, sys, time
started = time.perf_counter()
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
_, status, usage = os.wait4(process, 0)
took = time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
os.write(int(sys.argv[1]), json.dumps([*took, os.waitstatus_to_exitcode(status)]).encode())
"""


@dataclass(frozen=True)
class Measured:
    """One process from start to end, with those that it waited for: seconds, and bytes."""

    wall: float
    cpu: float
    peak_rss: int
    code: int
    stdout: str
    stderr: str
    #: Stopped at its time limit: it would have taken longer than ``wall``.
    stopped: bool = False

    def figures(self) -> dict[str, float]:
        kept = asdict(self)
        return {name: kept[name] for name in ("wall", "cpu", "peak_rss", "code", "stopped")}


def measure(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit: float | None = None,
) -> Measured:
    """Run a command, for ``limit`` seconds at most; how it ends is the caller's to judge."""
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        tempfile.TemporaryFile() as told,
    ):
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", STARTER, str(told.fileno()), *command],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=[told.fileno()],
            start_new_session=limit is not None,
        )
        stopped = threading.Event()
        clock = threading.Timer(limit or 0, lambda: _stop(process, stopped))
        clock.daemon = True
        try:
            if limit is not None:
                clock.start()
            process.wait()
        except BaseException:
            process.kill()
            raise
        clock.cancel()
        wall = time.perf_counter() - started
        texts = []
        for file in (out, err, told):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    # A command that had to be killed took its starter with it.
    took = json.loads(texts.pop() or "null") or [wall, 0.0, 0, process.returncode]
    return Measured(*took, *texts, stopped=stopped.is_set())


def _stop(process: subprocess.Popen[bytes], stopped: threading.Event) -> None:
    """End it with all that it has started, gently: it then waits for those, and has their times."""
    stopped.set()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(STOP_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def etcd(state: Path, address: str, client_port: int = 0, version: str = "3.6.16") -> Iterator[str]:
    """One etcd with an empty database, without TLS. Yields its client URL."""
    binary = state / f"etcd-{version}"
    if not binary.exists():
        with tarfile.open(ARTIFACTS / f"etcd-v{version}-linux-amd64.tar.gz") as tar:
            name = next(n for n in tar.getnames() if n.endswith("/etcd"))
            found = tar.extractfile(name)
            assert found is not None
            binary.write_bytes(found.read())
            binary.chmod(0o755)
    ports = free_ports(address, 2)
    client, peer = (f"http://{address}:{port}" for port in (client_port or ports[0], ports[1]))
    with tempfile.TemporaryDirectory(dir=state) as data, (state / "etcd.log").open("w") as log:
        command = [str(binary), "--data-dir", data, "--name", "bench", "--unsafe-no-fsync"]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", f"bench={peer}"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(address, int(client.rsplit(":", 1)[1]), process)
            yield client
        finally:
            process.terminate()
            process.wait()


def free_ports(address: str, count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server((address, 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in taken]


def wait_for(address: str, port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((address, port), 2).close()
            return
        except OSError:
            if time.monotonic() > deadline or (process and process.poll() is not None):
                sys.exit(f"bench: nobody listens on {address}:{port}")
            time.sleep(0.05)


#: A timing starts at a load below this; waited for at most so many seconds.
QUIET_LOAD, QUIET_SECONDS = 1.0, 300


def quiet() -> None:
    """Wait until nothing else runs. Ends the program if something does all the time."""
    deadline = time.monotonic() + QUIET_SECONDS
    while os.getloadavg()[0] >= QUIET_LOAD:
        if time.monotonic() > deadline:
            sys.exit(f"bench: the load is {os.getloadavg()[0]:.1f}: a timing needs a quiet machine")
        time.sleep(2)


def compiled() -> None:
    """As on everybody's machine: modules are compiled before, and output is buffered."""
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        os.environ.pop(name, None)
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", str(ROOT / "provision"), str(ROOT / "tasks.py")],
        check=True,
    )


def program(path: Path) -> ModuleType:
    """A program without a suffix, as a module: bench/run, say."""
    loader = importlib.machinery.SourceFileLoader(path.name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(path.name, loader))  # type: ignore[arg-type]
    sys.modules[path.name] = module
    loader.exec_module(module)
    return module


def header(name: str) -> dict[str, object]:
    """What every document of results begins with."""
    return {
        "schema": f"alluxio-provision/bench-{name}/1",
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "revision": revision(),
        "processors": os.cpu_count(),
    }


def revision() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
