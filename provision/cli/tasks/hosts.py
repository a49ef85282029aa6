"""The command that adds the hosts' SSH keys to known_hosts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.cli.command import command
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import PreflightFailed, Problem, UsageError
from provision.text import counted, share

if TYPE_CHECKING:
    from provision.cli.documents import TrustHostsDocument
    from provision.inventory.resolved import Inventory, Machine
    from provision.ssh.fingerprints import Fingerprints
    from provision.ssh.known_hosts import HostKey
    from provision.ssh.scan import Found, Server


@command(
    help={
        "fingerprints": "A file of fingerprints, made on the hosts: no other key is added.",
        "yes": "With --fingerprints: do not ask. For scripts.",
    },
    writes=True,
)
def trust_hosts(run: Run, fingerprints: str = "", yes: bool = False) -> int:
    """Show the SSH keys of all hosts, ask once, and add the new ones to known_hosts.

    It logs in at jump hosts only, when their own keys are known: then it asks once more, for the
    hosts behind them. A key that has changed is never replaced.
    """
    from provision import terminal
    from provision.alike import folded
    from provision.cli import console
    from provision.ssh.connect import Connector
    from provision.ssh.fingerprints import Fingerprints
    from provision.ssh.passwords import Passwords
    from provision.ssh.scan import Scan, servers

    _require_answerable(fingerprints, yes=yes)
    expected = Fingerprints(Path(fingerprints).expanduser()) if fingerprints else None
    inventory = run.inventory
    common.warn(run)
    run.passwords = Passwords()
    connector = Connector(run.passwords)
    added: dict[Path, int] = {}
    names = _machines(inventory)
    try:
        found, problems = servers(names, connector.route, inventory.parallel)
        aliases = _aliases(found, names)
        scan = Scan(connector, found, inventory.parallel)
        asked = counted(len(found), "host for its SSH keys", "hosts for their SSH keys")
        terminal.say(f"asking {asked}", stderr=True)
        while fresh := scan.round():
            verdicts = _compared(fresh, expected, aliases, fingerprints)
            shown = [f for f in fresh if f.state != "known"]
            good = [f for f in shown if f.state == "new" and f.server not in verdicts]
            if shown:
                _show(run, shown, verdicts)
            problems += [p for f in shown if f not in good and (p := _problem(f, verdicts))]
            if not good:
                break
            _require_place(good)
            if not yes:
                _ask(run, len(good), added)
            for path, entries in _entries(good).items():
                from provision.ssh.trust_file import append

                count = append(path, entries)
                added[path] = added.get(path, 0) + count
                terminal.say(f"{count} added to {path}", stderr=run.json)
            scan.accept([f.server for f in good])
        problems += [f.problem for f in scan.rest() if f.problem is not None]
    finally:
        connector.close()
    code = (1 if added else PreflightFailed.exit_code) if problems else 0
    if run.json:
        terminal.emit_json(_document(scan.found, added, problems))
    console.problems(folded(problems, lambda _: True))
    if not run.json:
        known = sum(f.state == "known" for f in scan.found)
        terminal.say(f"{share(known, len(found), 'host')} known")
    return code


def _require_answerable(fingerprints: str, *, yes: bool) -> None:
    """Raises :class:`UsageError` when nobody compares the keys, or nobody can be asked."""
    if yes and not fingerprints:
        what = "--yes goes with --fingerprints FILE: without it, nobody compares the keys"
        raise UsageError(what, id="option-invalid")
    if not yes and not sys.stdin.isatty():
        raise UsageError(
            "no key was added: without a terminal the tool cannot ask; give --yes --fingerprints "
            "FILE",
            id="consent-missing",
        )


def _machines(inventory: Inventory) -> dict[Machine, list[str]]:
    """Every machine with the names of its roles."""
    found: dict[Machine, list[str]] = {machine: [] for machine in inventory.machines}
    roles: list[Any] = [] if inventory.etcd.external else [*inventory.etcd.members]
    if inventory.alluxio is not None:
        roles += [*inventory.alluxio.masters, *inventory.alluxio.workers]
    for role in roles:
        found[role.machine].append(role.name)
    return found


def _aliases(
    found: Sequence[Server], machines: Mapping[Machine, Sequence[str]]
) -> dict[Server, set[str]]:
    """The names that a line of a file of fingerprints may have for each server. A name of several
    servers, as of those behind one address, is none of them: one could pass for another."""
    hosts: dict[str, set[str]] = {}
    for machine, names in machines.items():
        for name in names:
            hosts.setdefault(name, set()).add(machine.host)
    aliases: dict[Server, set[str]] = {}
    theirs: dict[str, set[object]] = {}
    for server in found:
        hop = server.hop
        its = {host for name in server.names for host in hosts.get(name, ())}
        its = {name.lower() for name in (*server.names, *its, hop.name, hop.address)}
        for name in its:
            theirs.setdefault(name, set()).add((server.before, hop.address, hop.port))
        aliases[server] = its
    return {
        server: {name for name in its if len(theirs[name]) == 1} for server, its in aliases.items()
    }


def _compared(
    fresh: Sequence[Found],
    expected: Fingerprints | None,
    aliases: Mapping[Server, set[str]],
    file: str,
) -> dict[Server, Problem]:
    """The new keys that the file of fingerprints does not have, each with its problem.

    Raises :class:`PreflightFailed` when it has another fingerprint for one of the hosts, new or
    known: then something is wrong that one should not go on beside.
    """
    missing: dict[Server, Problem] = {}
    wrong: list[Problem] = []
    if expected is None:
        return missing
    for found in fresh:
        if found.key is None or found.state not in ("new", "known"):
            continue
        verdict = expected.verdict(found.server, found.key.fingerprint, aliases[found.server])
        shown = f"{found.key.kind} {found.key.fingerprint}"
        if verdict == "other":
            what = f"shows {shown}, which is not what {file} has for it"
            remedy = "another type of key, another machine, or an attack: look on the host itself"
            wrong.append(Problem(found.server.where, what, remedy, id="host-key-changed"))
        elif verdict == "missing" and found.state == "new":
            name = found.server.hop.name
            name = name if name.lower() in aliases[found.server] else found.server.entry
            remedy = f"see it on the host itself, and add the line: {name} SHA256:…"
            what = f"{file} has no fingerprint for it; it shows {shown}"
            missing[found.server] = Problem(found.server.where, what, remedy, id="host-key-unknown")
    if wrong:
        raise PreflightFailed(
            f"{counted(len(wrong), 'host shows', 'hosts show')} other keys than {file} has",
            wrong,
            id="host-key-changed",
        )
    return missing


def _problem(found: Found, verdicts: Mapping[Server, Problem]) -> Problem | None:
    return verdicts.get(found.server) or found.problem


def _require_place(good: Sequence[Found]) -> None:
    """Raises :class:`UsageError` for a host whose keys no file may keep."""
    for found in good:
        if found.server.hop.new_keys_to is None:
            raise UsageError(
                f"{found.server.where}: UserKnownHostsFile names no file that keeps keys; name one "
                "there, or by ssh.known_hosts",
                id="ssh-config-invalid",
            )


def _entries(good: Sequence[Found]) -> dict[Path, list[tuple[str, HostKey]]]:
    """What each file gets."""
    entries: dict[Path, list[tuple[str, HostKey]]] = {}
    for found in good:
        path = found.server.hop.new_keys_to
        if path is not None and found.key is not None:
            entries.setdefault(path, []).append((found.server.entry, found.key))
    return entries


def _show(run: Run, shown: Sequence[Found], verdicts: Mapping[Server, Problem]) -> None:
    from provision import tables, terminal

    rows = [
        (
            ", ".join(found.server.names),
            found.server.address,
            found.key.kind if found.key is not None else "-",
            found.key.fingerprint if found.key is not None else "-",
            "not in the file" if found.server in verdicts else found.state,
        )
        for found in shown
    ]
    # The fingerprint is compared, so it is never shortened; where there is no room, it is below.
    columns = (
        tables.Texts("name", words=True),
        tables.Texts("address", gives=1),
        tables.Texts("key", gives=2),
        tables.Texts("fingerprint", gives=3),
        tables.Texts("state"),
    )
    terminal.console(stderr=run.json).print(tables.Table(columns, rows))
    for found in shown:  # a key of another type is known, or the certificate does not prove it
        if found.state == "new" and found.problem is not None and ": " in found.problem.what:
            terminal.say(f"note: {found.server.where}: {found.problem.what}", stderr=run.json)


def _ask(run: Run, count: int, added: Mapping[Path, int]) -> None:
    """Raises :class:`UsageError` when the operator does not say yes."""
    from provision import terminal

    keys = "this key" if count == 1 else f"these {count} keys"
    prompt = f"Compare the fingerprints with the hosts' own. Type yes to trust {keys}: "
    terminal.say(prompt, stderr=True, end="")  # stdout is for the result
    if sys.stdin.readline().strip() != "yes":
        kept = " besides those before" if added else ""
        raise UsageError(f"no key was added{kept}: the answer was not yes", id="consent-missing")


def _document(
    found: Sequence[Found], added: Mapping[Path, int], problems: Sequence[Problem]
) -> TrustHostsDocument:
    return {
        "schema": "alluxio-provision/trust-hosts/1",
        "hosts": [
            {
                "names": list(f.server.names),
                "address": f.server.hop.address,
                "port": f.server.hop.port,
                "jump_host": f.server.jump,
                "key_type": f.key.kind if f.key is not None else None,
                "fingerprint": f.key.fingerprint if f.key is not None else None,
                "state": f.state,
                "known": [k.fingerprint for k in f.known],
            }
            for f in found
        ],
        "added": {str(path): count for path, count in added.items()},
        "changed": sum(added.values()),
        "problems": [problem.document() for problem in problems],
    }
