"""An Ansible inventory as one of ours: what is carried over, and what is listed instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.ansible.convert import Converted, convert
from provision.errors import InventoryError, UsageError
from provision.inventory import load
from provision.inventory.resolved import Inventory

HOSTS = """\
[etcd]
e[1:3] ansible_port=2200
[workers]
w[01:03].example.com ansible_user=own
[workers:vars]
ansible_host={{ x }}
"""


def converted(folder: Path, text: str, name: str = "hosts", **groups: str) -> Converted:
    (folder / name).write_text(text)
    chosen = (groups.get("etcd_group", ""), groups.get("worker_group", ""))
    return convert(folder / name, folder / "new.yml", *chosen)


def inventory(folder: Path, text: str, name: str = "hosts", **groups: str) -> Inventory:
    path = folder / "new.yml"
    path.write_text(converted(folder, text, name, **groups).text)
    return load(path)


def refused(folder: Path, text: str) -> list[str]:
    with pytest.raises(InventoryError, match="no inventory was written") as caught:
        converted(folder, text)
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == ["hosts"]
    return [str(p).replace(f"{folder}/", "") for p in caught.value.problems]


def test_hosts_and_how_they_are_reached(tmp_path: Path) -> None:
    (tmp_path / "id").touch()
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars" / "w2.yml").write_text("ansible_host: 'fd00::2'\n")
    found = inventory(
        tmp_path,
        "[etcd]\ne[1:3] ansible_port=2200\n[workers]\nw1:2222\nw2\n[all:vars]\n"
        "ansible_user=deploy\nansible_ssh_private_key_file=id\nansible_port=22\n"
        "ansible_ssh_common_args=-o ProxyJump=ops@gate:2022,inner -o ControlMaster=auto\n",
    )
    assert [m.name for m in found.etcd.members] == ["e1", "e2", "e3"]
    assert {m.machine.port for m in found.etcd.members} == {2200}
    assert found.alluxio is not None
    one, two = (worker.machine for worker in found.alluxio.workers)
    assert (one.host, one.port, two.host, two.port) == ("w1", 2222, "fd00::2", 22)
    for machine in found.machines:
        assert (machine.user, machine.key) == ("deploy", tmp_path / "id")
        assert machine.jump == "ops@gate:2022,inner"


def test_the_file_names_commands_for_itself(tmp_path: Path) -> None:
    to = tmp_path / "an inventory.yml"
    (tmp_path / "hosts").write_text("[etcd]\ne1\n")
    text = convert(tmp_path / "hosts", to, "", "").text
    for task in ("show-inventory", "deploy-etcd"):
        assert f"\n#   invoke {task} --inventory '{to}'" in text


def test_what_most_hosts_have_stands_on_top(tmp_path: Path) -> None:
    text = "[etcd]\na\nb\nc ansible_user=other\n[etcd:vars]\nansible_user=most\n"
    lines = converted(tmp_path, text).text.splitlines()
    assert "ssh: {user: most}" in lines
    assert "    a: {host: a}" in lines
    assert "    c: {host: c, ssh: {user: other}}" in lines
    # A host that says nothing must not get what the others have.
    text = "[etcd]\na\nb ansible_user=one\n"
    assert "ssh: {user: one}" not in converted(tmp_path, text).text.splitlines()


@pytest.mark.parametrize(
    ("command", "jump"),
    [
        ('ssh -W %h:%p -q "ops@gate"', "ops@gate"),
        ("ssh -q -p 2022 -l ops gate -W %h:%p", "ops@gate:2022"),
        ("ssh -W [%h]:%p gate", "gate"),
        ("/usr/bin/ssh -W %h:%p -q -i id u@b", "u@b"),
        ("ssh -o StrictHostKeyChecking=no -o Port=2022 -W %h:%p -q u@b", "u@b:2022"),
        ('exec ssh -T -n -vv -W "[%h]:%p" -p2022 u@b', "u@b:2022"),
        ("ssh -AqW %h:%p u@b", "u@b"),
        ("ssh -q -W%h:%p -lu b", "u@b"),
        ("ssh -W %h:%p -p 2022 u@fd00::1", "u@[fd00::1]:2022"),
    ],
)
def test_a_proxy_command_that_is_a_jump(tmp_path: Path, command: str, jump: str) -> None:
    text = f"[etcd]\na\n[etcd:vars]\nansible_ssh_common_args=-o ProxyCommand='{command}'\n"
    assert inventory(tmp_path, text).etcd.members[0].machine.jump == jump


@pytest.mark.parametrize(
    "command",
    [
        "ssh -W %h:22 u@b",
        "ssh -W %h:%p -W %h:%p u@b",
        "ssh -W %h:%p -l other u@b",
        "ssh -W %h:%p -o User=other u@b",
        "ssh -W %h:%p u@b nc",
        "ssh -W %h:%p -F other u@b",
        "ssh -W %h:%p -J first u@b",
        "ssh -W %h:%p",
        "ssh -qW",
        "-q ssh -W %h:%p u@b",
        "exec",
        "ssh u@b nc %h %p",
    ],
)
def test_a_proxy_command_that_may_be_more_than_a_jump(tmp_path: Path, command: str) -> None:
    text = f"[etcd]\na\n[etcd:vars]\nansible_ssh_common_args=-o ProxyCommand='{command}'\n"
    assert any("ssh's option 'ProxyCommand' is not supported" in x for x in refused(tmp_path, text))


def test_what_a_proxy_command_says_beside_the_jump_is_listed(tmp_path: Path) -> None:
    """kubespray's bastion, with a key of its own."""
    command = "ssh -W %h:%p -q -i jump_id -o StrictHostKeyChecking=no -o PKCS11Provider=x u@b"
    text = f"[etcd]\na\n[etcd:vars]\nansible_ssh_common_args=-o ProxyCommand='{command}'\n"
    warnings = [str(p).replace(f"{tmp_path}/", "") for p in converted(tmp_path, text).warnings]
    for expected in (
        "hosts:4: the jump host's key jump_id is not converted (write IdentityFile jump_id below",
        "hosts:4: StrictHostKeyChecking=no is not converted: host keys are always checked",
        "hosts:4: the jump host's option PKCS11Provider=x is not converted",
    ):
        assert any(one.startswith(expected) for one in warnings), (expected, warnings)
    # A jump host gets the hosts' own key, too.
    (tmp_path / "jump_id").touch()
    text += "ansible_ssh_private_key_file=jump_id\n"
    assert not any("jump_id" in str(p) for p in converted(tmp_path, text).warnings)


