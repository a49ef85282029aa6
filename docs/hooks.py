"""mkdocs' hooks: the start page is the README, the reference is made from the code, and the two
pictures from recorded runs."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from invoke.parser import ParserContext  # noqa: E402

from docs import cast, picture  # noqa: E402
from provision import errors  # noqa: E402
from provision.cli.command import INTERNAL_ERROR, INTERRUPTED  # noqa: E402
from provision.cli.commands import namespace  # noqa: E402
from provision.cli.explain import Page, pages  # noqa: E402
from provision.cli.help import usage  # noqa: E402
from provision.inventory import json_schema  # noqa: E402

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files


def on_pre_build(**_: Any) -> None:
    for made in (picture, cast):
        picture.keep(made.PICTURE, made.svg())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    errors = {f"reference/errors/{p.id}.md": error_page(p) for p in pages()}
    made = {
        "index.md": start(),
        "reference/tasks.md": tasks(),
        "reference/inventory.md": inventory(),
        "reference/exit-codes.md": exit_codes(),
        "reference/ports.md": ports(),
        "reference/errors/index.md": error_index(),
        **errors,
    }
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to the inventory's files lead to their reference."""
    return re.sub(r"\]\(\.\./inventory/[a-z.]+\)", "](reference/inventory.md)", markdown)


def start() -> str:
    """The README, with its links as seen from here."""
    text = (REPO / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\]\(inventory/[a-z.]+\)", "](reference/inventory.md)", text)


def tasks() -> str:
    """Every task with its help and its options, as Invoke itself shows them."""
    parts = ["# Tasks", "`invoke --help TASK` says the same.", ""]
    for name in namespace.task_names:
        task = namespace[name]
        context = ParserContext(name=name, args=task.get_arguments())
        parts += [f"## {name}", inspect.cleandoc(task.__doc__ or ""), ""]
        parts += [f"`invoke {usage(name, task)}`", ""]
        parts += ["| option | |", "| --- | --- |"]
        parts += [f"| `{flags}` | {_cell(text or '')} |" for flags, text in context.help_tuples()]
        parts.append("")
    return "\n".join(parts)


def inventory() -> str:
    """Every key of an inventory: its type, default and meaning."""
    schema = json_schema()
    parts = ["# Inventory", "Unknown keys are errors. `NAME` stands for a name of your own.", ""]
    sections: dict[str, list[str]] = {}
    for path, node in _keys(schema, schema, ""):
        top = next((one for one in _SECTIONS if path.startswith(f"{one}.")), _TOP)
        key = path if top == _TOP else path.removeprefix(f"{top}.")
        default = node.get("default")
        said = default if isinstance(default, str) else str(default).lower()
        shown = "" if default in (None, {}, []) else _unbroken(said)
        text = _cell(node.get("description", ""))
        row = f"| {_unbroken(key)} | {_kind(schema, node)} | {shown} | {text} |"
        sections.setdefault(top, []).append(row)
    for title, rows in sections.items():
        parts += [f"## {title}", "", "| key | type | default | |", "| --- | --- | --- | --- |"]
        parts += [*rows, ""]
    example = (REPO / "inventory" / "example.yml").read_text(encoding="utf-8")
    parts += ["", "## A commented example", "", "```yaml", example.rstrip(), "```", ""]
    return "\n".join(parts)


#: The section of keys that stand in none.
_TOP = "The file"
#: Keys that have many keys below them are sections of their own; the longer ones come first.
_SECTIONS = (
    *("ssh", "etcd.tls", "etcd.auth", "etcd.backup", "etcd.members.NAME", "etcd"),
    *("alluxio.etcd", "alluxio.java", "alluxio.masters.NAME", "alluxio.workers.NAME", "alluxio"),
    "kubernetes",
)


def _unbroken(text: str) -> str:
    """A key or a value that no browser breaks: the table scrolls instead."""
    return f'<code style="white-space: nowrap">{text}</code>'


