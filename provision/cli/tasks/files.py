"""The commands that read and write files of this machine; they contact no host."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from provision.cli.command import command
from provision.cli.inventory_path import DEFAULT_INVENTORY, INVENTORY_VARIABLE
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import UsageError
from provision.text import counted

if TYPE_CHECKING:
    from provision.cli.documents import (
        ClientConfigDocument,
        ExplainDocument,
        ImportAnsibleDocument,
        InitInventoryDocument,
        InventoryDocument,
        RenderHelmDocument,
        RenderMonitorDocument,
        SshConfigDocument,
    )


@command(help={"wide": common.WIDE})
def show_inventory(run: Run, wide: bool = False) -> int:
    """Show the inventory resolved: every value, and where it came from. Contacts nothing."""
    from provision import tables, terminal
    from provision.inventory import provenance

    rows = provenance(run.loaded)
    if run.json:
        document: InventoryDocument = {
            "schema": "alluxio-provision/inventory/1",
            "values": [{"path": r.path, "value": r.value, "origin": r.origin} for r in rows],
        }
        terminal.emit_json(document)
    else:
        tables.show(
            (
                tables.Texts("value of"),
                tables.Texts("is", words=True),
                tables.Texts("from", gives=1),
            ),
            [(r.path, _plain(r.value), r.origin) for r in rows],
            wide=wide,
        )
    common.warn(run)
    return 0


@command(
    inventory=False,
    help={"id": "The id at the end of an error's line, such as host-unreachable; or all."},
)
def explain(run: Run, id: str) -> int:
    """Say what an error or warning means, its causes, and what to do. Contacts nothing."""
    from provision import tables, terminal
    from provision.cli.explain import ALL, page, pages
    from provision.wrap import flowed, width_of

    found = pages() if id == ALL else [page(id)]
    if run.json:
        document: ExplainDocument = {
            "schema": "alluxio-provision/explain/1",
            "pages": [{"id": p.id, "title": p.title, "text": p.text} for p in found],
        }
        terminal.emit_json(document)
    elif id == ALL:
        columns = (tables.Texts("id"), tables.Texts("is", words=True))
        tables.show(columns, [(p.id, p.title) for p in found])
    else:
        text = terminal.line(f"{id}: {found[0].text.removeprefix('# ')}")
        width = width_of(sys.stdout)
        terminal.say(flowed(text, width) if width else text, end="")
    return 0


#: Of init-inventory and import-ansible: with all of them that a cluster needs, the file is ready.
_PARTS = {
    "ask_sudo": "sudo wants a password on the hosts: ask for it once a run.",
    "etcd_tarball": "etcd's tarball on this machine, under the publisher's name.",
    "alluxio_tarball": "Alluxio's tarball on this machine.",
    "java": "A JDK's tarball for the workers, or JAVA_HOME on their hosts; else the hosts' own.",
    "ufs": "The under store: the property alluxio.dora.client.ufs.root, as s3://bucket/path.",
    "cluster": "The cluster's name; DefaultAlluxioCluster when not given.",
    "kubernetes": "Add the section for render-helm: as many pods as there are hosts.",
}


@command(
    inventory=False,
    writes=True,
    help={
        "path": "The file to write; an existing one is never overwritten.",
        "etcd": "Hosts of etcd: names, addresses and ranges, with commas between.",
        "endpoints": "Client URLs of an existing etcd, without TLS, separated by commas.",
        "workers": "Hosts of Alluxio workers, as for --etcd: 'worker[01-20].example.com,edge1'.",
        "user": "The login on the hosts. For this and the three below, what is not given comes "
        "from ~/.ssh/config.",
        "port": "The port of sshd on the hosts.",
        "key": "The private key file.",
        "jump": "The jump host, as in ssh -J.",
        **_PARTS,
    },
    word="path",
    old={"path": "path"},
)
def init_inventory(
    run: Run,
    path: str = DEFAULT_INVENTORY,
    etcd: str = "",
    endpoints: str = "",
    workers: str = "",
    user: str = "",
    port: str = "",
    key: str = "",
    jump: str = "",
    etcd_tarball: str = "",
    alluxio_tarball: str = "",
    java: str = "",
    ufs: str = "",
    cluster: str = "",
    kubernetes: bool = False,
    ask_sudo: bool = False,
) -> int:
    """Write an inventory to start from: of the hosts that are named, or a commented example.

    With only --etcd it has no workers. Without --etcd it is for an existing etcd. A tarball is
    compared with the SHA256SUMS beside it, if that file lists it.
    """
    from provision import terminal
    from provision.cli import console, tarballs
    from provision.inventory.example import write_example, write_new
    from provision.inventory.parts import Parts, to_edit
    from provision.inventory.starter import Answers, starter

    options = (etcd_tarball, alluxio_tarball, java, ufs, cluster, kubernetes, ask_sudo)
    parts, read = tarballs.read(tarballs.Given(Path(path), *options))
    answers = Answers(etcd, endpoints, workers, user, port, key, jump)
    document: InitInventoryDocument = {
        "schema": "alluxio-provision/init-inventory/1",
        "path": path,
    }
    if answers == Answers() and parts == Parts():
        write_example(Path(path))
        done = f"wrote {path}: edit it, then invoke show-inventory{_of(path)}"
    else:
        made = starter(answers, parts)
        write_new(Path(path), made.text)
        console.problems(made.warnings)
        document["members"], document["workers"] = made.members, made.workers
        document["to_edit"] = to_edit(made.text)
        document["tarballs"] = [one.document() for one in read]
        counts = f"{counted(made.members, 'member')}, {counted(made.workers, 'worker')}"
        done = f"wrote {path}: {counts}; {_then(made.text, path, kubernetes)}"
    if run.json:
        terminal.emit_json(document)
    else:
        for one in read:
            terminal.say(one.line)
        terminal.say(done)
    return 0


def _of(path: str) -> str:
    """The option for an inventory that is not the usual one."""
    usual = os.environ.get(INVENTORY_VARIABLE) or DEFAULT_INVENTORY
    return "" if path == usual else f" --inventory {shlex.quote(path)}"


def _then(text: str, path: str, pods: bool) -> str:
    """What is next with the inventory ``text`` in ``path``."""
    from provision.inventory.parts import to_edit

    if to_edit(text):
        return f"edit what says EDIT, then invoke show-inventory{_of(path)}"
    task = "render-helm --to values.yaml" if pods else "trust-hosts"
    return f"nothing is left to edit; next: invoke {task}{_of(path)}"


@command(
    inventory=False,
    writes=True,
    help={
        "file": "An Ansible inventory, INI or YAML; group_vars/ and host_vars/ beside it count.",
        "to": "The file to write; an existing one is never overwritten.",
        "etcd_group": "The group of etcd's members; etcd when not given.",
        "worker_group": "The group of Alluxio workers; workers, if there is one, when not given.",
        **_PARTS,
    },
)
def import_ansible(
    run: Run,
    file: str,
    to: str = DEFAULT_INVENTORY,
    etcd_group: str = "",
    worker_group: str = "",
    etcd_tarball: str = "",
    alluxio_tarball: str = "",
    java: str = "",
    ufs: str = "",
    cluster: str = "",
    kubernetes: bool = False,
    ask_sudo: bool = False,
) -> int:
    """Make an inventory from an Ansible inventory. Lists templates and vaults, guesses none."""
    from provision import terminal
    from provision.ansible.convert import convert
    from provision.cli import console, tarballs
    from provision.inventory.example import write_new
    from provision.inventory.parts import to_edit

    options = (etcd_tarball, alluxio_tarball, java, ufs, cluster, kubernetes, ask_sudo)
    parts, read = tarballs.read(tarballs.Given(Path(to), *options))
    made = convert(Path(file), Path(to), etcd_group, worker_group, parts)
    write_new(Path(to), made.text)
    console.problems(made.warnings)
    if run.json:
        document: ImportAnsibleDocument = {
            "schema": "alluxio-provision/import-ansible/1",
            "path": to,
            "etcd_group": made.groups[0],
            "worker_group": made.groups[1],
            "members": made.members,
            "workers": made.workers,
            "problems": [problem.document() for problem in made.warnings],
            "to_edit": to_edit(made.text),
            "tarballs": [one.document() for one in read],
        }
        terminal.emit_json(document)
    else:
        for one in read:
            terminal.say(one.line)
        workers = (
            f", {counted(made.workers, 'worker')} of {made.groups[1]}" if made.groups[1] else ""
        )
        terminal.say(
            f"wrote {to}: {counted(made.members, 'member')} of {made.groups[0]}{workers}; "
            f"{_then(made.text, to, kubernetes)}"
        )
    return 0


@command(inventory=False)
def inventory_schema(run: Run) -> int:
    """Print the inventory's JSON schema, for editors that complete and check YAML."""
    from provision import terminal
    from provision.inventory import json_schema

    terminal.emit_json(json_schema())
    return 0


