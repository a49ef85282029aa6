"""``python -m tests.mutants WHAT [MODULE…]``, after ``mutmut`` has made the mutants.

All of it is about mutants that count, of functions that decide. ``types`` notes those that mypy
refuses. ``run`` runs those that were not run yet. With ``--survivors`` it also runs those that
lived, with ``--timeouts`` those whose time ended: under load that is no proof. ``survivors`` shows
those that live and are not in ``survivors.txt``, or all of them with ``--all``. ``table`` counts by
module.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from tests.mutants import runs, survivors
from tests.mutants.runs import Mutant
from tests.mutants.survivors import Survivor


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("what", choices=("types", "run", "survivors", "table"))
    parser.add_argument("modules", nargs="*", help="paths below provision/, or their beginnings")
    parser.add_argument("--survivors", action="store_true")
    parser.add_argument("--timeouts", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--children", type=int, default=2)
    given = parser.parse_intermixed_args(args)
    states = {"survived", "no test"} if given.survivors else set()
    states |= {"timed out"} if given.timeouts else set()

    def again(mutant: Mutant) -> bool:
        return mutant.state in states

    if given.what == "types":
        print(runs.check_types(given.modules), "mutants are refused by mypy")
    elif given.what == "run":
        found = runs.run(given.modules, again, children=given.children)
        print(dict(Counter(code for _, code in found)))
    elif given.what == "survivors":
        _survivors(given.modules, every=given.all)
    else:
        _table(given.modules)
    return 0


def _survivors(modules: Sequence[str], *, every: bool) -> None:
    known = {s.line for s in survivors.listed()}
    for m in runs.every(modules):
        if m.state in ("survived", "no test"):
            line = Survivor(m.module, m.function, m.change.old, m.change.new).line
            if every or line not in known:
                print(line)


def _table(modules: Sequence[str]) -> None:
    """The rows of the table in docs/tests.md."""
    counts: dict[str, Counter[str]] = {}
    for m in runs.every(modules):
        counts.setdefault(m.module, Counter())[m.state] += 1
    whole: Counter[str] = sum(counts.values(), Counter())
    print("| module | mutants | refused by mypy | killed | survived | without a test |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, count in [*((f"`{n}`", c) for n, c in counts.items()), ("all", whole)]:
        killed = count["killed"] + count["timed out"]
        cells = (sum(count.values()), count["refused by mypy"], killed, count["survived"])
        print(f"| {name} |", " | ".join(f"{n:,}" for n in (*cells, count["no test"])), "|")
    of = sum(whole.values()) - whole["not run"]
    refused = whole["refused by mypy"]
    killed = whole["killed"] + whole["timed out"]
    print()
    print(f"{100 * (killed + refused) / of:.1f} % of {of:,} are killed or refused;", end=" ")
    print(f"{100 * killed / max(1, of - refused):.1f} % of the {of - refused:,} that mypy accepts.")
    print(f"not run: {whole['not run']}, timed out: {whole['timed out']}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
