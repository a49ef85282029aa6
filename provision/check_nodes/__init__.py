"""``check-nodes``: inventory, etcd and ``info nodes`` joined into one verdict per worker.

:func:`verdicts` is the join, a function of plain values. :func:`run` looks at all three views at
the same time and reports the views that did not answer. :func:`watch` goes on with the changes.
"""

from provision.check_nodes.collect import Ask, run, with_read
from provision.check_nodes.live import changes, watch
from provision.check_nodes.result import SCHEMA, CheckReport
from provision.check_nodes.verdict import NodeVerdict, State
from provision.check_nodes.verdicts import verdicts

__all__ = [
    "SCHEMA",
    "Ask",
    "CheckReport",
    "NodeVerdict",
    "State",
    "changes",
    "run",
    "verdicts",
    "watch",
    "with_read",
]
