"""Which cluster it is, on real hosts: a member that is not of the cluster is never taken for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alarms import activate

from .lab import CLUSTER, LAB, NET, REPO, Host, Lab, connected, firewall, wait_until
from .writes import Writes, writing

NAMES = ("etcd0", "etcd1", "etcd2")
YESTERDAY = "/root/yesterday.db"
#: Writes of today that were acknowledged before a test begins.
TODAY = 21
#: Where the rows of docs/reliability.md go, when the variable asks for it.
STATES = REPO / "tests" / "faults" / "states.json"
RECORD = "ALXP_RECORD_STATES"
ETCDCTL, ETCDUTL = "/opt/etcd/current/etcdctl", "/opt/etcd/current/etcdutl"
#: No new connection to a host's SSH; another port behind a comma.
UNREACHABLE = f"INPUT -p tcp --syn -s {NET}.1 -m multiport -j REJECT --dports 22"
#: Makes the configuration what it is before the gate of the bootstrap.
SAYS_NEW = (
    "sed -i 's/^initial-cluster-state: .*/initial-cluster-state: \"new\"/' /etc/etcd/etcd.conf.yml"
)
UNIT, CONFIG = "/etc/systemd/system/etcd.service", "/etc/etcd/etcd.conf.yml"
STATE_OF = f"cat {CONFIG}; systemctl is-active etcd || :"
#: Runs a command as etcd's user, whose files the data are.
AS_ETCD = "setpriv --reuid etcd --regid etcd --init-groups"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The three hosts of members alone, clean."""
    subprocess.run([LAB, "up", *NAMES], check=True)
    with connected(NAMES, tmp_path_factory.mktemp("which")) as lab:
        lab.wipe()
        yield lab


@pytest.fixture
def inventory(three: Lab) -> Iterator[Path]:
    """A cluster of three with a snapshot of yesterday on every host, and a write of today."""
    path = three.inventory({"alluxio": None})
    three.invoke("deploy-etcd", path).expect(0)
    with three.client(three.etcd[0]) as client:
        client.put("/day", "yesterday")
    for host in three.etcd:
        host.run(f"ETCDCTL_API=3 {ETCDCTL} snapshot save {YESTERDAY} && chmod 644 {YESTERDAY}")
    with three.client(three.etcd[0]) as client:
        for n in range(TODAY - 1):
            client.put(f"/today/{n}", "acknowledged")
        client.put("/day", "today")
    yield path
    three.wipe()
    three.on(three.etcd, f"rm -f {YESTERDAY}")


def peer(host: Host) -> str:
    return f"{host.name}=https://{host.address}:2380"


def restore_by_hand(host: Host, cluster: str, *options: str) -> None:
    """etcd's documented restore, on this host alone."""
    host.run(
        f"""
        systemctl stop etcd
        rm -rf /var/lib/etcd/member /var/lib/etcd/new
        cp {YESTERDAY} /var/lib/etcd/y.db; chown etcd: /var/lib/etcd/y.db; cd /
        {AS_ETCD} {ETCDUTL} snapshot restore /var/lib/etcd/y.db --data-dir /var/lib/etcd/new \
          --name {host.name} --initial-cluster {cluster} \
          --initial-advertise-peer-urls https://{host.address}:2380 {" ".join(options)}
        mv /var/lib/etcd/new/member /var/lib/etcd/member
        rm -rf /var/lib/etcd/new /var/lib/etcd/y.db
        systemctl start etcd
        """
    )


def value(lab: Lab, host: Host) -> str:
    """What the key of the day says there."""
    with lab.client(host) as client:
        found = client.get("/day")
    return found.value.decode() if found is not None else ""


def cluster_id(lab: Lab, host: Host) -> str:
    with lab.client(host) as client:
        return f"{client.status().cluster_id:x}"


