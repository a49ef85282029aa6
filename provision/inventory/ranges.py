"""Ranges of names: ``worker[001-200]`` stands for 200 entries.

A range in a member's or worker's key needs a range of the same length in each of its addresses::

    worker[001-200]:
      host: worker[001-200].example.com

``[1-3,7,9-11]`` lists several; leading zeros are kept.
"""

from __future__ import annotations

from provision.inventory import range_names
from provision.inventory.document import Entry, Mapping, Node, Path, Scalar
from provision.inventory.findings import Findings, Mark
from provision.inventory.range_names import EXPANDED, RangeError, expand

_ADDRESSES = ("host", "address", "hostname")


def expand_document(root: Mapping, findings: Findings) -> tuple[Mapping, set[Path]]:
    """``root`` with the ranges among members and workers written out.

    Also the paths of the mappings with a name that could not be read: how many hosts they have is
    not known.
    """
    unknown: set[Path] = set()
    for group, hosts in EXPANDED:
        section = root.get(group)
        entries = section.get(hosts) if isinstance(section, Mapping) else None
        if isinstance(section, Mapping) and isinstance(entries, Mapping):
            expanded, whole = _expand_entries(entries, findings)
            root = root.replaced(group, section.replaced(hosts, expanded))
            if not whole:
                unknown.add((group, hosts))
    return root, unknown


def _expand_entries(hosts: Mapping, findings: Findings) -> tuple[Mapping, bool]:
    """The entries with their ranges written out, and whether all could be."""
    expanded: dict[str, Entry] = {}
    unreadable: list[Entry] = []
    total = 0
    for entry in hosts.entries.values():
        names = _expand_at(entry.key.text, entry.key.mark, findings)
        if names is None:
            unreadable.append(entry)
            continue
        total += len(names)
        if total > range_names.MAX_ENTRIES:
            findings.error(
                entry.key.mark,
                f"the file stands for more than {range_names.MAX_ENTRIES} hosts",
                id="inventory-range-invalid",
            )
            unreadable.append(entry)
            break
        values = _expand_value(entry, len(names), findings)
        ranged = "[" in entry.key.text
        for name, value in zip(names, values, strict=True):
            if name in expanded:
                first = findings.where(expanded[name].key.mark)
                what = f"{name!r} is already named at {first}"
                findings.error(
                    entry.key.mark, what, "give every host one name", id="inventory-conflict"
                )
                continue
            expanded[name] = Entry(Scalar(name, entry.key.mark, ranged=ranged), value)
    if unreadable and not expanded:  # there are hosts: that there is none would be another mistake
        expanded = _stand_in(unreadable[0])
    return Mapping(expanded, hosts.mark), not unreadable


def _expand_value(entry: Entry, count: int, findings: Findings) -> list[Node]:
    """The entry's value once for each of its ``count`` names."""
    if not isinstance(entry.value, Mapping):
        return [entry.value] * count
    columns: dict[str, tuple[Entry, list[str]]] = {}
    for field in _ADDRESSES:
        given = entry.value.entries.get(field)
        if given is None or not isinstance(given.value, Scalar) or given.value.is_null:
            continue
        mark = given.value.mark
        texts = _expand_at(given.value.text, mark, findings)
        if texts is None:
            texts = _stand_ins(mark, count)
        elif len(texts) != count:
            key = entry.key.text
            what = f"{given.value.text!r} stands for {len(texts)}, but the key {key!r} for {count}"
            findings.error(
                mark,
                what,
                f"give {field!r} a range as long as the key's",
                id="inventory-range-invalid",
            )
            texts = _stand_ins(mark, count)
        elif "[" not in given.value.text:
            continue
        columns[field] = (given, texts)
    if not columns:
        return [entry.value] * count
    values: list[Node] = []
    for number in range(count):
        entries = dict(entry.value.entries)
        for field, (given, texts) in columns.items():
            scalar = Scalar(texts[number], given.value.mark, ranged=True)
            entries[field] = Entry(given.key, scalar)
        values.append(Mapping(entries, entry.value.mark))
    return values


def _stand_in(entry: Entry) -> dict[str, Entry]:
    """One host in place of those whose names cannot be read, with the fields that it needs."""
    mark = entry.key.mark
    (name,) = _stand_ins(mark, 1)
    given = entry.value.entries if isinstance(entry.value, Mapping) else {}
    fields = {
        field: Entry(Scalar(field, mark), Scalar(name, mark, ranged=True))
        for field in _ADDRESSES
        if field == "host" or field in given
    }
    return {name: Entry(Scalar(name, mark, ranged=True), Mapping(fields, mark))}


def _stand_ins(mark: Mark, count: int) -> list[str]:
    """Unique host names in place of unreadable ones, so that the other checks still run."""
    return [f"unreadable-{mark.line}-{mark.column}-{number}.invalid" for number in range(count)]


def _expand_at(text: str, mark: Mark, findings: Findings) -> list[str] | None:
    try:
        return expand(text)
    except RangeError as error:
        findings.error(mark, str(error), id="inventory-range-invalid")
        return None
