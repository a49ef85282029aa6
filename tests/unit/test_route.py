"""The way to a host: what the inventory says, then ssh_config(5) files of the operator's."""

from __future__ import annotations

import getpass
from dataclasses import replace
from pathlib import Path

import pytest

from provision.inventory.model import jump_hosts
from provision.inventory.resolved import Machine
from provision.ssh.route import Hop, UserConfig, route

ME = getpass.getuser()


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


def test_an_alias_is_what_ssh_config_makes_of_it(home: Path) -> None:
    (hop,) = hops(Machine("web"), home, CONFIG)
    assert str(hop) == "admin@10.0.0.9:2222"
    assert hop.host_key_alias == "the-web"
    assert hop.known_hosts[:2] == (home / ".ssh/web_hosts", Path("/dev/null"))


def test_the_inventory_comes_first(home: Path) -> None:
    machine = Machine("web", "root", 23, known_hosts=Path("/k"), key=Path("/key"))
    (hop,) = hops(machine, home, CONFIG + "IdentityFile ~/.ssh/other\n")
    assert str(hop) == "root@10.0.0.9:23"
    assert (hop.keys, hop.known_hosts) == ((Path("/key"),), (Path("/k"),))


def test_jump_hosts_are_passed_in_the_order_written(home: Path) -> None:
    expected = ["me@outer:2200", "mid@middle:22", "anyone@inner:22"]
    assert ways(Machine("inner"), home, CONFIG) == expected
    assert ways(Machine("h", jump="me@outer:2200,middle"), home, CONFIG)[:2] == expected[:2]


def test_a_jump_host_that_has_a_jump_host(home: Path) -> None:
    config = "Host b\n  ProxyJump a\nHost c\n  ProxyJump b\n"
    assert ways(Machine("c", "u"), home, config) == ["u@a:22", "u@b:22", "u@c:22"]


def test_a_jump_host_for_all_is_not_its_own(home: Path) -> None:
    config = "Host *\n  ProxyJump bastion\n"
    assert ways(Machine("h", "u"), home, config) == ["u@bastion:22", "u@h:22"]
    assert ways(Machine("bastion", "u"), home, config) == ["u@bastion:22"]
    assert ways(Machine("b", "u", jump="a,b"), home) == ["u@a:22", "u@b:22"]


def test_jump_hosts_in_a_circle_end_in_an_error(home: Path) -> None:
    with pytest.raises(ValueError, match="form a circle"):
        hops(Machine("a"), home, "Host a\n ProxyJump b\nHost b\n ProxyJump c\nHost c\n ProxyJump a")


def test_none_takes_the_jump_host_of_ssh_config_away(home: Path) -> None:
    assert len(hops(Machine("inner", jump="none"), home, CONFIG)) == 1
    config = "Host *\n  ProxyCommand nc %h %p\n"
    assert hops(Machine("h", jump="none"), home, config)[0].proxy_command is None


def test_a_proxy_command_is_of_the_port_and_user_in_use(home: Path) -> None:
    config = "Host *\n  ProxyCommand go %r@%h:%p\n  Port 1\n"
    assert hops(Machine("h", "u", 99), home, config)[0].proxy_command == "go u@h:99"


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


def test_included_files_count_where_they_stand(home: Path) -> None:
    (home / ".ssh/d").mkdir()
    (home / ".ssh/d/1").write_text("Host a\n  User one\n  Include d/deep\n")
    (home / ".ssh/d/2").write_text("Host a\n  User two\n")
    (home / ".ssh/d/deep").write_text("Port 77\n")
    config = "Include d/[12]\nHost b\n  Include=~/.ssh/d/deep\n  User bee\n"
    assert ways(Machine("a"), home, config) == ["one@a:77"]
    assert ways(Machine("b"), home, config) == ["bee@b:77"]
    assert ways(Machine("c"), home, config) == [f"{ME}@c:22"]


def test_a_file_that_includes_itself_ends(home: Path) -> None:
    assert ways(Machine("a"), home, "Include config\nUser u\n") == ["u@a:22"]


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
