"""Certificates with their private keys."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import field, replace

from provision.dataclass import dataclass
from provision.host import former_owner, predict, selinux
from provision.host.diff import Change, Resource
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Look, PathState, Place
from provision.host.kinds.files import File, give

#: A certificate, its key, and both while they are installed.
_FILES = (".crt", ".key", ".crt.new", ".key.new")


@dataclass(frozen=True, slots=True)
class Certificate(Resource):
    """A certificate ``<path>.crt`` and its private key ``<path>.key``, changed together. With
    ``group``, that group may read the key (0640), and nobody but root can change a name in the
    folder; otherwise the key is the owner's alone (0600).

    Services notice the change without a restart. With ``sign``, the host's openssl makes the key on
    the host, and the key never leaves it: ``sign`` makes the certificate (PEM) from the signing
    request (PEM). With ``pair``, certificate and key (PEM) were made on this machine. Without both,
    the host's own certificate and key are right. ``why`` is the shown reason for new ones.
    """

    path: str
    owner: str
    subject: str = ""
    why: str = ""
    sign: Callable[[bytes], bytes] | None = None
    pair: tuple[bytes, bytes] | None = field(default=None, repr=False)
    group: str = ""

    def look(self) -> Look:
        paths = [self.path + end for end in _FILES]
        return Look(paths=paths, contents=(f"{self.path}.crt",))

    def place(self) -> Place:
        return Place(f"{self.path}.key", "a file", ("file",))

    @property
    def _key_mode(self) -> int:
        return 0o640 if self.group else 0o600

    @property
    def _owners(self) -> str:
        return f"{self.owner}:{self.group or self.owner}"

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        verb = "change" if f"{self.path}.crt" in facts.paths else "write"
        why = f"{self.why}; " if self.why else ""
        if self.pair is not None:
            return [
                Change(
                    f"{verb} {self.path}.crt and .key "
                    f"({why}made on this machine: no openssl there)",
                    self._install(*self.pair),
                    disrupts=True,
                    effects=(Effect.TRUST,),
                )
            ]
        if self.sign is not None:
            sign = self.sign
            return [
                Change(
                    f"{verb} {self.path}.crt and .key ({why}the key is made on the host)",
                    ask=signing_request(self.path, self.subject, group=self.group),
                    answer=lambda request: self._install(sign(request.encode()), None),
                    disrupts=True,
                    effects=(Effect.TRUST,),
                )
            ]
        path = shlex.quote(self.path)
        script = self._give(f"{self.path}.crt", f"{self.path}.key")
        if self._is_half_installed(facts):
            script = f"{self._own_folder()}mv -f {path}.crt.new {path}.crt\n{script}"
            what = f"finish {self.path}.crt"
            return [Change(what, script, disrupts=True, effects=(Effect.TRUST,))]
        what = f"set {self.path}.crt and .key to {self._owners} {self._key_mode:04o}"
        # etcd reads the pair again for each connection, and can read it before and after.
        return [Change(what, self._own_folder() + script)]

    def after(self, facts: HostFacts) -> HostFacts:
        certificate, key = f"{self.path}.crt", f"{self.path}.key"
        if self.pair is None and self.sign is None:
            if self._is_half_installed(facts):
                facts = predict.without(f"{certificate}.new", predict.without(certificate, facts))
            for path, mode in ((certificate, 0o644), (key, self._key_mode)):
                if path not in facts.paths:
                    facts = predict.written(facts, {path: self._made(mode, predict.UNKNOWN)})
                facts = predict.owned(facts, path, self.owner, mode, self.group)
            return facts
        content, secret = self.pair or (predict.UNKNOWN, predict.UNKNOWN)
        made = {
            certificate: self._made(0o644, content),
            key: replace(self._made(self._key_mode, secret), content=None),
        }
        facts = predict.without(f"{certificate}.new", predict.without(f"{key}.new", facts))
        return predict.written(facts, made)

    def _is_half_installed(self, facts: HostFacts) -> bool:
        """Whether a run was killed between the two renames of an installation: only the key is
        new."""
        return f"{self.path}.crt.new" in facts.paths and f"{self.path}.key.new" not in facts.paths

    def _install(self, certificate: bytes, key: bytes | None) -> str:
        """The script that installs a pair. Two renames follow each other at once. Before the
        second, a new connection may be refused; its client tries again."""
        path, owner, group = shlex.quote(self.path), self.owner, self.group
        new = File(f"{self.path}.crt.new", certificate, owner=owner, group=group)
        lines = [self._own_folder() + new.write()]
        if key is not None:
            new = File(f"{self.path}.key.new", key, owner, self._key_mode, group=group)
            lines.append(new.write())
        lines.append(give(f"{self.path}.key.new", self._owners, self._key_mode))
        lines.append(f"mv -f {path}.key.new {path}.key; mv -f {path}.crt.new {path}.crt")
        lines += [selinux.label(f"{self.path}.key"), selinux.label(f"{self.path}.crt")]
        return "\n".join(lines)

    def _own_folder(self) -> str:
        """The line that makes the folder root's: earlier versions of this tool gave it to etcd's
        user."""
        return _folder(self.path, f"root:{self.group}") if self.group else ""

    def _give(self, certificate: str, key: str) -> str:
        return "\n".join(
            (give(certificate, self._owners, 0o644), give(key, self._owners, self._key_mode))
        )

    def _made(self, mode: int, content: bytes) -> PathState:
        """A file of the pair. Its content may be unknown, but it is not empty."""
        made = predict.file(content, self.owner, mode, self.group)
        return replace(made, size=len(content) or 1)


def _folder(path: str, owners: str) -> str:
    return f"folder {shlex.quote(path.rpartition('/')[0])} {owners} 0750\n"


def signing_request(path: str, subject: str, names: Sequence[str] = (), *, group: str = "") -> str:
    """The script that prints a signing request (PEM) for the key ``<path>.key.new``. It makes the
    key if it is missing. The folder becomes root's, with ``group`` if the host has it.

    ``subject`` is the common name. With ``names`` (``IP:10.0.0.1``, ``DNS:infra0``) the request
    asks for them, and for use as server and as client.
    """
    extensions = ""
    if names:
        extensions = (
            "req_extensions = wanted\n[wanted]\nkeyUsage = critical,digitalSignature\n"
            f"extendedKeyUsage = serverAuth,clientAuth\nsubjectAltName = {','.join(names)}\n"
        )
    name = shlex.quote(group or "root")
    folder = path.rpartition("/")[0]
    noted = map(former_owner.made_if_missing, (folder.rpartition("/")[0], folder))
    return _REQUEST.format(
        folder=f"getent group {name} >/dev/null && g={name} || g=root\n"
        + "".join(f"{line}\n" for line in noted)
        + _folder(path, '"root:$g"'),
        path=shlex.quote(path),
        subject=shlex.quote(f"/CN={subject[:64]}"),
        extensions=extensions,
    )


# A key from a killed run is used. The script has openssl's configuration: some hosts have none.
_REQUEST = """\
set -e
umask 077
{folder}[ ! -L {path}.key.new ] || rm -f {path}.key.new
if [ ! -s {path}.key.new ]; then
  t=$(mktemp {path}.key.XXXXXX)
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 \\
    -pkeyopt ec_param_enc:named_curve -out "$t" 2>&1
  mv -f "$t" {path}.key.new
fi
openssl req -new -key {path}.key.new -subj {subject} -config /dev/stdin <<'@@end'
[req]
distinguished_name = name
{extensions}[name]
@@end"""
