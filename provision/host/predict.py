"""The predicted facts of a host when resources are true there, as the facts script would see them.

Plans of several steps use it: each step is planned from the state that the steps before leave. A
test runs the changes and the facts script in a real shell, and compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from provision.host.facts import CONTENT_LIMIT, HostFacts, Observable, PathState

UNIT_DIR = "/etc/systemd/system"
#: Stands for unknown values: a folder's size, a user's number, a process's number.
FOLDER_SIZE, USER_ID, PID = 4096, 998, 4711
#: The content of a certificate that the changes make.
UNKNOWN = b""

Some = TypeVar("Some", bound=Observable)


def after(resources: Iterable[Observable], facts: HostFacts) -> HostFacts:
    """The facts of a host after ``resources`` are made true; ``facts`` itself if they are true now.

    A pending restart stays in ``pending_restarts`` until the unit is among ``resources``. The
    content of a certificate made on the host is :data:`UNKNOWN`. An unpacked tree has only its
    folder and its marker. The output of commands stays as it is.
    """
    for resource in in_order(resources):
        facts = resource.after(facts)
    return facts


def in_order(resources: Iterable[Some]) -> list[Some]:
    """``resources`` in the order in which they are made true: as given, units at the end."""
    return sorted(resources, key=lambda resource: resource.last)


def without(path: str, facts: HostFacts) -> HostFacts:
    """The facts of a host after ``path``, with everything below it, is removed."""
    below = f"{path}/"
    left = {p: s for p, s in facts.paths.items() if p != path and not p.startswith(below)}
    return replace(facts, paths=left)


def written(
    facts: HostFacts, paths: Mapping[str, PathState], restarts: Iterable[str] = ()
) -> HostFacts:
    """The facts after ``paths`` are written, which needs ``restarts``."""
    pending = facts.pending_restarts.union(restarts)
    return replace(facts, paths={**facts.paths, **paths}, pending_restarts=pending)


def owned(facts: HostFacts, path: str, owner: str, mode: int, group: str = "") -> HostFacts:
    """The facts after ``path``, if it exists, gets its owner and mode; ``facts`` itself if it has
    them. Without ``group``, any group is right, and a new owner's own group is set."""
    found = facts.paths.get(path)
    if found is None:
        return facts
    wanted = (owner, group or found.group, mode)
    if (found.owner, found.group, found.mode) == wanted:
        return facts
    return written(facts, {path: replace(found, owner=owner, group=group or owner, mode=mode)})


def folder(owner: str = "root", mode: int = 0o755, group: str = "") -> PathState:
    return PathState("dir", owner, group or owner, mode, FOLDER_SIZE)


def file(content: bytes, owner: str, mode: int, group: str = "") -> PathState:
    """A file whose content the probe asks for: the script sends it up to its limit."""
    shown = content if len(content) <= CONTENT_LIMIT else None
    return PathState("file", owner, group or owner, mode, len(content), shown)
