"""The tool's own versions: an older one refuses, and a newer one goes on from what it left."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from provision import __version__
from provision.host.tool_version import FILE, FOLDER

from .lab import CLUSTER, REPO, Host, Lab, Running

#: The last commit before hosts had the version of the tool that changed them.
EARLIER = "cd48b85dddb4b59bc04dbf4884c4365fac503a19"
#: Seconds after which a new run is surely later than that version's last: of its end that version
#: leaves only the whole second, and a run that may have begun before it refuses.
OF_ITS_END = 3.0
#: No version has come this far.
NEWER = "99.0.0"
BACKUP = {"etcd": {"backup": {"dir": "/var/backups/etcd", "same_disk": True}}}


@contextmanager
def changed_by(hosts: Sequence[Host], content: str) -> Iterator[None]:
    """As if another version of the tool had changed ``hosts`` last."""
    for host in hosts:
        host.run(f"cp -p {FILE} /root/tool-version.aside; echo {content} >{FILE}")
    try:
        yield
    finally:
        for host in hosts:
            host.run(f"mv /root/tool-version.aside {FILE}")


def said(hosts: Sequence[Host]) -> str:
    return (
        f"{', '.join(host.address for host in hosts)}: last changed by version {NEWER} of this "
        f"tool; this is version {__version__} (install version {NEWER}"
    )


@pytest.mark.usefixtures("workers")
class TestThisVersion:
    def test_every_host_has_the_version_that_changed_it(self, lab: Lab) -> None:
        hosts = list(lab.hosts.values())
        look = f"stat -c '%a %U' {FOLDER} {FILE}; cat {FILE}; stat -c %Z {FILE}"
        found = [text.splitlines() for text in lab.on(hosts, look)]
        assert {tuple(lines[:3]) for lines in found} == {("755 root", "644 root", __version__)}
        for task in ("deploy-etcd", "start-workers"):
            lab.invoke(task).expect(0, "0 changed")
        assert [text.splitlines() for text in lab.on(hosts, look)] == found

    def test_a_host_of_a_newer_version_bars_only_what_has_to_do_with_it(self, lab: Lab) -> None:
        with changed_by(lab.workers[1:], NEWER):
            for options in (["--dry-run"], []):
                lab.invoke("start-workers", None, *options).expect(3, said(lab.workers[1:]))
            limit = ("--limit", lab.workers[0].name)
            lab.invoke("start-workers", None, *limit).expect(0, "0 changed")
            lab.invoke("deploy-etcd").expect(0, "0 changed")
            warning = f"warning: {said(lab.workers[1:])}"
            lab.invoke("check-nodes", None, "--hosts").expect(0, warning)

    def test_a_host_that_nobody_has_changed_since_versions_are_noted(self, lab: Lab) -> None:
        """The commit before left no file."""
        host = lab.etcd[0]
        host.run(f"mv {FOLDER} {FOLDER}.aside")
        try:
            lab.invoke("deploy-etcd").expect(0, "0 changed")
            assert host.run(f"ls {FOLDER} 2>/dev/null || :") == ""
        finally:
            host.run(f"mv {FOLDER}.aside {FOLDER}")


@pytest.mark.usefixtures("workers")
def test_an_older_version_of_the_tool_refuses_on_all_hosts_at_once(lab: Lab) -> None:
    hosts = [lab.etcd[0], lab.etcd[2]]
    before = lab.snapshot()
    with changed_by(hosts, NEWER):
        for words in (
            ("deploy-etcd", "--dry-run"),
            ("deploy-etcd",),
            ("start-workers", "--dry-run"),
            ("move-leader", "etcd0", "--dry-run"),
            ("destroy", "--yes-delete", CLUSTER),
        ):
            task, *options = words
            refused = lab.invoke(task, None, *options)
            refused.expect(3, "nothing was changed", said(hosts), "[tool-too-old]")
            lines = [line for line in refused.stderr.splitlines() if "last changed by" in line]
            assert len(lines) == 1
        document = lab.invoke("deploy-etcd", None, "--format", "json").expect(3).json
        assert (document["id"], document["exit_code"]) == ("tool-too-old", 3)
        lab.invoke("check-nodes").expect(0)
        for task in ("status", "kept-data"):
            lab.invoke(task).expect(0, f"warning: {said(hosts)}", "[tool-too-old]")
        lab.invoke("logs", None, hosts[0].name).expect(0)
        assert lab.snapshot() == before
    lab.invoke("deploy-etcd").expect(0, "0 changed")


@pytest.mark.usefixtures("workers")
def test_a_file_without_a_version_is_a_warning_and_is_written_again(lab: Lab) -> None:
    host, path = lab.etcd[1], "/etc/etcd"
    with changed_by([host], "nonsense"):
        lab.invoke("deploy-etcd", None, "--dry-run").expect(0, "[tool-version-unknown]")
        lab.invoke("deploy-etcd").expect(0, f"{host.address}: {FILE} says 'nonsense'", "0 changed")
        assert host.read(FILE) == "nonsense"
        host.run(f"chmod 751 {path}")  # etcd can still read what is in it
        lab.invoke("deploy-etcd").expect(0, f"set {path} to root 0755", "[tool-version-unknown]")
        assert host.read(FILE) == __version__
        lab.invoke("deploy-etcd").expect(0, "0 changed")


class Earlier:
    """The tool of another commit, with the same Python, on the same hosts."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab, self._folder = lab, folder

    def start(self, task: str, inventory: Path | None = None, *options: str) -> Running:
        command = self._lab.command(task, inventory, *options)
        return Running(command, {"PYTHONPATH": str(self._folder)}, self._folder)

    def invoke(self, task: str, inventory: Path | None = None, *options: str) -> None:
        self.start(task, inventory, *options).finish().expect(0)
        time.sleep(OF_ITS_END)


