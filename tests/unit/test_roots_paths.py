"""Every script that this tool sends to hosts, read: root opens nothing by a name that a service
user can change (:mod:`provision.host.safely`).

The scripts are those of an example cluster. Its services' folders are below ``/srv``, which root
owns. What a script may do there by name is :data:`BY_NAME`; all else is an error.
``test_service_user_attacks`` has the shell functions that this test takes for granted.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.commands import alluxio_cli, read, readiness
from provision.alluxio.worker import desired as worker
from provision.alluxio.worker import state
from provision.alluxio.worker.tarball import Contents
from provision.check_nodes import worker_hosts
from provision.engine import audit, lock
from provision.engine.plan import HostChanges
from provision.errors import ProvisionError
from provision.etcd.cluster import guard, last_seen, scratch
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import desired, layout, recovery_marker, routes
from provision.etcd.member.recovery_marker import RecoveryMarker
from provision.host import facts as host_facts
from provision.host import former_owner, links, safely, tool_version, unit_changes
from provision.host.diff import Change, batch, changes, questions
from provision.host.facts import TOGETHER, HostFacts, PathState, Probe
from provision.host.predict import after
from provision.host.resources import Move, Resource, Tree
from provision.inventory.model import EtcdBackup, EtcdTls, PageStore
from provision.inventory.resolved import Machine
from provision.plans import clean_host, destroy
from provision.plans.alluxio import (
    decommission_worker,
    join_conflict,
    masters,
    restart_workers,
    start_workers,
    upgrade_workers,
)
from provision.plans.etcd import before_3_6, before_3_7
from provision.plans.etcd.certificates import csr_exchange, replace_lost_ca
from provision.plans.etcd.data import (
    fetch_backups,
    recover_etcd,
    restore_etcd,
    retained,
    snapshot_proof,
    stored,
    undo_restore,
)
from provision.plans.etcd.members import member_steps
from provision.plans.etcd.state import other_clusters
from provision.ssh import answers, session
from provision.ssh.session import Fleet, Result
from tests.unit import builders, hosts
from tests.unit.shell_reader import Command, commands

DATA, BACKUPS = "/srv/etcd", "/srv/etcd-backups"
STATE, LOGS, PAGES = "/srv/alluxio", "/srv/alluxio-logs", "/srv/pages"
JAVA = f"{STATE}/jdk"
SCRATCH = f"{scratch.SCRATCH}.0123456789abcdef"
#: The folders in which a service user can change every name.
OWNED = (DATA, BACKUPS, STATE, LOGS, PAGES, f"{SCRATCH}/own")
#: The same folders below a folder in which another service's user can change every name.
APP = "/srv/app"
OTHERS = (APP, f"{SCRATCH}/own")
#: What follows no link at the end of a name, and opens no file: at any depth, and only for a name
#: that is directly in a folder of :data:`OWNED`.
LOOKS = frozenset({"[", "test", "stat", "du", "df", "ls", "find", "readlink", "echo", "printf"})
#: It writes the home into its table, and does not make it.
LOOKS |= {"useradd"}
BY_NAME = LOOKS | {"rm", "rmdir"}
#: And in a folder to which root has walked.
IN_FOLDER = BY_NAME | {"mv", "mkdir"}
#: Shell functions that see to it themselves.
FUNCTIONS = frozenset(
    {
        *("walk", "folder", "gone", "empty", "as", "owner"),
        *(
            "paths",
            "hashes",
            "units",
            "users",
            "services",
            "disks",
            "listeners",
            "lookup",
            "reach",
            "runs",
            "none",
            "names",
            "becomes",
        ),
    }
)
#: The functions of this module that scripts call.
OF_SAFELY = frozenset(re.findall(r"^(\w+)\(\)", safely.FUNCTIONS, re.MULTILINE))
MARK = RecoveryMarker("restore", "20260101T000000Z", "a" * 64)
UNDONE = undo_restore.UndoState(
    {}, RecoveryMarker("undo", "20260101T000000Z", "a" * 64), "20260102T000000Z", False
)
#: The modules whose scripts are read here, and those that send none of their own.
READ = frozenset(
    {
        *("alluxio/commands/alluxio_cli", "alluxio/commands/nodes", "alluxio/commands/read"),
        *("alluxio/commands/readiness", "alluxio/worker/desired", "check_nodes/disks"),
        *("check_nodes/status", "engine/audit", "engine/lock", "etcd/cluster/guard"),
        *("etcd/cluster/last_seen", "etcd/cluster/scratch", "etcd/member/desired"),
        *(
            "etcd/member/routes",
            "etcd/member/recovery_marker",
            "host/facts",
            "host/kinds/certificates",
        ),
        *("host/kinds/files", "host/kinds/system", "host/kinds/trees", "host/kinds/units"),
        *("host/unit_changes", "plans/alluxio/decommission_worker", "plans/alluxio/join_conflict"),
        *("plans/alluxio/masters", "plans/alluxio/restart_workers", "plans/alluxio/start_workers"),
        *("plans/alluxio/upgrade_workers", "plans/clean_host", "plans/destroy"),
        *("plans/etcd/before_3_6", "plans/etcd/before_3_7"),
        *("plans/etcd/certificates/csr_exchange", "plans/etcd/data/fetch_backups"),
        *("plans/etcd/data/recover_etcd", "plans/etcd/data/restore_etcd"),
        *("plans/etcd/data/retained", "plans/etcd/data/stored", "plans/etcd/members/member_steps"),
        *("plans/etcd/data/undo_restore", "plans/etcd/certificates/replace_lost_ca"),
        *("host/former_owner", "host/folders", "host/links"),
        "plans/etcd/upgrade_etcd",
        "plans/etcd/state/other_clusters",
        "ssh/answers",
    }
)
NONE_OF_ITS_OWN = frozenset(
    {
        *("engine/plan", "host/gather", "etcd/pki/imported", "plans/alluxio/endpoints"),
        *("plans/etcd/auth", "plans/etcd/state/observe", "engine/joined"),
    }
)
_SENDS = re.compile(
    r"\bChange\(|\.feed\(|\.hold\(|\.fetch\(|session\.run\(|session\([^)]*\)\.run\(|commands=|"
    r"commands\["
)


def below(path: str, owned: Sequence[str]) -> str | None:
    """The part of ``path`` below a folder of a service user; None outside, and for the folder."""
    for folder in owned:
        at = path.find(f"{folder}/")
        # In a word such as --data-dir=PATH, too.
        if at >= 0 and len(path) > at + len(folder) + 1:
            return path[at + len(folder) + 1 :]
    return None


def is_as_user(words: Sequence[str]) -> bool:
    return "setpriv" in words[:8] or words[:1] == ("as",)


def faults(script: str, owned: Sequence[str] = OWNED) -> list[str]:
    """What root does in ``script`` by a name that a service user can change."""
    found: list[str] = []
    for command in commands(script, tuple(FUNCTIONS)):
        found += _faults(command, owned)
    return found


def _faults(command: Command, owned: Sequence[str]) -> Iterator[str]:
    words = command.words
    for path in command.opened:
        if below(path, owned) is not None or _in_walked(path, command, owned) is not None:
            yield f"root opens {path}"
    if not words or is_as_user(words):
        return
    if "-c" in words and any(w.rpartition("/")[2] in ("sh", "bash") for w in words):
        yield from faults(words[words.index("-c") + 1], owned)
        return
    if words[0] == "timeout":
        words = words[3:] if words[1] == "-k" else words[1:]
        yield from _faults(replace(command, words=words[1:], opened=()), owned)
        return
    name = words[0].rpartition("/")[2]
    if below(words[0], owned) is not None:
        yield f"root runs {words[0]}"
    if name in FUNCTIONS:
        return
    if name == "find" and {"-L", "-H", "-follow", "-exec", "-execdir", "-delete"} & set(words):
        name = "find with a link followed, a command or a deletion"
    for word in words[1:]:
        rest, walked = below(word, owned), _in_walked(word, command, owned)
        if rest is not None:
            deep = "/" in rest.strip("/*") and name not in LOOKS
            if name not in BY_NAME or deep:
                yield f"root: {name} {word}"
        elif walked is not None and (name not in IN_FOLDER or "/" in walked):
            yield f"root: {name} {word} in {command.walked}"


def without_functions(script: str) -> list[str]:
    """The shell functions of :mod:`provision.host.safely` that ``script`` calls and does not have.
    A shell that the script starts has none of them."""
    found: list[str] = []
    for command in commands(script, tuple(OF_SAFELY)):
        words = command.words
        if words and words[0] in OF_SAFELY - command.functions:
            found.append(words[0])
        if "-c" in words and any(w.rpartition("/")[2] in ("sh", "bash") for w in words):
            found += without_functions(words[words.index("-c") + 1])
    return found


def _in_walked(word: str, command: Command, owned: Sequence[str]) -> str | None:
    """The name of ``word`` when it is in a folder of a service user to which root has walked."""
    if not word.startswith("./") or command.walked is None:
        return None
    full = f"{command.walked}/{word[2:]}"
    return word[2:] if below(full, owned) is not None else None


# The example.


def cluster() -> Any:
    members = [builders.member(n, data_dir=DATA, peer_tls=True, client_tls=True) for n in (1, 2, 3)]
    backup = EtcdBackup(dir=BACKUPS, on_calendar="daily")
    return builders.etcd(*members, tls=EtcdTls(peer=True, client=True), backup=backup)


def alluxio() -> Any:
    workers = [
        builders.worker(f"w{n}")._replace(
            page_store=PageStore(dirs=[PAGES, f"{STATE}/pages"], sizes=["1GB", "1GB"]),
            java_home=JAVA,
        )
        for n in (1, 2)
    ]
    names = [builders.master(f"m{n}", java_home=JAVA) for n in (1, 2, 3)]
    return builders.alluxio(*workers, state_dir=STATE, log_dir=LOGS, masters=tuple(names))


def all_wrong(facts: HostFacts) -> HostFacts:
    """A host on which everything is there, and belongs to somebody else."""
    paths = {p: replace(s, owner="x", group="x", mode=0o777) for p, s in facts.paths.items()}
    return replace(facts, paths=paths)


def without_content(facts: HostFacts) -> HostFacts:
    paths = {p: replace(s, content=b"x", sha256="0" * 64) for p, s in facts.paths.items()}
    return replace(facts, paths=paths)


def all_changes(resources: Sequence[Resource]) -> Iterator[Change]:
    nothing = hosts.facts()
    there = after(resources, nothing)
    for seen in (nothing, all_wrong(there), without_content(there)):
        yield from changes(resources, seen)


def probed(probe: Probe) -> str:
    """The part of the facts script that is of this probe."""
    return host_facts.calls(probe, "mark")


def of_change(change: Change) -> Iterator[str]:
    if change.upload is not None:
        yield change.upload.receive()
    if change.ask:
        yield questions([change])
    if change.answer is not None:
        change = replace(change, script=change.answer("request"))
    yield batch([change])


class Recorder:
    """A session that notes what it is to run."""

    machine = Machine("10.0.0.1")

    def __init__(self, answer: str = "") -> None:
        self.sent: list[str] = []
        self._answer = answer

    def open(self) -> None:
        """There is nothing to connect to."""

    def _note(self, command: str) -> Result:
        self.sent.append(command)
        return Result(0, self._answer, "", 0.0)

    def run(self, script: str, what: str, **_: Any) -> Result:
        return self._note(script)

    def feed(self, command: str, body: Any, what: str, **_: Any) -> Result:
        return self._note(command)

    def fetch(self, command: str, into: Any, what: str, **_: Any) -> Result:
        return self._note(command)

    def hold(self, script: str, what: str, **_: Any) -> Any:
        self._note(script)
        raise ProvisionError("that is all", id="locked")


class Recording(Fleet):
    """A fleet of one such session."""

    def __init__(self) -> None:
        super().__init__(1)
        self.recorder = Recorder()

    def session(self, machine: Machine) -> Any:
        self.recorder.machine = machine
        return self.recorder


def recorded(name: str, work: Callable[[Recording], object]) -> list[str]:
    fleet = Recording()
    # The answers are empty: what comes after them fails.
    with contextlib.suppress(ProvisionError, ValueError):
        work(fleet)
    assert fleet.recorder.sent, name
    return fleet.recorder.sent


def installed() -> Mapping[str, Any]:
    """What clean-host finds of the example's units."""
    c, a = cluster(), alluxio()
    resources = [
        *desired.resources(c, c.members[0], hosts.TARBALL, None, None),
        *worker.resources(a, a.workers[0], _artifacts(), None),
        *masters.resources(a, a.masters[0], _artifacts(), None),
    ]
    seen = after(resources, hosts.facts())
    found = {role: clean_host.installed(role, seen, "here") for role in clean_host.UNITS}
    assert all(found.values())
    paths = {
        p: PathState("dir", "x", "x", 0o755, 1)
        for i in found.values()
        if i is not None
        for p in (*i.own, *i.data, *i.shared, *i.releases)
    }
    return {"seen": replace(seen, paths={**seen.paths, **paths}), **found}


