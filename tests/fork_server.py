"""A process that has imported the program, and forks for each run of it:
``python -m tests.fork_server SOCKET``, which :mod:`tests.forks` starts and asks.

Before a fork there are imports only. No function of the program is called, so a run finds every
module as one that has just been imported: no cache is filled, no thread runs, no channel is open.
What the imports read in the environment is noted, as a run with other values is not for this
process.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypedDict

ROOT = Path(__file__).parents[1]
PACKAGE = "provision"
#: Bytes of one message; the environment is the most of it.
LIMIT = 1 << 20
#: What the program sets before it imports the library that reads it.
BEFORE_IMPORTS = {"PYDANTIC_DISABLE_PLUGINS": "__all__", "GRPC_VERBOSITY": "NONE"}


class Run(TypedDict):
    """A request. With it come four open files: where its end is told, stdin, stdout and stderr."""

    module: str
    arguments: list[str]
    environment: dict[str, str]


class _Noting(os._Environ[str]):
    """The environment, which notes what it is asked for."""

    asked: ClassVar[set[str]] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return super().__getitem__(name)

    def __iter__(self) -> NoReturn:
        raise AssertionError("an import reads the whole environment")


def read_by_imports() -> set[str]:
    """Import the program. Returns the names that the imports read in the environment."""
    environment: Any = os.environ
    kind = type(environment)
    environment.__class__ = _Noting
    try:
        importlib.import_module("invoke.main")  # first, as `python -m invoke` does
        for name in _names():
            # Not each name of a package is a module, and what is imported for its types alone need
            # not be there.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    finally:
        environment.__class__ = kind
    return _Noting.asked


def _names() -> Iterator[str]:
    """The program's modules, and what they import, in functions, too."""
    for file in sorted((ROOT / PACKAGE).rglob("*.py")):
        yield ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (each.name for each in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{each.name}" for each in node.names)


def main(descriptor: int) -> None:
    """Serve until nobody is at the other end. In a forked process: run the program."""
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, and for the runs
    before = dict(os.environ)
    for name, value in BEFORE_IMPORTS.items():
        os.environ.setdefault(name, value)
    read = read_by_imports()
    gc.collect()
    gc.freeze()  # or the first collection of every run would copy all of it
    if len(os.listdir("/proc/self/task")) != 1:
        raise AssertionError("an import has started a thread, and a fork would not have it")
    control.send(json.dumps({name: before.get(name) for name in read}).encode())
    if (forked := _serve(control)) is not None:
        run, files = forked
        _become(run, files)
        runpy.run_module(run["module"], run_name="__main__", alter_sys=True)


def _serve(control: socket.socket) -> tuple[Run, Sequence[int]] | None:
    """None at the end; in a forked process its run, and its files."""
    runs: dict[int, tuple[int, socket.socket]] = {}
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    while True:
        for ready, _ in waiting.poll():
            if ready in runs:
                waiting.unregister(ready)
                os.close(ready)
                pid, told = runs.pop(ready)
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(OSError), told:  # nobody may wait for it
                    told.send(str(os.waitstatus_to_exitcode(status)).encode())
                continue
            message, files, _, _ = socket.recv_fds(control, LIMIT, 4)
            if not message:
                return None
            run: Run = json.loads(message)
            if (pid := os.fork()) == 0:
                return run, files
            process = os.pidfd_open(pid)
            told = socket.socket(fileno=files[0])
            socket.send_fds(told, [str(pid).encode()], [process])
            for file in files[1:]:
                os.close(file)
            runs[process] = pid, told
            waiting.register(process, select.POLLIN)


def _become(run: Run, files: Sequence[int]) -> None:
    """Be as an interpreter that has just started with this command."""
    for number, file in enumerate(files[1:]):
        os.dup2(file, number)
    for opened in os.listdir("/proc/self/fd"):
        if int(opened) > 2:
            with contextlib.suppress(OSError):  # that of the list itself
                os.close(int(opened))
    sys.stdin = sys.__stdin__ = _stream(0, sys.stdin)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _stream(1, sys.stdout)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, sys.stderr)  # type: ignore[misc]
    os.environ.clear()
    os.environ.update(run["environment"])
    sys.argv = ["-m", *run["arguments"]]
    sys.orig_argv = [sys.executable, "-m", run["module"], *run["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _stream(number: int, before: Any) -> TextIOWrapper:
    """As Python makes it when it starts (create_stdio in pylifecycle.c), in the same encoding."""
    buffer: Any = open(number, "rb" if number == 0 else "wb", closefd=False)  # noqa: SIM115
    buffer.raw.name = before.name
    made = TextIOWrapper(
        buffer,
        encoding=before.encoding,
        errors=before.errors,
        newline="\n",
        line_buffering=number == 2 or buffer.isatty(),
    )
    vars(made)["mode"] = "r" if number == 0 else "w"
    return made


if __name__ == "__main__":
    main(int(sys.argv[1]))
