"""A folder that a link leads elsewhere: refused where its service, or root, could not use it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.etcd.member import desired, layout
from provision.host import gather, links, safely
from provision.host.facts import Probe, Way
from provision.host.resources import Directory, File, Resource
from provision.inventory.resolved import Machine
from tests.unit import builders, hosts

HERE = Machine("here", where="inventory.yml:3")


def member(data_dir: str) -> tuple[Resource, ...]:
    one = replace(builders.member(1), data_dir=data_dir)
    return desired.resources(builders.etcd(one), one, hosts.TARBALL, None, None)


@pytest.mark.parametrize(
    ("real", "refused", "said"),
    [
        ("/data/etcd", "", []),
        ("/mnt/d1/etcd", "", []),
        ("/srv/home/etcd", "", []),
        ("/home/big/etcd", "", ["its unit hides /home (ProtectHome) unless the inventory names"]),
        ("/tmp/big/etcd", "/data: data is a link, and x", ["that is in /tmp, which the system"]),
        ("/root/etcd", "", ["that is in /root, which belongs to the system"]),
        ("/mnt/ops/etcd", "/data: data is a link, and others", ["data is a link, and others"]),
        ("", "readlink: no", []),
    ],
)
def test_where_it_leads(real: str, refused: str, said: list[str]) -> None:
    found = links.judge("/data/etcd", f"{real}\n{refused}", "here", hides_home=True)
    start = f"/data/etcd leads to {real} there: "
    assert [p.what[: len(start + one)] for p, one in zip(found, said, strict=True)] == [
        start + one for one in said
    ]
    assert {p.id for p in found} <= {"path-in-the-way"}


def test_a_home_is_hidden_only_by_a_unit_that_hides_it() -> None:
    assert links.judge("/data/p", "/home/p\n", "here", hides_home=False) == []
    unit = Probe(resources=member("/data/etcd"))
    assert links._hides_home(unit)
    assert not links._hides_home(Probe(resources=member("/home/etcd")))


class TestLook:
    @pytest.fixture
    def fleet(self, tmp_path: Path) -> hosts.LocalFleet:
        return hosts.LocalFleet(tmp_path / "hosts")

    def found(self, fleet: hosts.LocalFleet, folder: Path, *more: Resource) -> list[str]:
        (folder / "hosts").mkdir(exist_ok=True)
        own = Directory(f"{folder}/data/etcd", "etcd", 0o700)
        probes = {HERE: Probe(resources=(own, *more))}
        facts, _ = gather.gather_facts(fleet, probes)
        return [p.what for p in links.problems(fleet, "c", probes, facts)]

    @pytest.mark.process
    @pytest.mark.skipif(os.getuid() != 0, reason="only root goes through links")
    def test_a_link_that_others_could_have_made(
        self, fleet: hosts.LocalFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(links, "refusal", lambda path: "")  # tests are in /tmp
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        (tmp_path / "data").symlink_to(tmp_path / "open")
        (what,) = self.found(fleet, tmp_path)
        assert what == (
            f"{tmp_path}/data/etcd leads to {tmp_path}/open/etcd there: data is a link, and others "
            "than root could have made it"
        )

    @pytest.mark.process
    def test_hosts_are_asked_again_only_for_a_link(
        self, fleet: hosts.LocalFleet, tmp_path: Path
    ) -> None:
        assert self.found(fleet, tmp_path) == []
        assert len(fleet.local[HERE].asked) == 1
        (tmp_path / "data").symlink_to(tmp_path / "none")
        (what,) = self.found(fleet, tmp_path)
        assert f"leads to {tmp_path}/none/etcd there" in what
        assert len(fleet.local[HERE].asked) == 3


def test_a_folder_that_the_clusters_unit_names_is_in_use() -> None:
    cluster = builders.etcd(builders.member(1))
    probe = Probe(resources=[*member("/data/etcd"), File(layout.UNIT_PATH, None)])
    ways = {"/data": Way("link", 0, 0o777)}
    before = replace(hosts.facts(), ways=ways)
    assert links._behind_a_link(cluster.name, probe, before) == ["/data/etcd"]
    text = f"X-Alluxio-Provision-Cluster={cluster.name}\nReadWritePaths=/data/etcd\n"
    after = replace(before, paths={layout.UNIT_PATH: hosts.text(text)})
    assert links._behind_a_link(cluster.name, probe, after) == []


@pytest.mark.process
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a link there")
def test_a_link_directly_below_the_root_that_leads_nowhere(tmp_path: Path) -> None:
    link = Path("/", f"{tmp_path.parent.name}-nowhere")
    link.symlink_to("/nowhere")
    try:
        script = f"{safely.FUNCTIONS}\n{links._look(f'{link}/etcd')}; pwd"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=20)
    finally:
        link.unlink()
    assert (done.stdout, done.stderr) == ("/nowhere/etcd\n/\n", "")