@pytest.fixture
def earlier(lab: Lab, tmp_path: Path) -> Earlier:
    """The commit before. A copy without git, or a shallow clone, does not have it."""
    git = ["git", "-C", str(REPO)]
    known = subprocess.run(
        [*git, "cat-file", "-e", f"{EARLIER}^{{commit}}"], capture_output=True, check=False
    )
    if known.returncode:
        pytest.skip(f"this clone does not have the commit {EARLIER[:7]}")
    folder = tmp_path / "earlier"
    folder.mkdir()
    archive = subprocess.run([*git, "archive", EARLIER], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    lab.clear()
    return Earlier(lab, folder)


@pytest.fixture
def backups(lab: Lab) -> Iterator[Path]:
    """An inventory with backups by timer."""
    yield lab.inventory(BACKUP)
    lab.invoke("deploy-etcd")
    lab.on(lab.etcd, "rm -rf /var/backups/etcd")


def planned(lab: Lab, task: str, inventory: Path | None = None) -> set[tuple[str, str]]:
    """What ``task`` would change: host and change."""
    options = ("--dry-run", "--exit-code", "--format", "json")
    done = lab.invoke(task, inventory, *options)
    found = _changes(done.json)
    done.expect(1 if found else 0)
    return found


def _changes(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (host["name"], change["what"])
        for step in document["steps"]
        for host in step["hosts"]
        for change in host["changes"]
    } | {("etcd", call) for step in document["steps"] for call in step["calls"]}


#: Keys and secrets belong to root, and the service reads them by its group.
OWNERS = re.compile(r"set (/etc/etcd/|/opt/alluxio/)\S+( and \.key)? to root:(etcd|alluxio) 0\d{3}")


def processes(lab: Lab) -> list[int]:
    workers = [host.main_pid("alluxio-worker") for host in lab.workers]
    return [*(host.main_pid("etcd") for host in lab.etcd), *workers]


def unit(name: str) -> set[str]:
    """The changes of a unit's text that need no restart."""
    return {f"change /etc/systemd/system/{name}", f"reload systemd for {name}"}


@pytest.mark.slow
def test_of_what_the_version_before_has_deployed_only_owners_and_units_change(
    lab: Lab, earlier: Earlier
) -> None:
    for task in ("deploy-etcd", "start-workers"):
        earlier.invoke(task)
    pids = processes(lab)
    for task, name in (
        ("deploy-etcd", "etcd.service"),
        ("start-workers", "alluxio-worker.service"),
    ):
        what = {what for _, what in planned(lab, task)}
        assert {w for w in what if not OWNERS.fullmatch(w)} == unit(name)
        lab.invoke(task).expect(0)
        lab.invoke(task).expect(0, "0 changed")
    announced = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "`/etc/etcd/pki`" in announced
    assert "`UnsetEnvironment=`" in announced
    assert "`LogsDirectory=`" in announced
    lab.invoke("check-nodes").expect(0)
    assert processes(lab) == pids
    assert lab.on(lab.etcd, f"cat {FILE}") == [__version__] * 3


@pytest.mark.slow
def test_only_what_the_changelog_announces_differs(
    lab: Lab, earlier: Earlier, backups: Path
) -> None:
    earlier.invoke("deploy-etcd", backups)
    script = "change /etc/etcd/backup.sh"
    differs = planned(lab, "deploy-etcd", backups)
    assert {d for d in differs if not OWNERS.fullmatch(d[1])} == {
        (h.name, what) for h in lab.etcd for what in (script, *unit("etcd.service"))
    }
    announced = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "`backup.sh`" in announced
    pids = [host.main_pid("etcd") for host in lab.etcd]
    lab.invoke("deploy-etcd", backups).expect(0, script)
    lab.invoke("deploy-etcd", backups).expect(0, "0 changed")
    assert [host.main_pid("etcd") for host in lab.etcd] == pids
    assert lab.on(lab.etcd, f"cat {FILE}") == [__version__] * 3


@pytest.mark.slow
def test_a_run_of_the_version_before_that_was_killed_is_finished(
    lab: Lab, earlier: Earlier
) -> None:
    """Its lock, its restart marks and its note of the cluster are read."""
    for task in ("deploy-etcd", "start-workers"):
        earlier.invoke(task)
    inventory = lab.inventory({"etcd": {"settings": {"snapshot-count": 31000}}})
    before = {host: host.main_pid("etcd") for host in lab.etcd}
    run = earlier.start("deploy-etcd", inventory)
    run.wait_for(r"etcd\d: ok", 1)
    run.kill()
    lab.on(lab.etcd, "flock -w 5 /run/alluxio-provision/run.lock true")
    lab.on(lab.etcd, "flock -w 50 /run/alluxio-provision/batch.lock true || :")
    time.sleep(OF_ITS_END)
    done = [host for host in lab.etcd if host.main_pid("etcd") != before[host]]
    assert done
    between = {host: host.main_pid("etcd") for host in done}
    lab.invoke("deploy-etcd", inventory).expect(0)
    assert {host: host.main_pid("etcd") for host in done} == between, "restarted again"
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")
    lab.invoke("deploy-etcd").expect(0)
    lab.invoke("check-nodes").expect(0)
    lab.destroy()
