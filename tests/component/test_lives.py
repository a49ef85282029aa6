"""Upgrades of clusters with a past: what the tool itself, or an operator, had made of them before.

Each life goes from 3.4 to 3.7 on real etcd processes. Before every hop that happens to it again
what it is named for; after every hop all that must hold is looked at (:meth:`lives.Life.check`).
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from provision.errors import PreflightFailed, Unhealthy
from provision.etcd.api.errors import EtcdError, EtcdRefused
from provision.etcd.cluster import gates, reconfigure
from provision.inventory.model import EtcdAuth, Secret
from provision.plans.etcd import before_3_6, upgrade_etcd
from tests.authority import Ca
from tests.component.lives import FORGETS, RELEASES, Ended, Life, unpack

FIRST, HOPS = RELEASES[0], RELEASES[1:]
#: Lives that go on at the same time: they mostly wait for etcd.
AT_ONCE = 5


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lives")


@pytest.fixture(scope="module")
def binaries(room: Path) -> Path:
    (room / "bin").mkdir()
    return unpack(room / "bin")


@pytest.fixture
def begin(
    room: Path, binaries: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Life]]:
    begun: list[Life] = []

    def one(release: str, count: int, *flags: str) -> Life:
        folder = room / f"{request.node.name[:40]}-{len(begun)}"
        begun.append(Life(folder, binaries, release, count, flags))
        return begun[-1]

    yield one
    for life in begun:
        life.end()


# What happens before each hop. ``stage`` counts them from 0.


def grown(life: Life, stage: int) -> None:
    for _ in range(2 if stage == 0 else 1):
        life.grow()


def shrunk(life: Life, stage: int) -> None:
    """The leader goes."""
    leader = life.look().leader
    assert leader is not None
    life.shrink(leader)


def replaced(life: Life, stage: int) -> None:
    name = life.cluster.members[stage].name
    life.shrink(name, dead=True)
    life.grow(name)


def renamed(life: Life, stage: int) -> None:
    """A member under another name is another member on the same host."""
    life.grow(f"other{stage}")
    life.shrink(life.cluster.members[0].name)


def moved(life: Life, stage: int) -> None:
    life.move(life.cluster.members[stage % 3].name)


def restored(life: Life, stage: int) -> None:
    life.restore()


def recovered(life: Life, stage: int) -> None:
    life.recover()


def with_auth(life: Life, stage: int) -> None:
    with life.etcd.any() as client:
        if stage:
            client.user_add(f"user{stage}", "password")
            return
        client.user_add("root", "secret")
        client.role_add("root")
        client.user_grant_role("root", "root")
        client.auth_enable()
    password = life.folder / "password"
    password.write_text("secret\n")
    auth = EtcdAuth(enabled=True, root_password=Secret(file=password))
    life.cluster = replace(life.cluster, auth=auth)


def with_peer_tls(life: Life, stage: int) -> None:
    """As ``deploy-etcd`` turns it on: every member has the files, then one URL after another."""
    if stage:
        return
    _make_certificate(life.folder)
    files = ["cert-file=peer.crt", "key-file=peer.key", "trusted-ca-file=ca.crt"]
    flags = [f"--peer-{name}={life.folder / value}" for name, _, value in map(_parted, files)]
    for name, process in life.processes.items():
        process.flags += [*flags, "--peer-client-cert-auth"]
        life.restart(name)
        life.wait_healthy()
    for m in life.cluster.members:
        number = next(r.id for r in life.look().registered if r.name == m.name)
        others = [o for o in life.cluster.members if o.name != m.name]
        secure = replace(m, peer_tls=True)
        life.become(secure)
        reconfigure.update(life.etcd, secure, number, others)
        life.restart(m.name)
        life.wait_healthy()


def with_alarms(life: Life, stage: int) -> None:
    """NOSPACE is raised, stops the upgrade, and is disarmed when its cause is gone."""
    name = life.cluster.members[0].name
    life.restart(name, "", "--quota-backend-bytes", "1")
    with life.etcd.member(life.cluster.members[0]) as client:
        with pytest.raises(EtcdRefused, match="space exceeded"):
            client.put("/filled", "x" * 4096)
        assert [a.kind for a in client.alarms()] == ["NOSPACE"]
    gate = next(s.before for s in life.plan(HOPS[stage]) if s.before is not None and s.hosts)
    within, upgrade_etcd.READY_WITHIN = upgrade_etcd.READY_WITHIN, 0.5
    try:
        with pytest.raises(Unhealthy, match="alarm NOSPACE is raised"):
            gate.check()
    finally:
        upgrade_etcd.READY_WITHIN = within
    life.restart(name)
    with life.etcd.any() as client:
        for alarm in client.alarms():
            client.disarm(alarm)
        assert client.alarms() == []
    gates.all_healthy(life.etcd).check()


def compacted(life: Life, stage: int) -> None:
    """From now on keys are deleted, and the log is compacted at the deletion, all the time: etcd's
    own check at start compares the members' data whatever release each has."""
    if stage:
        return

    def run() -> None:
        while not life.over.wait(0.7):
            with suppress(EtcdError), life.etcd.any() as client:
                client.put("/gone", "x")
                client.delete("/gone")
                client.compact(client.status().revision)

    life.beside(run)


