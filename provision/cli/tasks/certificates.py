"""The commands on etcd's certificates, of the own CA and of an external CA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from provision.cli.command import command
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.engine.plan import Plan


@command(
    changes=True,
    guarded=True,
    help={
        "ca": "Replace the CA, too: both are trusted meanwhile. Two rolling restarts.",
        "limit": common.LIMIT,
        "yes_outage": "The cluster's name: do not ask before all members restart together.",
    },
)
def rotate_certs(run: Run, ca: bool = False, limit: str = "", yes_outage: str = "") -> int:
    """Give etcd's members new keys and certificates, one member at a time, without an outage.

    Members whose certificates have expired come first. If a run with --ca is killed, run it again:
    it continues. A CA that has expired is replaced in one outage, after a question.
    """
    from provision.cli import console
    from provision.etcd.cluster import gates
    from provision.etcd.pki import tls
    from provision.inventory.selection import choose
    from provision.plans.etcd.certificates import rotate_certs
    from provision.plans.etcd.state import observe

    if ca and limit:
        raise UsageError("--ca is for all members: leave --limit out", id="option-invalid")
    inventory = common.load_own_etcd(run)
    members = choose(inventory.etcd.members, limit)
    cluster, etcd = inventory.etcd, run.etcd(inventory.etcd)
    observed = observe.observe(etcd)

    def planned(write: bool) -> Plan:
        if ca:
            return rotate_certs.authority(etcd, observed, write=write)
        return rotate_certs.leaves(etcd, observed, members, write=write)

    if (ca or cluster.tls.ca == "external") and rotate_certs.needs_outage(cluster, observed):
        if not yes_outage and not run.dry_run:
            rotate_certs.require_at_hand(cluster, observed)
        what = "All members restart together: etcd does not answer for some seconds"
        consent = common.Consent(cluster.name, yes_outage, "rotated", what, tls.YES_OUTAGE)
        preview = planned(False)
        console.problems(preview.notes)
        consent.require(run, preview)
        # The CA is made only now. The steps are the same steps that were shown.
        plan = replace(planned(not run.dry_run), notes=())
        run.shown = plan.steps if run.shown is preview.steps else run.shown
    else:
        rotate_certs.require_at_hand(cluster, observed)
        if not rotate_certs.cut_off(cluster, observed):
            # A killed run may have left a member while it was starting: this run waits for it.
            health = gates.wait_until_recovered(etcd, observed.health)
            observed = replace(observed, health=health)
            gates.require_writable(health)
        plan = planned(not run.dry_run)
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


@command(
    changes=True,
    help={
        "to": "Folder for the requests and their manifest.",
        "all": "Also for certificates that stay valid for long.",
        "limit": common.LIMIT,
    },
)
def export_csrs(run: Run, to: str = "", all: bool = False, limit: str = "") -> int:
    """Make keys on the members' hosts, and signing requests for an external CA (etcd.tls.ca)."""
    from provision.inventory.selection import choose
    from provision.plans.etcd.certificates import csr_exchange

    if not to:
        raise UsageError("where to? --to DIR, the folder for the requests", id="argument-missing")
    inventory = common.load_own_etcd(run)
    members = choose(inventory.etcd.members, limit)
    folder = Path(to).expanduser().absolute()
    plan = csr_exchange.export(inventory, run.fleet, members, folder, every=all)
    carried = common.carry_out(run, plan)
    line = f"let your CA sign them, then invoke import-certs {to}" if carried else ""
    if not plan.steps:
        line = f"nothing to ask for that is not in {to} (--all: certificates that are good, too)"
    common.finish(run, plan, carried, {"folder": str(folder)}, line)
    return 0


@command(changes=True, help={"folder": "The folder of export-csrs."})
def import_certs(run: Run, folder: str) -> int:
    """Verify the certificates that the external CA has signed, and import them.

    deploy-etcd or rotate-certs then installs them.
    """
    from provision.plans.etcd.certificates import csr_exchange

    inventory = common.load_own_etcd(run)
    plan = csr_exchange.import_(inventory, Path(folder).expanduser().absolute())
    carried = common.carry_out(run, plan)
    line = "invoke deploy-etcd, or rotate-certs on a running cluster, puts them to use"
    common.finish(run, plan, carried, {}, line if carried else "")
    return 0
