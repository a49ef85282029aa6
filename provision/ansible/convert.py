"""Converts an Ansible inventory to one of this tool, and lists the parts without an equivalent."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from provision.ansible.source import Findings, read
from provision.ansible.tree import Host, Kind, Tree, Var, Vars
from provision.errors import InventoryError, Problem, UsageError
from provision.inventory import model, parts
from provision.inventory.parts import Parts, scalar
from provision.inventory.starter import checked

ETCD_GROUPS = ("etcd", "etcd_servers", "etcd_cluster")
WORKER_GROUPS = ("workers", "alluxio_workers", "alluxio", "worker")

#: This tool's ssh key for each variable. Names that win come first; older names are still read.
_PLAIN: Mapping[str, tuple[str, ...]] = {
    "user": ("ansible_user", "ansible_ssh_user"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "key": ("ansible_ssh_private_key_file", "ansible_private_key_file"),
}
_HOST = ("ansible_host", "ansible_ssh_host")
#: kubespray's: the address that other hosts use, its address in their network, and its etcd name.
_ADDRESS = ("access_ip", "ip")
_MEMBER_NAME = ("etcd_member_name",)
_ARGUMENTS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
_PASSWORDS = {
    "ansible_become_password": "give ssh.sudo_password: {ask: true}, {env: NAME} or {file: PATH}",
    "ansible_become_pass": "give ssh.sudo_password: {ask: true}, {env: NAME} or {file: PATH}",
    "ansible_sudo_pass": "give ssh.sudo_password: {ask: true}, {env: NAME} or {file: PATH}",
    "ansible_password": "log in by a key: ssh.key, or ssh-agent",
    "ansible_ssh_pass": "log in by a key: ssh.key, or ssh-agent",
    "ansible_ssh_password": "log in by a key: ssh.key, or ssh-agent",
    "ansible_ssh_private_key_passphrase": "give ssh.key_passphrase, or use ssh-agent",
}
_AS_ROOT = "this tool runs sudo as it is on PATH, and becomes root"
_KEYS_CHECKED = "host keys are always checked: add them by invoke trust-hosts"
#: Other variables of Ansible's plugins ssh and sudo that say how a host is reached (their options'
#: ``vars``), each with the values that say nothing else than this tool does.
_LISTED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(("ansible_become_user", "ansible_sudo_user"), (_AS_ROOT, ("root",))),
    **dict.fromkeys(("ansible_become_exe", "ansible_sudo_exe"), (_AS_ROOT, ("sudo",))),
    **dict.fromkeys(("ansible_become_flags", "ansible_sudo_flags"), (_AS_ROOT, ())),
    "ansible_ssh_executable": ("~/.ssh/config and the inventory say all", ("ssh", "/usr/bin/ssh")),
    **dict.fromkeys(("ansible_timeout", "ansible_ssh_timeout"), ("ssh.connect_timeout is it", ())),
    **dict.fromkeys(
        ("ansible_host_key_checking", "ansible_ssh_host_key_checking"),
        (_KEYS_CHECKED, ("true", "yes", "1", "on")),
    ),
}
#: The variables that are read.
_READ = frozenset(
    {
        *(name for names in _PLAIN.values() for name in names),
        *_HOST,
        *_ADDRESS,
        *_MEMBER_NAME,
        *_ARGUMENTS,
        *_PASSWORDS,
        *_LISTED,
        *("ansible_connection", "ansible_become_method"),
    }
)
#: Characters of ssh's arguments: they are read for every host.
_MAX_ARGUMENTS = 4096
#: Flags of ssh, alone or together, and options that change nothing here.
_SILENT_FLAGS = re.compile("-[qC46AaxTtnv]+")
_HARMLESS = re.compile(
    "(Control(Master|Path|Persist)|ServerAlive.*|TCPKeepAlive|Compression|ForwardAgent|LogLevel|"
    "PreferredAuthentications|(Pubkey|GSSAPI|Password|KbdInteractive)Authentication|BatchMode|"
    "IdentitiesOnly|ConnectionAttempts)",
    re.IGNORECASE,
)
_DIRECT = ("%h:%p", "[%h]:%p")
#: A word of ssh's that ends with an option: flags, the option, and its value if it is in the word.
_OPTION = re.compile("-[qC46AaxTtnv]*([Wplio])(.*)", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """A host of the result: its name there, where SSH goes, and the keys of its ``ssh``.

    ``member`` is its name among etcd's members, ``address`` where other hosts reach it, if that is
    not ``host``.
    """

    name: str
    host: str
    ssh: Mapping[str, str]
    where: str
    member: str = ""
    address: str = ""


@dataclass(frozen=True)
class Converted:
    """The inventory's text, checked by this tool's loader, and the parts that could not be
    converted."""

    text: str
    members: int
    workers: int
    warnings: tuple[Problem, ...]
    groups: tuple[str, str | None] = field(default=("", None))


def convert(
    path: Path, to: Path, etcd_group: str, worker_group: str, given: Parts | None = None
) -> Converted:
    """The inventory in ``path``, converted for the file ``to``. Without a given group, the usual
    names are tried. ``given``: what no Ansible inventory has.

    Raises :class:`InventoryError` with every problem, at its file and line.
    """
    findings = Findings()
    tree = read(path, findings)
    etcd = _group(tree, etcd_group, ETCD_GROUPS, "--etcd-group", path)
    workers = _group(tree, worker_group, WORKER_GROUPS, "--worker-group", path, optional=True)
    variables = tree.variables(_READ)
    given = given or Parts()
    for problem in parts.without_hosts(given, members=True, workers=bool(workers)):
        findings.error(problem.where, problem.what, problem.remedy, id=problem.id)
    entries: dict[str, Entry] = {}
    for group in (etcd, workers):
        for name in tree.members(group) if group else ():
            if name not in entries:
                entries[name] = _entry(tree.hosts[name], variables[name], findings)
    chosen = [[entries[n] for n in tree.members(g)] if g else [] for g in (etcd, workers)]
    if not chosen[0]:
        findings.error(str(path), f"the group {etcd!r} has no hosts")
    text = _rendered(path, to, (etcd, workers), chosen, given)
    if not findings.any_error:
        _check(text, to, {name: entry.where for name, entry in entries.items()}, findings)
    if findings.any_error:
        count = sum(problem.severity == "error" for problem in findings.all)
        raise InventoryError(
            f"{count} thing{'s' * (count > 1)} in {path} cannot be converted; no inventory was "
            "written",
            findings.all,
            id="ansible-not-carried-over",
        )
    return Converted(text, len(chosen[0]), len(chosen[1]), findings.all, (etcd, workers or None))


def _group(
    tree: Tree, given: str, usual: Sequence[str], option: str, path: Path, optional: bool = False
) -> str:
    if given in tree.groups:
        return given
    found = "" if given else next((name for name in usual if name in tree.groups), "")
    if found or (optional and not given):
        return found
    known = ", ".join(name for name in tree.groups if name not in ("all", "ungrouped"))
    raise UsageError(
        f"{path} has no group {given or ' or '.join(usual)}: choose one with {option} (there "
        f"are: {known or 'none'})",
        id="name-unknown",
    )


def _entry(host: Host, variables: Vars, findings: Findings) -> Entry:
    reader = _Reader(host, variables, findings)
    address = reader.text(_HOST) or host.name
    if not re.fullmatch(model.NAME, host.name):
        findings.error(
            host.where,
            f"{host.name!r} cannot be the name of a member or worker: {model.EXPECTED[model.NAME]}",
            "give the host a name, and its address as ansible_host",
        )
    ssh = {key: text for key, names in _PLAIN.items() if (text := reader.text(names))}
    for name in _ARGUMENTS:
        if text := reader.text((name,)):
            reader.arguments(text, variables[name], ssh)
    reader.others()
    member = reader.text(_MEMBER_NAME)
    if member and not re.fullmatch(model.NAME, member):
        what = (
            f"etcd_member_name {member!r} cannot be a member's name: {model.EXPECTED[model.NAME]}"
        )
        findings.error(host.where, what)
    other = reader.text(_ADDRESS)
    return Entry(host.name, address, ssh, host.where, member, "" if other == address else other)


class _Reader:
    """One host's variables."""

    def __init__(self, host: Host, variables: Vars, findings: Findings) -> None:
        self._host, self._vars, self._findings = host, variables, findings

    def text(self, names: Sequence[str]) -> str:
        """The value of the first variable of ``names`` that is set; errors are noted."""
        for name in names:
            var = self._vars.get(name)
            if var is None or var.kind is Kind.NONE:
                continue
            if var.kind is Kind.TEXT:
                return var.text
            what = f"{name} is {var.kind.value}, and this tool does not evaluate it"
            self._findings.error(var.where, what, "write its value, or correct the result by hand")
            return ""
        return ""

    def others(self) -> None:
        for name, remedy in _PASSWORDS.items():
            if name in self._vars:
                what = f"{name} is not converted: an inventory never contains secrets"
                self._findings.warning(self._vars[name].where, what, remedy)
        for name, (remedy, same) in _LISTED.items():
            var = self._vars.get(name)
            if var is not None and var.kind is not Kind.NONE and var.text.lower() not in same:
                self._findings.warning(var.where, f"{name} is not converted", remedy)
        connection = self._vars.get("ansible_connection")
        if connection is not None and connection.text not in ("ssh", "smart", "paramiko_ssh"):
            what = f"ansible_connection is {connection.text or connection.kind.value!r}"
            self._findings.error(connection.where, f"{what}: this tool reaches hosts by SSH", "")
        method = self._vars.get("ansible_become_method")
        if method is not None and method.text != "sudo":
            what = f"ansible_become_method is {method.text or method.kind.value!r}"
            self._findings.error(method.where, what, "this tool uses sudo, or a login as root")

    def arguments(self, text: str, var: Var, ssh: dict[str, str]) -> None:
        """Read ssh's arguments. An unknown argument is an error; it is never dropped."""
        if len(text) > _MAX_ARGUMENTS:
            what = f"ssh's arguments have more than {_MAX_ARGUMENTS} characters"
            self._findings.error(var.where, what)
            return
        try:
            words = iter(shlex.split(text))
        except ValueError as error:
            self._findings.error(var.where, f"ssh's arguments cannot be read: {error}")
            return
        for word in words:
            option, value = word[:2], word[2:]
            if option in ("-o", "-J", "-i", "-l", "-p"):
                value = value or next(words, "")
                keyword = {"-J": "ProxyJump", "-i": "IdentityFile", "-l": "User", "-p": "Port"}
                if option == "-o":
                    key, _, value = re.sub(r"\s*=\s*|\s+", "=", value, count=1).partition("=")
                else:
                    key = keyword[option]
                self._option(key, value, var, ssh)
            elif not _SILENT_FLAGS.fullmatch(word):
                self._findings.error(var.where, f"ssh's argument {word!r} is not supported", "")

    def _of_jump(self, jump: str, key: str, value: str, var: Var, ssh: dict[str, str]) -> None:
        """An option of ssh to a jump host, in a ProxyCommand."""
        low, host = key.lower(), jump.rpartition("@")[2].partition(":")[0]
        if low == "identityfile" and value in (ssh.get("key"), self.text(_PLAIN["key"])):
            return  # the jump host gets the same key
        if low == "identityfile":
            what = f"the jump host's key {value} is not converted"
            remedy = f"write IdentityFile {value} below Host {host} in ~/.ssh/config"
            self._findings.warning(var.where, what, remedy)
        elif low == "stricthostkeychecking" or value == "/dev/null":
            self._option(key, value, var, ssh)
        elif not _HARMLESS.fullmatch(key):
            what = f"the jump host's option {key}={value} is not converted"
            self._findings.warning(var.where, what, f"put it below Host {host} in ~/.ssh/config")

    def _option(self, key: str, value: str, var: Var, ssh: dict[str, str]) -> None:
        ours = {"user": "user", "port": "port", "identityfile": "key"}
        known = {"userknownhostsfile": "known_hosts", "connecttimeout": "connect_timeout"}
        low = key.lower()
        if low == "proxyjump":
            ssh["jump"] = value
        elif low == "proxycommand" and (jump := _jump_of(value)) is not None:
            ssh["jump"] = jump.host
            for name, given in jump.options:
                self._of_jump(jump.host, name, given, var, ssh)
        elif low in ours:
            ssh.setdefault(ours[low], value)
        elif low == "stricthostkeychecking" or value == "/dev/null":
            if value.lower() not in ("yes", "true"):
                what = f"{key}={value} is not converted: host keys are always checked"
                self._findings.warning(var.where, what, "add their keys: invoke trust-hosts")
        elif low in known:
            ssh[known[low]] = value
        elif not _HARMLESS.fullmatch(key):
            self._findings.error(
                var.where, f"ssh's option {key!r} is not supported", "put it into ~/.ssh/config"
            )


