"""What a login shell is given, and how its answer is told from what else it prints.

The login shell may be sh, bash, fish or tcsh, and its start files may print what they like. So it
only starts ``sh``; the program for that has no character that one of these shells takes in its own
way. The program becomes root, drops the host's environment, and puts marks with a random token
around the answer. What stands outside the marks is noise.
"""

from __future__ import annotations

import re
import secrets
import shlex
from dataclasses import field

from provision.dataclass import dataclass
from provision.errors import Problem
from provision.ids import Id
from provision.text import printable, printable_lines

#: Where commands are looked for on every host: the folders that sudo's manual page and Debian name.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The whole environment of whatever runs as root. Programs answer in English; no variable of the
#: host (ETCDCTL_ENDPOINTS in /etc/environment, JAVA_TOOL_OPTIONS, a proxy) changes what they do.
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C", "HOME": "/root", "SHELL": "/bin/sh"}
#: Bytes that a login shell may print before the answer.
MAX_NOISE = 64 << 10
#: Characters that some shell takes in its own way within single quotes. fish takes ``\``, and tcsh
#: takes ``!`` and a line end.
_NOT_PLAIN = re.compile(r"['\\!\n\r]")


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of one exchange. ``login``: the program runs, not yet as root. ``begin`` and
    ``end`` stand around the answer."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def login(self) -> bytes:
        return f"--{self.token}-login--\n".encode()

    @property
    def begin(self) -> bytes:
        return f"--{self.token}-begin--\n".encode()

    @property
    def end(self) -> bytes:
        return f"\n--{self.token}-end--\n".encode()


#: Whether the login is root. The first process is root's. Only where it cannot be seen (proc(5),
#: hidepid=) a program is asked, as each command would need one.
_IS_ROOT = '[ -O /proc/1 ] || { [ ! -e /proc/1 ] && [ "$(id -u)" = 0 ]; }'


def command_line(command: str, marks: Marks, *, password: bool = False) -> str:
    """What the login shell is to run, so that root runs ``command`` in :data:`ENVIRONMENT`.

    A login other than root uses sudo. With ``password``, standard input begins with sudo's password
    and a line end. ``command`` never shares its input with sudo: sudo may need no password and
    leave it unread, or read further than the line. No process has the password among its arguments.
    """
    settings = " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())
    begin, end = marks.begin.decode().strip(), marks.end.decode().strip()
    as_root = (
        f"umask 022; echo {begin}; echo {begin} >&2; env -i {settings} {command}; "
        f"c=$?; printf '\\n%s\\n' {end}; exit $c"
    )
    login = marks.login.decode().strip()
    # The login's own folders come last: sudo may be in one of them.
    start = (
        f"PATH={PATH}:$PATH LC_ALL=C; export PATH LC_ALL; echo {login}; echo {login} >&2; "
        f"if {_IS_ROOT}; then {'IFS= read -r p; p=; ' if password else ''}"
        f"exec sh -c {shlex.quote(as_root)}; fi; "
    )
    if not password:
        return _for_any_shell(f"{start}exec sudo -n sh -c {shlex.quote(as_root)}")
    # Root opens the pipe again that has the rest of the input: sudo closes every other descriptor.
    own_input = shlex.quote(f'exec <"$0"; {as_root}')
    become = (
        "IFS= read -r p; exec 3<&0; "
        f"printf '%s\\n' \"$p\" | sudo -S -p '' sh -c {own_input} \"/proc/$$/fd/3\""
    )
    return _for_any_shell(f"{start}cat | sh -c {shlex.quote(become)}")


def _for_any_shell(program: str) -> str:
    encoded = _NOT_PLAIN.sub(lambda found: f"\\0{ord(found[0]):03o}", program)
    return f"""exec sh -c 'eval "$(printf %b "$0")"' '{encoded}'"""


