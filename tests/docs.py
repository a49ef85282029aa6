"""The documentation's command blocks: which there are, where each is executed, and executing them.

:data:`PLACES` names every block by its page and its first command. The tests that execute blocks
take them from here, page by page and in their order (:class:`Reader`), and fail when they have left
one out. tests/unit/test_docs.py fails when a block is not in the table, or the table is not true.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from provision.cli.commands import namespace

REPO = Path(__file__).parents[1]
#: Pages that people write; the generated ones have no commands.
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in sorted((REPO / "docs").glob("*.md"))),
]
#: What a fence may say: commands with "$ " before each, or what is no command.
LANGUAGES = ("console", "yaml", "ini", "text")

#: Seconds that a block may take.
_LONGEST = 180
_FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Place:
    """Where blocks are executed."""


@dataclass(frozen=True)
class Module(Place):
    """By this test module, which goes through the blocks of each of its pages."""

    path: str


#: On the lab's hosts.
LAB = Module("tests/integration/test_docs.py")
#: On the lab, on a terminal: the README's ways from hosts to a cluster.
FIRST_HOUR = Module("tests/integration/test_first_hour.py")
#: On the lab, and all of the page in one shell.
TUTORIAL = Module("tests/integration/test_tutorial.py")
#: Against an etcd, or with Helm, on loopback.
COMPONENT = Module("tests/component/test_docs.py")
#: In folders and virtualenvs of its own.
INSTALLS = Module("tests/component/test_bundle.py")
#: With nothing but an inventory.
ALONE = Module("tests/unit/test_docs_alone.py")


@dataclass(frozen=True)
class ByCi(Place):
    """By .ci/run itself: its make targets, those that these need, and their recipes."""


CI = ByCi()


@dataclass(frozen=True)
class Elsewhere(Place):
    """By a test that is there for more: it calls the same tasks with the same options."""

    test: str
    #: What starts that test when .ci/run does not, and why not.
    but: str = ""


@dataclass(frozen=True)
class NotHere(Place):
    """By no test, for a reason."""

    why: str


_API_SERVER = "tests/kubernetes/test_api_server.py"
_MINUTES = "by `make kubernetes`: to build an API server takes a quarter of an hour"


def _on_the_lab(module: str, name: str) -> Elsewhere:
    """By a test of the operation itself, on the same hosts."""
    return Elsewhere(f"tests/integration/test_{module}.py::test_{name}")


def _at_sshds(name: str) -> Elsewhere:
    return Elsewhere(f"tests/component/test_trust_hosts.py::test_{name}")


_HOSTS = "--etcd host1,host2,host3 --workers 'worker[1-20].example.com' --user deploy"
_ETCD, _ALLUXIO = (
    "--etcd-tarball etcd-v3.6.16-linux-amd64.tar.gz",
    "--alluxio-tarball alluxio-313-bin.tar.gz --ufs s3://bucket/path",
)
#: The first command of each role in the README.
SERVERS = f"alluxio-provision init-inventory {_HOSTS} {_ETCD} {_ALLUXIO}"
AN_ETCD = (
    "alluxio-provision init-inventory --endpoints http://10.0.1.10:2379 "
    f"--workers 'worker[1-20].example.com' --user deploy {_ALLUXIO} --cluster Reports"
)
ANSIBLE = (
    f"alluxio-provision import-ansible hosts.ini --etcd-group etcd --worker-group cache {_ETCD} "
    f"{_ALLUXIO}"
)
PODS = (
    "alluxio-provision init-inventory --etcd 'etcd[0-2]' --workers 'worker[0-3]' "
    "--ufs s3://bucket/path --kubernetes render-helm --to values.yaml"
)

PLACES: dict[str, dict[str, Place]] = {
    "README.md": {
        "make demo": CI,
        "python3 -m venv .venv": INSTALLS,
        "python3 -m venv ~/alluxio-provision": INSTALLS,
        SERVERS: FIRST_HOUR,
        "alluxio-provision trust-hosts": FIRST_HOUR,
        "alluxio-provision deploy-etcd --dry-run": FIRST_HOUR,
        AN_ETCD: FIRST_HOUR,
        ANSIBLE: FIRST_HOUR,
        PODS: COMPONENT,
        "helm upgrade --install alluxio CHART --dependency-update --namespace=default "
        "--values=values.yaml": Elsewhere(f"{_API_SERVER}::test_the_values_install", _MINUTES),
        "make bundle": Elsewhere("tests/component/test_bundle.py::archive"),
        "sha256sum --check alluxio-provision-1.0.0-linux-x86_64.tar.gz.sha256": INSTALLS,
    },
    "CONTRIBUTING.md": {
        "make lint": CI,
        "make versions": NotHere(
            "its Pythons are on few machines: a job of .github/workflows/ci.yml for each; "
            "more boxes, and many minutes"
        ),
    },
    "docs/json.md": {"invoke check-nodes --format json | python3 -m json.tool": LAB},
    "docs/kubernetes.md": {
        "invoke render-helm --to values.yaml": COMPONENT,
        "helm upgrade --install alluxio CHART --dependency-update --namespace=default "
        "--values=values.yaml": Elsewhere(f"{_API_SERVER}::test_the_values_install", _MINUTES),
        "invoke check-nodes --kubernetes": Elsewhere(
            f"{_API_SERVER}::test_check_nodes_over_the_pods", _MINUTES
        ),
    },
    "docs/membership.md": {
        "invoke start-workers --dry-run": LAB,
        "etcdctl user add analytics": COMPONENT,
    },
    "docs/monitoring.md": {
        "invoke check-nodes --watch": LAB,
        "invoke check-nodes --watch --format json": _on_the_lab(
            "check_nodes", "a_killed_worker_is_failed_in_time"
        ),
        "invoke check-nodes --format prometheus": LAB,
        "invoke render-monitor --into monitor": ALONE,
        "invoke check-nodes --html report.html": LAB,
    },
    "docs/operations.md": {
        "invoke backup-etcd --cluster-id 9d2c5f0c8a7e4b11": _on_the_lab(
            "which_cluster", "an_odd_cluster_of_one_is_not_taken_for_the_cluster"
        ),
        "invoke add-member etcd3": _on_the_lab(
            "members", "the_leader_is_removed_after_another_has_taken_the_lead"
        ),
        "invoke clean-host worker1 --dry-run": _on_the_lab(
            "destroy", "one_host_is_cleaned_of_what_another_cluster_has_there"
        ),
        "invoke upgrade-etcd 3.7.3 --dry-run": _on_the_lab(
            "upgrade", "3_4_to_3_7_loses_no_write_and_no_worker"
        ),
        "invoke rotate-certs": _on_the_lab(
            "rotate_certs", "a_new_ca_goes_on_where_a_killed_run_has_left_it"
        ),
        "invoke rotate-certs --ca --ca-lost NAME": _on_the_lab(
            "rotate_certs", "a_lost_ca_is_never_replaced_by_the_way_and_then_without_an_outage"
        ),
        "invoke export-csrs requests": _on_the_lab(
            "external_ca", "a_first_deploy_by_an_intermediate"
        ),
        "invoke enable-auth": _on_the_lab("auth", "it_is_turned_on_and_the_workers_are_live"),
        "invoke backup-etcd --to backups": _on_the_lab(
            "backup", "killed_anywhere_it_is_finished_by_running_it_again"
        ),
        "invoke restore-etcd --undo": _on_the_lab(
            "restore", "a_killed_undo_is_finished_by_running_it_again"
        ),
        "invoke recover-etcd etcd1": _on_the_lab(
            "recover", "a_survivor_whose_host_does_not_answer_comes_later"
        ),
        "invoke defrag-etcd --compact": _on_the_lab(
            "maintenance", "a_full_database_is_compacted_rewritten_and_disarmed"
        ),
        "invoke move-leader etcd1": _on_the_lab(
            "members", "the_leader_is_removed_after_another_has_taken_the_lead"
        ),
        "invoke kept-data": LAB,
        "invoke audit": LAB,
    },
    "docs/performance.md": {
        "seq 2 | xargs -P 2 -I{} invoke status --limit 'worker[0-1]' --batch {}/2": LAB,
        "parallel --jobs 1 --sshlogin etcd0,etcd1,etcd2 alluxio-provision check-nodes --hosts "
        "--batch {}/6 --format json ::: 1 2 3 4 5 6 | alluxio-provision merge-reports": (
            _on_the_lab("batches", "a_look_by_three_machines_is_the_look_of_one")
        ),
        "sbatch --wait /srv/shared/run/job": NotHere(
            "by bench/slurm, on nine hosts of its own with Debian's Slurm in their box: minutes"
        ),
    },
    "docs/ssh.md": {
        "invoke trust-hosts": _at_sshds("all_keys_are_shown_and_asked_for_once"),
        "invoke trust-hosts --yes --fingerprints fingerprints.txt": _at_sshds(
            "fingerprints_in_every_form"
        ),
        "invoke export-ssh-config > ssh_config": LAB,
        "invoke import-ansible hosts.ini --to inventory/inventory.yml "
        "--etcd-group etcd --worker-group cache": ALONE,
    },
    "docs/tutorial.md": {
        "make demo": CI,
        "export PROVISION_INVENTORY=inventory/lab.yml": TUTORIAL,
        "invoke deploy-etcd": TUTORIAL,
        "cp inventory/lab.yml inventory/mine.yml": TUTORIAL,
        "ssh -F .lab/ssh/config worker1 sudo systemctl kill --signal=KILL --kill-whom=all "
        "alluxio-worker": TUTORIAL,
        "invoke stop-workers worker1": TUTORIAL,
        "ssh -F .lab/ssh/config etcd2 'sudo systemctl kill --signal=KILL etcd; "
        "sudo rm -rf /var/lib/etcd/member; sudo systemctl stop etcd'": TUTORIAL,
        "invoke backup-etcd --to backups": TUTORIAL,
        "invoke destroy --yes-delete AlxpLab": TUTORIAL,
        "make clean": CI,
    },
    "docs/workers.md": {
        "invoke check-nodes --hosts": (_on_the_lab("check_nodes", "a_read_goes_through_a_worker")),
        "invoke restart-workers": _on_the_lab(
            "worker_life", "a_rolling_restart_stops_at_the_first_failure_and_goes_on"
        ),
        "invoke upgrade-workers --dry-run": LAB,
        "invoke decommission-worker worker1": LAB,
        "invoke forget-worker worker-a35c88ee-3346-4068-bd59-a3169f10f788": LAB,
        "invoke forget-worker stale --count 2": LAB,
        "invoke readmit-worker ~/.local/state/alluxio-provision/registrations/FILE.json": LAB,
    },
}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The command lines, without what explains them; lines that only explain are none. A
        line that goes on behind a backslash is one with the next."""
        lines = [line[2:] for line in self._lines if line.startswith("$ ")]
        return [bare for line in lines if (bare := re.sub(r"(^|\s+)# .*$", "", line))]

    @property
    def answers(self) -> list[str]:
        """What the commands print, as it is shown."""
        return [line for line in self._lines if line and not line.startswith("$ ")]

    @property
    def _lines(self) -> list[str]:
        return re.sub(r"\\\n +", "", self.text).splitlines()


