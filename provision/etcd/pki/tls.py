"""The certificates of a member: valid certificates are kept, others are reissued.

The plans of a cluster without TLS use this module, too: what reads certificates is imported where
there are some.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from provision.engine.plan import Action, Step
from provision.errors import PreflightFailed, Problem
from provision.etcd.member import desired, layout, routes
from provision.etcd.member.desired import Leaf, MemberTls
from provision.host.effects import Effect
from provision.host.facts import HostFacts
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine

if TYPE_CHECKING:
    from cryptography import x509

    from provision.etcd.pki import certificates, external_ca, own_ca

    #: The cluster's CA: this tool's own, or an external one.
    Ca: TypeAlias = own_ca.CaSet | external_ca.External

#: The operator's consent to a short outage, with the cluster's name.
YES_OUTAGE = "--yes-outage"
#: The operator's word, with the cluster's name, that the CA is lost for good.
CA_LOST = "--ca-lost"


def authority(
    cluster: EtcdCluster,
    facts: Mapping[Machine, HostFacts],
    *,
    write: bool,
    replacing: bool = False,
) -> Ca | None:
    """The cluster's CA, or None when both listeners are plain.

    With ``write``, this tool's own CA is made below ``tls.pki_dir`` at its first use. Without
    ``write``, a throw-away CA is used instead. ``facts`` have the hosts' clocks: certificates must
    be valid by these clocks.

    Raises :class:`PreflightFailed` when hosts have certificates of a CA that is not at hand, before
    a CA is made. Only a command that replaces such a CA is ``replacing``.
    """
    if not (cluster.tls.peer or cluster.tls.client):
        return None
    if cluster.tls.ca == "external":
        from provision.etcd.pki import external_ca

        bundle = external_ca.load(cluster)
        require_known(cluster, facts, bundle)
        return bundle
    earliest = behind(facts.values())
    if not replacing:
        require_known(cluster, facts, _own(cluster, earliest, write=False))
    return _own(cluster, earliest, write=write)


def is_external(ca: Ca | None) -> bool:
    """Whether ``ca`` is an external one."""
    if ca is None:
        return False
    from provision.etcd.pki import external_ca

    return isinstance(ca, external_ca.External)


def behind(facts: Iterable[HostFacts]) -> timedelta:
    """How far the earliest clock, of the hosts and this machine, is behind this machine's clock."""
    return timedelta(seconds=max(0.0, *(-f.clock_offset for f in facts), 0.0))


def _own(cluster: EtcdCluster, behind: timedelta, *, write: bool) -> own_ca.CaSet:
    from provision.etcd.pki import own_ca

    directory, days = cluster.tls.pki_dir, cluster.tls.ca_days
    if write:
        own_ca.ensure_ca(directory, cluster.name, days, behind=behind)
    elif own_ca.ca_exists(directory, cluster.name):
        own_ca.load_ca(directory, cluster.name)  # refuses what ensure_ca refuses
    else:
        return own_ca.preview(cluster.name, days, behind=behind)
    return own_ca.authorities(directory, cluster.name, behind=behind)


def require(
    cluster: EtcdCluster,
    members: Iterable[EtcdMember],
    facts: Mapping[Machine, HostFacts],
    ca: Ca | None,
) -> tuple[Problem, ...]:
    """Warnings about the certificates that ``members`` get.

    Raises :class:`PreflightFailed` with every certificate that an external CA must still sign.
    """
    if ca is None:
        return ()
    from provision.etcd.pki import external_ca, imported

    return (
        imported.require(cluster, members, facts, ca)
        if isinstance(ca, external_ca.External)
        else ()
    )


