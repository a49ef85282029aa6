"""The table of docs/tests.md: how many mutants of each module were killed, and of which commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tests.mutants import decisions

PAGE = decisions.ROOT / "docs/tests.md"
#: The beginnings of modules that are counted together.
GROUPS = ("etcd/cluster/", "plans/etcd/", "plans/alluxio/", "plans/")
#: How a run ended, in the order of the table's columns; a mutant whose time ended counts as killed.
STATES = ("refused by mypy", "killed", "survived", "no test")
HEAD = "| module | mutants | refused by mypy | killed | survived | without a test | commit |"
_RULE = "| --- | ---: | ---: | ---: | ---: | ---: | --- |"


def row(name: str, count: Counter[str], commit: str) -> str:
    """A line of the table. A module with mutants that were not run has none: :class:`ValueError`
    says so."""
    if count["not run"]:
        raise ValueError(f"{name}: {count['not run']:,} mutants were not run")
    done = count.copy()
    done["killed"] += done.pop("timed out", 0)
    cells = (done.total(), *(done[state] for state in STATES))
    return f"| {name} | {' | '.join(f'{n:,}' for n in cells)} | {commit} |"


def read(page: str) -> dict[str, tuple[Counter[str], str]]:
    """The rows of ``page``, each with its commit, by module."""
    found = {}
    lines = page.split("\n")
    for line in lines[lines.index(HEAD) + 2 :]:
        if not line.startswith("| `"):
            break
        name, _, *cells, commit = (cell.strip() for cell in line.strip("|").split("|"))
        numbers = (int(cell.replace(",", "")) for cell in cells)
        found[name.strip("`")] = (Counter(dict(zip(STATES, numbers, strict=True))), commit)
    return found


def with_rows(page: str, counts: Mapping[str, Counter[str]], commit: str) -> str:
    """``page`` with new rows for the modules in ``counts``. The other rows stay, with their
    commits; those of modules that are gone go."""
    rows = {**read(page), **{name: (count, commit) for name, count in counts.items()}}
    order = list(dict.fromkeys(f.module for f, w in decisions.listed() if w in decisions.DECIDING))
    kept = {name: rows[name] for name in order if name in rows}
    whole: Counter[str] = sum((count for count, _ in kept.values()), Counter())
    table = [row(f"`{name}`", *rest) for name, rest in kept.items()]
    lines = page.split("\n")
    start = lines.index(HEAD)
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith("|"))
    return "\n".join([*lines[:start], HEAD, _RULE, *table, row("all", whole, ""), *lines[end:]])


def shares(count: Counter[str]) -> str:
    """Which share of the mutants that were run is killed or refused, and which share is killed of
    those that mypy accepts."""
    of = count.total() - count["not run"]
    refused = count["refused by mypy"]
    killed = count["killed"] + count["timed out"]
    return (
        f"{100 * (killed + refused) / max(1, of):.1f} % of {of:,} are killed or refused, "
        f"{100 * killed / max(1, of - refused):.1f} % of the {of - refused:,} that mypy accepts "
        f"are killed ({killed:,} killed, {of - refused - killed:,} survive)"
    )
