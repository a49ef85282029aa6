"""A look at a cluster with TLS writes nothing on this machine: the CA's folder is as before."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from provision.check_nodes import collect
from provision.errors import UsageError
from provision.etcd.cluster import health, reach
from provision.etcd.pki import certificates, own_ca
from provision.inventory.resolved import EtcdCluster
from provision.ssh.session import Fleet
from tests import read_only
from tests.component.conftest import Running
from tests.unit import builders

LONG_AGO = certificates.now_utc() - timedelta(days=20)


def _missing(_: Path) -> None:
    pass


def _expired(pki: Path) -> None:
    own_ca.renew_client(pki, "test", own_ca.load_ca(pki, "test"), 5, now=LONG_AGO)


def _half_promoted(pki: Path) -> None:
    """The CA came from a replacement that was killed between its two renames."""
    home = own_ca.home(pki, "test")
    (home / own_ca.NEXT).mkdir()
    (home / own_ca.CA_KEY).rename(home / own_ca.NEXT / own_ca.CA_KEY)
    other = own_ca.home(pki, "other") / own_ca.CA_KEY
    own_ca.ensure_ca(pki, "other")
    other.rename(home / own_ca.CA_KEY)


STATES: list[Callable[[Path], None]] = [_missing, _expired, _half_promoted]


@pytest.fixture
def pki(secured: Running, tmp_path: Path) -> Path:
    """A copy of the CA's folder, as after ``deploy-etcd`` on another machine."""
    folder = tmp_path / "look" / "pki"
    shutil.copytree(own_ca.home(secured.cluster.tls.pki_dir, "test"), folder / "test")
    assert not (folder / "test" / own_ca.CLIENT).exists()
    return folder


def with_pki(running: Running, pki: Path) -> EtcdCluster:
    tls = running.cluster.tls.model_copy(update={"pki_dir": pki})
    return dataclasses.replace(running.cluster, tls=tls)


def look(cluster: EtcdCluster, fleet: Fleet) -> bool:
    """What check-nodes and status ask; whether all was well. The test's leaf ends soon."""
    checked = collect.run(builders.inventory(etcd=cluster, alluxio=None), fleet)
    seen = [checked.etcd, health.observe(cluster, fleet, certificates=True, quotas=True)]
    with health.any_client(cluster, fleet) as client:
        client.member_list()
    errors = [c.error for s in seen for m in s.members for c in m.certificates]
    return errors == [""] * 4 and all(s.all_healthy for s in seen)


@pytest.mark.parametrize("reached", STATES)
def test_a_look_leaves_the_folder_as_it_is(
    secured: Running, fleet: Fleet, pki: Path, reached: Callable[[Path], None]
) -> None:
    reached(pki)
    before = read_only.state(pki)
    assert look(with_pki(secured, pki), fleet)
    assert read_only.state(pki) == before
    assert b"rejected connection" not in secured.members["infra0"].log.read_bytes()


IMPORTS = """
import pickle
from pathlib import Path
from provision.ssh.session import Fleet
from tests.component.test_looks import look
cluster = pickle.loads(Path("cluster").read_bytes())
def well():
    with Fleet(4) as fleet:
        return look(cluster, fleet)
well()  # Python imports some modules late, and its own folder may be closed to that user
"""
SCRIPT = """
print("well" if well() else "not well")
try:
    Path("pki/test/new").touch()
except PermissionError:
    print("read only")
"""


@pytest.mark.parametrize("reached", STATES)
def test_a_look_needs_no_right_to_write(
    secured: Running, pki: Path, reached: Callable[[Path], None]
) -> None:
    reached(pki)
    (pki.parent / "cluster").write_bytes(pickle.dumps(with_pki(secured, Path("pki"))))
    assert read_only.run(pki.parent, IMPORTS, SCRIPT) == "well\nread only\n"


def test_a_look_without_the_folder_says_so_and_makes_none(
    secured: Running, fleet: Fleet, tmp_path: Path
) -> None:
    cluster = with_pki(secured, tmp_path / "gone")
    report = collect.run(builders.inventory(etcd=cluster, alluxio=None), fleet)
    [member] = report.etcd.members
    assert member.error_id == "pki-missing"
    assert "ca.crt is missing: deploy-etcd makes it" in member.error
    with (
        pytest.raises(UsageError, match=r"ca.crt is missing") as caught,
        reach.connect(cluster, fleet, cluster.members[0]),
    ):
        pass
    assert caught.value.id == "pki-missing"
    assert list(tmp_path.iterdir()) == []
