"""Every way to a host: jump hosts, IPv6, sudo's password, agents, passphrases, ~/.ssh/config.

The hosts get a login whose sudo wants a password each time, a second sshd on another port with
two host keys, and IPv6 addresses. By IPv6, all but etcd0 can only be reached by way of etcd0.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .lab import NET, REPO, SSH, Host, Lab, firewall
from .test_preflight import listener

PORT = 2222
SSHD = "alxp-test-sshd.service"
PASSWORD = "it's a \\ $pass% word"
PREFIX = f"fd00:{NET.split('.')[2]}"
LAB_KEY = SSH / "id_ed25519"

pytestmark = pytest.mark.usefixtures("clean")


def v6(host: Host) -> str:
    return f"{PREFIX}::{host.address.rsplit('.', 1)[1]}"


def name6(host: Host) -> str:
    """A name of IPv6 only. Alluxio's etcd client takes no IPv6 addresses."""
    return f"{host.name}-6"


@dataclass(frozen=True)
class Site:
    """What the operator has on this machine."""

    folder: Path
    #: A home of the test's own, whose .ssh is empty.
    home: Path
    known_hosts: Path
    #: A key that has a passphrase.
    locked: Path
    passphrase: str = "open sesame"

    @property
    def env(self) -> dict[str, str]:
        return {"HOME": str(self.home), "SSH_AUTH_SOCK": ""}

    @property
    def password_file(self) -> str:
        path = self.folder / "sudo"
        path.write_text(PASSWORD + "\n")
        return str(path)


@pytest.fixture(scope="module")
def site(lab: Lab, clean: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    home, locked, known_hosts = folder / "home", folder / "locked", folder / "known_hosts"
    (home / ".ssh").mkdir(parents=True)
    found = Site(folder, home, known_hosts, locked)
    _keygen("-t", "ed25519", "-a", "1", "-N", found.passphrase, "-f", str(locked))
    hosts = list(lab.hosts.values())
    public = "".join(path.with_suffix(".pub").read_text() for path in (LAB_KEY, locked))
    bridge = f"{os.environ.get('ALXP_LAB_PREFIX', 'alxp')}br0"
    subprocess.run(
        ["ip", "-6", "addr", "replace", f"{PREFIX}::1/64", "dev", bridge, "nodad"], check=True
    )
    keys = lab.on(hosts, _prepare_login(public))
    lab.on(hosts, "".join(f"echo '{v6(h)} {name6(h)}' >>/etc/hosts\n" for h in lab.etcd))
    lines = []
    for host, key in zip(hosts, keys, strict=True):
        host.run(f"ip -6 addr replace {v6(host)}/64 dev eth0 nodad")
        # Of the worker only the RSA key is known; it has both.
        known = [k for k in key.splitlines() if ("rsa" in k) == (host in lab.workers)]
        lines += [f"[{address}]:{PORT} {k}" for k in known for address in (v6(host), host.address)]
    known_hosts.write_text("\n".join(lines) + "\n")
    _keygen("-H", "-f", str(known_hosts))
    others = [host for host in hosts if host.name != "etcd0"]
    blocked = f"INPUT -s {PREFIX}::1 -p tcp --dport {PORT} -j DROP"
    lab.on(others, f"ip6tables -I {blocked}")
    try:
        yield found
    finally:
        lab.on(
            hosts,
            f"""systemctl stop {SSHD}; ip6tables -F; rm /etc/sudoers.d/op /etc/ssh/test_rsa*
            grep -v '^{PREFIX}' /etc/hosts >/tmp/hosts; cat /tmp/hosts >/etc/hosts; rm /tmp/hosts
            userdel -r op 2>/dev/null""",
        )
        for host in hosts:
            host.run(f"ip -6 addr del {v6(host)}/64 dev eth0")
        subprocess.run(["ip", "-6", "addr", "del", f"{PREFIX}::1/64", "dev", bridge], check=True)


def _keygen(*options: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *options], check=True, capture_output=True)