def test_kubespray_s_addresses_and_names(tmp_path: Path) -> None:
    found = inventory(
        tmp_path,
        "[etcd]\n"
        "node1 ansible_host=95.54.0.12 ip=10.3.0.1 etcd_member_name=etcd1\n"
        "node2 ansible_host=95.54.0.13 ip=10.3.0.2 access_ip=10.9.0.2 etcd_member_name=etcd2\n"
        "node3 ansible_host=10.3.0.3 ip=10.3.0.3\n"
        "[workers]\nnode1\nnode4\n",
    )
    members = [(m.name, m.machine.host, m.address) for m in found.etcd.members]
    assert members == [
        ("etcd1", "95.54.0.12", "10.3.0.1"),
        ("etcd2", "95.54.0.13", "10.9.0.2"),
        ("node3", "10.3.0.3", "10.3.0.3"),
    ]
    assert found.alluxio is not None
    one, other = found.alluxio.workers
    assert (one.name, one.machine.host, one.hostname) == ("node1", "95.54.0.12", "10.3.0.1")
    assert (other.name, other.machine.host, other.hostname) == ("node4", "node4", "node4")
    (tmp_path / "again").mkdir()
    said = refused(tmp_path / "again", "[etcd]\na etcd_member_name='a b'\n")
    assert any("etcd_member_name 'a b' cannot be a member's name" in one for one in said)


def test_the_groups(tmp_path: Path) -> None:
    text = "[keepers]\na\n[etcd]\nb\n[cache]\nc\n[cache2:children]\ncache\n"
    chosen = inventory(tmp_path, text, etcd_group="keepers", worker_group="cache2")
    assert [m.name for m in chosen.etcd.members] == ["a"]
    assert chosen.alluxio is not None
    assert [w.name for w in chosen.alluxio.workers] == ["c"]
    usual = inventory(tmp_path, text)
    assert ([m.name for m in usual.etcd.members], usual.alluxio) == (["b"], None)
    with pytest.raises(UsageError, match=r"no group x: .*--etcd-group \(there are: keepers, etcd"):
        converted(tmp_path, text, etcd_group="x")
    with pytest.raises(UsageError, match="no group etcd or etcd_servers"):
        converted(tmp_path, "[other]\na\n")
    with pytest.raises(UsageError, match="--worker-group"):
        converted(tmp_path, text, worker_group="x")


