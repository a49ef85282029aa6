"""The way to a host: what the inventory says, then ssh_config(5) files of the operator's."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.inventory.model import jump_hosts
from provision.inventory.resolved import Machine
from provision.ssh import asked
from provision.ssh.route import Hop, route
from provision.ssh.tokens import ConfigError
from provision.ssh.user_config import UserConfig

ME = getpass.getuser()


@pytest.fixture(params=["ssh", "no ssh"], autouse=True)
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test is tried with ssh itself as the reader, and without ssh."""
    if request.param == "no ssh":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    elif shutil.which("ssh") is None:
        pytest.skip("no ssh here")
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without keys and files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def hops(machine: Machine, home: Path, config: str = "") -> tuple[Hop, ...]:
    path = home / ".ssh" / "config"
    path.write_text(config)
    return route(machine, UserConfig([path]))


def ways(machine: Machine, home: Path, config: str = "") -> list[str]:
    return [str(hop) for hop in hops(machine, home, config)]


CONFIG = """\
Host web
  HostName 10.0.0.9
  User admin
  Port 2222
  HostKeyAlias the-web
  UserKnownHostsFile ~/.ssh/web_hosts /dev/null
Host inner
  ProxyJump me@outer:2200,middle
Host middle
  User mid
Host *
  User anyone
"""


def test_without_a_word_it_is_port_22_and_the_own_login(home: Path) -> None:
    (hop,) = hops(Machine("h"), home)
    assert (hop.address, hop.port, hop.user, hop.keys) == ("h", 22, ME, ())
    assert hop.known_hosts[0] == home / ".ssh/known_hosts"


@pytest.mark.process
def test_an_alias_is_what_ssh_config_makes_of_it(home: Path) -> None:
    (hop,) = hops(Machine("web"), home, CONFIG)
    assert str(hop) == "admin@10.0.0.9:2222"
    assert hop.host_key_alias == "the-web"
    assert hop.known_hosts[:2] == (home / ".ssh/web_hosts", Path("/dev/null"))


@pytest.mark.process
def test_the_inventory_comes_first(home: Path) -> None:
    machine = Machine("web", "root", 23, known_hosts=Path("/k"), key=Path("/key"))
    (hop,) = hops(machine, home, CONFIG + "IdentityFile ~/.ssh/other\n")
    assert str(hop) == "root@10.0.0.9:23"
    assert (hop.keys, hop.known_hosts) == ((Path("/key"),), (Path("/k"),))


@pytest.mark.process
def test_jump_hosts_are_passed_in_the_order_written(home: Path) -> None:
    expected = ["me@outer:2200", "mid@middle:22", "anyone@inner:22"]
    assert ways(Machine("inner"), home, CONFIG) == expected
    assert ways(Machine("h", jump="me@outer:2200,middle"), home, CONFIG)[:2] == expected[:2]


@pytest.mark.process
def test_a_jump_host_that_has_a_jump_host(home: Path) -> None:
    config = "Host b\n  ProxyJump a\nHost c\n  ProxyJump b\n"
    assert ways(Machine("c", "u"), home, config) == ["u@a:22", "u@b:22", "u@c:22"]


@pytest.mark.process
def test_a_jump_host_for_all_is_not_its_own(home: Path) -> None:
    config = "Host *\n  ProxyJump bastion\n"
    assert ways(Machine("h", "u"), home, config) == ["u@bastion:22", "u@h:22"]
    assert ways(Machine("bastion", "u"), home, config) == ["u@bastion:22"]
    assert ways(Machine("b", "u", jump="a,b"), home) == ["u@a:22", "u@b:22"]


@pytest.mark.process
def test_jump_hosts_in_a_circle_end_in_an_error(home: Path) -> None:
    with pytest.raises(ValueError, match="form a circle"):
        hops(Machine("a"), home, "Host a\n ProxyJump b\nHost b\n ProxyJump c\nHost c\n ProxyJump a")


@pytest.mark.process
def test_none_takes_the_jump_host_of_ssh_config_away(home: Path) -> None:
    assert len(hops(Machine("inner", jump="none"), home, CONFIG)) == 1
    config = "Host *\n  ProxyCommand nc %h %p\n"
    assert hops(Machine("h", jump="none"), home, config)[0].proxy_command is None


@pytest.mark.process
def test_a_proxy_command_is_of_the_port_and_user_in_use(home: Path) -> None:
    config = "Host *\n  ProxyCommand go %r@%h:%p\n  Port 1\n"
    assert hops(Machine("h", "u", 99), home, config)[0].proxy_command == "go u@h:99"


