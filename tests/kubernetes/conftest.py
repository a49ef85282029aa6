"""The API server's etcd, and that of the chart, are those of the component tests."""

from tests.component.conftest import boot, etcd_binary

__all__ = ["boot", "etcd_binary"]
