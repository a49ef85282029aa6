"""``rotate-certs``: new leaf certificates, or a new CA, on a running cluster without an outage.

etcd reads a leaf and its key again for every connection, so new leaves need no restart. It reads
its trusted CAs only at its start ("Transport security model";
``client/pkg/transport/listener.go``), so a new CA takes two rolling restarts. First all members are
restarted to trust both CAs. Then all leaves and this tool's own certificate are reissued. Then the
old CA is dropped, with the second restart. The hosts' files and the CA's folder show how far a
rotation has come, so a killed rotation goes on when the command is run again.

Members with expired certificates are cut off, so they are not healthy. This command is the remedy:
these members get new certificates first, without a gate; then the rest follows as always. When the
CA itself has expired, no order of restarts keeps a quorum: all members get the new CA and their
certificates, and restart together. A CA that is lost is replaced only by
:mod:`provision.plans.etcd.certificates.replace_lost_ca`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from provision import wait
from provision.engine.guards import Guard
from provision.engine.plan import Action, Gate, HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem, Unhealthy, UsageError
from provision.etcd.cluster import gates
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.rolling import rolling_step
from provision.etcd.cluster.served_certs import CertificateState, shown_certificates
from provision.etcd.member import desired, layout
from provision.etcd.member.desired import MemberTls
from provision.etcd.member.membership_diff import as_registered, undeclared_members
from provision.etcd.pki import certificates, external_ca, imported, own_ca, tls
from provision.host.diff import changes
from provision.host.effects import Effect
from provision.host.facts import HostFacts
from provision.host.predict import after
from provision.host.resources import Resource
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.plans.etcd.state.observe import EtcdState

#: Seconds until a listener shows a new certificate.
SHOWN_WITHIN = 10.0


def leaves(
    etcd: Etcd,
    observed: EtcdState,
    members: Sequence[EtcdMember],
    *,
    write: bool,
) -> Plan:
    """New keys and certificates for ``members``, one member at a time, without a restart.

    With an external CA, the new certificates are the imported ones. If the CA's bundle has changed,
    all members are first restarted one by one, to trust the new bundle.
    """
    cluster = etcd.cluster
    if cluster.tls.ca == "external":
        return _imported(etcd, observed, members)
    ca = _authorities(cluster, observed, write=write)
    over = cut_off(cluster, observed)
    _require_chosen(over, members)
    steps = tls.finishing(cluster)
    made = {m.name: new_leaf(etcd, m, observed.facts[m.machine], ca.signing) for m in over}
    steps += _healing(etcd, [made[m.name] for m in over])
    steps += [
        new_leaf(etcd, m, observed.facts[m.machine], ca.signing)
        for m in gates.order(list(members), observed.health)
        if m not in over
    ]
    if len(members) == len(cluster.members):
        steps.append(tls.own_certificate(cluster, ca.signing))
    return plan_of(cluster, steps)


def authority(etcd: Etcd, observed: EtcdState, *, write: bool) -> Plan:
    """Replace the cluster's CA with a new one; go on where an earlier run ended."""
    cluster = etcd.cluster
    require_declared(cluster, observed)
    if cluster.tls.ca == "external":
        raise UsageError(
            "this tool cannot replace an external CA: put the new CA into etcd.tls.ca_bundle "
            f"beside the old one, then {external_ca.HOW}, invoke rotate-certs; then remove the "
            "old CA from the bundle",
            id="command-not-applicable",
        )
    require_at_hand(cluster, observed)
    if needs_outage(cluster, observed):
        return _outage(etcd, observed, write=write)
    if left := tls.finishing(cluster):
        return plan_of(cluster, left)  # all but the end of that replacement is done
    ca = _authorities(cluster, observed, write=write)
    old, new = ca.current, _successor(cluster, ca, write=write)
    both = dataclasses.replace(ca, next=new).bundle
    members = gates.order(list(cluster.members), observed.health)
    facts = {m.name: observed.facts[m.machine] for m in members}
    trusted = {m.name: desired.trusted(cluster, facts[m.name]) for m in members}
    steps: list[Step] = []

    pending = [m for m in members if not all_from(cluster, m, facts[m.name], new)]
    if pending:
        for m in members:
            if trusted[m.name] != both or must_restart(facts[m.name]):
                title = f"{m.name} trusts the old and the new CA"
                steps.append(new_trust(etcd, m, facts[m.name], both, title))
                facts[m.name] = after(trusting(cluster, m, both), facts[m.name])
    steps += [new_leaf(etcd, m, facts[m.name], new) for m in pending]
    if ca.signing is not new:
        steps.append(tls.own_certificate(cluster, new))
    for m in members:
        if desired.trusted(cluster, facts[m.name]) != new.cert_pem or must_restart(facts[m.name]):
            title = f"{m.name} trusts the new CA only"
            steps.append(new_trust(etcd, m, facts[m.name], new.cert_pem, title))
    return plan_of(cluster, [*steps, _retire(cluster, old, new)])


