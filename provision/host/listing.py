"""Names from a folder in which others can make names, as text that says nothing else.

A name may hold anything but a slash and a zero byte, also line ends. So a command prints records
that each end with a zero byte, and they come as one line of base64.
"""

from __future__ import annotations

import base64
import binascii
import shlex

# Not every find has -printf (busybox), and a look that it ends would show nothing for something.
#: A record for each path "$@".
_NAMES = r"""for f; do printf '%s\0' "${f##*/}"; done"""
#: A record for each file "$@": the blocks that it takes, and its time.
_FILES = (
    'for f; do s=$(stat -c "%b %B %Y" "$f") || continue; set -- $s; '
    r"""printf '%s\t%s\t%s\0' "$(($1 * $2 / 1024))" "$3" "${f##*/}"; done"""
)
#: A record for each folder "$@". Not every du ends its lines with zero bytes.
_SIZES = """for d; do s=$(du -sk "$d"); printf '%s\\t%s\\0' "${s%%[!0-9]*}" "$d"; done"""


def names(folder: str, *patterns: str) -> str:
    """A shell command for the names in ``folder`` that match one of the shell ``patterns``."""
    return _each(_NAMES, folder, patterns)


def sizes(folder: str, *patterns: str) -> str:
    """A shell command for the folders in ``folder`` that match one of ``patterns``. Each record is
    the size in KiB, a tab, and a path that ends with the name."""
    return _each(_SIZES, folder, patterns, "-type d")


def files(folder: str, *patterns: str) -> str:
    """A shell command for the files in ``folder`` that match one of ``patterns``. Each record is
    the size in KiB, the time in seconds since 1970, and the name, with tabs between them."""
    return _each(_FILES, folder, patterns, "-type f")


def _each(script: str, folder: str, patterns: tuple[str, ...], kind: str = "") -> str:
    run = f"{kind} -exec sh -c {shlex.quote(script)} sh {{}} +"
    return sent(f"{_found(folder, patterns)} {run} 2>/dev/null")


def sent(command: str) -> str:
    """A shell command that prints the records that ``command`` prints."""
    return f"{{ {command}; }} | base64 -w0"


def records(said: str) -> list[str]:
    """The records from the output of such a command. What is not text is left out, and so is a
    record that was cut off with the output."""
    text = said.strip()
    try:
        data = base64.b64decode(text[: len(text) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return []
    found = []
    for record in data.split(b"\0")[:-1]:
        try:
            found.append(record.decode())
        except UnicodeDecodeError:
            continue
    return found


def _found(folder: str, patterns: tuple[str, ...]) -> str:
    which = " -o ".join(f"-name {shlex.quote(pattern)}" for pattern in patterns)
    # With a slash at its end, a link to the folder is followed.
    return f"find {shlex.quote(f'{folder}/')} -mindepth 1 -maxdepth 1 \\( {which} \\)"
