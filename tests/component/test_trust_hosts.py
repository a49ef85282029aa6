"""trust-hosts at real sshds: what it asks, what it writes, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import documents
from tests.component.real_sshd import Sshd, keygen, public, running

PROGRAM = [sys.executable, "-c", "from provision.cli.main import main; main()"]
_PROMPT = "Type yes to trust"


@dataclass
class Desk:
    """An operator: a home, an inventory, and what a command has printed."""

    home: Path
    inventory: Path

    @property
    def known_hosts(self) -> Path:
        return self.home / ".ssh" / "known_hosts"

    def command(self, *options: str) -> list[str]:
        return [*PROGRAM, *options, "--inventory", str(self.inventory)]

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k != "SSH_AUTH_SOCK"}
        return {**kept, "HOME": str(self.home), "COLUMNS": "200"}

    def runs(self, *options: str) -> subprocess.CompletedProcess[str]:
        """A command without a terminal."""
        return subprocess.run(
            self.command(*options),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def asked(self, *answers: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        """trust-hosts on a terminal; each question gets the next answer."""
        main, side = pty.openpty()
        process = subprocess.Popen(
            self.command("trust-hosts", *options),
            env=self.environment,
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)
        left, seen, deadline = list(answers), "", time.monotonic() + 120
        try:
            while time.monotonic() < deadline:
                ready, _, _ = select.select([main], [], [], 1)
                if not ready:
                    continue
                try:
                    data = os.read(main, 4096)
                except OSError:  # the terminal's other end is closed
                    break
                if not data:
                    break
                seen += data.decode().replace("\r\n", "\n")
                if seen.count(_PROMPT) > len(answers) - len(left) and left:
                    os.write(main, f"{left.pop(0)}\n".encode())
            code = process.wait(10)
        finally:
            process.kill()
            process.wait()
            os.close(main)
        assert not left, f"it has not asked for {left}: {seen}"
        assert seen.count(_PROMPT) == len(answers), seen
        return code, seen


@pytest.fixture(scope="module")
def sshds() -> Iterator[tuple[Sshd, Sshd, Sshd]]:
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(running()) for _ in range(3))  # type: ignore[misc]


@pytest.fixture
def desk(tmp_path: Path, sshds: tuple[Sshd, ...]) -> Desk:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    hosts = "".join(
        f"Host {name}\n  HostName 127.0.0.1\n  Port {sshd.port}\n"
        for name, sshd in zip(("alpha", "beta", "gamma"), sshds, strict=True)
    )
    (home / ".ssh" / "config").write_text(hosts)
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(declared("alpha", "beta", "gamma"))
    return Desk(home, inventory)


def declared(*hosts: str, ssh: str = "{}") -> str:
    members = "".join(
        f"    infra{n}: {{host: {host}, address: 10.0.0.{n + 1}}}\n" for n, host in enumerate(hosts)
    )
    return f"""\
