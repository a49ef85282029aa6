"""A CA that is not the tool's: it signs what export-csrs has written, as a real one would."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM


class Ca:
    """A root, or what ``above`` has made an intermediate."""

    def __init__(
        self,
        name: str,
        above: Ca | None = None,
        *,
        days: int = 365,
        ca: bool = True,
        extensions: Collection[x509.ExtensionType] = (),
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.above = above
        issuer = above or self
        basic = x509.BasicConstraints(ca=ca, path_length=None)
        self.certificate = issuer.issue(
            self.name, self.key.public_key(), days, [basic, *extensions], old=timedelta(days=30)
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(_PEM)

    @property
    def chain(self) -> bytes:
        """The certificates from this one up, without the root's."""
        return b"" if self.above is None else self.pem + self.above.chain

    def issue(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        days: float,
        extensions: Collection[x509.ExtensionType],
        old: timedelta = timedelta(hours=1),
    ) -> x509.Certificate:
        now = datetime.now(timezone.utc)
        builder = x509.CertificateBuilder(
            self.name,
            subject,
            key,
            x509.random_serial_number(),
            min(now, now + timedelta(days=days)) - old,
            now + timedelta(days=days),
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def sign(
        self,
        request: bytes,
        days: float = 90,
        leave_out: Collection[type[x509.ExtensionType]] = (),
        more: Collection[x509.ExtensionType] = (),
    ) -> bytes:
        """A certificate with what the request asks for, and the intermediates behind it (PEM)."""
        csr = x509.load_pem_x509_csr(request)
        key = csr.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        asked = [e.value for e in csr.extensions if not isinstance(e.value, tuple(leave_out))]
        made = self.issue(csr.subject, key, days, [*asked, *more])
        return made.public_bytes(_PEM) + self.chain

    def sign_all(self, folder: Path, days: float = 90) -> None:
        """Every ``*.csr`` of the folder, as ``*.crt``."""
        for request in folder.glob("*.csr"):
            request.with_suffix(".crt").write_bytes(self.sign(request.read_bytes(), days))
