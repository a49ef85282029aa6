"""Alarms that no fault of a disk has raised."""

from __future__ import annotations

from provision.etcd.api.client import EtcdClient


def activate(client: EtcdClient, kind: str, member_id: int) -> None:
    """Raise an alarm as a member of etcd does (``triggerCorruptAlarm`` of its ``corrupt.go``)."""
    pb = client._lib.pb
    request = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=member_id, alarm=kind)
    client._call(client._maintenance.Alarm, request)
