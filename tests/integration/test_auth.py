"""etcd's authentication with Alluxio's real membership code behind it."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import Endpoint, Login

from .lab import CLUSTER, RELEASE, Lab

ROOT, WORKERS = "root-of-the-test", "workers-of-the-test"
SITE = f"/opt/alluxio/{RELEASE.version}/conf/alluxio-site.properties"

pytestmark = pytest.mark.usefixtures("workers")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "root").write_text(f"{ROOT}\n")
    os.environ["ALXP_TEST_WORKERS"] = WORKERS
    yield folder
    del os.environ["ALXP_TEST_WORKERS"]


def declared(lab: Lab, secrets: Path, *, on: bool = True, root: str = "root") -> Path:
    changes: dict[str, Any] = {
        "etcd": {"auth": {"enabled": on, "root_password": {"file": str(secrets / root)}}},
        "alluxio": {"etcd": {"username": "alluxio", "password": {"env": "ALXP_TEST_WORKERS"}}},
    }
    return lab.inventory(changes)


def bundle(file: Path) -> dict[str, str]:
    """What --debug has written: nothing in it is a secret, be it on hosts or here."""
    assert file.stat().st_mode & 0o777 == 0o600
    found = {}
    with tarfile.open(file) as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            assert content is not None
            found[entry.name.removeprefix("debug/")] = content.read().decode()
    for name, text in found.items():
        assert not any(secret in name + text for secret in (ROOT, WORKERS, "PRIVATE KEY")), name
    return found


def test_workers_wait_for_the_authentication_that_is_declared(
    lab: Lab, secrets: Path, tmp_path: Path
) -> None:
    on, file = declared(lab, secrets), tmp_path / "failed.tar.gz"
    done = lab.invoke("start-workers", on, "--debug", str(file))
    done.expect(3, "authentication is off", "run invoke enable-auth", "[auth-differs]")
    found = bundle(file)
    facts, addresses = json.loads(found["facts.json"]), {host.address for host in lab.workers}
    assert set(facts) == addresses | {host.address for host in lab.etcd}  # these for the last note
    assert all(
        facts[address]["units"]["alluxio-worker.service"]["active"] == "active"
        for address in addresses
    )
    assert all("alluxio" in found[f"logs/{address}.txt"] for address in addresses)
    assert "auth-differs" in found["stderr.txt"]
    lab.invoke("deploy-etcd", on).expect(0, "0 changed", "authentication is off")
    lab.invoke("check-nodes", on).expect(1, "authentication is off, the inventory says on")


def test_it_is_turned_on_and_the_workers_are_live(lab: Lab, secrets: Path, tmp_path: Path) -> None:
    on, file = declared(lab, secrets), tmp_path / "done.tar.gz"
    done = lab.invoke("enable-auth", on, "--debug", str(file)).expect(0, "turn authentication on")
    assert ROOT not in done.text
    assert WORKERS not in done.text
    found = bundle(file)
    assert len(json.loads(found["plan.json"])[0]["steps"]) > 2
    assert {entry["result"] for entry in json.loads(found["audit.json"])} == {"ok"}
    assert "apply" in {call["what"] for call in json.loads(found["calls.json"])["calls"]}
    assert not any(name.startswith("logs/") for name in found)
    lab.invoke("enable-auth", on).expect(0, "0 changed")
    lab.invoke("deploy-etcd", on).expect(0, "0 changed")
    lab.invoke("start-workers", on).expect(0, "0 changed; 2 of 2 live")
    # The role that enable-auth made is all that both the workers and `info nodes` log in with.
    seen = lab.invoke("check-nodes", on, "--format", "json").expect(0).json
    nodes = seen["alluxio"]["nodes"]
    assert {n["state"] for n in nodes} == {"LIVE"}
    assert {n["info_nodes"] for n in nodes} == {"ONLINE"}
    for host in lab.workers:
        assert host.run(f"stat -c '%a %U' {SITE}") == "640 root"


def test_others_are_refused(lab: Lab, secrets: Path) -> None:
    endpoint = Endpoint(lab.etcd[0].address, 2379)
    with EtcdClient(endpoint) as nobody, pytest.raises(EtcdUnreachable) as caught:
        nobody.get("/DHT/")
    assert caught.value.reason is Reason.LOGIN
    with EtcdClient(endpoint, login=Login("alluxio", WORKERS)) as worker:
        assert worker.range(f"/DHT/{CLUSTER}")[1]
        with pytest.raises(EtcdUnreachable) as caught:
            worker.put("/elsewhere", "x")
        assert caught.value.reason is Reason.DENIED
    (secrets / "wrong").write_text("wrong\n")
    wrong = declared(lab, secrets, root="wrong")
    for task in ("deploy-etcd", "rotate-certs"):
        lab.invoke(task, wrong).expect(3, "etcd refuses the login of this tool", "login refused")
    missing = declared(lab, secrets, root="nothing")
    lab.invoke("deploy-etcd", missing).expect(2, "etcd.auth.root_password cannot be read")


def test_a_login_that_etcd_does_not_know(lab: Lab, secrets: Path) -> None:
    """Somebody has deleted the workers' user; its role is there."""
    on = declared(lab, secrets)
    etcdctl = f"ETCDCTL_API=3 /opt/etcd/current/etcdctl --user root:{ROOT}"
    lab.etcd[0].run(f"{etcdctl} user delete alluxio")
    lab.invoke("start-workers", on).expect(3, "etcd-login-refused")
    lab.invoke("enable-auth", on).expect(0)
    # Without its user a worker may have lost its lease, and it does not take another.
    lab.invoke("restart-workers", on).expect(0)
    lab.invoke("start-workers", on).expect(0, "2 of 2 live")
    lab.invoke("enable-auth", on).expect(0, "0 changed")


def test_a_restarted_member_asks_for_a_new_login(lab: Lab, secrets: Path) -> None:
    on = declared(lab, secrets)
    lab.invoke("rotate-certs", on, "--ca").expect(0, "retire the old CA")
    lab.invoke("check-nodes", on).expect(0, "2 workers: 2 LIVE")


def test_members_come_and_go_meanwhile(lab: Lab, secrets: Path, tmp_path: Path) -> None:
    on = declared(lab, secrets)
    host = lab.etcd[2]
    host.run("systemctl kill -s KILL etcd; systemctl stop etcd; rm -rf /var/lib/etcd/member")
    lab.invoke("replace-member", on, host.name).expect(0, f"add {host.name} as a learner")
    options = ("etcd0", "--no-workers", "--delete-data", "etcd0")
    lab.invoke("remove-member", on, *options).expect(0, "remove etcd0")
    lab.invoke("deploy-etcd", on, "--no-workers").expect(0, "add etcd0 as a learner")
    lab.invoke("backup-etcd", on, "--to", str(tmp_path)).expect(0, "verified")
    lab.invoke("start-workers", on).expect(0, "2 of 2 live")
    lab.invoke("deploy-etcd", on).expect(0, "record that every worker knows the endpoints")


def test_it_is_turned_off_again(lab: Lab, secrets: Path) -> None:
    off = declared(lab, secrets, on=False)
    lab.invoke("check-nodes", off).expect(1)
    lab.invoke("disable-auth", off).expect(0, "turn authentication off")
    lab.invoke("disable-auth", off).expect(0, "0 changed")
    lab.invoke("check-nodes", off).expect(0, "2 workers: 2 LIVE")
    assert WORKERS not in lab.workers[0].read(SITE)