class Answer:
    """Takes the answer out of a command's standard output as it comes.

    ``noise`` is what stood before it, and after it. Without ``end`` the answer goes on to the end
    of the output.
    """

    def __init__(self, marks: Marks, *, end: bool = True) -> None:
        self._marks, self._end = marks, marks.end if end else b""
        self._held = bytearray()
        self.noise = bytearray()
        self.begun = self.ended = False
        #: Whether a byte of the answer itself has come.
        self.any = False

    def feed(self, data: bytes) -> bytes:
        """The part of the answer that ``data`` completes. Raises ``OSError`` when the login shell
        prints more than :data:`MAX_NOISE` bytes before it."""
        searched = max(0, len(self._held) - len(self._marks.begin))
        self._held += data
        if not self.begun:
            place = self._held.find(self._marks.begin, searched)
            if place < 0:
                if len(self._held) > MAX_NOISE:
                    raise OSError("the login shell prints much, and does not run the command")
                return b""
            self.begun, self.noise = True, self._held[:place]
            del self._held[: place + len(self._marks.begin)]
        found = self._take()
        self.any = self.any or bool(found)
        return found

    def _take(self) -> bytes:
        if self.ended:
            self.noise += self._held[: MAX_NOISE - len(self.noise)]
            self._held.clear()
            return b""
        if not self._end:
            found = bytes(self._held)
            self._held.clear()
            return found
        place = self._held.find(self._end)
        if place >= 0:
            found = bytes(self._held[:place])
            del self._held[: place + len(self._end)]
            self.ended = True
            self._take()
            return found
        # The last bytes may be the beginning of the mark.
        keep = next(
            n
            for n in range(min(len(self._end), len(self._held)), -1, -1)
            if self._held.endswith(self._end[:n])
        )
        found = bytes(self._held[: len(self._held) - keep])
        del self._held[: len(self._held) - keep]
        return found

    @property
    def before(self) -> str:
        """What was printed before the answer, or instead of it, without marks."""
        text = bytes(self.noise if self.begun else self._held)
        return text.replace(self._marks.login, b"").decode(errors="replace").strip()


def own_errors(stderr: bytes, marks: Marks) -> bytes:
    """What ``command`` itself has printed to standard error, without the login shell's words."""
    return stderr.rpartition(marks.begin)[2]


@dataclass(frozen=True, slots=True)
class _Cause:
    pattern: str
    what: str
    remedy: str


_PASSWORD = "check ssh.sudo_password, and what sudo allows this login"
#: sudo's words, with LC_ALL=C, of sudo(8) (plugins/sudoers: logging.c, check.c, auth/sudo_auth.c;
#: src/sudo.c) and of sudo-rs (src/common/error.rs, src/pam/error.rs).
_SUDO = (
    _Cause(
        "must have a tty|requires? a tty",
        "sudo wants a terminal (requiretty)",
        "write Defaults:LOGIN !requiretty into its sudoers",
    ),
    _Cause(
        "password is required|authentication is required|no password was provided",
        "sudo asks for a password",
        "give ssh.sudo_password, let it use sudo without a password, or log in as root",
    ),
    _Cause(
        "[Ss]orry, try again|incorrect (password|authentication)|[Aa]uthentication fail",
        "sudo did not accept the password",
        _PASSWORD,
    ),
    _Cause(
        "not in the sudoers|may not run sudo|not allowed to|I'm afraid I can't do that",
        "sudo does not let it become root",
        "allow it in sudoers, or log in as root",
    ),
    _Cause(
        r"sudo: (command )?not found|exec: sudo: not found|sudo: No such file",
        "there is no sudo",
        "install sudo there, or log in as root",
    ),
)


def refusal(answer: Answer, stderr: bytes, marks: Marks, where: str, *, password: bool) -> Problem:
    """Why a command was not run at all: the login shell refused it, or sudo did."""
    _, started, words = stderr.partition(marks.login)
    said = words.decode(errors="replace")
    if not started:
        last = printable_lines(f"{stderr.decode(errors='replace')}\n{answer.before}", last=1)
        what = "takes the login, but its login shell runs no command"
        remedy = "log in as a user whose shell is one; try ssh to that host by hand"
        text = what + (f": {printable(last[0], 200)}" if last else "")
        return Problem(where, text, remedy, id="ssh-login-refused")
    last = printable_lines(said, last=1)
    causes = [_SUDO[2], *_SUDO] if password else _SUDO
    cause = next((c for c in causes if re.search(c.pattern, said)), None)
    if cause is None:
        remedy = _PASSWORD if password else "try sudo on that host by hand"
        cause = _Cause("", "sudo does not run the command", remedy)
    text = f"no root: {cause.what}" + (f" ({printable(last[0], 200)})" if last else "")
    id: Id = "root-needed"
    return Problem(where, text, cause.remedy, id=id)
