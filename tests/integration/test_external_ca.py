"""Certificates that a CA elsewhere signs: the first deploy, their renewal, another CA."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.authority import Ca

from .lab import Done, Lab
from .writes import writing

PLAIN = 2378

pytestmark = pytest.mark.usefixtures("clean")


class Site:
    """An inventory with an external CA, and the folder in which requests go to it."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.bundle = folder / "bundle.pem"
        tls = {
            "ca": "external",
            "ca_bundle": str(self.bundle),
            "client": True,
            "plain_client_port": PLAIN,
            "pki_dir": str(folder / "pki"),
        }
        self.inventory = lab.inventory({"etcd": {"tls": tls}})
        self.root = Ca("Site Root")
        self.bundle.write_bytes(self.root.pem)

    def invoke(self, task: str, *options: str) -> Done:
        return self.lab.invoke(task, self.inventory, *options)

    def export(self, name: str, *options: str) -> Path:
        folder = self.folder / name
        self.invoke("export-csrs", str(folder), *options).expect(0, "let your CA sign them")
        return folder


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(lab, tmp_path_factory.mktemp("site"))


def test_a_first_deploy_by_an_intermediate(lab: Lab, site: Site) -> None:
    site.invoke("deploy-etcd").expect(
        3, "etcd1 at ", "the peer certificate is missing (invoke export-csrs DIR", "nothing was"
    )
    folder = site.export("first")
    site.invoke("export-csrs", str(folder)).expect(0, "0 changed")
    assert not any(b"PRIVATE KEY" in path.read_bytes() for path in folder.iterdir())
    # check-nodes warns from 30 days before the end.
    Ca("Site Issuing", site.root).sign_all(folder, days=20)
    request = folder / "etcd1-peer.csr"
    good = request.with_suffix(".crt").read_bytes()
    request.with_suffix(".crt").write_bytes(Ca("Foreign").sign(request.read_bytes()))
    site.invoke("import-certs", str(folder)).expect(2, "no chain leads", "nothing was imported")
    request.with_suffix(".crt").write_bytes(good)
    site.invoke("import-certs", str(folder)).expect(0, "7 changed")
    site.invoke("deploy-etcd").expect(0, "signed by CN=Site Issuing")
    site.invoke("deploy-etcd").expect(0, "0 changed")
    there = lab.etcd[1].run("cd /etc/etcd/pki; stat -c '%n %U %a' *.key; ls *.new || :")
    assert there.splitlines() == ["peer.key root 640", "server.key root 640"]
    seen = site.invoke("check-nodes", "--format", "json").json
    days = [c["days_left"] for m in seen["etcd"]["members"] for c in m["certificates"]]
    assert days == [19] * 6
    warned = [p["what"] for p in seen["problems"] if p["where"] == "etcd member etcd1"]
    own = [p["what"] for p in seen["problems"] if p["where"] == "this tool's own certificate"]
    assert own[0].startswith("expires in 19 days")
    assert [what[: what.index(" in ")] for what in warned] == [
        "client certificate expires",
        "peer certificate expires",
    ]


def test_another_ca_follows_under_a_writer(lab: Lab, site: Site) -> None:
    new = Ca("New Root")
    site.bundle.write_bytes(new.pem)
    site.invoke("deploy-etcd").expect(3, "keep the old CA in etcd.tls.ca_bundle")
    site.bundle.write_bytes(site.root.pem + new.pem)
    folder = site.export("second", "--all")
    new.sign_all(folder)
    site.invoke("import-certs", str(folder)).expect(0, "7 changed")
    with writing(lab.etcd, "/external-ca/", PLAIN):
        # Killed between a member's new trust and the others': what is left is done.
        run = lab.start("rotate-certs", site.inventory)
        run.wait_for("trusts the CAs of")
        run.wait_for("waiting: every member")
        run.kill()
        site.invoke("rotate-certs").expect(0, "shows the new certificates")
        site.invoke("rotate-certs").expect(0, "0 changed")
        site.bundle.write_bytes(new.pem)
        site.invoke("deploy-etcd").expect(0, "6 changed")
    assert {host.read("/etc/etcd/pki/ca.crt") for host in lab.etcd} == {new.pem.decode().strip()}
    seen = site.invoke("check-nodes", "--format", "json").json
    shown = [c for m in seen["etcd"]["members"] for c in m["certificates"]]
    assert [(c["days_left"], c["error"]) for c in shown] == [(89, None)] * 6
