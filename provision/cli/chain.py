"""The tasks of one command line, before the first of them runs.

Invoke has options of its own before the task. Some look like a rehearsal, and none reaches this
tool's SSH connections. Here each option applies to every task, or is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from invoke.exceptions import Exit
from invoke.executor import Executor as InvokeExecutor
from invoke.tasks import Call

from provision.cli.command import EARLIER, Command
from provision.cli.usage import refused
from provision.errors import UsageError

#: Invoke's options without an effect on this tool's tasks, and what to use instead.
WITHOUT_EFFECT = {
    "command-timeout": "ssh.connect_timeout of the inventory bounds what a host may take",
    "config": "the inventory configures this tool; --format goes behind the task",
    "echo": "--verbose behind the task shows every remote command",
    "hide": "redirect the output instead",
    "prompt-for-sudo-password": "ssh.sudo_password of the inventory says where the password is",
    "pty": "no command of a task uses a terminal",
    "warn-only": "a failure on a host always ends the task",
}

#: The options that Invoke uses before it runs a task: it asks for a password, or reads a file.
_AT_ONCE = ("-f", "--config")
_PASSWORD = "prompt-for-sudo-password"


def refuse_at_once(words: Sequence[str], tasks: Iterable[str]) -> None:
    """For ``tasks.py``, while Invoke loads it: as :meth:`Executor.normalize`, but earlier.

    ``words`` is the command line after the program's name. From the first of ``tasks`` on, -f is an
    option of this tool.
    """
    names = set(tasks)
    if f"--{_PASSWORD}" in words:  # Ctrl-C at its prompt would leave the terminal without echo
        raise _without_effect(_PASSWORD, words)
    for word in words:
        if word in names:
            return
        flag = word.partition("=")[0] if word.startswith("--") else word[:2]
        if flag in _AT_ONCE:
            raise _without_effect("config", words)


class Executor(InvokeExecutor):
    """Invoke's executor: if one task in a chain is a rehearsal, the whole chain is a rehearsal.

    ``invoke.yaml`` names it for plain Invoke (its setting ``tasks.executor_class``).
    """

    def normalize(self, tasks: Any) -> list[Call]:
        """The calls of the command line. Raises Invoke's :class:`Exit`: code 2, usage error."""
        calls = super().normalize(tasks)
        given = self.core[0].args if self.core else {}
        words = self.core.unparsed if self.core else []
        for name in WITHOUT_EFFECT:
            if name in given and given[name].value:
                raise _without_effect(name, words)
        if "debug" in given and given["debug"].value and any("dry_run" in c.kwargs for c in calls):
            raise _refused(
                "-d before a task is Invoke's own debug log and no dry run: "
                "put --dry-run behind the task",
                words,
            )
        if any(call.kwargs.get("dry_run") for call in calls):
            self.config.run.dry = True  # --dry sets the same value, and the tasks read it
        changed: list[str] = []  # the tasks of the line that changed hosts
        for call in calls:
            if isinstance(call.task, Command):
                call.kwargs = {**call.kwargs, EARLIER: changed}
        return calls


def _without_effect(name: str, words: Sequence[str]) -> Exit:
    return _refused(f"--{name} of Invoke has no effect here: {WITHOUT_EFFECT[name]}", words)


def _refused(message: str, words: Sequence[str]) -> Exit:
    return refused(UsageError(message, id="option-invalid"), words)
