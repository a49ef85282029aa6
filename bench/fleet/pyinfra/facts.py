"""What `invoke status` and preflight read of a host, as pyinfra's facts."""

from pyinfra import host
from pyinfra.facts.files import FileContents
from pyinfra.facts.hardware import Memory
from pyinfra.facts.server import Arch, Command, Hostname, LinuxDistribution
from pyinfra.facts.systemd import SystemdEnabled, SystemdStatus

PROBE = "cat /etc/machine-id; date +%s.%N; df -PT -B1 /var/lib"


def look() -> None:
    host.get_fact(Hostname)
    host.get_fact(Arch)
    host.get_fact(LinuxDistribution)
    host.get_fact(Memory)
    host.get_fact(Command, command=PROBE)
    host.get_fact(FileContents, path=f"/etc/systemd/system/{host.data.unit}")
    status = host.get_fact(SystemdStatus, services=host.data.unit)
    host.get_fact(SystemdEnabled, services=host.data.unit)
    assert status[host.data.unit], f"{host.name}: {status}"


look()