def require_whole(lab: Lab, inventory: Path) -> None:
    """One cluster of three with the writes of today, as declared."""
    assert {value(lab, host) for host in lab.etcd} == {"today"}
    assert len({cluster_id(lab, host) for host in lab.etcd}) == 1
    with lab.client(lab.etcd[0]) as client:
        assert client.range("/today/", keys_only=True)[1][TODAY - 2 :]
        assert {m.name for m in client.member_list()} == set(NAMES)
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")


def record(state: str, healed_by: str, acknowledged: int) -> None:
    """A row of docs/reliability.md: called when all that was acknowledged has been found."""
    if not os.environ.get(RECORD):
        return
    rows = json.loads(STATES.read_text(encoding="utf-8")) if STATES.exists() else []
    rows = [r for r in rows if r["state"] != state]
    rows.append({"state": state, "healed_by": healed_by, "writes": acknowledged, "lost": 0})
    STATES.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


@pytest.mark.parametrize("odd", NAMES)
def test_an_odd_cluster_of_one_is_not_taken_for_the_cluster(
    three: Lab, inventory: Path, odd: str, tmp_path: Path
) -> None:
    alone = three.hosts[odd]
    others = [host for host in three.etcd if host is not alone]
    restore_by_hand(alone, peer(alone))
    wait_until(lambda: value(three, alone) == "yesterday", "the odd member serves")
    healthy, wrong = cluster_id(three, others[0]), cluster_id(three, alone)
    with writing(others, "/written/") as writes:
        before = three.snapshot()
        commands = [
            ("deploy-etcd",),
            ("deploy-etcd", "--dry-run", "--exit-code"),
            ("replace-member", odd),
            ("remove-member", odd),
            ("backup-etcd", "--to", str(tmp_path)),
            ("defrag-etcd",),
        ]
        for command, *options in commands:
            refused = three.invoke(command, inventory, *options)
            refused.expect(3, "etcd-clusters-differ", healthy, wrong, "--cluster-id")
        assert three.snapshot() == before
        assert not list(tmp_path.glob("*.db"))
        # What only looks never refuses, and shows both.
        three.invoke("status", inventory).expect(1, "etcd-clusters-differ", healthy, wrong)
        looked = three.invoke("check-nodes").expect(1, f"cluster {healthy}", f"cluster {wrong}")
        assert "the members belong to different clusters" in looked.text
        # With the cluster named, a backup is of it and deploy-etcd says what heals.
        saved = three.invoke(
            "backup-etcd", inventory, "--to", str(tmp_path), "--cluster-id", healthy
        ).expect(0)
        assert odd not in re.findall(r"beside (\w+)", saved.text)
        refused = three.invoke("deploy-etcd", inventory, "--cluster-id", healthy)
        refused.expect(3, f"replace-member {odd} --cluster-id {healthy}", "member-odd")
        healed = three.invoke("replace-member", inventory, odd, "--cluster-id", healthy)
        healed.expect(0, f"add {odd} as a learner", "keep the data aside")
    assert "member.removed-" in alone.run("ls /var/lib/etcd")
    require_whole(three, inventory)
    place = ("first", "second", "last")[NAMES.index(odd)]
    state = f"one member restored by hand as a cluster of its own, {place} in the inventory"
    record(state, "replace-member --cluster-id", len(writes.acknowledged) + TODAY)