def _prepare_login(public: str) -> str:
    return f"""
useradd -m -s /bin/sh op
chpasswd <<'END'
op:{PASSWORD}
END
printf '%s\\n' 'op ALL=(ALL:ALL) ALL' 'Defaults:op timestamp_timeout=0' >/etc/sudoers.d/op
install -d -m 700 -o op -g op ~op/.ssh
cat >~op/.ssh/authorized_keys <<'END'
{public}END
rm -f /etc/ssh/test_rsa*
ssh-keygen -q -t rsa -N '' -f /etc/ssh/test_rsa
systemd-run -q --collect --unit={SSHD} /usr/sbin/sshd -D -p {PORT} -o PidFile=none \\
  -o HostKey=/etc/ssh/ssh_host_ed25519_key -o HostKey=/etc/ssh/test_rsa
until ss -Htln 'sport = :{PORT}' | grep -q .; do sleep 0.05; done
cut -d ' ' -f 1-2 /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/test_rsa.pub"""


def by_ipv6(lab: Lab, site: Site, **ssh: Any) -> dict[str, Any]:
    """Changes to the inventory: every host by IPv6, from etcd0 on, as the login ``op``."""
    jump = f"op@[{v6(lab.etcd[0])}]:{PORT}"
    known_hosts, password = str(site.known_hosts), {"file": site.password_file}
    return {
        "ssh": {
            **{"user": "op", "port": PORT, "jump": jump},
            **{"known_hosts": known_hosts, "sudo_password": password, **ssh},
        },
        "etcd": {"members": {h.name: {"host": v6(h), "address": name6(h)} for h in lab.etcd}},
        "alluxio": {
            # Alluxio's own scripts say the opposite.
            "env": {"_JAVA_OPTIONS": "-Djava.net.preferIPv4Stack=false"},
            "workers": {"worker0": {"host": v6(lab.workers[0])}, "worker1": None},
        },
    }


def by_ipv4(lab: Lab, site: Site, **ssh: Any) -> Path:
    """An inventory of the lab's own addresses, as the login ``op``."""
    password = {"file": site.password_file}
    login = {"user": "op", "port": PORT, "known_hosts": str(site.known_hosts)}
    return lab.inventory({"ssh": {**login, "sudo_password": password, **ssh}})


class TestEverythingAtOnce:
    """A cluster by IPv6 through a jump host, as a login whose sudo wants a password."""

    def test_a_cluster_comes_up(self, lab: Lab, site: Site) -> None:
        inventory = lab.inventory(by_ipv6(lab, site))
        endpoint = f"http://{name6(lab.etcd[2])}:2379"
        lab.invoke("deploy-etcd", inventory, env=site.env).expect(0, endpoint)
        lab.invoke("start-workers", inventory, env=site.env).expect(0, "1 of 1 live")
        checked = lab.invoke("check-nodes", inventory, "--format", "json", env=site.env)
        (node,) = checked.expect(0).json["alluxio"]["nodes"]
        assert (node["state"], node["host"]) == ("LIVE", v6(lab.workers[0]))
        assert node["info_nodes"] == "ONLINE"

    def test_a_second_run_changes_nothing_in_one_round_trip(self, lab: Lab, site: Site) -> None:
        inventory = lab.inventory(by_ipv6(lab, site))
        again = lab.invoke("deploy-etcd", inventory, "--stats", env=site.env)
        again.expect(0, "0 changed", "at most 1 a host")  # which cluster it is, and the facts

    def test_the_password_is_left_nowhere(self, lab: Lab, site: Site) -> None:
        found = lab.on(
            list(lab.hosts.values()),
            """journalctl --no-pager | grep -F 'pass% word' || :
            grep -rlF 'pass% word' /etc /opt /run /var /tmp 2>/dev/null || :""",
        )
        assert set(found) == {""}

    def test_it_is_taken_away_again(self, lab: Lab, site: Site) -> None:
        inventory = lab.inventory(by_ipv6(lab, site))
        lab.invoke("destroy", inventory, "--yes-delete", lab.name, env=site.env).expect(0)
        assert lab.left_over() == {}


class TestOpenSsh:
    """What export-ssh-config prints, by the ssh that operators have."""

    def test_ssh_goes_where_the_tool_goes(self, lab: Lab, site: Site, tmp_path: Path) -> None:
        inventory = lab.inventory(by_ipv6(lab, site, key=str(LAB_KEY)))
        printed = lab.invoke("export-ssh-config", inventory, env=site.env).expect(0)
        config = tmp_path / "config"
        config.write_text(printed.stdout)

        def ssh(host: str) -> str:
            command = ["ssh", "-F", str(config), "-o", "BatchMode=yes", host]
            done = subprocess.run(
                [*command, "echo $(hostname) $(id -un) ${SSH_CONNECTION##* }"],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, **site.env},
            )
            return done.stdout.strip() or done.stderr

        assert ssh("etcd0") == f"etcd0 op {PORT}"
        assert ssh("worker0") == ssh(v6(lab.workers[0])) == f"worker0 op {PORT}"
        site_hosts = site.known_hosts.read_text()
        try:
            site.known_hosts.write_text("")
            assert "Host key verification failed" in ssh("worker0")
        finally:
            site.known_hosts.write_text(site_hosts)


