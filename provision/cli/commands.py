"""Provision etcd v3 and Alluxio workers on bare metal. ``invoke --list`` shows every task.

Exit codes: 0 as declared; 1 unhealthy or drifted; 2 bad usage or inventory (nothing contacted);
3 unreachable or preflight failed (nothing changed); 4 a change failed part-way (run again to
continue); 5 another run holds the lock; 70 a mistake in this tool; 130 interrupted.
"""

from __future__ import annotations

from invoke.collection import Collection

from provision.cli import tasks
from provision.cli.command import command
from provision.cli.run import DEFAULT_INVENTORY, Run
from provision.errors import UsageError

DELETE_DATA = "The member's name again: delete its old data instead of keeping it aside."
NO_WORKERS = "Leave the workers' etcd endpoints as they are, and say that they are stale."
READ = "A file in Alluxio: read at most 1 MiB of it through a worker, and say which one served it."
LIMIT = "Names separated by commas, with ranges, * and ?: 'worker[001-020],edge*'. Default: all."
BATCH = "K/N: the Kth of N equal shares of them, so that N runs can share the work."
DOWNGRADE = "Go back to the inventory's release on hosts with a newer one."
AT_ONCE = "How many at a time: a count or a percent of the chosen; 10% when not given."
KEEP_RELEASES = "How many releases stay on a host, older ones are deleted: 2 or more, or all."


@command(
    changes=True,
    guarded=True,
    help={
        "no_workers": NO_WORKERS,
        "remove": "Members to remove that the inventory does not declare, comma-separated.",
        "downgrade": "Go back to the inventory's patch release on members that run a newer one.",
    },
)
def deploy_etcd(
    run: Run, no_workers: bool = False, remove: str = "", downgrade: bool = False
) -> int:
    """Install etcd on the inventory's members, or roll a change out, one member at a time.

    Adds members that the inventory has and etcd does not. Shows and keeps a member that the
    inventory does not declare, and a newer patch release: the inventory may be an old one. The plan
    is shown before it is applied; a second run changes nothing.
    """
    return tasks.deploy_etcd(run, workers=not no_workers, remove=remove, downgrade=downgrade)


@command(
    changes=True,
    guarded=True,
    help={"name": "The member; all that etcd lacks.", "no_workers": NO_WORKERS},
)
def add_member(run: Run, name: str = "", no_workers: bool = False) -> int:
    """Add members of the inventory to the running cluster: as learners, then as voters."""
    return tasks.add_member(run, name, workers=not no_workers)


@command(
    changes=True,
    guarded=True,
    help={"name": "The member.", "delete_data": DELETE_DATA, "no_workers": NO_WORKERS},
    positional=("name",),
)
def remove_member(
    run: Run, name: str | None = None, delete_data: str = "", no_workers: bool = False
) -> int:
    """Remove a member, the leader too. Its unit is stopped and disabled, its data kept aside."""
    return tasks.remove_member(run, name or "", delete_data, workers=not no_workers)


@command(
    changes=True,
    guarded=True,
    help={"name": "The member.", "delete_data": DELETE_DATA, "no_workers": NO_WORKERS},
    positional=("name",),
)
def replace_member(
    run: Run, name: str | None = None, delete_data: str = "", no_workers: bool = False
) -> int:
    """Replace a dead member: the old one is removed, a new one of its name joins as a learner."""
    return tasks.replace_member(run, name or "", delete_data, workers=not no_workers)


@command(
    changes=True,
    guarded=True,
    help={
        "to": "The release, such as 3.6.16; those on the way are taken from etcd.releases.",
        "backup_dir": "Where the snapshot goes that is taken first.",
    },
)
def upgrade_etcd(run: Run, to: str = "", backup_dir: str = "") -> int:
    """Upgrade etcd: one minor release at a time, one member at a time, the leader last.

    A verified snapshot is taken first. An interrupted upgrade goes on by running it again.
    """
    return tasks.upgrade_etcd(run, to, backup_dir)


@command(changes=True, guarded=True, help={"to": "The member that is to lead."})
def move_leader(run: Run, to: str = "") -> int:
    """Make a member the leader, for work on the host of the one that leads now."""
    return tasks.move_leader(run, to)


