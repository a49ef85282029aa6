"""Certificates with their private keys."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from provision.host import predict
from provision.host.diff import Change, Resource
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Look, PathState
from provision.host.kinds.files import File

#: A certificate, its key, and both while they are installed.
_FILES = (".crt", ".key", ".crt.new", ".key.new")


@dataclass(frozen=True, slots=True)
class Certificate(Resource):
    """A certificate ``<path>.crt`` and its private key ``<path>.key`` (0600), changed together.

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

    def look(self) -> Look:
        paths = [self.path + end for end in _FILES]
        return Look(paths=paths, contents=(f"{self.path}.crt",))

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
                    ask=signing_request(self.path, self.subject),
                    answer=lambda request: self._install(sign(request.encode()), None),
                    disrupts=True,
                    effects=(Effect.TRUST,),
                )
            ]
        path, owner = shlex.quote(self.path), self.owner
        script = (
            f"chown {owner}:{owner} {path}.crt {path}.key\n"
            f"chmod 0644 {path}.crt; chmod 0600 {path}.key"
        )
        if self._is_half_installed(facts):
            script = f"mv -f {path}.crt.new {path}.crt\n{script}"
            what = f"finish {self.path}.crt"
            return [Change(what, script, disrupts=True, effects=(Effect.TRUST,))]
        return [Change(f"set {self.path}.crt and .key to {owner} 0600", script, disrupts=True)]

    def after(self, facts: HostFacts) -> HostFacts:
        certificate, key = f"{self.path}.crt", f"{self.path}.key"
        if self.pair is None and self.sign is None:
            if self._is_half_installed(facts):
                facts = predict.without(f"{certificate}.new", predict.without(certificate, facts))
            for path, mode in ((certificate, 0o644), (key, 0o600)):
                if path not in facts.paths:
                    facts = predict.written(facts, {path: self._made(mode, predict.UNKNOWN)})
                facts = predict.owned(facts, path, self.owner, mode)
            return facts
        content, secret = self.pair or (predict.UNKNOWN, predict.UNKNOWN)
        made = {
            certificate: self._made(0o644, content),
            key: replace(self._made(0o600, secret), content=None),
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
        path, owner = shlex.quote(self.path), self.owner
        lines = [File(f"{self.path}.crt.new", certificate, owner=owner).write()]
        if key is not None:
            lines.append(File(f"{self.path}.key.new", key, owner=owner, mode=0o600).write())
        lines.append(f"chown {owner}:{owner} {path}.key.new; chmod 0600 {path}.key.new")
        lines.append(f"mv -f {path}.key.new {path}.key; mv -f {path}.crt.new {path}.crt")
        return "\n".join(lines)

    def _made(self, mode: int, content: bytes) -> PathState:
        """A file of the pair. Its content may be unknown, but it is not empty."""
        return replace(predict.file(content, self.owner, mode), size=len(content) or 1)


def signing_request(path: str, subject: str, names: Sequence[str] = ()) -> str:
    """The script that prints a signing request (PEM) for the key ``<path>.key.new``. It makes the
    key if it is missing.

    ``subject`` is the common name. With ``names`` (``IP:10.0.0.1``, ``DNS:infra0``) the request
    asks for them, and for use as server and as client.
    """
    extensions = ""
    if names:
        extensions = (
            "req_extensions = wanted\n[wanted]\nkeyUsage = critical,digitalSignature\n"
            f"extendedKeyUsage = serverAuth,clientAuth\nsubjectAltName = {','.join(names)}\n"
        )
    return _REQUEST.format(
        path=shlex.quote(path),
        subject=shlex.quote(f"/CN={subject[:64]}"),
        extensions=extensions,
    )


# A key from a killed run is used. The script has openssl's configuration: some hosts have none.
_REQUEST = """\
set -e
umask 077
mkdir -p "$(dirname {path})"
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