def test_one_member_is_not_the_cluster_while_the_others_cannot_be_reached(
    three: Lab, inventory: Path, tmp_path: Path
) -> None:
    alone, *others = three.etcd
    healthy = cluster_id(three, others[0])
    restore_by_hand(alone, peer(alone))
    wait_until(lambda: value(three, alone) != "", "the odd member serves")
    wrong = cluster_id(three, alone)
    alone.run("rm /etc/etcd/last-seen")  # else the note says it
    with writing(others, "/written/") as writes:
        # Its connection is there before the way is shut.
        wait_until(lambda: len(writes.acknowledged) > 20, "the others go on")
        with firewall(others, f"{UNREACHABLE},2379"):
            before = alone.run("ls -l /var/lib/etcd; cat /etc/etcd/last-seen || :")
            for command, inventory_, *options in (
                ("backup-etcd", inventory, "--to", str(tmp_path)),
                ("start-workers", three.inventory()),
                ("forget-worker", three.inventory(), "worker-1"),
            ):
                refused = three.invoke(str(command), Path(inventory_), *map(str, options))
                refused.expect(3, "etcd-members-unseen", f"--cluster-id {wrong}", "etcd1, etcd2")
            assert alone.run("ls -l /var/lib/etcd; cat /etc/etcd/last-seen || :") == before
            assert not list(tmp_path.glob("*.db"))
            three.invoke("check-nodes", inventory).expect(1, "etcd-members-unseen")
    # Reachable again: both groups are seen, and one command heals.
    refused = three.invoke("deploy-etcd", inventory).expect(3, "etcd-clusters-differ")
    assert f"cluster {healthy}" in refused.text
    three.invoke("replace-member", inventory, "etcd0", "--cluster-id", healthy).expect(0)
    require_whole(three, inventory)
    state = "one member restored by hand as a cluster of its own, the others' hosts unreachable"
    record(state, "replace-member --cluster-id", len(writes.acknowledged) + TODAY)


def test_the_odd_one_may_be_chosen_and_the_others_data_is_kept(three: Lab, inventory: Path) -> None:
    alone = three.etcd[0]
    restore_by_hand(alone, peer(alone))
    wait_until(lambda: value(three, alone) == "yesterday", "the odd member serves")
    three.invoke("deploy-etcd", inventory, "--cluster-id", cluster_id(three, alone)).expect(0)
    assert {value(three, host) for host in three.etcd} == {"yesterday"}
    for host in three.etcd[1:]:
        assert "member.removed-" in host.run("ls /var/lib/etcd")
    three.invoke("deploy-etcd", inventory).expect(0, "0 changed")
    # What was kept aside goes by its name, and nothing else.
    other = three.etcd[1]
    other.run("mkdir /var/lib/etcd/member.mine")
    shown = three.invoke("kept-data", inventory, "--format", "json").expect(0).json["kept"]
    (kept,) = [Path(k["path"]).name for k in shown if k["member"] == other.name]
    three.invoke("kept-data", inventory, "--delete", kept).expect(0, f"DELETE /var/lib/etcd/{kept}")
    assert [x for x in other.run("ls /var/lib/etcd").split() if x.startswith("member")] == [
        *("member", "member.mine")
    ]
    three.invoke("deploy-etcd", inventory).expect(0, "0 changed")


def test_two_wiped_of_three_are_no_cluster_though_their_ids_are_right(
    three: Lab, inventory: Path, tmp_path: Path
) -> None:
    kept, *wiped = three.etcd
    right = cluster_id(three, kept)
    three.on(three.etcd, "systemctl stop etcd")
    # As an older version of this tool left it: the configuration says `new` for ever.
    three.on(wiped, f"{SAYS_NEW}; rm -rf /var/lib/etcd/member; systemctl start etcd")
    assert {cluster_id(three, host) for host in wiped} == {right}
    for command, *options in [
        ("deploy-etcd",),
        ("backup-etcd", "--to", str(tmp_path)),
        ("replace-member", "etcd0"),
    ]:
        refused = three.invoke(command, inventory, *options)
        refused.expect(3, "etcd-history-behind", "etcd0", "recover-etcd etcd0")
    # A command on workers writes to etcd, too, and reads the note of the members' hosts.
    three.invoke("start-workers", three.inventory()).expect(3, "etcd-history-behind")
    with firewall(three.etcd[:1], UNREACHABLE):
        for worker_command in (("start-workers",), ("forget-worker", "worker-1")):
            behind = three.invoke(worker_command[0], three.inventory(), *worker_command[1:])
            behind.expect(3, "the last run noted", "etcd-history-behind")
    assert "member" in kept.run("ls /var/lib/etcd").split()
    # Both have the same id: the line names them apart, and one command heals.
    (name,) = set(re.findall(r"recover-etcd etcd0 --cluster-id (\S+?)[)\s]", refused.text))
    assert name.startswith(f"{right}-")
    recover = ("etcd0", "--yes-recover", CLUSTER)
    three.invoke("recover-etcd", inventory, *recover).expect(3, "the quorum is not lost")
    three.invoke("recover-etcd", inventory, *recover, "--cluster-id", name).expect(0)
    for host in wiped:
        assert "member.removed-" in host.run("ls /var/lib/etcd")
    require_whole(three, inventory)
    state = "two of three members emptied and bootstrapped again under their ids"
    record(state, "recover-etcd --cluster-id", TODAY)


