"""Users, roles and logins against a real etcd."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.engine.plan import Plan
from provision.errors import UsageError
from provision.etcd.api.client import EtcdClient, Tokens
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import Endpoint, Login, Permission
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.inventory.model import AlluxioEtcd, EtcdAuth, Secret
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plans.etcd import auth
from provision.ssh.session import Fleet
from tests.component.conftest import Boot, Running

ROOT, WORKERS = Login("root", "r-secret"), Login("alluxio", "w-secret")


@pytest.fixture
def one(boot: Boot) -> Iterator[Running]:
    with boot(1) as running:
        yield running


@pytest.fixture
def inventory(one: Running, tmp_path: Path) -> Inventory:
    (tmp_path / "root").write_text(f"{ROOT.password}\n")
    secret = EtcdAuth(enabled=True, root_password=Secret(file=tmp_path / "root"))
    cluster = dataclasses.replace(one.cluster, auth=secret)
    return Inventory(tmp_path / "i.yml", "test", 1, cluster, None)


def client(member: EtcdMember, login: Login | None = None) -> EtcdClient:
    return EtcdClient(Endpoint("127.0.0.1", member.client_port), login=login)


def carry_out(plan: Plan) -> None:
    for step in plan.steps:
        for call in step.calls:
            call.do()
        if step.after is not None:
            step.after.check()


def test_on_and_off_again(inventory: Inventory) -> None:
    cluster, member = inventory.etcd, inventory.etcd.members[0]
    with Fleet(1) as fleet:
        etcd = Etcd(cluster, fleet)
        seen = auth.observe(inventory, etcd)
        assert not seen.enabled
        assert "authentication is off" in health.observe(etcd).problems[0].what
        with client(member) as nobody:
            assert not nobody.auth_enabled()
        plan = auth.enable(inventory, etcd, seen)
        carry_out(plan)
        assert ROOT.password not in str(plan.document())
        again = auth.enable(inventory, etcd, auth.observe(inventory, etcd))
        assert again.steps == ()
        assert health.observe(etcd).problems == []
        with client(member) as nobody:
            assert nobody.auth_enabled()
            with pytest.raises(EtcdUnreachable) as caught:
                nobody.get("x")
            assert caught.value.reason is Reason.LOGIN
        off = dataclasses.replace(
            inventory,
            etcd=dataclasses.replace(
                cluster, auth=cluster.auth.model_copy(update={"enabled": False})
            ),
        )
        etcd = etcd.with_cluster(off.etcd)
        with pytest.raises(UsageError, match="enabled: true"):
            auth.enable(off, etcd, seen)
        carry_out(auth.disable(off, etcd, auth.observe(off, etcd)))
        assert auth.disable(off, etcd, auth.observe(off, etcd)).steps == ()
        with client(member) as nobody:
            assert not nobody.auth_enabled()


def test_the_workers_role_reaches_its_cluster_only(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = inventory.etcd.members[0]
    monkeypatch.setenv("W", WORKERS.password)
    with client(member) as c:
        for role, login in (("root", ROOT), ("alluxio", WORKERS)):
            c.role_add(role)
            c.user_add(login.user, login.password)
            c.user_grant_role(login.user, role)
        for permission in auth.permissions("test"):
            c.role_grant("alluxio", permission)
        c.role_grant("alluxio", Permission.below("/elsewhere", "read"))
        assert set(c.roles()["alluxio"]) == {
            *auth.permissions("test"),
            Permission.below("/elsewhere", "read"),
        }
        c.role_revoke("alluxio", Permission.below("/elsewhere", "read"))
        c.put("/DHT/test/AUTHORIZED/w", "1", lease=(lease := c.lease_grant(60)))
        c.auth_enable()
    with client(member, WORKERS) as c:
        assert c.leases_by_end() == [lease]
        for prefix in ("/DHT/test", "/ServiceDiscovery/test"):
            c.put(f"{prefix}/AUTHORIZED/w", "1")
            assert len(c.range(prefix)[1]) == 1
        for key in ("/DHT/other/x", "/alluxio-provision/x", "x"):
            with pytest.raises(EtcdUnreachable) as caught:
                c.put(key, "1")
            assert caught.value.reason is Reason.DENIED
    with client(member, ROOT) as c:
        c.put("/DHT/other/x", "1", lease=c.lease_grant(60))
    with client(member, WORKERS) as c:
        assert c.leases_by_end() is None
    assert repr(WORKERS) == "Login(user='alluxio')"


def test_a_wrong_password_is_told_from_a_cluster_that_is_down(inventory: Inventory) -> None:
    with Fleet(1) as fleet:
        etcd = Etcd(inventory.etcd, fleet)
        carry_out(auth.enable(inventory, etcd, auth.observe(inventory, etcd)))
        wrong: EtcdCluster = dataclasses.replace(inventory.etcd, auth=EtcdAuth())
        for login in (None, Login("root", "wrong")):
            seen = health.observe(Etcd(wrong, fleet, login))
            assert [m.refused for m in seen.members] == [True]
            assert "login refused" in seen.members[0].error


def test_a_login_outlives_the_members_memory(one: Running, inventory: Inventory) -> None:
    with Fleet(1) as fleet:
        etcd = Etcd(inventory.etcd, fleet)
        carry_out(auth.enable(inventory, etcd, auth.observe(inventory, etcd)))
        member = one.members["infra0"]
        with client(member.declared, ROOT) as c:
            c.put("a", "1")
            member.kill()
            member.start()
            seen = health.observe(etcd, timeout=1)
            for _ in range(100):
                if seen.all_healthy:
                    break
                seen = health.observe(etcd, timeout=1)
            # Its token died with the process; the connection is made anew, and so is the login.
            found = c.get("a")
            assert found is not None
            assert found.value == b"1"


def test_no_secret_in_what_is_shown() -> None:
    shown = AlluxioEtcd(username="alluxio", password=Secret(env="W"))
    assert "W" in str(shown)
    assert str(Permission.below("/DHT/c")) == "readwrite on /DHT/c*"
    assert str(Permission(b"a", b"", "read")) == "read on a"


def test_a_token_from_before_a_restore_is_not_kept(inventory: Inventory) -> None:
    """etcd's simple token ends with an index of the log, which a restored cluster is far behind."""
    member = inventory.etcd.members[0]
    with Fleet(1) as fleet:
        etcd = Etcd(inventory.etcd, fleet)
        carry_out(auth.enable(inventory, etcd, auth.observe(inventory, etcd)))
    endpoint = Endpoint("127.0.0.1", member.client_port)
    tokens = Tokens()
    with EtcdClient(endpoint, login=ROOT, tokens=tokens) as good:
        good.put("a", "1")
    token = tokens.get(endpoint, ROOT)
    assert token is not None
    name = token.partition(".")[0]
    tokens.keep(endpoint, ROOT, f"{name}.999999")
    # Either our clock ends the call, or etcd's does first: it calls the token invalid then.
    client = EtcdClient(endpoint, timeout=0.5, login=ROOT, tokens=tokens)
    with client as stale, contextlib.suppress(EtcdUnreachable):
        stale.put("a", "2")
    assert tokens.get(endpoint, ROOT) != f"{name}.999999"
    with EtcdClient(endpoint, login=ROOT, tokens=tokens) as again:
        again.put("a", "3")
