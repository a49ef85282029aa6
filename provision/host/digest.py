"""The sha256 of a file on a host, compared in its shell."""

from __future__ import annotations


def is_digest(file: str, digest: str) -> str:
    """A shell command that succeeds when the file has the digest (lower-case hex). ``file`` stands
    in double quotes there, so it may begin with a variable.

    The texts are compared: ``sha256sum -c`` of uutils 0.0.17 ends with 0 when they differ.
    """
    return f'case $(sha256sum <"{file}") in {digest}" "*) ;; *) false;; esac'
