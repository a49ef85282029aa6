"""What a worker keeps outside its release, and how it starts again."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.worker import desired, state, written
from provision.alluxio.worker.desired import Artifacts
from provision.host import safely
from provision.host.diff import Change, changes
from provision.host.predict import after
from provision.host.proof import Proof
from provision.host.resources import MARKER, Move, Tree
from provision.inventory.model import PageStore
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker
from provision.plans import destroy
from tests.unit import builders, hosts
from tests.unit.hosts import TARBALL

ARTIFACTS = Artifacts(TARBALL, None)
SOURCE, TARGET = "/opt/alluxio/313/metastore", "/var/lib/alluxio/worker_metastore"
SYSTEMCTL = "#!/bin/sh\necho systemctl $* >>$LOG\n"


def one(**changed: Any) -> tuple[AlluxioCluster, AlluxioWorker]:
    alluxio = builders.alluxio(builders.worker("w1")._replace(**changed))
    return alluxio, alluxio.workers[0]


def env_file(alluxio: AlluxioCluster, worker: AlluxioWorker) -> str:
    files = desired.conf_files(alluxio, worker, None, ARTIFACTS, None)
    return next(f.content or b"" for f in files if f.path.endswith("alluxio-env.sh")).decode()


class TestJavaOptions:
    def test_what_the_inventory_has_replaces_the_sizes_alone(self) -> None:
        given = "-Xmx9g -Djava.io.tmpdir=/ramdisk"
        text = env_file(*one(env={"ALLUXIO_WORKER_JAVA_OPTS": given}))
        (line,) = [t for t in text.splitlines() if "WORKER_JAVA_OPTS" in t]
        assert "-XX:+ExitOnOutOfMemoryError" in line
        assert "-Xms1g" not in line
        assert line.endswith(f"{given}'")  # the JVM takes the last of two

    def test_a_work_folder_of_the_operators_is_theirs(self) -> None:
        assert f"-D{state.WORK}=/var/lib/alluxio " in env_file(*one())
        assert state.WORK not in env_file(*one(properties={state.WORK: "/data"}))

    @pytest.mark.parametrize("variable", ["ALLUXIO_JAVA_OPTS", "ALLUXIO_WORKER_JAVA_OPTS"])
    def test_so_is_one_that_is_given_as_an_option(self, variable: str) -> None:
        """Ours would be behind it in the JVM's command line, and win."""
        text = env_file(*one(env={variable: f"-D{state.WORK}=/data"}))
        assert text.count(state.WORK) == 1
        assert f"-D{state.WORK}=/data" in text


class TestMove:
    """A worker of an earlier version of this tool has its metastore in the release's folder."""

    def test_where_there_is_one_the_worker_is_restarted_with_it(self) -> None:
        alluxio, worker = one()
        facts = hosts.facts(commands={"old-metastore": f"{SOURCE}\n"})
        there = after(desired.resources(alluxio, worker, ARTIFACTS, hosts.facts()), facts)
        there = replace(there, commands=facts.commands)
        todo = changes(desired.resources(alluxio, worker, ARTIFACTS, there), there)
        assert [c.what for c in todo] == [
            f"move {SOURCE} to {TARGET}, with alluxio-worker.service stopped",
            "restart alluxio-worker.service",
        ]
        moved = after(desired.resources(alluxio, worker, ARTIFACTS, there), there)
        assert moved.paths[TARGET].owner == "alluxio"
        assert changes(desired.resources(alluxio, worker, ARTIFACTS, moved), moved) == ()

    @pytest.mark.parametrize(
        "said", ["", "/etc/passwd", "/opt/alluxio/../metastore x", SOURCE + "/"]
    )
    def test_what_is_no_such_folder_is_let_be(self, said: str) -> None:
        alluxio, worker = one()
        facts = hosts.facts(commands={"old-metastore": said})
        assert state.moves(alluxio, worker, facts, desired.UNIT) == ()

    def test_one_that_the_operator_placed_is_let_be(self) -> None:
        facts = hosts.facts(commands={"old-metastore": SOURCE})
        option = {"ALLUXIO_JAVA_OPTS": f"-D{state.METASTORE}={SOURCE}"}
        for placed in (one(properties={state.METASTORE: SOURCE}), one(env=option)):
            assert state.moves(*placed, facts, desired.UNIT) == ()

    @pytest.mark.process
    def test_the_host_is_asked(self, tmp_path: Path) -> None:
        alluxio = replace(builders.alluxio(), install_dir=f"{tmp_path}")
        command = state.probe_commands(alluxio)["old-metastore"]
        assert subprocess.run(["sh", "-ec", command], capture_output=True).stdout == b""
        (tmp_path / "313/metastore/DoraMeta").mkdir(parents=True)
        (tmp_path / "current").symlink_to("313")
        found = subprocess.run(["sh", "-ec", command], capture_output=True, check=True, text=True)
        assert found.stdout == f"{tmp_path}/313/metastore\n"


