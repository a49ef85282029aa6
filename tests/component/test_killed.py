"""kill -9 over what a command does in etcd: run again, it finishes the work.

Each run is a process of its own. The first is killed with its first write: once before etcd has got
it, and once after, before anything is made of the answer. The next run begins with what that left,
and is killed with its second write, and so on, until one comes to its end.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.membership import registrations
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import Endpoint, Login
from provision.etcd.cluster.handle import Etcd
from provision.inventory.model import AlluxioEtcd, EtcdAuth, Secret, Source
from provision.inventory.resolved import Inventory
from provision.plans.alluxio import forget_worker
from provision.plans.etcd import auth
from provision.ssh.session import Fleet
from tests.component.conftest import Boot, Running
from tests.component.test_registrations_removed import ONE, OTHER, value
from tests.unit import builders, hosts

ROOT, WORKERS = Login("root", "r-secret"), Login("alluxio", "w-secret")
WRITES = (
    *("put", "delete", "user_add", "user_change_password", "user_grant_role", "role_add"),
    *("role_grant", "role_revoke", "auth_enable", "auth_disable"),
)


def enable(inventory: Inventory, etcd: Etcd) -> None:
    carry_out(auth.enable(inventory, etcd, auth.observe(inventory, etcd)).steps)


def disable(inventory: Inventory, etcd: Etcd) -> None:
    carry_out(auth.disable(inventory, etcd, auth.observe(inventory, etcd)).steps)


def decommission(inventory: Inventory, etcd: Etcd) -> None:
    """The part of it that is in etcd: the worker has stopped, and its lease has ended."""
    assert inventory.alluxio is not None
    seen = forget_worker.look(inventory.alluxio, etcd)
    assert seen is not None
    mine = {i: entry for i, entry in seen.authorized.items() if i == ONE}
    calls, _ = forget_worker.removals(inventory.alluxio, etcd, mine, "decommission-worker")
    for call in calls:
        call.do()


def carry_out(steps: Any) -> None:
    for step in steps:
        for call in step.calls:
            call.do()


def killed(moment: str, number: int) -> None:
    """From here on, the write of this number ends this process. Those that check the quorum do not
    count."""
    left = number

    def ending(real: Any) -> Any:
        def write(client: EtcdClient, *given: Any, **options: Any) -> Any:
            if given and str(given[0]).startswith("/alluxio-provision/health/"):
                return real(client, *given, **options)
            nonlocal left
            left -= 1
            if left:
                return real(client, *given, **options)
            if moment == "after":
                real(client, *given, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        return write

    for name in WRITES:
        setattr(EtcdClient, name, ending(getattr(EtcdClient, name)))


def child(path: str, task: str, moment: str, number: int) -> None:
    """What a run does, in its own process."""
    inventory = pickle.loads(Path(path).read_bytes())
    killed(moment, number)
    with Fleet(1) as fleet:
        {"enable": enable, "disable": disable, "decommission": decommission}[task](
            inventory, Etcd(inventory.etcd, fleet)
        )


class World:
    def __init__(self, running: Running, folder: Path) -> None:
        self.folder, self.member = folder, running.cluster.members[0]
        (folder / "root").write_text(f"{ROOT.password}\n")
        login = AlluxioEtcd(username=WORKERS.user, password=Secret(env="T_KILLED"))
        tarball = hosts.tarball(folder)
        source = Source(path=tarball.path, sha256=tarball.sha256)
        # Its workers' hosts are not for here.
        self.alluxio = builders.alluxio(etcd_login=login, source=source, workers=())
        self.cluster = running.cluster

    def inventory(self, on: bool | None) -> Inventory:
        secret = EtcdAuth(enabled=on, root_password=Secret(file=self.folder / "root"))
        cluster = dataclasses.replace(self.cluster, auth=secret)
        alluxio = self.alluxio
        if on is None:
            alluxio = dataclasses.replace(alluxio, etcd_login=AlluxioEtcd())
            cluster = self.cluster
        return Inventory(self.folder / "i.yml", "c", 1, cluster, alluxio)

    def run(self, task: str, inventory: Inventory, moment: str, number: int) -> int:
        file = self.folder / "inventory.pickle"
        file.write_bytes(pickle.dumps(inventory))
        start = (
            f"from {__name__} import child; child({str(file)!r}, {task!r}, {moment!r}, {number})"
        )
        env = {**os.environ, "T_KILLED": WORKERS.password, "PYTHONPATH": str(Path.cwd())}
        env["XDG_STATE_HOME"] = str(self.folder / "state")
        done = subprocess.run([sys.executable, "-c", start], env=env, capture_output=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
        return done.returncode

    def until_done(self, task: str, inventory: Inventory) -> int:
        """Run it until it comes to its end; how many runs were killed after a write."""
        for number in range(1, 20):
            for moment in ("before", "after"):
                if self.run(task, inventory, moment, number) == 0:
                    return number - 1
        raise AssertionError("it does not come to an end")

    def client(self, login: Login | None = None) -> EtcdClient:
        return EtcdClient(Endpoint("127.0.0.1", self.member.client_port), login=login)


@pytest.fixture
def world(boot: Boot, tmp_path: Path) -> Iterator[World]:
    with boot(1) as running:
        yield World(running, tmp_path)


def test_authentication_turned_on_and_off(world: World) -> None:
    on = world.inventory(True)
    assert world.until_done("enable", on) >= 4
    with world.client(ROOT) as client:
        assert client.log_in()
        assert client.users() == {"root": ("root",), "alluxio": ("alluxio",)}
        assert set(client.roles()["alluxio"]) == {*auth.permissions("c")}
    with world.client(WORKERS) as client:
        client.put("/DHT/c/AUTHORIZED/w", "1")
    assert world.until_done("disable", world.inventory(False)) == 1
    with world.client() as client:
        assert not client.auth_enabled()


def test_a_registration_taken_out(world: World) -> None:
    prefix = registrations.authorized_prefix("c")
    with world.client() as client:
        for worker_id, host in ((ONE, "w1"), (OTHER, "w2")):
            client.put(prefix + worker_id, value(worker_id, host))
        assert world.until_done("decommission", world.inventory(None)) == 1
        assert [kv.key.decode() for kv in client.range(prefix)[1]] == [prefix + OTHER]
    # What was removed is kept, whenever the run was killed.
    kept = list((world.folder / "state").rglob(f"*{ONE}*"))
    assert kept
    assert all("w1" in path.read_text() for path in kept if path.is_file())
