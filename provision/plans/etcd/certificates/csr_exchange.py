"""``export-csrs`` and ``import-certs``: signing requests out, signed certificates in.

Each listener's key is made on its member's host and stays there. The export is a folder with the
requests and a JSON manifest: the purpose of each request and the digest of its key. The certificate
for ``infra0-peer.csr`` is expected as ``infra0-peer.crt`` (or ``.pem``) in the same folder. Its
intermediates follow it in the same file, or all intermediates are in ``chain.pem``. Both commands
can be run again: a key that waits for its certificate is used again, and a second import changes
nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Literal, TypedDict

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provision import bounds
from provision.dataclass import dataclass
from provision.engine.plan import Action, HostChanges, Plan, Step
from provision.errors import ChangeFailed, PreflightFailed, Problem, UsageError
from provision.etcd.member import desired, layout, routes
from provision.etcd.pki import certificates, external_ca, imported, keyfiles, own_ca
from provision.etcd.pki.external_ca import CHAIN, PEM, External
from provision.files import make_folder, read_bytes
from provision.host import gather
from provision.host.diff import Change
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Probe
from provision.host.kinds.certificates import signing_request
from provision.host.ownership import owner
from provision.host.resources import Certificate, File
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory, is_ip
from provision.ssh.session import Fleet
from provision.text import counted, printable

MANIFEST = "manifest.json"
SCHEMA: Literal["alluxio-provision/csrs/1"] = "alluxio-provision/csrs/1"
_BLOCK = re.compile(
    r"-----BEGIN CERTIFICATE REQUEST-----.+?-----END CERTIFICATE REQUEST-----\n?", re.DOTALL
)


class Request(BaseModel):
    """One request of the manifest. ``key``: SHA-256 of the public key (DER), hex."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    member: str = ""
    listener: str = ""
    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    names: tuple[str, ...] = ()


class Manifest(BaseModel):
    """The list of exported requests. ``schema`` is :data:`SCHEMA`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: str = Field(alias="schema")
    cluster: str
    requests: tuple[Request, ...]


class RequestDocument(TypedDict):
    """A request: the SHA-256 of its public key (DER), and the names that it must have."""

    name: str
    member: str
    listener: str
    key: str
    names: list[str]


class ManifestDocument(TypedDict):
    """The requests in a folder of export-csrs."""

    schema: Literal["alluxio-provision/csrs/1"]
    cluster: str
    requests: list[RequestDocument]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A request to be made. ``listener`` None: the request for this tool's own certificate."""

    name: str
    member: EtcdMember | None = None
    listener: str = ""
    names: tuple[str, ...] = ()


@dataclass(slots=True)
class _Export:
    """The wanted requests, and the requests that the hosts returned (PEM), by name."""

    cluster: EtcdCluster
    to: Path
    wanted: Sequence[_Wanted]
    answers: dict[str, bytes] = field(default_factory=dict)

    def collect(self, name: str) -> Callable[[str], str]:
        def answer(said: str) -> str:
            block = _BLOCK.search(said)
            try:
                pem = (block.group() if block else "").encode()
                external_ca.key_of_request(pem)
            except ValueError as error:
                raise ChangeFailed(
                    f"{name}: openssl there made no signing request", id="change-failed"
                ) from error
            self.answers[name] = pem
            return ""

        return answer

    def make_own(self) -> None:
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, own_ca.CLIENT_NAME)])
        request = x509.CertificateSigningRequestBuilder(subject).add_extension(
            usages, critical=False
        )
        key = keyfiles.ensure_key(imported.own_key(self.cluster))
        self.answers[own_ca.CLIENT_NAME] = request.sign(key, hashes.SHA256()).public_bytes(PEM)

    def write(self) -> None:
        requests: list[RequestDocument] = []
        try:
            make_folder(self.to, private=False)
            for w in self.wanted:
                pem = self.answers[w.name]
                keyfiles.replace_file(self.to / f"{w.name}.csr", pem, 0o644)
                requests.append(
                    {
                        "name": w.name,
                        "member": w.member.name if w.member is not None else "",
                        "listener": w.listener,
                        "key": _digest(external_ca.key_of_request(pem)),
                        "names": list(w.names),
                    }
                )
            document: ManifestDocument = {
                "schema": SCHEMA,
                "cluster": self.cluster.name,
                "requests": requests,
            }
            # The manifest comes last: a folder without a manifest is from a killed run.
            text = json.dumps(document, indent=2) + "\n"
            keyfiles.replace_file(self.to / MANIFEST, text.encode(), 0o644)
        except OSError as error:
            raise ChangeFailed(
                f"{error.filename or self.to}: {error.strerror or error}", id="file-unwritable"
            ) from error