@pytest.fixture
def systemctl(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell whose systemctl only notes what it is asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/systemctl").write_text(SYSTEMCTL)
    (tmp_path / "bin/systemctl").chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "LOG": f"{tmp_path}/log"}


def _move(root: Path) -> Move:
    source = root / "opt/1/metastore"
    (source / "DoraMeta").mkdir(parents=True)
    (source / "DoraMeta/CURRENT").write_text("x")
    (root / "var").mkdir()
    return Move(str(source), str(root / "var/worker_metastore"), hosts.ME, "w.service")


def _moved(root: Path) -> bool:
    return (root / "var/worker_metastore/DoraMeta/CURRENT").read_text() == "x"


@pytest.mark.process
def test_the_move_is_made_while_the_worker_is_stopped(
    systemctl: dict[str, str], tmp_path: Path
) -> None:
    move = _move(tmp_path)
    (change,) = changes([move], hosts.facts())
    for _ in range(2):  # and once more, as by a run that was killed after it
        subprocess.run(
            ["sh", "-ec", f"{safely.FUNCTIONS}\n{change.script}"], check=True, env=systemctl
        )
        assert _moved(tmp_path)
        assert not Path(move.source).exists()
    assert (tmp_path / "log").read_text() == "systemctl stop w.service\n"


@pytest.mark.process
@pytest.mark.parametrize("killed_at", ["chown", "mv", "cp", "rm"])
@pytest.mark.parametrize("same_disk", [True, False])
def test_a_move_that_is_killed_loses_nothing(
    killed_at: str, same_disk: bool, systemctl: dict[str, str], tmp_path: Path
) -> None:
    move = _move(tmp_path)
    (change,) = changes([move], hosts.facts())
    if not same_disk:
        disks = "".join(f"echo /dev/{disk} 9 9 9 9% /{disk}\n" for disk in ("a", "b"))
        (tmp_path / "bin/df").write_text(f"#!/bin/sh\necho title\n{disks}")
        (tmp_path / "bin/df").chmod(0o755)
    real = tmp_path / "bin" / killed_at
    # The group, which is the script's own: a shell may become its last command, whose parent is us.
    real.write_text(f'#!/bin/sh\n/bin/{killed_at} "$@"\nkill -KILL 0\n')
    real.chmod(0o755)
    subprocess.run(
        ["sh", "-ec", f"{safely.FUNCTIONS}\n{change.script}"],
        check=False,
        env=systemctl,
        start_new_session=True,
    )
    real.unlink()
    subprocess.run(["sh", "-ec", f"{safely.FUNCTIONS}\n{change.script}"], check=True, env=systemctl)
    assert _moved(tmp_path)


@pytest.mark.process
def test_it_is_taken_out_of_a_tree_that_is_replaced(
    systemctl: dict[str, str], tmp_path: Path
) -> None:
    """The old tree goes when the tarball has arrived, before the batch with the move."""
    move = _move(tmp_path)
    (tmp_path / "opt/1" / MARKER).write_text("of the tarball before")
    tarball = hosts.tarball(tmp_path)
    tree = Tree(str(tmp_path / "opt/1"), tarball, ("w.service",), (move,))
    command = hosts.below(tmp_path, tree.receive())
    body = tarball.path.read_bytes()
    subprocess.run(["sh", "-c", command], input=body, check=True, env=systemctl)
    assert (tmp_path / "opt/1/bin/tool").exists()
    assert _moved(tmp_path)


