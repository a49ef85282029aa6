"""The lines of a unit's journal that say why its last failed attempt ended.

An Alluxio process that cannot start logs ``Fatal error: …`` (``ProcessUtils.fatalError``) or
``Uncaught exception while running …`` (``ProcessUtils.run``), a stack trace with several
``Caused by:``, and goes on logging while it ends. systemd then starts the next attempt, whose
banner is what the journal ends with. An attempt is one invocation of the unit (systemd.exec(5),
``$INVOCATION_ID``); journald keeps its id with each line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

#: Lines of the journal in which attempts are looked for; one of a real worker has some hundreds.
LOOKED_AT = 3000
#: Lines of an attempt, without its stack frames, that come from the host.
FETCHED = 150
#: Lines that are shown where none says the cause.
SHOWN = 8
#: Characters of a line; an exception's may hold a whole class path.
WIDTH = 400
_FATAL = re.compile(r"Fatal error: |Uncaught exception while running ")
_CAUSE = re.compile(r"^\s*Caused by: ")
_FRAME = re.compile(r"^\s+(at \S+\(|\.\.\. \d+ (more|common frames))")
_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")


def script(unit: str) -> str:
    """The shell script that prints the last attempt of ``unit`` that has ended; the running one
    where none has.

    Without an invocation's id in the journal, the journal's end.
    """
    name = shlex.quote(unit)
    field = '"_*(SYSTEMD_)?INVOCATION_ID" ?: ?"'
    return (
        f"ids=$(journalctl -u {name} -n {LOOKED_AT} --no-pager -o json 2>/dev/null"
        f" | grep -oE '{field}[0-9a-f]{{32}}' | grep -oE '[0-9a-f]{{32}}' | uniq | tail -n 40)\n"
        f"now=$(systemctl show -p InvocationID --value {name})\n"
        f"state=$(systemctl show -p SubState --value {name})\n"
        f"again=$(systemctl show -p NRestarts --value {name})\n"
        # In `auto-restart` the unit still has the id of the attempt that ended.
        "case $state:${again:-0} in *:0) ;; running:*|start*)\n"
        '  ids=$(printf "%s\\n" "$ids" | grep -v "^$now$");;\n'
        "esac\n"
        'id=$(printf "%s\\n" "$ids" | tail -n 1)\n'
        'if [ -n "$id" ]; then set -- _SYSTEMD_INVOCATION_ID=$id + INVOCATION_ID=$id\n'
        f"else set -- -u {name}; fi\n"
        f'journalctl "$@" -n {LOOKED_AT} --no-pager -o cat'
        f" | grep -v '^[[:space:]]*at ' | tail -n {FETCHED}"
    )


def excerpt(lines: Sequence[str]) -> list[str]:
    """The cause out of an attempt's lines: the last fatal error, and the last ``Caused by:`` of
    its stack trace after the one before, which often has the address or the path. Where there is
    no fatal error, the last lines."""
    said = [line[:WIDTH] for line in lines if not _FRAME.match(line)]
    fatal = max((i for i, line in enumerate(said) if _FATAL.search(line)), default=None)
    if fatal is None:
        return said[-SHOWN:]
    found = [said[fatal]]
    trace = said[fatal + 1 :]
    # The trace ends with the next line of the log.
    end = next((i for i, line in enumerate(trace) if _TIME.match(line)), len(trace))
    trace = trace[:end]
    causes = [line for line in trace if _CAUSE.match(line)]
    return found + (causes[-2:] or trace[:1])