def export(
    inventory: Inventory, fleet: Fleet, members: Sequence[EtcdMember], to: Path, *, every: bool
) -> Plan:
    """Make keys on the hosts of ``members``, and write their requests to the folder ``to``.

    ``every``: also for certificates with a long time left. Raises :class:`PreflightFailed` with
    every host that cannot be asked, has no openssl, or belongs to another cluster.
    """
    cluster = inventory.etcd
    ca = _external(cluster)
    facts = gather.require_facts(fleet, {m.machine: _probe(cluster, m) for m in members})
    facts = routes.as_peers_see(members, facts)
    wanted: list[_Wanted] = []
    hosts, problems = [], []
    made = _Export(cluster, to, wanted)
    keys: dict[str, bytes | None] = {}
    for m in members:
        seen = facts[m.machine]
        kinds = [k for k in desired.kinds(m) if every or _due(cluster, m, k, seen, ca)]
        todo = []
        for kind in kinds:
            name, names = imported.name_of(m, kind), _names(cluster, m, seen)
            wanted.append(_Wanted(name, m, kind, names))
            keys[name] = imported.waiting_key(seen, kind)
            todo.append(_ask(cluster, m, kind, names, made.collect(name)))
        if kinds:
            problems += _unfit(cluster, m, seen)
            hosts.append(HostChanges(m.name, m.machine, tuple(todo)))
    own = _own_due(cluster, ca, every=every) and len(members) == len(cluster.members)
    if own:
        wanted.append(_Wanted(own_ca.CLIENT_NAME))
        keys[own_ca.CLIENT_NAME] = imported.own_waiting_key(cluster)
    if problems:
        raise PreflightFailed("no request was made", problems, id="preflight-failed")
    if not wanted or _has_all(to, cluster, made.wanted, keys):
        return Plan("export-csrs", cluster.name)
    here = (Effect.HERE,)
    calls = [
        Action(
            f"write {counted(len(wanted), 'request')} and {MANIFEST} into {to}", made.write, here
        )
    ]
    if own:
        calls.insert(0, Action("make this tool's own key and request", made.make_own, here))
    steps = [Step("make keys and requests on the hosts", tuple(hosts))] if hosts else []
    return Plan(
        "export-csrs", cluster.name, (*steps, Step("write the requests", calls=tuple(calls)))
    )