def on_terminal(command: Sequence[str], env: Mapping[str, str], typed: str) -> tuple[int, str]:
    """Exit code and output of a command with a terminal, where ``typed`` answers each prompt."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(REPO)
        os.execvpe(command[0], list(command), {**os.environ, **env})
    seen, answered = "", 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                data = os.read(terminal, 4096)
            except OSError:
                break
            seen += data.decode(errors="replace")
            while len(re.findall(r"(?:password|passphrase) of .*?: ", seen)) > answered:
                answered += 1
                os.write(terminal, f"{typed}\n".encode())
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), seen


class TestSudo:
    def test_the_password_is_asked_for_once(self, lab: Lab, site: Site) -> None:
        inventory = by_ipv4(lab, site, sudo_password={"ask": True})
        command = lab.command("deploy-etcd", inventory, "--dry-run")
        code, seen = on_terminal(command, site.env, PASSWORD)
        assert code == 0, seen
        assert seen.count("sudo password of op: ") == 1
        assert "would change" in seen
        assert "pass%" not in seen

    def test_a_wrong_one_is_said_and_tried_once_a_host(self, lab: Lab, site: Site) -> None:
        (site.folder / "wrong").write_text("wrong")
        wrong = {"file": str(site.folder / "wrong")}
        inventory = by_ipv4(lab, site, sudo_password=wrong)
        failures = "journalctl -t sudo -o cat --no-pager | grep -c 'op : .*incorrect password' || :"
        before = lab.on(lab.etcd, failures)
        failed = lab.invoke("deploy-etcd", inventory, env=site.env)
        failed.expect(3, "sudo did not accept the password", "nothing was changed")
        assert failed.stderr.count("sudo did not accept") == len(lab.etcd)
        after = lab.on(lab.etcd, failures)
        assert [int(n) for n in after] == [int(n) + 1 for n in before]

    def test_one_that_is_not_wanted_does_no_harm(self, lab: Lab, site: Site) -> None:
        """sudo of the login vagrant wants none: the shell must not take it for a command."""
        inventory = by_ipv4(lab, site, user="vagrant")
        dry = lab.invoke("deploy-etcd", inventory, "--dry-run", env=site.env)
        dry.expect(0, "would change")

    @pytest.mark.parametrize(
        ("secret", "code", "says"),
        [
            (None, 3, "give ssh.sudo_password"),
            ({"ask": True}, 2, "there is no terminal"),
            ({"env": "NOT_SET_ANYWHERE"}, 2, "NOT_SET_ANYWHERE is not set"),
        ],
    )
    def test_without_one(self, lab: Lab, site: Site, secret: Any, code: int, says: str) -> None:
        inventory = by_ipv4(lab, site, sudo_password=secret)
        command = ["setsid", "-w", *lab.command("deploy-etcd", inventory)]
        done = subprocess.run(
            command,
            cwd=REPO,
            env={**os.environ, **site.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert says in done.stderr


#: What hosts of others have: a shell that greets, an environment for everybody, a sudo that keeps
#: it and has no path of its own and records all input and output, a proxy for every service,
#: service users in a group of the site's.
HABITS = r"""
usermod -s /bin/bash op
printf '%s\n' 'echo "Welcome to $(hostname)"' 'echo "sudo: a password is required" >&2' >~op/.bashrc
cp -p /etc/environment /etc/environment.kept 2>/dev/null || : >/etc/environment.kept
cat >/etc/environment <<'END'
PATH=/usr/bin:/bin
LANG=de_DE.UTF-8
LC_ALL=de_DE.UTF-8
ETCDCTL_ENDPOINTS=http://127.0.0.1:1
ETCDCTL_USER=nobody:x
ETCD_NAME=other
JAVA_TOOL_OPTIONS=-Dnothing=1
http_proxy=http://127.0.0.1:1
END
echo 'Defaults:op !secure_path, !env_reset, log_input, log_output, use_pty' >>/etc/sudoers.d/op
systemctl set-environment HTTP_PROXY=http://127.0.0.1:1 HTTPS_PROXY=http://127.0.0.1:1
for user in etcd alluxio; do
  userdel $user 2>/dev/null || :
  groupdel $user 2>/dev/null || :
  useradd --system --no-create-home --gid users $user
