"""The README's install without internet, on a host that has nothing but Debian's Python."""

from __future__ import annotations

import platform
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision import __version__
from release import bundle
from tests.docs import INSTALLS, blocks

from .lab import NET, Host, Lab, firewall

#: Debian 12's.
PYTHON = "3.11"
PLACE = "/srv/alxp-bundle"

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """python3-venv and all that it needs, from where this machine's apt has them."""
    folder = tmp_path_factory.mktemp("debs")
    # As for a machine on which nothing is installed.
    command = ["apt-get", "-qq", "-s", "--no-install-recommends", "-o"]
    command += ["Dir::State::status=/dev/null", "install", "python3-venv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = re.findall(r"^Inst (\S+) ", done.stdout, re.MULTILINE)
    if f"python{PYTHON}-venv" not in names:
        pytest.skip(f"this machine's apt has no Python {PYTHON}")
    fetch = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *names]
    subprocess.run(fetch, cwd=folder, check=True)
    return sorted(folder.glob("*.deb"))


@pytest.fixture
def machine(lab: Lab, debs: list[Path]) -> Iterator[Host]:
    """A host with Python, as a control machine. What was not there before goes again."""
    host = lab.workers[0]
    before = host.run("dpkg-query -W -f '${Package}\\n'").split()
    for deb in debs:
        host.put(f"{PLACE}/debs/{deb.name}", deb.read_bytes())
    try:
        # None that is there already: apt would take another release of it for a change.
        host.run(
            f"""cd {PLACE}/debs
            for deb in *.deb; do
              status=$(dpkg-query -W -f '${{db:Status-Status}}' "${{deb%%_*}}" 2>/dev/null) || :
              [ "$status" != installed ] || rm "$deb"
            done
            DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \\
              -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=/dev/null \\
              install ./*.deb >/dev/null""",
            timeout=300,
        )
        yield host
    finally:
        after = host.run("dpkg-query -W -f '${Package}\\n'").split()
        if new := sorted(set(after) - set(before)):
            names = " ".join(map(shlex.quote, new))
            host.run(f"dpkg --purge --force-depends {names} >/dev/null 2>&1 || :", timeout=300)
        host.run(f"rm -rf {PLACE}")


def test_a_control_machine_without_internet(machine: Host, tmp_path: Path) -> None:
    archive = bundle.bundle([PYTHON], platform.machine(), tmp_path)
    for path in (archive, archive.with_name(f"{archive.name}.sha256")):
        machine.put(f"{PLACE}/{path.name}", path.read_bytes())
    (install,) = (b for b in blocks("README.md", INSTALLS) if b.commands[0].startswith("sha256sum"))
    declared = f"{bundle.NAME}-{__version__}-linux-x86_64"
    commands = "\n".join(install.commands).replace(declared, archive.name.removesuffix(".tar.gz"))
    # Whatever the machine may reach otherwise: now it reaches itself and the lab.
    with firewall([machine], f"OUTPUT ! -o lo ! -d {NET}.0/24 -j REJECT"):
        printed = machine.run(f"export HOME={PLACE}; cd {PLACE}\n{commands}", timeout=300)
    assert printed.endswith(f"{bundle.NAME} {__version__}")
    tool = f"{PLACE}/{bundle.NAME}/bin/{bundle.NAME}"
    lists = "--etcd host1,host2,host3 --workers 'worker[1-20].example.com' --user deploy"
    shown = machine.run(
        f"export HOME={PLACE}; mkdir {PLACE}/empty; cd {PLACE}/empty\n"
        f"{tool} init-inventory {lists}\n{tool} show-inventory"
    )
    assert f"then {bundle.NAME} show-inventory" in shown
    assert "worker20.example.com" in shown