def text(page: str) -> str:
    return (REPO / page).read_text(encoding="utf-8")


def fenced(page: str, language: str | None = None) -> list[Block]:
    """The blocks of a page, all or those of one language."""
    content = text(page)
    found = []
    for match in _FENCE.finditer(content):
        indent, kind, inner = match.groups()
        lines = [line.removeprefix(indent) for line in inner.splitlines(keepends=True)]
        line = content.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, kind, "".join(lines)))
    return [block for block in found if language in (None, block.language)]


def blocks(page: str, place: Place | None = None) -> list[Block]:
    """The command blocks of a page, all or those of one place."""
    placed = PLACES.get(page, {})
    return [
        block
        for block in fenced(page, "console")
        if place is None or placed.get(block.commands[0]) == place
    ]


def unknown(commands: str) -> Iterator[str]:
    """Tasks and options in a text of commands that are not there."""
    for name, rest in re.findall(
        r"\b(?:invoke|alluxio-provision) ([a-z][a-z-]+)([^`|\n#]*)", commands
    ):
        if name not in namespace.task_names:
            if "-" in name:
                yield name
            continue
        parameters = inspect.signature(namespace[name].body).parameters
        known = {parameter.strip("_").replace("_", "-") for parameter in parameters}
        for flag in re.findall(r"--([a-z][a-z-]*)", rest):
            if flag not in known and flag.removeprefix("no-") not in known:
                yield f"{name} --{flag}"