@dataclass(frozen=True)
class Past:
    """``count`` members of the release ``first``; ``happens`` before every release of ``hops``."""

    happens: Callable[[Life, int], None]
    count: int = 3
    first: str = FIRST
    hops: tuple[str, ...] = HOPS


LIVES = {
    "grown": Past(grown, 1),
    "shrunk": Past(shrunk, 5),
    "replaced": Past(replaced),
    "renamed": Past(renamed),
    "moved": Past(moved),
    "restored": Past(restored),
    "recovered": Past(recovered),
    "auth": Past(with_auth),
    "peer-tls": Past(with_peer_tls),
    "alarms": Past(with_alarms),
    "compacted": Past(compacted),
    "compacted on 3.5.19": Past(compacted, 3, FORGETS, HOPS[1:]),
    # Where promotions were forgotten, and v2 requests are in every log.
    "grown on 3.5.19, all the way at once": Past(grown, 1, FORGETS, HOPS[-1:]),
    "replaced on 3.5.19": Past(replaced, 3, FORGETS, HOPS[1:]),
    "renamed on 3.5.19": Past(renamed, 3, FORGETS, HOPS[1:]),
    "recovered on 3.5.19": Past(recovered, 3, FORGETS, HOPS[1:]),
}


@pytest.fixture(scope="module")
def lived(
    room: Path, binaries: Path, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[dict[str, float]]]]:
    """The lives that are asked for, some at a time. Each ends with the seconds of its hops, or its
    failure."""
    stop = threading.Event()
    asked = [i.callspec.params.get("name") for i in request.session.items if hasattr(i, "callspec")]

    def live(name: str) -> dict[str, float]:
        past, seconds = LIVES[name], {}
        life = Life(
            room / name.replace(", ", "-").replace(" ", "-"), binaries, past.first, past.count
        )
        try:
            for stage, release in enumerate(past.hops):
                assert not stop.is_set()
                started = time.monotonic()
                past.happens(life, stage)
                life.check(life.release)
                between = time.monotonic()
                life.upgrade(release)
                life.check(release)
                seconds[release] = time.monotonic() - between
                seconds[f"before {release}"] = between - started
            return seconds
        finally:
            life.end()

    with ThreadPoolExecutor(AT_ONCE, "life") as pool:
        yield {name: pool.submit(live, name) for name in LIVES if name in asked}
        stop.set()


@pytest.mark.parametrize("name", LIVES)
def test_a_life_goes_up_to_3_7(name: str, lived: dict[str, Future[dict[str, float]]]) -> None:
    print(json.dumps({k: round(v, 1) for k, v in lived[name].result().items()}))


@pytest.mark.parametrize("release", ["3.4.23", FORGETS, "3.5.35", "3.6.16", "3.7.3"])
def test_all_have_what_the_survivors_database_has(begin: Callable[..., Life], release: str) -> None:
    """3.4 drops it from the log, so that members that join would not have it."""
    life = begin(release, 3)
    life.write()
    life.recover(after=1)
    life.check(release)


# What a release note warns of, first shown to happen and then to be prevented.