def import_(inventory: Inventory, folder: Path) -> Plan:
    """Copy the signed certificates in ``folder`` to the place where ``deploy-etcd`` finds them.

    Raises :class:`UsageError` with every certificate that is wrong or missing.
    """
    cluster = inventory.etcd
    ca = _external(cluster)
    manifest = _manifest(folder)
    if manifest.cluster != cluster.name:
        what = f"the requests there are of the cluster {manifest.cluster}, not {cluster.name}"
        raise UsageError(f"{folder}: {printable(what, 300)}", id="file-unusable")
    more = _read(folder / CHAIN) if (folder / CHAIN).exists() else b""
    members = {m.name: m for m in cluster.members}
    problems: list[Problem] = []
    calls = []
    for request in manifest.requests:
        member = members.get(request.member)
        own = request.name == own_ca.CLIENT_NAME
        if not own and (
            member is None
            or request.listener not in desired.kinds(member)
            or request.name != imported.name_of(member, request.listener)
        ):
            what = f"is not for a TLS listener of a member of {inventory.path}"
            problems.append(
                Problem(
                    printable(request.name, 100),
                    what,
                    "export the requests again",
                    id="external-certificate-needed",
                )
            )
            continue
        names = (
            () if own or member is None else imported.must_name(cluster, member, request.listener)
        )
        path = _signed(folder, request.name)
        if path is None:
            what = f"is missing: it is the signed {request.name}.csr"
            problems.append(
                Problem(f"{folder / request.name}.crt", what, id="external-certificate-needed")
            )
            continue
        pem = _read(path)
        wrong = external_ca.faults(
            ca, pem, names, usages=("client",) if own else external_ca.BOTH, more=more
        )
        if _digest_of(pem) not in (request.key, ""):
            wrong.append(f"it is not for the key of {request.name}.csr")
        if wrong:
            problems.append(Problem(str(path), "; ".join(wrong), id="external-certificate-needed"))
            continue
        chain = b"".join(c.public_bytes(PEM) for c in ca.chain(pem, more)[:-1])
        if ca.imported(request.name) != chain:
            calls.append(_store_own(cluster, ca, chain) if own else _store(ca, request.name, chain))
    if problems:
        raise UsageError("nothing was imported", problems, id="external-certificate-needed")
    steps = [Step("import the certificates", calls=tuple(calls))] if calls else []
    return Plan("import-certs", cluster.name, tuple(steps))


def _store(ca: External, name: str, chain: bytes) -> Action:
    path = ca.folder / f"{name}.crt"

    def store() -> None:
        with keyfiles.pki_errors(path):
            keyfiles.make_private_dir(ca.folder.parent)
            keyfiles.make_private_dir(ca.folder)
            keyfiles.replace_file(path, chain, 0o644)

    info = certificates.inspect(chain)
    what = f"{path}: signed by {info.issuer}, valid until {info.not_after:%Y-%m-%d}"
    return Action(what, store, (Effect.HERE,))


def _store_own(cluster: EtcdCluster, ca: External, chain: bytes) -> Action:
    """As :func:`_store`, for this tool's own certificate. It is used at once unless there is a
    valid one: members that do not trust a new CA yet would refuse it."""
    stored = _store(ca, own_ca.CLIENT_NAME, chain)
    if imported.own_is_valid(cluster):
        return stored

    def use() -> None:
        stored.do()
        imported.renew_own(cluster)

    path = own_ca.home(cluster.tls.pki_dir, cluster.name) / own_ca.CLIENT
    return Action(f"{stored.what}; used from now on, in {path}", use, (Effect.HERE,))


def _external(cluster: EtcdCluster) -> External:
    if cluster.tls.ca != "external":
        raise UsageError(
            "etcd.tls.ca is own: this tool signs the certificates itself (deploy-etcd, "
            "rotate-certs); for another CA, set etcd.tls.ca: external and ca_bundle",
            id="command-not-applicable",
        )
    if not (cluster.tls.peer or cluster.tls.client):
        raise UsageError(
            "there are no certificates: etcd.tls.peer and etcd.tls.client are false",
            id="command-not-applicable",
        )
    return external_ca.load(cluster)


def _probe(cluster: EtcdCluster, member: EtcdMember) -> Probe:
    files = [
        Certificate(layout.certificate(cluster, k), "root", group=cluster.user)
        for k in desired.kinds(member)
    ]
    return Probe(
        resources=(File(layout.UNIT_PATH, None), *files),
        commands={**desired.key_probes(cluster, member), **routes.probe(cluster, member)},
    )


