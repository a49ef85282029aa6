"""Which libraries a command line imports: what it does not need costs every run its time.

Counted, not timed. bench/ has the times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Libraries whose import takes time, by their top-level names.
HEAVY = {"invoke", "fabric", "paramiko", "grpc", "etcd3", "pydantic", "cryptography", "jinja2"}
HEAVY |= {"rich", "ruamel", "yaml"}
_RUN = """
import contextlib, io, json, sys
sys.argv = ["alluxio-provision", *json.loads(sys.argv[1])]
from provision.cli.main import main
said = io.StringIO()
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
    main()
assert said.getvalue()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def imported(*words: str) -> set[str]:
    """The heavy libraries that a run of ``alluxio-provision`` imports."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(words)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.process
@pytest.mark.parametrize(
    "words", [(), ("help",), ("--help",), ("-h",), ("--version",), ("-V",)], ids=" ".join
)
def test_the_first_screen_and_the_version_need_none(words: tuple[str, ...]) -> None:
    assert imported(*words) == set()


@pytest.mark.process
@pytest.mark.parametrize("words", [("--list",), ("help", "workers"), ("help", "check-nodes")])
def test_help_needs_invoke_alone(words: tuple[str, ...]) -> None:
    assert imported(*words) <= {"invoke", "yaml"}  # Invoke's own configuration reads YAML