def cut_off(cluster: EtcdCluster, observed: EtcdState) -> tuple[EtcdMember, ...]:
    """The members with a certificate that nobody accepts: the certificate or its CA has expired."""
    return tls.cut_off(cluster, observed.facts)


def needs_outage(cluster: EtcdCluster, observed: EtcdState) -> bool:
    """Whether members must get other CAs to trust, while some members accept none of the old CAs.
    Then no rolling restart keeps a quorum.

    With this tool's own CA this is so when the CA has expired (``--ca``).
    """
    if not (cluster.tls.peer or cluster.tls.client):
        return False
    if cluster.tls.ca == "external":
        return _needs_another_bundle(cluster, observed)
    return own_ca.expired(cluster.tls.pki_dir, cluster.name)


def _needs_another_bundle(cluster: EtcdCluster, observed: EtcdState) -> bool:
    """Whether members are cut off, and the CA of their new certificates is one that the running
    members do not trust."""
    over = cut_off(cluster, observed)
    if not over:
        return False
    ca = external_ca.load(cluster)
    trusts = [desired.trusted(cluster, observed.facts[m.machine]) for m in cluster.members]
    roots = set()
    for m in over:
        for kind in desired.kinds(m):
            new = imported.choose(cluster, m, kind, observed.facts[m.machine], ca).new
            if new is not None:
                roots.add(ca.chain(new)[-1].public_bytes(external_ca.PEM))
    return any(root not in trust for root in roots for trust in trusts)


def require_at_hand(cluster: EtcdCluster, observed: EtcdState) -> None:
    """Raises :class:`PreflightFailed` when members have certificates of another CA than the one in
    the folder, expired or not. No consent to an outage is a leave to make a CA beside that one."""
    if not (cluster.tls.peer or cluster.tls.client) or cluster.tls.ca == "external":
        return
    directory, name = cluster.tls.pki_dir, cluster.name
    if own_ca.expired(directory, name):
        here = own_ca.authorities(directory, name, expired=True)
        tls.require_known(cluster, observed.facts, here)
    else:
        tls.authority(cluster, observed.facts, write=False)


def _outage(etcd: Etcd, observed: EtcdState, *, write: bool) -> Plan:
    """A new CA for all members together, in the place of one that has expired."""
    cluster = etcd.cluster
    directory, name = cluster.tls.pki_dir, cluster.name
    days, behind = cluster.tls.ca_days, tls.behind(observed.facts.values())
    begun = own_ca.begin_replacement if write else own_ca.preview_replacement
    _require_installed(cluster, observed)
    ca = begun(directory, name, days, behind=behind)
    assert ca.next is not None
    made = together(etcd, observed, ca.next)
    return dataclasses.replace(made, steps=(*made.steps, _retire(cluster, ca.current, ca.next)))


