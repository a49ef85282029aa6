"""What the distribution's own tools make: users and packages."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from provision.dataclass import dataclass
from provision.host import predict
from provision.host.diff import Change, Resource
from provision.host.facts import HostFacts, Look, PathState

#: The comment (GECOS) of a user that this tool made with its group. A user without it stays.
MADE_BY = "made by alluxio-provision"


@dataclass(frozen=True, slots=True)
class User(Resource):
    """A system user without login, and its group of the same name. A user that others have made
    stays as it is; it may be in another group."""

    name: str
    home: str

    def look(self) -> Look:
        return Look(users=(self.name,))

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        name, home = shlex.quote(self.name), shlex.quote(self.home)
        if self.name in facts.users:
            what = f"create system group {self.name}: the user {self.name} is there without it"
            return [Change(what, f"getent group {name} >/dev/null || groupadd --system {name}")]
        return [
            Change(
                f"create system user {self.name}",
                # An existing group belongs to somebody: clean-host must not remove it with the
                # user.
                f"c='{MADE_BY}'; getent group {name} >/dev/null && c= || groupadd --system {name}\n"
                f"useradd --system --gid {name} --home-dir {home} --no-create-home "
                f'--comment "$c" --shell /usr/sbin/nologin {name}',
            )
        ]

    def after(self, facts: HostFacts) -> HostFacts:
        if self.name in facts.groupless:
            return replace(facts, groupless=facts.groupless - {self.name})
        if self.name in facts.users:
            return facts
        ids = f"{predict.USER_ID}:{predict.USER_ID}"
        line = f"{self.name}:x:{ids}:{MADE_BY}:{self.home}:/usr/sbin/nologin"
        return replace(facts, users={**facts.users, self.name: line})


@dataclass(frozen=True, slots=True)
class Package(Resource):
    """The distribution's package that provides ``binary``."""

    names: tuple[str, ...]
    binary: str

    def look(self) -> Look:
        return Look(paths=(self.binary,))

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        names, binary = " ".join(map(shlex.quote, self.names)), shlex.quote(self.binary)
        return [
            Change(
                f"install package {' '.join(self.names)}",
                _PACKAGE.format(names=names, binary=binary),
                seconds=600,
            )
        ]

    def after(self, facts: HostFacts) -> HostFacts:
        if self.binary in facts.paths:
            return facts
        state = PathState("file", "root", "root", 0o755, 1 << 20)
        return predict.written(facts, {self.binary: state})


# The package would start a default instance: policy-rc.d is Debian's way to forbid it. The lines
# run in a shell of their own, so that their trap does not replace the batch's trap. apt-get waits
# for another one (unattended-upgrades, cloud-init) only when it is told to (apt 1.9.11; older ones
# ignore the option). needrestart would restart services that no plan has named.
_PACKAGE = """\
(
if command -v apt-get >/dev/null; then
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\\nexit 101\\n' >$policy
    chmod 755 $policy
  fi
  DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \\
    apt-get install -o DPkg::Lock::Timeout=300 -y -qq {names} </dev/null >/dev/null
elif command -v dnf >/dev/null; then
  dnf install -y -q etcd </dev/null
else
  echo "no apt-get or dnf here: give etcd.source a tarball" >&2
  exit 1
fi
[ -x {binary} ] || {{
  echo "the package did not bring {binary}" >&2
  exit 1
}}
)"""