def _kept(member: Any) -> Sequence[HostChanges]:
    name = "member.removed-20260101T000000Z"
    one = retained.Retained(member, name, datetime(2026, 1, 1, tzinfo=timezone.utc), 1)
    state = retained.RetainedState((one,), ())
    return retained.plan(builders.inventory(etcd=cluster()), state, [name]).steps[0].hosts


def _artifacts() -> worker.Artifacts:
    return worker.Artifacts(hosts.TARBALL, hosts.TARBALL, Contents(hosts.RELEASE.found, conf=True))


def units() -> Iterator[str]:
    """The commands of the units that run as root: those with a +."""
    c, a = cluster(), alluxio()
    mounts = hosts.facts(disks={p: replace(hosts.disk(p, 1), mount=p) for p in (*OWNED,)})
    for resources in (
        desired.resources(c, c.members[0], hosts.TARBALL, None, mounts),
        worker.resources(a, a.workers[0], _artifacts(), mounts),
        masters.resources(a, a.masters[0], _artifacts(), mounts),
    ):
        for resource in resources:
            content = getattr(resource, "content", None) or b""
            if not getattr(resource, "path", "").endswith(".service"):
                continue
            text = content.decode().replace("\\\n", " ")
            assert re.search("^User=", text, re.MULTILINE)
            for line in text.splitlines():
                if m := re.fullmatch(r"Exec\w+=-?\+-?/bin/sh -c '(.*)'", line):
                    yield m[1].replace("$$", "$").replace("%%", "%")


