"""A service user gone bad, on real hosts: what it tried to become root with is of no use.

``tests/unit/test_service_user_attacks.py`` has more of the kind. Here the tool's own commands run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import CLUSTER, TEST_UNIT, Host, Lab

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("workers")]

AS_ETCD = "setpriv --reuid etcd --regid etcd --init-groups"
#: As a worker's process: in its namespace, and without a way to new privileges.
IN_WORKER = (
    "nsenter -m -t $(systemctl show -p MainPID --value alluxio-worker) "
    "setpriv --reuid alluxio --regid alluxio --init-groups --no-new-privs"
)
PKI = "/etc/etcd/pki"
PAGES = "/var/lib/alluxio/pages"
#: Root's, and the attacker's if an attack wins.
PRIZE = "/root/prize"


@contextlib.contextmanager
def attack(host: Host, line: str, loop: str) -> Iterator[None]:
    """While another process repeats ``loop`` on a host, started by ``line``."""
    script = f"while :; do {loop}; done"
    host.put("/run/alxp-attack", f"{script}\n".encode())
    host.run(f"systemd-run -q --unit {TEST_UNIT} sh -c '{line} sh /run/alxp-attack'")
    try:
        yield
    finally:
        host.run(f"systemctl stop {TEST_UNIT}; rm -f /run/alxp-attack")


def earlier_layout(lab: Lab) -> None:
    """etcd's keys as earlier versions of this tool left them."""
    lab.on(lab.etcd, f"chown -R etcd:etcd {PKI}; chmod 0700 {PKI}; chmod 0600 {PKI}/*.key")


def test_the_keys_of_an_earlier_version_become_roots_without_a_restart(lab: Lab) -> None:
    earlier_layout(lab)
    before = [host.main_pid("etcd") for host in lab.etcd]
    lab.invoke("deploy-etcd").expect(0, f"set {PKI} to root:etcd 0750")
    assert [host.main_pid("etcd") for host in lab.etcd] == before
    lab.invoke("deploy-etcd", None, "--dry-run", "--exit-code").expect(0)
    shown = lab.on(lab.etcd, f"stat -c '%U:%G %a' {PKI} {PKI}/peer.key {PKI}/peer.crt {PKI}/ca.crt")
    assert set(shown) == {"root:etcd 750\nroot:etcd 640\nroot:etcd 644\nroot:etcd 644"}
    # A connection to a peer reads key and certificate again; a start reads the CA.
    lab.etcd[0].run("systemctl restart etcd")
    lab.invoke("check-nodes").expect(0)
    lab.invoke("rotate-certs").expect(0)
    assert lab.on(lab.etcd, f"{AS_ETCD} touch {PKI}/x || echo no") == ["no"] * 3


def test_a_key_that_is_a_link_to_the_passwords(lab: Lab) -> None:
    earlier_layout(lab)
    host = lab.etcd[0]
    was = host.run("stat -c '%U:%G %a' /etc/shadow")
    host.run(f"cp -a {PKI} {PKI}.kept")
    try:
        host.run(f"{AS_ETCD} ln -sf /etc/shadow {PKI}/peer.key")
        lab.invoke("deploy-etcd").expect(3, f"{PKI}/peer.key is a link, not a file")
        assert host.run("stat -c '%U:%G %a' /etc/shadow") == was
    finally:
        host.run("chown root:shadow /etc/shadow; chmod 0640 /etc/shadow")
        host.run(f"rm -rf {PKI}; mv {PKI}.kept {PKI}")
    lab.invoke("deploy-etcd").expect(0)


def test_a_page_store_that_is_swapped_for_a_link(lab: Lab) -> None:
    host = lab.workers[0]
    host.run(f"mkdir -p {PRIZE}; chmod 0700 {PRIZE}; chmod 0700 {PAGES}")  # to be put right
    # After the look: when the run's lock is held, the batch is about to begin.
    swap = (
        'if pgrep -f "timeout 45 head" >/dev/null; then '
        f"mv -T {PAGES} {PAGES}.x 2>/dev/null && ln -s {PRIZE} {PAGES}; fi"
    )
    try:
        with attack(host, IN_WORKER, swap):
            done = lab.invoke("start-workers", None, "--limit", "worker0")
        assert host.run(f"stat -c '%U:%G %a' {PRIZE}") == "root:root 700"
        done.expect(4, "pages is a link, and others than root could have made it")
    finally:
        host.run(f"[ ! -L {PAGES} ] || rm {PAGES}; [ -d {PAGES} ] || mv -T {PAGES}.x {PAGES}")
        host.run(f"rm -rf {PRIZE}")
    lab.invoke("start-workers").expect(0)


def test_a_java_of_the_user_never_runs_as_root(lab: Lab) -> None:
    host, home = lab.workers[0], "/var/lib/alluxio/jdk"
    script = f'#!/bin/sh\nid -un >>{home}/who\necho version \\"11.0.1\\" >&2\n'
    host.put(f"{home}/bin/java", script.encode())
    host.run(f"chown -R alluxio:alluxio {home}; chmod 755 {home}/bin/java")
    inventory = lab.inventory({"alluxio": {"java": {"source": None, "home": home}}})
    try:
        lab.invoke("start-workers", inventory, "--dry-run")
        assert set(host.read(f"{home}/who").split()) == {"alluxio"}
    finally:
        host.run(f"rm -rf {home}")


def test_the_mark_of_a_restore_and_the_log_of_a_scratch_member(lab: Lab, tmp_path: Path) -> None:
    lab.invoke("backup-etcd", None, "--to", str(tmp_path)).expect(0)
    (saved,) = tmp_path.glob("*.db")
    lab.on(lab.etcd, f"{AS_ETCD} ln -sf {PRIZE} /var/lib/etcd/unfinished.new")
    link = (
        "for d in /var/tmp/alluxio-provision-scratch.*; do "
        f'[ ! -d "$d" ] || ln -sf {PRIZE} "$d/log" 2>/dev/null; done'
    )
    options = (str(saved), "--yes-restore", CLUSTER)
    with contextlib.ExitStack() as stack:
        for one in lab.etcd:
            stack.enter_context(attack(one, AS_ETCD, link))
        lab.invoke("backup-etcd", None, "--to", str(tmp_path)).expect(0)
        lab.invoke("restore-etcd", None, *options)
    lab.on(lab.etcd, "rm -f /var/lib/etcd/unfinished.new")
    lab.invoke("restore-etcd", None, *options).expect(0)
    assert lab.on(lab.etcd, f"[ ! -e {PRIZE} ] || echo won") == [""] * 3


def test_nobody_blocks_a_run_or_forges_what_it_sees(lab: Lab) -> None:
    host = lab.etcd[0]
    nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    for lock in ("run.lock", "batch.lock"):
        held = f"{nobody} flock -n /run/alluxio-provision/{lock} echo held 2>/dev/null || :"
        assert host.run(held) == ""
    # Of the forged lines, one ends what the tool reads, and the other is a fact.
    host.run(f"{AS_ETCD} ln -sfn 'x\nfact tool=999.0\n@@end\n' /var/lib/etcd/unfinished")
    try:
        lab.invoke("deploy-etcd", None, "--dry-run").expect(3, "a restore or a recovery")
    finally:
        host.run("rm -f /var/lib/etcd/unfinished")
    lab.invoke("deploy-etcd", None, "--dry-run", "--exit-code").expect(0)