def test_promotions_that_3_5_19_forgot_stop_3_6_unless_all_are_restarted_once_more(
    begin: Callable[..., Life],
) -> None:
    life = begin(FORGETS, 1)
    life.grow()
    life.grow()
    life.roll("3.5.35", "infra1", "infra2", "infra0")
    # 3.5 answers from the v2 store.
    assert before_3_6.false_learners(life.look()) == []
    with pytest.raises(Ended, match="too many learner members in cluster"):
        life.restart("infra0", "3.6.16")
    # The remedy of the refusal: back, and again.
    life.restart("infra0", "3.5.35")
    life.wait_healthy()
    life.upgrade("3.6.16")
    life.check("3.6.16")


def test_restarts_that_were_made_are_not_made_again(begin: Callable[..., Life]) -> None:
    life = begin("3.5.35", 3)
    steps = life.plan("3.6.16")
    again = [s.title for s in steps if s.title.endswith("to repair its lists")]
    assert len(again) == 3
    first = next(i for i, s in enumerate(steps) if s.title.startswith("record that"))
    life.carry_out(steps[: first + 1])  # and then the run was killed
    steps = life.plan("3.6.16")
    left = [s.title for s in steps if s.title.endswith("to repair its lists")]
    assert len(left) == 2
    assert set(left) < set(again)
    # One that was replaced since has another id, and so no note.
    done = next(iter(life.notes))
    life.shrink(done, dead=True)
    life.grow(done)
    assert len([s for s in life.plan("3.6.16") if "record that" in s.title]) == 3


def test_3_7_does_not_read_what_3_5_has_logged(begin: Callable[..., Life]) -> None:
    life = begin("3.5.35", 1)
    life.upgrade("3.6.16")
    name = life.cluster.members[0].name
    with pytest.raises(Ended, match="unmarshal should never fail"):
        life.restart(name, "3.7.3")
    life.restart(name, "3.6.16")
    life.wait_healthy()
    life.upgrade("3.7.3")
    life.check("3.7.3")


def test_no_snapshot_is_asked_of_a_cluster_that_began_with_3_6(begin: Callable[..., Life]) -> None:
    life = begin("3.6.16", 1)
    assert not [s for s in life.plan("3.7.3") if "snapshot" in s.title]


def _v2(life: Life, method: str, path: str, value: str = "") -> str:
    url = f"{life.cluster.members[0].client_url}/v2/keys{path}"
    request = urllib.request.Request(url, value.encode() or None, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def test_v2_data_is_found_before_3_6_and_can_be_removed(begin: Callable[..., Life]) -> None:
    life = begin(FIRST, 1, "--enable-v2")
    name = life.cluster.members[0].name
    process = life.processes[name]
    _v2(life, "PUT", "/old", "value=x")
    process.flags.remove("--enable-v2")
    # From 3.4, 3.5's etcdutl looks before any member is touched.
    before = life.look().releases
    with pytest.raises(PreflightFailed, match="may not start with") as refused:
        life.upgrade("3.6.16")
    assert [p.id for p in refused.value.problems] == ["etcd-v2-data"]
    assert "detected custom v2 content in WAL records" in refused.value.problems[0].what
    assert life.look().releases == before
    # On 3.5 it is known while the plan is made.
    life.upgrade("3.5.35")
    with pytest.raises(PreflightFailed) as refused:
        life.plan("3.6.16")
    assert [p.id for p in refused.value.problems] == ["etcd-v2-data"]
    with pytest.raises(Ended, match="detected disallowed v2 WAL"):
        life.restart(name, "3.6.16")
    # What the page says.
    life.restart(name, "3.5.35", "--enable-v2", "--snapshot-count", "1")
    life.wait_healthy()
    assert "old" in _v2(life, "GET", "/")
    _v2(life, "DELETE", "/old?recursive=true")
    life.write()
    life.restart(name, "3.5.35")
    life.wait_healthy()
    life.upgrade("3.6.16")
    life.check("3.6.16")


def _parted(text: str) -> tuple[str, str, str]:
    return text.partition("=")


def _make_certificate(where: Path) -> None:
    from ipaddress import ip_address

    ca, key = Ca("peers"), ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = ca.issue(subject, key.public_key(), 2, [names])
    pem = serialization.Encoding.PEM
    (where / "ca.crt").write_bytes(ca.pem)
    (where / "peer.crt").write_bytes(made.public_bytes(pem))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (where / "peer.key").write_bytes(key.private_bytes(pem, *private))
