"""Whether a worker is ready: each listener that its properties turn on answers, on its own host.

A worker that is registered may serve nothing yet, or never: Alluxio 313 joins etcd 20 to 25 s
before its web and HTTP ports answer (measured), and goes on without its HTTP server when another
process has the port (class ``HttpServer`` binds in a thread of its own). So a port counts as
answering when the worker's own unit listens on it, it takes a connection, and a GET of the
listener's HTTP path, where it has one, is answered with 200.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provision.alluxio.commands import alluxio_cli
from provision.alluxio.worker import desired
from provision.errors import Problem
from provision.host import gather
from provision.host.facts import HostFacts, Probe
from provision.inventory import ports
from provision.inventory.ports import Listener
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker
from provision.ssh.session import Fleet
from provision.text import printable

LABEL, INSTALLED = "listeners-answer", "alluxio-installed"
#: What the control groups of a worker's processes have in their name.
IN_UNIT = f"/{desired.UNIT}"
#: Seconds that a listener may take to answer.
ANSWER_SECONDS = 5
#: Characters of a reason that are shown.
REASON = 120
_REFUSED, _SILENT = 3, 4  # exit codes of the question
_STATUS = re.compile(r"HTTP/1\.[0-9] 200( |$)")


@dataclass(frozen=True, slots=True)
class Readiness:
    """How the listeners of one worker were found: by name, why one does not answer.

    ``listeners`` are those that were asked. ``installed`` is False on a host without Alluxio.
    """

    listeners: tuple[Listener, ...]
    silent: Mapping[str, str]
    installed: bool = True

    @property
    def ready(self) -> bool:
        return self.installed and not self.silent

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence a listener that does not answer."""
        return tuple(
            f"its {x.name} port {x.port} does not answer: {self.silent[x.name]}"
            for x in self.listeners
            if x.name in self.silent
        )


def probe(alluxio: AlluxioCluster, worker: AlluxioWorker) -> Probe:
    """What to look at on the worker's host, for :func:`of`."""
    script = _script(worker.hostname, _asked(alluxio, worker))
    look = f"{alluxio_cli.installed(alluxio)} && echo yes || echo no"
    # The search for a port's owner begins with the processes of the units that were looked at.
    return Probe(commands={INSTALLED: look, LABEL: script}, units=(desired.UNIT,), addresses=False)


def of(alluxio: AlluxioCluster, worker: AlluxioWorker, facts: HostFacts) -> Readiness:
    """What the host's facts say, seen by :func:`probe`."""
    asked = _asked(alluxio, worker)
    said: dict[str, str] = {}
    for line in facts.commands.get(LABEL, "").splitlines():
        name, _, answer = line.partition(" ")
        said.setdefault(name, answer)
    silent: dict[str, str] = {}
    for x in asked:
        answer = said.get(x.name, "error it was not asked")
        kind, _, rest = answer.partition(" ")
        if kind == "connected" and not x.http_path:
            continue
        if kind == "answered":
            if _STATUS.match(rest.strip()):
                continue
            rest = f"{x.http_path} is answered with {rest.strip()!r}"
        silent[x.name] = printable(rest or answer, REASON)
    installed = facts.commands.get(INSTALLED, "").strip() != "no"
    return Readiness(asked, silent, installed)


def look(
    fleet: Fleet, alluxio: AlluxioCluster, workers: Sequence[AlluxioWorker]
) -> tuple[dict[str, Readiness], list[Problem]]:
    """Every worker's readiness by name, one round trip a host, and what hosts cannot be asked."""
    facts, problems = gather.gather_facts(fleet, {w.machine: probe(alluxio, w) for w in workers})
    return {
        w.name: of(alluxio, w, facts[w.machine]) for w in workers if w.machine in facts
    }, problems


def _asked(alluxio: AlluxioCluster, worker: AlluxioWorker) -> tuple[Listener, ...]:
    """The worker's listeners, without those whose port is known to the worker alone (port 0)."""
    return tuple(x for x in ports.worker_listeners(alluxio, worker) if x.port)


def _script(hostname: str, listeners: Sequence[Listener]) -> str:
    """Ask all ``listeners`` at once; a line for each, inside the facts script, whose function
    ``listeners`` names a port's owner. A worker that binds one address only is asked there."""
    host = shlex.quote(hostname)
    numbers = " ".join(str(x.port) for x in listeners)
    calls = " ".join(
        f"answer {shlex.quote(x.name)} {x.port:d} {shlex.quote(x.http_path)} &" for x in listeners
    )
    return f"""
      get() {{
        timeout {ANSWER_SECONDS} bash -c '
          trap "" PIPE
          exec 3<>"/dev/tcp/$0/$1" || exit {_REFUSED}
          [ -n "$2" ] || {{ echo connected; exit 0; }}
          printf "GET %s HTTP/1.0\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n" "$2" >&3
          IFS= read -r line <&3 || [ -n "$line" ] || exit {_SILENT}
          cat <&3 >/dev/null # the server is not cut off
          printf "answered %s\\n" "$line"
        ' "$@" 2>/dev/null
      }}
      answer() {{
        set -- "$1" "$2" "$3" $(echo "$owners" | grep "^listen $2 ")
        if [ -z "${{6:-}}" ]; then
          echo "$1 error nothing listens"
        elif [ "$6" != 0 ] && ! grep -q "{IN_UNIT}" "/proc/$6/cgroup" 2>/dev/null; then
          echo "$1 error another process has it: pid $6 ($7)"
        else
          out=$(get 127.0.0.1 "$2" "$3"); code=$?
          [ $code != {_REFUSED} ] || {{ out=$(get {host} "$2" "$3"); code=$?; }}
          case $code in
            0) echo "$1 $out";;
            {_REFUSED}) echo "$1 error the connection is refused";;
            {_SILENT}) echo "$1 error the connection is closed without an answer";;
            124) echo "$1 error no answer in {ANSWER_SECONDS} s";;
            *) echo "$1 error the question ended with exit code $code";;
          esac
        fi
      }}
      owners=$(listeners {numbers})
      {calls}
      wait"""