class Reader:
    """Somebody who reads a page and types what it says, in a folder of their own.

    ``programs`` is a folder of more programs that they have, ``more`` of their environment.

    Leaving the context without an error fails when a block of this page and place is left.
    """

    def __init__(
        self, page: str, place: Place, folder: Path, programs: Path | None = None, **more: str
    ) -> None:
        self._page, self._place = page, place
        self._left = blocks(page, place)
        self.folder = folder
        #: Whether commands are typed on a terminal.
        self.terminal = False
        folders = [Path(sys.prefix) / "bin", *([programs] if programs is not None else [])]
        path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
        self.environment = {**os.environ, **more, "PATH": path}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            assert not self._left, f"not executed: {', '.join(map(str, self._left))}"

    def skip_to(self, first: str) -> None:
        """Another way than those before ``first`` is gone. Others go those."""
        while self._left and self._left[0].commands[0] != first:
            self._left.pop(0)

    def starts_again(self) -> None:
        """Read the page from its beginning."""
        self._left = blocks(self._page, self._place)

    def types(self, first: str, *, keys: str = "", until: str = "", **placeholders: str) -> str:
        """Execute the next block, which begins with ``first``; what it printed.

        ``placeholders`` are the reader's own words for some of the page's. What the page shows as
        an answer must be there (… stands for anything). ``keys`` are what is typed to the commands
        themselves. With ``until`` they go on until a line of theirs matches; then comes Ctrl-C.
        """
        assert self._left, f"no block is left that could be {first!r}"
        block = self._left.pop(0)
        assert block.commands[0] == first, f"{block} comes first"
        for word, own in placeholders.items():
            assert word in block.text, f"{block}: {word!r}?"
            block = replace(block, text=block.text.replace(word, own))
        script = "\n".join(block.commands)
        printed = self._bash(f"{block}: {script}", script, keys, until)
        rest = iter(printed.splitlines())
        for answer in block.answers:
            pattern = ".*".join(map(re.escape, answer.split("…")))
            assert any(re.fullmatch(pattern, line) for line in rest), f"{answer!r}?\n{printed}"
        return printed

    def _bash(self, what: str, script: str, keys: str, until: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", script]
        if self.terminal:  # of util-linux
            command = ["script", "-qec", shlex.join(command), os.devnull]
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            seen: list[str] = []
            dead_man = threading.Timer(_LONGEST, os.killpg, (process.pid, signal.SIGKILL))
            dead_man.start()
            try:
                for line in process.stdout if until else ():
                    seen.append(line)
                    if re.search(until, line):
                        os.killpg(process.pid, signal.SIGINT)
                        break
                seen.append(process.communicate(keys)[0])
            finally:
                dead_man.cancel()
        printed = "".join(seen)
        if self.terminal:  # lines as they stand in the end
            printed = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", printed)
        assert process.returncode == 0, f"exit code {process.returncode} of {what}\n{printed}"
        return printed