def test_a_wiped_member_is_replaced(three: Lab, inventory: Path) -> None:
    lost = three.etcd[1]
    lost.run("systemctl stop etcd; rm -rf /var/lib/etcd/member")
    three.invoke("deploy-etcd", inventory).expect(3, "replace-member etcd1")
    with writing([three.etcd[0], three.etcd[2]], "/written/") as writes:
        three.invoke("replace-member", inventory, "etcd1").expect(0)
    require_whole(three, inventory)
    record("one member emptied", "replace-member", len(writes.acknowledged) + TODAY)


def test_all_wiped_comes_back_from_a_backup(three: Lab, inventory: Path) -> None:
    """What etcd-history-behind and quorum-lost name when no host has data."""
    saved = Path(str(inventory) + ".db")
    done = three.invoke("backup-etcd", inventory, "--to", str(saved), "--format", "json").expect(0)
    three.on(three.etcd, "systemctl stop etcd; rm -rf /var/lib/etcd/member")
    refused = three.invoke("deploy-etcd", inventory)
    refused.expect(3, "etcd-history-behind", "no host has data", "restore-etcd")
    consent = ("--yes-restore", CLUSTER)
    three.invoke("restore-etcd", inventory, done.json["file"], *consent).expect(0)
    require_whole(three, inventory)
    record("all members emptied", "restore-etcd", TODAY)


def test_half_a_bootstrap_is_ended_by_the_same_command(three: Lab) -> None:
    three.wipe()
    inventory = three.inventory({"alluxio": None})
    three.invoke("deploy-etcd", inventory).expect(0)
    # As if the tool had come to one host only, whose member waits for the others.
    three.on(
        three.etcd,
        f"systemctl stop etcd; rm -rf /etc/etcd/last-seen /var/lib/etcd/member; {SAYS_NEW}",
    )
    three.on(three.etcd[1:], "rm -rf /var/lib/etcd /etc/etcd /etc/systemd/system/etcd.service")
    three.on(three.etcd, "systemctl daemon-reload")
    three.etcd[0].run("systemctl start --no-block etcd")
    wait_until(lambda: "member" in three.etcd[0].run("ls /var/lib/etcd || :"), "data on one host")
    three.invoke("deploy-etcd", inventory).expect(0, "start the members")
    assert len({cluster_id(three, host) for host in three.etcd}) == 1
    three.invoke("deploy-etcd", inventory).expect(0, "0 changed")
    three.wipe()


def test_all_stopped_and_all_wiped(three: Lab, inventory: Path) -> None:
    three.on(three.etcd, "systemctl stop etcd")
    three.invoke("deploy-etcd", inventory).expect(0, "start the members that are down")
    require_whole(three, inventory)
    record("all members stopped", "deploy-etcd", TODAY)
    three.on(three.etcd, "systemctl stop etcd; mv /var/lib/etcd/member /var/lib/etcd/lost")
    refused = three.invoke("deploy-etcd", inventory)
    refused.expect(3, "etcd-history-behind", "no host has data", "restore-etcd")
    three.on(three.etcd[1:], "mv /var/lib/etcd/lost /var/lib/etcd/member")
    three.invoke("deploy-etcd", inventory).expect(0, "replace-member etcd0")
    assert value(three, three.etcd[1]) == "today"
    three.invoke("replace-member", inventory, "etcd0").expect(0)
    require_whole(three, inventory)
    record("the data disks away, two came back", "deploy-etcd, replace-member", TODAY)