@command(
    changes=True,
    guarded=True,
    help={
        "ca": "Replace the CA, too: both are trusted meanwhile. Two rolling restarts.",
        "limit": LIMIT,
        "yes_outage": "The cluster's name: do not ask before all members restart together.",
    },
)
def rotate_certs(run: Run, ca: bool = False, limit: str = "", yes_outage: str = "") -> int:
    """Give etcd's members new keys and certificates, one member at a time, without an outage.

    Members whose certificates have expired come first. If a run with --ca is killed, run it again:
    it continues. A CA that has expired is replaced in one outage, after a question.
    """
    return tasks.rotate_certs(run, ca, limit, yes_outage)


@command(
    changes=True,
    help={
        "to": "Folder for the requests and their manifest.",
        "all": "For certificates that are good for long, too.",
        "limit": LIMIT,
    },
)
def export_csrs(run: Run, to: str = "", all: bool = False, limit: str = "") -> int:
    """Make keys on the members' hosts, and signing requests for an external CA (etcd.tls.ca)."""
    return tasks.export_csrs(run, to, all, limit)


@command(changes=True, positional=("folder",), help={"folder": "The folder of export-csrs."})
def import_certs(run: Run, folder: str | None = None) -> int:
    """Verify the certificates that the external CA has signed, and take them in.

    They are put to use by deploy-etcd or rotate-certs.
    """
    return tasks.import_certs(run, folder)


@command(
    changes=True,
    guarded=True,
    help={"lock_out": "Other clusters in this etcd, whose live workers may lose it. With commas."},
)
def enable_auth(run: Run, lock_out: str = "") -> int:
    """Turn etcd's authentication on: etcd.auth and alluxio.etcd say who may log in.

    The workers' user may only read and write their own cluster's keys. Workers that run get
    their login and are restarted; every other client without one is refused from then on.
    """
    return tasks.enable_auth(run, lock_out)


@command(changes=True, guarded=True)
def disable_auth(run: Run) -> int:
    """Turn etcd's authentication off (etcd.auth.enabled: false); users and roles stay."""
    return tasks.disable_auth(run)


@command(
    changes=True,
    guarded=True,
    help={"limit": LIMIT, "batch": BATCH, "read": READ, "downgrade": DOWNGRADE},
)
def start_workers(
    run: Run, limit: str = "", batch: str = "", read: str = "", downgrade: bool = False
) -> int:
    """Install, configure and start the Alluxio workers, and wait until each is READY.

    READY: registered, and every listener that its properties turn on answers on its own host.
    """
    return tasks.start_workers(run, limit, batch, read, downgrade)


@command(
    changes=True,
    guarded=True,
    help={
        "limit": LIMIT,
        "batch": BATCH,
        "at_once": AT_ONCE,
        "afresh": "Restart all, also after a run that ended part-way.",
    },
)
def restart_workers(
    run: Run, limit: str = "", batch: str = "", at_once: str = "", afresh: bool = False
) -> int:
    """Restart the running workers, a group at a time: each is READY before the next goes.

    Stops at the first that does not come back. Run again, it goes on with those that are left.
    """
    return tasks.restart_workers(run, limit, batch, at_once, afresh)


@command(
    changes=True,
    guarded=True,
    help={
        "limit": LIMIT,
        "batch": BATCH,
        "at_once": AT_ONCE,
        "keep": KEEP_RELEASES,
        "downgrade": DOWNGRADE,
    },
)
def upgrade_workers(
    run: Run,
    limit: str = "",
    batch: str = "",
    at_once: str = "",
    keep: str = "all",
    downgrade: bool = False,
) -> int:
    """Bring the running workers to alluxio.version of the inventory, a group at a time.

    The new release is unpacked beside the old one, which stays for rollback-workers.
    """
    return tasks.upgrade_workers(run, limit, batch, at_once, keep, downgrade)


@command(
    changes=True,
    guarded=True,
    help={
        "to": "Another release that is on the hosts, by its version.",
        "limit": LIMIT,
        "batch": BATCH,
        "at_once": AT_ONCE,
    },
)
def rollback_workers(
    run: Run, to: str = "", limit: str = "", batch: str = "", at_once: str = ""
) -> int:
    """Bring the workers back to the release before the inventory's, which is on their hosts."""
    return tasks.rollback_workers(run, to, limit, batch, at_once)


@command(
    changes=True,
    guarded=True,
    help={
        "name": "The worker.",
        "revoke_lease": "Revoke its lease, if that has expired and etcd does not remove it.",
    },
    positional=("name",),
)
def decommission_worker(run: Run, name: str | None = None, revoke_lease: bool = False) -> int:
    """Stop and disable a worker, wait for its lease to end, take its id out of etcd."""
    return tasks.decommission_worker(run, name or "", revoke_lease)


