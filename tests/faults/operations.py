"""The operations that faults are put into: how each begins, what it runs, how it must end."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdError
from provision.etcd.api.values import Endpoint, Login

from ..integration.lab import CLUSTER, Host, Lab, wait_until

#: A step as the tool shows it on stderr, and any other line of its progress.
STEP = r"^ *[0-9.]+ s \[(\d+)/(\d+)\] (.*)$"
PROGRESS = r"^ *[0-9.]+ s +(\S.*)$"
#: A remote command, as -v shows it: for an operation without steps.
REMOTE = r"^\S+: ([a-z ]+): [0-9.]+ s$"

ROOT_PASSWORD = "root-of-the-faults"
LOGIN = Login("root", ROOT_PASSWORD)
OLD, NEW = "3.5.35", "3.6.16"


@dataclass(frozen=True)
class Command:
    task: str
    inventory: Path
    options: tuple[str, ...] = ()


class Bed:
    """A cluster of ``count`` members on the lab's first hosts, and a spare host if there is one.

    It is kept between cases; each ``want_`` method brings it to a known state by what is quickest.
    """

    def __init__(self, lab: Lab, count: int, folder: Path) -> None:
        self.lab, self.count, self.folder = lab, count, folder
        self.hosts = lab.etcd[:count]
        self.extra = lab.etcd[count] if len(lab.etcd) > count else None
        self._numbers = itertools.count(1)
        self._releases = self._release_sources()
        (folder / "root").write_text(f"{ROOT_PASSWORD}\n")
        self.plain = self.declare()
        #: What is on the hosts now; None: nothing known.
        self.state: tuple[object, ...] | None = None
        self.backup: Path | None = None

    def number(self) -> int:
        return next(self._numbers)

    def declare(
        self,
        extra: bool = False,
        version: str = NEW,
        tls: bool = True,
        auth: bool | None = None,
        settings: Mapping[str, int] | None = None,
        hosts: Sequence[Host] | None = None,
    ) -> Path:
        """An inventory without workers."""
        there = list(hosts if hosts is not None else self.hosts)
        if extra and self.extra is not None:
            there.append(self.extra)
        names = {f"etcd{n}": None for n in range(3)}
        etcd: dict[str, Any] = {
            "members": {
                **names,
                **{h.name: {"host": h.address, "address": h.address} for h in there},
            },
            "tls": {"peer": tls},
            "version": version,
            "source": self._releases[version],
            "releases": {v: source for v, source in self._releases.items() if v != version},
        }
        if settings:
            etcd["settings"] = dict(settings)
        if auth is not None:
            etcd["auth"] = {"enabled": auth, "root_password": {"file": str(self.folder / "root")}}
        return self.lab.inventory({"alluxio": None, "etcd": etcd})

    def reset(self, *, keep_releases: bool = True) -> None:
        """Nothing of etcd on any host; quick, by no means of the tool's."""
        keep = "" if keep_releases else "/opt/etcd"
        self.lab.on(
            self.lab.etcd,
            f"""
            iptables -F
            systemctl kill -s KILL etcd 2>/dev/null || :
            systemctl stop etcd 2>/dev/null || :
            rm -rf /var/lib/etcd/* /etc/etcd /etc/systemd/system/etcd.service {keep}
            rmdir /var/lib/etcd 2>/dev/null || :
            rm -rf /run/alluxio-provision
            systemctl daemon-reload
            systemctl reset-failed
            """,
        )
        self.state = None

    def deploy(self, inventory: Path) -> None:
        self.lab.invoke("deploy-etcd", inventory).expect(0)

    def members(self) -> dict[str, bool]:
        """Who is in the running cluster, and whether it is a learner."""
        for host in self.lab.etcd:
            with contextlib.suppress(EtcdError), self.client(host) as client:
                client.get("health")
                return {m.name or m.peer_urls[0]: m.is_learner for m in client.member_list()}
        return {}

    @contextlib.contextmanager
    def client(self, host: Host, timeout: float = 3) -> Iterator[EtcdClient]:
        with EtcdClient(Endpoint(host.address, 2379), timeout=timeout, login=LOGIN) as client:
            yield client

    def serves(self, host: Host) -> bool:
        with contextlib.suppress(EtcdError), self.client(host) as client:
            client.get("health")
            return True
        return False

    def require(self, hosts: Sequence[Host]) -> None:
        """Just these are voters, and each serves linearizable reads."""
        names = {h.name: False for h in hosts}
        wait_until(
            lambda: self.members() == names and all(map(self.serves, hosts)),
            f"{', '.join(names)} are healthy voters, and alone: {self.members()}",
            seconds=30,
        )

    def want(self, *state: object, make: Callable[[], None]) -> None:
        """``make`` from nothing unless ``state`` is what there is."""
        if self.state != state or not all(map(self.serves, self.hosts)):
            self.reset()
            make()
        self.state = state

    def want_plain(self) -> None:
        """The members of the plain inventory, and no other."""
        self.want("plain", make=lambda: self.deploy(self.plain))
        if self.extra is not None and self.extra.name in self.members():
            options = (self.extra.name, "--delete-data", self.extra.name)
            self.lab.invoke("remove-member", self.plain, *options).expect(0)
        if self.extra is not None:
            self.extra.run("rm -rf /opt/etcd /etc/etcd")  # a new host each time
        self.require(self.hosts)

    def want_larger(self) -> None:
        """The plain cluster, and the spare host in it."""
        assert self.extra is not None
        self.want("plain", make=lambda: self.deploy(self.plain))
        self.deploy(self.declare(extra=True))
        self.require([*self.hosts, self.extra])

    def _release_sources(self) -> dict[str, dict[str, str]]:
        source = self.lab.source()
        return {v: {k: s.replace(NEW, v) for k, s in source.items()} for v in (OLD, NEW)}


