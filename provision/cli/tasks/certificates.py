"""The commands on etcd's certificates, of the own CA and of an external CA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from provision.cli import confirm
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
        "yes_outage": "The cluster's name: consent to a restart of all members together.",
        "ca_lost": "With --ca: the cluster's name, when its CA's folder is lost for good.",
    },
    word="limit",
)
def rotate_certs(
    run: Run, ca: bool = False, limit: str = "", yes_outage: str = "", ca_lost: str = ""
) -> int:
    """Give etcd's members new keys and certificates, one member at a time, without an outage.

    Members whose certificates have expired come first. If a run with --ca is killed, run it again:
    it continues. A CA that has expired is replaced in one outage, after a question. A CA whose
    folder is lost is replaced without an outage by --ca --ca-lost NAME; with --yes-outage NAME,
    too, in one outage.
    """
    from provision.etcd.cluster import gates
    from provision.etcd.pki import tls
    from provision.inventory.selection import choose
    from provision.plans.etcd.certificates import rotate_certs
    from provision.plans.etcd.state import observe

    if ca and limit:
        raise UsageError("--ca is for all members: leave --limit out", id="option-invalid")
    if ca_lost:
        return _replace_lost_ca(run, ca_lost, yes_outage, ca=ca, limit=limit)
    inventory = common.load_own_etcd(run)
    members = choose(inventory.etcd.members, limit)
    cluster, etcd = inventory.etcd, run.etcd(inventory.etcd)
    observed = observe.observe(etcd)

    def planned(write: bool) -> Plan:
        if ca:
            return rotate_certs.authority(etcd, observed, write=write)
        return rotate_certs.leaves(etcd, observed, members, write=write)

    rotate_certs.require_at_hand(cluster, observed)
    if (ca or cluster.tls.ca == "external") and rotate_certs.needs_outage(cluster, observed):
        what = "All members restart together: etcd does not answer for some seconds"
        consent = common.Consent(cluster.name, yes_outage, "rotated", what, tls.YES_OUTAGE)
        preview = planned(False)
        confirm.tell(run, preview.notes)
        consent.require(run, preview)
        # The CA is made only now. The steps are the same steps that were shown.
        plan = replace(planned(not run.dry_run), notes=())
    else:
        if not rotate_certs.cut_off(cluster, observed):
            # A killed run may have left a member while it was starting: this run waits for it.
            health = gates.wait_until_recovered(etcd, observed.health)
            observed = replace(observed, health=health)
            gates.require_writable(health)
        plan = planned(run.writes)
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


def _replace_lost_ca(run: Run, name: str, outage: str, *, ca: bool, limit: str) -> int:
    """``--ca --ca-lost NAME``: the folder of the CA is lost, and the hosts have its certificate.
    With ``--yes-outage NAME``, too, all members restart together."""
    from provision.plans.etcd.certificates import replace_lost_ca
    from provision.plans.etcd.state import observe

    if not ca or limit:
        raise UsageError(
            "--ca-lost goes with --ca, for all members: leave --limit out", id="option-invalid"
        )
    inventory = common.require_own_etcd(run)
    if inventory.etcd.tls.ca == "external":
        raise UsageError(
            "--ca-lost is for this tool's own CA: an external CA's certificate is in "
            "etcd.tls.ca_bundle",
            id="command-not-applicable",
        )
    if any(given != inventory.cluster for given in (name, outage) if given):
        raise UsageError(
            f"not rotated: the cluster is called {inventory.cluster}", id="consent-missing"
        )
    run.consented = True
    planned = replace_lost_ca.together if outage else replace_lost_ca.plan
    if not run.dry_run:
        if not inventory.etcd.tls.client:  # without TLS, the members can be asked before
            etcd = run.etcd(common.load_own_etcd(run).etcd)
            planned(etcd, observe.observe(etcd))
        replace_lost_ca.begin(inventory.etcd, run.fleet, outage=bool(outage))
    inventory = common.load_own_etcd(run)  # from here on, the members' certificates are trusted
    etcd = run.etcd(inventory.etcd)
    plan = planned(etcd, observe.observe(etcd))
    carried = common.carry_out(run, plan)
    common.finish(run, plan, carried, line="" if plan.steps else "the CA is at hand, not lost")
    return 0


@command(
    changes=True,
    help={
        "folder": "Folder for the requests and their manifest.",
        "all": "Also for certificates that stay valid for long.",
        "limit": common.LIMIT,
    },
    old={"to": "folder"},
)
def export_csrs(run: Run, folder: str, all: bool = False, limit: str = "") -> int:
    """Make keys on the members' hosts, and signing requests for an external CA (etcd.tls.ca)."""
    from provision.inventory.selection import choose
    from provision.plans.etcd.certificates import csr_exchange

    inventory = common.load_own_etcd(run)
    members = choose(inventory.etcd.members, limit)
    into = Path(folder).expanduser().absolute()
    plan = csr_exchange.export(inventory, run.fleet, members, into, every=all)
    carried = common.carry_out(run, plan)
    line = f"let your CA sign them, then invoke import-certs {folder}" if carried else ""
    if not plan.steps:
        line = f"nothing to ask for that is not in {folder} (--all: good certificates, too)"
    common.finish(run, plan, carried, {"folder": str(into)}, line)
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
    common.finish(run, plan, carried, line=line if carried else "")
    return 0
