"""``python -m tests.mutants choose|survivors|table [MODULE…]``, around ``mutmut run``.

``choose`` prepares a run: only mutants that count, of functions that decide. With ``--survivors``
also those that lived in an earlier run, with ``--timeouts`` those whose time ended: under load that
is no proof. ``survivors`` shows the others with their change, ``table`` counts by module.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from tests.mutants import runs


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("what", choices=("choose", "types", "run", "survivors", "table"))
    parser.add_argument("modules", nargs="*", help="paths below provision/, or their beginnings")
    parser.add_argument("--survivors", action="store_true")
    parser.add_argument("--timeouts", action="store_true")
    parser.add_argument("--children", type=int, default=2)
    given = parser.parse_args(args)
    states = {"survived", "no test"} if given.survivors else set()
    states |= {"timed out"} if given.timeouts else set()
    if given.what == "choose":
        print(runs.choose(given.modules, lambda m: m.state in states), "mutants will be run")
    elif given.what == "types":
        print(runs.check_types(), "mutants are refused by mypy")
    elif given.what == "run":
        again = lambda m: m.state in states  # noqa: E731
        codes = Counter(code for _, code in runs.run(given.modules, again, children=given.children))
        print(dict(codes))
    elif given.what == "survivors":
        for m in runs.every(given.modules):
            if m.state not in ("killed", "refused by mypy", "not run"):
                number = m.change.name.rpartition("_")[2]
                shown = f"{m.change.old}  ->  {m.change.new}"
                print(f"{m.module} {m.function} +{m.change.line} #{number} {m.state}: {shown}")
    else:
        _table(given.modules)
    return 0


def _table(modules: Sequence[str]) -> None:
    counts: dict[str, Counter[str]] = {}
    for m in runs.every(modules):
        counts.setdefault(m.module, Counter())[m.state] += 1
    whole: Counter[str] = sum(counts.values(), Counter())
    for name, count in [*counts.items(), ("all", whole)]:
        of = sum(count.values())
        killed = count["killed"] + count["timed out"] + count["refused by mypy"]
        rest = ", ".join(f"{n} {s}" for s, n in count.items() if s != "killed")
        print(f"{name}: {killed} of {of} killed ({100 * killed / of:.1f} %); {rest}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