def test_a_cluster_of_one_member(three: Lab) -> None:
    three.wipe()
    alone = three.etcd[0]
    others = dict.fromkeys(NAMES[1:])
    inventory = three.inventory({"alluxio": None, "etcd": {"members": others}})
    three.invoke("deploy-etcd", inventory).expect(0)
    with three.client(alone) as client:
        for n in range(TODAY):
            client.put(f"/today/{n}", "acknowledged")
    three.invoke("backup-etcd", inventory, "--to", str(inventory.parent / "saved")).expect(0)
    # Emptied, it would be bootstrapped under its ids, and serve.
    alone.run("systemctl stop etcd; mv /var/lib/etcd/member /var/lib/etcd/lost")
    three.invoke("deploy-etcd", inventory).expect(3, "etcd-history-behind", "no host has data")
    alone.run(f"{SAYS_NEW}; systemctl start etcd")
    wait_until(lambda: cluster_id(three, alone) != "", "the emptied member serves")
    for command in (("deploy-etcd",), ("backup-etcd", "--to", str(inventory.parent / "empty"))):
        refused = three.invoke(command[0], inventory, *command[1:])
        refused.expect(3, "etcd-history-behind", "the last run noted")
    alone.run(
        "systemctl stop etcd; rm -rf /var/lib/etcd/member; mv /var/lib/etcd/lost "
        "/var/lib/etcd/member"
    )
    three.invoke("deploy-etcd", inventory).expect(0, "start the members that are down")
    with three.client(alone) as client:
        assert len(client.range("/today/", keys_only=True)[1]) == TODAY
    record("a cluster of one member, emptied; its data put back", "deploy-etcd", TODAY)
    three.wipe()


def test_a_majority_with_changed_addresses(three: Lab, inventory: Path) -> None:
    three.on(three.etcd, "systemctl stop etcd")
    moved = {name: {"peer_port": 2390} for name in NAMES[1:]}
    elsewhere = three.inventory({"alluxio": None, "etcd": {"members": moved}})
    before = three.on(three.etcd, STATE_OF)
    refused = three.invoke("deploy-etcd", elsewhere)
    refused.expect(3, "the peer addresses of etcd1, etcd2 have changed", "recover-etcd")
    assert three.on(three.etcd, STATE_OF) == before
    recover = ("etcd0", "--yes-recover", CLUSTER)
    three.invoke("recover-etcd", elsewhere, *recover).expect(0)
    require_whole(three, elsewhere)
    state = "all members stopped, the peer addresses of a majority changed"
    record(state, "recover-etcd", TODAY)


def damage(lab: Lab, host: Host) -> None:
    """The disk of one member returns other bytes than were written, as one value of a key.

    etcd is started without its own check, which finds it: most data differ since a member runs.
    """
    with lab.client(host) as client:
        client.put("/marked", f"right-{host.name}")
    host.run(
        f"""
        systemctl stop etcd
        LC_ALL=C sed -i s/right-{host.name}/wrong-{host.name}/ /var/lib/etcd/member/snap/db
        cp -p {CONFIG} /root/checked.yml
        sed -i '/^feature-gates/d' {CONFIG}
        systemctl start etcd
        mv /root/checked.yml {CONFIG}
        """
    )
    with lab.client(host) as client:
        found = client.get("/marked")
    assert found is not None
    assert found.value.decode() == f"wrong-{host.name}"


def raise_corrupt(lab: Lab, member_id: int) -> None:
    """The alarm, naming any member, or 0: none."""
    with lab.client(lab.etcd[0]) as client:
        activate(client, "CORRUPT", member_id)


def member_ids(lab: Lab) -> dict[str, int]:
    with lab.client(lab.etcd[0]) as client:
        return {m.name: m.id for m in client.member_list()}


def corrupt_alarms(lab: Lab) -> set[int]:
    with lab.client(lab.etcd[0]) as client:
        return {a.member_id for a in client.alarms() if a.kind == "CORRUPT"}