done"""
NO_HABITS = r"""
usermod -s /bin/sh op
rm -f ~op/.bashrc
mv /etc/environment.kept /etc/environment
sed -i '/!secure_path/d; /requiretty/d' /etc/sudoers.d/op
rm -rf /var/log/sudo-io
systemctl unset-environment HTTP_PROXY HTTPS_PROXY
for user in etcd alluxio; do userdel $user; groupdel $user 2>/dev/null || :; done"""


@pytest.fixture
def habits(lab: Lab, site: Site) -> Iterator[list[Host]]:
    hosts = list(lab.hosts.values())
    lab.on(hosts, HABITS)
    try:
        yield hosts
    finally:
        lab.on(hosts, NO_HABITS)


class TestHabits:
    def test_a_cluster_comes_up_all_the_same(
        self, lab: Lab, site: Site, habits: list[Host]
    ) -> None:
        inventory = by_ipv4(lab, site)
        lab.invoke("deploy-etcd", inventory, env=site.env).expect(0)
        lab.invoke("start-workers", inventory, env=site.env).expect(0)
        again = lab.invoke("deploy-etcd", inventory, "-v", env=site.env)
        again.expect(0, "0 changed", "its login shell prints: Welcome to etcd0")
        lab.invoke("check-nodes", inventory, env=site.env).expect(0)
        saved = site.folder / "saved.db"
        lab.invoke("backup-etcd", inventory, "--to", str(saved), env=site.env).expect(0)
        lab.invoke("destroy", inventory, "--yes-delete", lab.name, env=site.env).expect(0)
        assert lab.left_over() == {}

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ("echo 'Defaults:op requiretty' >>/etc/sudoers.d/op", "(requiretty)"),
            ("usermod -s /usr/sbin/nologin op", "its login shell runs no command: This account"),
        ],
    )
    def test_one_that_lets_nobody_work_says_so(
        self, lab: Lab, site: Site, habits: list[Host], change: str, says: str
    ) -> None:
        lab.on(lab.etcd, change)
        lab.invoke("deploy-etcd", by_ipv4(lab, site), env=site.env).expect(3, says)


@contextmanager
def hardened(lab: Lab, site: Site, options: str) -> Iterator[Path]:
    """One more sshd on every host, with ``options``; the inventory that uses it."""
    hosts, port, unit = list(lab.hosts.values()), PORT + 1, "alxp-test-hardened.service"
    lab.on(
        hosts,
        f"""systemd-run -q --collect --unit={unit} /usr/sbin/sshd -D -p {port} -o PidFile=none \\
          -o HostKey=/etc/ssh/ssh_host_ed25519_key {options}
        until ss -Htln 'sport = :{port}' | grep -q .; do sleep 0.05; done""",
    )
    keys = lab.on(hosts, "cut -d ' ' -f 1-2 /etc/ssh/ssh_host_ed25519_key.pub")
    known = site.folder / "hardened"
    lines = [f"[{h.address}]:{port} {k.strip()}\n" for h, k in zip(hosts, keys, strict=True)]
    known.write_text("".join(lines))
    try:
        yield by_ipv4(lab, site, port=port, known_hosts=str(known))
    finally:
        lab.on(hosts, f"systemctl stop {unit}")


class TestHardened:
    @pytest.mark.parametrize(
        ("sessions", "more"), [(1, ""), (2, ""), (1, "-o AllowTcpForwarding=no")]
    )
    def test_few_sessions_on_a_connection(
        self, lab: Lab, site: Site, sessions: int, more: str
    ) -> None:
        """The run lock holds one of them, a scratch member another, and a third is the way to it
        where sshd does not forward."""
        with hardened(lab, site, f"-o MaxSessions={sessions} {more}") as inventory:
            lab.invoke("deploy-etcd", inventory, env=site.env).expect(0)
            lab.invoke("start-workers", inventory, env=site.env).expect(0)
            saved = site.folder / f"saved-{sessions}{len(more)}"
            lab.invoke("backup-etcd", inventory, "--to", str(saved), env=site.env).expect(0)
            lab.invoke("destroy", inventory, "--yes-delete", lab.name, env=site.env).expect(0)
        assert lab.left_over() == {}

    @pytest.mark.parametrize("options", ["AllowTcpForwarding=no", "PermitOpen=none"])
    def test_without_forwarding(self, lab: Lab, site: Site, options: str) -> None:
        """The client ports can be reached from here; a scratch member's cannot."""
        with hardened(lab, site, f"-o {options}") as inventory:
            lab.invoke("deploy-etcd", inventory, env=site.env).expect(0)
            lab.invoke("start-workers", inventory, env=site.env).expect(0)
            lab.invoke("check-nodes", inventory, env=site.env).expect(0)
            saved = site.folder / f"saved-{options}"
            done = lab.invoke("backup-etcd", inventory, "--to", str(saved), env=site.env)
            done.expect(0, "restored into a scratch member")
            [file] = saved.glob("*.db")
            lab.invoke(
                "restore-etcd", inventory, str(file), "--yes-restore", lab.name, env=site.env
            ).expect(0, "the snapshot is proven")
            lab.invoke("check-nodes", inventory, env=site.env).expect(0)
            lab.invoke("destroy", inventory, "--yes-delete", lab.name, env=site.env).expect(0)
        assert lab.left_over() == {}

    def test_closed_ports_without_forwarding_are_said_first(self, lab: Lab, site: Site) -> None:
        closed = f"INPUT -s {NET}.1 -p tcp --dport 2379 -j DROP"
        with hardened(lab, site, "-o AllowTcpForwarding=no") as inventory:
            with firewall(lab.etcd, closed):
                done = lab.invoke("deploy-etcd", inventory, env=site.env)
                for host in lab.etcd:
                    done.expect(3, f"{host.name} at {host.address}", "AllowTcpForwarding")
            assert lab.left_over() == {}
            lab.invoke("deploy-etcd", inventory, env=site.env).expect(0)
            with firewall(lab.etcd, closed):
                done = lab.invoke("deploy-etcd", inventory, env=site.env)
                done.expect(3, "AllowTcpForwarding", "preflight failed; nothing was changed")
                for task in ("defrag-etcd", "backup-etcd"):
                    done = lab.invoke(task, inventory, env=site.env)
                    assert done.code in (1, 3), done.text
                    done.expect(done.code, "AllowTcpForwarding")
            lab.invoke("destroy", inventory, "--yes-delete", lab.name, env=site.env).expect(0)