@command(
    inventory=False,
    help={"name": "The document's name, such as plan or check-nodes."},
)
def show_schema(run: Run, name: str) -> int:
    """Print the JSON schema of a document that --format json prints. Contacts nothing."""
    from provision import terminal
    from provision.cli.explain import schema

    terminal.emit_json(schema(name))
    return 0


@command()
def export_ssh_config(run: Run) -> int:
    """Print the inventory's hosts as an OpenSSH configuration, for `ssh -F`. Contacts nothing."""
    from provision import terminal
    from provision.ssh.export import ssh_config
    from provision.ssh.user_config import UserConfig

    common.warn(run)
    try:
        text = ssh_config(run.inventory, UserConfig())
    except ValueError as error:
        raise UsageError(str(error), id="ssh-config-invalid") from None
    if run.json:
        document: SshConfigDocument = {"schema": "alluxio-provision/ssh-config/1", "config": text}
        terminal.emit_json(document)
    else:
        print(text, end="")
    return 0


@command(help={"to": "Folder to write to, instead of printing."}, writes=("to",))
def render_client_config(run: Run, to: str = "") -> int:
    """Print the alluxio-site.properties that an application host needs. Contacts nothing."""
    from provision import terminal
    from provision.cli import console
    from provision.plans.alluxio import client_config

    alluxio = run.inventory.alluxio
    if alluxio is None:
        raise UsageError(f"{run.inventory.path}: has no 'alluxio' section", id="section-missing")
    common.warn(run)
    config = client_config.of(alluxio)
    console.problems(config.warnings)
    changed = client_config.write(config, Path(to).expanduser()) if to else []
    if run.json:
        document: ClientConfigDocument = {
            "schema": "alluxio-provision/client-config/1",
            "files": config.files,
            "wrote": [str(path) for path in changed],
        }
        terminal.emit_json(document)
    elif to:
        terminal.say(f"{len(changed)} changed in {to}: {', '.join(config.files)}")
    else:
        print(config.files[client_config.SITE], end="")
    return 0


