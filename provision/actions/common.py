"""What commands have in common: loading the inventory, consent, and the plan carried out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from provision.errors import UsageError
from provision.run import Run
from provision.text import shown

if TYPE_CHECKING:
    from provision.inventory.resolved import AlluxioCluster, Inventory
    from provision.plan import Plan


def load(run: Run) -> Inventory:
    """The inventory, while SSH and etcd's client libraries are imported beside it."""
    import threading

    from provision.etcd import client

    threading.Thread(target=client.preload, name="preload", daemon=True).start()
    inventory = run.inventory
    warn(run)
    return inventory


def load_own_etcd(run: Run) -> Inventory:
    """As :func:`load`. Raises :class:`UsageError` when etcd is taken care of elsewhere."""
    if run.inventory.etcd.external:
        raise UsageError(
            f"{run.inventory.path}: etcd.external says that this etcd is taken care of elsewhere: "
            f"{run.command} is for the inventory that declares its members",
            id="command-not-applicable",
        )
    return load(run)


def load_alluxio(run: Run) -> tuple[Inventory, AlluxioCluster]:
    inventory = load(run)
    if inventory.alluxio is None:
        raise UsageError(f"{inventory.path}: has no 'alluxio' section", id="section-missing")
    return inventory, inventory.alluxio


def warn(run: Run) -> None:
    from provision import screen

    screen.problems(run.loaded.warnings)


def consent(run: Run, name: str, given: str, done: str, what: str, option: str) -> None:
    """Ask for the cluster's name unless ``given``. Raises :class:`UsageError` without it."""
    if run.dry_run:
        return
    if not given and sys.stdin.isatty():
        prompt = f"{what}. Type {name} to go on: "
        print(prompt, end="", file=sys.stderr, flush=True)  # stdout is for the result
        given = sys.stdin.readline().strip()
    if given != name:
        raise UsageError(
            f"not {done}: the cluster is called {name}"
            + ("" if given else f"; say {option} and its name"),
            id="consent-missing",
        )


def carry_out(run: Run, plan: Plan) -> bool:
    """Show the plan and, unless this is a dry run, apply it. Returns whether it was applied."""
    from provision import plan as plans
    from provision import screen

    run.plans.append(plan)
    screen.problems(plan.notes)
    if not plan.steps:
        return False
    if not run.json:
        screen.plan(plan)
    if run.dry_run:
        run.drifted = True
        return False
    run.applying = True
    with screen.Progress() as progress:
        plans.apply(plan, run.fleet, progress)
    run.applying = False
    return True


def finish(
    run: Run, plan: Plan, carried: bool, extra: dict[str, Any] | None = None, line: str = ""
) -> None:
    from provision import screen

    done = plan.changed if carried else 0
    if run.json:
        document = plan.document() | {"applied": carried, "changed": done, **(extra or {})}
        if run.dry_run:
            document["would_change"] = plan.changed
        screen.emit_json(document)
        return
    if run.dry_run and plan.steps:
        print(f"{plan.changed} would change; nothing was changed (--dry-run)")
        return
    print(shown(f"{done} changed" + (f"; {line}" if line else "")))