def test_the_member_whose_data_differ_is_replaced_whatever_the_alarm_says(
    three: Lab, inventory: Path, tmp_path: Path
) -> None:
    """One after the other: the alarm names the right member, a wrong one, and none."""
    acknowledged = TODAY
    for odd, named in (("etcd2", "the right"), ("etcd0", "a wrong"), ("etcd1", "no")):
        damage(three, three.hosts[odd])
        others = [name for name in NAMES if name != odd]
        ids = member_ids(three)
        raise_corrupt(three, {"the right": ids[odd], "a wrong": ids[others[0]], "no": 0}[named])
        refused = three.invoke("replace-member", inventory, others[0])
        refused.expect(3, "data differ", f"invoke replace-member {odd}")
        if named == "the right":
            require_refusals(three, inventory, odd)
        with writing([three.hosts[name] for name in others], f"/written/{odd}/") as writes:
            if named == "no":
                # Killed when the member is out, the alarm stands: the next run disarms it.
                running = three.start("replace-member", inventory, odd)
                running.wait_for("disarm the alarm")
                running.kill()
            three.invoke("replace-member", inventory, odd).expect(0)
            wait_for_writes(writes)
        acknowledged += len(writes.acknowledged)
        assert not corrupt_alarms(three)
        require_whole(three, inventory)
        with three.client(three.hosts[odd]) as client:
            there = len(client.range("/written/", keys_only=True)[1])
        assert there >= acknowledged - TODAY
        assert three.hosts[odd].run("ls -d /var/lib/etcd/member.removed-*")
        record(f"etcd's alarm CORRUPT, which names {named} member", "replace-member", acknowledged)
    three.invoke("replace-member", inventory, odd).expect(0, "nothing to replace")
    # When no two agree, only the operator can tell which is right.
    damage(three, three.hosts["etcd1"])
    damage(three, three.hosts["etcd2"])
    raise_corrupt(three, 0)
    for name in NAMES:
        refused = three.invoke("replace-member", inventory, name)
        refused.expect(3, "no majority agrees", "recover-etcd")
    recovered = three.invoke("recover-etcd", inventory, "etcd0", "--yes-recover", CLUSTER)
    recovered.expect(0)
    assert not corrupt_alarms(three)
    with three.client(three.hosts["etcd2"]) as client:
        found = client.get("/marked")
        assert found is not None
        assert found.value == b"right-etcd2"
    require_whole(three, inventory)
    state = "etcd's alarm CORRUPT, and no two members agree"
    record(state, "recover-etcd", acknowledged)


@pytest.mark.parametrize("odd", NAMES)
def test_a_healthy_member_that_etcd_does_not_start_beside_an_odd_one(
    three: Lab, inventory: Path, odd: str
) -> None:
    """etcd's own check counts no majority: it ends whoever starts beside a member that differs."""
    damage(three, three.hosts[odd])
    healthy, other = (three.hosts[name] for name in NAMES if name != odd)
    healthy.run("systemctl stop etcd; systemctl start --no-block etcd")
    wait_until(
        lambda: "checkInitial" in journal(healthy) or "corrupt" in journal(healthy),
        "etcd's check ends the healthy member",
    )
    # No change begins, and the start says whose data differ.
    assert "feature-gates" in healthy.read(CONFIG)
    refused = three.invoke("replace-member", inventory, odd)
    refused.expect(3, "no majority agrees", "invoke deploy-etcd")
    started = three.invoke("deploy-etcd", inventory)
    started.expect(4, "start the members that are down", f"invoke replace-member {odd}")
    with writing([healthy, other], f"/started/{odd}/") as writes:
        settings = three.inventory({"alluxio": None, "etcd": {"settings": {"max-txn-ops": 200}}})
        changed = three.invoke("deploy-etcd", settings)
        changed.expect(3, f"invoke replace-member {odd}")
        three.invoke("replace-member", inventory, odd).expect(0)
        three.invoke("deploy-etcd", inventory).expect(0)
    for host in three.etcd:
        assert "InitialCorruptCheck=true" in host.read(CONFIG)
        assert "max-txn-ops" not in host.read(CONFIG)
    require_whole(three, inventory)
    with three.client(three.hosts[odd]) as client:
        there = client.range(f"/started/{odd}/", keys_only=True)[1]
    assert len(there) >= len(writes.acknowledged) > 0
    place = ("first", "second", "last")[NAMES.index(odd)]
    state = f"the {place} member has other data, and etcd does not start a healthy one"
    record(state, "deploy-etcd, replace-member", TODAY + len(writes.acknowledged))


