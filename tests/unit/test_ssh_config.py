"""Generated SSH configurations: what ssh -G is made to say is what ssh does, and the reader for
machines without ssh says the same."""

from __future__ import annotations

import os
import pwd
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from provision.ssh.asked import Ssh
from provision.ssh.options import Options
from provision.ssh.reader import Reader
from provision.ssh.tokens import ConfigError

pytestmark = pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh here")

EXAMPLES = 150
HOSTS = ["web", "web1", "db.example.com", "WEB", "10.0.0.7", "other"]
PATTERNS = [
    "*",
    "web*",
    "web?",
    "!web1",
    "*.example.com",
    "10.0.0.?",
    "WEB",
    "[w]eb",
    "other",
    "%h",
]
USERS = [None, "deploy", "op"]
VALUES = {
    "HostName": ["10.0.0.1", "%h.example.com", "db", '"quoted.name"', "fd00::1", "%%h"],
    "User": ["deploy", '"o p"', "me", "'single'", r"DOM\\me"],
    "Port": ["22", "2022", '"99"'],
    "IdentityFile": ["~/.ssh/a", '"~/b c"', "/k/%r@%h-%n:%p", "${HOME}/d", "none", "%d/%u%i%k"],
    "CertificateFile": ["~/c-%r-cert.pub", "/x%%"],
    "IdentitiesOnly": ["yes", "no"],
    "IdentityAgent": ["none", "~/agent", "SSH_AUTH_SOCK", "$FOO", "/run/%r"],
    "ProxyCommand": ["nc %h %p", "none", 'sh -c "nc %h" # x', "a=b ${HOME} ~ %% %n %r"],
    "ProxyJump": ["none", "u@a:2", "b,c", "%r@j"],
    "UserKnownHostsFile": ["~/.ssh/k", "/k1 ~/k2", "none", '"/a b" /c', "/k-%r-%h"],
    "GlobalKnownHostsFile": ["/g1", "/g1 /g2"],
    "HostKeyAlias": ["alias", "al.ias"],
    "SendEnv": ["LANG LC_*"],
}


class Made:
    """One configuration, of a seed: files with blocks, conditions, comments and includes."""

    def __init__(self, seed: int, folder: Path, values: Mapping[str, list[str]] = VALUES) -> None:
        self._values = values
        self._random = random.Random(seed)
        self._folder, self._files = folder, 0
        self.path = self._file(0)

    def _file(self, depth: int) -> Path:
        self._files += 1
        path = self._folder / f"c{self._files}"
        lines = [self._line(depth) for _ in range(self._random.randint(1, 12))]
        path.write_text("\n".join(lines) + "\n")
        return path

    def _line(self, depth: int) -> str:
        choose = self._random.choice
        kind = self._random.random()
        if kind < 0.15:
            return f"Host {' '.join(self._some(PATTERNS))}"
        if kind < 0.3:
            return f"Match {' '.join(self._criteria())}"
        if kind < 0.35 and depth < 2:
            return f"Include {self._file(depth + 1)}"
        if kind < 0.4:
            return choose(["", "# a comment", "   # another"])
        keyword = choose(list(self._values))
        value = choose(self._values[keyword])
        # Up to OpenSSH 8 a comment after a value was an error; ProxyCommand takes it as its own.
        comment = choose(["", "", " # x"]) if keyword != "ProxyCommand" else ""
        spelt = choose([keyword, keyword.lower(), keyword.upper()])
        return (
            f"{choose(['', '  ', chr(9)])}{spelt}{choose([' ', '=', ' = ', '  '])}{value}{comment}"
        )

    def _criteria(self) -> list[str]:
        choose = self._random.choice
        if self._random.random() < 0.2:
            return [choose(["all", "ALL"])]
        found = []
        for _ in range(self._random.randint(1, 2)):
            name = choose(["host", "originalhost", "user", "Host", "USER"])
            patterns = ["deploy", "op"] if name.lower() == "user" else PATTERNS
            found.append(f"{choose(['', '', '!'])}{name} {','.join(self._some(patterns))}")
        return found

    def _some(self, values: list[str]) -> list[str]:
        return [self._random.choice(values) for _ in range(self._random.randint(1, 2))]


def read(reader: Ssh | Reader, host: str, user: str | None, port: int | None) -> Options | str:
    try:
        return reader.lookup(host, user, port)
    except ConfigError:
        return "an error"


