"""ssh_config(5) as ssh itself reads it: ``ssh -G HOST`` prints the values in force, and connects to
nothing. (It runs the commands of ``Match exec``, and resolves names that are to be canonical.)

What ssh expands only when it connects is expanded here. The values of most tokens come from ssh,
too, by way of an option that it does expand.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from provision import bounds, progress
from provision.files import read_text
from provision.ssh.options import Options
from provision.ssh.tokens import ConfigError, expanded, proxy_command
from provision.text import printable

#: Seconds for one answer. A command of ``Match exec``, or a name that does not resolve, may hang.
PATIENCE = 20.0
SYSTEM = Path("/etc/ssh/ssh_config")
#: It comes before the values of the files: without another one, the files name no key.
_MARKER = "/dev/null/no-key"
_NOBODY = "no-user-is-given"
#: Keywords that keep ssh from this host or change how it gets there, and that the tool does not do.
_UNSUPPORTED = {
    "revokedhostkeys": "none",
    "knownhostscommand": "none",
    "bindaddress": "none",
    "bindinterface": "none",
    "proxyusefdpass": "no",
    "addressfamily": "any",
}
_LOOP = "jumphost loop"
#: Some releases take fewer characters on the command line than in a file (``ssh.c``), such as no
#: backslash of a domain's user.
_USER_REFUSED = "username contains invalid characters"
_AT_FAULT = re.compile(r"line \d+")


def home_of_ssh() -> Path | None:
    """The home that ssh takes: of the account, whatever HOME says. None without an account."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def is_openssh(program: str) -> bool:
    """Whether the program named ssh is OpenSSH's. Another one may take ``-G`` for nothing, and
    connect."""
    try:
        done = subprocess.run(
            [program, "-V"], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"OpenSSH" in done.stderr + done.stdout


class Ssh:
    """The program ssh with some configuration files. ``files`` are None for those of its own."""

    def __init__(self, program: str, files: Sequence[Path] | None) -> None:
        self._program = program
        self._files = files
        # Without this, ssh names the files of the account's home, whatever HOME says.
        self._own = None if files is None else _merged(files, _known_hosts_at_home())
        self._fallback: str | None = None

    def lookup(self, host: str, user: str | None, port: int | None) -> Options:
        """The options for ``host``. A given user and port win. Raises :class:`ConfigError`."""
        values = self._ask(host, user, port, self._own)
        return _options(host, values)

    def names_user(self, host: str, port: int | None) -> bool:
        """Whether the files name a user for ``host``. Without one, ssh answers with its own."""
        if self._fallback is None:
            self._fallback = _merged(self._every, f"Match all\nUser {_NOBODY}\n")
        (found,) = self._ask(host, None, port, self._fallback)["user"]
        return found != _NOBODY

    @property
    def _every(self) -> Sequence[Path]:
        """The files, also those of ssh's own."""
        if self._files is not None:
            return self._files
        return [Path("~/.ssh/config").expanduser(), SYSTEM]

    def _ask(
        self,
        host: str,
        user: str | None,
        port: int | None,
        text: str | None,
    ) -> dict[str, list[str]]:
        code, out, err = self._run(host, user, port, text)
        if code != 0 and _USER_REFUSED in err and user is not None and '"' not in user:
            # In a file, it wins as much where it comes first.
            last = "" if self._files is None else _known_hosts_at_home()
            text, user = _merged(self._every, last, first=f'User "{user}"\n'), None
            code, out, err = self._run(host, user, port, text)
        if code != 0 and _LOOP in err:
            # "Host *" with a ProxyJump also matches the jump host, but is not meant for it.
            code, out, err = self._run(host, user, port, text, "-o", "ProxyJump=none")
        if code != 0:
            raise ConfigError(f"ssh -G {host}: {self._said(err)}")
        found: dict[str, list[str]] = {}
        for line in out.splitlines():
            key, _, value = line.partition(" ")
            found.setdefault(key.lower(), []).append(value)
        return found

    def _run(
        self,
        host: str,
        user: str | None,
        port: int | None,
        text: str | None,
        *more: str,
    ) -> tuple[int, str, str]:
        """One answer of ssh, with ``text`` as its file: its exit code, its output, its errors."""
        if text is None:
            return self._call(host, user, port, *more)
        # Only as long as ssh reads it: what lives as long as this object is left in /tmp when the
        # interpreter ends before it frees the object.
        with tempfile.NamedTemporaryFile(
            "w", prefix="ssh_config-", errors="surrogateescape"
        ) as file:
            file.write(text)
            file.flush()
            code, out, err = self._call(host, user, port, "-F", file.name, *more)
        if self._files:
            err = err.replace(file.name, str(self._files[0]))
        return code, out, err

    def _call(
        self, host: str, user: str | None, port: int | None, *more: str
    ) -> tuple[int, str, str]:
        command = [self._program, "-T", "-G", *more]
        command += ["-o", f"IdentityFile={_MARKER}", "-o", "ControlPath=/%C/%i/%L/%l/%u"]
        command += ["-l", user] if user is not None else []
        command += ["-p", str(port)] if port is not None else []
        process = subprocess.Popen(
            [*command, "--", host],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
        try:
            with progress.calling(host, "what ssh -G says", PATIENCE):
                out, err = process.communicate(timeout=PATIENCE)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise ConfigError(
                f"ssh -G {host} does not answer in {PATIENCE:g} s: see Match exec and "
                "CanonicalizeHostname in the SSH configuration"
            ) from None
        return (
            process.returncode,
            out.decode(errors="surrogateescape"),
            err.decode(errors="replace"),
        )

    @staticmethod
    def _said(text: str) -> str:
        """The line of ssh's errors that names the line at fault, else the last one."""
        lines = [printable(line.strip(), 300) for line in text.splitlines() if line.strip()]
        named = [line for line in lines if _AT_FAULT.search(line)]
        return (named or lines[-1:] or ["it ends without a word"])[0]


def _merged(files: Sequence[Path], last: str = "", *, first: str = "") -> str:
    """The text of one file for ``ssh -F``, in place of both files that ssh reads without it.

    The first file stands in it line by line, so that ssh's errors name the right line. What is
    relative to the home of the account (an Include, ``~``) is made relative to the file's own home.
    """
    text = ""
    if files:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            text = read_text(files[0], bounds.SSH_CONFIG, errors="surrogateescape")
            text = _at_home(text, files[0].parent)
        text += "\n"
    for path in files[1:]:
        text += f'Match all\nInclude "{path}"\n'
    return first + text + last


def _known_hosts_at_home() -> str:
    names = [os.path.expanduser(f"~/.ssh/{name}") for name in ("known_hosts", "known_hosts2")]
    quoted = " ".join(f'"{name}"' for name in names)
    return f"Match all\nUserKnownHostsFile {quoted}\n"


def _at_home(text: str, folder: Path) -> str:
    home = os.path.expanduser("~")

    def include(found: re.Match[str]) -> str:
        names = re.sub(r'(?<![^\s"])(?![/~"\s])', f"{folder}/", found[2])
        return found[1] + names

    text = re.sub(r"(?im)^([ \t]*include(?:[ \t]+|[ \t]*=[ \t]*))(.*)$", include, text)
    return re.sub(r"""(?m)(?<=[\s"=])~(?=/)""", lambda _: home, text)


def _options(host: str, values: dict[str, list[str]]) -> Options:
    def one(key: str) -> str | None:
        found = values.get(key, ["none"])[0]
        return None if found.lower() == "none" else found

    try:
        hostname, user, port = values["hostname"][0], values["user"][0], values["port"][0]
        found = values["controlpath"][0].split("/")[1:]
        pairs = zip(("C", "i", "L", "l", "u"), found, strict=True)
        # A release that does not expand one of them leaves it as it is.
        local = {token: value for token, value in pairs if not value.startswith("%")}
    except (LookupError, ValueError):
        raise ConfigError(f"ssh -G {host}: its answer cannot be read") from None
    alias, jump = one("hostkeyalias"), one("proxyjump")
    few = {"h": hostname, "n": host, "p": port, "r": user}
    more = {"d": os.path.expanduser("~"), "j": jump or "", "k": alias or host}
    tokens = {**few, **local, **more}

    def paths(key: str) -> list[str]:
        found = dict.fromkeys(os.path.expanduser(name) for name in values.get(key, ()))
        return [expanded(n, tokens, environment=True) for n in found if n.lower() != "none"]

    named = [name for name in values.get("identityfile", ()) if name != _MARKER]
    values["identityfile"] = named
    command = one("proxycommand")
    return Options(
        hostname=hostname,
        user=user,
        port=int(port),
        identity_files=tuple(paths("identityfile")) if named else None,
        certificate_files=tuple(paths("certificatefile")),
        identities_only=values.get("identitiesonly", ["no"])[0] == "yes",
        # Here ssh expands all but a variable that names the whole value, and the word none counts.
        identity_agent=values.get("identityagent", [None])[0],
        proxy_jump=expanded(jump, few) if jump is not None else None,
        proxy_command=proxy_command(command, few) if command is not None else None,
        user_known_hosts=_several(values.get("userknownhostsfile")),
        global_known_hosts=_several(values.get("globalknownhostsfile")),
        host_key_alias=alias,
        unsupported=tuple(
            key
            for key, usual in _UNSUPPORTED.items()
            if values.get(key, [usual])[0].lower() not in (usual, "none", "no")
        ),
    )


def _several(values: list[str] | None) -> tuple[str, ...] | None:
    """The files of one line. ssh prints them without quotes: what begins with neither / nor ~
    belongs to the name before it."""
    if not values:
        return None
    names: list[str] = []
    for word in values[0].split(" "):
        if names and not word.startswith(("/", "~")):
            names[-1] += f" {word}"
        else:
            names.append(word)
    return tuple(os.path.expanduser(name) for name in names)
