"""The commands that read and write files of this machine; they contact no host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import UsageError


def show_inventory(run: Run) -> int:
    from provision import terminal
    from provision.inventory import provenance

    rows = provenance(run.loaded)
    if run.json:
        values = [{"path": r.path, "value": r.value, "origin": r.origin} for r in rows]
        terminal.emit_json({"schema": "alluxio-provision/inventory/1", "values": values})
    else:
        terminal.table(
            ("value of", "is", "from"), [(r.path, _plain(r.value), r.origin) for r in rows]
        )
    common.warn(run)
    return 0


def explain(run: Run, id: str) -> int:
    """The page of one id, or the titles of all."""
    from provision import terminal
    from provision.cli.explain import ALL, page, pages

    found = pages() if id == ALL else [page(id)]
    if run.json:
        shown = [p._asdict() for p in found]
        terminal.emit_json({"schema": "alluxio-provision/explain/1", "pages": shown})
    elif id == ALL:
        terminal.table(("id", "is"), [(p.id, p.title) for p in found])
    else:
        print(f"{id}: {found[0].text.removeprefix('# ')}", end="")
    return 0


def init_inventory(run: Run, path: str) -> int:
    from provision.inventory import write_example

    write_example(Path(path))
    if run.json:
        from provision import terminal

        terminal.emit_json({"schema": "alluxio-provision/init-inventory/1", "path": path})
    else:
        print(f"wrote {path}: edit it, then invoke show-inventory --inventory {path}")
    return 0


def inventory_schema(run: Run) -> int:
    from provision import terminal
    from provision.inventory import json_schema

    terminal.emit_json(json_schema())
    return 0


def import_ansible(run: Run, file: str, to: str, etcd_group: str, worker_group: str) -> int:
    """Make an inventory from an Ansible inventory, and list the parts that cannot be converted."""
    from provision import terminal
    from provision.ansible.convert import convert
    from provision.cli import console
    from provision.inventory.example import write_new

    if not file:
        raise UsageError(
            "name the Ansible inventory: invoke import-ansible FILE --to FILE",
            id="argument-missing",
        )
    made = convert(Path(file), Path(to), etcd_group, worker_group)
    write_new(Path(to), made.text)
    console.problems(made.warnings)
    if run.json:
        terminal.emit_json(
            {
                "schema": "alluxio-provision/import-ansible/1",
                "path": to,
                "etcd_group": made.groups[0],
                "worker_group": made.groups[1],
                "members": made.members,
                "workers": made.workers,
                "problems": [problem.document() for problem in made.warnings],
            }
        )
    else:
        workers = f", {made.workers} workers of {made.groups[1]}" if made.groups[1] else ""
        print(
            f"wrote {to}: {made.members} members of {made.groups[0]}{workers}; edit what says "
            f"EDIT, then invoke show-inventory --inventory {to}"
        )
    return 0


def export_ssh_config(run: Run) -> int:
    """Print the inventory's hosts as an OpenSSH configuration."""
    from provision import terminal
    from provision.ssh.export import ssh_config
    from provision.ssh.route import UserConfig

    try:
        text = ssh_config(common.load(run), UserConfig())
    except ValueError as error:
        raise UsageError(str(error), id="ssh-config-invalid") from None
    if run.json:
        terminal.emit_json({"schema": "alluxio-provision/ssh-config/1", "config": text})
    else:
        print(text, end="")
    return 0


def render_client_config(run: Run, to: str) -> int:
    """The configuration of an application host, printed or written. No host is contacted."""
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
        written = [str(path) for path in changed]
        terminal.emit_json(
            {"schema": client_config.SCHEMA, "files": config.files, "wrote": written}
        )
    elif to:
        print(f"{len(changed)} changed in {to}: {', '.join(config.files)}")
    else:
        print(config.files[client_config.SITE], end="")
    return 0


def render_monitor(run: Run, into: str, every: float, textfiles: str) -> int:
    """Render a timer for this machine and alert rules, and print how to install them."""
    from provision import terminal
    from provision.check_nodes import monitor
    from provision.files import write_whole

    made = monitor.render_files(run.inventory, every, textfiles)
    folder = Path(into).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror or error}", id="file-unwritable"
        ) from error
    paths = [folder / name for name in made.files]
    for path in paths:
        write_whole(path, made.files[path.name].decode())
    if run.json:
        document = {"files": [str(path) for path in paths], "output": str(made.output)}
        terminal.emit_json({"schema": "alluxio-provision/render-monitor/1", **document})
        return 0
    print("\n".join(f"wrote {path}" for path in paths))
    for line in monitor.instructions(made, folder):
        print(line)
    return 0


def render_helm(run: Run, to: str, credentials: str) -> int:
    """The values of Alluxio's Helm chart. Secret values go only into a file that was asked for."""
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
        terminal.emit_json(
            {
                "schema": "alluxio-provision/render-helm/1",
                "chart": k.chart.version,
                "release": k.release,
                "namespace": k.namespace,
                "values": found,
                "files": files,
                "changed": changed,
            }
        )
    elif target is None:
        print(text, end="")
    else:
        print(f"{changed} changed; {install}")
    return 0


def _plain(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
