"""The command that makes one report of the parts of a whole; it contacts no host."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import cast

from provision.cli.command import command
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import UsageError, from_document


@command(
    inventory=False,
    help={
        "files": "JSON documents of parts, folders of *.json files, or - for stdin (the default).",
        "exit_code": "Of a dry run: end with 1 when anything would change.",
        "diff_full": "Of a dry run: show every difference of every host, and all of new files.",
        "wide": common.WIDE,
        "all": common.ALL,
    },
    word="files",
)
def merge_reports(
    run: Run,
    files: Sequence[str] = (),
    exit_code: bool = False,
    diff_full: bool = False,
    wide: bool = False,
    all: bool = False,
) -> int:
    """Make one report of the parts that ran with --batch K/N --format json. Contacts nothing.

    All N parts must be there, each once. One that failed counts, too: the exit code is the
    command's own for the whole, and never better than the worst part's.
    """
    from provision import terminal
    from provision.check_nodes import screen, table
    from provision.check_nodes.result import CheckDocument
    from provision.check_nodes.status import StatusDocument
    from provision.cli import console, merge, parts
    from provision.cli.tasks.cluster import show_status
    from provision.engine import joined
    from provision.engine.plan import PlanDocument

    if not files and sys.stdin.isatty():
        what = "merge-reports needs FILES: documents of parts, folders, or - for stdin"
        raise UsageError(what, id="argument-missing")
    whole = parts.whole(parts.read(files or [parts.STDIN]))
    terminal.say(whole.line, stderr=True)
    merged = merge.merge(whole, drift=exit_code)
    if run.json:
        terminal.emit_json(run.document(merged.document))
        if whole.command != "check-nodes":
            console.problems(merged.failed)
    elif whole.command == "check-nodes":
        table.check(screen.of_document(cast(CheckDocument, merged.document)), wide=wide, every=all)
    elif whole.command == "status":
        seen = merge.status(cast(StatusDocument, merged.document))
        show_status(seen, wide=wide, every=all)
        console.problems(seen.problems)
    else:
        plan = joined.told(cast(PlanDocument, merged.document))
        console.problems(plan.notes)
        if whole.dry_run and plan.steps:
            console.plan(plan, new=True, full=diff_full)
        terminal.say(merge.line(whole, merged.document))
        left = [*merged.document.get("left_out", ()), *merged.document.get("problems", ())]
        console.problems(map(from_document, left))
    return merged.code
