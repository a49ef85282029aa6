"""The check of one host's key: is it known, is it another one, and what can be done about it."""

from __future__ import annotations

import shlex
from typing import Any, Literal

import paramiko

from provision.ids import Id
from provision.ssh.host_certificate import fault
from provision.ssh.known_hosts import HostKey, Known
from provision.ssh.refused import Refused
from provision.ssh.route import Hop
from provision.text import verb

State = Literal["new", "changed", "revoked"]
_IDS: dict[State, Id] = {
    "new": "host-key-unknown",
    "changed": "host-key-changed",
    "revoked": "host-key-changed",
}


class KeyRefused(Refused):
    """A host key that is not accepted: the ``key``, and the ``known`` keys of the same type."""

    def __init__(
        self, what: str, remedy: str, state: State, key: HostKey, known: tuple[HostKey, ...] = ()
    ) -> None:
        super().__init__(what, remedy, id=_IDS[state])
        self.state, self.key, self.known = state, key, known


def require_known(hop: Hop, known: Known, key: paramiko.PKey) -> HostKey:
    """The key, if the host may have it. ``known`` are the host's entries.

    Raises :class:`KeyRefused`.
    """
    shown = HostKey(key.get_name(), key.asbytes())
    certificate: Any = getattr(key, "public_blob", None)
    why = None
    if certificate is not None:
        name = hop.host_key_alias or hop.address
        why = fault(certificate.key_type, certificate.key_blob, known, name)
        if why is None:
            return shown
        # As OpenSSH: such a host may still have a key that is known.
    its = f"{shown.kind} {shown.fingerprint}"
    if shown.blob in known.revoked:
        what = f"the host key, {its}, is marked @revoked in known_hosts"
        remedy = "the host needs a new key; whoever marked this one says why"
        raise KeyRefused(what, remedy, "revoked", shown)
    if any(shown.blob == other.blob for other in known.keys):
        return shown
    if same := tuple(other for other in known.keys if other.kind == shown.kind):
        raise KeyRefused(*_changed(its, same, known.name), "changed", shown, same)
    what = "the host key is not in known_hosts"
    if known.kinds:
        what += f": it is {shown.kind}, and only {', '.join(known.kinds)} {verb(known.kinds)} known"
    elif known.authorities:
        what += f": it has a certificate, but {why}" if why else ": it has no certificate"
    remedy = "compare and add the keys of all hosts: invoke trust-hosts"
    raise KeyRefused(what, remedy, "new", shown)


def _changed(its: str, known: tuple[HostKey, ...], name: str) -> tuple[str, str]:
    """What is said of a key that differs from the ``known`` ones, and the remedy."""
    places = ", ".join(f"{k.path}:{k.line} has {k.fingerprint}" for k in known)
    files = dict.fromkeys(str(k.path) for k in known)
    remove = " and ".join(f"ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(f)}" for f in files)
    return (
        "the host key differs from the one in known_hosts: another machine, or an attack; the "
        f"host shows {its}, and {places}",
        f"if the host's owner says that it was reinstalled: {remove}, then invoke trust-hosts",
    )
