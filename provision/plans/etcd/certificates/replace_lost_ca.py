"""``rotate-certs --ca --ca-lost``: a new CA for members whose CA is lost, without an outage.

A member trusts the CAs in its host's ``ca.crt``, and the lost CA's certificate is enough to add
another CA there. So the order is the order of :mod:`rotate_certs`: every member trusts both CAs,
every leaf is of the new CA, nobody trusts the lost CA any more. The hosts' files and the folder
``lost`` show how far a run has come, so a killed run goes on when the command is run again.

With ``--yes-outage``, all members get the new CA and restart together: for members that are cut
off, and for hosts that do not agree on the lost CA.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import shlex
from collections.abc import Callable, Mapping

from provision.engine.guards import Guard
from provision.engine.plan import Action, Plan, Step
from provision.errors import PreflightFailed, Problem
from provision.etcd.cluster import gates
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import desired, layout, recovery_marker
from provision.etcd.pki import certificates, lost_ca, own_ca, tls
from provision.host import gather
from provision.host.effects import Effect
from provision.host.facts import HostFacts
from provision.host.predict import after
from provision.inventory.resolved import EtcdCluster, Machine
from provision.plans.etcd.certificates import rotate_certs
from provision.plans.etcd.state.observe import EtcdState
from provision.ssh.session import Fleet

#: Bytes of a key and a certificate, at most; a host may send anything.
PAIR_BYTES = 64 << 10


def begin(cluster: EtcdCluster, fleet: Fleet, *, outage: bool = False) -> bool:
    """Make the new CA, and keep what the hosts have of the lost one. Returns whether a CA is lost.

    ``outage``: nothing is kept, because no member has to trust both. Safe to repeat. Raises
    :class:`PreflightFailed` when a host cannot be asked, or the hosts do not agree on the lost CA;
    nothing is written then.
    """
    probes = {m.machine: desired.probe(cluster, m, None) for m in cluster.members}
    facts = gather.require_facts(fleet, probes)
    if unended := recovery_marker.problems(cluster, facts):
        raise PreflightFailed(
            "a restore or a recovery is not finished", unended, id="recovery-unfinished"
        )
    if not lost_ca.begun(cluster):
        if not _is_lost(cluster, facts):
            return False
        if outage:
            tls.authority(cluster, facts, write=True, replacing=True)
            return True
        old = lost_ca.found(cluster, facts)
        pair = _pair(cluster, fleet, old) if cluster.tls.client_auth else None
    else:
        old, pair = lost_ca.trust(cluster), None
    lost_ca.begin(cluster, old, pair, tls.behind(facts.values()))
    return True


def _is_lost(cluster: EtcdCluster, facts: Mapping[Machine, HostFacts]) -> bool:
    """Whether hosts have certificates of a CA that is not in the folder."""
    directory, name = cluster.tls.pki_dir, cluster.name
    if own_ca.expired(directory, name):  # the hosts' own one is not lost: it has expired
        tls.require_known(cluster, facts, own_ca.authorities(directory, name, expired=True))
    ca = tls.authority(cluster, facts, write=False, replacing=True)
    return bool(tls.unknown(cluster, facts, ca))


def _pair(cluster: EtcdCluster, fleet: Fleet, old: bytes) -> bytes:
    """A member's own key and certificate, which the members accept from a client. Both are replaced
    in this rotation. Raises :class:`PreflightFailed` when no host has a usable pair."""
    for m in cluster.members:
        if not m.client_tls:
            continue
        path = shlex.quote(layout.certificate(cluster, "server"))
        into = io.BytesIO()
        command = f"head -c {PAIR_BYTES // 2} {path}.key; head -c {PAIR_BYTES // 2} {path}.crt"
        result = fleet.session(m.machine).fetch(command, into, "read a certificate")
        try:
            pair = certificates.split_pem(into.getvalue()[:PAIR_BYTES])
            if result.ok and not tls.is_over(pair.cert_pem, old):
                return pair.key_pem + pair.cert_pem
        except (ValueError, TypeError):
            continue
    raise PreflightFailed(
        "no member has a certificate that the members accept from this machine",
        [
            Problem(
                cluster.name,
                "the members ask for a client certificate (etcd.tls.client_auth), and the lost CA "
                "signs none",
                own_ca.TOGETHER.format(cluster.name),
                id="ca-unknown",
            )
        ],
        id="ca-unknown",
    )


def plan(etcd: Etcd, observed: EtcdState) -> Plan:
    """The steps that are left; empty when no CA is lost.

    Without :func:`begin`, as in a dry run, the new CA is one in memory. Then members with TLS for
    clients cannot be asked, and the plan does not say which member leads.
    """
    cluster = etcd.cluster
    facts = {m.name: observed.facts[m.machine] for m in cluster.members}
    begun = lost_ca.begun(cluster)
    if not (begun or _is_lost(cluster, observed.facts)):
        return Plan("rotate-certs", cluster.name)
    ca = tls.authority(cluster, observed.facts, write=False, replacing=True)
    assert isinstance(ca, own_ca.CaSet)  # the task refuses an external CA
    rotate_certs.require_declared(cluster, observed)
    if begun or not cluster.tls.client:
        gates.require_healthy(observed.health)
    old = lost_ca.trust(cluster) if begun else lost_ca.found(cluster, observed.facts)
    new = ca.current
    both = new.cert_pem + old
    members = gates.order(list(cluster.members), observed.health)
    steps: list[Step] = []
    pending = [m for m in members if not rotate_certs.all_from(cluster, m, facts[m.name], new)]
    if pending:
        for m in members:
            first = desired.trusted(cluster, facts[m.name]) != both
            if first or rotate_certs.must_restart(facts[m.name]):
                title = f"{m.name} trusts the lost and the new CA"
                steps.append(rotate_certs.new_trust(etcd, m, facts[m.name], both, title))
                facts[m.name] = after(rotate_certs.trusting(cluster, m, both), facts[m.name])
    steps += [rotate_certs.new_leaf(etcd, m, facts[m.name], new) for m in pending]
    why = own_ca.client_reason(cluster.tls.pki_dir, cluster.name, ca)
    if why is not None or lost_ca.has_pair(cluster):
        steps.append(_own(tls.own_certificate(cluster, new, why), cluster))
    for m in members:
        alone = desired.trusted(cluster, facts[m.name]) == new.cert_pem
        if not alone or rotate_certs.must_restart(facts[m.name]):
            title = f"{m.name} trusts the new CA only"
            steps.append(rotate_certs.new_trust(etcd, m, facts[m.name], new.cert_pem, title))
    steps.append(_forget(cluster))
    made = rotate_certs.plan_of(cluster, steps)
    notes = (rotate_certs.replaced(cluster),)
    return dataclasses.replace(made, notes=notes, waives=(Guard.KNOWN_CA,))


def together(etcd: Etcd, observed: EtcdState) -> Plan:
    """The steps of one outage, in which all members get the new CA; empty when no CA is lost."""
    cluster = etcd.cluster
    begun = lost_ca.begun(cluster)
    lost = begun or _is_lost(cluster, observed.facts)
    ca = tls.authority(cluster, observed.facts, write=False, replacing=True)
    if ca is None or not (lost or _is_left(cluster, observed, ca)):
        return Plan("rotate-certs", cluster.name)
    assert isinstance(ca, own_ca.CaSet)  # the task refuses an external CA
    rotate_certs.require_declared(cluster, observed)
    made = rotate_certs.together(etcd, observed, ca.current)
    if not begun:
        return made
    own, *rest = made.steps
    steps = (_own(own, cluster), *rest, _forget(cluster))
    return dataclasses.replace(made, steps=steps)


def _is_left(cluster: EtcdCluster, observed: EtcdState, ca: tls.Ca) -> bool:
    """Whether a killed run has left members that trust the lost CA. When their certificates have
    expired, they do not count as members of an unknown CA any more."""
    assert isinstance(ca, own_ca.CaSet)
    trusts = [desired.trusted(cluster, observed.facts[m.machine]) for m in cluster.members]
    return ca.next is None and any(pem and ca.current.cert_pem not in pem for pem in trusts)


def _forget(cluster: EtcdCluster) -> Step:
    gone = f"{lost_ca.folder(cluster)}: its certificates go to {own_ca.RETIRED}/"
    call = Action(gone, lambda: lost_ca.finish(cluster), (Effect.HERE,))
    return Step("forget the lost CA", calls=(call,))


def _own(step: Step, cluster: EtcdCluster) -> Step:
    """``step``, which makes this tool's own certificate. Then the pair of a member is deleted."""

    def made(do: Callable[[], None]) -> None:
        do()
        lost_ca.forget_pair(cluster)

    calls = (dataclasses.replace(c, do=functools.partial(made, c.do)) for c in step.calls)
    return dataclasses.replace(step, calls=tuple(calls))
