"""This tool's own login to etcd."""

from __future__ import annotations

from provision.errors import UsageError
from provision.etcd.api.values import Login
from provision.inventory.resolved import EtcdCluster


def root_login(cluster: EtcdCluster) -> Login | None:
    """This tool's own login: etcd's user root, if the inventory has its password.

    Raises :class:`UsageError` when the secret cannot be read.
    """
    secret = cluster.auth.root_password
    if secret is None:
        return None
    try:
        return Login("root", secret.reveal())
    except (LookupError, OSError, ValueError) as error:
        reason = error.args[0] if isinstance(error, LookupError) else error
        raise UsageError(
            f"the secret for etcd.auth.root_password cannot be read: {reason}",
            id="secret-unreadable",
        ) from error
