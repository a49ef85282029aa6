"""``--debug FILE``: one private file with everything that a bug report needs, and no secret.

It is written after any end of the run, completely or not at all. When it cannot be written, the
run's exit code does not change. ``manifest.json`` in it lists the contents.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from provision import __version__, terminal
from provision.cli.redact import Redactor, secrets
from provision.errors import ProvisionError, UsageError
from provision.files import write_whole
from provision.program_in_use import rendered, rendered_document
from provision.text import printable_lines

if TYPE_CHECKING:
    from provision.cli.run import Run
    from provision.engine.audit import EntryDocument
    from provision.host.facts import HostFacts
    from provision.inventory.resolved import Machine

SUFFIXES = (".tar.gz", ".tgz")
#: How many of the last characters on one stream are kept.
SHOWN = 1 << 20
#: How many log lines of a host's units are kept after a failed run.
LOG_LINES = 200
#: How many lines of the local audit log are searched for this run's lines.
AUDIT_LINES = 1000
#: Exit codes of runs that need no logs: success, nothing was contacted, Ctrl-C, `head`.
_NO_LOGS = (0, 2, 130, 141)
_INTERNAL = 70

_LEFT_OUT = {
    "contents of files on hosts": "they may be secret; their size and sha256 are in facts.json",
    "scripts and input of remote commands": "they hold files' contents",
    "environment variables": "they may be secret",
    "calls to etcd": "they are not kept; what they found is in stdout.txt and stderr.txt",
}


class ManifestDocument(TypedDict):
    """What is in a file of --debug: bytes by name, what is left out and why, what is redacted."""

    schema: Literal["alluxio-provision/debug/1"]
    made: str
    files: dict[str, int]
    left_out: dict[str, str]
    redacted: str


class _Shown:
    """A stream that keeps the end of its output."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._kept: deque[str] = deque()
        self._size = 0

    def write(self, text: str) -> int:
        self._kept.append(text)
        self._size += len(text)
        while self._size > SHOWN and len(self._kept) > 1:
            self._size -= len(self._kept.popleft())
        return int(self._stream.write(text))

    def kept(self) -> str:
        return "".join(self._kept)[-SHOWN:]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Recording:
    """The recording of one run, for the bundle in ``file``. Raises :class:`UsageError` at once for
    an unusable name, because the name would fail only after the run."""

    def __init__(self, file: Path) -> None:
        if not file.name.endswith(SUFFIXES):
            raise UsageError(
                f"--debug takes a file to write, called ...{SUFFIXES[0]}; not {str(file)!r}",
                id="option-invalid",
            )
        if file.exists():
            raise UsageError(f"{file}: an existing file is not overwritten", id="file-exists")
        if not file.absolute().parent.is_dir():
            raise UsageError(f"{file.parent}: there is no such folder", id="file-unwritable")
        self.file = file
        self.began = datetime.now(timezone.utc)
        self._stdout, self._stderr = _Shown(sys.stdout), _Shown(sys.stderr)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Within this context, output on stdout and stderr is also kept."""
        out: Any = self._stdout
        err: Any = self._stderr
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield

    def write(self, run: Run, code: int) -> None:
        """Gather the parts and write the file. Never raises: errors are printed on stderr."""
        try:
            files = self._files(run, code)
            write_whole(self.file, _packed(files), private=True)
            print(f"wrote {self.file}: look through it before you send it", file=sys.stderr)
        except KeyboardInterrupt:
            print(f"warning: {self.file} was not written: interrupted", file=sys.stderr)
        except Exception as error:
            print(f"warning: {self.file} was not written: {type(error).__name__}", file=sys.stderr)
            with contextlib.suppress(Exception):
                if isinstance(error, ProvisionError):
                    terminal.say(f"  {error.message}", stderr=True)

    def _files(self, run: Run, code: int) -> dict[str, str]:
        out: dict[str, str] = {}
        left_out = dict(_LEFT_OUT)
        redactor = Redactor(_known(run))

        def add(name: str, make: Callable[[], Any]) -> None:
            """Add a part. If it cannot be made, the other parts stay as they are."""
            try:
                made = make()
            except Exception as error:
                left_out[name] = f"{type(error).__name__}: {redactor.text(str(error))}"
                return
            if made is None:
                return
            if isinstance(made, str):
                lines = printable_lines(redactor.text(made))
                out[name] = "".join(f"{line}\n" for line in lines)
            else:
                out[name] = json.dumps(redactor.document(made), indent=2) + "\n"

        add("run.json", lambda: rendered_document(self._run(run, code)))
        add("versions.json", _versions)
        add("inventory.json", lambda: _inventory(run))
        add("facts.json", lambda: _facts(run))
        add("plan.json", lambda: rendered_document([plan.document() for plan in run.plans]))
        add("calls.json", lambda: _calls(run))
        add("audit.json", lambda: self._audit(run))
        add("stdout.txt", self._stdout.kept)
        add("stderr.txt", self._stderr.kept)
        add("traceback.txt", lambda: _traceback(run.error))
        for host, said in _logs(run, code).items():
            name = f"logs/{re.sub(r'[^A-Za-z0-9._-]', '_', redactor.text(host))}.txt"
            if isinstance(said, ProvisionError):
                left_out[name] = redactor.text(rendered(said.message))
            else:
                add(name, functools.partial("\n".join, said))
        if code in _NO_LOGS:
            left_out["logs"] = "only of hosts that were reached by a run that failed"
        inside = {name: len(text.encode()) for name, text in out.items()}
        manifest: ManifestDocument = {
            "schema": "alluxio-provision/debug/1",
            "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "files": inside,
            "left_out": left_out,
            "redacted": "secrets of the inventory, private keys, passwords in URLs, and values of "
            "what is called password, secret, credential or token",
        }
        text = json.dumps(redactor.document(manifest), indent=2) + "\n"
        return {"manifest.json": text, **out}

    def _run(self, run: Run, code: int) -> dict[str, Any]:
        error = run.error if isinstance(run.error, ProvisionError) else None
        return {
            "command_line": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "task": run.command,
            "began": self.began.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(timezone.utc) - self.began).total_seconds(), 3),
            "exit_code": code,
            "applying": run.applying,
            "id": error.id if error is not None else None,
            "error": error.message if error is not None else None,
            "problems": [p.document() for p in error.problems] if error is not None else [],
        }

    def _audit(self, run: Run) -> list[EntryDocument]:
        from provision.engine import audit

        began = self.began.strftime("%Y-%m-%dT%H:%M:%SZ")
        who = audit.author(run.command, "").who
        return [
            entry.document()
            for entry in audit.read_local(AUDIT_LINES)
            if entry.when >= began and (entry.command, entry.who) == (run.command, who)
        ]


def _known(run: Run) -> list[str]:
    """Every secret that this run may have met."""
    known = run.secrets()
    with contextlib.suppress(ProvisionError):  # an unreadable inventory reveals no secret either
        known += secrets(run.loaded.file, run.inventory_path)
    return known


def _versions() -> dict[str, Any]:
    from provision.ssh.session import LIBRARY

    wanted = [r for r in metadata.requires("alluxio-provision") or () if "extra ==" not in r]
    names = [re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in wanted]
    found: dict[str, str] = {}
    for name in (*names, LIBRARY):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    system = ""
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    ssh = shutil.which("ssh")
    said = (
        subprocess.run(
            # Its environment is seen by whoever sees the process: it gets no secret.
            [ssh, "-V"],
            env={},
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        ).stderr
        if ssh is not None
        else ""
    )
    return {
        "alluxio-provision": __version__,
        "python": sys.version,
        "dependencies": found,
        "system": system,
        # Not platform.platform(): it starts uname, with the secrets of this environment.
        "platform": " ".join((os.uname().sysname, os.uname().release, os.uname().machine)),
        "openssh": said.strip() or None,
    }


def _inventory(run: Run) -> list[dict[str, Any]] | None:
    """The inventory as in ``show-inventory``: secrets are references, never values."""
    from provision.inventory import provenance

    return [{"path": r.path, "value": r.value, "origin": r.origin} for r in provenance(run.loaded)]


def _facts(run: Run) -> dict[str, Any]:
    stats = run.stats_so_far
    from provision.host.facts import HostFacts

    found = stats.facts if stats else {}
    return {m.endpoint: _of_host(f) for m, f in found.items() if isinstance(f, HostFacts)}


def _of_host(facts: HostFacts) -> dict[str, Any]:
    """The facts that were asked."""
    from provision.host.facts import is_known

    found = {
        f.name: value
        for f in dataclasses.fields(facts)
        if f.name != "paths" and is_known(value := getattr(facts, f.name))
    }
    for name in ("units", "listeners", "disks"):
        if name in found:
            found[name] = {str(k): dataclasses.asdict(v) for k, v in found[name].items()}
    if "unreachable" in found:
        found["unreachable"] = {f"{a}:{p}": why for (a, p), why in facts.unreachable.items()}
    found["paths"] = {}
    for path, state in facts.paths.items():
        known = dataclasses.asdict(state)
        if (content := known.pop("content")) is not None:
            known["size"] = len(content)
            known["sha256"] = hashlib.sha256(content).hexdigest()
        found["paths"][path] = known
    return found


def _calls(run: Run) -> dict[str, Any]:
    stats = run.stats_so_far
    if stats is None:
        return {"calls": [], "broken": []}
    return {
        "calls": [dataclasses.asdict(call) for call in list(stats.calls)],
        "broken": [
            {"host": host, "what": what, "why": why} for host, what, why in list(stats.broken)
        ],
    }


def _traceback(error: BaseException | None) -> str | None:
    return None if error is None else "".join(traceback.format_exception(error))


def _logs(run: Run, code: int) -> dict[str, list[str] | ProvisionError]:
    """After a failed run: the last log lines of this tool's units on every reached host."""
    from provision.check_nodes import status
    from provision.ssh.session import Fleet, Session

    stats = run.stats_so_far
    if code in _NO_LOGS or stats is None:
        return {}
    reached = {call.host for call in list(stats.calls)}
    machines: list[Machine] = [m for m in run.inventory.machines if m.endpoint in reached]
    # After an error of this tool, the run's own connections are closed.
    own = code != _INTERNAL
    fleet = run.fleet if own else Fleet(run.inventory.parallel, None, run.passwords)

    def last(session: Session) -> list[str]:
        return status.journal(fleet, session.machine, LOG_LINES)

    try:
        return {m.endpoint: said for m, said in fleet.map(last, machines).items()}
    finally:
        if not own:
            fleet.close()


def _packed(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            data = text.encode(errors="replace")
            entry = tarfile.TarInfo(f"debug/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