def together(etcd: Etcd, observed: EtcdState, new: certificates.Authority) -> Plan:
    """All members get the CA ``new`` and its certificates, and restart together."""
    cluster = etcd.cluster
    _require_installed(cluster, observed)
    hosts = []
    for m in cluster.members:
        facts = observed.facts[m.machine]
        leaves = {} if all_from(cluster, m, facts, new) else _leaves(cluster, m, facts, new, {})
        material = MemberTls(m.name, new.cert_pem, leaves.get("peer"), leaves.get("server"))
        hosts.append(_reissued(cluster, m, facts, material))
    # This comes before the gate, because the gate asks the members with this certificate.
    steps = [tls.own_certificate(cluster, new), *_all_at_once(etcd, hosts)]
    notes = (replaced(cluster),)
    return dataclasses.replace(plan_of(cluster, steps), notes=notes, waives=(Guard.KNOWN_CA,))


def _reissued(
    cluster: EtcdCluster, member: EtcdMember, facts: HostFacts, material: MemberTls
) -> HostChanges:
    todo = changes([*desired.tls_files(cluster, material), desired.unit(member)], facts)
    return HostChanges(member.name, member.machine, todo)


def _all_at_once(etcd: Etcd, hosts: Sequence[HostChanges]) -> list[Step]:
    """Restart all members in one step. Restarted one by one, they would wait for each other: a
    member that trusts only the new CA has no quorum until most others trust it."""
    title = "OUTAGE: all members get the CA and new certificates, and restart together"
    todo = tuple(h for h in hosts if h.changes)
    return [Step(title, todo, after=gates.all_healthy(etcd))] if todo else []


def _retire(cluster: EtcdCluster, old: certificates.Authority, new: certificates.Authority) -> Step:
    folder, gone = (
        own_ca.home(cluster.tls.pki_dir, cluster.name),
        own_ca.retired_as(old.certificate),
    )
    name = new.certificate.subject.rfc4514_string()
    what = (
        f"{folder / own_ca.CA_CERTIFICATE} is {name}; the old one goes to {own_ca.RETIRED}/{gone}"
    )
    directory = cluster.tls.pki_dir
    do = functools.partial(own_ca.finish_replacement, directory, cluster.name)
    call = Action(what, do, (Effect.HERE,))
    return Step("retire the old CA", calls=(call,))


def replaced(cluster: EtcdCluster) -> Problem:
    path = own_ca.home(cluster.tls.pki_dir, cluster.name) / own_ca.CA_CERTIFICATE
    if cluster.tls.ca == "external":
        path = cluster.tls.ca_bundle or path
    what = "TLS clients must trust the new CA, and other machines with this inventory need it"
    remedy = f"give clients {path}, and the machines of check-nodes' timer its folder"
    return Problem(cluster.name, what, remedy, "warning", id="ca-replaced")


def _require_chosen(over: Sequence[EtcdMember], members: Sequence[EtcdMember]) -> None:
    if left := [m.name for m in over if m not in members]:
        raise UsageError(
            f"--limit leaves out {', '.join(left)}, whose certificates have expired: their "
            "certificates must be renewed first",
            id="option-invalid",
        )


def _healing(etcd: Etcd, renewals: Sequence[Step]) -> list[Step]:
    """``renewals`` of members that are cut off, with only one gate, at the end: earlier gates could
    not pass. New files disturb no member."""
    steps = [
        dataclasses.replace(
            s, title=f"{s.title}: its certificate has expired", before=None, after=None
        )
        for s in renewals
    ]
    if steps:
        shown = [s.after for s in renewals if s.after is not None]

        def check() -> None:
            for gate in shown:
                gate.check()

        gate = Gate(
            "; ".join(g.title.partition(";")[0] for g in shown) + "; every member healthy", check
        )
        steps[-1] = dataclasses.replace(steps[-1], after=gate)
    return steps


