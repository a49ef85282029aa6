"""Logins at a real sshd: a key that cannot be used does not end the attempts with the others."""

from __future__ import annotations

import base64
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision.errors import Problem
from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet, Unreachable
from tests.component.real_sshd import Sshd, add, agent, keygen, public, running, session


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with running() as sshd:
        yield sshd


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose .ssh has nothing; no agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def configured(home: Path, *keys: Path, more: str = "") -> None:
    """~/.ssh/config names these keys, in this order."""
    lines = "".join(f'IdentityFile "{key}"\n' for key in keys)
    (home / ".ssh" / "config").write_text(lines + more)


def logged_in(machine: Machine) -> str:
    """What ``id -un`` says there: the login is not root, so no command of the tool's runs."""
    with session(machine) as client:
        channel = client._channel(20)
        channel.exec_command("id -un")
        return channel.makefile().read().decode().strip()


def refused(machine: Machine) -> Problem:
    with session(machine) as client, pytest.raises(Unreachable) as caught:
        client.open()
    (problem,) = caught.value.problems
    return problem


def _openssh(kind: bytes, body: bytes) -> bytes:
    """A private key file of OpenSSH's format that nobody encrypted."""

    def text(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    public = text(kind) + body
    private = b"\0\0\0\1" * 2 + text(kind) + body + text(b"comment")
    private += bytes(range(1, 1 + -len(private) % 8))
    whole = b"openssh-key-v1\0" + text(b"none") * 2 + text(b"") + struct.pack(">I", 1)
    coded = base64.encodebytes(whole + text(public) + text(private))
    return b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + coded + b"-----END OPENSSH PRIVATE KEY-----\n"


def fido(path: Path) -> None:
    def text(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    body = text(bytes(32)) + text(b"ssh:") + b"\1" + text(b"handle") + text(b"")
    path.write_bytes(_openssh(b"sk-ssh-ed25519@openssh.com", body))


def dsa(path: Path) -> None:
    keygen(path, "-t", "dsa")


def dsa_in_pem(path: Path) -> None:
    keygen(path, "-t", "dsa", "-m", "PEM")


def encrypted(path: Path) -> None:
    keygen(path, "-N", "open sesame")


def junk(path: Path) -> None:
    path.write_bytes(b"\0\1\2 no key \xff")


def damaged(path: Path) -> None:
    keygen(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][::-1], *lines[2:]]) + "\n")


def cut_short(path: Path) -> None:
    keygen(path)
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")


def folder(path: Path) -> None:
    path.mkdir()


def of_another_curve(path: Path) -> None:
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed448", "-out", str(path)],
        check=True,
        capture_output=True,
    )


def readable(path: Path) -> None:
    keygen(path)
    path.chmod(0o640)


def a_public_key(path: Path) -> None:
    keygen(path)
    path.write_text(public(path))


