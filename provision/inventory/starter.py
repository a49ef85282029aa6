"""An inventory made from lists of hosts, for ``init-inventory --etcd HOSTS --workers HOSTS``,
or ``--endpoints URLS --workers HOSTS`` where an etcd is there.

Names come from the hosts' names. A range stays a range. Whatever the lists do not say is marked
with EDIT. The loader reads the result before it is written.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from provision.dataclass import dataclass
from provision.errors import InventoryError, Problem, UsageError
from provision.inventory import loader, model, parts
from provision.inventory.parts import Line, Parts, scalar
from provision.inventory.range_names import MAX_ENTRIES, RangeError, expand
from provision.inventory.selection import COMMA

_BRACKETS = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the options say; "" is what they leave out."""

    etcd: str = ""
    endpoints: str = ""
    workers: str = ""
    user: str = ""
    port: str = ""
    key: str = ""
    jump: str = ""


@dataclass(frozen=True, slots=True)
class Starter:
    """The inventory's text, how many hosts it has, and the loader's warnings about it."""

    text: str
    members: int
    workers: int
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """One key of the inventory for ``hosts``; both may be a range."""

    name: str
    hosts: str
    count: int


def starter(answers: Answers, given: Parts | None = None) -> Starter:
    """The inventory for ``answers``, and ``given`` for all that is not about hosts.

    Raises :class:`UsageError` with every problem of the lists and of the other options.
    """
    given = given or Parts()
    problems: list[Problem] = []
    members = _groups(answers.etcd, "--etcd", "etcd", problems)
    workers = _groups(answers.workers, "--workers", "worker", problems)
    if answers.etcd and answers.endpoints:
        what = "an inventory declares its own members or the endpoints of an existing etcd"
        problems.append(
            Problem("--endpoints", what, "leave out --etcd or --endpoints", id="option-invalid")
        )
    if not problems and not members and not workers:
        what = "no host is named"
        problems.append(
            Problem("--etcd", what, "name hosts by --etcd or --workers", id="option-invalid")
        )
    problems += parts.without_hosts(
        given, members=bool(answers.etcd), workers=bool(answers.workers)
    )
    _refuse(problems)
    lines = _lines(answers, given, members, workers)
    text = "".join(f"{line}\n" for line, _ in lines)
    found = [
        Problem(_option(p.where, lines), _without_place(p.what), p.remedy, p.severity, id=p.id)
        for p in checked(text)
    ]
    _refuse([p for p in found if p.severity == "error"])
    return Starter(
        text,
        sum(group.count for group in members),
        sum(group.count for group in workers),
        tuple(found),
    )


