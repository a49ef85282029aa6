"""Facts from many hosts at the same time, in one round trip each."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Mapping

from provision.errors import PreflightFailed, Problem
from provision.host import tool_version, tools
from provision.host.facts import HostFacts, Probe, Shared, new_mark, parse, script
from provision.host.resources import File
from provision.inventory.resolved import Machine
from provision.ssh.session import MANY, Fleet, Session, failures
from provision.text import counted

#: A host that has not answered the facts script after so many seconds counts as unreachable.
FACTS_TIMEOUT = 100.0


def gather_facts(
    fleet: Fleet, probes: Mapping[Machine, Probe]
) -> tuple[dict[Machine, HostFacts], list[Problem]]:
    """The facts of every machine that could be asked, and the problems of the others.

    Raises :class:`PreflightFailed` when the run is to change something, and a newer version of this
    tool last changed one of the hosts, or a host lacks what changes need.
    """
    seen, problems = _gather(fleet, probes)
    if fleet.changes:
        tool_version.require_not_newer(seen)
        tools.require({machine.place: f.lacks for machine, f in seen.items()})
    return seen, problems


def _gather(
    fleet: Fleet, probes: Mapping[Machine, Probe]
) -> tuple[dict[Machine, HostFacts], list[Problem]]:

    # What is to be in a file is most often there.
    shared = Shared(r.content for p in probes.values() for r in p.resources if isinstance(r, File))

    alike = Counter(map(id, probes.values()))
    texts: dict[tuple[int, bool], str] = {}
    mark = new_mark()

    def observe(session: Session) -> HostFacts:
        probe = probes[session.machine]
        # What changes need, a host is asked once.
        asked = fleet.changes and session.machine not in fleet.able
        text = texts.get((id(probe), asked))
        if text is None:
            text = script(probe, changes=asked, mark=mark)
            if alike[id(probe)] > 1:
                texts[id(probe), asked] = text
        text = text.replace(mark, new_mark())  # no host knows another's
        if own := probe.own.get(session.machine):
            text = f"own={shlex.quote(own)}\n{text}"
        session.open()
        sent = time.time()
        result = session.run(text, "facts", timeout=FACTS_TIMEOUT, prompt=True)
        if len(probes) > MANY:
            session.rest()
        found = parse(result, session.machine.place, sent, time.time(), shared)
        if asked and not found.lacks:
            fleet.able.add(session.machine)
        fleet.stats.facts[session.machine] = found
        return found

    results = fleet.map(observe, list(probes))
    seen = {m: f for m, f in results.items() if isinstance(f, HostFacts)}
    return seen, failures(results)


def require_facts(fleet: Fleet, probes: Mapping[Machine, Probe]) -> dict[Machine, HostFacts]:
    """The facts of every machine.

    Raises :class:`PreflightFailed` with every host that could not be asked, and as
    :func:`gather_facts` does.
    """
    seen, problems = _gather(fleet, probes)
    if fleet.changes:
        tool_version.require_not_newer(seen, problems)
        tools.require({machine.place: f.lacks for machine, f in seen.items()}, problems)
    if problems:
        raise PreflightFailed(
            f"{len(problems)} of {counted(len(probes), 'host')} cannot be worked on",
            problems,
            id="preflight-failed",
        )
    return seen
