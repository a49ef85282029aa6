from __future__ import annotations

import os
import ssl
import stat
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from provision.errors import UsageError
from provision.etcd.pki import certificates, own_ca
from provision.etcd.pki.certificates import Authority

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
SANS = ["10.0.0.1", "fd00::1", "Infra0.example.com"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return own_ca.ensure_ca(tmp_path_factory.mktemp("pki"), "c", 3650, now=NOW)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_authority_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        own_ca.ensure_ca(tmp_path / "new" / "pki", "c")
    finally:
        os.umask(before)
    home = own_ca.home(tmp_path / "new" / "pki", "c")
    assert mode(home) == 0o700
    assert {p.name: mode(p) for p in home.iterdir()} == {"ca.crt": 0o644, "ca.key": 0o600}


def test_the_authority_is_made_once(tmp_path: Path) -> None:
    first = own_ca.ensure_ca(tmp_path, "c", now=NOW)
    again = own_ca.ensure_ca(tmp_path, "c", now=NOW + timedelta(days=9))
    assert again.cert_pem == first.cert_pem
    assert again.cert_pem == own_ca.ca_file(tmp_path, "c").read_bytes()
    assert own_ca.ensure_ca(tmp_path, "d").cert_pem != first.cert_pem


def test_certificates_begin_an_hour_before_the_earliest_clock(tmp_path: Path) -> None:
    day = timedelta(days=1)
    own_ca.ensure_ca(tmp_path, "c", now=NOW, behind=day)
    known = own_ca.begin_replacement(tmp_path, "c", now=NOW, behind=day)
    assert known.next is not None
    made = [a.cert_pem for a in known.all]
    made += [certificates.leaf(a, "infra0", SANS, now=NOW).cert_pem for a in known.all]
    made.append(own_ca.renew_client(tmp_path, "c", known.signing, now=NOW).cert_pem)
    begin = NOW - day - timedelta(hours=1)
    assert [certificates.inspect(pem).not_before for pem in made] == [begin] * 5
    preview = own_ca.preview_replacement(tmp_path, "c", behind=day).next
    assert preview is not None
    assert preview.behind == day
    # The authority is kept, and what it signs later suits the clocks of that time.
    later = own_ca.authorities(tmp_path, "c", now=NOW).current
    begin = certificates.inspect(certificates.leaf(later, "x", (), now=NOW).cert_pem).not_before
    assert begin == NOW - timedelta(hours=1)


def test_an_authority_of_a_clock_that_was_ahead_is_refused(tmp_path: Path) -> None:
    """Every member would refuse its certificates until then."""
    own_ca.ensure_ca(tmp_path, "c", now=NOW + timedelta(days=1))
    with pytest.raises(UsageError, match=r"ca.crt is valid only from 2026-01-01 23:00 UTC"):
        own_ca.load_ca(tmp_path, "c", now=NOW)


def test_what_the_authority_says(authority: Authority) -> None:
    info = certificates.inspect(authority.cert_pem)
    assert info.subject == info.issuer == "CN=c etcd CA"
    assert info.not_after == NOW + timedelta(days=3650)
    assert info.days_left(NOW) == 3650
    constraints = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert "PRIVATE" not in repr(authority)


def test_a_run_killed_after_the_key_is_continued(tmp_path: Path) -> None:
    own_ca.ensure_ca(tmp_path, "c")
    home = own_ca.home(tmp_path, "c")
    key = (home / "ca.key").read_bytes()
    (home / "ca.crt").unlink()
    found = own_ca.ensure_ca(tmp_path, "c")
    assert (home / "ca.key").read_bytes() == key
    assert found.certificate.public_key() == found.key.public_key()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda home: (home / "ca.key").unlink(), "without its key"),
        (lambda home: (home / "ca.key").chmod(0o640), "can be read by others: chmod 600"),
        (lambda home: (home / "ca.key").write_text("x"), "not a usable certificate or key"),
        (lambda home: (home / "ca.crt").write_text("x"), "not a usable certificate or key"),
        (
            lambda home: (home / "ca.crt").write_bytes(
                own_ca.ensure_ca(home / "other", "c").cert_pem
            ),
            "ca.key is not the key of ca.crt",
        ),
    ],
)
def test_a_spoilt_authority_is_an_error_and_left_alone(
    tmp_path: Path, spoil: object, message: str
) -> None:
    own_ca.ensure_ca(tmp_path, "c")
    home = own_ca.home(tmp_path, "c")
    spoil(home)  # type: ignore[operator]
    before = {p.name: p.read_bytes() for p in home.iterdir() if p.is_file()}
    with pytest.raises(UsageError, match=message):
        own_ca.ensure_ca(tmp_path, "c")
    assert {p.name: p.read_bytes() for p in home.iterdir() if p.is_file()} == before


