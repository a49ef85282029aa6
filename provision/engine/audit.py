"""The audit log: who changed what, when, and with which result. On every host, and on this machine.

On a host, the batch that makes the changes writes the line when it ends: also when a change fails
or the connection breaks, but not when the host itself or the shell is killed. On this machine, a
line is written for every host's batch and for every change in etcd. Lines contain the titles of
changes, never their content, and so no secrets.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TypedDict

from provision import bounds
from provision.dataclass import dataclass
from provision.errors import UsageError
from provision.files import make_folder, read_text
from provision.host.diff import AWAY
from provision.ssh.session import Session
from provision.text import document, printable

HOST_DIR = "/var/log/alluxio-provision"
HOST_LOG = f"{HOST_DIR}/audit.log"
#: A log of this size (bytes) becomes ``audit.log.1``, and replaces the file with this name.
MAX_BYTES = 1 << 20
MAX_LINES = 10_000
#: How many characters of a line are read; a line with 40 changes has some 4000.
LINE_LIMIT = 64_000


@dataclass(frozen=True, slots=True)
class Author:
    """The author of a run: ``who`` is user@machine of the control machine."""

    who: str
    command: str
    cluster: str


class EntryDocument(TypedDict):
    """A line of an audit log: how many of its changes were made, and how it ended."""

    when: str
    who: str
    command: str
    cluster: str
    name: str
    changes: list[str]
    done: int
    result: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``done`` of ``changes`` were made; ``result`` is ok or failed."""

    when: str
    who: str
    command: str
    cluster: str
    name: str
    changes: tuple[str, ...]
    done: int
    result: str

    def document(self) -> EntryDocument:
        """The entry for ``--format json``, in the same form as in the log."""
        return {
            "when": self.when,
            "who": self.who,
            "command": self.command,
            "cluster": self.cluster,
            "name": self.name,
            "changes": list(self.changes),
            "done": self.done,
            "result": self.result,
        }


def author(command: str, cluster: str) -> Author:
    user = getpass.getuser()
    if (behind := os.environ.get("SUDO_USER", user)) != user:
        user = f"{behind} as {user}"
    return Author(f"{user}@{socket.gethostname()}", command, cluster)


def lines(by: Author, name: str, changes: Sequence[str]) -> str:
    """Shell lines before the changes of a batch: they write the batch's line in the host's log.

    The batch keeps two variables: ``audit_done`` is the number of changes made, and ``t`` is a file
    that is being written; it is removed when the batch is cut off. When the log cannot be written,
    on a full disk for example, the result of the batch does not change.
    """
    entry = Entry("", by.who, by.command, by.cluster, name, tuple(changes), 0, "").document()
    fixed = {k: v for k, v in entry.items() if k not in ("when", "done", "result")}
    text = shlex.quote(json.dumps(fixed)[1:-1])
    return f"""\
audit_done=0
audit() {{
  [ "$1" = 0 ] && audit_result=ok || audit_result=failed
  install -d -m 0750 {HOST_DIR}
  if [ -e {HOST_LOG} ] && [ "$(stat -c %s {HOST_LOG} 2>/dev/null || echo 0)" -ge {MAX_BYTES} ]; then
    mv -f {HOST_LOG} {HOST_LOG}.1
  fi
  umask 027
  printf '{{"when": "%s", %s, "done": %s, "result": "%s"}}\\n' \\
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" {text} "$audit_done" "$audit_result" >>{HOST_LOG}
}}
audit_end() {{
  audit_status=$?
  set +e
  {AWAY}
  (audit $audit_status) 2>/dev/null
  exit $audit_status
}}
trap audit_end EXIT
trap 'exit 129' HUP
trap 'exit 141' PIPE"""


def local_log() -> Path:
    """``$XDG_STATE_HOME/alluxio-provision/audit.log``, or below ``~/.local/state``."""
    root = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(root).expanduser() / "alluxio-provision" / "audit.log"


def note(by: Author, name: str, changes: Sequence[str], *, ok: bool) -> None:
    """Add a line to the log on this machine. When it cannot be written, a warning is printed on
    stderr and nothing is raised: the change itself has been made."""
    entry = Entry(
        datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        by.who,
        by.command,
        by.cluster,
        name,
        tuple(changes),
        len(changes) if ok else 0,
        "ok" if ok else "failed",
    )
    path = local_log()
    try:
        make_folder(path.parent)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size >= MAX_BYTES:
                path.replace(path.with_name(f"{path.name}.1"))
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{json.dumps(entry.document())}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        print(f"warning: {path}: no audit line: {error.strerror}", file=sys.stderr)


def read_local(count: int) -> list[Entry]:
    """The last ``count`` entries of this machine's log, oldest first."""
    _check(count)
    found: list[str] = []
    path = local_log()
    for file in (path.with_name(f"{path.name}.1"), path):
        with contextlib.suppress(FileNotFoundError):
            found += read_text(file, bounds.DOCUMENT, errors="replace").splitlines()
    return parse(found[-count:])


def read_host(session: Session, count: int) -> list[Entry]:
    """The last ``count`` entries of a host's log, oldest first."""
    _check(count)
    script = f"cat {HOST_LOG}.1 {HOST_LOG} 2>/dev/null | tail -n {count}"
    return parse(session.run(script, "audit log", timeout=60).stdout.splitlines())


def parse(text: Iterable[str]) -> list[Entry]:
    """The entries in the lines of a log, safe to print. A line that is no entry, such as a line cut
    short, is kept: its text is its only change, and its result is ``unreadable``."""
    found = []
    for line in text:
        try:
            said = document(line[:LINE_LIMIT])
            when, who, command, cluster, name = (
                printable(str(said[k]), 200) for k in ("when", "who", "command", "cluster", "name")
            )
            changes = tuple(printable(str(c), 500) for c in said["changes"])
            result = printable(str(said["result"]), 20)
            done = int(said["done"])
            found.append(Entry(when, who, command, cluster, name, changes, done, result))
        except (ValueError, KeyError, TypeError):
            found.append(Entry("", "", "", "", "", (printable(line, 200),), 0, "unreadable"))
    return found


def rows(entries: Iterable[Entry]) -> list[tuple[str, ...]]:
    """A table's rows: when, who, command, cluster, name, result, changes."""
    return [
        (
            e.when,
            e.who,
            e.command,
            e.cluster,
            e.name,
            e.result if e.result != "failed" else f"failed after {e.done} of {len(e.changes)}",
            "; ".join(e.changes),
        )
        for e in entries
    ]


def _check(count: int) -> None:
    if not 1 <= count <= MAX_LINES:
        raise UsageError(f"--lines is from 1 to {MAX_LINES}", id="option-invalid")