@dataclass(frozen=True)
class Operation:
    """``prepare`` brings the bed to where the operation begins, ``command`` is what it runs.

    ``members`` are who must be there in the end, ``after`` the inventory that must then be as
    declared when it is not the command's own. ``anew``: it makes the data anew, so the checker
    has written before it, not meanwhile. ``moments`` is the pattern of the lines at which faults
    are injected.
    """

    name: str
    title: str
    prepare: Callable[[Bed], None]
    command: Callable[[Bed], Command]
    members: Callable[[Bed], Sequence[Host]] = field(default=lambda bed: bed.hosts)
    after: Callable[[Bed], Path] | None = None
    anew: bool = False
    moments: str = STEP
    #: The state that the bed is in afterwards, when it is another one.
    leaves: str | None = None


def _nothing(bed: Bed) -> None:
    bed.reset(keep_releases=False)


def _rolling(bed: Bed) -> Command:
    inventory = bed.declare(settings={"snapshot-count": 20000 + bed.number()})
    return Command("deploy-etcd", inventory)


def _lose_one(bed: Bed) -> None:
    bed.want_plain()
    bed.hosts[-1].run(
        "systemctl kill -s KILL etcd; systemctl stop etcd; rm -rf /var/lib/etcd/member*"
    )


def _old(bed: Bed) -> None:
    bed.reset()
    bed.lab.on(bed.hosts, f"rm -rf /opt/etcd/{NEW}")
    bed.deploy(bed.declare(version=OLD))


def _without_tls(bed: Bed) -> None:
    bed.reset()
    bed.deploy(bed.declare(tls=False))


def _before_restore(bed: Bed) -> None:
    bed.want_plain()
    bed.lab.on(bed.hosts, "rm -rf /var/lib/etcd/member.*")


def _back_up(bed: Bed) -> Command:
    """The restore of a backup that is taken here, once the checker has written."""
    folder = bed.folder / f"backup{bed.number()}"
    bed.lab.invoke("backup-etcd", bed.plain, "--to", str(folder)).expect(0)
    file = next(folder.glob("*.db"))
    return Command("restore-etcd", bed.plain, (str(file), "--yes-restore", CLUSTER))