@pytest.mark.process
def test_a_jump_host_logs_in_with_its_own_key_or_the_hosts(home: Path) -> None:
    (home / ".ssh/own").touch()
    config = "Host own\n  IdentityFile ~/.ssh/own\n  IdentityFile ~/.ssh/missing\n"
    machine = Machine("h", "u", key=Path("/key"), jump="own,other")
    own, other, target = hops(machine, home, config)
    assert own.keys == (home / ".ssh/own", Path("/key"))
    assert other.keys == target.keys == (Path("/key"),)


def test_the_default_keys(home: Path) -> None:
    for name in ("id_rsa", "id_ed25519", "id_dsa"):
        (home / ".ssh" / name).touch()
    (hop,) = hops(Machine("h"), home)
    assert [key.name for key in hop.keys] == ["id_ed25519", "id_rsa"]


@pytest.mark.process
def test_included_files_count_where_they_stand(home: Path) -> None:
    (home / ".ssh/d").mkdir()
    (home / ".ssh/d/1").write_text("Host a\n  User one\n  Include d/deep\n")
    (home / ".ssh/d/2").write_text("Host a\n  User two\n")
    (home / ".ssh/d/deep").write_text("Port 77\n")
    config = "Include d/[12]\nHost b\n  Include=~/.ssh/d/deep\n  User bee\n"
    assert ways(Machine("a"), home, config) == ["one@a:77"]
    assert ways(Machine("b"), home, config) == ["bee@b:77"]
    assert ways(Machine("c"), home, config) == [f"{ME}@c:22"]


@pytest.mark.process
def test_a_file_that_includes_itself_ends(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?i)too many"):
        ways(Machine("a"), home, "Include config\nUser u\n")


@pytest.mark.process
def test_two_files_do_not_run_into_one_another(home: Path) -> None:
    one, two = home / "one", home / "two"
    one.write_text("Host other\n  Port 1\n")
    two.write_text("User u\n")
    assert [str(h) for h in route(Machine("h"), UserConfig([one, two]))] == ["u@h:22"]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("u@[fd00::1]:2222", "fd00::1", 2222),
        ("u@[fd00::1]", "fd00::1", None),
        ("u@fd00::1", "fd00::1", None),
        ("u@h:22", "h", 22),
    ],
)
def test_jump_hosts_of_ipv6(home: Path, text: str, host: str, port: int | None) -> None:
    assert jump_hosts(text) == [("u", host, port)]
    hop, _ = hops(Machine("target", jump=text), home)
    assert (hop.address, hop.port) == (host, port or 22)
    assert str(replace(hop, port=1)) == ("u@[fd00::1]:1" if ":" in host else "u@h:1")


@pytest.mark.parametrize("text", ["h:0", "h:70000", "[h", "h]", "a,,b", "a::1::b", "h:x", ""])
def test_what_is_no_jump_host(text: str) -> None:
    with pytest.raises(ValueError, match=r"no port|is not"):
        jump_hosts(text)


@pytest.mark.process
@pytest.mark.parametrize(
    ("config", "way"),
    [
        ("Port 2022 # of the lab\n", f"{ME}@h:2022"),
        ("HostName 10.0.0.1 # of the lab\n", f"{ME}@10.0.0.1:22"),
        ('User "o p" # x\n', "o p@h:22"),
        ("HostName %h.example.com\n", f"{ME}@h.example.com:22"),
        ("Host = h\n  Port=2022\nHost other\n  Port 1\n", f"{ME}@h:2022"),
        ("Host * !h\n  Port 1\n", f"{ME}@h:22"),
        ("Host H\n  Port 1\n", f"{ME}@h:22"),
        ("Host [gh]\n  Port 1\n", f"{ME}@h:22"),
        ("Match host 10.*\n  Port 1\nHost h\n  HostName 10.0.0.1\n", f"{ME}@10.0.0.1:22"),
        ("Host h\n  HostName 10.0.0.1\nMatch host 10.*\n  Port 1\n", f"{ME}@10.0.0.1:1"),
        ("Match originalhost h !host x\n  Port 1\n", f"{ME}@h:1"),
        ("MATCH All\n  PORT 1\n", f"{ME}@h:1"),
        (f"Match localuser {ME}\n  Port 1\n", f"{ME}@h:1"),
        (f"User op\nMatch user {ME}\n  Port 1\n", "op@h:22"),
    ],
)
def test_what_the_former_reader_took_for_something_else(home: Path, config: str, way: str) -> None:
    assert ways(Machine("h"), home, config) == [way]


