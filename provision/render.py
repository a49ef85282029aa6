"""Templates to text. Strict: a name in a template without a value is an error."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def render(template: str, **values: object) -> bytes:
    """The text of ``templates/<template>.j2`` with ``values``, as UTF-8 bytes."""
    return _environment().get_template(f"{template}.j2").render(**values).encode()


def page(template: str, **values: object) -> str:
    """The HTML of ``templates/<template>.html.j2``: every value is inserted as text."""
    return _page_environment().get_template(f"{template}.html.j2").render(**values)


def template_dir() -> Path:
    """The templates: packed with the package, which in a checkout has a link to their folder."""
    return Path(__file__).parent / "templates"


@functools.cache
def _page_environment() -> jinja2.Environment:
    return _environment().overlay(autoescape=True)


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    from provision.template_cache import TemplateCache

    environment = jinja2.Environment(  # nosec B701
        loader=jinja2.FileSystemLoader(template_dir()),
        bytecode_cache=TemplateCache(template_dir(), [__file__]),
        undefined=jinja2.StrictUndefined,
        auto_reload=False,  # it would ask the disk about the file each time
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # configuration files, not HTML; values are quoted by tojson
    )
    # Jinja's own tojson escapes for HTML.
    environment.filters["tojson"] = _json
    environment.filters["sh"] = lambda value: shlex.quote(str(value))
    environment.filters["env_value"] = lambda value: env_value(str(value))
    environment.filters["property_key"] = property_key
    environment.filters["property_value"] = property_value
    return environment


def _json(value: object) -> str:
    import json

    # YAML needs unprintable characters escaped, and \U instead of JSON's surrogate pairs.
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else _yaml_escape(ord(c)) for c in text)


def _yaml_escape(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def property_key(key: str) -> str:
    """``key`` as ``java.util.Properties.load`` reads it back."""
    if _USUAL_KEY.fullmatch(key):
        return key
    return "".join(f"\\{c}" if c in " :=#!\\" else _latin(c) for c in key)


#: A key that needs no escapes.
_USUAL_KEY = re.compile(r"[A-Za-z0-9._-]+")


def property_value(value: object) -> str:
    """``value`` as ``java.util.Properties.load`` reads it back: booleans in lower case."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    escaped = escaped.replace("\t", "\\t")
    if escaped.startswith(" "):
        escaped = "\\" + escaped
    return escaped if _is_plain(escaped) else "".join(map(_latin, escaped))


def env_value(value: str) -> str:
    """``value`` in the form after the equals sign in a line of ``conf/alluxio-env.sh``.

    Two programs read that file: bash, and the command line ``bin/alluxio`` with Go's gotenv 1.2.0
    (viper 1.6.0), a dotenv parser. In single quotes gotenv leaves everything as it is, except a
    backslash before a dollar sign. In double quotes it first turns a backslash with an n or r into
    a line end. Raises ``ValueError`` for a value without a form that both read alike.
    """
    if any(c < " " and c != "\t" for c in value):
        raise ValueError("it has a control character: a value is one line of alluxio-env.sh")
    if "'" not in value and "\\$" not in value:
        return shlex.quote(value)
    if "\\n" in value or "\\r" in value:
        raise ValueError(
            "bash and bin/alluxio read it as two different values: leave out either the "
            "backslash before n or r, or the apostrophe (or the backslash before $)"
        )
    return '"' + re.sub(r'([\\"$`])', r"\\\1", value) + '"'


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _latin(character: str) -> str:
    """Properties files are ISO 8859-1; anything else is written as UTF-16 escapes."""
    if _is_plain(character):
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
