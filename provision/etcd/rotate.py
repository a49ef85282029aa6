"""``rotate-certs``: new leaf certificates, or a new CA, on a running cluster without an outage.

etcd reads a leaf and its key anew for every connection, so new ones need no restart. What it
trusts it reads when it starts ("Transport security model"; ``client/pkg/transport/listener.go``),
so a new CA takes two rolling restarts: all members trust both, all leaves are made anew, this
tool's own certificate is, and then the old CA is dropped. Where a rotation stands is read from
the hosts' files and the CA's folder, so one that was killed goes on by running it again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from provision.errors import PreflightFailed, Problem, Unhealthy, UsageError
from provision.etcd import certificates, desired, external, gates, imported, pki, tls
from provision.etcd.deploy import Observed
from provision.etcd.desired import MemberTls
from provision.etcd.listeners import CertificateState, shown_certificates
from provision.etcd.roster import as_registered, strangers
from provision.host.change import changes
from provision.host.observe import HostFacts, PathState
from provision.host.resources import Unit
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plan import Call, Gate, HostChanges, Plan, Step
from provision.remote import Fleet

#: Seconds until a listener shows a certificate that was put there.
SHOWN_WITHIN = 10.0


def leaves(
    inventory: Inventory,
    fleet: Fleet,
    observed: Observed,
    members: Sequence[EtcdMember],
    *,
    write: bool,
) -> Plan:
    """New keys and certificates for ``members``, one member at a time, no restart.

    Those of an external CA are the imported ones; if its bundle has changed, all members are
    restarted one by one first, to trust it.
    """
    cluster = inventory.etcd
    if cluster.tls.ca == "external":
        return _imported(cluster, fleet, observed, members)
    ca = _authorities(cluster, observed, write=write)
    steps = [
        _new_leaf(cluster, fleet, m, observed.facts[m.machine], ca.signing)
        for m in gates.order(list(members), observed.health)
    ]
    if len(members) == len(cluster.members):
        steps.append(_own_certificate(cluster, ca.signing))
    return _plan(cluster, steps)


def authority(inventory: Inventory, fleet: Fleet, observed: Observed, *, write: bool) -> Plan:
    """A new CA in the place of the cluster's, from wherever an earlier run has left it."""
    cluster = inventory.etcd
    _require_declared(cluster, observed)
    if cluster.tls.ca == "external":
        raise UsageError(
            "the CA is not this tool's to replace: put the new one into etcd.tls.ca_bundle beside "
            f"the old one, then {external.HOW}, invoke rotate-certs; then take the old one out",
            id="command-not-applicable",
        )
    ca = _authorities(cluster, observed, write=write)
    old, new = ca.current, _successor(cluster, ca, write=write)
    both = dataclasses.replace(ca, next=new).bundle
    members = gates.order(list(cluster.members), observed.health)
    facts = {m.name: observed.facts[m.machine] for m in members}
    trusted = {m.name: desired.trusted(cluster, facts[m.name]) for m in members}
    steps: list[Step] = []

    pending = [m for m in members if not _all_from(cluster, m, facts[m.name], new)]
    if pending:
        for m in members:
            if trusted[m.name] != both or _must_restart(facts[m.name]):
                title = f"{m.name} trusts the old and the new CA"
                steps.append(_new_trust(cluster, fleet, m, facts[m.name], both, title))
                facts[m.name] = _with_trust(cluster, facts[m.name], both)
    steps += [_new_leaf(cluster, fleet, m, facts[m.name], new) for m in pending]
    if ca.signing is not new:
        steps.append(_own_certificate(cluster, new))
    for m in members:
        if desired.trusted(cluster, facts[m.name]) != new.cert_pem or _must_restart(facts[m.name]):
            title = f"{m.name} trusts the new CA only"
            steps.append(_new_trust(cluster, fleet, m, facts[m.name], new.cert_pem, title))
    name = new.certificate.subject.rfc4514_string()
    gone = certificates.short_fingerprint(old.certificate)
    folder = pki.home(cluster.tls.pki_dir, cluster.name)
    steps.append(
        Step(
            "retire the old CA",
            calls=(
                Call(
                    f"{folder / pki.CA_CERTIFICATE} is {name}; the old one goes to "
                    f"{pki.RETIRED}/{gone}",
                    lambda: pki.finish_replacement(cluster.tls.pki_dir, cluster.name),
                ),
            ),
        )
    )
    return _plan(cluster, steps)