@dataclass(frozen=True)
class _Jump:
    """A jump host as ``ssh.jump`` has it, and the other options of ssh to it."""

    host: str
    options: tuple[tuple[str, str], ...]


def _jump_of(command: str) -> _Jump | None:
    """The jump host of a ProxyCommand that is only ``ssh -W %h:%p``; None for others."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    words = words[1:] if words[:1] == ["exec"] else words
    if not words or words[0].rpartition("/")[2] != "ssh":
        return None
    given = {"p": "", "l": "", "W": ""}
    options: list[tuple[str, str]] = []
    host = ""
    at = iter(words[1:])
    for word in at:
        if _SILENT_FLAGS.fullmatch(word):
            continue
        key, value = "", ""
        if option := _OPTION.fullmatch(word):
            key, value = option[1], option[2] or next(at, "")
        if key == "o":
            name, _, value = re.sub(r"\s*=\s*|\s+", "=", value, count=1).partition("=")
            key = {"user": "l", "port": "p"}.get(name.lower(), "")
            if not key:
                options.append((name, value))
                continue
        if key == "i":
            options.append(("IdentityFile", value))
        elif key in given and not given[key]:
            given[key] = value
        elif word.startswith("-") or host:
            return None
        else:
            host = word
    user, port = given["l"], given["p"]
    if not host or given["W"] not in _DIRECT or (user and "@" in host):
        return None
    before, sign, address = host.rpartition("@")
    if ":" in address and not address.startswith("["):
        host = f"{before}{sign}[{address}]"
    text = (f"{user}@" if user else "") + host + (f":{port}" if port else "")
    return _Jump(text, tuple(options))


def _common(entries: Sequence[Entry]) -> dict[str, str]:
    """The settings that every host has, with the value that most hosts have: they go to the top."""
    common: dict[str, str] = {}
    for key in ("user", "port", "key", "jump", "known_hosts", "connect_timeout"):
        values = Counter(e.ssh[key] for e in entries if key in e.ssh)
        if values and values.total() == len(entries):
            common[key] = values.most_common(1)[0][0]
    return common


def _rendered(
    path: Path,
    to: Path,
    groups: tuple[str, str],
    chosen: Sequence[Sequence[Entry]],
    given: Parts,
) -> str:
    (etcd, workers), (members, others) = groups, chosen
    common = _common([*members, *others])
    this = f"--inventory {shlex.quote(str(to))}"
    lines = [
        f"# From the Ansible inventory {path.name}: the group {etcd} as etcd's members"
        + (f", the group {workers} as Alluxio workers." if workers else "."),
        "# `invoke init-inventory FILE` writes an example with every key. Next:",
        f"#   invoke show-inventory {this}",
        f"#   invoke deploy-etcd {this} --dry-run",
        "",
        *(line for line, _ in parts.head(given)),
        "",
        "# How hosts are reached. What is unset comes from ~/.ssh/config. Host keys are checked,",
        "# always. A login that is not root needs sudo (sudo_password if sudo asks).",
        _ssh(common, ask_sudo=given.ask_sudo),
        "",
        "etcd:",
        *(line for line, _ in parts.etcd_release(given)),
        "  # host: where SSH goes. Add 'address' where other hosts use another one.",
        "  members:",
        *(_host_line(entry, common, member=True) for entry in members),
    ]
    if workers:
        lines += [
            "",
            "alluxio:",
            *(line for line, _ in parts.alluxio_release(given)),
            "  # hostname: what clients connect to, where it is not 'host'.",
            "  workers:",
            *(_host_line(entry, common) for entry in others),
        ]
    return "\n".join([*lines, *(line for line, _ in parts.kubernetes(given))]) + "\n"


def _ssh(common: Mapping[str, str], *, ask_sudo: bool) -> str:
    settings = [f"{key}: {scalar(text)}" for key, text in common.items()]
    settings += [parts.ASK_SUDO] if ask_sudo else []
    return f"ssh: {{{', '.join(settings)}}}" if settings else "# ssh: {user: deploy}"


def _host_line(entry: Entry, common: Mapping[str, str], *, member: bool = False) -> str:
    own = {k: v for k, v in entry.ssh.items() if common.get(k) != v}
    ssh = f", {_mapping('ssh', own)}" if own else ""
    key = "address" if member else "hostname"
    address = f", {key}: {scalar(entry.address)}" if entry.address else ""
    name = (entry.member if member else "") or entry.name
    return f"    {scalar(name)}: {{host: {scalar(entry.host)}{address}{ssh}}}"


def _mapping(name: str, values: Mapping[str, str]) -> str:
    return f"{name}: {{{', '.join(f'{k}: {scalar(v)}' for k, v in values.items())}}}"


def _check(text: str, to: Path, places: Mapping[str, str], findings: Findings) -> None:
    """Check ``text`` with this tool's loader: its paths start at the folder of ``to``.

    A problem of a host is reported at the host's place in the Ansible inventory (``places``).
    """
    problems = checked(text, to.parent if to.parent.is_dir() else None)
    lines = text.splitlines()
    for problem in problems:
        found = re.fullmatch(r".*:(\d+):\d+", problem.where)
        line = lines[int(found[1]) - 1].strip() if found else ""
        where = places.get(line.split(": ")[0].strip('"'), str(to))
        what = re.sub(r" \(see [^)]*\)", "", problem.what)
        report = findings.error if problem.severity == "error" else findings.warning
        report(where, what, problem.remedy, id=problem.id)