def test_an_odd_member_does_not_start(three: Lab, inventory: Path) -> None:
    odd = three.hosts["etcd1"]
    damage(three, odd)
    odd.run("systemctl stop etcd; systemctl start --no-block etcd")
    refused = three.invoke("deploy-etcd", inventory)
    refused.expect(4, "etcd1", "invoke replace-member etcd1")
    three.invoke("replace-member", inventory, "etcd1").expect(0)
    require_whole(three, inventory)


def journal(host: Host) -> str:
    return host.run("journalctl -u etcd --since=-60s --no-pager -o cat")


def wait_for_writes(writes: Writes) -> None:
    wait_until(lambda: len(writes.acknowledged) > TODAY, "etcd takes writes again")


def require_refusals(lab: Lab, inventory: Path, odd: str) -> None:
    """What the other commands say of the alarm CORRUPT. Nothing changes."""
    before = lab.snapshot()
    # What only looks does not take the alarm's word for it.
    lab.invoke("check-nodes", inventory).expect(1, "alarm CORRUPT", "invoke disarm-alarms")
    lab.invoke("disarm-alarms", inventory).expect(1, f"invoke replace-member {odd}")
    for command, code in (("rotate-certs", 3), ("defrag-etcd", 1), ("backup-etcd", 1)):
        lab.invoke(command, inventory).expect(code, "alarm-corrupt")
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed", "alarm-corrupt")
    assert lab.snapshot() == before


#: A disk of etcd's own: away and back without the loss of what is on it.
AWAY = "umount /var/lib/etcd"
BACK = "mount --bind /srv/disk /var/lib/etcd"
NEW = "mount -t tmpfs -o mode=755 tmpfs /var/lib/etcd"
BOOT = "systemctl start --no-block etcd"


@pytest.fixture
def on_disks(three: Lab) -> Iterator[Path]:
    """A cluster of three, each member's data on a disk of its own, with writes of today."""
    three.wipe()
    three.on(
        three.etcd, f"mkdir -p /srv/disk /var/lib/etcd; mount -t tmpfs tmpfs /srv/disk; {BACK}"
    )
    path = three.inventory({"alluxio": None})
    three.invoke("deploy-etcd", path).expect(0, "record that the cluster exists")
    with three.client(three.etcd[0]) as client:
        for n in range(TODAY - 1):
            client.put(f"/today/{n}", "acknowledged")
        client.put("/day", "today")
    yield path
    three.wipe()
    three.on(three.etcd, "umount /srv/disk; rmdir /srv/disk /var/lib/etcd 2>/dev/null || :")


def running(host: Host) -> bool:
    return host.show("etcd", "ActiveState")["ActiveState"] == "active"


def test_an_older_deployment_is_told_quietly(three: Lab, on_disks: Path) -> None:
    older = f"sed -i '/data-disk/d; /^RequiresMountsFor/d; /Provision-Mount/d' {UNIT}; {SAYS_NEW}"
    three.on(three.etcd, f"{older}; rmdir /var/lib/etcd/data-disk; systemctl daemon-reload")
    before = [host.main_pid("etcd") for host in three.etcd]
    three.invoke("deploy-etcd", on_disks).expect(
        0, '+initial-cluster-state: "existing"', "mark /var/lib/etcd as the data disk"
    )
    assert [host.main_pid("etcd") for host in three.etcd] == before
    three.invoke("deploy-etcd", on_disks).expect(0, "0 changed")