def _unfit(cluster: EtcdCluster, member: EtcdMember, facts: HostFacts) -> list[Problem]:
    """The problems that forbid to make a key on the member's host."""
    where, host = member.place, member.machine.host
    found = []
    other = owner(facts, layout.UNIT_PATH)
    if other not in (None, cluster.name):
        what = f"{host} has a member of the cluster {other}"
        remedy = "choose a different host for the member"
        found.append(Problem(where, what, remedy, id="another-clusters-host"))
    if not facts.commands.get(desired.OPENSSL, "").strip():
        what = f"{host} has no openssl, and the keys are made only on the host"
        found.append(Problem(where, what, "install openssl there", id="host-unsupported"))
    return found


def _due(
    cluster: EtcdCluster, member: EtcdMember, kind: str, facts: HostFacts, ca: External
) -> bool:
    choice = imported.choose(cluster, member, kind, facts, ca)
    if choice.problem is not None or choice.leaf is None:
        return True
    here = choice.new or desired.installed(cluster, kind, facts)
    if here is None:
        return False
    left = {r.source for r in routes.unnamed(member, facts, certificates.names(here))}
    left &= set(routes.sources(cluster, member, facts))
    return _ends(here) or (kind == "peer" and bool(left))


def _ends(pem: bytes) -> bool:
    """Whether the certificate has so little time left that ``check-nodes`` warns."""
    return certificates.inspect(pem).days_left() < certificates.RENEW_BEFORE_DAYS


def _own_due(cluster: EtcdCluster, ca: External, *, every: bool) -> bool:
    if not (cluster.tls.client and cluster.tls.client_auth):
        return False
    if every:
        return True
    if imported.own_waiting(cluster) is not None:
        return False
    try:
        own = imported.own_pair(cluster).cert_pem
    except UsageError:
        return True
    return bool(external_ca.faults(ca, own, (), usages=("client",))) or _ends(own)


def _ask(
    cluster: EtcdCluster,
    member: EtcdMember,
    kind: str,
    names: Sequence[str],
    answer: Callable[[str], str],
) -> Change:
    path = layout.certificate(cluster, kind)
    asked = [f"{'IP' if is_ip(name) else 'DNS'}:{name}" for name in names]
    return Change(
        f"make the key {path}.key.new on the host, and a request for its certificate",
        ask=signing_request(path, member.name, asked, group=cluster.user),
        answer=answer,
    )


def _names(cluster: EtcdCluster, member: EtcdMember, facts: HostFacts) -> tuple[str, ...]:
    names = (*desired.new_sans(cluster, member, facts), "::1")
    return tuple(sorted({certificates.canonical(name) for name in names}))


def _has_all(
    folder: Path, cluster: EtcdCluster, wanted: Sequence[_Wanted], keys: dict[str, bytes | None]
) -> bool:
    """Whether the folder has every wanted request already, each for the key that waits."""
    if not (folder / MANIFEST).exists():
        return False
    manifest = _manifest(folder)
    there = {r.name: r for r in manifest.requests if (folder / f"{r.name}.csr").exists()}
    return manifest.cluster == cluster.name and all(
        w.name in there
        and there[w.name].names == w.names
        and there[w.name].key == _digest(keys[w.name] or b"")
        for w in wanted
    )


def _manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.exists():
        raise UsageError(
            f"{path} is missing: the folder is one that export-csrs has made", id="file-unusable"
        )
    try:
        found = Manifest.model_validate_json(_read(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{path}: {printable(at + ': ' + first['msg'], 300)}", id="file-unusable"
        ) from error
    if found.format != SCHEMA:
        raise UsageError(
            f"{path} is of the schema {printable(found.format, 100)}, not {SCHEMA}",
            id="file-unusable",
        )
    return found


def _signed(folder: Path, name: str) -> Path | None:
    found = (folder / f"{name}{end}" for end in (".crt", ".pem", ".cer"))
    return next((path for path in found if path.exists()), None)


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, bounds.PEM)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", id="file-unusable") from error


def _digest_of(pem: bytes) -> str:
    """The digest of a certificate's key; empty when ``pem`` is no certificate (reported
    elsewhere)."""
    try:
        return _digest(external_ca.key_of(pem))
    except ValueError:
        return ""


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()