@command(
    help={
        "into": "The folder for the files.",
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

    They are of this machine, this user and this inventory; you install them.
    """
    from provision import terminal
    from provision.check_nodes import monitor
    from provision.files import make_folder, write_whole

    made = monitor.render_files(run.inventory, every, textfiles)
    folder = Path(into).expanduser().absolute()
    try:
        make_folder(folder, private=False)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror or error}", id="file-unwritable"
        ) from error
    paths = [folder / name for name in made.files]
    for path in paths:
        write_whole(path, made.files[path.name].decode())
    if run.json:
        document: RenderMonitorDocument = {
            "schema": "alluxio-provision/render-monitor/1",
            "files": [str(path) for path in paths],
            "output": str(made.output),
        }
        terminal.emit_json(document)
        return 0
    terminal.say("\n".join(f"wrote {path}" for path in paths))
    for line in monitor.instructions(made, folder):
        terminal.say(line)
    return 0


@command(
    help={
        "to": "The file to write; stdout when not given.",
        "credentials": "A file of mode 0600 for the secrets' own values, beside the chart's.",
    },
    writes=("to", "credentials"),
)
def render_helm(run: Run, to: str = "", credentials: str = "") -> int:
    """Write the values of Alluxio's Helm chart for the same cluster on Kubernetes.

    Contacts nothing. No secret is in them unless --credentials asks for a file of their own.
    """
    from provision import terminal
    from provision.cli import console
    from provision.kubernetes import values

    inventory = run.inventory
    common.warn(run)
    _, k = values.declared(inventory)
    found = values.values(inventory)
    target, secret = (Path(p).expanduser() if p else None for p in (to, credentials))
    hidden = values.secret_values(inventory) if secret is not None else {}
    if secret is not None and not hidden:
        raise UsageError(
            "the inventory has no secrets for --credentials to write", id="option-invalid"
        )
    install = values.install_line(k, target, secret)
    text = values.as_yaml(found, inventory, f"Alluxio's Helm chart {k.chart.version}: {install}")
    changed = 0
    if secret is not None:
        note = "SECRETS. The chart writes them into a ConfigMap, and Helm keeps them in its record."
        changed += values.write(secret, values.as_yaml(hidden, inventory, note), secret=True)
    else:
        console.problems(values.left_out(inventory))
    if target is not None:
        changed += values.write(target, text)
    if run.json:
        files = [str(p) for p in (target, secret) if p is not None]
        document: RenderHelmDocument = {
            "schema": "alluxio-provision/render-helm/1",
            "chart": k.chart.version,
            "release": k.release,
            "namespace": k.namespace,
            "values": found,
            "files": files,
            "changed": changed,
        }
        terminal.emit_json(document)
    elif target is None:
        print(text, end="")
    else:
        terminal.say(f"{changed} changed; {install}")
    return 0


def _plain(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
