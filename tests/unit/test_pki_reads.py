"""Looks at the folder of the CA: they read it, whatever state it is in, and write nothing there."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from provision.engine.plan import Step
from provision.errors import UsageError
from provision.etcd.cluster import reach, served_certs
from provision.etcd.cluster.handle import Etcd
from provision.etcd.pki import certificates, keyfiles, own_ca, tls
from provision.etcd.pki.certificates import Authority
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import EtcdCluster
from provision.plans.etcd.certificates import rotate_certs
from provision.ssh.session import Fleet, Stats
from tests import read_only
from tests.unit import builders
from tests.unit.test_deploy_plan import World as Deployed
from tests.unit.test_rotate import World as Rotating

LONG_AGO = certificates.now_utc() - timedelta(days=20)


def half_promoted(pki: Path) -> Authority:
    """Kill a replacement between its two renames; returns the new authority."""
    new = own_ca.begin_replacement(pki, "c").next
    assert new is not None
    home = own_ca.home(pki, "c")
    (home / own_ca.NEXT / own_ca.CA_CERTIFICATE).replace(home / own_ca.CA_CERTIFICATE)
    return new


def _expired_client(pki: Path) -> None:
    own_ca.renew_client(pki, "c", own_ca.load_ca(pki, "c"), 5, now=LONG_AGO)


def _client_of_another_ca(pki: Path) -> None:
    own_ca.renew_client(pki, "c", own_ca.ensure_ca(pki, "d"))


def _replaced(pki: Path) -> None:
    own_ca.begin_replacement(pki, "c")


def _switched(pki: Path) -> None:
    new = own_ca.begin_replacement(pki, "c").next
    assert new is not None
    own_ca.renew_client(pki, "c", new, 5, now=LONG_AGO)


def _killed_at_the_start_of_a_replacement(pki: Path) -> None:
    keyfiles.ensure_key(own_ca.home(pki, "c") / own_ca.NEXT / own_ca.CA_KEY)


def _killed_at_the_end_of_a_replacement(pki: Path) -> None:
    (own_ca.home(pki, "c") / own_ca.NEXT).mkdir()


STATES: list[Callable[[Path], object]] = [
    lambda _: None,
    _expired_client,
    _client_of_another_ca,
    _replaced,
    _switched,
    half_promoted,
    _killed_at_the_start_of_a_replacement,
    _killed_at_the_end_of_a_replacement,
]


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    own_ca.ensure_ca(tmp_path / "pki", "c")
    return tmp_path / "pki"


@pytest.fixture
def cluster(pki: Path) -> EtcdCluster:
    member = builders.member(1, peer_tls=True, client_tls=True)
    return builders.etcd(member, tls=EtcdTls(pki_dir=pki, peer=True, client=True))


def look(cluster: EtcdCluster) -> bytes:
    """Everything that a look or a dry run asks of the folder; returns this tool's certificate."""
    pki, name = cluster.tls.pki_dir, cluster.name
    own_ca.load_ca(pki, name)
    assert not own_ca.expired(pki, name)
    own_ca.preview_replacement(pki, name)
    ca = tls.authority(cluster, {}, write=False)
    tls.own_steps(cluster, ca)
    served_certs.tls_context(cluster)
    made = reach.client_tls(cluster, cluster.members[0])
    assert made is not None
    assert made.certificate is not None
    assert made.ca == own_ca.authorities(pki, name).bundle
    return made.certificate


@pytest.mark.parametrize("reached", STATES)
def test_a_look_writes_nothing(
    cluster: EtcdCluster, pki: Path, reached: Callable[[Path], object]
) -> None:
    reached(pki)
    before = read_only.state(pki)
    certificate = look(cluster)
    assert read_only.state(pki) == before
    known = own_ca.authorities(pki, "c")
    assert known.issuer(certificate) == known.signing


IMPORTS = """
from pathlib import Path
from tests.unit import builders
from tests.unit.test_pki_reads import look
from provision.inventory.model import EtcdTls
"""
SCRIPT = """
member = builders.member(1, peer_tls=True, client_tls=True)
look(builders.etcd(member, tls=EtcdTls(pki_dir=Path("pki"), peer=True, client=True)))
try:
    Path("pki/c/new").touch()
except PermissionError:
    print("read only")
"""


