"""The tokens of ssh_config(5) that ssh itself expands only when it connects."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_TOKEN = re.compile(r"%(.?)|\$\{([^}]*)\}", re.DOTALL)

_WORD = re.compile(r"(?!-)[\w.:@%+,=\[\]-]+")


class ConfigError(ValueError):
    """An SSH configuration that cannot be used. ``str`` names the file and the line if known."""


def expanded(text: str, tokens: Mapping[str, str], *, environment: bool = False) -> str:
    """``text`` with ``%x`` replaced by ``tokens["x"]``, and with ``${NAME}`` on request.

    Raises :class:`ConfigError` for what is not known, as ssh does.
    """

    def value(found: re.Match[str]) -> str:
        token, name = found[1], found[2]
        if token == "%":
            return "%"
        if token is not None:
            if token not in tokens:
                raise ConfigError(f"ssh_config: {text}: the token %{token} is not known here")
            return tokens[token]
        if not environment:
            return found[0]
        if name not in os.environ:
            raise ConfigError(f"ssh_config: {text}: the variable {name} is not set")
        return os.environ[name]

    return _TOKEN.sub(value, text)


def proxy_command(text: str, tokens: Mapping[str, str]) -> str:
    """A ProxyCommand with its tokens replaced. A shell reads it: raises :class:`ConfigError` for a
    name that a shell would take for something else than a word."""
    for token, value in tokens.items():
        if not _WORD.fullmatch(value) and f"%{token}" in text.replace("%%", ""):
            raise ConfigError(f"ssh_config: {text}: {value!r} is no word of the shell")
    return expanded(text, tokens)
