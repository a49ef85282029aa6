"""The version of the tool that last changed a host: written, read, compared, refused, removed."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoke.context import Context

import provision
from provision.cli.command import command
from provision.cli.run import Run
from provision.cli.tasks import common, data
from provision.engine.plan import Plan
from provision.errors import PreflightFailed, Problem
from provision.host import former_owner, gather, tool_version
from provision.host.diff import Change, batch, questions
from provision.host.facts import HostFacts, Probe, parse, script
from provision.host.resources import Tree
from provision.host.tool_version import release
from provision.inventory.resolved import Machine
from provision.plans.destroy import forget_version
from provision.ssh.session import whole
from tests.unit import builders, hosts
from tests.unit.hosts import LocalFleet, facts, shell

SHELLS = [("dash",), ("bash", "--posix")]
A, B, C = Machine("a"), Machine("b"), Machine("c")
OWN = provision.__version__
#: Release numbers that no version has reached.
NEWER, NEWEST = "99.0.0", "99.1.0"
UNITS = ("one.service", "two.service")


def stored(root: Path) -> Path:
    """The file of a host that is this folder."""
    return root / ".version" / "tool-version"


def put(root: Path, content: bytes | str) -> None:
    stored(root).parent.mkdir(parents=True, exist_ok=True)
    stored(root).write_bytes(content.encode() if isinstance(content, str) else content)


def read(root: Path, sh: tuple[str, ...] = ("sh",)) -> HostFacts:
    text = hosts.below(root, script(Probe()))
    return parse(hosts.run(whole(text).encode(), root, sh=sh), "here")


def says(content: str) -> HostFacts:
    return facts(values={tool_version.FACT: content} if content else {})


class TestRelease:
    def test_this_tool_has_one(self) -> None:
        assert release(OWN)

    @pytest.mark.parametrize(
        ("text", "numbers"),
        [
            ("0.1.0", (0, 1)),
            ("0.2", (0, 2)),
            ("1", (1,)),
            ("0.10.3", (0, 10, 3)),
            ("1.2.3.4", (1, 2, 3, 4)),
            ("0.2.0rc1", (0, 2)),
            ("0.2.0.dev3", (0, 2)),
            ("0.2.0-beta.1", (0, 2)),
            ("0.2.0+local.1", (0, 2)),
            ("0.2.1rc1+local", (0, 2, 1)),
            ("0.0.0", ()),
        ],
    )
    def test_its_numbers(self, text: str, numbers: tuple[int, ...]) -> None:
        assert release(text) == numbers

    @pytest.mark.parametrize(
        "text",
        [
            *("", " ", "x", "v0.2.0", "1..2", "1.", ".1", "1.2.3.4.5", "0.2.0\n", "0.2.0 x", "-1"),
            *("9999999.0", "1" * 5000, "²", "٣.٢", "0.2.0\x00", "$(id)", "0.2.0" + "a" * 60),
        ],
    )
    def test_what_is_none(self, text: str) -> None:
        assert release(text) is None

    def test_their_order(self) -> None:
        ordered = ["0.0.1", "0.1.0", "0.1.1", "0.2.0", "0.9.9", "0.10.0", "1.0", "1.0.0.1", "2"]
        found = [release(text) for text in ordered]
        assert None not in found
        assert all(a < b for a, b in itertools.pairwise(f for f in found if f is not None))

    @given(st.text(max_size=100))
    def test_any_content(self, text: str) -> None:
        found = release(text)
        assert found is None or all(number >= 0 for number in found)


class TestWritten:
    @pytest.mark.process
    def test_by_a_batch_once(self, tmp_path: Path) -> None:
        assert shell(batch([Change("a", "echo made >made")]), tmp_path).ok
        file = stored(tmp_path)
        assert file.read_text() == f"{OWN}\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o755
        assert {p.name for p in file.parent.iterdir()} == {"tool-version", "former-owner"}
        before = file.stat()
        assert shell(batch([Change("a", "echo made >made")]), tmp_path).ok
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert read(tmp_path).values[tool_version.FACT] == OWN

    @pytest.mark.process
    def test_before_a_change_that_fails(self, tmp_path: Path) -> None:
        assert not shell(batch([Change("a", "exit 1")]), tmp_path).ok
        assert stored(tmp_path).read_text() == f"{OWN}\n"

    @pytest.mark.process
    def test_by_an_upload(self, tmp_path: Path) -> None:
        tree = Tree(f"{tmp_path}/opt/1", hosts.tarball(tmp_path))
        fleet = LocalFleet(tmp_path)
        with tree.artifact.path.open("rb") as body:
            assert fleet.session(A).feed(tree.receive(), body, "upload").ok
        assert (tmp_path / "opt/1/bin/tool").exists()
        assert stored(tmp_path / "a").read_text() == f"{OWN}\n"

    @pytest.mark.process
    def test_by_a_question_which_may_make_a_key(self, tmp_path: Path) -> None:
        script = questions([Change("a", ask="echo yes", answer=str)])
        result = shell(f"umask 0\n{script}", tmp_path)
        assert result.stdout == "yes\n@@answered 0\n"
        assert stored(tmp_path).read_text() == f"{OWN}\n"
        assert stat.S_IMODE(stored(tmp_path).stat().st_mode) == 0o644
        assert stat.S_IMODE(stored(tmp_path).parent.stat().st_mode) == 0o755
        assert questions([Change("a", "true")]) == ""

    @pytest.mark.process
    @pytest.mark.parametrize("content", ["0.0.9\n", "nonsense", "\x00\xff", f"{OWN}0\n", ""])
    def test_over_what_was_there(self, content: str, tmp_path: Path) -> None:
        put(tmp_path, content)
        assert shell(batch([Change("a", "true")]), tmp_path).ok
        assert stored(tmp_path).read_text() == f"{OWN}\n"

    @pytest.mark.process
    def test_a_host_on_which_it_cannot_be_written_is_changed_nevertheless(
        self, tmp_path: Path
    ) -> None:
        """A full disk, for example: what frees it must run."""
        (tmp_path / ".version").write_text("in the way")
        result = shell(batch([Change("a", "echo made >made")]), tmp_path)
        assert result.ok, result.stderr
        assert result.stderr == ""
        assert (tmp_path / "made").exists()

    @pytest.mark.process
    def test_a_look_writes_nothing(self, tmp_path: Path) -> None:
        assert tool_version.FACT not in read(tmp_path).values
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sh", SHELLS, ids=lambda s: s[0])
class TestRead:
    @pytest.fixture(autouse=True)
    def _shell(self, sh: tuple[str, ...]) -> None:
        if shutil.which(sh[0]) is None:
            pytest.skip(f"no {sh[0]} here")

    @pytest.mark.process
    def test_the_version(self, sh: tuple[str, ...], tmp_path: Path) -> None:
        put(tmp_path, f"{NEWER}\n")
        assert read(tmp_path, sh).values[tool_version.FACT] == NEWER
        put(tmp_path, NEWER)  # a line without its end
        assert read(tmp_path, sh).values[tool_version.FACT] == NEWER

    @pytest.mark.process
    @pytest.mark.parametrize(
        "content",
        [
            *(b"x" * 1_000_000, b"\x1b[2J\x1b]0;x\x07\n", b"\xff\xfe\x00\n", "٣.٢\n".encode()),
            *(b"99.0.0\nfact uid=5\n@@end\n", b"%s%n$(touch x)`touch x`\n", b"\\x41\n"),
        ],
    )
    def test_what_is_no_version_does_no_harm(
        self, sh: tuple[str, ...], content: bytes, tmp_path: Path
    ) -> None:
        put(tmp_path, content)
        seen = read(tmp_path, sh)
        assert seen.values["uid"] == str(os.getuid())
        assert len(seen.values.get(tool_version.FACT, "")) <= 64
        assert seen.values.get(tool_version.FACT, "").isprintable()
        assert not (tmp_path / "x").exists()

    @pytest.mark.process
    def test_what_is_no_file(self, sh: tuple[str, ...], tmp_path: Path) -> None:
        stored(tmp_path).parent.mkdir()
        os.mkfifo(stored(tmp_path))  # nobody writes into it: to open it would wait
        assert tool_version.FACT not in read(tmp_path, sh).values
        stored(tmp_path).unlink()
        stored(tmp_path).mkdir()
        assert tool_version.FACT not in read(tmp_path, sh).values


class TestCompared:
    def test_hosts_by_version(self) -> None:
        seen = {
            "a": says(NEWER),
            "b": says(""),
            "c": says(NEWEST),
            "d": says(NEWER),
            "e": says(OWN),
            "f": says("0.0.1"),
            "g": says("nonsense"),
        }
        first, second = tool_version.newer(seen)
        assert str(first) == (
            f"a, d: last changed by version {NEWER} of this tool; this is version {OWN} "
            f"(install version {NEWER} or later on this machine, then run again)"
        )
        assert (second.where, second.severity, second.id) == ("c", "error", "tool-too-old")
        (odd,) = tool_version.unknown(seen)
        assert (odd.where, odd.severity, odd.id) == ("g", "warning", "tool-version-unknown")
        assert "'nonsense'" in odd.what

    def test_of_many_hosts_some_are_named(self) -> None:
        (line,) = tool_version.newer({f"h{n}": says(NEWER) for n in range(tool_version.NAMED + 3)})
        assert line.where.endswith("h29 and 3 more")

    def test_a_hostile_content_is_cut_and_printable(self) -> None:
        (line,) = tool_version.unknown({"a": says("\x1b[2J" + "x" * 5000)})
        assert len(line.what) < 200
        assert line.what.isprintable()

    @pytest.mark.parametrize(
        ("own", "refused"),
        [("0.1.0", True), ("0.2.0", False), ("0.2.0rc1", False), ("0.10.0", False)],
    )
    def test_with_the_version_that_runs(
        self, own: str, refused: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tool_version, "__version__", own)
        assert bool(tool_version.newer({"a": says("0.2.0")})) is refused


def test_what_0_1_0_left_is_read_and_1_0_0_bars_it(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"a": says("0.1.0")}
    assert (tool_version.newer(left), tool_version.unknown(left)) == ([], [])
    monkeypatch.setattr(tool_version, "__version__", "0.1.0")
    (line,) = tool_version.newer({"a": says("1.0.0")})
    assert line.remedy == "install version 1.0.0 or later on this machine, then run again"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalFleet]:
    fleet = LocalFleet(tmp_path)
    for name, content in {"a": NEWER, "b": OWN, "c": NEWER}.items():
        (tmp_path / name).mkdir()
        put(tmp_path / name, f"{content}\n")
    yield fleet
    fleet.close()


def every(*machines: Machine) -> Mapping[Machine, Probe]:
    return {machine: Probe() for machine in machines}


class TestRefused:
    @pytest.mark.process
    def test_all_hosts_at_once(self, fleet: LocalFleet) -> None:
        fleet.changes = True
        for looking in (gather.gather_facts, gather.require_facts):
            with pytest.raises(PreflightFailed) as refused:
                looking(fleet, every(A, B, C))
            (problem,) = refused.value.problems
            assert (problem.where, problem.severity) == ("a, c", "error")
            assert problem.id == refused.value.id == "tool-too-old"
            assert refused.value.exit_code == 3
        assert gather.require_facts(fleet, every(B)).keys() == {B}

    @pytest.mark.process
    def test_beside_the_hosts_that_cannot_be_asked(self, fleet: LocalFleet, tmp_path: Path) -> None:
        fleet.changes = True
        shutil.rmtree(tmp_path / "b")
        (tmp_path / "b").mkdir()
        fleet.session(B).run = _nothing  # type: ignore[method-assign]
        with pytest.raises(PreflightFailed) as refused:
            gather.require_facts(fleet, every(A, B))
        assert refused.value.id == "preflight-failed"
        assert [p.id for p in refused.value.problems] == ["tool-too-old", "host-output-unreadable"]

    @pytest.mark.process
    def test_not_in_a_command_that_only_looks(self, fleet: LocalFleet) -> None:
        assert gather.require_facts(fleet, every(A, B, C)).keys() == {A, B, C}


@pytest.mark.parametrize("changes", [True, False])
def test_the_fleet_of_a_command_knows_whether_it_changes_something(
    changes: bool, tmp_path: Path
) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(
        "cluster: c\netcd:\n  version: 3.6.16\n  source: {package: true}\n"
        "  members: {infra0: {host: infra0.example.com}}\n"
    )
    run = Run("a-command", path, changes=changes)
    assert run.fleet.changes is changes
    run.close()


def _nothing(*_: object, **__: object) -> Any:
    from provision.ssh.session import Result

    return Result(1, "", "no such shell", 0.0)


class TestCommands:
    @pytest.fixture(autouse=True)
    def _inventory(self, monkeypatch: pytest.MonkeyPatch, fleet: LocalFleet) -> None:
        monkeypatch.setattr(Run, "fleet", property(lambda run: run._fleet))
        self.fleet = fleet

    def run(self, changes: bool, *machines: Machine, **options: Any) -> Run:
        """A command that looks at ``machines`` and ends."""
        runs: list[Run] = []

        def body(run: Run) -> int:
            runs.append(run)
            self.fleet.changes = run.changes
            run._fleet = self.fleet
            gather.gather_facts(run.fleet, every(*machines))
            return 0

        given = {"inventory": "", "format": "table", "verbose": False, "stats": False}
        given |= {"traceback": False}
        given |= {"dry_run": True, "exit_code": False} if changes else {}
        command(changes=changes)(body).body(Context(), **{**given, **options})
        return runs[0]

    @pytest.mark.process
    def test_a_look_warns_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        run = self.run(False, A, B, C)
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.splitlines() == [
            f"warning: a, c: last changed by version {NEWER} of this tool; this is version {OWN} "
            f"(install version {NEWER} or later on this machine, then run again) [tool-too-old]"
        ]
        assert run.version_notes() == []

    @pytest.mark.process
    def test_a_change_is_refused_also_in_a_dry_run(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from invoke.exceptions import Exit

        with pytest.raises(Exit) as ended:
            self.run(True, A, B, C)
        assert ended.value.code == 3
        error, line = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: this version of the tool, {OWN}, is older")
        assert line.startswith(f"  - a, c: last changed by version {NEWER}")
        assert line.endswith("[tool-too-old]")

    @pytest.mark.process
    def test_a_change_of_hosts_of_this_version_says_nothing(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.run(True, B)
        assert capsys.readouterr() == ("", "")

    @pytest.mark.process
    def test_a_change_warns_about_a_content_that_is_no_version_before_the_plan(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        put(tmp_path / "b", "nonsense\n")
        run = Run("deploy-etcd", changes=True)
        run._fleet = self.fleet
        gather.gather_facts(self.fleet, every(B))
        common.carry_out(run, Plan("deploy-etcd", "c", notes=(_note(),)))
        first, second = capsys.readouterr().err.splitlines()
        assert first.startswith("warning: b: ")
        assert first.endswith("[tool-version-unknown]")
        assert "a note" in second

    @pytest.mark.process
    def test_workers_are_looked_at_before_etcd_is_restored(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Else it would stop after etcd, before the workers."""
        workers = [builders.worker(f"w{m.host}", m.host) for m in (A, B, C)]
        inventory = builders.inventory(builders.alluxio(*workers))
        monkeypatch.setattr(common, "load_own_etcd", lambda _: inventory)
        self.fleet.changes = True
        for restores, of in ((data.restore_etcd, "file"), (data.recover_etcd, "infra1")):
            run = Run("restore-etcd", changes=True)
            run._fleet = self.fleet
            with pytest.raises(PreflightFailed) as refused:
                restores.act(run, of)
            assert [str(p.where) for p in refused.value.problems] == ["a, c"]

    def test_data_that_was_kept_aside_can_be_listed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from provision.errors import UsageError

        def stop(run: Run) -> Any:
            raise UsageError(str(run.changes), id="option-invalid")

        monkeypatch.setattr(common, "load", stop)
        for delete, changes in {"": "False", "etcd0": "True"}.items():
            with pytest.raises(UsageError, match=changes):
                data.kept_data.act(Run("kept-data", changes=True), delete, "")