def checked(text: str, folder: Path | None = None) -> Sequence[Problem]:
    """What the loader says about the inventory ``text`` in ``folder``: errors and warnings."""
    handle, name = tempfile.mkstemp(".yml", ".check-", folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        return loader.read(Path(name)).warnings
    except InventoryError as error:
        return error.problems
    finally:
        os.unlink(name)


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        ids = {problem.id for problem in problems}
        raise UsageError(
            "no inventory was written",
            problems,
            id=problems[0].id if len(ids) == 1 else "option-invalid",
        )


def _groups(text: str, option: str, prefix: str, problems: list[Problem]) -> list[_Group]:
    """The entries for the list ``text``, which is the value of ``option``."""
    hosts: list[tuple[str, list[str]]] = []
    total = 0
    for word in (word.strip() for word in COMMA.split(text)):
        if not word:
            continue
        one = word[1:-1] if re.fullmatch(r"\[[^\[\]]*:[^\[\]]*\]", word) else word  # [fd00::1]
        try:
            names = expand(one)
        except RangeError as error:
            problems.append(Problem(option, str(error), id="inventory-range-invalid"))
            continue
        if (bad := next((n for n in names if not _is_host(n)), None)) is not None:
            what = f"{bad!r} is not {model.EXPECTED[model.HOST_NAME]}"
            remedy = "name hosts alone; --user, --port and --jump say how to reach them"
            problems.append(Problem(option, what, remedy, id="option-invalid"))
            continue
        hosts.append((one, names))
        total += len(names)
        if total > MAX_ENTRIES:
            what = f"there are more than {MAX_ENTRIES} hosts"
            problems.append(Problem(option, what, id="inventory-range-invalid"))
            return []
    every = Counter(name for _, names in hosts for name in names)
    problems += [
        Problem(
            option, f"{name} is named {n} times", "name each host once", id="inventory-conflict"
        )
        for name, n in every.items()
        if n > 1
    ]
    return _named(hosts, option, prefix, problems)


def _named(
    hosts: Sequence[tuple[str, list[str]]], option: str, prefix: str, problems: list[Problem]
) -> list[_Group]:
    """A name for each entry: the first label of its hosts where that is unique, else all labels."""
    short = [_first_label(host, prefix) for host, _ in hosts]
    uses = Counter(name for one in short for name in expand(one))
    groups = []
    for (host, names), label in zip(hosts, short, strict=True):
        shared = any(uses[name] > 1 for name in expand(label))
        name = host if shared else label
        if too_long := [n for n in expand(name) if not re.fullmatch(model.NAME, n)]:
            what = f"{too_long[0]!r} cannot be a name: {model.EXPECTED[model.NAME]}"
            remedy = "leave this host out, and add it to the file under a name of your choice"
            problems.append(Problem(option, what, remedy, id="option-invalid"))
            continue
        groups.append(_Group(name, host, len(names)))
    return groups


def _first_label(host: str, prefix: str) -> str:
    """The part of ``host`` before the first dot, if all its ranges are there; an address with
    ``prefix`` before it, because its first part alone says nothing."""
    if _is_address(expand(host)[0]):
        return f"{prefix}-{host.replace('.', '-').replace(':', '-').strip('-')}"
    label = re.match(r"(?:\[[^\[\]]*\]|[^.\[\]])*", host)
    assert label is not None
    inside = len(_BRACKETS.findall(label[0])) == len(_BRACKETS.findall(host))
    return label[0] if inside else host


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_host(text: str) -> bool:
    """A name or an address. ``name:port`` is none, although the pattern takes its colon."""
    if ":" in text:
        return _is_address(text)
    return re.fullmatch(model.HOST_NAME, text) is not None


def _lines(
    answers: Answers, given: Parts, members: Sequence[_Group], workers: Sequence[_Group]
) -> list[Line]:
    """The file's lines, each with the option that it comes from, or ""."""
    ssh = {
        "user": answers.user,
        "port": answers.port,
        # The inventory's relative paths start at its own folder, an option's in this one.
        "key": answers.key if answers.key[:1] in ("", "~") else os.path.abspath(answers.key),
        "jump": answers.jump,
    }
    ssh_lines = [(f"  {key}: {scalar(text)}", f"--{key}") for key, text in ssh.items() if text]
    if given.ask_sudo:
        ssh_lines.append((f"  {parts.ASK_SUDO}", "--ask-sudo"))
    lines: list[Line] = [
        ("# Made from lists of hosts. `invoke init-inventory FILE`, without a list of hosts,", ""),
        ("# writes an example with every key.", ""),
        ("", ""),
        *parts.head(given, shared=not members),
        ("", ""),
        ("# How hosts are reached. What is unset comes from ~/.ssh/config. Host keys are", ""),
        ("# checked, always. A login that is not root needs sudo (sudo_password if it asks).", ""),
        ("ssh:" if ssh_lines else "# ssh: {user: deploy}", ""),
        *ssh_lines,
        ("", ""),
        ("etcd:", ""),
    ]
    if members:
        lines += [
            *parts.etcd_release(given),
            ("  # host: where SSH goes. Add 'address' where other hosts use another one.", ""),
            ("  members:", ""),
            *((_entry(group), "--etcd") for group in members),
        ]
    else:
        urls = [one.strip() for one in answers.endpoints.split(",") if one.strip()]
        edit = "" if urls else f" {parts.EDIT}"
        given_urls = json.dumps(urls or ["http://etcd1.example.com:2379"])
        lines += [
            (f"  # The etcd that is there: every member's client URL, without TLS.{edit}", ""),
            ("  external:", ""),
            (f"    endpoints: {given_urls}", "--endpoints" if urls else ""),
        ]
    if workers:
        lines += [
            ("", ""),
            ("alluxio:", ""),
            *parts.alluxio_release(given),
            ("  # hostname: what clients connect to, where it is not 'host'.", ""),
            ("  workers:", ""),
            *((_entry(group), "--workers") for group in workers),
        ]
    return [*lines, *parts.kubernetes(given)]


def _entry(group: _Group) -> str:
    return f"    {scalar(group.name)}: {{host: {scalar(group.hosts)}}}"


def _option(where: str, lines: Sequence[Line]) -> str:
    """The option that the line at ``where`` (file:line:column) comes from."""
    found = re.fullmatch(r".*:(\d+):\d+", where)
    return (lines[int(found[1]) - 1][1] if found else "") or "the inventory"


def _without_place(what: str) -> str:
    """``what`` without references to lines of a file that is not there any more."""
    return re.sub(r"(?: \(see [^)]*\)| at \S*\.check-\S*:\d+:\d+)", "", what)
