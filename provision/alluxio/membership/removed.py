"""Registrations that were removed from etcd, each in a file on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, TypedDict

from provision import bounds
from provision.alluxio.membership import registrations
from provision.dataclass import dataclass
from provision.engine import audit
from provision.errors import Problem, Unhealthy, UsageError
from provision.etcd.api.values import KeyValue
from provision.files import make_folder, read_text
from provision.text import EXCERPT, document, printable

SCHEMA: Literal["alluxio-provision/registration/1"] = "alluxio-provision/registration/1"


@dataclass(frozen=True, slots=True)
class Removed:
    """A registration in a file: enough to write its key again."""

    path: Path
    cluster: str
    worker_id: str
    key: bytes
    value: bytes


def read(file: Path) -> Removed:
    """A saved registration. Raises :class:`UsageError`."""
    try:
        said = document(read_text(file, bounds.DOCUMENT))
        if said["schema"] != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        cluster = str(said["cluster"])
        key = base64.b64decode(said["key_base64"], validate=True)
        value = base64.b64decode(said["value_base64"], validate=True)
        if not key.startswith(registrations.authorized_prefix(cluster).encode()):
            raise ValueError("its key is not the key of a registration")
        return Removed(
            file, printable(cluster, 200), printable(str(said["worker_id"]), 200), key, value
        )
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", id="file-unusable") from error
    except (ValueError, KeyError, TypeError) as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{file}: is not a saved registration: {printable(reason, EXCERPT)}", id="file-unusable"
        ) from error


def new_file(cluster: str, worker_id: str, key: bytes) -> Path:
    """The path of a file for a removal now, beside this machine's audit log.

    An id comes from etcd and may contain anything: the file's name has only plain characters, and
    differs from other names.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", f"{cluster}-{worker_id}")[:120]
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    digest = hashlib.sha256(key).hexdigest()[:8]
    return audit.local_log().parent / "registrations" / f"{safe}.{digest}.{stamp}.json"


class RemovedDocument(TypedDict):
    """A key that was removed from etcd, and what it takes to put it back."""

    schema: Literal["alluxio-provision/registration/1"]
    cluster: str
    worker_id: str
    removed: str
    by: str
    command: str
    key: str
    value: str
    mod_revision: int
    key_base64: str
    value_base64: str


def keep(path: Path, cluster: str, worker_id: str, key: KeyValue, command: str) -> None:
    """Write a registration to ``path``, for its owner only. Raises :class:`Unhealthy`."""
    document: RemovedDocument = {
        "schema": SCHEMA,
        "cluster": cluster,
        "worker_id": worker_id,
        "removed": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "by": audit.author(command, cluster).who,
        "command": command,
        "key": printable(key.key, 300),
        "value": printable(key.value, 2000),
        "mod_revision": key.mod_revision,
        "key_base64": base64.b64encode(key.key).decode(),
        "value_base64": base64.b64encode(key.value).decode(),
    }
    try:
        make_folder(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror}"
        raise Unhealthy(
            f"nothing was removed: {what}",
            [Problem(str(path), what, id="file-unwritable")],
            id="file-unwritable",
        ) from error