def _note() -> Problem:
    return Problem("x", "a note", "", "warning", id="restart-pending")


class TestForgotten:
    def forget(self, root: Path) -> None:
        units = [f"{root}/{name}" for name in UNITS]
        assert shell(tool_version.forget(units), root).ok

    @pytest.mark.process
    def test_with_the_last_unit(self, tmp_path: Path) -> None:
        put(tmp_path, OWN)
        (tmp_path / UNITS[0]).write_text("[Unit]\nDescription=of somebody\n")
        self.forget(tmp_path)
        assert not stored(tmp_path).parent.exists()
        self.forget(tmp_path)

    @pytest.mark.process
    def test_not_while_another_unit_of_this_tool_is_there(self, tmp_path: Path) -> None:
        put(tmp_path, OWN)
        (tmp_path / UNITS[1]).write_text("[Unit]\nX-Alluxio-Provision-Cluster=other\n")
        self.forget(tmp_path)
        assert stored(tmp_path).read_text() == OWN

    def test_by_the_last_change_of_a_removal_before_its_unit(self) -> None:
        path = "/etc/systemd/system/etcd.service"
        todo = (Change("stop", "systemctl stop etcd"), Change("delete", f"rm -f {path}"))
        first, last = forget_version(todo, path)
        assert first is todo[0]
        script = last.script
        given_back, forgotten = (script[: script.index(f"rm -f {tool_version.FILE}")], script)
        assert former_owner.give_back_rest(["a.service"]).splitlines()[1] in given_back
        checked, removed, *_, unit = forgotten[given_back.rindex("if ! grep") :].splitlines()
        assert "alluxio-worker.service" in checked
        assert "alluxio-master.service" in checked
        assert path not in checked
        assert tool_version.FILE in removed
        assert unit == f"rm -f {path}"
        assert forget_version((), path) == ()
