"""What must be true before the first member runs etcd 3.7: it reads no v2 request in the log.

Up to 3.5 a member publishes its attributes by a v2 request in the log (``EtcdServer.publish``). 3.6
translates such requests (``v2ToV3Request``). 3.7 does not know them and exits at the first v2
request that it reads: "unmarshal should never fail" (``apply.Apply``). 3.7 reads the log from the
newest snapshot on. 3.6 writes a snapshot only after 10,000 entries, and a quiet cluster does not
write so many in months. So each member writes a snapshot while it runs 3.6. Tried with 3.5.35,
3.6.16 and 3.7.3; etcd's guide "Upgrade etcd from v3.6 to v3.7" does not mention it.
"""

from __future__ import annotations

import re
import shlex

from provision import progress, wait
from provision.engine.plan import Gate
from provision.errors import Problem, ProvisionError, Unhealthy
from provision.etcd.cluster import gates, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import layout
from provision.inventory.resolved import EtcdCluster, EtcdMember

#: The setting with which a member writes a snapshot after every second entry.
OFTEN = {"snapshot-count": 1}
#: Seconds until such a member has written one.
WRITTEN_WITHIN = 60.0
_SNAPSHOT = re.compile(r"^[0-9a-f]{16}-([0-9a-f]{16})\.snap$", re.MULTILINE)


def v2_requests(cluster: EtcdCluster, member: EtcdMember) -> str:
    """A shell command that prints ``v2`` when a member's log may hold a v2 request, else ``none``.

    Such a request names the place of a member's attributes, or of the cluster's version, in the v2
    store. A request in an older part of the log counts, too.
    """
    wal = shlex.quote(f"{member.data_dir}/member/wal")
    find = (
        f"cd {wal} && if grep -aqE '/0/(members/[0-9a-f]+/attributes|version)' ./*.wal; "
        "then echo v2; elif [ $? = 1 ]; then echo none; fi"
    )
    return _as_user(cluster, find)


def snapshot_written(etcd: Etcd, member: EtcdMember) -> Gate:
    """A gate: every member is healthy, and ``member`` has a snapshot of all that it had applied."""

    def check() -> None:
        gates.all_healthy(etcd, member).check()
        with etcd.member(member) as client:
            wanted = client.status().raft_index
        with progress.waiting(f"{member.name} writes a snapshot", within=WRITTEN_WITHIN):
            deadline = wait.Deadline(WRITTEN_WITHIN)
            while (newest := _newest(etcd, member)) < wanted:
                if deadline.passed:
                    where = member.place
                    what = f"its newest snapshot is of log entry {newest}, not of {wanted} or later"
                    remedy = f"to see why: invoke logs {member.name}"
                    raise Unhealthy(
                        f"{member.name} writes no snapshot, without which 3.7 may not start",
                        [Problem(where, what, remedy, id="upgrade-stopped")],
                        id="upgrade-stopped",
                    )
                health.verify_write(etcd, member)  # each write adds some entries to the log
                deadline.pause(gates.POLL_SECONDS)

    return Gate(f"every member healthy, {member.name} has written a snapshot", check)


def _newest(etcd: Etcd, member: EtcdMember) -> int:
    """The entry (raft index) of the newest snapshot on the member's disk; 0 without one."""
    command = _as_user(etcd.cluster, f"ls -b {shlex.quote(member.data_dir + '/member/snap')}")
    done = etcd.fleet.session(member.machine).run(command, "look for the newest snapshot")
    if not done.ok:
        raise ProvisionError(
            f"{member.name}: the snapshots cannot be listed: {done.stderr.strip()[:200]}",
            id="upgrade-stopped",
        )
    return max((int(index, 16) for index in _SNAPSHOT.findall(done.stdout)), default=0)


def _as_user(cluster: EtcdCluster, command: str) -> str:
    """``command``, run as etcd's user."""
    return f"cd /; {layout.as_user(cluster)} sh -c {shlex.quote(command)}"
