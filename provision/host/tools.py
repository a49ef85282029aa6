"""The programs of a host that the scripts of this tool need, and what they need of them.

A program that is missing must not look like a fact: without ``stat`` there would be no files. So
the facts script prints a line ``lacks NAME`` for each, and a host that lacks something for the look
itself (:data:`LOOK`) counts as not asked. What only changes need is asked only by commands that
change something; they refuse before anything is changed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem
from provision.host import selinux
from provision.text import printable, printable_lines

_COREUTILS, _UTIL_LINUX, _FIND = "coreutils", "util-linux", "findutils"
_SHADOW = "passwd (Debian), shadow-utils (RHEL) or shadow (SUSE)"
_LIBC = "libc-bin (Debian), glibc-common (RHEL) or glibc (SUSE)"

#: The programs of every look at a host, with their packages. ``facts.sh`` names the same.
LOOK: Mapping[str, str] = {
    **dict.fromkeys(("base64", "cat", "date", "dd", "df", "head", "id", "ls"), _COREUTILS),
    **dict.fromkeys(("readlink", "sha256sum", "stat", "timeout", "tr"), _COREUTILS),
    "getent": _LIBC,
    "grep": "grep",
    "sed": "sed",
    "setpriv": _UTIL_LINUX,
    "systemctl": "systemd",
}
#: The programs of the scripts that change a host, besides those of :data:`LOOK`.
CHANGE: Mapping[str, str] = {
    **dict.fromkeys(("chmod", "chown", "cp", "cut", "dirname", "du", "ln", "mkdir"), _COREUTILS),
    **dict.fromkeys(("expr", "mkfifo", "mktemp", "mv", "od", "rm", "rmdir", "sleep"), _COREUTILS),
    **dict.fromkeys(("sort", "sync", "tail", "tee", "touch", "uniq", "wc"), _COREUTILS),
    "flock": _UTIL_LINUX,
    **dict.fromkeys(("groupadd", "groupdel", "useradd", "userdel"), _SHADOW),
    "awk": "mawk or gawk",
    "bash": "bash",
    "find": _FIND,
    "gzip": "gzip",
    "journalctl": "systemd",
    "tar": "tar",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """A command that works only where its program can do ``what`` the scripts need."""

    what: str
    command: tuple[str, ...]
    package: str


_BYTES = r'[ "$(printf "\377" | tr "\377" x)" = x ]'
#: busybox's programs have these names, but lack this. uutils 0.0.17 reads only text: its tr ends at
#: a byte that is none, without an error, and so would hide what comes after it.
TRIALS = (
    Trial(
        "find -printf -delete",
        ("find", "/proc/version", "!", "-name", "*", "-printf", "x", "-delete"),
        _FIND,
    ),
    Trial("readlink -m", ("readlink", "-m", "/"), _COREUTILS),
    Trial("tr of every byte", ("sh", "-c", _BYTES), _COREUTILS),
)
#: What the facts script itself tries.
_TRIED = {
    "stat -c": _COREUTILS,
    "timeout -k": _COREUTILS,
    "df -T": _COREUTILS,
    "setpriv --reuid": _UTIL_LINUX,
}
_NEEDED_TO_LOOK = frozenset({*LOOK, *_TRIED})
_PACKAGES = {
    **LOOK,
    **CHANGE,
    **_TRIED,
    **{trial.what: trial.package for trial in TRIALS},
    "restorecon": "policycoreutils",
}


def asked() -> str:
    """Shell lines, after ``facts.sh``, that print what the host lacks for changes."""
    # find ends with an error when readlink does: one command for most of what is tried.
    once = "find /proc/version '(' ! -name '*' -printf x -delete ')' -o -exec readlink -m / '{}' +"
    tried = " ".join(f"tries {shlex.quote(t.what)} {shlex.join(t.command)};" for t in TRIALS)
    return "\n".join(
        [
            f"needs {' '.join(CHANGE)}",
            '[ -n "$stated" ] || tries "stat -c" stat -c %A /',
            f"as_root {once} && {_BYTES} || {{ becomes; {tried} }}",
            selinux.asked(),
        ]
    )


def unasked(
    lacking: Sequence[str], host: str, is_systemd_silent: bool = False, stderr: str = ""
) -> list[Problem]:
    """Why the facts of a host that is ``lacking`` programs are not all there is to know about it;
    empty when they are.

    ``stderr``: what the script printed there.
    """
    found = [_problem(host, [w for w in lacking if w in _NEEDED_TO_LOOK])]
    if is_systemd_silent:
        said = printable((printable_lines(stderr, last=1) or ["no output"])[0], 200)
        what = f"systemd does not say which services run: {said}"
        remedy = "see that systemctl status answers there, then run again"
        found.append(Problem(host, what, remedy, id="host-output-unreadable"))
    return [problem for problem in found if problem is not None]


def require(lacking: Mapping[str, Sequence[str]], beside: Sequence[Problem] = ()) -> None:
    """Raises :class:`PreflightFailed` when a host (by name) is ``lacking`` what changes need.
    ``beside``: other problems that keep the command from its work."""
    problems = [p for host, what in lacking.items() if (p := _problem(host, what)) is not None]
    if problems:
        raise PreflightFailed(
            "hosts lack programs that this tool needs",
            (*problems, *beside),
            id="preflight-failed" if beside else "host-unsupported",
        )


def _problem(host: str, lacking: Sequence[str]) -> Problem | None:
    """The error about everything that ``host`` is lacking."""
    named = list(dict.fromkeys(printable(what, 40) for what in lacking))
    if not named:
        return None
    packages = dict.fromkeys(_PACKAGES.get(what, what) for what in named)
    what = f"it has no {', no '.join(named)}: this tool's scripts need it there"
    remedy = f"install there: {'; '.join(packages)} (busybox's programs are not enough)"
    return Problem(host, what, remedy, id="host-unsupported")
