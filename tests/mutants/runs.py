"""The mutants that mutmut has made, and what their runs found."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import changes, decisions, typed
from tests.mutants.changes import Change

#: mutmut's folder, and its exit codes (its ``stats.py``).
MADE = decisions.ROOT / "mutants"
SURVIVED, NO_TEST, TYPES = (0,), (5, 33), 37
TIMED_OUT = (36, -24, 24, 152, 255, -9)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mutant of a deciding function. ``code`` is what a run of its tests ended with; None when it
    was not run."""

    module: str
    function: str
    change: Change
    code: int | None

    @property
    def state(self) -> str:
        if self.code is None or self.code == 34:  # skipped
            return "not run"
        if self.code in SURVIVED:
            return "survived"
        if self.code in NO_TEST:
            return "no test"
        if self.code == TYPES:
            return "refused by mypy"
        return "timed out" if self.code in TIMED_OUT else "killed"


def every(modules: Collection[str] = (), made: Path = MADE) -> Iterator[Mutant]:
    """The mutants of the deciding functions of ``modules`` (paths below ``provision``; none: all),
    but for those that change only words."""
    functions = {f.mangled: f for f, word in decisions.listed() if word in decisions.DECIDING}
    for module in dict.fromkeys(f.module for f in functions.values()):
        if modules and not any(module.startswith(m) for m in modules):
            continue
        path = made / "provision" / module
        codes = json.loads(_meta(path).read_text("utf-8"))["exit_code_by_key"]
        dotted = "provision." + module.removesuffix(".py").replace("/", ".")
        for change in _changes(path, dotted, functions):
            function = functions[change.name.rpartition("__mutmut_")[0]]
            if not change.words:
                yield Mutant(module, function.name, change, codes[change.name])


def _changes(path: Path, dotted: str, functions: Collection[str]) -> list[Change]:
    """The changes in one of mutmut's files. They are kept beside it: to find them takes seconds."""
    kept = path.with_name(f"{path.name}.changes")
    rules = Path(changes.__file__).stat().st_mtime
    if kept.exists() and kept.stat().st_mtime > max(path.stat().st_mtime, rules):
        found = [Change(*each) for each in json.loads(kept.read_text("utf-8"))]
        return [c for c in found if c.name.rpartition("__mutmut_")[0] in functions]
    found = list(changes.read(path, dotted, functions))
    kept.write_text(json.dumps([dataclasses.astuple(c) for c in found]), "utf-8")
    return found


def run(
    modules: Collection[str],
    again: Callable[[Mutant], bool] = lambda m: False,
    *,
    children: int = 2,
    seconds: float = 10.0,
    made: Path = MADE,
) -> Iterator[tuple[str, int]]:
    """Run the mutants of ``modules`` that were not run, and those for which ``again`` is true.
    Yields each result: the mutant's name, and mutmut's exit code. The results are kept in mutmut's
    files.

    ``seconds`` of CPU time are given to each mutant, and four times what its tests take without it.
    """
    todo = [m for m in every(modules, made) if m.state == "not run" or again(m)]
    todo.sort(key=lambda m: m.state == "survived")  # that takes longest, and is mostly known
    known = json.loads((made / "mutmut-stats.json").read_text("utf-8"))
    tests, durations = known["tests_by_mangled_function_name"], known["duration_by_test"]
    results: dict[str, dict[str, int]] = {}
    lines = []
    of = {}
    for m in todo:
        of[m.change.name] = m.module
        its = sorted(tests.get(m.change.name.rpartition("__mutmut_")[0], ()), key=durations.get)
        if its:
            limit = seconds + 4 * sum(durations[t] for t in its)
            lines.append(json.dumps([m.change.name, its, limit]))
        else:
            results.setdefault(m.module, {})[m.change.name] = NO_TEST[-1]
    for module in results:
        _keep(made, module, results[module])
    with subprocess.Popen(
        [sys.executable, "-m", "tests.mutants.worker", str(children)],
        cwd=made,
        env={**os.environ, "PYTHONPATH": str(made)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write("\n".join(lines))
        worker.stdin.close()
        waiting: dict[str, dict[str, int]] = {}
        for line in worker.stdout:
            name, code = json.loads(line)
            waiting.setdefault(of[name], {})[name] = code
            if sum(map(len, waiting.values())) >= 20:
                for module, found in waiting.items():
                    _keep(made, module, found)
                waiting.clear()
            yield name, code
        for module, found in waiting.items():
            _keep(made, module, found)


def check_types(modules: Collection[str] = (), made: Path = MADE) -> int:
    """Note which mutants of ``modules`` mypy refuses, whatever their tests said; returns how many.

    mypy sees the mutants that count, and the other modules as they are.
    """
    wanted = {m.change.name: m.module for m in every(modules, made)}
    found: dict[str, dict[str, int]] = {}
    for name in typed.refused(made, wanted):
        found.setdefault(wanted[name], {})[name] = TYPES
    for module, codes in found.items():
        _keep(made, module, codes)
    return sum(map(len, found.values()))


def _keep(made: Path, module: str, found: dict[str, int]) -> None:
    path = _meta(made / "provision" / module)
    known = json.loads(path.read_text("utf-8"))
    known["exit_code_by_key"].update(found)
    path.write_text(json.dumps(known, indent=4), "utf-8")


def _meta(path: Path) -> Path:
    return path.with_name(f"{path.name}.meta")