@pytest.mark.process
@pytest.mark.parametrize("reached", [STATES[0], _expired_client, half_promoted])
def test_a_look_needs_no_right_to_write(
    cluster: EtcdCluster, pki: Path, reached: Callable[[Path], object]
) -> None:
    reached(pki)
    assert read_only.run(pki.parent, IMPORTS, SCRIPT) == "read only\n"


def test_a_look_without_the_folder_makes_none(cluster: EtcdCluster, tmp_path: Path) -> None:
    elsewhere = replace(cluster, tls=cluster.tls.model_copy(update={"pki_dir": tmp_path / "gone"}))
    for ask in (served_certs.tls_context, tls.own_pair, tls.trusted):
        with pytest.raises(UsageError, match=r"ca.crt is missing") as caught:
            ask(elsewhere)
        assert caught.value.id == "pki-missing"
    # A plan that is only shown has a CA of its own.
    ca = tls.authority(elsewhere, {}, write=False)
    assert [s.title for s in tls.own_steps(elsewhere, ca)] == ["make this tool's own certificate"]
    assert not (tmp_path / "gone").exists()


def test_without_the_ca_s_key_only_a_certificate_that_is_there_is_used(pki: Path) -> None:
    home = own_ca.home(pki, "c")
    (home / own_ca.CA_KEY).unlink()
    with pytest.raises(UsageError, match=r"ca.crt is there without its key") as caught:
        own_ca.client_pair(pki, "c")
    assert caught.value.id == "pki-missing"
    authority = own_ca.ensure_ca(pki, "d")
    there = own_ca.renew_client(pki, "c", authority, 5, now=LONG_AGO)
    assert own_ca.client_pair(pki, "c") == there


@pytest.mark.process
def test_a_folder_that_cannot_be_read_is_an_error(pki: Path) -> None:
    imports = "from pathlib import Path\nfrom provision.etcd.pki import own_ca\n"
    script = """
os.chmod("pki/c", 0)
for ask in (own_ca.client_pair, own_ca.load_ca, own_ca.authorities, own_ca.trusted):
    try:
        ask(Path("pki"), "c")
    except own_ca.UsageError as error:
        print(error.id, error.message.partition(": ")[2])
"""
    assert read_only.run(pki.parent, imports, script) == "pki-unusable Permission denied\n" * 4


def test_a_pair_in_memory_suits_every_clock_after_the_start_of_its_authority(
    tmp_path: Path,
) -> None:
    day = timedelta(days=1)
    authority = own_ca.ensure_ca(tmp_path, "c", behind=day)
    pair = own_ca.client_pair(tmp_path, "c")
    info = certificates.inspect(pair.cert_pem)
    assert info.not_before == authority.certificate.not_valid_before_utc
    assert info.days_left() == own_ca.CONNECTION_DAYS - 1
    assert certificates.renewal_reason(pair.cert_pem, authority, (), usages=("client",)) is None


def test_one_of_half_a_promotion_signs_what_members_trust(cluster: EtcdCluster, pki: Path) -> None:
    new = half_promoted(pki)
    known = own_ca.authorities(pki, "c")
    assert known.next is None
    assert known.bundle == new.cert_pem
    assert known.signing.key.public_key() == new.certificate.public_key()
    assert own_ca.half_finished(pki, "c")
    [finish, make] = tls.own_steps(cluster, known)
    assert finish.title == "finish retiring the old CA"
    finish.calls[0].do()
    assert sorted(p.name for p in own_ca.home(pki, "c").iterdir()) == ["ca.crt", "ca.key"]
    finish.calls[0].do()
    make.calls[0].do()
    assert tls.own_steps(cluster, known) == []
    assert own_ca.load_ca(pki, "c").cert_pem == new.cert_pem


