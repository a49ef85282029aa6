"""SELinux: what this tool installs gets the label that the host's policy has for its path.

A file that is renamed keeps the label of the name under which it was written. Where SELinux is
enforcing, systemd may not read such a unit, nor run such a program. restorecon(8) (of SELinux's
policycoreutils): ``-R`` goes through a folder, takes a file as well, and another exit code than 0
is a failure.
"""

from __future__ import annotations

import shlex

#: The kernel's switch (``security/selinux/selinuxfs.c`` of Linux). It is there, and root can write
#: it, only where SELinux is on: a container may see its host's, read-only.
ENFORCE = "/sys/fs/selinux/enforce"


def label(path: str) -> str:
    """A shell command that gives ``path``, and what is in it, the policy's labels. It does nothing
    where SELinux is off. Root alone can change names on the way to ``path``."""
    return f"[ ! -w {ENFORCE} ] || restorecon -R {shlex.quote(path)}"


def asked() -> str:
    """Shell lines, after ``facts.sh``, that print what the host lacks for :func:`label`."""
    return f"[ ! -w {ENFORCE} ] || needs restorecon"
