"""The folder of a master's journal, as far as its properties define it."""

from __future__ import annotations

from provision.inventory import ports
from provision.inventory.resolved import AlluxioCluster, AlluxioMaster

FOLDER = "alluxio.master.journal.folder"


def folder(alluxio: AlluxioCluster, master: AlluxioMaster) -> str:
    """The journal folder of ``master``, from the properties in force on its host."""
    return str(ports.of_master(alluxio, master).get(FOLDER, journal_dir(alluxio)))


def is_embedded(alluxio: AlluxioCluster, master: AlluxioMaster) -> bool:
    """Whether ``master`` has a journal of its own, and not a journal in shared storage."""
    return any(one.name == "journal" for one in ports.master_listeners(alluxio, master))


def journal_dir(alluxio: AlluxioCluster) -> str:
    """A master's journal, outside the install folder so that it survives a reinstall."""
    return f"{alluxio.state_dir}/journal"
