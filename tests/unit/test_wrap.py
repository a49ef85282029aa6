"""Lines on a narrow terminal: no word is broken, a command is whole, nothing is lost."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.cli.explain import pages
from provision.wrap import flowed, hanging, span, unbroken, wrapped

LONG = "x" * 90


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("  - aaa bbb ccc", ["  - aaa", "    bbb", "    ccc"]),
        (f"a {LONG} b", ["a", f"  {LONG}", "  b"]),
        ("run it: invoke deploy-etcd", ["run it:", "  invoke deploy-etcd"]),
        ("a alluxio-provision status b", ["a", "  alluxio-provision status", "  b"]),
        ("", [""]),
        (
            "(if so: ssh-keygen -R alpha -f /a/b, then invoke trust-hosts)",
            ["(if so:", "  ssh-keygen -R alpha -f /a/b,", "  then", "  invoke trust-hosts)"],
        ),
        (
            "run invoke restart-workers 'w[1-2]' -i a.yml; then chmod 600 /x y",
            [
                "run",
                "  invoke restart-workers 'w[1-2]' -i a.yml;",
                "  then",
                "  chmod 600 /x",
                "  y",
            ],
        ),
    ],
)
def test_hanging(text: str, lines: list[str]) -> None:
    assert hanging(text, 10) == lines


@given(st.text(st.sampled_from("ab é漢"), max_size=200), st.integers(1, 40))
def test_nothing_is_lost_and_no_word_is_broken(text: str, width: int) -> None:
    found = wrapped(text, width)
    assert " ".join(found).split() == text.split()
    for line in found:
        assert span(line) <= width or len(unbroken(line.strip())) == 1


def test_the_pages_of_errors() -> None:
    for page in pages():
        made = flowed(page.text, 80)
        assert made.split() == page.text.split(), page.id
        code = False
        for line in made.split("\n"):
            code ^= line.startswith("```")
            if not code and " " in line.strip():
                assert len(line) <= 80, f"{page.id}: {line}"


def _on_80_columns(*words: str, cwd: Path) -> list[str]:
    """The lines of stderr and stdout on a terminal of 80 columns."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80"}
    program = [sys.executable, "-c", "from provision.cli.main import main; main()", *words]
    with subprocess.Popen(
        program, stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=environment
    ) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                data = os.read(master, 1 << 16)
            except OSError:
                break
            seen += data
        process.wait(30)
    os.close(master)
    return seen.decode().replace("\r", "").splitlines()


@pytest.mark.process
@pytest.mark.parametrize(
    "words",
    [
        ("explain", "tarball-unfit"),
        ("show-inventory", "--inventory", "wrong.yml"),
        ("deploy-etcd", "--exit-code", "--inventory", "wrong.yml"),
        ("init-inventory", "--etcd", "a b", "--java", "x", "--etcd-tarball", "none.tar.gz"),
    ],
)
def test_on_a_terminal_of_80_columns(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "wrong.yml").write_text(
        "etcd: {version: 3.5.1, source: {path: x}, members: {a: {host: h, adress: x}}}\n"
        "alluxio: {version: 313, workers: {a: {host: h, properties: {alluxio.cluster.name: x}}}}\n"
    )
    lines = _on_80_columns(*words, cwd=tmp_path)
    assert len(lines) > 1
    assert [line for line in lines if len(line) > 80 and " " in line.strip()] == []
