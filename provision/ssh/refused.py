"""The error of a connection that this tool or the host refuses."""

from __future__ import annotations

import paramiko

from provision.ids import Id


class Refused(paramiko.SSHException):
    """A connection that this tool or the host refuses. ``str`` is the reason, ``remedy`` the
    remedy."""

    def __init__(self, what: str, remedy: str, *, id: Id) -> None:
        super().__init__(what)
        self.remedy, self.id = remedy, id
