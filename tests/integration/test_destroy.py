"""destroy: only with the cluster's name, only what is this cluster's."""

from __future__ import annotations

import pytest

from .lab import Lab

UNIT_PATH = "/etc/systemd/system/etcd.service"

pytestmark = pytest.mark.usefixtures("workers")


@pytest.mark.parametrize("options", [[], ["--yes-delete", "AlxpLa"], ["--yes-delete", "alxplab"]])
def test_without_the_clusters_name_no_host_is_contacted(lab: Lab, options: list[str]) -> None:
    before = lab.sessions()
    lab.invoke("destroy", None, *options).expect(
        2, f"not destroyed: the cluster is called {lab.name}"
    )
    assert lab.sessions() == before


def test_a_dry_run_shows_what_would_go(lab: Lab) -> None:
    before = lab.snapshot()
    lab.invoke("destroy", None, "--dry-run").expect(0, "delete /var/lib/etcd/member", "nothing was")
    assert lab.snapshot() == before


def test_another_clusters_host_is_left_alone(lab: Lab) -> None:
    foreign = lab.etcd[2]
    foreign.run(f"sed -i s/Cluster={lab.name}/Cluster=Other/ {UNIT_PATH}; systemctl daemon-reload")
    try:
        before = lab.snapshot()[foreign.name]
        gone = lab.invoke("destroy", None, "--yes-delete", lab.name).expect(0, "changed")
        assert foreign.address not in gone.stdout
        assert lab.snapshot()[foreign.name] == before
        assert set(lab.left_over()) == {foreign.name}
    finally:
        foreign.run(f"sed -i s/Cluster=Other/Cluster={lab.name}/ {UNIT_PATH}")
    lab.destroy()
    lab.invoke("destroy", None, "--yes-delete", lab.name).expect(0, "0 changed")
