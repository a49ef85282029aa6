"""An etcd as a value: its keys, leases, alarms and users, and the calls that it got.

:func:`install` lets every handle reach it. A call that :attr:`FakeEtcd.fail` names raises instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from provision.etcd.api import paging
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import (
    Alarm,
    Endpoint,
    KeyValue,
    LeaseTime,
    Login,
    MemberStatus,
    Permission,
)
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.reach import Reach
from provision.inventory.resolved import EtcdMember

STATUS = MemberStatus(1, 1, "3.6.16", 100, 50, 1, 9, 2, 30, False, ())


def refused(reason: Reason = Reason.LOGIN) -> EtcdUnreachable:
    return EtcdUnreachable(Endpoint("10.0.0.1", 2379), reason)


class FakeEtcd:
    """``calls`` are the changes, and the calls without an answer; ``clients`` says by which way
    clients were opened (the member's name, ``any`` or ``leader``) and with which login."""

    def __init__(self) -> None:
        self.keys: dict[bytes, KeyValue] = {}
        self.times: dict[int, LeaseTime] = {}
        self.alarms: list[Alarm] = []
        self.users: dict[str, tuple[str, ...]] = {}
        self.roles: dict[str, tuple[Permission, ...]] = {}
        self.enabled = False
        self.statuses: list[MemberStatus] = [STATUS]
        self.revision = 9
        self.fail: dict[str, Exception] = {}
        self.calls: list[tuple[object, ...]] = []
        self.clients: list[tuple[str, Login | None]] = []
        #: Called before each call, with its name.
        self.before: Callable[[str], None] = lambda name: None

    def put(self, key: str, value: str, lease: int = 0, mod: int = 5) -> None:
        self.keys[key.encode()] = KeyValue(key.encode(), value.encode(), lease, mod)

    def changes(self) -> list[tuple[object, ...]]:
        found = list(self.calls)
        self.calls.clear()
        return found


class FakeClient:
    def __init__(self, etcd: FakeEtcd, login: Login | None) -> None:
        self._etcd, self._login = etcd, login

    def _do(self, name: str, *given: object, said: bool = True) -> None:
        self._etcd.before(name)
        if said:
            self._etcd.calls.append((name, *given))
        if (error := self._etcd.fail.get(name)) is not None:
            raise error

    @property
    def logged_in(self) -> bool:
        return self._etcd.enabled and self._login is not None

    def log_in(self) -> bool:
        self._do("log_in", said=False)
        return self._etcd.enabled

    def auth_enabled(self) -> bool:
        self._do("auth_enabled", said=False)
        return self._etcd.enabled

    def status(self) -> MemberStatus:
        self._do("status", said=False)
        left = self._etcd.statuses
        return left.pop(0) if len(left) > 1 else left[0]

    def range(self, prefix: str | bytes, **_: Any) -> tuple[int, list[KeyValue]]:
        self._do("range", said=False)
        first = prefix.encode() if isinstance(prefix, str) else prefix
        found = [kv for key, kv in sorted(self._etcd.keys.items()) if key.startswith(first)]
        return self._etcd.revision, found

    def scan(self, start: bytes, end: bytes, **_: Any) -> paging.Scan:
        self._do("range", said=False)
        found = [kv for key, kv in sorted(self._etcd.keys.items()) if start <= key < end]
        return paging.Scan(self._etcd.revision, found)

    def interval(self, start: bytes, end: bytes, **_: Any) -> tuple[int, list[KeyValue]]:
        found = self.scan(start, end)
        return found.revision, found.keys

    def get(self, key: str | bytes) -> KeyValue | None:
        self._do("get", said=False)
        return self._etcd.keys.get(key.encode() if isinstance(key, str) else key)

    def create(self, key: bytes, value: bytes) -> bool:
        self._do("create", key, value)
        if key in self._etcd.keys:
            return False
        self._etcd.keys[key] = KeyValue(key, value, 0, 10)
        return True

    def delete(self, key: bytes, *, if_mod_revision: int, if_absent: bytes) -> bool:
        self._do("delete", key)
        there = self._etcd.keys.get(key)
        if there is None or there.mod_revision != if_mod_revision or if_absent in self._etcd.keys:
            return False
        del self._etcd.keys[key]
        return True

    def lease_time(self, lease: int) -> LeaseTime:
        self._do("lease_time", said=False)
        return self._etcd.times.get(lease, LeaseTime(0, 0))

    def lease_times(self, leases: Sequence[int], seconds: float) -> dict[int, LeaseTime]:
        assert seconds > 0
        self._do("lease_times", said=False)
        return {n: self._etcd.times[n] for n in leases if n in self._etcd.times}

    def lease_revoke(self, lease: int) -> None:
        self._do("lease_revoke", lease)

    def alarms(self) -> list[Alarm]:
        self._do("alarms", said=False)
        return list(self._etcd.alarms)

    def disarm(self, alarm: Alarm) -> None:
        self._do("disarm", alarm)
        self._etcd.alarms.remove(alarm)

    def compact(self, revision: int) -> None:
        self._do("compact", revision)

    def defragment(self) -> None:
        self._do("defragment")

    def users(self) -> dict[str, tuple[str, ...]]:
        return dict(self._etcd.users)

    def roles(self) -> dict[str, tuple[Permission, ...]]:
        return dict(self._etcd.roles)

    def user_add(self, name: str, password: str) -> None:
        self._do("user_add", name, password)

    def user_change_password(self, name: str, password: str) -> None:
        self._do("user_change_password", name, password)

    def user_grant_role(self, name: str, role: str) -> None:
        self._do("user_grant_role", name, role)

    def role_add(self, name: str) -> None:
        self._do("role_add", name)

    def role_grant(self, role: str, permission: Permission) -> None:
        self._do("role_grant", role, permission)

    def role_revoke(self, role: str, permission: Permission) -> None:
        self._do("role_revoke", role, permission)

    def auth_enable(self) -> None:
        self._do("auth_enable")
        self._etcd.enabled = True

    def auth_disable(self) -> None:
        self._do("auth_disable")
        self._etcd.enabled = False


def install(monkeypatch: pytest.MonkeyPatch) -> FakeEtcd:
    """The etcd that every handle reaches from now on."""
    etcd = FakeEtcd()

    @contextlib.contextmanager
    def anyone(handle: Etcd, **_: Any) -> Iterator[FakeClient]:
        etcd.clients.append(("any", handle.login))
        yield FakeClient(etcd, handle.login)

    @contextlib.contextmanager
    def leader(handle: Etcd, **_: Any) -> Iterator[tuple[FakeClient, EtcdMember]]:
        etcd.clients.append(("leader", handle.login))
        yield FakeClient(etcd, handle.login), handle.cluster.members[0]

    @contextlib.contextmanager
    def one(handle: Reach, member: EtcdMember, **_: Any) -> Iterator[FakeClient]:
        etcd.clients.append((member.name, handle.login))
        yield FakeClient(etcd, handle.login)

    monkeypatch.setattr(Etcd, "any", anyone)
    monkeypatch.setattr(Etcd, "leader", leader)
    monkeypatch.setattr(Reach, "member", one)
    return etcd


def changed(status: MemberStatus = STATUS, **values: Any) -> MemberStatus:
    return replace(status, **values)