def scripts(folder: Path) -> Iterator[tuple[str, str]]:
    c, a = cluster(), alluxio()
    member, one, master = c.members[0], a.workers[0], a.masters[0]
    etcd: Any = Etcd(c, Fleet(1))
    inventory = builders.inventory(a, etcd=c)
    leaf = desired.Leaf(sign=lambda request: b"certificate")
    pair = desired.Leaf(pair=(b"certificate", b"key"))
    kept = desired.Leaf()
    probes = {
        "etcd": desired.probe(c, member, hosts.TARBALL),
        "worker": worker.probe(a, one, _artifacts()),
        "master": masters._probe(a, master, _artifacts()),
        "guard": guard._probe(c, member),
        "guard's disk": Probe(commands=guard._disk_commands(c, member)),
        "recover": recover_etcd._probe(c, member),
        "restore": restore_etcd._probe(c, member, "a" * 64),
        "undo": undo_restore._probe(c, member),
        "names in the data": Probe(commands={"names": other_clusters.names_in(member)}),
        "kept": retained._probe(member),
        "stored": stored.probe(c, member),
        "keys": csr_exchange._probe(c, member),
        "external keys": Probe(
            commands=desired.key_probes(replace(c, tls=EtcdTls(ca="external")), member)
        ),
        "routes": Probe(
            commands=routes.probe(
                builders.etcd(member, builders.member(2, address="two.example")),
                replace(member, peer_tls=True),
            )
        ),
        "ready": readiness.probes(a, [one])[one.machine],
        "links": Probe(commands={"links": links._look(DATA)}),
        "gone": member_steps._probe(c, member),
        "destroyed etcd": destroy._etcd_probe(c, member),
        "destroyed worker": destroy._worker_probe(a, one),
        "destroyed master": destroy._master_probe(a),
        "v2": Probe(commands={"v2": before_3_7.v2_requests(c, member)}),
    }
    for name, probe in probes.items():
        yield f"probe of {name}", probed(probe)
    found = installed()
    seen = found["seen"]
    every = [i for role, i in found.items() if role != "seen"]
    yield "probe of clean-host", probed(clean_host._units_probe())
    yield "probe of clean-host's units", probed(clean_host._probe(every, every, seen))
    todo: list[tuple[str, Change]] = []
    for name, tls in (("a key there", leaf), ("a key from here", pair), ("kept", kept)):
        material = desired.MemberTls("infra1", b"ca", tls, tls)
        wanted = desired.resources(c, member, hosts.TARBALL, material, None)
        todo += [(f"etcd, {name}", change) for change in all_changes(wanted)]
        half = replace(seen, paths={f"{layout.pki_dir(c)}/peer.crt.new": hosts.text("x")})
        todo += [("half", x) for x in changes(desired.certificates(c, material), half)]
    move = Move(f"{worker.home(a)}/metastore", state.metastore(a), a.user, worker.UNIT)
    moved: list[Resource] = [move]
    for r in worker.resources(a, one, _artifacts(), None):
        moved.append(replace(r, before=(move,)) if isinstance(r, Tree) else r)
    todo += [("worker", change) for change in all_changes(moved)]
    todo += [("master", x) for x in all_changes(masters.resources(a, master, _artifacts(), None))]
    note = before_3_6.note(c, 1, 2)
    todo += [("note", change) for change in all_changes([note])]
    proof = snapshot_proof.Proof(member.name, 7, 1, (), False, True)
    notes = {former_owner.note_path(p): hosts.text(f"0 0 755\n{p}\n") for p in (DATA, PAGES)}
    noted = replace(hosts.facts(1), paths=notes)
    given = {"mark": MARK, "sha256": "a" * 64, "file": Path(__file__), "proof": proof}
    observed: Any = type("Observed", (), {**given, "without": ()})
    todo += [
        ("mark", recovery_marker.stop(member, MARK, c.user)),
        ("start", recovery_marker.start(member)),
        ("clear", recovery_marker.clear(member, f"{DATA}/x")),
        ("prepare", restore_etcd._prepare(c, member, observed, bump=True)),
        ("swap", restore_etcd._swap(c, member, MARK)),
        ("undo", undo_restore._back(member, UNDONE)),
        *(("back", change) for change in former_owner.give_back([DATA, PAGES], noted)),
        ("keep", recover_etcd._keep(member, MARK)),
        ("force", recover_etcd._force(c, member, MARK)),
        *(("kept data", x) for h in _kept(member) for x in h.changes),
        ("away", member_steps._away(member, ())),
        ("deleted", member_steps._away(member, (member.name,))),
        ("stop", unit_changes.stop(layout.UNIT)),
    ]
    for m in (destroy._etcd(c, member, {member.machine: seen}),):
        todo += [("destroy etcd", change) for change in m]
    todo += [("destroy worker", x) for x in destroy._worker(a, one, {one.machine: seen})]
    todo += [("destroy master", x) for x in destroy._master(a, master, {master.machine: seen})]
    for i in every:
        for delete in (True, False):
            removal = clean_host._removal(i, seen, delete, user=True)
            todo += [(f"clean {i.role}", change) for change in removal]
    todo += [("decommission", x) for x in decommission_worker._stopping(seen)]
    pruned = upgrade_workers._pruned(a, one, seen, 0)
    todo += [("prune", change) for change in pruned.changes]
    for name, change in todo:
        for text in of_change(change):
            yield f"{name}: {change.what}", text
    for text in units():
        yield "a unit", text
    yield "check of v2 data", before_3_6.script(c, member, "3.6.16")
    yield "removal of a scratch member", scratch._removal(SCRATCH)
    yield "relay", session._RELAY.format(address="127.0.0.1", port=20000)
    yield "scratch member", scratch._script(c, SCRATCH, 20000)
    by = audit.author("x", "c")
    yield "audit", batch([Change("x", "x")], audit.lines(by, "n", ["x"]))
    yield "version", tool_version.note()
    yield "functions", safely.FUNCTIONS
    yield "read", read.script(a, "/x", 10)
    yield "info nodes", alluxio_cli.command(a, ["info", "nodes"], 10)
    with_file: Any = type("Restore", (), {"file": Path(__file__), "sha256": "a" * 64})
    saved: Any = type("Saved", (), {})
    saved.name, saved.member, saved.path = type("N", (), {"text": "x.db"}), member.name, "/x"
    saved.path, saved.size = f"{BACKUPS}/x.db", 1
    looked: Any = type("Stored", (), {"hosts": [type("H", (), {"member": member})]})
    sent: dict[str, Callable[[Recording], object]] = {
        "upload": lambda f: restore_etcd._send(Etcd(c, f), with_file, [member]),
        "lost CA": lambda f: replace_lost_ca._pair(c, f, b""),
        "scratch": lambda f: scratch._upload(Etcd(c, f), member, Path(__file__), "a" * 64, SCRATCH),
        "port": lambda f: answers._require_listener(f.recorder, "h", 1, 2),  # type: ignore[arg-type]
        "lock": lambda f: lock._take(f.recorder, "me", 0.0),  # type: ignore[arg-type]
        "snapshots": lambda f: before_3_7._newest(Etcd(c, f), member),
        "fetch": lambda f: fetch_backups._bring(c, f, looked, saved, folder),
        "conflict": lambda f: join_conflict.explained(a, Etcd(c, f), [one]),
        "restarts": lambda f: start_workers._failed_attempts(f, [one]),
        "start": lambda f: start_workers._rest_of_start(f, a, [one]),
        "lines": lambda f: start_workers.last_lines(f, [one.machine]),
        "audit": lambda f: audit.read_host(f.recorder, 5),  # type: ignore[arg-type]
        "journal": lambda f: masters._outside(f, a, [master]),
        "restart": lambda f: restart_workers._look(inventory, a, [one], f),
        "releases": lambda f: upgrade_workers._look(inventory, a, [one], f),
        "workers": lambda f: worker_hosts.look(f, a),
    }
    for name, work in sent.items():
        for text in recorded(name, work):
            # Before it are the functions of facts.sh, and behind it what puts its output together.
            yield name, text[max(0, text.find("echo asked ")) :].removesuffix(f"}} | {TOGETHER}")
    assert etcd.cluster is c
    assert last_seen.text is not None