def _imported(etcd: Etcd, observed: EtcdState, members: Sequence[EtcdMember]) -> Plan:
    """First every member trusts the CAs in ``ca_bundle``; then come the imported certificates."""
    cluster = etcd.cluster
    ca = external_ca.load(cluster)
    tls.require_known(cluster, observed.facts, ca)
    _require_some(cluster, observed)
    outage, over = needs_outage(cluster, observed), cut_off(cluster, observed)
    _require_chosen(cluster.members if outage else over, members)
    told = imported.require(cluster, members, observed.facts, ca)
    if outage:
        hosts = []
        for m in cluster.members:
            facts = observed.facts[m.machine]
            pair = {k: imported.choose(cluster, m, k, facts, ca).leaf for k in desired.kinds(m)}
            material = MemberTls(m.name, ca.bundle, pair.get("peer"), pair.get("server"))
            hosts.append(_reissued(cluster, m, facts, material))
        steps = [*imported.own_step(cluster), *_all_at_once(etcd, hosts)]
        return dataclasses.replace(plan_of(cluster, steps), notes=(*told, replaced(cluster)))
    steps = []
    healing: list[Step] = []
    leaves: list[Step] = []
    for m in gates.order(list(cluster.members), observed.health):
        facts = observed.facts[m.machine]
        if desired.trusted(cluster, facts) != ca.bundle or must_restart(facts):
            title = f"{m.name} trusts the CAs of {cluster.tls.ca_bundle}"
            steps.append(new_trust(etcd, m, facts, ca.bundle, title))
        chosen = {k: imported.choose(cluster, m, k, facts, ca) for k in desired.kinds(m)}
        new = {k: c for k, c in chosen.items() if c.new is not None and m in members}
        if new:
            made = {k: certificates.inspect(c.new or b"").fingerprint for k, c in new.items()}
            pair = {k: c.leaf for k, c in new.items()}
            material = MemberTls(m.name, b"", peer=pair.get("peer"), server=pair.get("server"))
            step = _leaf_step(etcd, m, facts, material, made)
            (healing if m in over else leaves).append(step)
    steps = [*_healing(etcd, healing), *steps, *leaves]
    if len(members) == len(cluster.members):
        steps += imported.own_step(cluster)
    if not steps and not told:
        what = "every imported certificate is already in place"
        remedy = "invoke export-csrs DIR --all, have them signed, invoke import-certs DIR"
        told = (Problem(cluster.name, what, remedy, "warning", id="external-certificate-needed"),)
    return dataclasses.replace(plan_of(cluster, steps), notes=told)


def plan_of(cluster: EtcdCluster, steps: Sequence[Step]) -> Plan:
    return Plan(
        "rotate-certs", cluster.name, tuple(steps), guards=tuple(m.machine for m in cluster.members)
    )


def _authorities(cluster: EtcdCluster, observed: EtcdState, *, write: bool) -> own_ca.CaSet:
    ca = tls.authority(cluster, observed.facts, write=write)
    _require_some(cluster, observed)
    assert isinstance(ca, own_ca.CaSet)  # an external CA has functions of its own
    return ca


def require_declared(cluster: EtcdCluster, observed: EtcdState) -> None:
    """Raises :class:`PreflightFailed` for members that the inventory does not have: they would not
    get the new CA."""
    if observed.running is None:
        return
    there = observed.running.roster
    if undeclared := [as_registered(cluster, r) for r in undeclared_members(cluster, there)]:
        raise PreflightFailed(
            "not every member is in the inventory, and the others would not know the new CA",
            [
                Problem(
                    f"etcd member {m.name}",
                    f"is a member at {m.peer_url} that the inventory does not have",
                    f"declare it, or remove it: invoke deploy-etcd --remove {m.name}",
                    id="member-not-declared",
                )
                for m in undeclared
            ],
            id="member-not-declared",
        )


def _require_some(cluster: EtcdCluster, observed: EtcdState) -> None:
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
    if not cut_off(cluster, observed):
        gates.require_healthy(observed.health)
    _require_installed(cluster, observed)


def _require_installed(cluster: EtcdCluster, observed: EtcdState) -> None:
    problems = [
        Problem(
            m.place,
            f"has no {kind} certificate yet",
            "run invoke deploy-etcd first",
            id="deploy-first",
        )
        for m in cluster.members
        for kind in desired.kinds(m)
        if desired.installed(cluster, kind, observed.facts[m.machine]) is None
    ]
    if problems:
        raise PreflightFailed("there is nothing to rotate yet", problems, id="deploy-first")


