"""destroy: only with the cluster's name, only what is this cluster's."""

from __future__ import annotations

import pytest

from .lab import Lab, wait_until

UNIT_PATH = "/etc/systemd/system/etcd.service"
WORKER_UNIT = "/etc/systemd/system/alluxio-worker.service"

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


def test_one_host_is_cleaned_of_what_another_cluster_has_there(lab: Lab) -> None:
    """To an inventory of another name, every host of the lab is another cluster's."""
    other, host = lab.inventory({"cluster": "Other"}), lab.workers[1]
    before = lab.snapshot()
    lab.invoke("deploy-etcd", other, "--dry-run").expect(3, f"invoke clean-host {lab.etcd[0]}")
    lab.invoke("clean-host", other, host.name).expect(2, f"the host is called {host}")
    shown = lab.invoke("clean-host", other, host.name, "--dry-run")
    shown.expect(
        0, "which runs", "in /opt/alluxio deleted", "keep /var/lib/alluxio/worker_identity"
    )
    # This inventory's own stay, whatever is said.
    lab.invoke("clean-host", None, host.name, "--yes-clean", host.name).expect(0, "0 changed")
    assert lab.snapshot() == before

    identity = host.run("grep -v '#' /var/lib/alluxio/worker_identity")
    shown.expect(0, f"invoke forget-worker worker-{identity} --inventory OTHER.yml")
    run = lab.start("clean-host", other, host.name, "--yes-clean", host.name)
    run.wait_for(r"\[1/1\]")
    run.kill()
    for _ in range(2):  # the killed run may have had all of it done
        done = lab.invoke("clean-host", other, host.name, "--yes-clean", host.name).expect(0)
    done.expect(0, f"0 changed; nothing of another cluster is on {host}")
    assert host.run("ls /opt; ls /etc/systemd/system/alluxio-* 2>/dev/null || :") == ""
    assert host.run("grep -hv '#' /var/lib/alluxio/worker_identity.removed-*") == identity
    after = lab.snapshot()
    assert {n: s for n, s in after.items() if n != host.name} == {
        n: s for n, s in before.items() if n != host.name
    }

    def forgotten() -> bool:
        return lab.invoke("forget-worker", None, f"worker-{identity}").code == 0

    wait_until(forgotten, "forget-worker takes the registration away", 60)
    kept = "find / -xdev -name 'LOCAL.removed-*' -prune -exec rm -rf {} +"
    host.run(f"{kept}; rm -rf /var/lib/alluxio /var/log/alluxio")


def test_a_member_of_another_cluster_is_cleaned_when_it_has_left(lab: Lab) -> None:
    other, host = lab.inventory({"cluster": "Other"}), lab.etcd[1]
    command = ("clean-host", other, host.name, "--yes-clean", host.name)
    with_data = (*command, "--delete-data", host.name)
    before = lab.snapshot()
    lab.invoke(*with_data).expect(3, "which has 3 members", "[quorum-at-risk]")
    assert lab.snapshot() == before
    lab.invoke("remove-member", None, host.name).expect(0)
    lab.invoke(*with_data).expect(0, "delete the user etcd", "DELETE /var/lib/etcd/member.removed-")
    lab.invoke(*with_data).expect(0, "0 changed")
    assert host.name not in lab.left_over()
    assert host.run("getent passwd etcd || getent group etcd || :") == ""


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


def test_what_another_clusters_master_uses_stays(lab: Lab) -> None:
    """This cluster never ran on that host, and its inventory declares a worker there."""
    host = lab.workers[0]
    lab.invoke("deploy-etcd").expect(0)
    lab.invoke("start-workers", None, "--limit", host.name).expect(0)
    for path in ("/opt/alluxio/*", "/opt/java/*"):
        noted = host.run(f"cat $(ls -d {path} | grep -v current)/.alluxio-provision-cluster")
        assert noted == lab.name
    master = "/etc/systemd/system/alluxio-master.service"
    host.run(
        f"systemctl -q disable --now alluxio-worker; mv {WORKER_UNIT} {master}\n"
        f"sed -i 's/Cluster={lab.name}/Cluster=Other/' {master}; systemctl daemon-reload\n"
        "printf 'Other\\n' | tee /opt/*/*/.alluxio-provision-cluster"
    )
    there = "find /opt /var/log/alluxio | sort | sha256sum"
    try:
        for noted in ("Other", ""):  # an earlier version of this tool noted no name
            if not noted:
                host.run("rm -f /opt/*/*/.alluxio-provision-cluster")
            before = host.run(there)
            lab.invoke("destroy", None, "--yes-delete", lab.name).expect(0)
            assert host.run(there) == before
        lab.invoke("destroy", None, "--yes-delete", lab.name).expect(0, "0 changed")
        other = lab.inventory({"cluster": "Other"})
        lab.invoke("clean-host", other, host.name, "--yes-clean", host.name).expect(0)
    finally:
        host.run(f"rm -f {master}; systemctl daemon-reload")
        lab.wipe()


def test_an_etcd_that_cannot_be_asked_is_destroyed_by_name_only(lab: Lab) -> None:
    alone = lab.inventory({"alluxio": None})
    lab.invoke("deploy-etcd", alone).expect(0)
    with lab.client(lab.etcd[0]) as client:
        client.put("/ServiceDiscovery/Other/worker-1", "{}", lease=client.lease_grant(600))
    command = ("destroy", alone, "--yes-delete", lab.name)
    lab.invoke(*command).expect(3, "[other-clusters-live]")
    word = ("--other-clusters-unknown", lab.name)
    lab.invoke(*command, *word).expect(3, "[other-clusters-live]")
    lab.on(lab.etcd[1:], "systemctl stop etcd")
    before = lab.snapshot()
    done = lab.invoke(*command)
    done.expect(3, "by the data of etcd0 there are other clusters: Other (1 live worker)")
    done.expect(3, "[other-clusters-unknown]")
    lab.invoke(*command, "--dry-run").expect(3, "[other-clusters-unknown]")
    lab.invoke(*command, word[0], "Other").expect(2, "names the cluster, AlxpLab")
    lab.etcd[0].run("systemctl stop etcd")
    lab.invoke(*command).expect(3, "no member could be asked for them")
    assert {n: s for n, s in lab.snapshot().items() if n != "etcd0"} == {
        n: s for n, s in before.items() if n != "etcd0"
    }
    run = lab.start(*command, *word)
    run.wait_for(r"\[1/1\]")
    run.kill()
    lab.invoke(*command, *word).expect(0)
    assert lab.left_over() == {}
    lab.invoke(*command).expect(0, "0 changed")