BAD: dict[Callable[[Path], None], str] = {
    fido: "is of a security key (FIDO), which only ssh-agent can use",
    dsa: "is a DSA key, which OpenSSH does not accept any more",
    dsa_in_pem: "is a DSA key, which OpenSSH does not accept any more",
    encrypted: "has a passphrase, and ssh-agent does not have the key",
    junk: "is not a private key",
    damaged: "is not a readable private key",
    cut_short: "is not a readable private key",
    folder: "is a folder",
    of_another_curve: "is of a kind that this tool does not use",
    readable: "may be read or written by others (mode 0640)",
    a_public_key: "is not a private key",
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_key_that_cannot_be_used_is_left_out(
    sshd: Sshd, home: Path, make: Callable[[Path], None]
) -> None:
    bad, good, other = home / "bad", keygen(home / "good"), keygen(home / "other")
    make(bad)
    if bad.is_file() and make is not readable:
        bad.chmod(0o600)
    configured(home, bad, good)
    sshd.accept(good)
    assert logged_in(sshd.machine()) == "alxp-op"
    sshd.accept(other)
    problem = refused(sshd.machine())
    said = f"connect: login refused for alxp-op with {good}: {bad} {BAD[make]}"
    assert problem.what.startswith(said)
    assert problem.id in ("ssh-login-refused", "ssh-key-unusable")


def test_all_are_bad_and_each_says_why(sshd: Sshd, home: Path) -> None:
    made = []
    for make in BAD:
        made.append(home / make.__name__)
        make(made[-1])
        if made[-1].is_file() and make is not readable:
            made[-1].chmod(0o600)
    configured(home, *made)
    problem = refused(sshd.machine())
    assert problem.what.startswith("connect: login refused: ")
    for path, why in zip(made, BAD.values(), strict=True):
        assert f"{path} {why}" in problem.what
    assert problem.id == "ssh-key-unusable"


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
@pytest.mark.parametrize("form", [(), ("-m", "PKCS8"), ("-m", "PEM")])
def test_every_format_of_ssh_keygen(
    sshd: Sshd, home: Path, kind: str, form: tuple[str, ...]
) -> None:
    key = keygen(home / "key", "-t", kind, *form)
    sshd.accept(key)
    assert logged_in(sshd.machine(key=key)) == "alxp-op"


def test_the_inventorys_key_that_others_may_read(sshd: Sshd, home: Path) -> None:
    key = keygen(home / "key")
    sshd.accept(key)
    key.chmod(0o644)
    problem = refused(sshd.machine(key=key))
    assert problem.what == (
        f"connect: login refused: {key} may be read or written by others (mode 0644)"
    )
    assert problem.remedy == f"chmod 600 {key}"
    assert problem.id == "ssh-key-unusable"


def test_a_key_of_the_agent_that_cannot_sign(
    sshd: Sshd, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is locked away behind a confirmation that nobody gives."""
    one, two = keygen(home / "one"), keygen(home / "two")
    with agent(home) as socket:
        monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        add(socket, "-c", str(one))
        add(socket, str(two))
        sshd.accept(one, two)
        assert logged_in(sshd.machine()) == "alxp-op"
        sshd.accept(one)
        problem = refused(sshd.machine())
    assert problem.what == (
        "connect: login refused for alxp-op with 1 key of ssh-agent: "
        "ssh-agent does not sign with one: key cannot be used for signing"
    )


def test_what_answers_there_is_no_agent(
    sshd: Sshd, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    key = keygen(home / "key")
    configured(home, key)
    path = home / "junk.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            client, _ = server.accept()
            client.sendall(b"\0\0\0\3no!")
            client.close()

        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        for keys in ([key], []):
            sshd.accept(*keys)
            thread = threading.Thread(target=answer)
            thread.start()
            if keys:
                assert logged_in(sshd.machine()) == "alxp-op"
            else:
                assert f"ssh-agent at {path}: " in refused(sshd.machine()).what
            thread.join()


def test_no_more_keys_than_sshd_takes(
    sshd: Sshd, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More would end the connection, and count as an attack."""
    keys = [keygen(home / f"k{n}") for n in range(9)]
    sshd.accept()
    with agent(home, *keys) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        problem = refused(sshd.machine())
    assert problem.what == (
        "connect: login refused for alxp-op with 6 keys of ssh-agent"
        "; the host ended the login after 6 keys (its MaxAuthTries); 3 more were not tried"
    )
    assert "name the key by ssh.key" in problem.remedy


def test_a_refused_login_is_not_tried_again(home: Path) -> None:
    """A host counts what it refuses: all work of a run at one host is one refused login."""
    configured(home, keygen(home / "key"))
    with running("LogLevel VERBOSE") as sshd, Fleet(4) as fleet:
        for machine in [sshd.machine()] * 3:
            with pytest.raises(Unreachable, match="login refused for alxp-op"):
                fleet.session(machine).open()
        assert sshd.log.read_text().count("Failed publickey") == 1


def test_a_refused_login_at_a_jump_host_is_not_tried_again(home: Path) -> None:
    """Neither by the next host behind it."""
    with running("LogLevel VERBOSE") as jump, Fleet(2) as fleet:
        known = home / "known"
        known.write_text("gate " + jump.known_hosts.read_text().split(" ", 1)[1])
        (home / ".ssh" / "config").write_text(
            f"Host gate\n  HostName 127.0.0.1\n  Port {jump.port}\n  HostKeyAlias gate\n"
            f"Host web*\n  ProxyJump gate\n"
            f"Host *\n  User alxp-op\n  IdentityFile {keygen(home / 'key')}\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n"
        )
        for name in ("web1", "web2", "web3", "web1"):
            machine = Machine(name, connect_timeout=20.0, where="i.yml:1")
            with pytest.raises(Unreachable, match="login refused for alxp-op"):
                fleet.session(machine).open()
        assert jump.log.read_text().count("Failed publickey") == 1


def test_a_host_that_takes_fewer_keys(home: Path) -> None:
    keys = [keygen(home / f"k{n}") for n in range(4)]
    configured(home, *keys)
    with running("MaxAuthTries 2") as sshd:
        sshd.accept(keys[3])
        problem = refused(sshd.machine())
        assert sshd.log.read_text().count("Too many authentication failures") <= 1
    assert problem.what == (
        f"connect: login refused for alxp-op with {keys[0]}, {keys[1]}"
        "; the host ended the login after 2 keys (its MaxAuthTries); 2 more were not tried"
    )


def test_a_certificate_in_place_of_authorized_keys(home: Path) -> None:
    """By CertificateFile, beside the key, and for a key in the agent."""
    authority, key = keygen(home / "ca"), keygen(home / "key")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", "alxp-op", f"{key}.pub"],
        check=True,
    )
    beside = home / "key-cert.pub"
    with running(f"TrustedUserCAKeys {authority}.pub") as sshd:
        assert logged_in(sshd.machine(key=key)) == "alxp-op"
        elsewhere = beside.rename(home / "certificate")
        configured(home, key, more=f"CertificateFile {elsewhere}\n")
        assert logged_in(sshd.machine()) == "alxp-op"
        elsewhere.rename(home / "gone")
        problem = refused(sshd.machine())
        assert f"{elsewhere} cannot be read: No such file or directory" in problem.what
        (home / "gone").rename(elsewhere)
        with agent(home, key) as socket:
            more = f"CertificateFile {elsewhere}\nIdentityAgent {socket}\nIdentitiesOnly yes\n"
            configured(home, Path(f"{key}.pub"), more=more)
            assert logged_in(sshd.machine()) == "alxp-op"


HOST_CERTIFICATES = {
    "good": (("-n", "127.0.0.1"), None),
    "of several names": (("-n", "web,127.0.0.*"), None),
    "for another": (("-n", "web"), "it has a certificate, but it is for web, not for 127.0.0.1"),
    "expired": (("-n", "127.0.0.1", "-V", "20200101:20200102"), "but it has expired"),
    "not yet": (("-n", "127.0.0.1", "-V", "20600101:20600102"), "but it is not valid yet"),
    "for all": ((), "it is for no name"),
}


@pytest.mark.parametrize("what", HOST_CERTIFICATES)
@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_certificate_of_the_host(home: Path, what: str, kind: str) -> None:
    """known_hosts has only its CA."""
    options, why = HOST_CERTIFICATES[what]
    if kind != "ed25519" and what != "good":
        return
    authority, key = keygen(home / "ca", "-t", kind), keygen(home / "key")
    host = keygen(home / "host", "-t", kind)
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "h", "-h", *options, f"{host}.pub"],
        check=True,
    )
    with running(f"HostKey {host}", f"HostCertificate {home}/host-cert.pub") as sshd:
        sshd.accept(key)
        port = sshd.port
        known = home / "known"
        known.write_text(f"@cert-authority [127.0.0.1]:{port} {public(authority)}")
        machine = sshd.machine(key=key, known_hosts=known)
        if why is not None:
            assert why in refused(machine).what
            # It may still have a key that is known.
            with known.open("a") as file:
                file.write(f"[127.0.0.1]:{port} {public(host)}")
        assert logged_in(machine) == "alxp-op"
        known.write_text(f"@cert-authority * {public(key)}")
        assert "its CA is not in known_hosts" in refused(machine).what
        known.write_text(f"@cert-authority * {public(authority)}@revoked * {public(authority)}")
        assert "@revoked" in refused(machine).what