def _successor(cluster: EtcdCluster, ca: own_ca.CaSet, *, write: bool) -> certificates.Authority:
    if ca.next is not None:
        return ca.next
    begun = own_ca.begin_replacement if write else own_ca.preview_replacement
    days, behind = cluster.tls.ca_days, ca.current.behind
    made = begun(cluster.tls.pki_dir, cluster.name, days, behind=behind)
    assert made.next is not None
    return made.next


def all_from(
    cluster: EtcdCluster, member: EtcdMember, facts: HostFacts, authority: certificates.Authority
) -> bool:
    names = desired.sans(member)
    return all(
        certificates.renewal_reason(
            desired.installed(cluster, kind, facts) or b"", authority, names
        )
        is None
        for kind in desired.kinds(member)
    )


def must_restart(facts: HostFacts) -> bool:
    """Whether the host has a new file that the running etcd has not read, left by a killed run."""
    return layout.UNIT in facts.pending_restarts


def new_trust(
    etcd: Etcd,
    member: EtcdMember,
    facts: HostFacts,
    bundle: bytes,
    title: str,
) -> Step:
    todo = changes(trusting(etcd.cluster, member, bundle), facts)
    return rolling_step(etcd, member, title, todo)


def trusting(cluster: EtcdCluster, member: EtcdMember, bundle: bytes) -> list[Resource]:
    """The resources of a running member that trusts ``bundle``."""
    return [*desired.tls_files(cluster, MemberTls(member.name, bundle)), desired.unit(member)]


def new_leaf(
    etcd: Etcd,
    member: EtcdMember,
    facts: HostFacts,
    authority: certificates.Authority,
) -> Step:
    made: dict[str, str] = {}
    leaf = _leaves(etcd.cluster, member, facts, authority, made)
    new = MemberTls(member.name, b"", peer=leaf.get("peer"), server=leaf.get("server"))
    return _leaf_step(etcd, member, facts, new, made)


def _leaves(
    cluster: EtcdCluster,
    member: EtcdMember,
    facts: HostFacts,
    authority: certificates.Authority,
    made: dict[str, str],
) -> dict[str, desired.Leaf]:
    """New certificates by listener. When a certificate is made, its fingerprint goes into
    ``made``."""

    def leaf(kind: str) -> desired.Leaf:
        def note(certificate: bytes) -> None:
            made[kind] = certificates.inspect(certificate).fingerprint

        return tls.leaf(cluster, member, facts, authority, "", note)

    return {kind: leaf(kind) for kind in desired.kinds(member)}


def _leaf_step(
    etcd: Etcd,
    member: EtcdMember,
    facts: HostFacts,
    new: MemberTls,
    made: dict[str, str],
) -> Step:
    """``made``: the fingerprints of the certificates, by listener. They are there at the latest
    when the step is applied."""
    todo = changes(desired.certificates(etcd.cluster, new), facts)
    title = f"renew {member.name}"
    return rolling_step(etcd, member, title, todo, after=_shown(etcd, member, made))


def _shown(etcd: Etcd, member: EtcdMember, made: dict[str, str]) -> Gate:
    """Every member is healthy, and the listeners of ``member`` show the certificates ``made``."""
    healthy = gates.all_healthy(etcd, member)
    listeners = {"peer": "peer", "client": "server"}

    def late_ones() -> list[CertificateState]:
        return [
            c
            for c in shown_certificates(etcd, member)
            if listeners[c.listener] in made
            and (c.error or c.fingerprint != made[listeners[c.listener]])
        ]

    def check() -> None:
        healthy.check()
        what = f"{member.name} shows its new certificate"
        if late := wait.until(late_ones, lambda late: not late, SHOWN_WITHIN, 0.1, what=what):
            raise Unhealthy(
                f"{member.name} does not show its new certificate",
                [_late(member, c) for c in late],
                id="certificate-unverified",
            )

    return Gate(f"{member.name} shows the new certificates; {healthy.title}", check)


def _late(member: EtcdMember, shown: CertificateState) -> Problem:
    what = shown.error or f"still shows another certificate, valid until {shown.not_after}"
    return Problem(
        member.place,
        f"{shown.listener} listener: {what}",
        id="certificate-unverified",
    )