@command(
    changes=True,
    guarded=True,
    help={
        "ids": "Worker ids as check-nodes shows them, separated by commas; or stale, for all such.",
        "count": "With stale: how many ids these are.",
    },
    positional=("ids",),
)
def forget_worker(run: Run, ids: str | None = None, count: str = "") -> int:
    """Take ids out of etcd whose workers will not come back. Never that of a live worker."""
    return tasks.forget_worker(run, ids or "", count)


@command(
    changes=True,
    guarded=True,
    help={"file": "As it was said at the removal."},
    positional=("file",),
)
def readmit_worker(run: Run, file: str | None = None) -> int:
    """Put a registration back that decommission-worker or forget-worker has removed."""
    return tasks.readmit_worker(run, file or "")


@command(changes=True, help={"limit": LIMIT, "downgrade": DOWNGRADE})
def start_masters(run: Run, limit: str = "", downgrade: bool = False) -> int:
    """Install, configure and start the Alluxio masters of alluxio.masters, if there are any."""
    return tasks.start_masters(run, limit, downgrade)


@command(changes=True, help={"limit": LIMIT})
def stop_masters(run: Run, limit: str = "") -> int:
    """Stop Alluxio masters. They stay installed; start-masters starts them again."""
    return tasks.stop_masters(run, limit)


@command(changes=True, help={"limit": LIMIT, "batch": BATCH})
def stop_workers(run: Run, limit: str = "", batch: str = "") -> int:
    """Stop Alluxio workers. They stay installed; start-workers starts them again."""
    return tasks.stop_workers(run, limit, batch)


@command(
    help={
        "watch": "Show every change as etcd tells it, until Ctrl-C (exit code 0).",
        "interval": "With --watch: seconds between two looks at the members' health.",
        "nodes_timeout": "Seconds that a command of bin/alluxio may take on a worker's host.",
        "hosts": "Also log in to every worker's host: is it READY, do all its listeners answer?",
        "read": READ,
        "kubernetes": "Look at the pods of the inventory's kubernetes section, by kubectl.",
        "namespace": "With --kubernetes: instead of kubernetes.namespace.",
        "kube_context": "With --kubernetes: instead of kubernetes.context.",
        "kubeconfig": "With --kubernetes: instead of kubernetes.kubeconfig.",
        "format": "table, json (with --watch: one line a change), or prometheus: metrics.",
        "output": "With json or prometheus: the file to write, whole or not at all.",
        "html": "Also write the report as one HTML page, to this file.",
    },
    writes=("output", "html"),
    formats=("table", "json", "prometheus"),
)
def check_nodes(
    run: Run,
    watch: bool = False,
    interval: float = 10.0,
    nodes_timeout: float = 45.0,
    output: str = "",
    html: str = "",
    hosts: bool = False,
    read: str = "",
    kubernetes: bool = False,
    namespace: str = "",
    kube_context: str = "",
    kubeconfig: str = "",
) -> int:
    """Join inventory, etcd and `info nodes` into one verdict a worker; exit 1 unless all is well.

    LIVE, FAILED (registered, no lease), STALE (expired lease, not removed), UNREGISTERED (inventory
    only), NOT_INSTALLED, UNKNOWN (etcd only). With --hosts READY: live, and every listener answers.
    """
    if (hosts or read) and (watch or kubernetes):
        raise UsageError(
            "--hosts and --read are not for --watch or --kubernetes: leave one out",
            id="option-invalid",
        )
    if kubernetes:
        if watch:
            raise UsageError(
                "--watch is not for pods: leave it or --kubernetes out", id="option-invalid"
            )
        where = (namespace, kube_context, kubeconfig)
        return tasks.check_pods(run, where, nodes_timeout, output, html)
    if namespace or kube_context or kubeconfig:
        raise UsageError(
            "--namespace, --kube-context and --kubeconfig go with --kubernetes", id="option-invalid"
        )
    return tasks.check_nodes(
        run, interval if watch else None, nodes_timeout, output, html, hosts, read
    )


