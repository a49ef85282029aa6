"""kubectl, the only way to the cluster: its output, and forwards that surely end."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from provision import bounds, progress
from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem, UsageError
from provision.text import EXCERPT, document, printable, size

DEFAULT_TIMEOUT = 15.0
#: Seconds after which a forward ends by itself, even if this program was killed before.
LONGEST_FORWARD = 600
#: What ``kubectl port-forward`` prints once it listens.
_LISTENS = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")


class KubectlError(PreflightFailed):
    """kubectl failed, or did not answer: the cluster could not be asked."""


class Pod(NamedTuple):
    """One pod. ``address`` is empty until it has one; ``phase`` is Pending, Running..."""

    name: str
    address: str
    phase: str


@dataclass(frozen=True, slots=True)
class Kubectl:
    """How kubectl is called, always for one namespace."""

    command: tuple[str, ...]
    namespace: str
    kubeconfig: Path | None = None
    context: str | None = None

    def run(self, *arguments: str, timeout: float = DEFAULT_TIMEOUT) -> str:
        """kubectl's standard output. Raises :class:`KubectlError`, and :class:`UsageError` without
        kubectl."""
        try:
            child = subprocess.Popen(
                self.line(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise self.missing(error) from error
        with child:  # at its end this closes the pipes, and waits
            try:
                with progress.calling("kubectl", " ".join(arguments[:2]), timeout):
                    out, err = _outputs(child, timeout)
            except subprocess.TimeoutExpired:
                raise self.error(arguments[0], f"no answer in {timeout:g} s") from None
            except OverflowError as error:
                raise self.error(arguments[0], str(error)) from None
            finally:
                child.kill()
        if child.returncode != 0:
            raise self.error(arguments[0], last_line(err.decode(errors="replace")))
        return out.decode(errors="replace")

    def pods(self, selector: str, timeout: float = DEFAULT_TIMEOUT) -> list[Pod]:
        """The pods with these labels, by name, without pods that are being deleted."""
        text = self.run(
            *("get", "pods", "--selector", selector, "--output", "json"), timeout=timeout
        )
        try:
            items = document(text)["items"]
            found = [_pod(item) for item in items if "deletionTimestamp" not in item["metadata"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self.error("get", f"printed no list of pods: {printable(text, EXCERPT)}") from (
                error
            )
        return sorted(found)

    @contextlib.contextmanager
    def forward(self, target: str, port: int, timeout: float = DEFAULT_TIMEOUT) -> Iterator[int]:
        """A local port that forwards connections to ``port`` of ``target`` (``pod/NAME``).

        ``timeout`` (seconds) is for the start. Raises :class:`KubectlError`. The forward is a child
        of this process and ends with the ``with`` block. If this process is killed, the forward
        ends by itself after :data:`LONGEST_FORWARD` seconds.
        """
        child = _Forward(self.line("port-forward", "--address=127.0.0.1", target, f":{port}"), self)
        try:
            yield child.wait(target, timeout)
        finally:
            child.end()

    def line(self, *arguments: str) -> list[str]:
        """The whole command line. Nothing in it is secret."""
        options = [f"--namespace={self.namespace}"]
        if self.kubeconfig is not None:
            options.append(f"--kubeconfig={self.kubeconfig}")
        if self.context is not None:
            options.append(f"--context={self.context}")
        return [*self.command, *options, *arguments]

    def error(self, what: str, said: str) -> KubectlError:
        name = " ".join(self.command)
        return KubectlError(
            "Kubernetes could not be asked",
            [Problem(f"{name} {what}", said or "failed", id="kubectl-failed")],
            id="kubectl-failed",
        )

    def missing(self, error: OSError) -> UsageError:
        remedy = "install kubectl, or set kubernetes.kubectl"
        problem = Problem(
            self.command[0], error.strerror or str(error), remedy, id="kubectl-failed"
        )
        return UsageError("kubectl cannot be run", [problem], id="kubectl-failed")


def _outputs(child: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, bytes]:
    """Both outputs of a child, whole, when it has ended.

    Raises ``TimeoutExpired``, and ``OverflowError`` when it prints more than
    :data:`bounds.KUBECTL_OUTPUT`.
    """
    deadline = time.monotonic() + timeout
    found: dict[int, bytearray] = {}
    with selectors.DefaultSelector() as waiting:
        for pipe in (child.stdout, child.stderr):
            assert pipe is not None
            found[pipe.fileno()] = bytearray()
            waiting.register(pipe, selectors.EVENT_READ)
        while waiting.get_map():
            left = deadline - time.monotonic()
            ready = waiting.select(left) if left > 0 else []
            if not ready:
                raise subprocess.TimeoutExpired(child.args, timeout)
            for key, _ in ready:
                data = os.read(key.fd, 1 << 18)
                if not data:
                    waiting.unregister(key.fileobj)
                found[key.fd] += data
                if len(found[key.fd]) > bounds.KUBECTL_OUTPUT:
                    raise OverflowError(f"printed more than {size(bounds.KUBECTL_OUTPUT)}")
    child.wait(max(0.0, deadline - time.monotonic()))
    out, err = found.values()
    return bytes(out), bytes(err)


class _Forward:
    """A child process that forwards, and two threads that read its output, so that it never
    blocks."""

    def __init__(self, line: Sequence[str], kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._said: deque[str] = deque(maxlen=20)
        self._port: int | None = None
        self._known = threading.Event()
        try:
            self._child = subprocess.Popen(
                # timeout(1) outlives this process. The child has a session of its own, so Ctrl-C
                # reaches only this process.
                ["timeout", "--kill-after=2", str(LONGEST_FORWARD), *line],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise kubectl.missing(error) from error
        self._readers = [
            threading.Thread(target=self._read, args=(pipe,), daemon=True)
            for pipe in (self._child.stdout, self._child.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def wait(self, target: str, timeout: float) -> int:
        with progress.calling("kubectl", f"port-forward to {target}", timeout):
            known = self._known.wait(timeout)
        if not known:
            raise self._kubectl.error("port-forward", f"{target}: not there after {timeout:g} s")
        if self._port is None:
            for reader in self._readers:
                reader.join(1)
            raise self._kubectl.error("port-forward", f"{target}: {last_line(self._text())}")
        return self._port

    def end(self) -> None:
        self._child.terminate()  # timeout(1) passes the signal on
        try:
            self._child.wait(3)
        except subprocess.TimeoutExpired:
            # Popen made a session for it: only timeout(1) and kubectl are in it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def _read(self, pipe: Any) -> None:
        with pipe:
            for raw in iter(lambda: pipe.readline(65536), b""):
                text = raw.decode(errors="replace").rstrip()
                self._said.append(text)
                found = _LISTENS.match(text)
                if found and self._port is None:
                    self._port = int(found[1])
                    self._known.set()
        self._known.set()  # the output is closed: there is nothing more to wait for

    def _text(self) -> str:
        return "\n".join(self._said)


def last_line(text: str) -> str:
    """The last line that is not empty, safe to print."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[-1].removeprefix("error: "), 300) if lines else "it printed nothing"


def _pod(item: dict[str, Any]) -> Pod:
    status = item.get("status", {})
    return Pod(
        printable(str(item["metadata"]["name"]), 253),
        printable(str(status.get("podIP", "")), 64),
        printable(str(status.get("phase", "")), 40),
    )
