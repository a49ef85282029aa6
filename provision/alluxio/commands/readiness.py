"""Whether a worker is ready: each listener that its properties turn on answers, on its own host.

A registered worker may not serve yet, or may never serve. Alluxio 313 joins etcd 20 to 25 s before
its web and HTTP ports answer (measured). It goes on without its HTTP server when another process
has the port (class ``HttpServer`` binds in a thread of its own). So a port must pass three checks:
the worker's own unit listens on it, it takes a connection, and a GET of the listener's HTTP path,
if it has one, is answered with 200.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from provision.alluxio.commands import alluxio_cli
from provision.alluxio.worker import desired
from provision.dataclass import dataclass
from provision.errors import Problem
from provision.host import gather
from provision.host.facts import Command, HostFacts, Probe
from provision.inventory import ports
from provision.inventory.ports import Listener
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Machine
from provision.ssh.session import Fleet
from provision.text import printable

LABEL, INSTALLED = "listeners-answer", "alluxio-installed"
#: A part of the name of the control groups of a worker's processes.
IN_UNIT = f"/{desired.UNIT}"
#: Seconds that a listener may take to answer.
ANSWER_SECONDS = 5
#: Characters of a reason that are shown.
REASON = 120
_STATUS = re.compile(r"HTTP/1\.[0-9] 200( |$)")


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of one worker's listeners: by name, the reason why a listener does not answer.

    ``listeners`` are the tested listeners. ``installed`` is False on a host without Alluxio.
    """

    listeners: tuple[Listener, ...]
    silent: Mapping[str, str]
    installed: bool = True

    @property
    def ready(self) -> bool:
        return self.installed and not self.silent

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each listener that does not answer."""
        return tuple(
            f"its {x.name} port {x.port} does not answer: {self.silent[x.name]}"
            for x in self.listeners
            if x.name in self.silent
        )


def probes(alluxio: AlluxioCluster, workers: Sequence[AlluxioWorker]) -> dict[Machine, Probe]:
    """What to look at on the workers' hosts, for :func:`of`. Hosts of workers with the same
    listeners share a probe."""
    hostnames = {w.machine: w.hostname for w in workers}
    look = f"{alluxio_cli.installed(alluxio)} && echo yes || echo no"
    alike: dict[tuple[Listener, ...], Probe] = {}
    found = {}
    for w in workers:
        asked = _asked(alluxio, w)
        if asked not in alike:
            commands = {
                INSTALLED: Command(look, roots=True),
                LABEL: Command(_script(asked), roots=True),
            }
            # The search for a port's owner begins with the processes of this probe's units.
            alike[asked] = Probe(commands=commands, units=(desired.UNIT,), own=hostnames)
        found[w.machine] = alike[asked]
    return found


def of(alluxio: AlluxioCluster, worker: AlluxioWorker, facts: HostFacts) -> Readiness:
    """The worker's readiness, from the host's facts. The facts come from :func:`probes`."""
    asked = _asked(alluxio, worker)
    said: dict[str, str] = {}
    for line in facts.commands.get(LABEL, "").splitlines():
        name, _, answer = line.partition(" ")
        said.setdefault(name, answer)
    silent: dict[str, str] = {}
    for x in asked:
        answer = said.get(x.name, "error the probe did not ask it")
        kind, _, rest = answer.partition(" ")
        if kind == "connected" and not x.http_path:
            continue
        if kind == "answered":
            if _STATUS.match(rest.strip()):
                continue
            rest = f"GET {x.http_path} returned {rest.strip()!r}"
        silent[x.name] = printable(rest or answer, REASON)
    installed = facts.commands.get(INSTALLED, "").strip() != "no"
    return Readiness(asked, silent, installed)


def look(
    fleet: Fleet, alluxio: AlluxioCluster, workers: Sequence[AlluxioWorker]
) -> tuple[dict[str, Readiness], list[Problem]]:
    """Every worker's readiness by name, in one round trip per host, and the problems of hosts that
    cannot be asked."""
    facts, problems = gather.gather_facts(fleet, probes(alluxio, workers))
    return {
        w.name: of(alluxio, w, facts[w.machine]) for w in workers if w.machine in facts
    }, problems


def _asked(alluxio: AlluxioCluster, worker: AlluxioWorker) -> tuple[Listener, ...]:
    """The worker's listeners, without listeners on port 0: only the worker knows their port."""
    return tuple(x for x in ports.worker_listeners(alluxio, worker) if x.port)


def _owners() -> str:
    """``its PORT NAME``: whether a port's owner is the worker; otherwise it prints who it is."""
    return f"""its() {{
  owner=${{owners#*"${{nl}}listen $1 "}}
  if [ "$owner" = "$owners" ]; then
    echo "$2 error nothing listens"
    return 1
  fi
  case "$owners$nl" in *"${{nl}}serves $1 {desired.UNIT}$nl"*) return 0;; esac
  owner=${{owner%%"$nl"*}}
  pid=${{owner%% *}}
  [ "$pid" != 0 ] && ! grep -q "{IN_UNIT}" "/proc/$pid/cgroup" 2>/dev/null || return 0
  echo "$2 error another process listens on it: pid $pid (${{owner#* }})"
  return 1
}}"""


def _answers() -> str:
    """A program for bash: HOSTNAME, and NAME PORT PATH of each listener. One process asks them all.
    A worker that binds only one address is asked at that address."""
    return f"""host=$1
shift
answer() {{
  trap "" PIPE
  exec 3<>"/dev/tcp/127.0.0.1/$2" || exec 3<>"/dev/tcp/$host/$2" || {{
    echo "$1 error the connection is refused"
    return
  }}
  [ -n "$3" ] || {{ echo "$1 connected"; return; }}
  printf "GET %s HTTP/1.0\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n" "$3" >&3
  IFS= read -r -n 512 line <&3 || [ -n "$line" ] || {{
    echo "$1 error the connection is closed without an answer"
    return
  }}
  cat <&3 >/dev/null # the server is not cut off
  printf "%s answered %s\\n" "$1" "$line"
}}
while [ $# -gt 0 ]; do
  exec {{said}}< <(answer "$@")
  streams+=("$said") names+=("$1") running+=("$!")
  shift 3
done
left={ANSWER_SECONDS}
for n in "${{!names[@]}}"; do
  if IFS= read -r -t $left -u "${{streams[n]}}" line; then
    echo "$line"
  elif [ $? -gt 128 ]; then
    left=0.1 # all had the same time
    echo "${{names[n]}} error no answer in {ANSWER_SECONDS} s"
  else
    echo "${{names[n]}} error the probe ended without an answer"
  fi
done
kill "${{running[@]}}" 2>/dev/null
"""


def _script(listeners: Sequence[Listener]) -> str:
    """Ask all ``listeners`` at the same time, and print a line for each. This runs inside the facts
    script, and uses its function ``listeners`` to find a port's owner. ``$own`` is the worker's
    hostname."""
    numbers = " ".join(str(x.port) for x in listeners)
    asked = "\n".join(
        f'its {x.port:d} {name} && set -- "$@" {name} {x.port:d} {shlex.quote(x.http_path)}'
        for x in listeners
        for name in (shlex.quote(x.name),)
    )
    return f"""{_owners()}
owners=$nl$(listeners {numbers})
set -- "$own"
{asked}
[ $# = 1 ] || bash -c {shlex.quote(_answers())} bash "$@" 2>/dev/null"""
