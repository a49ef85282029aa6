"""What an application host needs to find the workers: ``alluxio-site.properties``, by inventory.

It holds only what clients read, by the scope that Alluxio gives each property. Properties that only
a worker or a master reads are left out. No host is contacted, and no secret is written. In the
place of a secret, a comment names the source of the secret in the inventory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from provision import bounds
from provision.alluxio.worker import desired, membership_properties, scopes
from provision.dataclass import dataclass
from provision.errors import Problem, UsageError
from provision.files import make_folder, read_text, write_whole
from provision.inventory.model import Scalar, Secret
from provision.inventory.resolved import AlluxioCluster
from provision.render import render
from provision.text import printable, verb

SITE, WORKERS = "alluxio-site.properties", "workers"
#: How many names of unknown properties are shown.
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The files by name, and warnings about what the files cannot express."""

    files: Mapping[str, str]
    warnings: tuple[Problem, ...] = ()


def of(alluxio: AlluxioCluster) -> ClientConfig:
    """The configuration for ``alluxio``'s clients: one file, and a second when a file has the
    workers."""
    in_file = alluxio.membership.in_file
    site = render(
        "alluxio-client.properties",
        cluster=alluxio.name,
        properties=_properties(alluxio),
        secrets={key: _reference(secret) for key, secret in _secrets(alluxio).items()},
        workers=alluxio.workers if in_file else (),
    )
    files = {SITE: site.decode()}
    if in_file:
        hosts = desired.hosts_file(alluxio.name, alluxio.workers)
        files[WORKERS] = hosts.decode()
    ports = _one_port(alluxio) if in_file else []
    return ClientConfig(files, (*ports, *_unknown(alluxio)))


def write(config: ClientConfig, folder: Path) -> list[Path]:
    """Write the files into ``folder``; returns the files that changed.

    Raises :class:`UsageError` when a file exists that this tool did not write, or when a file
    cannot be written.
    """
    changed: list[Path] = []
    try:
        make_folder(folder, private=False)
        for name, text in config.files.items():
            path = folder / name
            old = read_text(path, bounds.DOCUMENT, errors="replace") if path.exists() else None
            if old == text:
                continue
            if old is not None and "alluxio-provision" not in old.partition("\n")[0]:
                remedy = "name another folder, or move the file away"
                problem = Problem(
                    str(path), "this tool did not write this file", remedy, id="file-exists"
                )
                raise UsageError("an existing file is not overwritten", [problem], id="file-exists")
            write_whole(path, text)
            changed.append(path)
    except OSError as error:
        what = error.strerror or printable(str(error))
        raise UsageError(f"{folder}: cannot be written: {what}", id="file-unwritable") from error
    return changed


def _properties(alluxio: AlluxioCluster) -> dict[str, Scalar]:
    home, endpoints = desired.home(alluxio), alluxio.etcd_endpoints
    others = alluxio.properties.items()
    return {
        "alluxio.cluster.name": alluxio.name,
        **desired.master_addresses(alluxio),
        **membership_properties.of(alluxio, home, endpoints).client,
        **{key: value for key, value in others if scopes.is_for_clients(key)},
    }


def _secrets(alluxio: AlluxioCluster) -> dict[str, Secret]:
    secrets = alluxio.secret_properties.items()
    found = {key: secret for key, secret in secrets if scopes.is_for_clients(key)}
    password = alluxio.etcd_login.password
    if alluxio.membership.in_etcd and password is not None:
        found["alluxio.etcd.password"] = password
    return found


def _unknown(alluxio: AlluxioCluster) -> list[Problem]:
    """One warning for all unknown properties. They are written all the same: each belongs to
    another release, belongs to a template, or is misspelt."""
    given = (*alluxio.properties, *alluxio.secret_properties)
    odd = [printable(key, 100) for key in given if not scopes.is_known(key)]
    if not odd:
        return []
    more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
    what = f"Alluxio {scopes.RELEASE} has no property {', '.join(odd[:_SHOWN])}{more}"
    remedy = "the tool writes them anyway; check the spelling"
    return [Problem("alluxio.properties", what, remedy, "warning", id="property-unknown")]


def _reference(secret: Secret) -> str:
    return f"the variable {secret.env}" if secret.env is not None else f"the file {secret.file}"


def _one_port(alluxio: AlluxioCluster) -> list[Problem]:
    port = alluxio.workers[0].rpc_port
    others = [w.name for w in alluxio.workers if w.rpc_port != port]
    if not others:
        return []
    what = (
        f"{', '.join(others[:8])} {verb(others, 'has', 'have')} another RPC port than {port}: "
        f"{alluxio.membership} has one port for all workers"
    )
    remedy = "give all workers the same rpc_port, or use ETCD"
    return [Problem("alluxio.membership", what, remedy, "warning", id="inventory-unwise")]