def _imported(
    cluster: EtcdCluster, fleet: Fleet, observed: Observed, members: Sequence[EtcdMember]
) -> Plan:
    """First every member trusts what ``ca_bundle`` has, then come the imported certificates."""
    ca = external.load(cluster)
    tls.require_known(cluster, observed.facts, ca)
    _require_some(cluster, observed)
    told = imported.require(cluster, members, observed.facts, ca)
    steps: list[Step] = []
    leaves: list[Step] = []
    for m in gates.order(list(cluster.members), observed.health):
        facts = observed.facts[m.machine]
        if desired.trusted(cluster, facts) != ca.bundle or _must_restart(facts):
            title = f"{m.name} trusts the CAs of {cluster.tls.ca_bundle}"
            steps.append(_new_trust(cluster, fleet, m, facts, ca.bundle, title))
        chosen = {k: imported.choose(cluster, m, k, facts, ca) for k in desired.kinds(m)}
        new = {k: c for k, c in chosen.items() if c.new is not None and m in members}
        if new:
            made = {k: certificates.inspect(c.new or b"").fingerprint for k, c in new.items()}
            pair = {k: c.leaf for k, c in new.items()}
            material = MemberTls(m.name, b"", peer=pair.get("peer"), server=pair.get("server"))
            leaves.append(_leaf_step(cluster, fleet, m, facts, material, made))
    steps += leaves
    if len(members) == len(cluster.members):
        steps += imported.own_step(cluster)
    if not steps and not told:
        what = "no certificate was imported that is not in place"
        remedy = "invoke export-csrs --all --to DIR, have them signed, invoke import-certs DIR"
        told = (Problem(cluster.name, what, remedy, "warning", id="external-certificate-needed"),)
    return dataclasses.replace(_plan(cluster, steps), notes=told)


def _plan(cluster: EtcdCluster, steps: Sequence[Step]) -> Plan:
    return Plan(
        "rotate-certs", cluster.name, tuple(steps), guards=tuple(m.machine for m in cluster.members)
    )


def _authorities(cluster: EtcdCluster, observed: Observed, *, write: bool) -> pki.Authorities:
    ca = tls.authority(cluster, observed.facts, write=write)
    _require_some(cluster, observed)
    assert isinstance(ca, pki.Authorities)  # an external one has a way of its own
    return ca


def _require_declared(cluster: EtcdCluster, observed: Observed) -> None:
    """Raises :class:`PreflightFailed` for members that the inventory does not have: nobody would
    tell them of the new CA."""
    if observed.running is None:
        return
    there = observed.running.roster
    if undeclared := [as_registered(cluster, r) for r in strangers(cluster, there)]:
        raise PreflightFailed(
            "not every member is in the inventory, and the others would not know the new CA; "
            "nothing was changed",
            [
                Problem(
                    f"etcd member {m.name}",
                    f"is a member at {m.peer_url} that the inventory does not have",
                    f"declare it, or let it go: invoke deploy-etcd --remove {m.name}",
                    id="member-not-declared",
                )
                for m in undeclared
            ],
            id="member-not-declared",
        )


def _require_some(cluster: EtcdCluster, observed: Observed) -> None:
    if not (cluster.tls.peer or cluster.tls.client):
        raise PreflightFailed(
            "there are no certificates: both listeners are plain",
            [
                Problem(
                    cluster.name,
                    "etcd.tls.peer and etcd.tls.client are false",
                    id="command-not-applicable",
                )
            ],
            id="command-not-applicable",
        )
    gates.require_healthy(observed.health)
    problems = [
        Problem(
            f"{m.name} ({m.machine.where})",
            f"has no {kind} certificate yet",
            "run invoke deploy-etcd first",
            id="deploy-first",
        )
        for m in cluster.members
        for kind in desired.kinds(m)
        if desired.installed(cluster, kind, observed.facts[m.machine]) is None
    ]
    if problems:
        raise PreflightFailed(
            "there is nothing to rotate yet; nothing was changed", problems, id="deploy-first"
        )


def _successor(cluster: EtcdCluster, ca: pki.Authorities, *, write: bool) -> certificates.Authority:
    if ca.next is not None:
        return ca.next
    begun = pki.begin_replacement if write else pki.stand_in
    days, behind = cluster.tls.ca_days, ca.current.behind
    made = begun(cluster.tls.pki_dir, cluster.name, days, behind=behind)
    assert made.next is not None
    return made.next


