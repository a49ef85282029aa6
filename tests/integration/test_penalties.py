"""OpenSSH's PerSourcePenalties on hosts: from 9.8 on, sshd refuses an address for a while.

By its ``srclimit.c`` and ``servconf.c``, with the values that nobody has set: a failed login costs
the address 5 s, a connection without a login 1 s, and from more than 15 s on sshd drops the
address's connections until the time is over. Each test has an sshd of its own on every host, whose
count begins at nothing. The lab's Debian 12 has an older sshd: ``tests/debians trixie`` runs this.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .lab import SSH, Done, Lab, wait_until
from .test_ssh import agent

PORT = 2224
UNIT = "alxp-test-penalties.service"
FIRST = (9, 8)
LAB_KEY = SSH / "id_ed25519"

pytestmark = pytest.mark.usefixtures("clean")


class Site:
    """What the operator has: a home, and the keys of the hosts."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.home = folder / "home"
        (self.home / ".ssh").mkdir(parents=True)
        self.known_hosts = folder / "known_hosts"

    def env(self, **more: str) -> dict[str, str]:
        return {"HOME": str(self.home), "SSH_AUTH_SOCK": "", **more}

    def key(self, name: str) -> Path:
        """A key that no host takes."""
        path = self.folder / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(command, check=True)
        return path

    def inventory(self, **ssh: Any) -> Path:
        login = {"port": PORT, "known_hosts": str(self.known_hosts)}
        return self.lab.inventory({"ssh": {**login, **ssh}})

    def logs(self, pattern: str) -> list[list[str]]:
        """The lines of each host's sshd that match."""
        said = self.lab.on([*self.lab.hosts.values()], f"journalctl -u {UNIT} -o cat --no-pager")
        return [[line for line in text.splitlines() if re.search(pattern, line)] for text in said]


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[Site]:
    hosts = [*lab.hosts.values()]
    version = re.search(r"OpenSSH_(\d+)\.(\d+)", hosts[0].run("/usr/sbin/sshd -V 2>&1 || :"))
    assert version is not None
    if (int(version[1]), int(version[2])) < FIRST:
        pytest.skip(f"{version[0]} on the hosts has no PerSourcePenalties")
    lab.on(
        hosts,
        f"""journalctl -q --rotate --vacuum-time=1s -u {UNIT} >/dev/null 2>&1 || :
        systemd-run -q --collect --unit={UNIT} /usr/sbin/sshd -D -p {PORT} -o PidFile=none \\
          -o LogLevel=VERBOSE -o HostKey=/etc/ssh/ssh_host_ed25519_key
        until ss -Htln 'sport = :{PORT}' | grep -q .; do sleep 0.05; done""",
    )
    found = Site(lab, tmp_path)
    keys = lab.on(hosts, "cut -d ' ' -f 1-2 /etc/ssh/ssh_host_ed25519_key.pub")
    lines = [f"[{h.address}]:{PORT} {k}\n" for h, k in zip(hosts, keys, strict=True)]
    found.known_hosts.write_text("".join(lines))
    try:
        yield found
    finally:
        lab.on(hosts, f"systemctl stop {UNIT}")


def test_a_ban_is_said_and_ends(lab: Lab, site: Site) -> None:
    """After some wrong logins the host refuses every login from here, right or wrong."""
    wrong = site.inventory(key=str(site.key("wrong")))
    right = site.inventory()
    for _ in range(12):
        refused = lab.invoke("logs", wrong, "etcd1", env=site.env())
        if "login refused for vagrant with" not in refused.text:
            break
    banned = lab.invoke("logs", right, "etcd1", env=site.env())
    banned.expect(3, "refuses connections from this machine for now", "PerSourcePenalties")
    banned.expect(3, "wait some minutes, then run again", "[host-unreachable]")
    dropped = site.logs("drop connection .* penalty: failed authentication")
    assert [bool(lines) for lines in dropped] == [h.name == "etcd1" for h in lab.hosts.values()]

    def answers() -> bool:
        return lab.invoke("logs", right, "etcd1", env=site.env()).code == 0

    wait_until(answers, "the ban ends", 60)


def test_one_run_with_a_wrong_login_is_one_failure_at_each_host(lab: Lab, site: Site) -> None:
    """So the next run, with the right one, comes through."""
    wrong = site.inventory(user="nobody")
    for task in ("deploy-etcd", "check-nodes"):
        lab.invoke(task, wrong, env=site.env()).expect(3 if task == "deploy-etcd" else 1)
    closed = site.logs("Connection closed by authenticating user nobody")
    assert [len(lines) for lines in closed] == [
        2 if h in lab.etcd else 1 for h in lab.hosts.values()
    ]
    lab.invoke("deploy-etcd", site.inventory(), "--dry-run", env=site.env()).expect(0)


def test_the_tool_itself_is_never_banned(lab: Lab, site: Site) -> None:
    """Runs with five wrong keys in the agent, and scans with wrong and with no host keys."""
    others = [site.key(f"other{n}") for n in range(5)]
    right = site.known_hosts.read_text()
    other = site.key("host").with_suffix(".pub").read_text().split()[:2]
    wrong = "".join(f"{line.split()[0]} {' '.join(other)}\n" for line in right.splitlines())
    inventory = site.inventory(key=None)

    def scan(known: str, expected: str) -> Done:
        site.known_hosts.write_text(known)
        file = site.folder / "fingerprints"
        file.write_text(expected)
        return lab.invoke("trust-hosts", inventory, "--yes", "--fingerprints", str(file), env=env)

    with agent(*others, LAB_KEY) as found:
        env = site.env(**found)
        lab.invoke("deploy-etcd", inventory, env=env).expect(0)
        lab.invoke("start-workers", inventory, env=env).expect(0)
        lab.invoke("check-nodes", inventory, env=env).expect(0)
        scan("", wrong).expect(3)
        lab.invoke("check-nodes", inventory, env=env).expect(1, "not in known_hosts")
        scan(wrong, right).expect(3)
        lab.invoke("check-nodes", inventory, env=env).expect(1, "the host key differs")
        scan("", right).expect(0)
        lab.invoke("deploy-etcd", inventory, env=env).expect(0, "0 changed")
        lab.invoke("destroy", inventory, "--yes-delete", lab.name, env=env).expect(0)
    # sshd counts them, so the assertion below is worth something.
    assert all(site.logs("deferred .* connections without attempting authentication"))
    assert not any(site.logs("drop connection|active penalty|activating|failed authentication"))