def test_what_cannot_be_carried_over_is_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "etcd.yml").write_text(
        "ansible_user: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  33\nansible_port: [1]\n"
    )
    said = refused(
        tmp_path,
        "[etcd]\na ansible_host='{{ address }}'\nb ansible_connection=docker\n"
        "c ansible_become_method=su\n[etcd:vars]\n"
        "ansible_ssh_common_args=-o ProxyCommand='nc -X 5 %h %p' -F other\n",
    )
    for expected in (
        "hosts:2: ansible_host is a Jinja template",
        "hosts:3: ansible_connection is 'docker'",
        "hosts:4: ansible_become_method is 'su'",
        "group_vars/etcd.yml:1: ansible_user is encrypted with ansible-vault",
        "group_vars/etcd.yml:4: ansible_port is not a single value",
        "hosts:6: ssh's option 'ProxyCommand' is not supported",
        "hosts:6: ssh's argument '-F' is not supported",
    ):
        assert any(one.startswith(expected) for one in said), (expected, said)


def test_what_our_own_rules_refuse_is_said_of_the_hosts_line(tmp_path: Path) -> None:
    said = refused(tmp_path, "[etcd]\na ansible_host=x\nb ansible_host=x\nc ansible_port=99999\n")
    assert any(one.startswith("hosts:3: members 'a' and 'b' are on the same host") for one in said)
    assert any(one.startswith("hosts:4: 'port' must be") for one in said)
    said = refused(tmp_path, "[etcd]\na_ ansible_ssh_private_key_file=/none\nfd00::1\n")
    assert any("hosts:3: 'fd00::1' cannot be the name" in one for one in said)


def test_secrets_are_left_behind_with_a_word(tmp_path: Path) -> None:
    found = converted(
        tmp_path,
        "[etcd]\na\n[all:vars]\nansible_become_password=hunter2\nansible_ssh_pass=hunter3\n"
        "ansible_ssh_common_args='-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null'\n",
    )
    assert "hunter" not in found.text
    said = [str(warning) for warning in found.warnings]
    assert any("hosts:4: ansible_become_password" in w and "sudo_password" in w for w in said)
    assert any("hosts:5: ansible_ssh_pass" in w for w in said)
    assert sum("host keys are always checked" in w for w in said) == 2


def test_what_else_says_how_a_host_is_reached_is_listed(tmp_path: Path) -> None:
    dropped = {
        "ansible_become_user": "admin",
        "ansible_become_exe": "/opt/bin/sudo",
        "ansible_become_flags": "-i",
        "ansible_ssh_executable": "/opt/bin/ssh",
        "ansible_ssh_timeout": "30",
        "ansible_host_key_checking": "false",
        "ansible_ssh_password": "hunter4",
    }
    variables = "\n".join(f"{k}={v}" for k, v in dropped.items())
    found = converted(tmp_path, f"[etcd]\na\nb\nc\n[all:vars]\n{variables}\n")
    said = [str(p).removeprefix(f"{tmp_path}/") for p in found.warnings]
    for line, name in enumerate(dropped, 6):
        assert sum(one.startswith(f"hosts:{line}: {name} is not converted") for one in said) == 1
    assert "hunter4" not in "".join(said)
    same = "ansible_become_user=root\nansible_host_key_checking=True\nansible_become=yes\n"
    assert converted(tmp_path, f"[etcd]\na\nb\nc\n[all:vars]\n{same}").warnings == ()


@pytest.mark.parametrize("user", ["a: b", "{x}", "#", "'", '"', "*x", "- a", "no", "null"])
def test_no_value_becomes_yaml(tmp_path: Path, user: str) -> None:
    (tmp_path / "group_vars").mkdir()
    quoted = user.replace("'", "''")
    (tmp_path / "group_vars" / "etcd").write_text(f"ansible_user: '{quoted}'\n")
    if user.isalpha():
        assert inventory(tmp_path, "[etcd]\na\n").etcd.members[0].machine.user == user
    else:
        with pytest.raises(InventoryError) as caught:
            converted(tmp_path, "[etcd]\na\n")
        assert "'user' must be a login name" in str(caught.value.problems[0])