def test_a_data_disk_that_is_away(three: Lab, on_disks: Path, tmp_path: Path) -> None:
    first, *others = three.etcd
    with writing(others, "/written/") as writes:
        first.run(f"systemctl stop etcd; {AWAY}; {BOOT}")
        says = "the data disk is not mounted, or lost its data: no root-owned folder"
        wait_until(lambda: says in first.run("journalctl -u etcd -n 50 -o cat"), "it says so")
        assert says in first.run("systemctl status etcd || :")
        for command in ("deploy-etcd", "check-nodes"):
            told = three.invoke(command, on_disks)
            told.expect(3 if command == "deploy-etcd" else 1, "data disk is not mounted")
            told.expect(told.code, "replace-member etcd0", "member-data-lost")
        assert first.run("ls -A /var/lib/etcd") == ""
        assert not running(first)
        first.run(BACK)
        wait_until(lambda: running(first), "it starts by itself", 70)
    require_whole(three, on_disks)
    record(
        "one data disk not mounted at boot, then mounted", "mount", len(writes.acknowledged) + TODAY
    )

    # Two of three would be a majority, and an empty one.
    three.on(three.etcd, "systemctl stop etcd")
    three.on(others, AWAY)
    three.on(three.etcd, BOOT)
    wait_until(lambda: all(says in h.run("systemctl status etcd || :") for h in others), "both say")
    refused = three.invoke("deploy-etcd", on_disks)
    refused.expect(3, "mount the data disk of etcd1, etcd2", "not a quorum")
    assert [h.run("ls -A /var/lib/etcd") for h in others] == ["", ""]
    three.on(others, BACK)
    wait_until(lambda: all(running(host) for host in three.etcd), "all start by themselves", 70)
    require_whole(three, on_disks)
    record("two of three data disks not mounted at boot, then mounted", "mount", TODAY)

    saved = three.invoke("backup-etcd", on_disks, "--to", str(tmp_path)).expect(0)
    (snapshot,) = tmp_path.glob("*.db")
    assert saved.code == 0
    three.on(three.etcd, f"systemctl stop etcd; {AWAY}")
    three.on(three.etcd, "rm -f /etc/etcd/last-seen")  # the configuration alone remembers
    refused = three.invoke("deploy-etcd", on_disks)
    refused.expect(3, "no host has data", "says that the cluster exists", "mount the data disks")
    restore = (str(snapshot), "--yes-restore", CLUSTER)
    refused = three.invoke("restore-etcd", on_disks, *restore)
    refused.expect(3, "nothing is at /var/lib/etcd", "member-data-lost")
    assert [h.run("ls -A /var/lib/etcd") for h in three.etcd] == [""] * 3
    three.on(three.etcd, BACK)
    three.invoke("deploy-etcd", on_disks).expect(0, "start the members that are down")
    require_whole(three, on_disks)
    record("all data disks not mounted at boot, then mounted", "deploy-etcd", TODAY)

    # New disks, empty.
    three.on(three.etcd, f"systemctl stop etcd; {AWAY}; {NEW}")
    three.invoke("deploy-etcd", on_disks).expect(3, "no host has data")
    three.invoke("restore-etcd", on_disks, *restore).expect(0)
    require_whole(three, on_disks)
    record("new, empty disks in the place of all", "restore-etcd", TODAY)


def test_systemd_mounts_what_it_knows_of(three: Lab, on_disks: Path) -> None:
    """A line of fstab with noauto, which nothing mounts at boot but the unit that requires it."""
    host = three.etcd[0]
    host.run("echo '/srv/disk /var/lib/etcd none bind,noauto,nofail 0 0' >>/etc/fstab")
    try:
        host.run(f"systemctl stop etcd; {AWAY}; systemctl daemon-reload; {BOOT}")
        wait_until(lambda: running(host), "it starts on its disk")
        assert host.run("mountpoint -q /var/lib/etcd && ls /var/lib/etcd/member")
        require_whole(three, on_disks)
    finally:
        host.run("sed -i '\\#^/srv/disk#d' /etc/fstab; systemctl daemon-reload")