def require_known(cluster: EtcdCluster, facts: Mapping[Machine, HostFacts], ca: Ca | None) -> None:
    """Raises :class:`PreflightFailed` when members run with certificates of a CA that is no longer
    known. A member that trusts only the new CA would refuse these members, and so would this tool.
    """
    problems = unknown(cluster, facts, ca)
    if not problems:
        return
    from provision.etcd.pki import external_ca, own_ca

    if isinstance(ca, external_ca.External):
        raise PreflightFailed(
            "keep the old CA in etcd.tls.ca_bundle, beside the new one, until the new CA has "
            f"signed every member's certificate ({external_ca.HOW}, invoke rotate-certs)",
            problems,
            id="ca-unknown",
        )
    home = own_ca.home(cluster.tls.pki_dir, cluster.name)
    away = ""
    if own_ca.expired(cluster.tls.pki_dir, cluster.name):
        away = f"move {home} away (its CA has expired, and is another one), and "
    raise PreflightFailed(
        f"the members' CA is not in {home}: copy that folder from the machine that made the CA, or "
        f"from a backup. If the CA is lost for good: {away}invoke rotate-certs --ca "
        f"{CA_LOST} {cluster.name}",
        problems,
        id="ca-unknown",
    )


def unknown(
    cluster: EtcdCluster, facts: Mapping[Machine, HostFacts], ca: Ca | None
) -> list[Problem]:
    """The members that run with a valid certificate of an unknown CA.

    When neither ``ca``, this tool's own, nor a CA before it has signed a certificate on any host,
    it is not known to be this cluster's CA. Then every certificate counts, also one that has
    expired, and one on a host whose member is stopped.
    """
    if ca is None:
        return []
    from provision.etcd.pki import external_ca, own_ca

    there = [
        (m, kind, seen, here)
        for m in cluster.members
        if (seen := facts.get(m.machine)) is not None and m.name not in cluster.established.odd
        for kind in desired.kinds(m)
        if (here := desired.installed(cluster, kind, seen)) is not None
    ]
    external = isinstance(ca, external_ca.External)
    made = external or own_ca.ca_exists(cluster.tls.pki_dir, cluster.name)
    ours = external or (
        made and any(_knows(ca, here) or _was_ours(cluster, here) for *_, here in there)
    )
    problems = []
    for m, kind, seen, here in there:
        runs = seen.unit(layout.UNIT).active == "active"
        if _knows(ca, here):
            continue
        if ours and (not runs or is_over(here, desired.trusted(cluster, seen))):
            continue
        verb = "runs with" if runs else "has"
        what = f"{verb} a {kind} certificate of another CA ({_issuer(here)})"
        problems.append(Problem(m.place, what, id="ca-unknown"))
    return (
        problems
        if made
        else [*problems, *_only_trusting(cluster, facts, {m.name for m, *_ in there})]
    )


def _only_trusting(
    cluster: EtcdCluster, facts: Mapping[Machine, HostFacts], others: Container[str]
) -> list[Problem]:
    """The members, but for ``others``, whose hosts have a ``ca.crt``: its CA signed for them, too.
    The inventory may declare TLS for the other listener now."""
    return [
        Problem(m.place, "has the ca.crt of another CA", id="ca-unknown")
        for m in cluster.members
        if m.name not in others
        and m.name not in cluster.established.odd
        and (seen := facts.get(m.machine)) is not None
        and desired.trusted(cluster, seen)
    ]


def _was_ours(cluster: EtcdCluster, pem: bytes) -> bool:
    """Whether an authority that ``ca`` has replaced signed the certificate."""
    from cryptography import x509

    from provision.etcd.pki import certificates, own_ca

    try:
        leaf = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return False
    former = own_ca.retired(cluster.tls.pki_dir, cluster.name)
    return any(certificates.signed(leaf, by) for by in former)


def _issuer(pem: bytes) -> str:
    """The issuer of a certificate from a host, which may be anything."""
    from provision.etcd.pki import certificates

    try:
        return certificates.inspect(pem).issuer
    except ValueError:
        return "its file is no certificate"


