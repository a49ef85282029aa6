"""What an inventory to start from needs besides its hosts: releases, Java, the under store, a name.

``init-inventory`` and ``import-ansible`` take them as options. What they do not say is marked with
EDIT in the file.
"""

from __future__ import annotations

import json
import re

from provision.dataclass import dataclass
from provision.errors import Problem

#: A line of the file, and the option that it comes from, or "".
Line = tuple[str, str]
EDIT = "EDIT"


@dataclass(frozen=True, slots=True)
class Tarball:
    """A tarball of this machine as the inventory has it: its path, sha256 and release."""

    path: str
    sha256: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """None or "": not said. ``java``: a JDK's tarball, or JAVA_HOME on the hosts. ``ask_sudo``:
    sudo wants a password."""

    cluster: str = ""
    etcd: Tarball | None = None
    alluxio: Tarball | None = None
    java: Tarball | str = ""
    ufs: str = ""
    kubernetes: bool = False
    ask_sudo: bool = False


def without_hosts(parts: Parts, *, members: bool, workers: bool) -> list[Problem]:
    """Parts of what the inventory does not have: ``members`` and ``workers`` say what it has."""
    about_workers = {
        "--alluxio-tarball": parts.alluxio,
        "--java": parts.java,
        "--ufs": parts.ufs,
        "--kubernetes": parts.kubernetes,
    }
    found = [
        Problem(option, "there are no workers", "name the workers' hosts, too", id="option-invalid")
        for option, value in about_workers.items()
        if value and not workers
    ]
    if parts.etcd is not None and not members:
        what = "there are no members of etcd to install"
        remedy = "name the members' hosts, too; for an etcd that is there, leave it out"
        found.append(Problem("--etcd-tarball", what, remedy, id="option-invalid"))
    return found


def head(parts: Parts, *, shared: bool = False) -> list[Line]:
    """The cluster's name. With a ``shared`` etcd it must be another than the other clusters'."""
    lines: list[Line] = [
        (
            "# alluxio.cluster.name, and the name that 'invoke destroy' asks for."
            + _edit(not shared or bool(parts.cluster)),
            "",
        )
    ]
    if shared and not parts.cluster:
        lines.append(("# `invoke list-clusters` shows the names that are taken in this etcd.", ""))
    name = scalar(parts.cluster) if parts.cluster else "DefaultAlluxioCluster"
    return [*lines, (f"cluster: {name}", "--cluster" if parts.cluster else "")]


#: The setting of ``ssh`` for :attr:`Parts.ask_sudo`.
ASK_SUDO = "sudo_password: {ask: true}"


def etcd_release(parts: Parts) -> list[Line]:
    """etcd's version and source, inside its section."""
    usual = ("3.6.16", "etcd-v3.6.16-linux-amd64.tar.gz")
    return _release(parts, parts.etcd, *usual, "--etcd-tarball")


def alluxio_release(parts: Parts) -> list[Line]:
    """Alluxio's version, source, Java and under store, inside its section."""
    usual = ('"313"', "alluxio-313-bin.tar.gz")
    lines = _release(parts, parts.alluxio, *usual, "--alluxio-tarball")
    if isinstance(parts.java, Tarball):
        lines += [("  java:", ""), ("    source:", ""), *_source("      ", parts.java, "--java")]
    elif parts.java:
        lines.append((f"  java: {{home: {scalar(parts.java)}}}", "--java"))
    else:
        lines.append(
            ("  # java: {home: /usr/lib/jvm/java-11}  # else the hosts' own Java 8 or 11", "")
        )
    root = json.dumps(parts.ufs, ensure_ascii=False) if parts.ufs else "s3://bucket/path"
    return [
        *lines,
        (f"  # Any line of alluxio-site.properties.{_edit(bool(parts.ufs))}", ""),
        ("  properties:", ""),
        (f"    alluxio.dora.client.ufs.root: {root}", "--ufs" if parts.ufs else ""),
    ]


def kubernetes(parts: Parts) -> list[Line]:
    """The section for ``render-helm``, at the end of the file."""
    if not parts.kubernetes:
        return []
    about = "# For Alluxio's Helm chart: as many workers and members of etcd as above."
    return [("", ""), (about, ""), ("kubernetes: {}", "--kubernetes")]


def to_edit(text: str) -> bool:
    """Whether something is left to edit in the inventory ``text``."""
    return re.search(rf"^ *#.* {EDIT}$", text, re.MULTILINE) is not None


def scalar(value: str) -> str:
    """``value`` as a key or a value of the inventory, in quotes where YAML needs them."""
    plain = re.fullmatch(r"[A-Za-z0-9./~_][A-Za-z0-9._/@+-]*", value)
    return value if plain and value.lower() not in ("~", "null") else json.dumps(value)


def _release(
    parts: Parts, given: Tarball | None, version: str, name: str, option: str
) -> list[Line]:
    if given is None:
        about = "  # The release and its tarball, relative to this file's folder."
        about += " Pods need no tarball." if parts.kubernetes else f" {EDIT}"
        source = f"  source: {{path: {name}, sha256: file:SHA256SUMS}}"
        return [(about, ""), (f"  version: {version}", ""), (source, "")]
    return [
        (f"  version: {json.dumps(given.version)}", option),
        ("  source:", ""),
        *_source("    ", given, option),
    ]


def _source(indent: str, given: Tarball, option: str) -> list[Line]:
    return [
        (f"{indent}path: {scalar(given.path)}", option),
        (f"{indent}sha256: {given.sha256}", option),
    ]


def _edit(said: bool) -> str:
    return "" if said else f" {EDIT}"