@pytest.mark.process
@pytest.mark.parametrize("runs", [True, False])
def test_nothing_is_stopped_before_the_new_programs_have_answered(
    runs: bool, systemctl: dict[str, str], tmp_path: Path
) -> None:
    """The new release and its Java are in their places before the batch with the move."""
    (tmp_path / "java").write_text("#!/bin/sh\n")
    (tmp_path / "java").chmod(0o755 if runs else 0o644)
    move = replace(_move(tmp_path), proofs=(Proof(str(tmp_path), "java", ("-version",), hosts.ME),))
    (change,) = changes([move], hosts.facts())
    run = ["sh", "-ec", f"{safely.FUNCTIONS}\n{change.script}"]
    done = subprocess.run(run, capture_output=True, env=systemctl, check=False)
    assert (done.returncode == 0) is runs
    assert (tmp_path / "log").exists() is runs
    if not runs:
        assert b"does not answer as user" in done.stderr
        assert Path(move.source).exists()


@pytest.mark.process
def test_a_tree_that_is_replaced_answers_before_its_worker_is_stopped(
    systemctl: dict[str, str], tmp_path: Path
) -> None:
    move = _move(tmp_path)
    (tmp_path / "opt/1" / MARKER).write_text("of the tarball before")
    tarball = hosts.tarball(tmp_path)
    proof = Proof(str(tmp_path / "opt/1"), "bin/launch-process-bash", (), hosts.ME)
    tree = Tree(str(tmp_path / "opt/1"), tarball, ("w.service",), (move,), proof=proof)
    command = hosts.below(tmp_path, tree.receive())
    body = tarball.path.read_bytes()
    done = subprocess.run(["sh", "-c", command], input=body, env=systemctl, capture_output=True)
    assert done.returncode != 0
    assert b"does not answer as user" in done.stderr  # the tarball has no such program
    assert not (tmp_path / "log").exists()
    assert Path(move.source).exists()


class TestPageStore:
    def _notes(self, said: str, *sizes: str) -> list[str]:
        store = PageStore(dirs=["/p1", "/p2"][: len(sizes)], sizes=list(sizes))
        alluxio, worker = one(page_store=store)
        facts = hosts.facts(commands={written.LABEL: said})
        return [p.what.partition(":")[0] for p in state.notes(alluxio, worker, facts)]

    def test_one_that_shrinks_is_named(self) -> None:
        said = f"{state.DIRS}=/p1,/p2\n{state.SIZES}=2GB,64MB\n"
        assert self._notes(said, "1024MB", "1GB") == ["page store /p1 shrinks from 2GB to 1024MB"]
        assert self._notes(said, "2048MB", "64MB") == []

    @pytest.mark.parametrize("said", ["", "x", f"{state.DIRS}=/p1\n{state.SIZES}=many\n"])
    def test_what_is_not_known_is_not_said(self, said: str) -> None:
        assert self._notes(said, "1GB") == []


def _pre_start(unit: str, which: str) -> str:
    """The script of the ``ExecStartPre`` that has ``which``, as systemd gives it to the shell."""
    joined = unit.replace("\\\n", " ")
    (line,) = [t for t in joined.splitlines() if t.startswith("ExecStartPre") and which in t]
    found = re.fullmatch(r"ExecStartPre=-\+?/bin/sh -c '(.*)'", line)
    assert found
    return found[1].replace("$$", "$").replace("%n", "w.service")


def _delay(
    restarts: int, begun: float, ended: float, tmp_path: Path, systemctl: dict[str, str]
) -> tuple[str, str]:
    """What it sleeps, and what else it asked systemd for."""
    unit = desired.service(builders.alluxio(), "worker", "w1", "/x").decode()
    answer = (
        f"NRestarts={restarts}\nActiveEnterTimestampMonotonic={round(begun * 1e6)}\n"
        f"Environment=a=b\nActiveExitTimestampMonotonic={round(ended * 1e6)}\n"
    )
    (tmp_path / "said").write_text(answer)
    (tmp_path / "bin/systemctl").write_text(f"{SYSTEMCTL}[ $1 != show ] || cat {tmp_path}/said\n")
    (tmp_path / "bin/sleep").write_text("#!/bin/sh\necho $1\n")
    (tmp_path / "bin/sleep").chmod(0o755)
    (tmp_path / "log").write_text("")
    script = _pre_start(unit, "NRestarts")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=systemctl)
    assert done.stderr == ""
    asked = (tmp_path / "log").read_text().replace("systemctl show w.service\n", "")
    return (done.stdout.splitlines() or ["0"])[-1], asked