@pytest.mark.long
def test_root_opens_nothing_by_a_name_that_a_service_user_can_change(tmp_path: Path) -> None:
    every = list(scripts(tmp_path))
    found = {f"{name}: {fault}" for name, text in every for fault in faults(text)}
    assert sorted(found) == []
    # The example has them: a script in which none of its folders is named proves nothing.
    assert all(any(folder in text for _, text in every) for folder in OWNED)


@pytest.mark.long
def test_root_opens_nothing_below_a_folder_that_another_service_user_owns(tmp_path: Path) -> None:
    """There, the folder of the service itself is a name that a user can change."""
    every = [(name, text.replace("/srv/", f"{APP}/")) for name, text in scripts(tmp_path)]
    found = {f"{name}: {fault}" for name, text in every for fault in faults(text, OTHERS)}
    assert sorted(found) == []
    assert any(f"{APP}{DATA.removeprefix('/srv')}" in text for _, text in every)


@pytest.mark.long
def test_every_script_has_the_functions_that_it_calls(tmp_path: Path) -> None:
    every = dict.fromkeys(scripts(tmp_path))
    assert {(name, call) for name, text in every for call in without_functions(text)} == set()
    # The example calls them: scripts that call none prove nothing.
    called = {c.words[0] for _, text in every for c in commands(text, tuple(OF_SAFELY)) if c.words}
    assert {"walk", "folder", "gone", "empty", "as", "owner"} <= called & OF_SAFELY


