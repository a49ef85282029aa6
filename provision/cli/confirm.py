"""The questions before a plan is applied, and the second look at the hosts after the answer.

A question may stay open for long. So the answer is to the plan that was shown: the command begins
again, reads the facts again, and applies its plan only if it is the same.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NoReturn, TypeVar

from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.cli.run import Run
    from provision.engine.plan import Plan
    from provision.errors import Problem

T = TypeVar("T")

#: What changes in the texts of a plan while a question is open: waits, and the sizes of data.
_PASSING = re.compile(
    r"(?<=\bfor )\d+ s\b|(?:(?:more than )?\d+(?:\.\d+)? [kMGTP]?B|an unknown size)(?= in /)"
)
_STAMP = "%Y%m%dT%H%M%SZ"
_STAMPS = re.compile(r"\d{8}T\d{6}Z")


class Again(Exception):
    """A plan is settled, and is made again from fresh facts before it is applied."""


def until_settled(run: Run, body: Callable[[], T]) -> T:
    """The result of ``body``, which begins again after each :class:`Again`."""
    while True:
        run.began = datetime.now(timezone.utc).strftime(_STAMP)
        try:
            return body()
        except Again:
            run.forget_facts()
            run.told_before.update(run.told_now)


def tell(run: Run, problems: Sequence[Problem]) -> None:
    """Print ``problems``, but not again after a question."""
    from provision.cli import console

    def told(p: Problem) -> tuple[str, str, str, str]:
        return p.id, p.where, said(run, p.what), said(run, p.remedy)

    console.problems(p for p in problems if told(p) not in run.told_before)
    run.told_now.update(map(told, problems))


def settle(run: Run, plan: Plan) -> None:
    """Show ``plan``, and ask whether to apply it when it restarts, stops or removes something that
    runs. Returns when it may be applied.

    Raises :class:`Again` after the answer, and :class:`UsageError` when it is not yes.
    """
    answered = run.agreed is not None
    if answered and (run.consented or is_agreed(run, plan)):
        return  # it was shown with the question
    if answered or (plan.ends_something and run.may_ask):
        if ask(run, plan, "Type yes to continue: ").lower() not in ("y", "yes"):
            but = "" if run.earlier else "; no host was changed"
            raise UsageError(f"not applied: the answer was not yes{but}", id="consent-missing")
        again(run, plan)
    show(run, plan, new=run.dry_run)
    if run.preview and not run.dry_run:
        again(run, plan)


def is_agreed(run: Run, plan: Plan) -> bool:
    """Whether the answer was to ``plan``. An answer to another one counts no more, and is noted."""
    if run.agreed is None:
        return False
    if run.agreed == _content(run, plan):
        return True
    from provision import terminal

    terminal.say(
        "the facts have changed: this plan differs from the plan that was shown", stderr=True
    )
    run.agreed = None
    return False


def ask(run: Run, plan: Plan, prompt: str) -> str:
    """The answer to ``prompt``, which stands below ``plan``; "" at the end of the input."""
    from provision import terminal

    show(run, plan, new=True, stderr=run.json)
    terminal.say(prompt, stderr=True, end="")  # stdout is for the result
    return sys.stdin.readline().strip()


def again(run: Run, plan: Plan) -> NoReturn:
    """Note that ``plan`` is agreed to, and begin again."""
    run.agreed, run.preview = _content(run, plan), False
    raise Again


def show(run: Run, plan: Plan, *, new: bool, stderr: bool = False) -> None:
    from provision.cli import console

    if not run.json or stderr:
        console.plan(plan, stderr=stderr, new=new or run.diff_full, full=run.diff_full)


def said(run: Run, text: str) -> str:
    """``text`` without what passes. A time from before this look at the hosts is no such time: it
    names a backup, or a restore."""
    text = _PASSING.sub("", text)
    return _STAMPS.sub(lambda found: "" if found[0] >= run.began else found[0], text)


def _content(run: Run, plan: Plan) -> tuple[object, ...]:
    """What ``plan`` does, for a comparison. Certificates differ whenever they are made."""
    from provision.host.effects import Effect

    return tuple(
        (
            said(run, step.title),
            tuple(
                (
                    host.name,
                    host.machine.host,
                    tuple(
                        (said(run, c.what), "" if Effect.TRUST in c.effects else said(run, c.diff))
                        for c in host.changes
                    ),
                )
                for host in step.hosts
            ),
            tuple(said(run, call.what) for call in step.calls),
        )
        for step in plan.steps
    )