@command(
    help={
        "into": "The folder that the files are written to.",
        "every": "Seconds between two looks.",
        "textfiles": "Where node_exporter looks for *.prom.",
    },
    writes=True,
)
def render_monitor(
    run: Run,
    into: str = "monitor",
    every: float = 60.0,
    textfiles: str = "/var/lib/prometheus/node-exporter",
) -> int:
    """Write a systemd service and timer, and Prometheus' alert rules, that watch the cluster.

    They are of this machine, this user and this inventory; installing them is left to you.
    """
    return tasks.render_monitor(run, into, every, textfiles)


@command(help={"to": "Folder to write to, instead of printing."}, writes=("to",))
def render_client_config(run: Run, to: str = "") -> int:
    """Print the alluxio-site.properties that an application host needs. Contacts nothing."""
    return tasks.render_client_config(run, to)


@command()
def list_clusters(run: Run) -> int:
    """List every Alluxio cluster that has workers in this etcd, and how many are live."""
    return tasks.list_clusters(run)


@command(help={"limit": LIMIT, "batch": BATCH})
def status(run: Run, limit: str = "", batch: str = "") -> int:
    """Show what systemd says of each member and worker, and its disk. check-nodes asks etcd.

    Of etcd it tells only whether its members are more than one cluster.
    """
    return tasks.status(run, limit, batch)


@command(
    help={
        "host": "A member, a worker or a host of the inventory.",
        "lines": "How many of the last lines.",
    }
)
def logs(run: Run, host: str = "", lines: int = 50) -> int:
    """Show the last log lines of a host's etcd member and Alluxio worker."""
    return tasks.logs(run, host, lines)


@command(changes=True, help={"yes_delete": "The cluster's name: do not ask. For scripts."})
def destroy(run: Run, yes_delete: str = "") -> int:
    """Remove workers and etcd with all their data. Asks for the cluster's name."""
    return tasks.destroy(run, yes_delete)


@command(
    changes=True,
    positional=("name",),
    help={
        "name": "A member, a worker or a host of the inventory.",
        "delete_data": "The name again: delete the services' data instead of keeping it aside.",
        "yes_clean": "The name again: do not ask. For scripts.",
    },
)
def clean_host(
    run: Run, name: str | None = None, delete_data: str = "", yes_clean: str = ""
) -> int:
    """Remove from one host what this tool put there for another cluster. Asks for its name.

    What this inventory declares on the host stays.
    """
    return tasks.clean_host(run, name or "", delete_data, yes_clean)


@command(
    guarded=True,
    help={
        "to": "Folder for the file; `backups` beside the inventory when not given.",
        "keep": "How many backups of each history stay there, the newest; or all.",
        "fetch": "Take no backup: copy the timer's newest ones from the members' hosts to here.",
    },
    writes=True,
)
def backup_etcd(run: Run, to: str = "", keep: str = "all", fetch: bool = False) -> int:
    """Save a snapshot of etcd on this machine, and prove it by restoring it beside a member."""
    return tasks.backup_etcd(run, to, keep, fetch)


@command(
    changes=True,
    positional=("file",),
    help={
        "file": "A file of backup-etcd, or of etcdctl snapshot save.",
        "yes_restore": "The cluster's name: do not ask. For scripts.",
        "bump_revision": "Begin far above every revision that a client has seen (etcd 3.6 on).",
    },
)
def restore_etcd(
    run: Run, file: str | None = None, yes_restore: str = "", bump_revision: bool = True
) -> int:
    """Make every member anew from one snapshot; their old data is kept aside on the hosts.

    Asks for the cluster's name. Killed anywhere, it is finished by running it again.
    """
    return tasks.restore_etcd(run, file, yes_restore, bump_revision)


@command(
    changes=True,
    help={
        "from": "The member whose data the cluster goes on from.",
        "cluster_id": "Of two etcd clusters among the members, the one to go on from, by its id.",
        "yes_recover": "The cluster's name: do not ask. For scripts.",
    },
)
def recover_etcd(run: Run, from_: str = "", cluster_id: str = "", yes_recover: str = "") -> int:
    """When a quorum is lost for good: go on from one member's data, and say what may be lost.

    Asks for the cluster's name. Killed anywhere, it is finished by running it again.
    """
    return tasks.recover_etcd(run, from_, yes_recover, cluster_id)


@command(
    changes=True,
    help={
        "delete": "Names of folders to delete, such as member.removed-..., on every host with one.",
        "limit": LIMIT,
    },
)
def kept_data(run: Run, delete: str = "", limit: str = "") -> int:
    """Show the data that removals, restores and recoveries have kept aside, and its size.

    It goes only when --delete names it.
    """
    return tasks.kept_data(run, delete, limit)