@pytest.mark.parametrize("way", ["ProxyJump", "ProxyCommand"])
def test_a_jump_host_of_the_configuration(home: Path, way: str) -> None:
    key = keygen(home / "key")
    with running() as jump, running() as target:
        for sshd in (jump, target):
            sshd.accept(key)
        known = home / "known"
        lines = (sshd.known_hosts.read_text().split(" ", 1)[1] for sshd in (jump, target))
        known.write_text(
            "".join(f"{n} {line}" for n, line in zip(("gate", "web"), lines, strict=True))
        )
        command = f"ssh -F {home}/.ssh/config -W %h:%p gate"
        (home / ".ssh" / "config").write_text(
            f"Host gate\n  HostName 127.0.0.1\n  Port {jump.port}\n  HostKeyAlias gate\n"
            f"Host web\n  HostName 127.0.0.1\n  Port {target.port}\n  HostKeyAlias web\n"
            f"  {way} {'gate' if way == 'ProxyJump' else command}\n"
            f"Host *\n  User alxp-op\n  IdentityFile ~/key\n  UserKnownHostsFile {known}\n"
            # ssh itself would look into the account's own home.
            f"  IdentityFile {key}\n  GlobalKnownHostsFile /dev/null\n"
        )
        machine = Machine("web", connect_timeout=20.0, where="i.yml:1")
        assert logged_in(machine) == "alxp-op"
        assert jump.log.read_text().count("Accepted publickey") == 1
        assert target.log.read_text().count("Accepted publickey") == 1
