"""Removes secrets from data that leaves this machine: the inventory's, and texts like secrets."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from provision.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from provision.inventory.model import Secret

MARK = "********"

_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_LOGIN = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")
_NAMED = re.compile(
    r"(?i)\b([\w.-]*(?:password|passwd|passphrase|secret|credential|token)[\w.-]*"
    r"[\"']?\s*[=:]\s*)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s\"',;]+)"
)


class Redactor:
    """Replaces ``secrets``, in every form in which they may be written, with :data:`MARK`.

    It also replaces private keys in PEM, passwords in URLs, and the values of names such as
    ``...password=``, of any origin.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if secret.strip() for form in _forms(secret)}
        # The longest comes first: a secret may be the beginning of another.
        ordered = sorted(filter(str.strip, forms), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, text: str) -> str:
        if self._secrets is not None:
            text = self._secrets.sub(MARK, text)
        text = _LOGIN.sub(rf"\1:{MARK}@", _KEY.sub(MARK, text))
        return _NAMED.sub(rf"\1{MARK}", text)

    def document(self, value: Any) -> Any:
        """A document for JSON, with its keys. Values of other types are written as text."""
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.document(v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.document(v) for v in value]
        if value is None or isinstance(value, bool | int | float):
            # A password of digits may be a number here: it is replaced, too.
            return value if self.text(str(value)) == str(value) else MARK
        return self.text(str(value))


def secrets(model: BaseModel, inventory: Path) -> Iterator[str]:
    """The values of all secrets to which the file ``inventory`` (as ``model``) refers. Secrets that
    cannot be read, or that are asked for, are left out."""
    from provision.inventory.resolved import local_path

    for secret in _leaves(model):
        if secret.file is not None:
            secret = secret.model_copy(update={"file": local_path(secret.file, inventory)})
        elif secret.env is None:
            continue
        with contextlib.suppress(LookupError, OSError, ValueError):
            yield secret.reveal()


def _leaves(value: object) -> Iterator[Secret]:
    from pydantic import BaseModel

    from provision.inventory.model import Secret

    if isinstance(value, Secret):
        yield value
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _leaves(getattr(value, field))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)


def _forms(secret: str) -> Iterator[str]:
    """The forms in which a secret may be written: as it is, line by line, quoted, escaped,
    encoded."""
    yield secret
    lines = [line for line in secret.splitlines() if len(line.strip()) > 3]
    for form in (secret, *(lines if len(lines) > 1 else ())):
        yield form.strip()
        yield printable(form)
        yield json.dumps(form)[1:-1]
        yield repr(form)[1:-1]
        yield shlex.quote(form)
        yield quote(form, safe="")
        yield quote(form)
        yield re.sub(r"([\\:=#!])", r"\\\1", form)  # the form in a Java properties file
        yield base64.b64encode(form.encode(errors="surrogateescape")).decode().rstrip("=")
