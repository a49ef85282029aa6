"""Which certificates of an external CA are used: on the members' hosts, and this tool's own.

An imported certificate is installed when its key waits on the host. Until then, and without an
imported certificate, the present certificate stays while it is valid. Problems are reported for all
members at once, with the commands to run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from provision import bounds
from provision.dataclass import dataclass
from provision.engine.plan import Action, Step
from provision.errors import ChangeFailed, PreflightFailed, Problem, UsageError
from provision.etcd.member import desired, layout
from provision.etcd.member.desired import Leaf
from provision.etcd.pki import certificates, external_ca, keyfiles, own_ca
from provision.etcd.pki.external_ca import HOW, External
from provision.files import read_bytes
from provision.host.effects import Effect
from provision.host.facts import HostFacts
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine, is_ip
from provision.text import counted

#: This tool's own key while its certificate is being signed.
CLIENT_KEY = "client.key.new"


def name_of(member: EtcdMember, kind: str) -> str:
    """The name of a listener's request and certificate: ``infra0-peer``, ``infra0-server``."""
    return f"{member.name}-{kind}"


def must_name(cluster: EtcdCluster, member: EtcdMember, kind: str) -> tuple[str, ...]:
    """The names that a listener's certificate must have. etcd's peers and clients check the
    member's address; the timer of ``etcd.backup`` asks the member on its own host."""
    timer = kind == "server" and cluster.backup is not None and is_ip(member.address)
    return (member.address, "127.0.0.1") if timer else (member.address,)


@dataclass(frozen=True, slots=True)
class Choice:
    """The decision about one listener's certificate: a ``leaf``, or the ``problem`` that forbids
    it.

    With a leaf, ``problem`` is a warning, and ``new`` is the certificate to install.
    """

    leaf: Leaf | None = None
    problem: Problem | None = None
    new: bytes | None = None


def choose(
    cluster: EtcdCluster,
    member: EtcdMember,
    kind: str,
    facts: HostFacts,
    ca: External,
    now: datetime | None = None,
) -> Choice:
    """The imported certificate, if its key waits on the host; else the present certificate, while
    it is valid."""
    where = member.place
    what = f"the {kind} certificate"
    path = layout.certificate(cluster, kind)
    needed = must_name(cluster, member, kind)
    here, imported = desired.installed(cluster, kind, facts), ca.imported(name_of(member, kind))
    waiting = waiting_key(facts, kind)
    if imported is not None and waiting is not None and waiting == external_ca.key_of(imported):
        if wrong := external_ca.faults(ca, imported, needed, now=now):
            text = f"the imported {kind} certificate cannot be used: {'; '.join(wrong)}"
            return Choice(
                problem=Problem(
                    where, text, f"have it signed again: {HOW}", id="external-certificate-needed"
                )
            )
        return Choice(Leaf(_described(imported), sign=_handing_out(imported)), new=imported)
    if f"{path}.crt.new" in facts.paths and waiting is None:
        return Choice(Leaf())  # finish an interrupted installation
    if here is None:
        return Choice(
            problem=Problem(where, f"{what} is missing", HOW, id="external-certificate-needed")
        )
    if wrong := external_ca.faults(ca, here, needed, now=now):
        text = f"{what} on the host cannot be used: {'; '.join(wrong)}"
        return Choice(problem=Problem(where, text, HOW, id="external-certificate-needed"))
    if lacking := {certificates.canonical(n) for n in member.sans} - certificates.names(here):
        text = f"{what} does not name {', '.join(sorted(lacking))}"
        return Choice(Leaf(), Problem(where, text, HOW, "warning", id="address-not-in-certificate"))
    if ends_soon(here, now):
        end = f"{x509.load_pem_x509_certificate(here).not_valid_after_utc:%Y-%m-%d}"
        return Choice(
            Leaf(),
            Problem(where, f"{what} expires on {end}", HOW, "warning", id="certificate-expiring"),
        )
    return Choice(Leaf())


def ends_soon(pem: bytes, now: datetime | None = None) -> bool:
    """Whether renewal is due: from 30 days before the end, or in the last third of a shorter
    life."""
    certificate = x509.load_pem_x509_certificate(pem)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - (now or certificates.now_utc()) < min(
        timedelta(days=certificates.RENEW_BEFORE_DAYS), (end - begin) / 3
    )


def require(
    cluster: EtcdCluster,
    members: Iterable[EtcdMember],
    facts: Mapping[Machine, HostFacts],
    ca: External,
) -> tuple[Problem, ...]:
    """Warnings about the certificates of ``members``.

    Raises :class:`PreflightFailed` with every listener without a usable certificate.
    """
    found = [
        choice.problem
        for m in members
        if m.machine in facts
        for kind in desired.kinds(m)
        if (choice := choose(cluster, m, kind, facts[m.machine], ca)).problem is not None
    ]
    found += own_problems(cluster)
    if any(p.severity == "error" for p in found):
        message = "certificates of the external CA are missing"
        raise PreflightFailed(message, found, id="external-certificate-needed")
    return tuple(found)


def require_settled(cluster: EtcdCluster, facts: Mapping[Machine, HostFacts], ca: External) -> None:
    """Raises :class:`PreflightFailed` unless all members trust the bundle's present CAs."""
    problems = [
        Problem(
            m.place,
            "does not trust the same CAs as ca_bundle",
            id="ca-unknown",
        )
        for m in cluster.members
        if m.machine in facts and desired.trusted(cluster, facts[m.machine]) not in (b"", ca.bundle)
    ]
    if problems:
        raise PreflightFailed(
            "bring the new ca_bundle to the members first (invoke rotate-certs); nothing was "
            "changed",
            problems,
            id="ca-unknown",
        )