def exit_codes() -> str:
    doc = inspect.cleandoc(errors.__doc__ or "")
    rows = re.findall(r"^(\d+) +(.+)$", doc, re.MULTILINE)
    classes = {c.exit_code: c for c in _errors(errors.ProvisionError)}
    known = {*classes, 0, INTERNAL_ERROR, INTERRUPTED}
    assert known == {int(code) for code, _ in rows}, "errors.py is out of step"
    lines = ["# Exit codes", "| code | meaning |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {code} | {meaning} |" for code, meaning in rows), ""])


def ports() -> str:
    """Who connects to which port, from the list that preflight and the commands use."""
    from provision.inventory.model import Etcd
    from provision.inventory.ports import MASTER, WORKER

    defaults = {n: Etcd.model_fields[n].default for n in ("client_port", "peer_port")}
    rows = [
        ("any host", "SSH", 22, "`ssh.port`", "the control machine"),
        (
            *("etcd member", "client", defaults["client_port"], "`etcd.client_port`"),
            "workers, clients, the control machine",
        ),
        (
            *("etcd member", "peer", defaults["peer_port"], "`etcd.peer_port`"),
            "the other members",
        ),
    ]
    for role, kinds in (("worker", WORKER), ("master", MASTER)):
        for kind in kinds:
            key = f"`{kind.property}`"
            if kind.turned_on_by:
                state = "on" if kind.on_by_default else "off"
                key += f"; {state} by default: `{kind.turned_on_by}`"
            rows.append((role, kind.name, kind.default, key, kind.from_whom))
    parts = [
        "# Ports",
        "All are TCP. Preflight takes the ports from the inventory's properties. It checks that"
        " each port of a worker or a master is free or its own. It also checks that a worker's host"
        " reaches etcd's client port, and a master's host the other masters' journal ports."
        " The control machine reaches etcd and the masters directly, or else by SSH through their"
        " hosts. A worker does not connect to a master: with the memberships that this tool"
        " deploys it registers in etcd or, with STATIC, nowhere.",
        "",
        "| on | port | default | key or property | who connects |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]
    return "\n".join([*parts, ""])


def error_index() -> str:
    """Every id with its title; the pages themselves are the tool's own."""
    intro = "At the end of each line of an error or a warning stands its id; `invoke explain ID` "
    lines = ["# Errors", f"{intro}prints its page.", "", "| id | |", "| --- | --- |"]
    rows = [f"| [`{p.id}`]({p.id}.md) | {p.title} |" for p in pages()]
    return "\n".join([*lines, *rows, ""])


def error_page(page: Page) -> str:
    """A page with its id, and the way back to all of them."""
    title, _, rest = page.text.partition("\n")
    return f"{title}\n\n`{page.id}` · [all errors](index.md)\n{rest}"


def _errors(base: type[errors.ProvisionError]) -> Iterator[type[errors.ProvisionError]]:
    yield base
    for one in base.__subclasses__():
        yield from _errors(one)


def _keys(schema: dict[str, Any], node: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.get("properties", {}).items():
        here = f"{path}.{key}" if path else key
        yield here, value
        for name, inner in _inner(schema, value):
            yield from _keys(schema, inner, here + name)


def _inner(schema: dict[str, Any], node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings that a value may be: itself, or those under names of the user's own."""
    choices = node.get("anyOf", [node])
    for choice in choices:
        if "$ref" in choice:
            yield "", _target(schema, choice)
        elif "patternProperties" in choice or isinstance(choice.get("additionalProperties"), dict):
            values = [*choice.get("patternProperties", {}).values()]
            values += [choice["additionalProperties"]] if not values else []
            for value in values:
                if "$ref" in value:
                    yield ".NAME", _target(schema, value)


def _target(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return found


def _kind(schema: dict[str, Any], node: dict[str, Any]) -> str:
    choices = [c for c in node.get("anyOf", [node]) if c.get("type") != "null"]
    names = []
    for choice in choices:
        if "enum" in choice:
            names.append(", ".join(f"`{value}`" for value in choice["enum"]))
        elif "$ref" in choice:
            names.append("mapping")
        else:
            kinds = choice.get("type", "")
            names.append(" or ".join(kinds) if isinstance(kinds, list) else kinds)
    return " or ".join({name.replace("object", "mapping"): None for name in names})


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