def _lose_quorum(bed: Bed) -> Command:
    """The recovery from the second member, once all have what the checker has written."""

    def revisions() -> set[int]:
        found = set()
        for host in bed.hosts:
            with bed.client(host) as client:
                found.add(client.status().raft_index)
        return found

    wait_until(lambda: len(revisions()) == 1, "every member has the whole log")
    chosen = bed.hosts[min(1, len(bed.hosts) - 1)]
    for host in bed.hosts:
        if host is not chosen:
            host.run("systemctl kill -s KILL etcd; systemctl stop etcd")
    options = (chosen.name, "--yes-recover", CLUSTER)
    return Command("recover-etcd", bed.plain, options)


def _auth_off(bed: Bed) -> None:
    bed.want_plain()
    _switch(bed, False)


def _auth_on(bed: Bed) -> None:
    bed.want("auth", make=lambda: bed.deploy(bed.plain))
    _switch(bed, True)


def _switch(bed: Bed, on: bool) -> None:
    task = "enable-auth" if on else "disable-auth"
    bed.lab.invoke(task, bed.declare(auth=on)).expect(0)


def _plus(bed: Bed) -> Sequence[Host]:
    assert bed.extra is not None
    return [*bed.hosts, bed.extra]


def _extra(bed: Bed) -> str:
    assert bed.extra is not None
    return bed.extra.name


OPERATIONS = (
    Operation(
        "first-deploy",
        "deploy-etcd, from nothing",
        _nothing,
        lambda bed: Command("deploy-etcd", bed.plain),
        moments=PROGRESS,
        leaves="plain",
    ),
    Operation(
        "rolling-change",
        "deploy-etcd, another setting",
        lambda bed: bed.want("rolled", make=lambda: bed.deploy(bed.plain)),
        _rolling,
    ),
    Operation(
        "add-member",
        "add-member",
        Bed.want_plain,
        lambda bed: Command("add-member", bed.declare(extra=True), (_extra(bed),)),
        _plus,
    ),
    Operation(
        "remove-member",
        "remove-member",
        Bed.want_larger,
        lambda bed: Command("remove-member", bed.plain, (_extra(bed),)),
    ),
    Operation(
        "replace-member",
        "replace-member",
        _lose_one,
        lambda bed: Command("replace-member", bed.plain, (bed.hosts[-1].name,)),
    ),
    Operation(
        "upgrade-etcd",
        f"upgrade-etcd, {OLD} to {NEW}",
        _old,
        lambda bed: Command(
            "upgrade-etcd",
            bed.declare(version=OLD),
            (NEW, "--backup-dir", str(bed.folder / "before-upgrade")),
        ),
        after=lambda bed: bed.plain,
        leaves="plain",
    ),
    Operation(
        "rotate-certs",
        "rotate-certs",
        Bed.want_plain,
        lambda bed: Command("rotate-certs", bed.plain),
    ),
    Operation(
        "rotate-ca",
        "rotate-certs --ca",
        Bed.want_plain,
        lambda bed: Command("rotate-certs", bed.plain, ("--ca",)),
    ),
    Operation(
        "peer-tls-on",
        "deploy-etcd, peer TLS on",
        _without_tls,
        lambda bed: Command("deploy-etcd", bed.plain),
        leaves="plain",
    ),
    Operation(
        "backup-etcd",
        "backup-etcd",
        Bed.want_plain,
        lambda bed: Command(
            "backup-etcd", bed.plain, ("--verbose", "--to", str(bed.folder / "backups"))
        ),
        moments=REMOTE,
    ),
    Operation("restore-etcd", "restore-etcd", _before_restore, _back_up, anew=True),
    Operation("recover-etcd", "recover-etcd", _before_restore, _lose_quorum, anew=True),
    Operation(
        "defrag-etcd",
        "defrag-etcd --compact",
        Bed.want_plain,
        lambda bed: Command("defrag-etcd", bed.plain, ("--compact",)),
    ),
    Operation(
        "enable-auth",
        "enable-auth",
        _auth_off,
        lambda bed: Command("enable-auth", bed.declare(auth=True)),
        leaves="auth",
    ),
    Operation(
        "disable-auth",
        "disable-auth",
        _auth_on,
        lambda bed: Command("disable-auth", bed.declare(auth=False)),
        leaves="plain",
    ),
)