cluster: Trusted
ssh: {ssh}
etcd:
  version: 3.6.16
  source: {{path: etcd.tar.gz, sha256: {"0" * 64}}}
  members:
{members}"""


def fingerprint(key: Path) -> str:
    """As ssh-keygen says it."""
    listed = subprocess.run(
        ["ssh-keygen", "-lf", str(key)], check=True, capture_output=True, text=True
    ).stdout
    return listed.split()[1]


def entry(sshd: Sshd) -> str:
    return f"[127.0.0.1]:{sshd.port}"


def found(path: Path, sshd: Sshd) -> list[str]:
    """The lines that ssh-keygen finds for a server."""
    done = subprocess.run(
        ["ssh-keygen", "-F", entry(sshd), "-f", str(path)], capture_output=True, text=True
    )
    return [line for line in done.stdout.splitlines() if not line.startswith("#")]


def connections(sshd: Sshd) -> int:
    return sshd.log.read_text().count("Connection from ")


def test_all_keys_are_shown_and_asked_for_once(desk: Desk, sshds: tuple[Sshd, ...]) -> None:
    before = [connections(sshd) for sshd in sshds]
    code, said = desk.asked("yes")
    assert code == 0, said
    for number, sshd in enumerate(sshds):
        (row,) = [line for line in said.splitlines() if line.startswith(f"infra{number} ")]
        assert row.split() == [
            f"infra{number}",
            f"127.0.0.1:{sshd.port}",
            "ssh-ed25519",
            fingerprint(sshd.host_key),
            "new",
        ]
        (line,) = found(desk.known_hosts, sshd)
        assert line.split() == [entry(sshd), *public(sshd.host_key).split()[:2]]
    assert f"3 added to {desk.known_hosts}" in said
    assert desk.known_hosts.stat().st_mode & 0o777 == 0o600
    # Each is asked once, and nobody has logged in.
    assert [connections(sshd) for sshd in sshds] == [count + 1 for count in before]
    assert not any("userauth" in sshd.log.read_text() for sshd in sshds)
    # ssh itself believes the hosts now; only the login is not allowed.
    done = subprocess.run(
        [
            *("ssh", "-F", str(desk.home / ".ssh" / "config"), "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={desk.known_hosts}"),
            *("alpha", "true"),
        ],
        env=desk.environment,
        capture_output=True,
        text=True,
    )
    assert "Permission denied" in done.stderr, done.stderr
    # The second run has nothing to ask.
    text = desk.known_hosts.read_text()
    code, said = desk.asked()
    assert (code, desk.known_hosts.read_text()) == (0, text)
    assert "3 of 3 hosts are known" in said


def test_without_a_yes_nothing_is_written(desk: Desk) -> None:
    for answer in ("no", "y", ""):
        code, said = desk.asked(answer)
        assert code == 2, said
        assert "no key was added: the answer was not yes [consent-missing]" in said
        assert not desk.known_hosts.exists()


def test_without_a_terminal_it_is_refused_before_any_host_is_asked(
    desk: Desk, sshds: tuple[Sshd, ...]
) -> None:
    before = [connections(sshd) for sshd in sshds]
    done = desk.runs("trust-hosts")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "without a terminal the tool cannot ask; give --yes --fingerprints FILE" in done.stderr
    assert desk.runs("trust-hosts", "--yes").returncode == 2
    assert [connections(sshd) for sshd in sshds] == before


def test_a_hashed_file_stays_hashed_and_keeps_its_mode(desk: Desk, sshds: tuple[Sshd, ...]) -> None:
    alpha, *others = sshds
    desk.known_hosts.write_text(f"{entry(alpha)} {public(alpha.host_key)}")
    subprocess.run(
        ["ssh-keygen", "-H", "-f", str(desk.known_hosts)], check=True, capture_output=True
    )
    text = desk.known_hosts.read_text().rstrip("\n")  # as an editor may leave it
    desk.known_hosts.write_text(text)
    desk.known_hosts.chmod(0o644)
    code, said = desk.asked("yes")
    assert code == 0, said
    assert f"2 added to {desk.known_hosts}" in said
    lines = desk.known_hosts.read_text().splitlines()
    assert lines[0] == text
    assert [line[:3] for line in lines] == ["|1|"] * 3
    assert all(len(found(desk.known_hosts, sshd)) == 1 for sshd in (alpha, *others))
    assert desk.known_hosts.stat().st_mode & 0o777 == 0o644


def test_the_inventorys_own_file_is_the_one_in_force(desk: Desk) -> None:
    own = desk.inventory.parent / "deep" / "keys" / "known_hosts"
    desk.inventory.write_text(
        declared("alpha", "beta", "gamma", ssh="{known_hosts: deep/keys/known_hosts}")
    )
    code, said = desk.asked("yes")
    assert code == 0, said
    assert len(own.read_text().splitlines()) == 3
    assert own.stat().st_mode & 0o777 == 0o600
    assert own.parent.stat().st_mode & 0o777 == 0o700
    assert not desk.known_hosts.exists()


def test_without_a_file_that_keeps_keys_none_is_asked_for(desk: Desk) -> None:
    config = desk.home / ".ssh" / "config"
    for name in ("/dev/null", "none"):
        config.write_text(f"UserKnownHostsFile {name}\n{config.read_text()}")
        code, said = desk.asked()
        assert code == 2, said
        assert "UserKnownHostsFile names no file that keeps keys" in said


def test_a_changed_key_is_refused_and_the_line_says_how_to_go_on(
    desk: Desk, sshds: tuple[Sshd, ...], tmp_path: Path
) -> None:
    alpha, *_ = sshds
    old = keygen(tmp_path / "old")
    text = f"# mine\n{entry(alpha)} {public(old)}"
    desk.known_hosts.write_text(text)
    code, said = desk.asked("yes")  # for the two others
    assert code == 1, said
    whole = re.sub(r"\n +", " ", said)  # as on a terminal without an end of its lines
    (line,) = [line for line in whole.splitlines() if line.endswith("[host-key-changed]")]
    assert f"the host shows ssh-ed25519 {fingerprint(alpha.host_key)}" in line
    assert f"{desk.known_hosts}:2 has {fingerprint(old)}" in line
    after = desk.known_hosts.read_text()
    assert after.startswith(text)
    assert len(after.splitlines()) == 4
    # No other key is added by the next run.
    code, said = desk.asked()
    assert (code, desk.known_hosts.read_text()) == (3, after)
    # What the line says is enough, and is one line of the screen.
    remedy = re.search(r"says that it was\s+reinstalled:\s+(.*),\s+then\s", said)
    assert remedy is not None
    subprocess.run(remedy[1], shell=True, check=True, capture_output=True, env=desk.environment)
    code, said = desk.asked("yes")
    assert code == 0, said
    assert found(desk.known_hosts, alpha)[0].split()[1:] == public(alpha.host_key).split()[:2]


def test_a_revoked_key_is_never_added(desk: Desk, sshds: tuple[Sshd, ...]) -> None:
    desk.inventory.write_text(declared("alpha"))
    desk.known_hosts.write_text(f"@revoked * {public(sshds[0].host_key)}")
    code, said = desk.asked()
    assert code == 3, said
    assert "is marked @revoked in known_hosts" in re.sub(r"\n +", " ", said)


def test_the_others_are_added_when_one_does_not_answer(desk: Desk, sshds: tuple[Sshd, ...]) -> None:
    config = desk.home / ".ssh" / "config"
    config.write_text(config.read_text().replace(f"Port {sshds[1].port}", "Port 1"))
    code, said = desk.asked("yes")
    assert code == 1, said
    assert "cannot connect" in said
    assert len(desk.known_hosts.read_text().splitlines()) == 2


def through_alpha(desk: Desk, sshds: tuple[Sshd, ...]) -> Path:
    """The inventory's hosts are behind alpha, which takes a key of the operator's."""
    key = keygen(desk.home / ".ssh" / "id_ed25519")
    sshds[0].accept(key)
    desk.inventory.write_text(declared("beta", "gamma", ssh="{jump: alxp-op@alpha}"))
    return key


def test_hosts_behind_a_jump_host_wait_for_its_key(desk: Desk, sshds: tuple[Sshd, ...]) -> None:
    alpha, *behind = sshds
    through_alpha(desk, sshds)
    logins = alpha.log.read_text().count("Accepted publickey")
    code, said = desk.asked("no")
    assert code == 2, said
    assert fingerprint(alpha.host_key) in said
    assert not any(fingerprint(sshd.host_key) in said for sshd in behind)
    assert alpha.log.read_text().count("Accepted publickey") == logins
    code, said = desk.asked("yes", "yes")
    assert code == 0, said
    assert said.count(_PROMPT) == 2
    first, _, second = said.partition(_PROMPT)
    assert fingerprint(alpha.host_key) in first
    assert all(fingerprint(sshd.host_key) in second for sshd in behind)
    assert all(len(found(desk.known_hosts, sshd)) == 1 for sshd in sshds)
    assert alpha.log.read_text().count("Accepted publickey") == logins + 1
    # From now on the hosts behind it need one login at the jump host, and no question.
    code, said = desk.asked()
    assert code == 0, said
    assert "3 of 3 hosts are known" in said


def test_a_jump_host_without_a_login_is_one_line(desk: Desk, sshds: tuple[Sshd, ...]) -> None:
    through_alpha(desk, sshds)
    sshds[0].accept()
    code, said = desk.asked("yes")
    assert code == 1, said
    assert "jump host alpha: login refused" in said
    assert said.count("behind jump host alpha, which cannot be passed: not scanned") == 1


def test_ssh_takes_the_type_that_is_known(desk: Desk, tmp_path: Path) -> None:
    rsa = keygen(tmp_path / "rsa", "-t", "rsa", "-b", "2048")
    with running(f"HostKey {rsa}") as sshd:
        config = desk.home / ".ssh" / "config"
        config.write_text(f"Host alpha\n  HostName 127.0.0.1\n  Port {sshd.port}\n")
        desk.inventory.write_text(declared("alpha"))
        code, said = desk.asked("no")
        assert f"ssh-ed25519  {fingerprint(sshd.host_key)}" in said
        desk.known_hosts.write_text(f"{entry(sshd)} {public(rsa)}")
        code, said = desk.asked()
        assert code == 0, said
        # Of a type that the host does not have any more.
        ecdsa = keygen(tmp_path / "ecdsa", "-t", "ecdsa")
        desk.known_hosts.write_text(f"{entry(sshd)} {public(ecdsa)}")
        code, said = desk.asked("no")
        assert "it is ssh-ed25519, and only ecdsa-sha2-nistp256 is known" in said


def compared(desk: Desk, text: str) -> subprocess.CompletedProcess[str]:
    """--fingerprints FILE with --yes: nobody is asked."""
    path = desk.home / "fingerprints"
    path.write_text(text)
    return desk.runs("trust-hosts", "--yes", "--fingerprints", str(path), "--format", "json")


def test_fingerprints_in_every_form(desk: Desk, sshds: tuple[Sshd, ...]) -> None:
    alpha, beta, gamma = sshds
    listed = f"256 {fingerprint(alpha.host_key)} root@alpha (ED25519)\n"
    done = compared(
        desk,
        f"# from the consoles\n\n{listed}"
        f"{entry(beta)} {public(beta.host_key)}"
        f"infra2 {fingerprint(gamma.host_key)}\n",
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    documents.require(document)
    assert document["added"] == {str(desk.known_hosts): 3}
    assert [host["state"] for host in document["hosts"]] == ["known"] * 3
    assert len(desk.known_hosts.read_text().splitlines()) == 3
    assert json.loads(compared(desk, listed).stdout)["changed"] == 0


def test_what_ssh_keygen_lists_of_known_hosts(
    desk: Desk, sshds: tuple[Sshd, ...], tmp_path: Path
) -> None:
    known = tmp_path / "known"
    keys = [" ".join(public(sshd.host_key).split()[:2]) for sshd in sshds]
    known.write_text("".join(f"{entry(s)} {k}\n" for s, k in zip(sshds, keys, strict=True)))
    for hashed in (False, True):
        desk.known_hosts.unlink(missing_ok=True)
        if hashed:
            subprocess.run(["ssh-keygen", "-H", "-f", str(known)], check=True, capture_output=True)
        listed = subprocess.run(
            ["ssh-keygen", "-lf", str(known)], check=True, capture_output=True, text=True
        ).stdout
        assert compared(desk, listed).returncode == 0
        assert len(desk.known_hosts.read_text().splitlines()) == 3


def test_another_fingerprint_ends_it_before_anything_is_written(
    desk: Desk, sshds: tuple[Sshd, ...]
) -> None:
    alpha, beta, gamma = sshds
    done = compared(
        desk,
        f"alpha {fingerprint(beta.host_key)}\nbeta {fingerprint(beta.host_key)}\n"
        f"gamma {fingerprint(gamma.host_key)}\n",
    )
    assert done.returncode == 3
    assert f"shows ssh-ed25519 {fingerprint(alpha.host_key)}" in done.stderr
    assert "which is not what" in done.stderr
    assert not desk.known_hosts.exists()


def test_a_fingerprint_counts_for_the_host_that_it_names(
    desk: Desk, sshds: tuple[Sshd, ...]
) -> None:
    alpha, *_ = sshds
    text = f"elsewhere {fingerprint(alpha.host_key)}\n"
    text += f"256 {fingerprint(alpha.host_key)} root@x (ED25519)\n"
    done = compared(desk, text)
    assert done.returncode == 3
    assert done.stderr.count("has no fingerprint for it") == 3
    assert not desk.known_hosts.exists()


def test_on_a_terminal_it_asks_for_what_the_file_has(desk: Desk, sshds: tuple[Sshd, ...]) -> None:
    path = desk.home / "fingerprints"
    path.write_text(f"alpha {fingerprint(sshds[0].host_key)}\n")
    code, said = desk.asked("yes", options=("--fingerprints", str(path)))
    assert code == 1, said
    assert said.count("not in the file") == 2
    assert len(desk.known_hosts.read_text().splitlines()) == 1


def test_one_that_is_missing_is_left_out(desk: Desk, sshds: tuple[Sshd, ...]) -> None:
    done = compared(desk, f"alpha {fingerprint(sshds[0].host_key)}\n")
    assert done.returncode == 1
    assert len(desk.known_hosts.read_text().splitlines()) == 1
    assert "[host-key-unknown]" in done.stderr


def test_a_line_that_is_none_is_refused(desk: Desk) -> None:
    done = compared(desk, "alpha\n2048 MD5:aa:bb alpha (RSA)\nalpha SHA256:short\n")
    assert done.returncode == 2
    assert done.stderr.count("is no fingerprint") == 3


def test_jump_hosts_too(desk: Desk, sshds: tuple[Sshd, ...]) -> None:
    through_alpha(desk, sshds)
    names = ("alpha", "beta", "gamma")
    lines = [f"{n} {fingerprint(s.host_key)}" for n, s in zip(names, sshds, strict=True)]
    done = compared(desk, "\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert len(desk.known_hosts.read_text().splitlines()) == 3


@pytest.mark.parametrize("command", ["kept-data", "status"])
def test_one_line_names_all_hosts_whose_keys_are_missing(desk: Desk, command: str) -> None:
    done = desk.runs(command)
    lines = [line for line in done.stderr.splitlines() if "not in known_hosts" in line]
    assert len(lines) == 1, done
    assert "3 hosts: alpha, beta, gamma: " in lines[0]
    assert lines[0].endswith("trust-hosts) [host-key-unknown]")
