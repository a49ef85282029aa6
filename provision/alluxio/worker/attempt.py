"""The lines of a unit's journal with the reason why its last failed attempt ended.

An Alluxio process that cannot start logs ``Fatal error: …`` (``ProcessUtils.fatalError``) or
``Uncaught exception while running …`` (``ProcessUtils.run``), and a stack trace with several
``Caused by:``. It goes on logging while it ends. Then systemd starts the next attempt, and the
journal ends with the banner of that attempt. An attempt is one invocation of the unit
(systemd.exec(5), ``$INVOCATION_ID``); journald keeps the invocation's id with each line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

#: How many lines of the journal are searched for attempts; a real worker's attempt has some
#: hundreds.
LOOKED_AT = 3000
#: How many lines of an attempt, without stack frames, the host sends.
FETCHED = 150
#: How many lines of the process, from the time of the attempt, stand for the attempt's own.
OF_ITS_TIME = 3
#: How many lines are shown when no line gives the cause.
SHOWN = 8
#: Limit for the characters of a line; an exception's line may contain a whole class path.
WIDTH = 400
_FATAL = re.compile(r"Fatal error: |Uncaught exception while running ")
_CAUSE = re.compile(r"^\s*Caused by: ")
_FRAME = re.compile(r"^\s+(at \S+\(|\.\.\. \d+ (more|common frames))")
_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")


def script(unit: str) -> str:
    """The shell script that prints the last ended attempt of ``unit``, or else the running
    attempt.

    Without an invocation's id in the journal, it prints the end of the journal. When journald reads
    the line of a process that is gone already, it knows the unit alone, and takes the attempt of
    this moment (``client_context_read_invocation_id``): none, or the next one. So when an attempt
    has no line of its process, lines of the unit's processes from the attempt's time come first.
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
        "  journalctl -q _SYSTEMD_INVOCATION_ID=$id -n 1 --no-pager -o cat | grep -q . || {\n"
        f"    times=$(journalctl -q INVOCATION_ID=$id -n {LOOKED_AT} --no-pager -o short-unix"
        " | sed -n 's/\\..*//;1p;$p')\n"
        # Two whole seconds, one in each line.
        '    [ -z "$times" ] || journalctl -q --since="@${times%%[!0-9]*}"'
        ' --until="@$((${times##*[!0-9]} + 1))"'
        f" _SYSTEMD_UNIT={name} -n {OF_ITS_TIME} --no-pager -o cat\n"
        "  }\n"
        f"else set -- -u {name}; fi\n"
        f'journalctl "$@" -n {LOOKED_AT} --no-pager -o cat'
        f" | grep -v '^[[:space:]]*at ' | tail -n {FETCHED}"
    )


def excerpt(lines: Sequence[str]) -> list[str]:
    """The cause from an attempt's lines: the last fatal error, and the last two ``Caused by:`` of
    its stack trace. The first of these two often has the address or the path. Without a fatal
    error, the last lines."""
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
