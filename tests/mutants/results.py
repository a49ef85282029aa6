"""The table of docs/tests.md: how many mutants of each module were killed, and of which commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tests.mutants import decisions

PAGE = decisions.ROOT / "docs/tests.md"
#: The beginnings of modules that are counted together.
GROUPS = ("etcd/cluster", "plans/etcd", "plans/alluxio", "plans/")
_HEAD = "| module | mutants | refused by mypy | killed | survived | without a test | commit |"
_RULE = "| --- | ---: | ---: | ---: | ---: | ---: | --- |"


def table(counts: Mapping[str, Counter[str]], commit: str) -> list[str]:
    """The lines of the table. ``counts`` are the states of each module's mutants."""
    whole: Counter[str] = sum(counts.values(), Counter())
    rows = [_row(f"`{name}`", count, commit) for name, count in counts.items()]
    return [_HEAD, _RULE, *rows, _row("all", whole, commit)]


def _row(name: str, count: Counter[str], commit: str) -> str:
    if count["not run"]:
        commit = f"{count['not run']:,} were not run"
    killed = count["killed"] + count["timed out"]
    cells = (count.total(), count["refused by mypy"], killed, count["survived"], count["no test"])
    return f"| {name} | {' | '.join(f'{n:,}' for n in cells)} | {commit} |"


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


def with_table(page: str, table: Sequence[str]) -> str:
    """``page`` with ``table`` in the place of its table of refused mutants."""
    lines = page.split("\n")
    start = next(
        n for n, line in enumerate(lines) if line.startswith(_HEAD.rpartition(" commit")[0])
    )
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith("|"))
    return "\n".join([*lines[:start], *table, *lines[end:]])
