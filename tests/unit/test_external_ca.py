"""Certificates of a CA elsewhere: which are good, which are used, what is imported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from provision.engine import plan as plans
from provision.errors import ChangeFailed, PreflightFailed, UsageError
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import desired, layout, routes
from provision.etcd.pki import certificates, external_ca, imported, keyfiles, own_ca, tls
from provision.host.diff import changes
from provision.host.facts import HostFacts, PathState, UnitState
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import EtcdCluster, Inventory
from provision.plans.etcd.certificates import csr_exchange, rotate_certs
from provision.plans.etcd.state.observe import EtcdState
from provision.ssh.session import Fleet
from tests import read_only
from tests.authority import Ca
from tests.unit import builders, hosts

ADDRESS = "10.0.0.1"
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


class Key:
    """A key on a host, and its request."""

    def __init__(
        self, name: str = ADDRESS, private: ec.EllipticCurvePrivateKey | None = None
    ) -> None:
        import ipaddress

        self.key = private or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "infra1")])
        san = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))])
        request = x509.CertificateSigningRequestBuilder(subject).add_extension(san, critical=False)
        usage = x509.ExtendedKeyUsage([SERVER, CLIENT])
        request = request.add_extension(usage, critical=False)
        encoding = serialization.Encoding.PEM
        self.csr = request.sign(self.key, hashes.SHA256()).public_bytes(encoding)
        self.public = self.key.public_key().public_bytes(
            encoding, serialization.PublicFormat.SubjectPublicKeyInfo
        )


@pytest.fixture(scope="module")
def root() -> Ca:
    return Ca("Root")


@pytest.fixture(scope="module")
def issuing(root: Ca) -> Ca:
    return Ca("Issuing", root)


@pytest.fixture(scope="module")
def key() -> Key:
    return Key()


def declared(folder: Path, *bundle: Ca, **changed: Any) -> EtcdCluster:
    path = folder / "bundle.pem"
    path.write_bytes(b"".join(ca.pem for ca in bundle))
    values: dict[str, Any] = {
        "ca": "external",
        "ca_bundle": path,
        "pki_dir": folder / "pki",
        **changed,
    }
    members = [builders.member(i, peer_tls=True) for i in (1, 2, 3)]
    return builders.etcd(*members, config_dir=str(folder / "etc"), tls=EtcdTls(**values))


@pytest.fixture
def cluster(tmp_path: Path, root: Ca) -> EtcdCluster:
    return declared(tmp_path, root)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda ca, key: ca.sign(key.csr), None),
        (lambda ca, key: ca.sign(key.csr, leave_out=[x509.ExtendedKeyUsage]), None),
        (lambda ca, key: Ca("Foreign").sign(key.csr), "(issuer: CN=Foreign)"),
        (lambda ca, key: Ca("Issuing", Ca("Root")).sign(key.csr), "no chain leads"),
        (lambda ca, key: ca.sign(key.csr).split(b"-----END")[0], "not a certificate"),
        (lambda ca, key: ca.sign(key.csr, days=-1), "it expired on"),
        (lambda ca, key: ca.sign(Key("10.0.0.9").csr), f"does not name {ADDRESS}"),
        (
            lambda ca, key: ca.sign(
                key.csr, leave_out=[x509.ExtendedKeyUsage], more=[x509.ExtendedKeyUsage([SERVER])]
            ),
            "not for use as client",
        ),
        (
            lambda ca, key: ca.sign(key.csr, more=[x509.BasicConstraints(True, None)]),
            "a CA's certificate itself",
        ),
        (lambda ca, key: Ca("No CA", ca, ca=False).sign(key.csr), "must be asserted in a CA"),
        (
            lambda ca, key: Ca(
                "Servers' CA", ca, extensions=[x509.ExtendedKeyUsage([SERVER])]
            ).sign(key.csr),
            "not for certificates of servers and clients",
        ),
        (lambda ca, key: Ca("Old", ca, days=-1).sign(key.csr), "not valid at validation time"),
    ],
)
def test_what_is_wrong_with_a_certificate(
    make: Callable[[Ca, Key], bytes], what: str | None, cluster: EtcdCluster, issuing: Ca, key: Key
) -> None:
    found = external_ca.faults(external_ca.load(cluster), make(issuing, key), [ADDRESS])
    assert [what is not None and what in one for one in found] == [True] * (what is not None)


def test_intermediates_may_stand_apart_or_in_the_bundle(
    tmp_path: Path, root: Ca, issuing: Ca, key: Key
) -> None:
    alone = issuing.sign(key.csr).removesuffix(issuing.chain)
    ca = external_ca.load(declared(tmp_path, root))
    assert "put intermediate certificates behind it" in external_ca.faults(ca, alone, [ADDRESS])[0]
    assert external_ca.faults(ca, alone, [ADDRESS], more=issuing.pem) == []
    beside = external_ca.load(declared(tmp_path, issuing, root))
    assert external_ca.faults(beside, alone, [ADDRESS]) == []
    # What a member is given: itself, and what leads to the root.
    assert [c.subject for c in beside.chain(alone)[1:]] == [issuing.name, root.name]


def test_a_bundle_that_cannot_be_used(tmp_path: Path, root: Ca, issuing: Ca) -> None:
    cluster = declared(tmp_path, issuing, Ca("Old", days=-1), Ca("No CA", ca=False))
    with pytest.raises(UsageError) as caught:
        external_ca.load(cluster)
    said = [f"{p.where} {p.what}" for p in caught.value.problems]
    for name, what in (
        ("Issuing", "is not a root CA"),
        ("Old", "expired"),
        ("No CA", "is not the cert"),
    ):
        assert any(name in text and what in text for text in said), said
    (tmp_path / "bundle.pem").write_bytes(b"")
    with pytest.raises(UsageError, match="no PEM certificates"):
        external_ca.load(cluster)
    (tmp_path / "bundle.pem").unlink()
    with pytest.raises(UsageError, match="No such file"):
        external_ca.load(cluster)


def seen(
    cluster: EtcdCluster,
    files: Mapping[str, bytes] = MappingProxyType({}),
    *,
    waiting: Key | None = None,
    active: bool = False,
) -> HostFacts:
    folder = layout.pki_dir(cluster)
    paths = {
        f"{folder}/{name}": PathState(
            "file", "root", "etcd", 0o640 if "key" in name else 0o644, len(content), content
        )
        for name, content in files.items()
    }
    units = {"etcd.service": UnitState(active="active")} if active else {}
    commands = {desired.OPENSSL: "/usr/bin/openssl"}
    if waiting is not None:
        commands["peer.key.new"] = waiting.public.decode()
    return hosts.facts(paths=paths, units=units, commands=commands)


def take_in(cluster: EtcdCluster, pem: bytes) -> external_ca.External:
    ca = external_ca.load(cluster)
    ca.folder.mkdir(parents=True, exist_ok=True)
    (ca.folder / "infra1-peer.crt").write_bytes(pem)
    return ca


def chosen(cluster: EtcdCluster, facts: HostFacts) -> imported.Choice:
    return imported.choose(cluster, cluster.members[0], "peer", facts, external_ca.load(cluster))


class TestChoice:
    def test_the_imported_one_whose_key_waits(
        self, cluster: EtcdCluster, issuing: Ca, key: Key
    ) -> None:
        new = issuing.sign(key.csr)
        take_in(cluster, new)
        choice = chosen(cluster, seen(cluster, {"peer.crt": issuing.sign(Key().csr)}, waiting=key))
        assert (choice.new, choice.problem) == (new, None)
        assert choice.leaf is not None
        assert choice.leaf.sign is not None
        assert choice.leaf.sign(key.csr) == new
        with pytest.raises(ChangeFailed, match="is no longer on the host"):
            choice.leaf.sign(Key().csr)

    def test_one_that_turned_bad_is_not_installed(
        self, cluster: EtcdCluster, issuing: Ca, key: Key
    ) -> None:
        take_in(cluster, issuing.sign(key.csr, days=-1))
        choice = chosen(cluster, seen(cluster, waiting=key))
        assert choice.leaf is None
        assert choice.problem is not None
        assert "it expired" in choice.problem.what

    def test_the_one_there_stays_while_it_is_good(
        self, cluster: EtcdCluster, issuing: Ca, key: Key
    ) -> None:
        here = {"peer.crt": issuing.sign(key.csr), "peer.key": b"key"}
        take_in(cluster, issuing.sign(Key().csr))  # a stale one, of a key that is no more
        choice = chosen(cluster, seen(cluster, here))
        assert (choice.leaf, choice.problem) == (desired.Leaf(), None)
        here["peer.crt"] = issuing.sign(key.csr, 0.01)
        soon = chosen(cluster, seen(cluster, here))
        assert soon.leaf == desired.Leaf()
        assert soon.problem is not None
        assert soon.problem.severity == "warning"

    def test_a_request_names_the_addresses_of_the_routes_and_is_due_without_one(
        self, cluster: EtcdCluster, issuing: Ca, key: Key
    ) -> None:
        first = cluster.members[0]
        facts = seen(cluster, {"peer.crt": issuing.sign(key.csr, days=300), "peer.key": b"key"})
        ca = external_ca.load(cluster)
        assert not csr_exchange._due(cluster, first, "peer", facts, ca)
        route = "route 10.0.0.2 - 10.0.0.2 dev eth0 src 10.0.9.1 uid 0\n"
        facts = replace(facts, commands={**facts.commands, routes.ROUTES: route})
        assert csr_exchange._due(cluster, first, "peer", facts, ca)
        assert "10.0.9.1" in csr_exchange._names(cluster, first, facts)
        assert chosen(cluster, facts).leaf == desired.Leaf()

    def test_one_without_the_declared_sans_stays_with_a_warning(
        self, cluster: EtcdCluster, issuing: Ca, key: Key
    ) -> None:
        here = {"peer.crt": issuing.sign(key.csr), "peer.key": b"key"}
        first = replace(cluster.members[0], sans=("vip.example",))
        facts = seen(cluster, here)
        choice = imported.choose(cluster, first, "peer", facts, external_ca.load(cluster))
        assert choice.leaf == desired.Leaf()
        assert choice.problem is not None
        assert (choice.problem.severity, choice.problem.id) == (
            "warning",
            "address-not-in-certificate",
        )
        assert choice.problem.what == "the peer certificate does not name vip.example"

    @pytest.mark.parametrize("days", [None, -1.0])
    def test_none_that_can_be_used(
        self, cluster: EtcdCluster, issuing: Ca, key: Key, days: float | None
    ) -> None:
        here = {} if days is None else {"peer.crt": issuing.sign(key.csr, days), "peer.key": b"k"}
        facts = {m.machine: seen(cluster, here) for m in cluster.members}
        ca = external_ca.load(cluster)
        with pytest.raises(PreflightFailed) as caught:
            imported.require(cluster, cluster.members, facts, ca)
        assert len(caught.value.problems) == 3
        assert all("invoke export-csrs" in p.remedy for p in caught.value.problems)
        with pytest.raises(PreflightFailed):
            tls.material(cluster, cluster.members[0], facts[cluster.members[0].machine], ca)

    def test_an_installation_that_was_cut_off_is_finished(
        self, cluster: EtcdCluster, issuing: Ca, key: Key
    ) -> None:
        new = issuing.sign(key.csr)
        take_in(cluster, new)
        old = issuing.sign(Key().csr, days=-1)
        facts = seen(cluster, {"peer.crt": old, "peer.key": b"new", "peer.crt.new": new})
        choice = chosen(cluster, facts)
        material = desired.MemberTls("infra1", b"", peer=choice.leaf)
        [change] = changes(desired.certificates(cluster, material), facts)
        assert change.what.startswith("finish ")


def test_a_ca_that_is_in_use_stays_in_the_bundle(
    cluster: EtcdCluster, root: Ca, issuing: Ca, key: Key, tmp_path: Path
) -> None:
    here = {"peer.crt": issuing.sign(key.csr), "peer.key": b"key"}
    running = {m.machine: seen(cluster, here, active=True) for m in cluster.members}
    stopped = {m.machine: seen(cluster, here) for m in cluster.members}
    tls.require_known(cluster, running, external_ca.load(cluster))
    other = external_ca.load(declared(tmp_path, Ca("New root")))
    tls.require_known(cluster, stopped, other)
    with pytest.raises(PreflightFailed, match=r"keep the old CA in etcd\.tls\.ca_bundle") as caught:
        tls.require_known(cluster, running, other)
    assert len(caught.value.problems) == 3
    # A CA of this tool's own that was lost is not replaced under members that run, either.
    own = replace(cluster, tls=EtcdTls(pki_dir=tmp_path / "lost"))
    with pytest.raises(PreflightFailed, match="copy that folder"):
        tls.authority(own, running, write=False)
    both = external_ca.load(declared(tmp_path, root, Ca("New root")))
    trusting = {m.machine: seen(cluster, {"ca.crt": root.pem}) for m in cluster.members}
    imported.require_settled(cluster, trusting, external_ca.load(declared(tmp_path, root)))
    with pytest.raises(PreflightFailed, match="invoke rotate-certs"):
        imported.require_settled(cluster, trusting, both)


def test_members_that_are_cut_off_heal_and_only_another_root_needs_an_outage(
    cluster: EtcdCluster, root: Ca, key: Key, tmp_path: Path
) -> None:
    over = {"peer.crt": root.sign(key.csr, days=-1), "peer.key": b"key", "ca.crt": root.pem}
    facts = {m.machine: seen(cluster, over, waiting=key) for m in cluster.members}
    health = ClusterHealth(cluster, tuple(MemberHealth(m, error="x") for m in cluster.members))
    fleet = Fleet(1)

    def steps(cluster: EtcdCluster) -> list[str]:
        inventory = builders.inventory(etcd=cluster)
        plan = rotate_certs.leaves(
            Etcd(inventory.etcd, fleet),
            EtcdState(None, facts, health),
            cluster.members,
            write=True,
        )
        return [s.title for s in plan.steps]

    def signed(cluster: EtcdCluster, ca: Ca) -> EtcdCluster:
        folder = external_ca.load(cluster).folder
        folder.mkdir(parents=True, exist_ok=True)
        for m in cluster.members:
            pem = ca.sign(Key(m.address, key.key).csr)
            (folder / f"{m.name}-peer.crt").write_bytes(pem)
        return cluster

    with pytest.raises(PreflightFailed, match="certificates of the external CA are missing"):
        steps(cluster)
    healed = [f"renew infra{i}: its certificate has expired" for i in (1, 2, 3)]
    assert steps(signed(cluster, root)) == healed
    # The root that members trust stays for the healing; then both are trusted, one by one.
    new = Ca("New root")
    both = declared(tmp_path, root, new)
    trusting = [f"infra{i} trusts the CAs of {both.tls.ca_bundle}" for i in (1, 2, 3)]
    assert not rotate_certs.needs_outage(both, EtcdState(None, facts, health))
    assert steps(both) == [*healed, *trusting]
    signed(both, new)
    other = declared(tmp_path, new)
    assert rotate_certs.needs_outage(other, EtcdState(None, facts, health))
    assert steps(other) == [
        "OUTAGE: all members get the CA and new certificates, and restart together"
    ]


@pytest.fixture
def inventory(tmp_path: Path, root: Ca) -> Inventory:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    cluster = declared(tmp_path, root, client=True, plain_client_port=2378)
    member = builders.member(1, peer_tls=True, client_tls=True)
    return builders.inventory(etcd=replace(cluster, members=(member,)))


def exported(inventory: Inventory, folder: Path, *, every: bool = False) -> int:
    """How much export-csrs has changed, with this machine as the host."""
    fleet = hosts.LocalFleet(folder.parent)
    plan = csr_exchange.export(inventory, fleet, inventory.etcd.members, folder, every=every)
    plans.apply(plan, fleet)
    return plan.changed


def imported_from(inventory: Inventory, folder: Path) -> int:
    plan = csr_exchange.import_(inventory, folder)
    plans.apply(plan, hosts.LocalFleet(folder.parent))
    return plan.changed


@pytest.mark.process
def test_requests_out_certificates_in(inventory: Inventory, tmp_path: Path, issuing: Ca) -> None:
    folder = tmp_path / "requests"
    with pytest.raises(UsageError, match="the folder is one that export-csrs has made"):
        csr_exchange.import_(inventory, folder)
    assert exported(inventory, folder) == 4
    request = x509.load_pem_x509_csr((folder / "infra1-peer.csr").read_bytes())
    asked = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ADDRESS in map(str, asked.get_values_for_type(x509.IPAddress))
    assert exported(inventory, folder) == 0
    everything = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"PRIVATE KEY" not in everything
    key = Path(layout.pki_dir(inventory.etcd)) / "peer.key.new"
    assert key.stat().st_mode & 0o777 == 0o600

    def refused(*texts: str) -> None:
        with pytest.raises(UsageError, match="nothing was imported") as caught:
            csr_exchange.import_(inventory, folder)
        said = [str(p) for p in caught.value.problems]
        assert len(said) == len(texts)
        for text in texts:
            assert any(text in one for one in said), said

    refused("infra1-peer.crt: is missing", "infra1-server.crt: is", "alluxio-provision.crt: is")
    issuing.sign_all(folder)
    good = (folder / "infra1-server.crt").read_bytes()
    shutil.copy(folder / "infra1-peer.crt", folder / "infra1-server.crt")
    (folder / "alluxio-provision.crt").write_bytes(
        Ca("Foreign").sign((folder / "alluxio-provision.csr").read_bytes())
    )
    refused("it is not for the key of infra1-server.csr", "(issuer: CN=Foreign)")
    assert not external_ca.load(inventory.etcd).folder.exists()

    issuing.sign_all(folder)
    assert imported_from(inventory, folder) == 3
    (folder / "infra1-server.crt").write_bytes(good)
    assert imported_from(inventory, folder) == 1
    assert imported_from(inventory, folder) == 0
    # This tool's own is used at once when there was none before, its key no more waiting.
    own = imported.own_pair(inventory.etcd)
    assert x509.load_pem_x509_certificate(own.cert_pem).issuer == issuing.name
    assert not imported.own_key(inventory.etcd).exists()
    assert imported.own_pair(inventory.etcd) == own


@pytest.mark.process
def test_this_tool_s_own_is_renewed_when_told_or_when_it_has_expired(
    inventory: Inventory, tmp_path: Path, issuing: Ca
) -> None:
    cluster, folder = inventory.etcd, tmp_path / "requests"

    def signed(days: float) -> None:
        exported(inventory, folder, every=True)
        issuing.sign_all(folder, days)
        imported_from(inventory, folder)

    def expired(path: Path) -> bytes:
        key = keyfiles.load_key(path)
        request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
        return issuing.sign(request.public_bytes(external_ca.PEM), -1)

    signed(90)
    first = imported.own_pair(cluster)
    signed(90)
    # Members that do not trust a new CA yet would refuse it.
    assert imported.own_pair(cluster) == first
    [step] = imported.own_step(cluster)
    step.calls[0].do()
    second = imported.own_pair(cluster)
    assert second != first
    assert imported.own_step(cluster) == []
    path = own_ca.home(cluster.tls.pki_dir, cluster.name) / own_ca.CLIENT
    old = issuing.sign((folder / "alluxio-provision.csr").read_bytes(), -1)
    path.write_bytes(second.key_pem + old)
    with pytest.raises(UsageError, match="has expired"):
        imported.own_pair(cluster)
    assert [p.severity for p in imported.own_problems(cluster)] == ["error"]
    signed(20)
    assert imported.own_pair(cluster) not in (first, second)
    assert [p.severity for p in imported.own_problems(cluster)] == ["warning"]
    signed(90)
    imported.renew_own(cluster)
    assert imported.own_problems(cluster) == []

    # What expires while another one waits: a look uses that one, and only a step installs it.
    signed(80)
    path.write_bytes(keyfiles.own_pair(path).key_pem + expired(path))
    before = read_only.state(cluster.tls.pki_dir)
    used = imported.own_pair(cluster)
    assert imported.own_problems(cluster) == []
    assert certificates.inspect(used.cert_pem).days_left() == 79
    assert read_only.state(cluster.tls.pki_dir) == before
    [step] = imported.own_step(cluster)
    step.calls[0].do()
    assert keyfiles.own_pair(path) == used


@pytest.mark.parametrize("name", ["../../../etc/passwd", "infra9-peer", "infra1-other"])
def test_a_manifest_names_only_what_is_declared(
    name: str, inventory: Inventory, tmp_path: Path
) -> None:
    member, _, listener = name.partition("-")
    one = {"name": name, "member": member, "listener": listener, "key": "0" * 64}
    document = {"schema": csr_exchange.SCHEMA, "cluster": "c", "requests": [one]}
    (tmp_path / csr_exchange.MANIFEST).write_text(json.dumps(document))
    with pytest.raises(UsageError) as caught:
        csr_exchange.import_(inventory, tmp_path)
    assert "is not for a TLS listener" in caught.value.problems[0].what


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ("{", "Invalid JSON"),
        ('{"schema": "other", "cluster": "c", "requests": []}', "is of the schema other"),
        (
            f'{{"schema": "{csr_exchange.SCHEMA}", "cluster": "d", "requests": []}}',
            "of the cluster d",
        ),
        (f'{{"schema": "{csr_exchange.SCHEMA}", "cluster": "c"}}', "requests: Field required"),
    ],
)
def test_a_manifest_that_is_none(
    document: str, what: str, inventory: Inventory, tmp_path: Path
) -> None:
    (tmp_path / csr_exchange.MANIFEST).write_text(document)
    with pytest.raises(UsageError, match=what):
        csr_exchange.import_(inventory, tmp_path)


def test_only_with_an_external_ca(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"etcd\.tls\.ca is own"):
        csr_exchange.import_(builders.inventory(), tmp_path)