def cut_off(cluster: EtcdCluster, facts: Mapping[Machine, HostFacts]) -> tuple[EtcdMember, ...]:
    """The members with a certificate that nobody accepts any more."""

    def over(member: EtcdMember) -> bool:
        seen = facts.get(member.machine)
        if seen is None:
            return False
        trust = desired.trusted(cluster, seen)
        here = (desired.installed(cluster, kind, seen) for kind in desired.kinds(member))
        return any(pem is not None and is_over(pem, trust) for pem in here)

    return tuple(m for m in cluster.members if over(m))


def is_over(pem: bytes, trust: bytes) -> bool:
    """Whether nobody accepts a member's certificate, because it has expired or is not yet valid.
    Its own time counts, and the time of its CA in ``trust`` (PEM): Go's ``crypto/x509`` checks the
    time of a root, too.
    """
    from cryptography import x509

    from provision.etcd.pki import certificates

    try:
        leaf = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return True
    if not certificates.is_current(leaf):
        return True
    issuers = [c for c in _all(trust) if certificates.signed(leaf, c)]
    return bool(issuers) and not any(certificates.is_current(c) for c in issuers)


def _all(pem: bytes) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem) if pem else []
    except ValueError:
        return []


def _knows(ca: Ca, pem: bytes) -> bool:
    from provision.etcd.pki import external_ca

    return ca.knows(pem) if isinstance(ca, external_ca.External) else ca.issuer(pem) is not None


def require_settled(
    cluster: EtcdCluster, facts: Mapping[Machine, HostFacts], ca: Ca | None
) -> None:
    """Raises :class:`PreflightFailed` while another external CA is replacing the present one: no
    members are added or changed meanwhile."""
    if ca is None:
        return
    from provision.etcd.pki import external_ca, imported

    if isinstance(ca, external_ca.External):
        imported.require_settled(cluster, facts, ca)


def material(
    cluster: EtcdCluster, member: EtcdMember, facts: HostFacts, ca: Ca | None
) -> MemberTls | None:
    """The TLS files of ``member``, or None when both listeners are plain.

    A valid certificate on the host (signed by the CA, right names, not about to expire) is kept
    with its key. While the CA is being replaced, the files of that replacement are left as they are
    (see :mod:`provision.plans.etcd.certificates.rotate_certs`). Raises :class:`PreflightFailed`
    when an external CA has signed no usable certificate.
    """
    if ca is None:
        return None
    from provision.etcd.pki import external_ca, imported

    def one(kind: str) -> Leaf:
        if isinstance(ca, external_ca.External):
            choice = imported.choose(cluster, member, kind, facts, ca)
            if choice.leaf is None:
                imported.require(cluster, [member], {member.machine: facts}, ca)
            return choice.leaf or Leaf()
        why = due(cluster, member, kind, facts, ca)
        return Leaf() if why is None else leaf(cluster, member, facts, ca.signing, why)

    return MemberTls(
        name=member.name,
        authority=ca.bundle if isinstance(ca, external_ca.External) else _trust(cluster, facts, ca),
        peer=one("peer") if member.peer_tls else None,
        server=one("server") if member.client_tls else None,
    )


def due(
    cluster: EtcdCluster, member: EtcdMember, kind: str, facts: HostFacts, ca: own_ca.CaSet
) -> str | None:
    """Why a listener needs a new certificate; None when the certificate on the host is valid."""
    from provision.etcd.pki import certificates

    here = desired.installed(cluster, kind, facts)
    if here is None:
        return ""
    issuer = ca.issuer(here) or ca.signing
    why = certificates.renewal_reason(here, issuer, desired.sans(member))
    if why is None and kind == "peer":
        left = {r.source for r in routes.unnamed(member, facts, certificates.names(here))}
        if left := left.intersection(routes.sources(cluster, member, facts)):
            return f"it does not name {', '.join(sorted(left))}"
    return why