@contextmanager
def agent(*keys: Path, passphrase: str = "") -> Iterator[dict[str, str]]:
    """An ssh-agent with ``keys``; the environment that leads to it."""
    said = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    env = dict(re.findall(r"(SSH_[A-Z_]+)=([^;]+);", said))
    try:
        for key in keys:
            ask = key.with_name("ask")
            ask.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
            ask.chmod(0o700)
            subprocess.run(
                ["ssh-add", "-q", str(key)],
                env={**os.environ, **env, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"},
                check=True,
            )
        yield env
    finally:
        subprocess.run(["kill", env["SSH_AGENT_PID"]], check=True)


class TestLogin:
    """One host is asked for its log: one connection."""

    def logs(self, lab: Lab, inventory: Path, env: Mapping[str, str]) -> Any:
        return lab.invoke("logs", inventory, "etcd1", env=env)

    def test_a_key_that_only_the_agent_has(self, lab: Lab, site: Site) -> None:
        inventory = by_ipv4(lab, site, key=None)
        self.logs(lab, inventory, site.env).expect(3, "login refused for op: there is no key")
        with agent(site.locked, passphrase=site.passphrase) as env:
            self.logs(lab, inventory, {**site.env, **env}).expect(0)
            # Its file is named, and locked: the agent's is taken.
            inventory = by_ipv4(lab, site, key=str(site.locked))
            self.logs(lab, inventory, {**site.env, **env}).expect(0)

    def test_a_key_with_a_passphrase(self, lab: Lab, site: Site) -> None:
        key = str(site.locked)
        done = self.logs(lab, by_ipv4(lab, site, key=key), site.env)
        done.expect(3, f"{key} has a passphrase, and ssh-agent does not have the key")
        inventory = by_ipv4(lab, site, key=key, key_passphrase={"env": "PHRASE"})
        self.logs(lab, inventory, {**site.env, "PHRASE": site.passphrase}).expect(0)
        wrong = self.logs(lab, inventory, {**site.env, "PHRASE": "wrong"})
        wrong.expect(3, f"login refused: {key} does not open with the passphrase")

    def test_ssh_config_is_respected(self, lab: Lab, site: Site, tmp_path: Path) -> None:
        """Names, login, port, key, known hosts and the jump host are all from there."""
        etcd0, etcd1 = lab.etcd[:2]
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "config").write_text("Include conf.d/*\n")
        (tmp_path / ".ssh" / "conf.d").mkdir()
        (tmp_path / ".ssh" / "conf.d" / "lab").write_text(
            f"""
Host second
  HostName {v6(etcd1)}
  ProxyJump first
Host first
  HostName {v6(etcd0)}
Host first second
  User op
  Port {PORT}
  IdentityFile {LAB_KEY}
  UserKnownHostsFile {site.known_hosts}
  StrictHostKeyChecking no
"""
        )
        members = {"etcd1": {"host": "second", "address": etcd1.address}}
        password = {"file": site.password_file}
        ssh = {"user": None, "key": None, "known_hosts": None, "sudo_password": password}
        inventory = lab.inventory({"ssh": ssh, "etcd": {"members": members}})
        env = {"HOME": str(tmp_path), "SSH_AUTH_SOCK": ""}
        self.logs(lab, inventory, env).expect(0)
        site_hosts = site.known_hosts.read_text()
        try:
            site.known_hosts.write_text("")
            unknown = self.logs(lab, inventory, env)
            unknown.expect(3, "jump host first: the host key is not in known_hosts")
        finally:
            site.known_hosts.write_text(site_hosts)

    def test_several_jump_hosts(self, lab: Lab, site: Site) -> None:
        """etcd1 opens its door to etcd2 only, and etcd2 to etcd0 only."""
        etcd0, etcd1, etcd2 = lab.etcd
        door = f"INPUT -p tcp --dport {PORT} ! -s"
        jump = ",".join(f"op@{host.address}:{PORT}" for host in (etcd0, etcd2))
        inventory = by_ipv4(lab, site, jump=jump, connect_timeout=3)
        with (
            firewall([etcd1], f"{door} {etcd2.address} -j DROP"),
            firewall([etcd2], f"{door} {etcd0.address} -j DROP"),
        ):
            self.logs(lab, inventory, site.env).expect(0)
            wrong = jump.replace(etcd2.address, etcd0.address)
            away = self.logs(lab, by_ipv4(lab, site, jump=wrong, connect_timeout=3), site.env)
            away.expect(3, f"{etcd1.address} (", "no answer over SSH in time")

    def test_a_jump_host_of_another_key_is_not_passed(
        self, lab: Lab, site: Site, tmp_path: Path
    ) -> None:
        etcd0, etcd1, _ = lab.etcd
        path = tmp_path / "known_hosts"
        key = etcd1.read("/etc/ssh/ssh_host_ed25519_key.pub")
        path.write_text("".join(f"[{h.address}]:{PORT} {key}\n" for h in lab.etcd))
        jump = f"op@{etcd0.address}:{PORT}"
        inventory = by_ipv4(lab, site, known_hosts=str(path), jump=jump)
        refused = self.logs(lab, inventory, site.env)
        refused.expect(3, f"jump host {etcd0.address}: the host key differs")


def test_hosts_that_are_silent_or_close_hold_up_no_other(lab: Lab, site: Site) -> None:
    """etcd1 takes connections and says nothing; etcd2 is reset at once."""
    members = {name: {"ssh": {"port": 2223}} for name in ("etcd1", "etcd2")}
    changes = {"ssh": {"connect_timeout": 3}, "parallel": 3, "etcd": {"members": members}}
    inventory = lab.inventory(changes)
    reset = "INPUT -p tcp --dport 2223 -j REJECT --reject-with tcp-reset"
    with listener(lab.etcd[1], 2223), firewall([lab.etcd[2]], reset):
        failed = lab.invoke("deploy-etcd", inventory, "--stats", env=site.env)
    failed.expect(3, f"{lab.etcd[1].address} (", "does not answer as SSH")
    failed.expect(3, f"{lab.etcd[2].address} (", "cannot connect")
    failed.expect(3, f"  {lab.etcd[0].address}: 1 in ")
