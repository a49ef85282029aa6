"""The names that complete a word of a command line: by a light read of the inventory in force.

The scripts of :mod:`provision.cli.completion` ask for them. Nothing is contacted, nothing is
written, and an error is no answer: a person who types does not want to read it, or to wait.
This module imports little: no Invoke, and
ruamel.yaml only for a file that :mod:`provision.inventory.plain` does not read.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise

from provision.cli.inventory_path import DEFAULT_INVENTORY, INVENTORY_VARIABLE
from provision.inventory import names

#: The option of the program, before the kind, the value so far, and the words before it.
OPTION = "--complete-names"


def main(words: Sequence[str]) -> None:
    """Print the candidates, one a line, for the words behind :data:`OPTION`."""
    if len(words) < 2:
        return
    kind, value, *line = words
    for name in candidates(kind, value, inventory_in_force([_typed(word) for word in line])):
        print(name)


def candidates(kind: str, value: str, inventory: str) -> Iterator[str]:
    """What ``value`` may become: for a list of names, the list with one name more.

    ``kind`` is a value of :class:`provision.cli.values.Kind`, with "+" behind it for a list.
    """
    several = kind.endswith("+")
    there = names.read(inventory)
    found = {
        "members": there.members,
        "masters": there.masters,
        "workers": there.workers,
        "roles": (*there.members, *there.masters, *there.workers),
        "hosts": there.all,
    }.get(kind.rstrip("+"), ())
    before = ""
    if several and (match := re.match(r"(?:.*,)?!?", value)):
        before = match[0]
    given = {part.strip().removeprefix("!") for part in before.split(",")}
    for name in found:
        if name.startswith(value[len(before) :]) and not (several and name in given):
            yield before + name


def inventory_in_force(words: Sequence[str]) -> str:
    """The inventory of a command line: the last one that it names, or the usual one."""
    named = ""
    for word, following in pairwise([*words, ""]):
        if word in ("--inventory", "-i"):
            named = following
        elif match := re.match(r"--inventory=|-i=?", word):
            named = word[match.end() :]
    return named or os.environ.get(INVENTORY_VARIABLE) or DEFAULT_INVENTORY


def _typed(word: str) -> str:
    """A word as the shell would pass it: without quotes, and with ~ and variables replaced."""
    try:
        bare = "".join(shlex.split(word))
    except ValueError:
        return word
    option, equals, value = bare.rpartition("=")
    return option + equals + os.path.expanduser(os.path.expandvars(value))
