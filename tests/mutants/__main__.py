"""``python -m tests.mutants WHAT [MODULE…]``, after ``mutmut`` has made the mutants.

All of it is about mutants that count, of functions that decide. ``types`` notes those that mypy
refuses. ``run`` runs those that were not run yet. With ``--survivors`` it also runs those that
lived, with ``--timeouts`` those whose time ended: under load that is no proof. ``tests`` takes in
tests that were written since (all, or those in the files that are named), for ``run --survivors``.
``survivors`` shows those that live and are not in ``survivors.txt``, or all of them with ``--all``.
``table`` counts by module; with ``--commit ID --write`` it puts the rows into docs/tests.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from tests.mutants import results, runs, survivors
from tests.mutants.runs import Mutant
from tests.mutants.survivors import Survivor


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("what", choices=("types", "run", "tests", "survivors", "table"))
    parser.add_argument(
        "modules",
        nargs="*",
        help="paths below provision/, or their beginnings; for ``tests``: files",
    )
    parser.add_argument("--survivors", action="store_true")
    parser.add_argument("--timeouts", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--commit", default="", help="table: of which the code and tests are")
    parser.add_argument("--write", action="store_true", help="table: into docs/tests.md")
    parser.add_argument("--children", type=int, default=2)
    given = parser.parse_intermixed_args(args)
    states = {"survived", "no test"} if given.survivors else set()
    states |= {"timed out"} if given.timeouts else set()

    def again(mutant: Mutant) -> bool:
        return mutant.state in states

    if given.what == "types":
        print(runs.check_types(given.modules), "mutants are refused by mypy")
    elif given.what == "tests":
        runs.take_tests(given.modules)
    elif given.what == "run":
        found = runs.run(given.modules, again, children=given.children)
        print(dict(Counter(code for _, code in found)))
    elif given.what == "survivors":
        _survivors(given.modules, every=given.all)
    else:
        _table(given.modules, given.commit, write=given.write)
    return 0


def _survivors(modules: Sequence[str], *, every: bool) -> None:
    known = {s.line for s in survivors.listed()}
    for m in runs.every(modules):
        if m.state in ("survived", "no test"):
            line = Survivor(m.module, m.function, m.change.old, m.change.new).line
            if every or line not in known:
                print(line)


def _table(modules: Sequence[str], commit: str, *, write: bool) -> None:
    """Counts by module. With ``write``, in docs/tests.md; then the shares are of all rows there."""
    counts: dict[str, Counter[str]] = {}
    for m in runs.every(modules):
        counts.setdefault(m.module, Counter())[m.state] += 1
    if write:
        page = results.with_rows(results.PAGE.read_text("utf-8"), counts, commit)
        results.PAGE.write_text(page, "utf-8")
        counts = {name: count for name, (count, _) in results.read(page).items()}
    else:
        for name, count in counts.items():
            print(name, dict(count))
    for group in (*results.GROUPS, ""):
        some = [count for name, count in counts.items() if name.startswith(group)]
        whole: Counter[str] = sum(some, Counter())
        if some:
            print(f"{group or 'all'}: {results.shares(whole)}", end="; ")
            print(f"not run: {whole['not run']}, timed out: {whole['timed out']}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