def test_an_expired_authority_is_an_error(tmp_path: Path) -> None:
    own_ca.ensure_ca(tmp_path, "c", 10, now=NOW)
    with pytest.raises(UsageError, match="expired on 2026-01-11"):
        own_ca.load_ca(tmp_path, "c", now=NOW + timedelta(days=11))


def test_a_missing_authority_says_where_it_comes_from(tmp_path: Path) -> None:
    for look in (own_ca.load_ca, own_ca.ca_file, own_ca.client_pair):
        with pytest.raises(UsageError, match=r"ca.crt is missing: deploy-etcd makes it"):
            look(tmp_path, "c")


def test_a_leaf_names_its_member(authority: Authority) -> None:
    pair = certificates.leaf(authority, "infra0", SANS, days=365, now=NOW)
    info = certificates.inspect(pair.cert_pem)
    assert info.subject == "CN=infra0"
    assert info.sans == (
        *("10.0.0.1", "127.0.0.1", "::1", "fd00::1", "infra0.example.com", "localhost"),
    )
    assert info.not_after == NOW + timedelta(days=365)
    assert info.not_before < NOW
    certificate = x509.load_pem_x509_certificate(pair.cert_pem)
    certificate.verify_directly_issued_by(authority.certificate)
    key = serialization.load_pem_private_key(pair.key_pem, None)
    assert certificate.public_key() == key.public_key()
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert "PRIVATE" not in repr(pair)


@pytest.mark.process
def test_openssl_accepts_a_leaf(authority: Authority, tmp_path: Path) -> None:
    pair = certificates.leaf(authority, "infra0", SANS, now=NOW)
    (tmp_path / "ca").write_bytes(authority.cert_pem)
    (tmp_path / "leaf").write_bytes(pair.cert_pem)
    for purpose in ("sslserver", "sslclient"):
        subprocess.run(
            [
                *("openssl", "verify", "-x509_strict", "-attime", str(int(NOW.timestamp()))),
                *("-purpose", purpose, "-verify_ip", "fd00::1", "-CAfile", "ca", "leaf"),
            ],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )


def test_a_leaf_does_not_outlive_its_authority(tmp_path: Path) -> None:
    authority = own_ca.ensure_ca(tmp_path, "c", 20, now=NOW)
    pair = certificates.leaf(authority, "m", [], days=365, now=NOW)
    assert certificates.inspect(pair.cert_pem).not_after == NOW + timedelta(days=20)
    assert certificates.renewal_reason(pair.cert_pem, authority, [], NOW) is None


def test_a_leaf_is_kept_while_it_is_good(authority: Authority, tmp_path: Path) -> None:
    pem = certificates.leaf(authority, "m", SANS, days=365, now=NOW).cert_pem

    def reason(days: float = 0.0, sans: list[str] = SANS, of: Authority = authority) -> str | None:
        return certificates.renewal_reason(pem, of, sans, NOW + timedelta(days=days))

    assert reason() is None
    assert reason(sans=["FD00:0::1"]) is None
    assert reason(334) is None
    assert reason(336) == "it expires on 2027-01-01"
    assert reason(365) == "it expired on 2027-01-01"
    assert reason(-1) == "it is valid only from 2025-12-31"
    assert reason(sans=[*SANS, "new", "10.9.9.9"]) == "it does not name 10.9.9.9, new"
    assert reason(of=own_ca.ensure_ca(tmp_path, "c", now=NOW)) == (
        "it was not issued by this cluster's CA"
    )
    assert certificates.renewal_reason(b"junk", authority, [], NOW) == "it is not a certificate"
    assert certificates.renewal_reason(authority.cert_pem, authority, [], NOW) is not None