@command(
    changes=True,
    guarded=True,
    help={
        "compact": "First drop the history of every key, up to the newest revision.",
        "all": "Rewrite every database, also when that gives little space back.",
    },
)
def defrag_etcd(run: Run, compact: bool = False, all: bool = False) -> int:
    """Give free space of etcd's databases back, one member at a time, the leader last.

    A leader first hands leadership over. Members with little to give back are left out.
    """
    return tasks.defrag_etcd(run, compact, all)


@command(changes=True, guarded=True)
def disarm_alarms(run: Run) -> int:
    """Disarm etcd's alarms whose cause is gone; for the others, say what to do."""
    return tasks.disarm_alarms(run)


@command(
    help={
        "host": "A member, a worker or a host: its own log instead of this machine's.",
        "lines": "How many of the last entries.",
    }
)
def audit(run: Run, host: str = "", lines: int = 50) -> int:
    """Show who changed what, when, and how it ended: by this machine, or on one host."""
    return tasks.audit(run, host, lines)


@command(
    help={
        "to": "The file to write; stdout when not given.",
        "credentials": "A file of mode 0600 for the secrets' own values: see docs/kubernetes.md.",
    },
    writes=("to", "credentials"),
)
def render_helm(run: Run, to: str = "", credentials: str = "") -> int:
    """Write the values of Alluxio's Helm chart for the same cluster on Kubernetes.

    Contacts nothing. No secret is in them unless --credentials asks for a file of their own.
    """
    return tasks.render_helm(run, to, credentials)


@command()
def show_inventory(run: Run) -> int:
    """Show the inventory resolved: every value, and where it came from. Contacts nothing."""
    return tasks.show_inventory(run)


@command(
    inventory=False,
    positional=("id",),
    help={"id": "As it stands at the end of an error's line, such as host-unreachable; or all."},
)
def explain(run: Run, id: str | None = None) -> int:
    """Say what an error or warning means, how it comes about, and what to do. Contacts nothing."""
    return tasks.explain(run, id or "")


@command(
    inventory=False,
    writes=True,
    help={"path": "The file to write; an existing one is never overwritten."},
)
def init_inventory(run: Run, path: str = DEFAULT_INVENTORY) -> int:
    """Write a commented example inventory to start from."""
    return tasks.init_inventory(run, path)


@command(
    inventory=False,
    writes=True,
    positional=("file",),
    help={
        "file": "An Ansible inventory, INI or YAML; group_vars/ and host_vars/ beside it count.",
        "to": "The file to write; an existing one is never overwritten.",
        "etcd_group": "The group of etcd's members; etcd when not given.",
        "worker_group": "The group of Alluxio workers; workers, if there is one, when not given.",
    },
)
def import_ansible(
    run: Run,
    file: str | None = None,
    to: str = DEFAULT_INVENTORY,
    etcd_group: str = "",
    worker_group: str = "",
) -> int:
    """Make an inventory of an Ansible inventory. Templates and vaults are listed, never guessed."""
    return tasks.import_ansible(run, file or "", to, etcd_group, worker_group)


@command()
def export_ssh_config(run: Run) -> int:
    """Print the inventory's hosts as an OpenSSH configuration, for `ssh -F`. Contacts nothing."""
    return tasks.export_ssh_config(run)


@command(inventory=False)
def inventory_schema(run: Run) -> int:
    """Print the inventory's JSON schema, for editors that complete and check YAML."""
    return tasks.inventory_schema(run)


namespace = Collection(
    deploy_etcd,
    add_member,
    remove_member,
    replace_member,
    upgrade_etcd,
    move_leader,
    rotate_certs,
    export_csrs,
    import_certs,
    enable_auth,
    disable_auth,
    start_workers,
    check_nodes,
    restart_workers,
    upgrade_workers,
    rollback_workers,
    decommission_worker,
    forget_worker,
    readmit_worker,
    render_monitor,
    stop_workers,
    start_masters,
    stop_masters,
    list_clusters,
    render_client_config,
    status,
    logs,
    destroy,
    clean_host,
    backup_etcd,
    restore_etcd,
    recover_etcd,
    kept_data,
    defrag_etcd,
    disarm_alarms,
    audit,
    render_helm,
    explain,
    show_inventory,
    init_inventory,
    import_ansible,
    export_ssh_config,
    inventory_schema,
)