def own_problems(cluster: EtcdCluster) -> list[Problem]:
    """The problem of this tool's own certificate: it is missing, has expired, or expires soon."""
    if not (cluster.tls.client and cluster.tls.client_auth):
        return []
    where = "this tool's own certificate"
    try:
        info = certificates.inspect(own_pair(cluster).cert_pem)
    except UsageError as error:
        return [Problem(where, error.message, id=error.id)]
    if info.days_left() >= certificates.RENEW_BEFORE_DAYS:
        return []
    what = f"expires in {counted(info.days_left(), 'day')}, on {info.not_after:%Y-%m-%d}"
    return [Problem(where, what, HOW, "warning", id="certificate-expiring")]


def own_pair(cluster: EtcdCluster) -> certificates.KeyPair:
    """This tool's own key and certificate, with its intermediates; nothing is written.

    Instead of a certificate that has expired or is missing, the imported one is used;
    :func:`own_step` installs it. Raises :class:`UsageError` without a certificate.
    """
    own = own_ca.home(cluster.tls.pki_dir, cluster.name) / own_ca.CLIENT
    if own_is_valid(cluster):
        return keyfiles.own_pair(own)
    waiting, key = own_waiting(cluster), own_key(cluster)
    if waiting is not None:
        with keyfiles.pki_errors(own.parent):
            return certificates.split_pem(read_bytes(key, bounds.PEM) + waiting)
    what = "has expired" if own.exists() else "is missing"
    raise UsageError(f"{own} {what}: {HOW}", id="external-certificate-needed")


def own_is_valid(cluster: EtcdCluster) -> bool:
    """Whether this tool has a certificate of its own that has not expired. Raises
    :class:`UsageError` when its file cannot be used."""
    own = own_ca.home(cluster.tls.pki_dir, cluster.name) / own_ca.CLIENT
    with keyfiles.pki_errors(own.parent):
        if not own.exists():
            return False
    info = certificates.inspect(keyfiles.own_pair(own).cert_pem)
    return info.not_after > certificates.now_utc()


def own_key(cluster: EtcdCluster) -> Path:
    """The file in which this tool's own key waits for its certificate."""
    return own_ca.home(cluster.tls.pki_dir, cluster.name) / CLIENT_KEY


def own_waiting_key(cluster: EtcdCluster) -> bytes | None:
    """The public part (DER) of this tool's waiting key, or None without a waiting key."""
    path = own_key(cluster)
    with keyfiles.pki_errors(path):
        return external_ca.spki(keyfiles.load_key(path).public_key()) if path.exists() else None


def own_waiting(cluster: EtcdCluster) -> bytes | None:
    """The imported certificate for this tool's waiting key, or None."""
    key = own_waiting_key(cluster)
    path = (
        own_ca.home(cluster.tls.pki_dir, cluster.name)
        / external_ca.IMPORTED
        / f"{own_ca.CLIENT_NAME}.crt"
    )
    if key is None or not path.exists():
        return None
    with keyfiles.pki_errors(path):
        found = read_bytes(path, bounds.PEM)
        return found if external_ca.key_of(found) == key else None


def renew_own(cluster: EtcdCluster) -> None:
    """Replace this tool's own certificate and key with the imported certificate and its key."""
    found, key = own_waiting(cluster), own_key(cluster)
    if found is None:
        return  # an earlier run has done it
    with keyfiles.pki_errors(key):
        keyfiles.replace_file(
            key.with_name(own_ca.CLIENT), read_bytes(key, bounds.PEM) + found, 0o600
        )
        key.unlink()


def own_step(cluster: EtcdCluster) -> list[Step]:
    """The step that renews this tool's own certificate, when an imported one waits."""
    if own_waiting(cluster) is None:
        return []
    path = own_ca.home(cluster.tls.pki_dir, cluster.name) / own_ca.CLIENT
    return [
        Step(
            "renew this tool's own certificate",
            calls=(Action(f"change {path}", lambda: renew_own(cluster), (Effect.HERE,)),),
        )
    ]


def waiting_key(facts: HostFacts, kind: str) -> bytes | None:
    """The public part (DER) of the key that waits on the host for its certificate, or None."""
    text = facts.commands.get(desired.waiting_key(kind), "")
    try:
        return external_ca.spki(serialization.load_pem_public_key(text.encode()))
    except (ValueError, TypeError):
        return None


def as_installed(facts: HostFacts) -> HostFacts:
    """``facts`` as if no key waited for its certificate."""
    labels = {desired.waiting_key(kind) for kind in ("peer", "server")}
    return replace(facts, commands={k: v for k, v in facts.commands.items() if k not in labels})


def _handing_out(pem: bytes) -> Callable[[bytes], bytes]:
    """A function that answers a host's signing request with ``pem``, if ``pem`` is for the
    request's key."""

    def sign(request: bytes) -> bytes:
        with contextlib.suppress(ValueError):
            if external_ca.key_of_request(request) == external_ca.key_of(pem):
                return pem
        raise ChangeFailed(
            f"the key of the imported certificate is no longer on the host: {HOW}",
            id="external-certificate-needed",
        )

    return sign


def _described(pem: bytes) -> str:
    info = certificates.inspect(pem)
    return f"signed by {info.issuer}, valid until {info.not_after:%Y-%m-%d}"
