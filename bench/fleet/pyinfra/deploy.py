"""A worker as start-workers leaves it, as pyinfra's operations. Files come rendered, as data."""

import io

from pyinfra import host
from pyinfra.facts.server import Arch, Command, Hostname
from pyinfra.operations import files, server, systemd

# Preflight: what the tool reads before it changes anything, in as few commands as it takes.
host.get_fact(Hostname)
host.get_fact(Arch)
probed = host.get_fact(Command, command=host.data.probe)
assert host.data.java in probed, f"{host.name}: {probed}"

server.user(
    user=host.data.user,
    home=host.data.home,
    shell="/usr/sbin/nologin",
    system=True,
    ensure_home=False,
)
for d in host.data.directories:
    files.directory(path=d["path"], user=d["owner"], group=d["owner"], mode=d["mode"])
for f in host.data.files:
    files.put(
        src=io.StringIO(f["content"]),
        dest=f["path"],
        user=f["owner"],
        group=f["owner"],
        mode=f["mode"],
        create_remote_dir=False,
    )
for link in host.data.links:
    files.link(path=link["path"], target=link["target"])
systemd.service(service=host.data.unit, running=True, enabled=True)
