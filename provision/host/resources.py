"""Resources: the things that can be declared for a host.

Each kind is a class in :mod:`provision.host.kinds`. A resource's ``restarts`` names the systemd
units that need a restart to notice its change.
"""

from provision.host.diff import Refusal, Resource
from provision.host.kinds.certificates import Certificate
from provision.host.kinds.files import MASK, DataDisk, Directory, File, Identity, Link
from provision.host.kinds.system import MADE_BY, Package, User
from provision.host.kinds.trees import MARKER, OWNER, Move, Tree, holds
from provision.host.kinds.units import Absent, Unit

__all__ = [
    "MADE_BY",
    "MARKER",
    "MASK",
    "OWNER",
    "Absent",
    "Certificate",
    "DataDisk",
    "Directory",
    "File",
    "Identity",
    "Link",
    "Move",
    "Package",
    "Refusal",
    "Resource",
    "Tree",
    "Unit",
    "User",
    "holds",
]
