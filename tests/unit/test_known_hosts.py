"""known_hosts by sshd(8), compared with what ssh-keygen itself finds in the same files."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from provision.ssh.known_hosts import KnownHosts

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen here")


pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Public keys as in known_hosts: `type base64`."""
    folder = tmp_path_factory.mktemp("keys")
    made = []
    for number, kind in enumerate(("ed25519", "ecdsa", "ed25519")):
        path = folder / f"{number}"
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)]
        subprocess.run(command, check=True)
        made.append(" ".join(path.with_suffix(".pub").read_text().split()[:2]))
    return made


def blob(key: str) -> bytes:
    return base64.b64decode(key.split()[1])


def found(path: Path, host: str, port: int = 22) -> list[bytes]:
    return [key.blob for key in KnownHosts([path]).of(host, port).keys]


def found_by_openssh(path: Path, name: str) -> list[bytes]:
    done = subprocess.run(
        ["ssh-keygen", "-F", name, "-f", str(path)], capture_output=True, text=True, check=False
    )
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith("#")]
    return [base64.b64decode(fields[2]) for fields in lines]


@pytest.mark.process
def test_every_way_to_name_a_host(tmp_path: Path, keys: list[str]) -> None:
    one, two, three = keys
    path = tmp_path / "known_hosts"
    path.write_text(
        f"""# a comment
        alpha,10.0.0.1 {one} me@here
        alpha {two}
        [alpha]:2222 {two}
        *.example.com,!bad.example.com {one}
        10.0.1.? {two}
        fd00::1,[fd00::1]:2222 {three}
        UPPER {three}
        short
        broken ssh-ed25519 A
        """.replace("        ", "")
    )
    cases: dict[tuple[str, int], list[str]] = {
        ("alpha", 22): [one, two],
        ("10.0.0.1", 22): [one],
        ("alpha", 2222): [two],
        ("web.example.com", 22): [one],
        ("bad.example.com", 22): [],
        ("10.0.1.7", 22): [two],
        ("10.0.1.77", 22): [],
        ("fd00::1", 22): [three],
        ("fd00::1", 2222): [three],
        ("upper", 22): [three],
        ("broken", 22): [],
        ("nobody", 22): [],
    }
    for (host, port), expected in cases.items():
        assert found(path, host, port) == [blob(key) for key in expected], (host, port)
        if host not in ("upper", "broken"):  # ssh asks in lower case; ssh-keygen shows all
            name = host if port == 22 else f"[{host}]:{port}"
            assert found_by_openssh(path, name) == found(path, host, port), (host, port)


@pytest.mark.process
def test_hashed_names(tmp_path: Path, keys: list[str]) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"alpha {keys[0]}\n[alpha]:2222,[fd00::1]:2222 {keys[1]}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    assert "alpha" not in path.read_text()
    assert found(path, "alpha") == [blob(keys[0])]
    assert found(path, "alpha", 2222) == found(path, "fd00::1", 2222) == [blob(keys[1])]
    assert found(path, "beta") == []


def test_another_port_may_have_the_host_without_one(tmp_path: Path, keys: list[str]) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"alpha {keys[0]}\n")
    assert found(path, "alpha", 2222) == [blob(keys[0])]
    known = KnownHosts([path]).of("10.0.0.9", 2222, "alpha")
    assert [key.blob for key in known.keys] == [blob(keys[0])]


def test_markers(tmp_path: Path, keys: list[str]) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"@revoked * {keys[0]}\nalpha {keys[0]}\n@cert-authority *.net {keys[1]}\n")
    known = KnownHosts([path]).of("alpha", 22)
    assert known.revoked == {blob(keys[0])}
    assert not known.authorities
    known = KnownHosts([path]).of("a.net", 22)
    assert not known.keys
    assert known.authorities == {blob(keys[1])}


def test_an_authority_of_every_host_does_not_hide_the_hosts_own_key(
    tmp_path: Path, keys: list[str]
) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"alpha {keys[0]}\n@cert-authority * {keys[1]}\n")
    known = KnownHosts([path]).of("alpha", 2222)
    assert [key.blob for key in known.keys] == [blob(keys[0])]
    assert known.authorities == {blob(keys[1])}


def test_several_files_one_of_which_is_missing(tmp_path: Path, keys: list[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(f"alpha {keys[0]}\n")
    two.write_text(f"alpha {keys[2]}\n")
    known = KnownHosts([one, tmp_path / "none", two]).of("alpha", 22)
    assert [key.blob for key in known.keys] == [blob(keys[0]), blob(keys[2])]
    assert known.kinds == ("ssh-ed25519",)
