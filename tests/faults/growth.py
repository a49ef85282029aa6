"""How long each operation takes with 1, 3, 5 and 7 members, without any fault.

``python -m tests.faults.growth`` needs the lab's hosts etcd0 to etcd7 to be up. A figure is the
wall time of the command as an operator waits for it, Python's start included; one run each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from .operations import OPERATIONS, Bed, Operation
from .run import bed_of, commit, machine

RESULTS = Path(__file__).parent / "growth.json"
SCHEMA = "alluxio-provision/growth/1"
SIZES = (1, 3, 5, 7)
#: What would leave no member, or no quorum, of a single one.
NOT_OF_ONE = ("replace-member", "recover-etcd")


def measure(bed: Bed, operation: Operation) -> dict[str, object]:
    """One run of the operation, which must end well."""
    operation.prepare(bed)
    command = operation.command(bed)
    state, bed.state = bed.state, None
    done = bed.lab.start(command.task, command.inventory, *command.options).finish(timeout=600)
    done.expect(0)
    bed.require(operation.members(bed))
    bed.state = (operation.leaves,) if operation.leaves else state
    return {"seconds": round(done.seconds, 1)}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.faults.growth", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--operations", default="", help="names, separated by commas")
    given = parser.parse_args(arguments)
    wanted = given.operations.split(",") if given.operations else [o.name for o in OPERATIONS]
    rows: list[dict[str, object]] = []
    for size in SIZES:
        with bed_of(size) as bed:
            for operation in OPERATIONS:
                if operation.name not in wanted or (size == 1 and operation.name in NOT_OF_ONE):
                    continue
                started = time.monotonic()
                row = {"operation": operation.name, "members": size} | measure(bed, operation)
                rows.append(row)
                print(f"{row}; all {time.monotonic() - started:.1f} s", flush=True)
                document = {
                    "schema": SCHEMA,
                    "when": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
                    "machine": machine(),
                    "commit": commit(),
                    "rows": rows,
                }
                given.results.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