def _all_from(
    cluster: EtcdCluster, member: EtcdMember, facts: HostFacts, authority: certificates.Authority
) -> bool:
    names = desired.sans(member)
    return all(
        certificates.is_good(desired.installed(cluster, kind, facts) or b"", authority, names)
        is None
        for kind in desired.kinds(member)
    )


def _must_restart(facts: HostFacts) -> bool:
    """Whether a file was written that the running etcd has not read: a run was killed there."""
    return desired.UNIT in facts.pending_restarts


def _new_trust(
    cluster: EtcdCluster,
    fleet: Fleet,
    member: EtcdMember,
    facts: HostFacts,
    bundle: bytes,
    title: str,
) -> Step:
    files = desired.tls_files(cluster, MemberTls(member.name, bundle))
    return Step(
        title,
        (HostChanges(member.name, member.machine, changes([*files, Unit(desired.UNIT)], facts)),),
        before=gates.can_lose(cluster, fleet, member),
        after=gates.all_healthy(cluster, fleet, member),
    )


def _with_trust(cluster: EtcdCluster, facts: HostFacts, bundle: bytes) -> HostFacts:
    """The facts of a host as they will be when :func:`_new_trust` is done."""
    path = desired.ca_file(cluster)
    state = PathState("file", cluster.user, cluster.user, 0o644, len(bundle), bundle)
    return dataclasses.replace(
        facts, paths={**facts.paths, path: state}, pending_restarts=frozenset()
    )


def _new_leaf(
    cluster: EtcdCluster,
    fleet: Fleet,
    member: EtcdMember,
    facts: HostFacts,
    authority: certificates.Authority,
) -> Step:
    made: dict[str, str] = {}

    def leaf(kind: str) -> desired.Leaf:
        def note(certificate: bytes) -> None:
            made[kind] = certificates.inspect(certificate).fingerprint

        return tls.leaf(cluster, member, facts, authority, "", note)

    new = MemberTls(
        member.name,
        b"",
        peer=leaf("peer") if member.peer_tls else None,
        server=leaf("server") if member.client_tls else None,
    )
    return _leaf_step(cluster, fleet, member, facts, new, made)


def _leaf_step(
    cluster: EtcdCluster,
    fleet: Fleet,
    member: EtcdMember,
    facts: HostFacts,
    new: MemberTls,
    made: dict[str, str],
) -> Step:
    """``made``: the fingerprints of the certificates, by listener, at the latest when applied."""
    todo = changes(desired.certificates(cluster, new), facts)
    return Step(
        f"renew {member.name}",
        (HostChanges(member.name, member.machine, todo),),
        before=gates.can_lose(cluster, fleet, member),
        after=_shown(cluster, fleet, member, made),
    )


def _shown(cluster: EtcdCluster, fleet: Fleet, member: EtcdMember, made: dict[str, str]) -> Gate:
    """Every member is healthy, and the listeners of ``member`` show the certificates ``made``."""
    healthy = gates.all_healthy(cluster, fleet, member)
    listeners = {"peer": "peer", "client": "server"}

    def check() -> None:
        healthy.check()
        deadline = time.monotonic() + SHOWN_WITHIN
        while True:
            shown = shown_certificates(cluster, fleet, member)
            late = [
                c
                for c in shown
                if listeners[c.listener] in made
                and (c.error or c.fingerprint != made[listeners[c.listener]])
            ]
            if not late:
                return
            if time.monotonic() > deadline:
                raise Unhealthy(
                    f"{member.name} does not show its new certificate",
                    [_late(member, c) for c in late],
                    id="certificate-unverified",
                )
            time.sleep(0.1)

    return Gate(f"{member.name} shows the new certificates; {healthy.title}", check)


def _late(member: EtcdMember, shown: CertificateState) -> Problem:
    what = shown.error or f"still shows another certificate, valid until {shown.not_after}"
    return Problem(
        f"{member.name} ({member.machine.host})",
        f"{shown.listener} listener: {what}",
        id="certificate-unverified",
    )


def _own_certificate(cluster: EtcdCluster, signer: certificates.Authority) -> Step:
    def renew() -> None:
        days = cluster.tls.leaf_days
        pki.renew_client(cluster.tls.pki_dir, cluster.name, signer, days)

    path = pki.home(cluster.tls.pki_dir, cluster.name) / pki.CLIENT
    return Step("renew this tool's own certificate", calls=(Call(f"change {path}", renew),))