@pytest.mark.process
def test_both_readers_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = pwd.getpwuid(os.getuid())
    monkeypatch.setenv("HOME", me.pw_dir)
    defaults = read(Ssh(shutil.which("ssh") or "", [tmp_path / "none"]), "x", None, None)
    assert isinstance(defaults, Options)
    seen = 0
    for seed in range(EXAMPLES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        made = Made(seed, folder)
        chosen = random.Random(seed)
        host, user = chosen.choice(HOSTS), chosen.choice(USERS)
        port = chosen.choice([None, 2222])
        by_ssh = read(Ssh(shutil.which("ssh") or "", [made.path]), host, user, port)
        by_us = read(Reader([made.path]), host, user, port)
        if isinstance(by_us, Options):
            by_us = with_defaults(by_us, defaults, me.pw_name)
        assert by_us == by_ssh, (
            "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(folder.iterdir()))
            + f"\n{host} {user} {port}"
        )
        seen += by_ssh != defaults
    assert seen > EXAMPLES / 2


def with_defaults(found: Options, defaults: Options, user: str) -> Options:
    """ssh says its defaults, too; the reader says what the files say."""
    return replace(
        found,
        user=found.user or user,
        user_known_hosts=found.user_known_hosts or defaults.user_known_hosts,
        global_known_hosts=found.global_known_hosts or defaults.global_known_hosts,
    )


#: Commands that end at once. ssh says which one it runs; it never connects.
CONNECTING = {
    **{key: values for key, values in VALUES.items() if key != "ProxyJump"},
    "ProxyCommand": ["false %h %p", "false %n %r # x", "false ${HOME} ~ %% '%h'"],
    "IdentityFile": [*VALUES["IdentityFile"], "~/%C", "~/%l-%L-%k", '"${HOME}/a b/%h"', "%%x"],
    "CertificateFile": [*VALUES["CertificateFile"], "%d/%C", "${HOME}/c"],
    "User": ["deploy", "me", "op"],
}


@pytest.mark.process
def test_what_is_expanded_here_is_what_ssh_takes_when_it_connects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other test has our own expansion on both sides."""
    monkeypatch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    program = shutil.which("ssh") or ""
    compared = 0
    for seed in range(EXAMPLES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = Made(seed, folder, CONNECTING).path
        path.write_text(f"{path.read_text()}\nMatch all\nProxyCommand false %h %p %r %n\n")
        chosen = random.Random(seed)
        host, port = chosen.choice(HOSTS), chosen.choice([None, "2222"])
        found = read(Ssh(program, [path]), host, None, int(port) if port else None)
        words = [program, "-v", "-F", str(path), *(["-p", port] if port else []), host]
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        )

        def said(what: str, text: str = done.stderr) -> tuple[str, ...]:
            return tuple(dict.fromkeys(re.findall(f"^debug1: {what}$", text, re.MULTILINE)))

        context = f"{path.read_text()}\n{host} {port}\n{done.stderr}"
        commands = said("Executing proxy command: exec (.*)")
        if isinstance(found, str):
            assert commands == (), context
            continue
        assert commands == (found.proxy_command,), context
        assert said(r"certificate file (.*) type -?\d+") == found.certificate_files, context
        if found.identity_files:  # of none, ssh says its usual ones, and their certificates
            keys = [k for k in said(r"identity file (.*) type -?\d+") if not k.endswith("-cert")]
            assert tuple(keys) == found.identity_files, context
            compared += 1
    assert compared > EXAMPLES / 6


@pytest.mark.process
def test_a_run_leaves_no_temporary_file(tmp_path: Path) -> None:
    """Nothing is left to the end of the interpreter: it does not free everything."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host other\n  User x\n")
    (tmp_path / "temporary").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "inventory.yml").write_text(
        f"""
ssh: {{user: u, port: {port}}}
etcd:
  version: 3.6.16
  source: {{path: a.tar.gz, sha256: {"0" * 64}}}
  members: {{e0: {{host: 127.0.0.1}}}}
"""
    )
    program = "from provision.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "status", "-i", "inventory.yml"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path / "temporary")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "refused" in done.stdout, done.stderr
    assert [*(tmp_path / "temporary").iterdir()] == []