@pytest.mark.parametrize(
    ("script", "missing"),
    [
        ("walk /x", ["walk"]),
        (f"walk /x\n{safely.FUNCTIONS}", ["walk"]),
        (f"{safely.FUNCTIONS}\nwalk /x; a=$(owner 5 ls)", []),
        (f"{safely.FUNCTIONS}\nas etcd sh -c 'gone /x'", ["gone"]),
        (f"({safely.FUNCTIONS}\n)\ngone /x", ["gone"]),
        ("x=$(as etcd ls) || { echo no; }", ["as"]),
        ("case $x in a) gone /x;; esac", ["gone"]),
        ("echo walk", []),
    ],
)
def test_which_functions_a_script_lacks(script: str, missing: list[str]) -> None:
    assert without_functions(script) == missing


def test_every_module_that_sends_a_script_is_read() -> None:
    root = Path(host_facts.__file__).parents[1]
    sending = {
        str(path.relative_to(root).with_suffix(""))
        for path in root.rglob("*.py")
        if _SENDS.search(path.read_text(encoding="utf-8")) and path.name != "session.py"
    }
    assert sending == READ | NONE_OF_ITS_OWN
    assert not READ & NONE_OF_ITS_OWN


def test_one_module_becomes_another_user() -> None:
    """There, the process does not get the batch's lock. The facts script has no such lock."""
    root = Path(host_facts.__file__).parents[1]
    word = re.compile("setpriv|runuser")
    files = (f for f in root.rglob("*") if f.suffix in (".py", ".sh"))
    found = {str(f.relative_to(root)) for f in files if word.search(f.read_text(encoding="utf-8"))}
    assert found == {"host/safely.py", "host/facts.sh", "host/tools.py"}


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (f"echo x >{DATA}/unfinished.new", "root opens"),
        (f"exec 9>>{STATE}/lock", "root opens"),
        (f'd={DATA}\ncat "$d/x"', "root: cat"),
        (f"t=$(mktemp {DATA}/x.XXXXXX); chmod 644 $t", "root: mktemp"),
        (f"chown etcd:etcd {DATA}/member", "root: chown"),
        (f"for f in {DATA}/*; do sha256sum <$f; done", "root opens"),
        (f"[ ! -x {JAVA}/bin/java ] || {JAVA}/bin/java -version", "root runs"),
        (f'a() {{ chmod 755 "$1/LOCAL"; }}; a {PAGES}', "root: chmod"),
        (f"if true; then tar -xf - -C {STATE}/x; fi", "root: tar"),
        (f"rm -rf {STATE}/tmp/worker", "root: rm"),
        (f"mv -T {DATA}/member {DATA}/x", "root: mv"),
        (f"install -d {STATE}/pages", "root: install"),
        (f"find {DATA}/x -exec rm {{}} +", "root: find"),
        (f"find {DATA}/x -user etcd -delete", "root: find"),
        (f"sh -c 'cat {DATA}/x'", "root: cat"),
        (f"as etcd sh -c 'cat {DATA}/x' >{DATA}/y", "root opens"),
        (f"( walk {DATA} || exit 1\nmv ./a/b ./c )", "root: mv"),
        (f"( walk {DATA}\nchmod 755 ./a )", "root: chmod"),
        (f"( walk {DATA}\necho >./a )", "root opens"),
        (f'case $x in a) cat "{DATA}/x";; esac', "root: cat"),
        (f"while read -r l; do :; done <{DATA}/x", "root opens"),
        (f"x=$(head -c 1 {DATA}/x)", "root: head"),
        (f"{SCRATCH}/own/etcdutl", "root runs"),
        (f"bash -c 'exec 3< <(cat {DATA}/x)'", "root: cat"),
    ],
)
def test_what_is_a_fault(script: str, fault: str) -> None:
    found = faults(script)
    assert any(one.startswith(fault) for one in found), found


@pytest.mark.parametrize(
    "script",
    [
        f"chown etcd:etcd {DATA}; chmod 700 {DATA}",
        f"rm -rf {DATA}/member; [ -d {STATE}/a/b ] && du -sk {STATE}/a/b",
        f"as etcd sh -c 'cat {DATA}/x'",
        f'as=; as="setpriv --reuid etcd"; timeout 5 $as sh -c "cat {DATA}/x" </dev/null',
        f"( walk {DATA} || exit 1\nmv -T ./a ./b; mkdir ./c; chown root . )",
        f"folder {STATE}/pages alluxio:alluxio 0750; gone {STATE}/tmp/worker",
        f"echo root wrote {DATA}/x >&2",
        "cat /etc/etcd/etcd.conf.yml >/run/x",
    ],
)
def test_what_is_none(script: str) -> None:
    assert faults(script) == []


def test_the_facts_script_names_no_folder_of_a_service() -> None:
    """Its own functions are taken for granted above; the attacks are their test."""
    text = host_facts._facts_script()
    assert not [folder for folder in OWNED if folder in text]
    assert io.StringIO(text).readline().startswith("# Facts about a host")