def test_a_rotation_killed_in_the_last_rename_is_finished_and_not_begun_again(
    tmp_path: Path,
) -> None:
    world = Rotating(tmp_path)
    new = half_promoted(tmp_path)
    world.files = {m.name: world.signed(m, new) for m in world.cluster.members}

    def leaves() -> list[str]:
        handle = Etcd(world.cluster, Fleet(1, Stats()))
        members = world.cluster.members
        plan = rotate_certs.leaves(handle, world.observed(), members, write=True)
        return [s.title for s in plan.steps]

    finish = "finish retiring the old CA"
    plan = world.plan()
    assert [s.title for s in plan.steps] == [finish]
    assert leaves()[0] == finish
    plan.steps[0].calls[0].do()
    assert own_ca.load_ca(tmp_path, "c").cert_pem == new.cert_pem
    assert finish not in leaves()


def test_a_replacement_after_half_a_promotion_keeps_the_key(pki: Path) -> None:
    """The CA that was promoted half-way has expired by now, and is replaced itself."""
    new = half_promoted(pki)
    after = own_ca.begin_replacement(pki, "c", now=new.certificate.not_valid_after_utc)
    assert after.current.cert_pem == new.cert_pem
    assert after.next is not None
    key = keyfiles.load_key(own_ca.home(pki, "c") / own_ca.CA_KEY)
    assert key.public_key() == new.certificate.public_key()


class TestOwnCertificate:
    """``client.pem``, which operators use with etcdctl, is written by steps of deploy-etcd."""

    def step(self, pki: Path) -> Step | None:
        declared = EtcdTls(pki_dir=pki, peer=False, client=True)
        plan = Deployed(builders.etcd(tls=declared)).plan()
        own = [s for s in plan.steps if "this tool's own certificate" in s.title]
        assert own == list(plan.steps)[-len(own) :] if own else True
        return own[0] if own else None

    def test_it_is_made_renewed_and_left(self, pki: Path) -> None:
        path = own_ca.home(pki, "c") / own_ca.CLIENT
        made = self.step(pki)
        assert made is not None
        assert made.title == "make this tool's own certificate"
        assert [c.what for c in made.calls] == [f"create {path}"]
        assert not path.exists()
        made.calls[0].do()
        assert self.step(pki) is None
        for spoil, why in (
            (_expired_client, "it expired on "),
            (_client_of_another_ca, "it was not issued by this cluster's CA"),
        ):
            spoil(pki)
            renewed = self.step(pki)
            assert renewed is not None
            assert renewed.title == "renew this tool's own certificate"
            assert renewed.calls[0].what.startswith(f"change {path}: {why}")
            renewed.calls[0].do()
            assert self.step(pki) is None

    @pytest.mark.parametrize("reached", [_expired_client, _switched])
    def test_a_renewal_in_a_rotation_keeps_the_issuer(
        self, cluster: EtcdCluster, pki: Path, reached: Callable[[Path], object]
    ) -> None:
        """The issuer of the file says whether every member trusts the new CA."""
        reached(pki)
        _replaced(pki)
        before = own_ca.authorities(pki, "c")
        [step] = tls.own_steps(cluster, before)
        step.calls[0].do()
        after = own_ca.authorities(pki, "c")
        assert after.signing.cert_pem == before.signing.cert_pem
        assert (after.signing is after.next) == (reached is _switched)


def test_the_context_has_the_pair(cluster: EtcdCluster, pki: Path, tmp_path: Path) -> None:
    """A server of this CA asks for it, and gets one although there is no file."""
    ca = own_ca.load_ca(pki, "c")
    pair = certificates.leaf(ca, "m", ["127.0.0.1"])
    served = tmp_path / "served.pem"
    served.write_bytes(pair.key_pem + pair.cert_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(served)
    server.load_verify_locations(own_ca.ca_file(pki, "c"))
    server.verify_mode = ssl.CERT_REQUIRED
    ends = [ssl.MemoryBIO() for _ in range(2)]
    context = served_certs.tls_context(cluster)
    one = context.wrap_bio(ends[0], ends[1], server_hostname="127.0.0.1")
    other = server.wrap_bio(ends[1], ends[0], server_side=True)
    for side in (one, other, one, other):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert (other.getpeercert() or {})["subject"] == ((("commonName", own_ca.CLIENT_NAME),),)
