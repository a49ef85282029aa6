"""The certificates a member needs: kept where they are good, made where they are not."""

from __future__ import annotations

import tempfile
from pathlib import Path

from provision.etcd import desired, pki
from provision.etcd.desired import Leaf, MemberTls
from provision.host.observe import HostFacts
from provision.inventory.resolved import EtcdCluster, EtcdMember


def authority(cluster: EtcdCluster, *, write: bool) -> pki.Authority | None:
    """The cluster's CA below ``tls.pki_dir``, or None when both listeners are plain.

    With ``write`` it is made there at first use; without, a throw-away one stands in for it.
    """
    if not (cluster.tls.peer or cluster.tls.client):
        return None
    directory, days = cluster.tls.pki_dir, cluster.tls.ca_days
    if write or (pki.home(directory, cluster.name) / pki.CA_CERTIFICATE).exists():
        return pki.ensure_ca(directory, cluster.name, days)
    with tempfile.TemporaryDirectory() as throw_away:
        return pki.ensure_ca(Path(throw_away), cluster.name, days)


def material(
    cluster: EtcdCluster, member: EtcdMember, facts: HostFacts, ca: pki.Authority | None
) -> MemberTls | None:
    """The TLS files of ``member``, or None when both listeners are plain.

    A certificate on the host that is good (signed by the CA, right names, not about to expire)
    is kept with its key.
    """
    if ca is None:
        return None
    return MemberTls(
        authority=ca.cert_pem,
        peer=_leaf(ca, "peer", cluster, member, facts) if member.peer_tls else None,
        server=_leaf(ca, "server", cluster, member, facts) if member.client_tls else None,
    )


def _leaf(
    ca: pki.Authority, kind: str, cluster: EtcdCluster, member: EtcdMember, facts: HostFacts
) -> Leaf:
    base = f"{desired.pki_dir(cluster)}/{kind}"
    certificate = facts.paths.get(f"{base}.crt")
    key = facts.paths.get(f"{base}.key")
    names = desired.sans(member)
    here = certificate.content if certificate is not None and key is not None and key.size else None
    # A batch that was cut short may have left one of the two behind without the other.
    whole = desired.UNIT not in facts.pending_restarts
    if here and whole and pki.is_good(here, ca, names) is None:
        return Leaf(here, None)
    pair = pki.leaf(ca, member.name, names, days=cluster.tls.leaf_days)
    return Leaf(pair.cert_pem, pair.key_pem)
