"""A user of the installed program reads its name before every task; a user of Invoke, Invoke's."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision import program_in_use, terminal
from provision.cli import console
from provision.cli.commands import namespace
from provision.cli.debug import Recording
from provision.cli.explain import pages
from provision.cli.first_screen import NAME
from provision.cli.run import Run
from provision.cli.tasks import cluster, common
from provision.engine.plan import Gate, HostChanges, Plan, Step
from provision.errors import Problem
from provision.host.diff import Change
from provision.inventory import EXAMPLE
from provision.inventory.resolved import Machine
from tests import named_commands
from tests.unit.test_check import LIVE, report

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "provision"
PROGRAMS = {
    "alluxio-provision": "from provision.cli.main import main; main()",
    "invoke": "from invoke.main import program; program.run()",
}
#: A command of Invoke's, as the texts of the code name it.
_AFTER = "|".join((*namespace.task_names, "--help", "--list"))
INVOKE = re.compile(rf"\binvoke\s+(?:{_AFTER})\b")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as the installed program."""
    monkeypatch.setattr(program_in_use, "_in_use", None)
    program_in_use.start(NAME, namespace.task_names)


def run(program: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", PROGRAMS[program], *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize("program", PROGRAMS)
class TestAProcess:
    @pytest.mark.process
    def test_an_error_with_its_remedy(self, program: str) -> None:
        done = run(program, "deploy-etcd", "--inventory", "no.yml", "--format", "json")
        remedy = f"write one: {program} init-inventory no.yml"
        assert f"({remedy}) [inventory-missing]\n" in done.stderr
        assert json.loads(done.stdout)["problems"][0]["remedy"] == remedy

    @pytest.mark.process
    def test_a_page_of_explain(self, program: str) -> None:
        done = run(program, "explain", "host-unreachable")
        assert f"$ {program} export-ssh-config > " in done.stdout
        assert f"`{program} replace-member NAME`" in done.stdout
        documents = json.loads(run(program, "explain", "all", "--format", "json").stdout)["pages"]
        texts = "\n".join(p["text"] for p in documents)
        assert f"\n$ {program} rotate-certs --ca\n" in texts
        assert f"`{program} --help TASK`" in texts
        assert bool(INVOKE.search(texts)) == (program == "invoke")

    @pytest.mark.process
    def test_what_is_written_here_for_the_user(self, program: str, tmp_path: Path) -> None:
        made = tmp_path / "new.yml"
        done = run(program, "init-inventory", str(made))
        assert done.stdout.endswith(f"then {program} show-inventory --inventory {made}\n")
        assert f"#   {program} show-inventory  " in made.read_text()
        assert (made.read_text() == EXAMPLE) == (program == "invoke")
        (tmp_path / "hosts").write_text("[etcd]\na\n")
        other = tmp_path / "other.yml"
        done = run(program, "import-ansible", str(tmp_path / "hosts"), "--to", str(other))
        assert f"then {program} show-inventory" in done.stdout
        assert f"`{program} init-inventory FILE`" in other.read_text()

    @pytest.mark.process
    def test_the_bundle_of_debug(self, program: str, tmp_path: Path) -> None:
        file = tmp_path / "bundle.tar.gz"
        run(program, "status", "--inventory", "no.yml", "--debug", str(file))
        with tarfile.open(file) as tar:
            for name in ("debug/run.json", "debug/stderr.txt"):
                content = tar.extractfile(name)
                assert content is not None
                assert f"{program} init-inventory" in content.read().decode(), name


@pytest.mark.process
def test_help_names_the_program_in_use(tmp_path: Path) -> None:
    """Of a task whose help names a command, which none does now."""
    code = (
        "from provision.cli.commands import namespace; t = namespace['status'];"
        "t.__doc__ = 'See `invoke check-nodes`.'; t.help['limit'] = 'as invoke logs does';"
    )
    for options in (["--help", "status"], ["--list"], ["help", "status"]):
        line = [sys.executable, "-c", code + PROGRAMS["alluxio-provision"], *options]
        said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
        assert "`alluxio-provision check-nodes`" in said, options
        assert ("alluxio-provision logs" in " ".join(said.split())) == ("status" in options)
        assert not INVOKE.search(said), options


def test_the_help_of_no_task_names_another_program() -> None:
    for name in namespace.task_names:
        task = namespace[name]
        assert not INVOKE.search(f"{task.__doc__} {task.help}"), name


SCRIPT = "--- etcd-backup\n+++ etcd-backup\n+fail: invoke check-nodes says why"
NOTE = Problem("infra0", "is odd", "run invoke deploy-etcd again", "warning", id="deploy-first")
STEP = Step(
    "wait for invoke status",
    (HostChanges("infra0", Machine("a"), (Change("after invoke logs", "true", SCRIPT),)),),
    after=Gate("invoke check-nodes is content", lambda: None),
)
PLAN = Plan("add-member", "c", (STEP,), notes=(NOTE,))


def rehearsed(capsys: pytest.CaptureFixture[str], format: str) -> tuple[str, str]:
    rehearsal = Run("deploy-etcd", format=format, dry_run=True)
    common.finish(rehearsal, PLAN, common.carry_out(rehearsal, PLAN), line="then invoke logs")
    seen = capsys.readouterr()
    return seen.out, seen.err


@pytest.mark.usefixtures("installed")
@pytest.mark.usefixtures("unguarded")
class TestAPlan:
    def test_on_the_screen(self, capsys: pytest.CaptureFixture[str]) -> None:
        out, err = rehearsed(capsys, "table")
        assert "(run alluxio-provision deploy-etcd again) [deploy-first]\n" in err
        assert "wait for alluxio-provision status" in out
        assert "then: alluxio-provision check-nodes is content" in out
        assert "* after alluxio-provision logs" in out

    def test_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        document = json.loads(rehearsed(capsys, "json")[0])
        assert document["notes"][0]["remedy"] == "run alluxio-provision deploy-etcd again"
        assert document["steps"][0]["title"] == "wait for alluxio-provision status"

    def test_a_diff_is_as_the_file_on_the_host(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Two operators with two programs give a host the same script."""
        assert "+fail: invoke check-nodes says why" in rehearsed(capsys, "table")[0]
        change = json.loads(rehearsed(capsys, "json")[0])["steps"][0]["hosts"][0]["changes"][0]
        assert change == {"what": "after alluxio-provision logs", "diff": SCRIPT}

    @pytest.mark.process
    def test_in_the_bundle_of_debug(self, tmp_path: Path) -> None:
        recording = Recording(tmp_path / "bundle.tar.gz")
        made = recording._files(Run("deploy-etcd", plans=[PLAN]), 0)["plan.json"]
        assert "run alluxio-provision deploy-etcd again" in made
        assert json.dumps(SCRIPT) in made

    def test_its_progress(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = console.Progress()
        progress.step(1, 1, STEP)
        assert STEP.after is not None
        progress.gate(STEP.after)
        said = capsys.readouterr().err
        assert "wait for alluxio-provision status" in said
        assert "waiting: alluxio-provision check-nodes" in said


@pytest.mark.usefixtures("installed")
def test_the_report_of_check_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = "not installed yet: run invoke start-workers"
    seen = report(LIVE._replace(notes=(note,)), view_problems=(NOTE,))
    assert len(INVOKE.findall(str(seen.document()))) == 2
    page = tmp_path / "page.html"
    file = tmp_path / "report.json"
    for format, output in (("table", ""), ("json", ""), ("json", str(file)), ("prometheus", "")):
        cluster._show_check(Run("check-nodes", format=format), seen, output, str(page))
    terminal.emit_json_line(seen.document())
    for said in (capsys.readouterr().out, file.read_text(), page.read_text()):
        assert "run alluxio-provision start-workers" in said
        assert "run alluxio-provision deploy-etcd again" in said
        assert not INVOKE.search(said)


@pytest.mark.long
def test_every_command_of_a_text_is_rendered(installed: None) -> None:
    texts = [t for some in named_commands.error_texts().values() for t in some]
    texts += [p.text for p in pages()]
    assert sum(bool(INVOKE.search(text)) for text in texts) > 150
    for text in texts:
        assert not INVOKE.search(program_in_use.rendered(text)), text


@pytest.mark.parametrize(
    "text",
    [
        "an option of Invoke itself; invoke.yaml",
        "invoke deploy-etcd-like, invoke --dry, invoke x, reinvoke status",
        "/srv/x/.venv/bin/invoke status",
        "python -m invoke status",
    ],
)
def test_other_words_stay(installed: None, text: str) -> None:
    assert program_in_use.rendered(text) == text


@pytest.mark.parametrize("under", ["diff", "lines", "value", "values", "files", "config"])
def test_what_a_document_quotes_stays(installed: None, under: str) -> None:
    document = {under: ["invoke status", {"x": "invoke status"}], "what": ("invoke status",)}
    rendered = program_in_use.rendered_document(document)
    assert rendered == {under: document[under], "what": ["alluxio-provision status"]}


#: Where text may leave other than by provision.terminal, by module and function, and why.
OTHER_WAYS = {
    ("check_nodes/table.py", "check"): "made of terminal.text",
    ("check_nodes/table.py", "watch"): "made of terminal.text",
    ("cli/command.py", "perform"): "names no command",
    ("cli/complete.py", "main"): "names of an inventory",
    ("cli/console.py", "plan"): "made of terminal.text",
    ("cli/debug.py", "write"): "names no command",
    ("cli/moving.py", "_show"): "made of terminal.line",
    ("cli/main.py", "main"): "the first screen, which names the program itself",
    ("cli/program.py", "parse_core"): "a script for a shell",
    ("cli/run.py", "_say_call"): "names no command",
    ("cli/run.py", "_say_stats"): "names no command",
    ("cli/tasks/cluster.py", "_put"): "rendered by its caller",
    ("cli/tasks/cluster.py", "logs"): "a log of a host",
    ("cli/tasks/cluster.py", "show_status"): "made of terminal.line",
    ("cli/tasks/files.py", "export_ssh_config"): "a file for other programs",
    ("cli/tasks/files.py", "render_client_config"): "a file for other hosts",
    ("cli/tasks/files.py", "render_helm"): "a file for other programs",
    ("cli/tasks/hosts.py", "_show"): "made of terminal.line",
    ("engine/audit.py", "note"): "names no command",
    ("inventory/example.py", "<module>"): "makes a file of the repository",
    ("inventory/schema.py", "<module>"): "makes a file of the repository",
    ("tables.py", "show"): "made of terminal.line",
}


@pytest.mark.long
def test_text_leaves_by_the_terminal_or_says_why() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), function)
        for path in PACKAGE.rglob("*.py")
        if path.name != "terminal.py"
        for function, call in _calls(ast.parse(path.read_text(encoding="utf-8")))
        if re.match(r"(?:.*\.)?print$|sys\.std(?:out|err)\.write", ast.unparse(call.func))
    }
    assert found == set(OTHER_WAYS)


def _calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    inside: dict[int, str] = {}
    for function in ast.walk(tree):  # the innermost comes last
        if isinstance(function, ast.FunctionDef):
            inside.update((id(node), function.name) for node in ast.walk(function))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield inside.get(id(node), "<module>"), node


def test_nothing_else_depends_on_the_program_in_use() -> None:
    """Files on hosts, and the audit lines, must not."""
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "program_in_use import" in (text := path.read_text(encoding="utf-8"))
        or "import program_in_use" in text
    }
    cli = {f"cli/{name}.py" for name in ("debug", "main", "program", "tasks/cluster")}
    assert users == {"terminal.py", "inventory/example.py", *cli}


def test_a_text_over_two_lines(installed: None) -> None:
    assert program_in_use.rendered("run invoke\n  status") == "run alluxio-provision\n  status"


def test_the_terminal_shows_no_control_characters(
    installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    terminal.say("invoke status\x1b[2J")
    assert out.getvalue() == "alluxio-provision status\ufffd[2J\n"


def test_a_file_on_a_host_names_a_task_alone() -> None:
    """It is the same whoever applies it, so it names neither program."""
    for path in (ROOT / "templates").glob("*.j2"):
        assert not INVOKE.search(path.read_text(encoding="utf-8")), path.name