class TestDelay:
    """Between a worker's end and its next start, beside ``RestartSec``."""

    @pytest.mark.process
    @pytest.mark.parametrize(
        ("restarts", "seconds"), [(0, "0"), (5, "0"), (6, "3"), (10, "15"), (24, "57"), (999, "57")]
    )
    def test_it_grows_to_a_minute(
        self, restarts: int, seconds: str, tmp_path: Path, systemctl: dict[str, str]
    ) -> None:
        assert _delay(restarts, 100, 130, tmp_path, systemctl) == (seconds, "")

    @pytest.mark.process
    def test_after_a_long_run_it_begins_again(
        self, tmp_path: Path, systemctl: dict[str, str]
    ) -> None:
        found = _delay(30, 100, 701, tmp_path, systemctl)
        assert found == ("0", "systemctl reset-failed w.service\n")

    def test_there_is_always_less_than_two_minutes_to_the_next_start(self) -> None:
        unit = desired.service(builders.alluxio(), "worker", "w1", "/x").decode()
        assert "StartLimitIntervalSec=0\n" in unit
        assert "RestartSec=3\n" in unit
        assert "TimeoutStartSec=117\n" in unit


@pytest.mark.process
def test_the_dumps_of_the_last_stops_stay(tmp_path: Path) -> None:
    alluxio = replace(builders.alluxio(), log_dir=str(tmp_path), state_dir=str(tmp_path / "s"))
    (tmp_path / "worker.log").touch()
    for n in range(25):
        for kind in ("metrics", "stacks"):
            dump = tmp_path / f"alluxio-worker-exit-{kind}-20240510-{n:06}.json"
            dump.touch()
            os.utime(dump, (n, n))
    (tmp_path / "alluxio-master-exit-metrics-1.json").touch()
    script = _pre_start(desired.service(alluxio, "worker", "w1", "/x").decode(), "metrics stacks")
    subprocess.run(["sh", "-c", script], check=True)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert len(left) == 2 + 2 * desired.KEPT_DUMPS
    assert {"worker.log", "alluxio-master-exit-metrics-1.json"} <= set(left)
    assert "alluxio-worker-exit-stacks-20240510-000024.json" in left


@pytest.mark.process
def test_the_folder_for_temporary_files_is_emptied(tmp_path: Path) -> None:
    alluxio = replace(builders.alluxio(), state_dir=str(tmp_path))
    script = _pre_start(desired.service(alluxio, "worker", "w1", "/x").decode(), "tmp/worker")
    for _ in range(2):
        subprocess.run(["sh", "-c", script], check=True)
        (tmp_path / "tmp/worker/sub").mkdir()
        (tmp_path / "tmp/worker/sub/lib.so").touch()
    subprocess.run(["sh", "-c", script], check=True)
    assert list((tmp_path / "tmp/worker").iterdir()) == []


def test_destroy_takes_it_away() -> None:
    alluxio, worker = one()
    gone, empty = destroy._worker_paths(alluxio, worker)
    assert {TARGET, "/var/lib/alluxio/tmp/worker"} <= set(gone)
    assert "/var/lib/alluxio" in empty
    assert destroy._service_folder(alluxio) == "/var/lib/alluxio/tmp"
    assert state.temp_dir(alluxio, "master") in destroy._master_paths(alluxio)


def test_a_start_that_systemd_has_put_off_is_made_at_once() -> None:
    alluxio, worker = one()
    there = after(desired.resources(alluxio, worker, ARTIFACTS, hosts.facts()), hosts.facts())

    def verbs(active: str, sub: str) -> list[Change]:
        unit = replace(there.unit(desired.UNIT), active=active, sub=sub)
        facts = replace(there, units={desired.UNIT: unit})
        return list(changes(desired.resources(alluxio, worker, ARTIFACTS, facts), facts))

    for sub in ("start-pre", "auto-restart"):
        (change,) = verbs("activating", sub)
        assert change.what == "restart alluxio-worker.service"
    (change,) = verbs("activating", "start")
    assert change.what == "start alluxio-worker.service"
