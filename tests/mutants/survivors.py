"""The mutants that live, each with the reason: ``survivors.txt`` beside this module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("survivors.txt")
_ARROW = "  ->  "


@dataclass(frozen=True, slots=True)
class Survivor:
    """A change in ``function`` of ``module`` (a path below ``provision``) that no test notices.
    ``why`` is the reason; empty for one that nobody has judged."""

    module: str
    function: str
    old: str
    new: str
    why: str = ""

    @property
    def line(self) -> str:
        return f"{self.module} {self.function}: {self.old}{_ARROW}{self.new}"


def listed(text: str | None = None) -> list[Survivor]:
    """The survivors of the list. A line with ``#`` in front is the reason of those below it."""
    found: list[Survivor] = []
    why: list[str] = []
    fresh = True
    for line in (LIST.read_text("utf-8") if text is None else text).splitlines():
        if not line.strip():
            fresh = True
        elif line.startswith("#"):
            why = [line.removeprefix("# ")] if fresh else [*why, line.removeprefix("# ")]
            fresh = False
        else:
            fresh = True
            place, _, change = line.partition(": ")
            module, _, function = place.partition(" ")
            old, arrow, new = change.partition(_ARROW)
            if not arrow:
                raise ValueError(f"not a line of {LIST.name}: {line!r}")
            found.append(Survivor(module, function, old, new, " ".join(why)))
    return found