def test_a_short_life_is_not_renewed_at_every_run(authority: Authority) -> None:
    pem = certificates.leaf(authority, "m", [], days=9, now=NOW).cert_pem
    assert certificates.renewal_reason(pem, authority, [], NOW) is None
    assert certificates.renewal_reason(pem, authority, [], NOW + timedelta(days=5)) is None
    assert (
        certificates.renewal_reason(pem, authority, [], NOW + timedelta(days=7))
        == "it expires on 2026-01-10"
    )


def test_a_leaf_of_other_usage_is_not_good(authority: Authority) -> None:
    pem = certificates.leaf(authority, "m", [], usages=("client",), now=NOW).cert_pem
    assert certificates.inspect(pem).sans == ()
    assert certificates.renewal_reason(pem, authority, [], NOW, usages=("client",)) is None
    with_names = certificates.leaf(
        authority, "m", ["localhost", "127.0.0.1", "::1"], usages=("client",)
    )
    assert (
        certificates.renewal_reason(with_names.cert_pem, authority, [])
        == "it is not for use as server"
    )


def test_a_signing_request_gives_its_key_and_nothing_else(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    wish = x509.SubjectAlternativeName([x509.DNSName("*.evil.example.com")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(wish, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificates.sign_csr(
        authority, request.public_bytes(serialization.Encoding.PEM), "m", ["10.0.0.1"], now=NOW
    )
    assert x509.load_pem_x509_certificate(pem).public_key() == key.public_key()
    assert certificates.inspect(pem).sans == ("10.0.0.1", "127.0.0.1", "::1", "localhost")
    assert certificates.renewal_reason(pem, authority, ["10.0.0.1"], NOW) is None
    constraints = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert not constraints.value.ca


def test_a_bad_signing_request_is_refused(authority: Authority) -> None:
    with pytest.raises(UsageError, match="not a certificate signing request"):
        certificates.sign_csr(authority, b"junk", "m", [])
    weak = rsa.generate_private_key(65537, 1024)
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(weak, hashes.SHA256())
    )
    with pytest.raises(UsageError, match="RSA of 2048 bits"):
        certificates.sign_csr(authority, request.public_bytes(serialization.Encoding.PEM), "m", [])


def test_the_tools_own_certificate_is_kept_while_it_is_good(tmp_path: Path) -> None:
    authority = own_ca.ensure_ca(tmp_path, "c", now=NOW)
    first = own_ca.renew_client(tmp_path, "c", authority, now=NOW)
    path = own_ca.home(tmp_path, "c") / own_ca.CLIENT
    assert mode(path) == 0o600
    assert (
        certificates.renewal_reason(first.cert_pem, authority, [], NOW, usages=("client",)) is None
    )
    assert own_ca.client_pair(tmp_path, "c", now=NOW) == first
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path)


def test_a_certificate_from_elsewhere_is_used_as_it_is(tmp_path: Path) -> None:
    authority = own_ca.ensure_ca(tmp_path, "c", now=NOW)
    home = own_ca.home(tmp_path, "c")
    pair = certificates.leaf(authority, "operator", [], usages=("client",), days=1, now=NOW)
    path = home / own_ca.CLIENT
    path.write_bytes(pair.cert_pem + authority.cert_pem + pair.key_pem)
    path.chmod(0o600)
    (home / own_ca.CA_KEY).unlink()
    found = own_ca.client_pair(tmp_path, "c", now=NOW + timedelta(days=500))
    assert found.key_pem == pair.key_pem
    assert found.cert_pem == pair.cert_pem + authority.cert_pem
    path.write_bytes(pair.cert_pem + certificates.leaf(authority, "x", [], now=NOW).key_pem)
    with pytest.raises(UsageError, match="do not belong together"):
        own_ca.client_pair(tmp_path, "c")
