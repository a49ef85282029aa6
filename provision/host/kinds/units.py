"""Units of systemd."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from provision.dataclass import dataclass
from provision.host import dropins, predict
from provision.host.diff import Change, Refusal, Resource
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Look, UnitState, restart_mark
from provision.host.proof import ANSWER_SECONDS, Proof

#: Lines of the journal in the error about a unit that does not start.
LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class Unit(Resource):
    """A systemd service that is enabled and running. The wait for its start ends after
    ``start_seconds``; the service may go on starting. ``proofs``: what must answer before it is
    started, and before the running process is stopped for a restart."""

    name: str
    start_seconds: int = 90
    refusals: tuple[Refusal, ...] = ()
    #: The effects of a start.
    effects: tuple[Effect, ...] = ()
    proofs: tuple[Proof, ...] = ()

    last: ClassVar[bool] = True

    def look(self) -> Look:
        commands = {dropins.label(self.name): dropins.command(self.name)}
        return Look(units=(self.name,), commands=commands)

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        state, restart = facts.unit(self.name), self.name in facts.pending_restarts
        name = shlex.quote(self.name)
        result: list[Change] = []
        reloads = state.needs_reload or self._is_rewritten(facts, before)
        if state.file_state != "enabled":
            # It reads the file itself, and then reloads systemd: the reload that comes anyway
            # does for both. (Enabled after that reload, the unit would need another one.)
            option = " --no-reload" if reloads else ""
            what = f"enable {self.name}"
            result.append(Change(what, f"systemctl enable -q{option} {name}", disrupts=True))
        if reloads:
            what = f"reload systemd for {self.name}"
            result.append(Change(what, "systemctl daemon-reload", disrupts=True))
        running = state.active == "active"
        if running and not restart:
            return result
        # When systemd is about to start a unit again, `start` waits for that; `restart` does not.
        soon = state.sub == "start-pre" or state.sub.startswith("auto-restart")
        verb = "restart" if soon or (restart and state.active != "inactive") else "start"
        result.append(
            Change(
                f"{verb} {self.name}",
                f"systemctl reset-failed {name} 2>/dev/null || :\ncode=0; timeout "
                f"{self.start_seconds} systemctl {verb} {name} || code=$?\nif [ $code != 0 ]; "
                f"then\n  {_not_begun(name)}\n  {_last_lines(name)} >&2\n"
                f"  [ $code != 124 ] || echo {name} is not ready after {self.start_seconds} s, and "
                f"is still starting >&2\n  exit 1\nfi\n"
                f"rm -f {shlex.quote(restart_mark(self.name))}",
                disrupts=True,
                seconds=self.start_seconds,
                refusals=self.refusals,
                stops=(self.name,) if verb == "restart" else (),
                starts=(self.name,),
                effects=self.effects,
            )
        )
        proofs = "\n".join(proof.script() for proof in self.proofs)
        if proofs:
            # Before systemd reads the unit again: it would restart a crashed service by it.
            seconds = result[0].seconds + ANSWER_SECONDS * len(self.proofs)
            script = f"{proofs}\n{result[0].script}"
            result[0] = replace(result[0], script=script, seconds=seconds)
        return result

    def after(self, facts: HostFacts) -> HostFacts:
        """A pending restart is done."""
        now, pending = facts.unit(self.name), facts.pending_restarts - {self.name}
        then = replace(now, file_state="enabled", needs_reload=False)
        if now.active != "active" or pending != facts.pending_restarts:
            service = self.name.endswith(".service")
            path = f"{predict.UNIT_DIR}/{self.name}"
            then = UnitState(
                load="loaded",
                active="active",
                sub="running" if service else "waiting",
                file_state="enabled",
                pid=predict.PID if service else 0,
                fragment=now.fragment or (path if path in facts.paths else ""),
            )
        if then == now and pending == facts.pending_restarts:
            return facts
        return replace(facts, units={**facts.units, self.name: then}, pending_restarts=pending)

    def _is_rewritten(self, facts: HostFacts, before: HostFacts) -> bool:
        """Whether a file of the unit was written since ``before``. A timer's service has the
        timer's name; systemd reads both again together."""
        stem = f"{predict.UNIT_DIR}/{self.name.rpartition('.')[0]}."
        return any(
            path.startswith(stem) and state is not before.paths.get(path)
            for path, state in facts.paths.items()
        )


@dataclass(frozen=True, slots=True)
class Absent(Resource):
    """A unit of this tool that is no longer wanted, with its files."""

    unit: str
    paths: tuple[str, ...]

    def look(self) -> Look:
        return Look(paths=self.paths)

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        there = [path for path in self.paths if path in facts.paths]
        return [
            Change(
                f"remove {self.unit}",
                f"systemctl disable -q --now {shlex.quote(self.unit)} 2>/dev/null || :\n"
                f"rm -f {shlex.join(there)}\n"
                "systemctl daemon-reload",
                effects=(Effect.REMOVAL,),
            )
        ]

    def after(self, facts: HostFacts) -> HostFacts:
        there = [path for path in self.paths if path in facts.paths]
        if not there:
            return facts
        for path in there:
            facts = predict.without(path, facts)
        units = dict(facts.units)
        if self.unit in units:
            units[self.unit] = UnitState()
        return replace(facts, units=units)


def _not_begun(unit: str) -> str:
    """Ends the script when the time for a start has gone by before systemd has begun it: something
    else must end first, often a service that waits for all network cables. The unit's own log would
    be of another time."""
    program = (
        '$2 == unit { waits = $4 == "waiting" } $4 == "running" { others = others " " $2 } '
        "END { if (waits) print others }"
    )
    return (
        "before=; [ $code != 124 ] || before=$(systemctl list-jobs --no-legend 2>/dev/null | "
        f"awk -v unit={unit} '{program}')\n"
        '  if [ -n "$before" ]; then\n'
        f'    echo "systemd does not start" {unit} "before this ends:$before (systemctl '
        'list-jobs); then it starts by itself" >&2\n'
        "    exit 1\n"
        "  fi"
    )


def _last_lines(unit: str) -> str:
    """The end of a unit's journal, without stack traces: they hide the line with the reason."""
    return (
        f"journalctl -u {unit} -n 200 --no-pager -o cat | "
        f"sed -e '/^goroutine .*:$/,/^[^ ]*\\.service: /{{/^[^ ]*\\.service: /!d}}' "
        f"""-e 's/,"stacktrace":".*/}}/' | tail -n {LOG_LINES}"""
    )
