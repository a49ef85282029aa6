"""The embedded journal on a master's host, and the starts that would lose it.

Alluxio's masters keep their state in a Raft log (class ``RaftJournalSystem``, library Ratis). A
master that starts without a log takes the addresses in its properties for the group. When most
masters of a group are such masters, they elect one of themselves. The masters with the journal then
follow it, and their journal is overwritten. Therefore upstream's page "Journal Management" (release
2.9, "Adding a new master") adds one master at a time, to masters that serve.
"""

from __future__ import annotations

import base64
import binascii
import shlex
from collections.abc import Mapping, Sequence

from provision.dataclass import dataclass
from provision.errors import Problem
from provision.etcd.api.protocol import unknown_fields
from provision.host import safely
from provision.inventory import journal_folder
from provision.inventory.resolved import AlluxioCluster, AlluxioMaster
from provision.text import printable

#: Label of the probe's command.
LABEL = "journal"
#: ``RaftJournalSystem.RAFT_GROUP_UUID``, the folder of the group in ``RaftJournalUtils.RAFT_DIR``.
_GROUP = "02511d47-d67c-49a3-9011-abb3109a44c1"
#: Limit for the bytes of Ratis' file of the group; one peer takes about 40.
_MAX_CONF = 16384


@dataclass(frozen=True, slots=True)
class Journal:
    """``written``: the journal has entries or a snapshot. ``peers``: the journal addresses
    (``host:port``, IPv6 without brackets) of the group in its log; empty when the log has no group
    yet, or cannot be read."""

    written: bool = False
    peers: frozenset[str] = frozenset()


def address(master: AlluxioMaster) -> str:
    """The master's address in the form of :attr:`Journal.peers`."""
    return f"{master.hostname}:{master.journal_port}"


def probe_commands(alluxio: AlluxioCluster, master: AlluxioMaster) -> dict[str, str]:
    """The probe command that looks at the journal; :func:`read` reads its output."""
    if not journal_folder.is_embedded(alluxio, master):
        return {}
    # Releases before 2.8 had no folder raft (RaftJournalSystem.maybeMigrateOldJournal).
    places = " ".join(shlex.quote(f"./{inner}{_GROUP}") for inner in ("raft/", ""))
    read = (
        f'for d in {places}; do [ -d "$d" ] || continue; '
        'f=$d/current/raft-meta.conf; [ ! -f "$f" ] || '
        f'echo "conf $(head -c {_MAX_CONF} "$f" | base64 -w0)"; '
        # One file is enough. Its name is not printed: it may be anything.
        'for f in "$d"/current/log_* "$d"/sm/snapshot*; do [ ! -s "$f" ] || '
        "{ echo has; break; }; done; done"
    )
    # The folder is Alluxio's: root reads nothing in it by name.
    look = safely.as_owner(journal_folder.folder(alluxio, master), f"{read}; :", seconds=15)
    return {LABEL: f"{{ {look}; }} || echo has something that cannot be read"}


def read(text: str) -> Journal:
    """The journal from the output of the probe's command. Unknown lines are ignored."""
    written, peers = False, frozenset[str]()
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "has":
            written = True
        elif kind == "conf":
            peers = _peers(rest)
    return Journal(written or bool(peers), peers)


def problems(
    alluxio: AlluxioCluster,
    chosen: Sequence[AlluxioMaster],
    journals: Mapping[str, Journal],
    primary: str | None,
) -> list[Problem]:
    """The problems that forbid to start the chosen masters as they are.

    ``journals``: the journals of all declared masters on hosts that were looked at. ``primary``:
    the name of the master that serves now.
    """
    return [
        *_outvoted(alluxio, chosen, journals, primary),
        *_shrunken(alluxio, chosen, journals),
    ]


def _outvoted(
    alluxio: AlluxioCluster,
    chosen: Sequence[AlluxioMaster],
    journals: Mapping[str, Journal],
    primary: str | None,
) -> list[Problem]:
    holders = [m.name for m in alluxio.masters if journals.get(m.name, Journal()).written]
    fresh = [m for m in chosen if m.name in journals and not journals[m.name].written]
    unseen = [
        m
        for m in alluxio.masters
        if m.name not in journals and journal_folder.is_embedded(alluxio, m)
    ]
    if not fresh:
        return []
    if not holders:
        # Enough such masters elect one of themselves, and an unseen journal is overwritten.
        enough = len(fresh) > len(alluxio.masters) // 2
        return [_unseen(fresh, unseen)] if unseen and enough else []
    names, have = ", ".join(m.name for m in fresh), ", ".join(holders)
    where = fresh[0].place
    if len(fresh) > 1:
        what = (
            f"{names} have no journal, but there is one on {have}: if the empty masters start "
            "together, they can elect one of themselves and overwrite the journal"
        )
        remedy = f"add one at a time: invoke start-masters {fresh[0].name}, then the next"
        return [Problem(where, what, remedy, id="journal-outvoted")]
    if primary is None:
        what = (
            f"{names} has no journal, but there is one on {have}, and no master is the primary: "
            "the empty master could win the election and overwrite the journal"
        )
        remedy = f"first start a master that has the journal: invoke start-masters {holders[0]}"
        return [Problem(where, what, remedy, id="journal-outvoted")]
    return [_unseen(fresh, unseen)] if unseen else []


def _unseen(fresh: Sequence[AlluxioMaster], unseen: Sequence[AlluxioMaster]) -> Problem:
    names = ", ".join(m.name for m in fresh)
    others = ", ".join(m.name for m in unseen)
    return Problem(
        fresh[0].place,
        f"{names} {'has' if len(fresh) == 1 else 'have'} no journal, and it is not known "
        f"whether there is one on {others}",
        "make those hosts reachable",
        id="journal-outvoted",
    )


def _shrunken(
    alluxio: AlluxioCluster, chosen: Sequence[AlluxioMaster], journals: Mapping[str, Journal]
) -> list[Problem]:
    declared = {address(m) for m in alluxio.masters}
    found = []
    for m in chosen:
        if gone := sorted(journals.get(m.name, Journal()).peers - declared):
            shown = ", ".join(printable(one, 100) for one in gone)
            found.append(
                Problem(
                    m.place,
                    f"its journal's Raft group still has {shown}, which alluxio.masters no "
                    "longer lists: elections still count them",
                    "declare them again, or remove each of them from the group while a "
                    "majority of the group runs",
                    id="journal-group-differs",
                )
            )
    return found


def _peers(encoded: str) -> frozenset[str]:
    """The addresses in Ratis' ``raft-meta.conf``: one ``LogEntryProto`` (``Raft.proto``).

    Field 4 of the entry is the configuration; field 1 of the configuration are the peers; field 2
    of a peer is its address.
    """
    try:
        entry = unknown_fields(base64.b64decode(encoded, validate=True))
        configurations = [unknown_fields(c) for c in _messages(entry, 4)]
        peers = [unknown_fields(p) for c in configurations for p in _messages(c, 1)]
        addresses = (a.decode() for p in peers for a in _messages(p, 2))
        return frozenset(a.replace("[", "").replace("]", "") for a in addresses)
    except (binascii.Error, ValueError):
        return frozenset()


def _messages(fields: Mapping[int, Sequence[int | bytes]], number: int) -> list[bytes]:
    return [found for found in fields.get(number, ()) if isinstance(found, bytes)]