def leaf(
    cluster: EtcdCluster,
    member: EtcdMember,
    facts: HostFacts,
    authority: certificates.Authority,
    why: str,
    on_made: Callable[[bytes], None] = lambda _: None,
) -> Leaf:
    """A new certificate for ``member``; its key is made on the host if the host has openssl.

    ``on_made`` gets the certificate (PEM) when it is made.
    """
    from provision.etcd.pki import certificates

    names, days = desired.new_sans(cluster, member, facts), cluster.tls.leaf_days

    def sign(request: bytes) -> bytes:
        certificate = certificates.sign_csr(authority, request, member.name, names, days=days)
        on_made(certificate)
        return certificate

    if facts.commands.get(desired.OPENSSL, "").strip():
        return Leaf(why, sign=sign)
    pair = certificates.leaf(authority, member.name, names, days=days)
    on_made(pair.cert_pem)
    return Leaf(why, pair=(pair.cert_pem, pair.key_pem))


def trusted(cluster: EtcdCluster) -> bytes:
    """The CA certificates (PEM) that a client of the cluster trusts. Raises :class:`UsageError`."""
    from provision.etcd.pki import external_ca, own_ca

    if cluster.tls.ca == "external":
        return external_ca.load(cluster).bundle
    return own_ca.trusted(cluster.tls.pki_dir, cluster.name)


def own_pair(cluster: EtcdCluster) -> certificates.KeyPair:
    """This tool's own key and certificate, to connect with; nothing is written. Raises
    :class:`UsageError` without one."""
    from provision.etcd.pki import imported, own_ca

    if cluster.tls.ca == "external":
        return imported.own_pair(cluster)
    return own_ca.client_pair(cluster.tls.pki_dir, cluster.name)


def own_steps(cluster: EtcdCluster, ca: Ca | None) -> list[Step]:
    """The steps in the folder of the CA on this machine: the end of a replacement that was killed,
    and this tool's own certificate, which operators also use with etcdctl."""
    if ca is None:
        return []
    from provision.etcd.pki import external_ca, imported, own_ca

    if isinstance(ca, external_ca.External):
        return imported.own_step(cluster)
    steps = finishing(cluster)
    if cluster.tls.client:
        why = own_ca.client_reason(cluster.tls.pki_dir, cluster.name, ca)
        if why is not None:
            steps.append(own_certificate(cluster, ca.signing, why))
    return steps


def own_certificate(
    cluster: EtcdCluster, signer: certificates.Authority, why: str | None = None
) -> Step:
    """The step that renews this tool's own certificate, signed by ``signer``. ``why``: the reason
    to show, if any; empty when there was no certificate before."""
    from provision.etcd.pki import own_ca

    def renew() -> None:
        days = cluster.tls.leaf_days
        own_ca.renew_client(cluster.tls.pki_dir, cluster.name, signer, days)

    path = own_ca.home(cluster.tls.pki_dir, cluster.name) / own_ca.CLIENT
    title, what = "renew this tool's own certificate", f"change {path}"
    if why == "":
        title, what = "make this tool's own certificate", f"create {path}"
    return Step(title, calls=(Action(f"{what}: {why}" if why else what, renew, (Effect.HERE,)),))


def finishing(cluster: EtcdCluster) -> list[Step]:
    """The step that finishes the retirement of an old CA, when a run was killed in it."""
    from provision.etcd.pki import own_ca

    directory, name = cluster.tls.pki_dir, cluster.name
    if not own_ca.half_finished(directory, name):
        return []
    folder = own_ca.home(directory, name)
    what = f"move {folder / own_ca.NEXT / own_ca.CA_KEY} beside its {own_ca.CA_CERTIFICATE}"
    call = Action(what, lambda: own_ca.finish_replacement(directory, name), (Effect.HERE,))
    return [Step("finish retiring the old CA", calls=(call,))]


def _trust(cluster: EtcdCluster, facts: HostFacts, ca: own_ca.CaSet) -> bytes:
    here = desired.trusted(cluster, facts)
    return here if here in (a.cert_pem for a in ca.all) and ca.next is not None else ca.bundle