@pytest.mark.process
@pytest.mark.parametrize(
    "criteria",
    [
        "final all",
        "final",
        "canonical all",
        "!final host h",
        'exec "exit 0"',
        'exec "exit 0" host h',
        "localnetwork 0.0.0.0/0",
        "tagged x",
        "version 1",
        "HOST=h",
        "command x",
    ],
)
def test_a_condition_that_is_not_understood_leads_nowhere(
    home: Path, program: str, criteria: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ssh, it is what ssh makes of it; without ssh, the block does not count, and is named."""
    config = f"Match {criteria}\n  HostName 10.9.9.9\n"
    if program == "ssh":
        path = home / "expected"
        path.write_text(config)
        asked = subprocess.run(
            ["ssh", "-T", "-G", "-F", str(path), "h"], capture_output=True, text=True, check=False
        )
        found = dict(line.partition(" ")[::2] for line in asked.stdout.splitlines())
        if asked.returncode != 0:
            with pytest.raises(ConfigError, match=r"line 1|criteri|Match"):
                ways(Machine("h"), home, config)
        else:
            assert ways(Machine("h"), home, config) == [f"{ME}@{found['hostname']}:22"]
        return
    if criteria.startswith("HOST"):
        assert ways(Machine("h"), home, config) == [f"{ME}@10.9.9.9:22"]
        return
    for _ in range(2):
        assert ways(Machine("h"), home, config) == [f"{ME}@h:22"]
    said = capsys.readouterr().err
    assert f"left out: Match {criteria.split()[0]} (" in said
    assert "config line 1)" in said


@pytest.mark.process
def test_the_stock_file_of_fedora(home: Path) -> None:
    config = "Match final all\n  GSSAPIAuthentication yes\n  ForwardX11Trusted yes\n"
    assert ways(Machine("h"), home, config) == [f"{ME}@h:22"]
    assert ways(Machine("h"), home, config + "Host h\n  Port 2\n")[0].startswith(f"{ME}@h:")


@pytest.mark.process
def test_names_that_are_to_be_canonical(
    home: Path, program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = "CanonicalizeHostname yes\nCanonicalDomains example.invalid\nPort 2022\n"
    assert ways(Machine("h"), home, config) == [f"{ME}@h:2022"]
    said = capsys.readouterr().err
    assert ("canonicalizehostname" in said) == (program == "no ssh")


@pytest.mark.process
def test_the_inventorys_user_and_port_count_in_conditions_and_tokens(home: Path) -> None:
    config = """\
Match user deploy
  Port 2022
  IdentityFile ~/.ssh/%r-%n-%p-%%-%u
  IdentityFile ${HOME}/%h.%i
  IdentityFile "%d/a b"
  CertificateFile ~/%r-cert.pub
  ProxyCommand connect %h %p %r %n ~ ${HOME} %% # x
  UserKnownHostsFile ~/%r ${HOME}/known "~/c d"
  IdentityAgent ~/agent-%r
Host h
  HostName 10.0.0.1
"""
    names = [f".ssh/deploy-h-99-%-{ME}", f"10.0.0.1.{os.getuid()}", "a b"]
    for name in names:
        (home / name).touch()
    (hop,) = hops(Machine("h", "deploy", 99), home, config)
    assert hop.keys == tuple(home / name for name in names)
    assert hop.certificates == (home / "deploy-cert.pub",)
    assert hop.proxy_command == "connect 10.0.0.1 99 deploy h ~ ${HOME} % # x"
    assert hop.known_hosts[:3] == (home / "deploy", home / "known", home / "c d")
    assert hop.agent == f"{home}/agent-deploy"
    (other,) = hops(Machine("h", "op"), home, config)
    assert (other.port, other.certificates, other.proxy_command) == (22, (), None)


@pytest.mark.process
def test_tokens_of_this_machine(home: Path) -> None:
    here = socket.gethostname()
    (home / f"{here}-h").touch()
    (hop,) = hops(Machine("h"), home, "IdentityFile ~/%l-%k\n")
    assert hop.keys == (home / f"{here}-h",)


@pytest.mark.process
@pytest.mark.parametrize("value", ["%z", "${ALXP_NOT_SET}"])
def test_what_cannot_be_expanded_is_an_error(home: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="is not"):
        hops(Machine("h"), home, f"IdentityFile ~/{value}\n")


@pytest.mark.process
@pytest.mark.parametrize("value", ["none", "SSH_AUTH_SOCK", "$AGENT"])
def test_the_agent(home: Path, value: str) -> None:
    (hop,) = hops(Machine("h"), home, f"IdentityAgent {value}\n")
    assert hop.agent == value


@pytest.mark.process
def test_no_key_at_all(home: Path) -> None:
    (home / ".ssh/id_ed25519").touch()
    assert hops(Machine("h"), home, "IdentityFile none\n")[0].keys == ()
    assert hops(Machine("h"), home, "IdentityFile ~/.ssh/gone\n")[0].keys == ()
    assert hops(Machine("h"), home, "User u\n")[0].keys == (home / ".ssh/id_ed25519",)


@pytest.mark.process
def test_the_login_of_a_jump_host(home: Path) -> None:
    """The file may name the user that ssh would take without it."""
    machine = Machine("h", "deploy", jump="bastion")
    assert ways(machine, home, "Port 22\n") == ["deploy@bastion:22", "deploy@h:22"]
    config = f"Host bastion\n  User {ME}\n"
    assert ways(machine, home, config) == [f"{ME}@bastion:22", "deploy@h:22"]
    config = "Match user deploy\n  Port 2022\n"
    assert ways(machine, home, config) == ["deploy@bastion:2022", "deploy@h:2022"]


@pytest.mark.process
def test_a_mistake_is_named_with_file_and_line(home: Path, program: str) -> None:
    path = home / ".ssh/config"
    with pytest.raises(ConfigError) as caught:
        hops(Machine("h"), home, '# x\nUser "u\n')
    assert str(path) in str(caught.value)
    assert "line 2" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.process
def test_what_is_not_followed_is_said_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / ".ssh" / "config"
    path.write_text("RevokedHostKeys ~/revoked\nUser u\n")
    config = UserConfig([path])
    for host in ("a", "b", "c"):
        route(Machine(host), config)
    assert capsys.readouterr().err.lower().count("revokedhostkeys") == 1


@pytest.mark.process
@pytest.mark.parametrize("user", ["a;touch x", "$(id)", "-oProxyCommand=x", "a b"])
def test_no_word_of_the_inventory_is_a_command_of_the_shell(home: Path, user: str) -> None:
    with pytest.raises(ConfigError, match=r"no word of the shell|ssh -G"):
        hops(Machine("h", user), home, "ProxyCommand connect %r@%h\n")
    assert hops(Machine("h", "a b"), home, "ProxyCommand connect %%r %h\n")[0].proxy_command


class Counted:
    """A program named ssh that notes its calls."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
        self.calls = folder / "calls"
        program = folder / "ssh"
        version = "if [ $1 = -V ]; then echo OpenSSH_9.2p1 >&2; exit; fi"
        program.write_text(f'#!/bin/sh\n{version}\necho "$*" >>{self.calls}\n{body}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(shutil, "which", lambda name: str(program))

    def __call__(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


@pytest.mark.process
def test_ssh_is_asked_once_a_host_and_not_without_a_reason(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    if program == "no ssh":
        return
    real = shutil.which("ssh")
    calls = Counted(tmp_path, monkeypatch, f'exec {real} "$@"')
    path = home / ".ssh/config"
    machines = [Machine(f"h{n}", "u", jump="u@bastion") for n in range(5)]
    stock = "Include d/*\nHost *\n  SendEnv LANG LC_*\n  HashKnownHosts yes\n"
    for text in ("", "# nothing\n\n", stock):
        path.write_text(text)
        config = UserConfig([path, home / "gone"])
        assert len({route(machine, config) for machine in machines}) == 5
        assert calls() == 0
    (home / ".ssh/d").mkdir()
    (home / ".ssh/d/1").write_text("Port 22\n")
    config = UserConfig([path])
    for _ in range(2):
        for machine in machines:
            route(machine, config)
    assert calls() == len(machines) + 1


@pytest.mark.process
def test_a_user_that_ssh_takes_only_in_a_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """A domain's user: OpenSSH of Debian's unstable release refuses the backslash behind -l."""
    if program == "no ssh":
        return
    real = shutil.which("ssh")
    refused = 'case "$*" in *"-l DOM"*) echo "remote username contains invalid characters" >&2'
    calls = Counted(tmp_path, monkeypatch, f'{refused}; exit 255;; esac; exec {real} "$@"')
    config = "User other\nMatch user DOM*\n  Port 2022\n"
    (hop,) = hops(Machine("h", "DOM\\me"), home, config)
    assert (hop.user, hop.port) == ("DOM\\me", 2022)
    assert calls() == 2


@pytest.mark.process
def test_another_program_named_ssh_is_not_asked(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropbear's takes -G for nothing, and would connect."""
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\n[ $1 = -V ] || touch {tmp_path}/asked\necho Dropbear >&2\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    assert ways(Machine("h"), home, "User u\n") == ["u@h:22"]
    assert not (tmp_path / "asked").exists()


@pytest.mark.process
def test_an_answer_that_is_none(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Counted(tmp_path, monkeypatch, "echo hello")
    with pytest.raises(ConfigError, match="its answer cannot be read"):
        hops(Machine("h"), home, "User u\n")


@pytest.mark.process
def test_an_answer_that_does_not_come(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(asked, "PATIENCE", 0.2)
    if program == "ssh":
        Counted(tmp_path, monkeypatch, "sleep 60 & wait")
        with pytest.raises(ConfigError, match=r"does not answer in 0\.2 s"):
            hops(Machine("h"), home, "User u\n")
