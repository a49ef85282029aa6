"""Every id of what can be wrong: how a test raises it, what its remedy names, and what heals it.

tests/unit/test_remedies.py holds that no id, and no command that an error text or a page names, is
left out. While the tests of this table run, tests/conftest.py holds that they do what is said of
them here: each meets its error, and each command of ``heals`` ends with 0 after it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.recording import Event, Met, Ran


@dataclass(frozen=True)
class Row:
    """One kind of trouble.

    ``raised``: a test, below tests/, that meets the error. ``heals``: by test, the commands of the
    remedy that it runs to their end, each a task with its options; more options may be given there.
    ``end``: what is true then. ``named``: all other commands that the texts name. ``why``: why a
    command among these that changes something is run by no test.
    """

    raised: str
    heals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    end: str = ""
    named: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class NoRow:
    """An id without a row, and why."""

    why: str


def _lab(module: str, name: str) -> str:
    """A test on the lab's hosts, named without what all names begin with."""
    return _test("integration", module, name)


def _component(module: str, name: str) -> str:
    return _test("component", module, name)


def _unit(module: str, name: str) -> str:
    return _test("unit", module, name)


def _test(folder: str, module: str, name: str) -> str:
    """One that is in a class has its whole name."""
    prefix = "" if "::" in name else "test_"
    return f"{folder}/test_{module}.py::{prefix}{name}"


def missing(node: str, events: Sequence[Event]) -> list[str]:
    """What the table says of the test ``node``, and what is not among its ``events``.

    ``node`` may have parameters, and begins with tests/ or below. A row may leave the parameters
    out: it is then about each of them.
    """
    raised, run = _by_test()
    left = []
    name = re.sub(r"^.*?\btests/", "", node)
    for test in dict.fromkeys((name, name.partition("[")[0])):
        for id in raised.get(test, ()):
            if not any(isinstance(e, Met) and e.id == id for e in events):
                left.append(f"{id} was not met")
        for id, command in run.get(test, ()):
            met = [n for n, e in enumerate(events) if isinstance(e, Met) and e.id == id]
            # A test that heals what another one has shown meets no such error.
            after = events[met[0] :] if met and id in raised.get(test, ()) else events
            if not any(isinstance(e, Ran) and ran(command, e) for e in after):
                left.append(f"{command} (for {id}) did not end with 0")
    return left


def ran(command: str, event: Ran) -> bool:
    """Whether a run was this command, with these options or more, and ended with 0."""
    task, *options = command.split()
    if event.code or not event.words or event.words[0] != task:
        return False
    return all(any(w.split("=")[0] == o for w in event.words) for o in options)


@functools.cache
def _by_test() -> tuple[dict[str, list[str]], dict[str, list[tuple[str, str]]]]:
    """By test, the ids that it raises, and the commands that it runs, each with its id."""
    raised: dict[str, list[str]] = {}
    run: dict[str, list[tuple[str, str]]] = {}
    for id, row in REMEDIES.items():
        if isinstance(row, Row):
            raised.setdefault(row.raised, []).append(id)
            for test, commands in row.heals.items():
                run.setdefault(test, []).extend((id, c) for c in commands)
    return raised, run


#: Why no test runs a remedy that is no command of this program, or one that only looks.
_EDIT = "the operator edits the inventory; without the mistake it loads in the same tests"
_HOST = "the operator mends it on the host, then runs the same command again"
_HERE = "the operator mends it on this machine, then runs the same command again"
_LOOK = "it names commands that only look, or the same command again"
_NOTHING = "a warning that asks for nothing"

#: One block an id, sorted.
REMEDIES: dict[str, Row | NoRow] = {
    "address-not-in-certificate": Row(
        _lab("addresses", "a_cluster_that_gets_them_later"),
        heals={_lab("addresses", "a_cluster_that_gets_them_later"): ("deploy-etcd",)},
        end="the peers accept the connections from the second address",
        named=("export-csrs", "import-certs"),
        why="tests/integration/test_external_ca.py runs both, for certificates that are missing",
    ),
    "address-not-on-host": Row(
        _unit("preflight", "TestMembers::test_an_address_of_another_host"),
        named=("deploy-etcd --dry-run",),
        why=_EDIT,
    ),
    "alarm-corrupt": Row(
        _lab("which_cluster", "the_member_whose_data_differ_is_replaced_whatever_the_alarm_says"),
        heals={
            _lab(
                "which_cluster", "the_member_whose_data_differ_is_replaced_whatever_the_alarm_says"
            ): (
                "deploy-etcd",
                "replace-member",
                "recover-etcd",
            ),
        },
        end="the members have the majority's data, or the chosen member's, and the alarm is off",
        named=(
            "disarm-alarms",
            "restore-etcd",
        ),
        why="tests/component/test_alarms.py applies the plan of disarm-alarms to a real etcd; "
        "no test restores a backup while this alarm is on",
    ),
    "alarm-nospace": Row(
        _lab("maintenance", "a_higher_quota_rolls_through_a_full_cluster"),
        heals={
            _lab("maintenance", "a_higher_quota_rolls_through_a_full_cluster"): (
                "replace-member",
                "deploy-etcd",
                "disarm-alarms",
            ),
            _lab("maintenance", "a_full_database_is_compacted_rewritten_and_disarmed"): (
                "defrag-etcd --compact",
                "disarm-alarms",
            ),
        },
        end="every member takes writes, and the alarm is off",
        named=("remove-member",),
        why="remove-member while the alarm is on is a plan of tests/unit/test_member_alarms.py; "
        "replace-member, which removes too, is run",
    ),
    "alarm-raised": Row(
        _lab("maintenance", "a_full_database_is_compacted_rewritten_and_disarmed"),
        heals={
            _lab("maintenance", "a_full_database_is_compacted_rewritten_and_disarmed"): (
                "defrag-etcd --compact",
                "disarm-alarms",
            ),
            _lab("maintenance", "a_higher_quota_rolls_through_a_full_cluster"): ("deploy-etcd",),
        },
        end="there is no alarm",
    ),
    "another-clusters-host": Row(
        _lab("destroy", "one_host_is_cleaned_of_what_another_cluster_has_there"),
        heals={
            _lab("destroy", "one_host_is_cleaned_of_what_another_cluster_has_there"): (
                "clean-host --dry-run",
                "clean-host",
                "forget-worker --inventory",
            ),
            _lab("destroy", "a_member_of_another_cluster_is_cleaned_when_it_has_left"): (
                "remove-member --inventory",
                "clean-host",
            ),
        },
        end="nothing of the other cluster is on the host, and its etcd has a quorum",
        named=("forget-worker",),
        why="forget-worker is run, with the other cluster's inventory",
    ),
    "ansible-not-carried-over": Row(
        _unit("ansible_read", "groups_in_a_circle"),
        named=("import-ansible --to", "trust-hosts"),
        why=_EDIT,
    ),
    "argument-missing": Row(
        _unit("remedies", "a_command_without_its_argument"),
        named=("check-nodes", "forget-worker", "merge-reports"),
        why="each names its own command, with the argument",
    ),
    "argument-unexpected": Row(_unit("usage", "an_argument_too_many"), why=_HERE),
    "auth-differs": Row(
        _lab("auth", "workers_wait_for_the_authentication_that_is_declared"),
        heals={
            _lab("auth", "it_is_turned_on_and_the_workers_are_live"): (
                "enable-auth",
                "deploy-etcd",
            ),
            _lab("auth", "it_is_turned_off_again"): ("disable-auth",),
        },
        end="authentication is as declared, and all workers are LIVE",
        named=("check-nodes",),
    ),
    "backup-disk-shared": Row(
        _unit(
            "preflight",
            "TestMembers::test_room_for_the_timers_backups"
            "[backup1-/dev/sda1-21474836480--expected1]",
        ),
        heals={
            _lab("backup", "the_members_take_turns_and_check_nodes_shows_the_newest"): (
                "backup-etcd --fetch",
            ),
        },
        end="the newest backup is on this machine",
    ),
    "backup-missing": Row(
        _lab("backup", "the_members_take_turns_and_check_nodes_shows_the_newest"),
        heals={
            _lab("backup", "the_members_take_turns_and_check_nodes_shows_the_newest"): (
                "check-nodes",
            ),
            _lab("backup", "a_timer_saves_and_prunes"): ("deploy-etcd",),
            _lab("backup", "retention"): ("backup-etcd",),
        },
        end="a backup is there, and check-nodes shows it",
    ),
    "backup-old": Row(
        _unit("stored", "the_newest_and_its_age"),
        heals={
            _lab("backup", "a_timer_saves_and_prunes"): ("deploy-etcd",),
            _lab("backup", "retention"): ("backup-etcd",),
        },
        end="the timer is there, and a new backup",
    ),
    "backup-run-failed": Row(
        _lab("backup", "the_members_take_turns_and_check_nodes_shows_the_newest"),
        named=("explain",),
        why=_HOST,
    ),
    "backup-unproven": Row(
        _lab("backup", "the_members_take_turns_and_check_nodes_shows_the_newest"),
        heals={
            _lab("backup", "retention"): ("backup-etcd",),
        },
        end="a proven backup is there",
        named=(
            "check-nodes",
            "explain",
        ),
    ),
    "ca-bundle-invalid": Row(
        _unit("external_ca", "a_bundle_that_cannot_be_used"),
        named=(
            "export-csrs --all",
            "import-certs",
            "rotate-certs",
        ),
        why="the operator puts the file right; an expired root of a CA elsewhere is replaced in "
        "plans of tests/unit/test_external_ca.py",
    ),
    "ca-expired": Row(
        _lab("rotate_certs", "a_ca_that_has_expired_is_replaced_in_one_outage"),
        heals={
            _lab("rotate_certs", "a_ca_that_has_expired_is_replaced_in_one_outage"): (
                "rotate-certs --ca --dry-run",
                "rotate-certs --ca",
            ),
        },
        end="the members serve by certificates of the new CA, and the data is there",
        named=("explain",),
    ),
    "ca-replaced": Row(
        _unit("rotate", "a_ca_that_has_expired_is_replaced_from_wherever_it_was_left"),
        named=(
            "check-nodes",
            "render-monitor",
        ),
        why="the operator gives the file to clients and machines of their own",
    ),
    "ca-unknown": Row(
        _lab("external_ca", "another_ca_follows_under_a_writer"),
        heals={
            _lab("external_ca", "another_ca_follows_under_a_writer"): (
                "export-csrs",
                "import-certs",
                "rotate-certs",
            ),
            _lab(
                "rotate_certs",
                "a_lost_ca_is_never_replaced_by_the_way_and_then_without_an_outage",
            ): (
                "rotate-certs --ca --ca-lost --dry-run",
                "rotate-certs --ca --ca-lost",
            ),
        },
        end="every member has a certificate of the new CA, and trusts it",
        named=(
            "rotate-certs --ca --ca-lost --dry-run --yes-outage",
            "rotate-certs --ca --ca-lost --yes-outage",
        ),
        why="the outage's plan, from wherever a killed run left it: tests/unit/test_lost_ca.py",
    ),
    "certificate-expiring": Row(
        _lab("external_ca", "a_first_deploy_by_an_intermediate"),
        heals={
            _lab("external_ca", "another_ca_follows_under_a_writer"): (
                "export-csrs",
                "import-certs",
                "rotate-certs",
            ),
            _lab("rotate_certs", "certificates_that_have_expired_are_renewed_without_a_restart"): (
                "rotate-certs",
            ),
        },
        end="the certificates are good for months",
        named=("deploy-etcd",),
        why="deploy-etcd renews a certificate in a plan of tests/unit/test_deploy_plan.py; the "
        "command for expired ones is run",
    ),
    "certificate-unverified": Row(
        _unit("check", "expiry_is_a_warning_and_then_an_error"),
        heals={
            _lab("rotate_certs", "certificates_that_have_expired_are_renewed_without_a_restart"): (
                "rotate-certs",
            ),
            _lab("rotate_certs", "a_ca_that_has_expired_is_replaced_in_one_outage"): (
                "rotate-certs --ca",
            ),
            _lab("external_ca", "another_ca_follows_under_a_writer"): (
                "export-csrs",
                "import-certs",
            ),
        },
        end="every listener shows the certificate that was made for it",
        named=(
            "check-nodes",
            "explain",
        ),
    ),
    "change-failed": Row(
        _lab("deploy_etcd", "a_setting_that_etcd_refuses_stops_at_the_first_member"),
        heals={
            _lab("deploy_etcd", "a_setting_that_etcd_refuses_stops_at_the_first_member"): (
                "deploy-etcd",
            ),
        },
        end="the members are as declared",
        named=(
            "audit",
            "logs",
        ),
    ),
    "changed-meanwhile": Row(
        _lab("worker_life", "decommissioned"),
        heals={
            _lab("worker_life", "decommissioned"): ("forget-worker --count",),
        },
        end="the one stale id is gone",
        named=("check-nodes",),
    ),
    "checksum-mismatch": Row(
        _unit("artifacts", "TestUrl::test_cut_short"),
        why=_HERE,
    ),
    "client-url-former": Row(
        _lab("client_urls", "another_clusters_workers_keep_the_former_url"),
        heals={
            _lab("client_urls", "another_clusters_workers_keep_the_former_url"): (
                "deploy-etcd --lock-out",
            ),
        },
        end="no member listens at a former client URL",
        named=(
            "deploy-etcd",
            "deploy-etcd --no-workers",
            "deploy-etcd --other-clusters-unknown",
            "render-client-config",
        ),
        why="the text says: deploy-etcd again, and without --no-workers; the word for an etcd that "
        "cannot be asked: tests/unit/test_client_urls.py",
    ),
    "clock-skew": Row(
        _unit("preflight", "clocks[-2-True]"),
        why=_HOST,
    ),
    "cluster-names-alike": Row(
        _unit("check", "files_of_an_authority_that_is_not_ours_are_looked_at"),
        named=("list-clusters",),
        why=_EDIT,
    ),
    "command-not-applicable": Row(
        _unit("rotate", "nothing_to_rotate"),
        named=(
            "check-nodes",
            "deploy-etcd",
            "destroy",
            "export-csrs",
            "import-certs",
            "rotate-certs",
            "show-inventory",
        ),
        why="each names the command for that state; none heals a trouble",
    ),
    "consent-missing": Row(
        _lab("destroy", "without_the_clusters_name_no_host_is_contacted"),
        heals={
            _lab("destroy", "another_clusters_host_is_left_alone"): ("destroy --yes-delete",),
        },
        end="nothing of the cluster is on its hosts, and another cluster's host is as it was",
        named=(
            "clean-host",
            "destroy --dry-run",
            "recover-etcd",
            "restore-etcd",
            "restore-etcd --undo",
            "rotate-certs",
            "trust-hosts",
        ),
        why="the others than destroy are named for their options",
    ),
    "data-disk-missing": Row(
        _lab("workers", "a_cache_disk_that_is_away_and_a_state_disk_that_is_away"),
        heals={
            _lab("workers", "a_cache_disk_that_is_away_and_a_state_disk_that_is_away"): (
                "start-workers",
            ),
        },
        end="the disk is back, and the worker is LIVE under its own identity",
        named=(
            "check-nodes",
            "forget-worker",
            "start-masters",
            "start-workers",
        ),
        why="a start on a new disk is planned in tests/unit/test_stores.py; forget-worker is run "
        "for worker-identity-invalid; the lab's double has no master",
    ),
    "data-loss-ahead": Row(
        _lab("recover", "a_survivor_whose_host_does_not_answer_comes_later"),
        heals={
            _lab("recover", "a_survivor_whose_host_does_not_answer_comes_later"): ("add-member",),
        },
        end="three members have the acknowledged write",
        named=("kept-data", "recover-etcd --dry-run", "restore-etcd --undo"),
        why="restore-etcd --undo is run for undo-impossible and recovery-unfinished",
    ),
    "defrag-stalls": Row(
        _unit("maintenance", "the_only_member_says_what_it_stalls"),
        heals={
            _lab("members", "one_becomes_three_becomes_five_and_the_workers_know"): ("add-member",),
        },
        end="the cluster has members that serve meanwhile",
    ),
    "deploy-first": Row(
        _unit("rotate", "nothing_to_rotate"),
        heals={
            _lab(
                "deploy_etcd", "the_first_run_makes_a_cluster_that_serves_through_every_endpoint"
            ): ("deploy-etcd",),
        },
        end="the members are as declared",
        named=("deploy-etcd --dry-run",),
    ),
    "disk-full": Row(
        _lab("interrupted", "a_disk_that_fills_during_the_upload_is_said_and_can_be_freed"),
        heals={
            _lab("which_cluster", "the_odd_one_may_be_chosen_and_the_others_data_is_kept"): (
                "kept-data",
                "kept-data --delete",
            ),
            _lab("worker_life", "a_release_that_does_not_start_stops_the_upgrade"): (
                "upgrade-workers --keep",
            ),
        },
        end="the folders that were named are gone, no others",
    ),
    "disk-unmeasured": Row(
        _unit("preflight", "TestRoom::test_what_cannot_be_measured_is_refused"),
        why="the operator mounts the disk, or declares another folder; nothing of this tool does",
    ),
    "disk-unsuitable": Row(
        _unit("preflight", "TestMembers::test_a_network_disk_is_a_warning"),
        why=_EDIT,
    ),
    "endpoints-stale": Row(
        _lab("auth", "members_come_and_go_meanwhile"),
        heals={
            _lab("auth", "members_come_and_go_meanwhile"): (
                "start-workers",
                "deploy-etcd",
            ),
        },
        end="every worker knows the endpoints",
        named=("deploy-etcd --no-workers",),
        why="deploy-etcd --no-workers is the command that caused it; the text says: without",
    ),
    "etcd-answer-cut": Row(
        _component("hostile_member", "an_endless_range_is_cut"),
        named=("list-clusters", "forget-worker", "enable-auth"),
        why="the operator finds out who writes so much, and deletes it",
    ),
    "etcd-answer-odd": Row(
        _component("hostile_member", "a_range_without_progress_is_an_error"),
        named=("check-nodes", "logs", "replace-member"),
        why="the member is replaced like any other one: see member-odd",
    ),
    "etcd-clusters-differ": Row(
        _lab("which_cluster", "an_odd_cluster_of_one_is_not_taken_for_the_cluster"),
        heals={
            _lab("which_cluster", "an_odd_cluster_of_one_is_not_taken_for_the_cluster"): (
                "backup-etcd --cluster-id",
                "replace-member --cluster-id",
            ),
            _lab("which_cluster", "the_odd_one_may_be_chosen_and_the_others_data_is_kept"): (
                "deploy-etcd --cluster-id",
            ),
        },
        end="one cluster of three has every acknowledged write; the others' data is kept aside",
        named=("check-nodes",),
    ),
    "etcd-data-differ": Row(
        _lab("which_cluster", "the_member_whose_data_differ_is_replaced_whatever_the_alarm_says"),
        heals={
            _lab(
                "which_cluster", "the_member_whose_data_differ_is_replaced_whatever_the_alarm_says"
            ): (
                "replace-member",
                "recover-etcd",
            ),
            _lab(
                "which_cluster",
                "a_healthy_member_that_etcd_does_not_start_beside_an_odd_one",
            ): (
                "deploy-etcd",
                "replace-member",
            ),
        },
        end="all members have the majority's data, or the chosen member's",
        named=(
            "defrag-etcd --compact",
            "restore-etcd",
        ),
        why="no test has two releases that keep different tombstones, nor restores a backup over "
        "members that differ",
    ),
    "etcd-history-behind": Row(
        _lab("which_cluster", "two_wiped_of_three_are_no_cluster_though_their_ids_are_right"),
        heals={
            _lab("which_cluster", "two_wiped_of_three_are_no_cluster_though_their_ids_are_right"): (
                "recover-etcd --cluster-id",
                "recover-etcd",
            ),
            _lab("which_cluster", "all_wiped_comes_back_from_a_backup"): ("restore-etcd",),
            _lab("destroy", "another_clusters_host_is_left_alone"): ("destroy",),
        },
        end="one cluster with the newer data, or with those of the backup",
        named=("deploy-etcd",),
        why="no test deletes the files of a cluster whose data is gone for good",
    ),
    "etcd-login-refused": Row(
        _lab("auth", "a_login_that_etcd_does_not_know"),
        heals={
            _lab("auth", "a_login_that_etcd_does_not_know"): ("enable-auth", "restart-workers"),
        },
        end="the user is there again, and all workers are LIVE",
        named=("check-nodes",),
    ),
    "etcd-members-unseen": Row(
        _lab("which_cluster", "one_member_is_not_the_cluster_while_the_others_cannot_be_reached"),
        heals={
            _lab(
                "which_cluster", "one_member_is_not_the_cluster_while_the_others_cannot_be_reached"
            ): ("replace-member --cluster-id",),
        },
        end="the hosts can be reached again, and one cluster of three has every acknowledged write",
        named=(
            "backup-etcd --cluster-id",
            "check-nodes",
        ),
        why="tests/component/test_which_cluster.py names the id to a real etcd; backup-etcd with "
        "it is run for etcd-clusters-differ",
    ),
    "etcd-not-running": Row(
        _lab("workers", "without_etcd_and_with_it_again"),
        heals={
            _lab("workers", "without_etcd_and_with_it_again"): ("deploy-etcd",),
            _lab("auth", "it_is_turned_on_and_the_workers_are_live"): ("enable-auth",),
            _lab("recover", "what_may_be_lost_is_said_before"): ("recover-etcd",),
            _lab("which_cluster", "all_wiped_comes_back_from_a_backup"): ("restore-etcd",),
        },
        end="etcd serves, and start-workers goes on",
        named=(
            "check-nodes",
            "status",
        ),
    ),
    "etcd-refused": Row(
        _unit("client", "a_refusal_says_what_the_server_said"),
        named=(
            "check-nodes",
            "logs",
        ),
        why=_LOOK,
    ),
    "etcd-space-low": Row(
        _unit("health", "a_database_that_is_nearly_full[0.81-True]"),
        heals={
            _lab("maintenance", "a_full_database_is_compacted_rewritten_and_disarmed"): (
                "defrag-etcd --compact",
            ),
            _lab("maintenance", "a_higher_quota_rolls_through_a_full_cluster"): ("deploy-etcd",),
        },
        end="the database has space",
    ),
    "etcd-tls-failed": Row(
        _unit("client", "errors_are_told_apart[UNAVAILABLE-details1-TLS failed]"),
        heals={
            _lab("rotate_certs", "certificates_that_have_expired_are_renewed_without_a_restart"): (
                "rotate-certs",
            ),
        },
        end="every member has new certificates and serves",
        named=(
            "check-nodes",
            "deploy-etcd --dry-run",
        ),
    ),
    "etcd-v2-data": Row(
        _component("lives", "v2_data_is_found_before_3_6_and_can_be_removed"),
        named=(
            "deploy-etcd",
            "explain",
            "logs",
            "upgrade-etcd",
        ),
        why="the test does what the page says to a real etcd, by its flags, and then upgrades it",
    ),
    "etcd-version-differs": Row(
        _lab("upgrade", "what_is_refused_changes_nothing"),
        heals={
            _lab("upgrade", "the_first_minor_is_finished_after_a_kill"): ("upgrade-etcd",),
        },
        end="every member runs the release",
    ),
    "etcd-version-unfit": Row(
        _unit("before_hops", "no_member_joins_a_release_that_would_give_it_other_data[3.5.5]"),
        heals={
            _lab("upgrade", "the_first_minor_is_finished_after_a_kill"): ("upgrade-etcd",),
        },
        end="every member runs a release without known defects",
        named=(
            "add-member",
            "defrag-etcd",
            "deploy-etcd",
            "disarm-alarms",
            "enable-auth",
            "remove-member",
        ),
        why="the lab has no release that damages data; the commands are run on others",
    ),
    "external-certificate-needed": Row(
        _lab("external_ca", "a_first_deploy_by_an_intermediate"),
        heals={
            _lab("external_ca", "a_first_deploy_by_an_intermediate"): (
                "export-csrs",
                "import-certs",
                "deploy-etcd",
            ),
            _lab("external_ca", "another_ca_follows_under_a_writer"): (
                "export-csrs --all",
                "rotate-certs",
            ),
        },
        end="the cluster serves with certificates of the CA elsewhere",
    ),
    "file-exists": Row(
        _unit("inventory_example", "it_never_overwrites"),
        why=_HERE,
    ),
    "file-unusable": Row(
        _unit("pki", "a_bad_signing_request_is_refused"),
        heals={
            _lab("external_ca", "another_ca_follows_under_a_writer"): ("export-csrs",),
        },
        end="the requests are there",
        named=("audit",),
    ),
    "file-unwritable": Row(
        _unit("kubernetes", "a_file_of_somebody_elses_stays"),
        why=_HERE,
    ),
    "folder-in-use": Row(
        _lab("folders", "a_folder_that_another_service_uses"),
        heals={
            _lab("folders", "a_folder_that_another_service_uses"): ("deploy-etcd --take-over",),
        },
        end="the folder is the service's, and destroy gives it back",
        named=("add-member", "replace-member", "start-masters", "start-workers"),
        why=_EDIT,
    ),
    "folder-not-roots": Row(
        _unit("preflight", "a_folder_of_roots_below_one_of_a_service[way1-error]"),
        why=_HOST,
    ),
    "folder-unwritable": Row(
        _unit("preflight", "a_folder_that_root_cannot_write_in"),
        why=_HOST,
    ),
    "foreign-installation": Row(
        _lab("preflight", "the_remedy_by_hand[an etcd of someone else's]"),
        heals={
            _lab("destroy", "one_host_is_cleaned_of_what_another_cluster_has_there"): (
                "clean-host",
            ),
            _lab("preflight", "the_remedy_by_hand"): ("deploy-etcd --dry-run",),
        },
        end="preflight passes; the data is kept",
    ),
    "host-key-changed": Row(
        _lab("preflight", "a_host_with_another_key_is_not_talked_to"),
        named=("trust-hosts",),
        why=_HERE,
    ),
    "host-key-unknown": Row(
        _lab("preflight", "a_host_of_unknown_key_is_not_talked_to"),
        named=("trust-hosts", "trust-hosts --fingerprints --yes"),
        why=_HERE,
    ),
    "host-not-cleaned": Row(
        _unit("member_alarms", "a_host_with_a_unit_of_somebody_elses_is_not_cleaned"),
        heals={
            _lab("destroy", "a_member_of_another_cluster_is_cleaned_when_it_has_left"): (
                "clean-host",
            ),
        },
        end="nothing of the old member is on its host",
    ),
    "host-not-unique": Row(
        _unit("preflight", "a_host[values5-h2 has the same hostname: host3]"),
        heals={
            _lab("destroy", "one_host_is_cleaned_of_what_another_cluster_has_there"): (
                "clean-host",
            ),
        },
        end="the name is not on two hosts of the cluster",
        why=_HOST,
    ),
    "host-output-unreadable": Row(
        _unit("observe", "no_text_gives_another_error"),
        named=("status --verbose",),
        why=_HOST,
    ),
    "host-unreachable": Row(
        _unit("check", "a_host_that_cannot_be_asked_is_a_problem"),
        heals={
            _lab("which_cluster", "a_wiped_member_is_replaced"): ("replace-member",),
            _lab("worker_life", "decommissioned"): ("decommission-worker",),
        },
        end="the cluster goes on without the host",
        named=("export-ssh-config",),
    ),
    "host-unsupported": Row(
        _unit("preflight", "a_host[values1-CPU is riscv64]"),
        why=_HOST,
    ),
    "info-nodes-failed": Row(
        _unit("nodes", "all_that_was_said_is_reported"),
        named=("check-nodes --nodes-timeout",),
        why=_LOOK,
    ),
    "installation-broken": NoRow(
        "it ends the program before a test could note it: tests/unit/test_first_second.py"
    ),
    "internal-error": Row(
        _unit("run", "TestAMistakeOfOurs::test_it_is_one_line"),
        named=(
            "check-nodes",
            "check-nodes --debug",
        ),
        why=_LOOK,
    ),
    "interrupted": Row(
        _lab("interrupted", "ctrl_c_at_any_time_leaves_no_lock_and_no_half_file"),
        heals={
            _lab("interrupted", "ctrl_c_at_any_time_leaves_no_lock_and_no_half_file"): (
                "deploy-etcd",
            ),
        },
        end="the members are as declared",
    ),
    "inventory-conflict": Row(
        _unit("inventory_loader", "problem[key twice]"),
        named=("show-inventory",),
        why=_EDIT,
    ),
    "inventory-incomplete": Row(
        _unit("inventory_loader", "problem[client TLS]"),
        named=("init-inventory",),
        why=_EDIT,
    ),
    "inventory-invalid": Row(
        _unit("kubernetes", "it_needs_workers"),
        named=(
            "inventory-schema",
            "show-inventory",
        ),
        why=_EDIT,
    ),
    "inventory-key-missing": Row(
        _unit("inventory_loader", "problem[missing key]"),
        named=("init-inventory",),
        why=_EDIT,
    ),
    "inventory-key-owned": Row(
        _unit("inventory_loader", "problem[owned setting]"),
        why=_EDIT,
    ),
    "inventory-missing": Row(
        _unit("inventory_loader", "missing_file"),
        named=(
            "import-ansible",
            "init-inventory",
        ),
        why=_HERE,
    ),
    "inventory-no-effect": Row(
        _unit("inventory_loader", "problem[bundle of no CA]"),
        why=_EDIT,
    ),
    "inventory-range-invalid": Row(
        _unit("inventory_loader", "problem[backward range]"),
        named=("show-inventory",),
        why=_EDIT,
    ),
    "inventory-secret-inline": Row(
        _unit("inventory_loader", "problem[inline secret]"),
        why=_EDIT,
    ),
    "inventory-syntax": Row(
        _unit("inventory_loader", "problem[tab]"),
        named=(
            "init-inventory",
            "show-inventory",
        ),
        why=_EDIT,
    ),
    "inventory-unknown-key": Row(
        _unit("inventory_loader", "problem[underscores]"),
        named=("init-inventory", "inventory-schema"),
        why=_EDIT,
    ),
    "inventory-unreadable": Row(
        _unit("inventory_loader", "folder"),
        why=_HERE,
    ),
    "inventory-unwise": Row(
        _unit("inventory_loader", "problem[words that YAML 1.1 had]"),
        why=_EDIT,
    ),
    "inventory-value-invalid": Row(
        _unit("inventory_loader", "problem[root]"),
        named=("enable-auth", "init-inventory"),
        why="enable-auth is named for users that it makes; the inventory is edited",
    ),
    "java-unfit": Row(
        _unit("tarball", "a_java_that_the_tarball_refuses"),
        named=("start-workers --dry-run",),
        why=_EDIT,
    ),
    "journal-group-differs": NoRow(
        "the lab's double has no master; upstream's journal commands need three that run"
    ),
    "journal-outvoted": Row(
        _unit("journal", "a_growth_from_three_to_five_is_one_at_a_time_too"),
        named=("start-masters",),
        why="the lab's double has no master: the plans of start-masters are unit tests",
    ),
    "kept-data-large": Row(
        _unit("stored", "former_data_above_a_share_of_the_disk"),
        heals={
            _lab("which_cluster", "the_odd_one_may_be_chosen_and_the_others_data_is_kept"): (
                "kept-data",
                "kept-data --delete",
            ),
        },
        end="the folder that was named is gone, no other",
    ),
    "kubectl-failed": Row(
        _unit("kubernetes", "no_answer_and_no_kubectl"),
        named=("check-nodes --kube-context --kubernetes --namespace",),
        why=_LOOK,
    ),
    "lease-not-removed": Row(
        _component("leases", "a_lease_that_etcd_does_not_remove"),
        named=(
            "decommission-worker --revoke-lease",
            "forget-worker",
        ),
        why="the test applies the plan of decommission-worker --revoke-lease to a real etcd",
    ),
    "leases-not-asked": Row(
        _unit("check", "leases_that_cannot_be_asked_for_hide_no_registration"),
        named=("check-nodes",),
        why=_LOOK,
    ),
    "listener-unreachable": Row(
        _unit("preflight", "TestWorkers::test_etcd_out_of_reach"),
        why=_HOST,
    ),
    "lock-lost": Row(
        _unit("lock", "a_lock_that_is_lost_is_noticed"),
        why=_LOOK,
    ),
    "lock-unavailable": Row(
        _unit("lock", "a_host_that_cannot_lock"),
        why=_HOST,
    ),
    "locked": Row(
        _lab("workers", "batches_go_side_by_side_unless_a_host_is_locked"),
        heals={
            _lab("workers", "batches_go_side_by_side_unless_a_host_is_locked"): ("start-workers",),
        },
        end="the second run has done its part",
        named=("audit",),
    ),
    "logins-slow": Row(
        _unit("auth_plan", "no_more_workers_restart_at_a_time_than_etcd_can_log_in"),
        named=("deploy-etcd", "enable-auth --dry-run"),
        why="cheaper logins only save time: the plan works with both",
    ),
    "master-no-primary": Row(
        _component("masters", "all_listen_and_none_is_the_primary"),
        named=(
            "logs",
            "start-masters",
        ),
        why="the lab's double has no master: the plans of start-masters are unit tests",
    ),
    "master-not-answering": NoRow("the lab's double has no master"),
    "member-count": Row(
        _unit("inventory_show", "origins"),
        why=_EDIT,
    ),
    "member-data-lost": Row(
        _lab("members", "a_lost_member_is_replaced_and_nothing_else_is_restarted"),
        heals={
            _lab("members", "a_lost_member_is_replaced_and_nothing_else_is_restarted"): (
                "replace-member",
            ),
            _lab("which_cluster", "all_stopped_and_all_wiped"): ("deploy-etcd",),
            _lab("which_cluster", "a_data_disk_that_is_away"): ("restore-etcd",),
        },
        end="the member has the data again, and the others were not restarted",
        named=("remove-member",),
        why="remove-member is named for a member whose name changes: see members-unclear",
    ),
    "member-down": Row(
        _lab("etcd_alone", "a_stopped_member_is_seen"),
        heals={
            _lab("etcd_alone", "a_stopped_member_is_seen"): ("deploy-etcd",),
            _lab("which_cluster", "a_wiped_member_is_replaced"): ("replace-member",),
        },
        end="the member serves again",
        named=(
            "check-nodes",
            "logs",
            "status",
        ),
    ),
    "member-is-learner": Row(
        _unit("health", "a_learner_is_a_warning"),
        heals={
            _lab("members", "a_run_that_is_killed_anywhere_in_between_is_finished_by_the_next"): (
                "deploy-etcd",
            ),
        },
        end="it is a voter",
        named=("logs",),
    ),
    "member-not-declared": Row(
        _lab("members", "one_becomes_three_becomes_five_and_the_workers_know"),
        heals={
            _lab("members", "one_becomes_three_becomes_five_and_the_workers_know"): (
                "deploy-etcd --remove",
            ),
        },
        end="the members that were named are gone, and the workers know it",
        named=(
            "deploy-etcd --dry-run --remove",
            "restore-etcd",
            "restore-etcd --without",
            "rotate-certs --ca",
            "upgrade-etcd",
        ),
        why="restore-etcd, rotate-certs --ca and upgrade-etcd are named as commands that refuse; "
        "with --without, tests/integration/test_restore.py makes the plan only",
    ),
    "member-not-joined": Row(
        _unit("inventory_external", "its_own_members_are_no_disagreement"),
        heals={
            _lab("members", "one_becomes_three_becomes_five_and_the_workers_know"): (
                "add-member",
                "deploy-etcd",
            ),
        },
        end="the member is a voter, and the workers know it",
    ),
    "member-odd": Row(
        _lab("which_cluster", "an_odd_cluster_of_one_is_not_taken_for_the_cluster"),
        heals={
            _lab("which_cluster", "an_odd_cluster_of_one_is_not_taken_for_the_cluster"): (
                "replace-member",
                "replace-member --cluster-id",
            ),
        },
        end="it joins again as a new member, its data kept aside",
    ),
    "members-unclear": Row(
        _lab("rotate_certs", "peer_tls_is_turned_on_under_a_writer_and_never_off_by_accident"),
        heals={
            _lab("members", "the_leader_is_removed_after_another_has_taken_the_lead"): (
                "remove-member",
            ),
            _lab("members", "one_becomes_three_becomes_five_and_the_workers_know"): (
                "deploy-etcd",
            ),
        },
        end="one change after the other is made",
    ),
    "membership-changing": Row(
        _lab("workers", "and_back_to_etcd_every_worker_is_who_it_was"),
        heals={
            _lab("workers", "and_back_to_etcd_every_worker_is_who_it_was"): ("start-workers",),
        },
        end="all workers have the declared type",
        named=(
            "check-nodes",
            "render-client-config",
        ),
    ),
    "memory-short": Row(
        _unit("preflight", "TestWorkers::test_memory[2147483647-True]"),
        why=_HOST,
    ),
    "name-unknown": Row(
        _unit("ansible_convert", "the_groups"),
        named=("show-inventory",),
        why=_EDIT,
    ),
    "name-unresolved": Row(
        _unit("preflight", "TestMembers::test_a_name_that_does_not_resolve"),
        why=_HOST,
    ),
    "not-begun": Row(
        _lab("worker_life", "a_rolling_restart_stops_at_the_first_failure_and_goes_on"),
        heals={
            _lab("worker_life", "a_rolling_restart_stops_at_the_first_failure_and_goes_on"): (
                "restart-workers",
            ),
        },
        end="the rest is restarted",
    ),
    "option-invalid": Row(
        _unit("run", "an_unknown_format"),
        named=(
            "kept-data --delete",
            "remove-member",
        ),
        why="each names the option again",
    ),
    "option-unknown": Row(_unit("usage", "an_unknown_option"), why=_HERE),
    "other-clusters-live": Row(
        _component("clusters", "authentication_locks_nobody_out_unasked"),
        named=(
            "deploy-etcd",
            "enable-auth --lock-out",
            "list-clusters",
            "recover-etcd",
            "remove-member --lock-out",
            "replace-member",
            "restore-etcd",
        ),
        why="the plan of enable-auth --lock-out is made and applied there to a real etcd; those "
        "of the members: tests/unit/test_cut_off.py",
    ),
    "other-clusters-unknown": Row(
        _lab("destroy", "an_etcd_that_cannot_be_asked_is_destroyed_by_name_only"),
        heals={
            _lab("destroy", "an_etcd_that_cannot_be_asked_is_destroyed_by_name_only"): (
                "destroy --other-clusters-unknown",
            ),
        },
        end="the cluster is gone from its hosts",
        named=(
            "clean-host",
            "deploy-etcd",
            "explain",
            "list-clusters",
            "recover-etcd",
            "remove-member",
            "replace-member",
            "restore-etcd",
        ),
        why="the options of a restore and a recovery: tests/unit/test_other_clusters.py",
    ),
    "page-store-away": Row(
        _lab("workers", "a_cache_disk_that_is_away_and_a_state_disk_that_is_away"),
        heals={
            _lab("workers", "a_cache_disk_that_is_away_and_a_state_disk_that_is_away"): (
                "restart-workers",
                "start-workers",
            ),
        },
        end="the worker uses the store again, or the inventory does not have it",
    ),
    "page-store-shrinks": Row(
        _unit("state", "TestPageStore::test_one_that_shrinks_is_named"),
        why=_NOTHING,
    ),
    "part-missing": Row(
        _unit("parts", "a_missing_part_is_named"),
        named=(
            *("check-nodes", "status", "start-workers", "stop-workers", "restart-workers"),
            *("upgrade-workers", "rollback-workers", "merge-reports"),
            "check-nodes --batch --format",
        ),
        why="it names the same command again",
    ),
    "parts-disagree": Row(
        _unit("parts", "where_parts_have_seen_etcd_differently_the_worst_counts"),
        named=("check-nodes",),
        why=_LOOK,
    ),
    "parts-mixed": Row(
        _unit("parts", "the_same_part_twice"),
        named=("show-inventory",),
        why=_HERE,
    ),
    "path-in-the-way": Row(
        _unit("preflight", "something_in_the_way[resource4-dir-True]"),
        named=("clean-host",),
        why=_EDIT,
    ),
    "peer-unreachable": Row(
        _unit("preflight", "TestMembers::test_a_peer_that_cannot_be_reached"),
        why=_HOST,
    ),
    "pki-missing": Row(
        _unit("pki", "a_missing_authority_says_where_it_comes_from"),
        heals={
            _lab(
                "deploy_etcd", "the_first_run_makes_a_cluster_that_serves_through_every_endpoint"
            ): ("deploy-etcd",),
        },
        end="a new cluster has a CA",
        named=("explain",),
    ),
    "pki-unusable": Row(
        _unit("pki", "an_authority_of_a_clock_that_was_ahead_is_refused"),
        heals={
            _lab(
                "deploy_etcd", "the_first_run_makes_a_cluster_that_serves_through_every_endpoint"
            ): ("deploy-etcd",),
        },
        end="a new cluster has a new CA",
        named=("explain",),
    ),
    "pods-differ": NoRow(
        "needs pods: tests/component/test_kubernetes.py; its remedy is helm upgrade"
    ),
    "port-not-reserved": Row(
        _unit("connection_ports", "a_host_with_a_wider_range"),
        why=_HOST,
    ),
    "port-taken": Row(
        _unit("preflight", "TestWorkers::test_a_port"),
        why=_HOST,
    ),
    "preflight-failed": Row(
        _unit("preflight", "noting_goes_on"),
        named=("deploy-etcd --dry-run",),
        why=_LOOK,
    ),
    "property-unknown": Row(
        _unit("client_config", "a_property_that_the_release_does_not_have_is_kept_and_said_once"),
        why=_LOOK,
    ),
    "quorum-at-risk": Row(
        _lab("members", "removing_what_would_cost_the_quorum_is_refused"),
        heals={
            _lab("members", "removing_what_would_cost_the_quorum_is_refused"): ("deploy-etcd",),
            _lab("which_cluster", "a_wiped_member_is_replaced"): ("replace-member",),
            _lab("destroy", "a_member_of_another_cluster_is_cleaned_when_it_has_left"): (
                "remove-member --inventory",
                "clean-host",
            ),
        },
        end="all members are healthy",
        named=(
            "check-nodes",
            "logs",
            "stop-masters --inventory",
        ),
        why="stop-masters: the lab's double has no master",
    ),
    "quorum-lost": Row(
        _unit("check", "etcd_that_is_away_leaves_the_other_views"),
        heals={
            _lab("which_cluster", "all_stopped_and_all_wiped"): ("deploy-etcd",),
            _lab("recover", "what_may_be_lost_is_said_before"): ("recover-etcd",),
            _lab("which_cluster", "two_wiped_of_three_are_no_cluster_though_their_ids_are_right"): (
                "recover-etcd --cluster-id",
            ),
            _lab("which_cluster", "all_wiped_comes_back_from_a_backup"): ("restore-etcd",),
        },
        end="a quorum serves",
        named=(
            "check-nodes",
            "status",
        ),
    ),
    "quorum-not-lost": Row(
        _lab("recover", "refused_while_there_is_a_quorum"),
        heals={
            _lab("recover", "refused_while_there_is_a_quorum"): ("deploy-etcd",),
            _lab("which_cluster", "a_wiped_member_is_replaced"): ("replace-member",),
            _lab("which_cluster", "two_wiped_of_three_are_no_cluster_though_their_ids_are_right"): (
                "recover-etcd --cluster-id",
            ),
        },
        end="all members are healthy",
        named=("deploy-etcd --dry-run",),
    ),
    "read-failed": Row(
        _unit("read", "an_empty_file_proves_nothing"),
        named=(
            "check-nodes --hosts",
            "explain",
            "logs",
        ),
        why=_LOOK,
    ),
    "recovery-source-unfit": Row(
        _unit("hostile", "facts_that_are_no_numbers[]"),
        heals={
            _lab("recover", "what_may_be_lost_is_said_before"): ("recover-etcd",),
            _lab("backup", "no_other_command_meets_a_half_restored_cluster"): ("restore-etcd",),
        },
        end="another member, or the backup, has become the cluster",
        named=(
            "recover-etcd --dry-run",
            "restore-etcd --dry-run",
        ),
    ),
    "recovery-unfinished": Row(
        _lab("backup", "no_other_command_meets_a_half_restored_cluster"),
        heals={
            _lab("backup", "no_other_command_meets_a_half_restored_cluster"): ("restore-etcd",),
            _lab("recover", "killed_anywhere_it_is_finished_by_running_it_again"): (
                "recover-etcd",
            ),
            _lab("restore", "a_killed_undo_is_finished_by_running_it_again"): (
                "restore-etcd --undo",
            ),
        },
        end="the restored cluster serves, or the one from before, and nothing is left to do",
    ),
    "registration-live": Row(
        _lab("worker_life", "decommissioned"),
        heals={
            _lab("worker_life", "decommissioned"): ("decommission-worker",),
        },
        end="the worker is stopped, and its registration is gone",
    ),
    "registrations-unread": Row(
        _unit("check", "etcd_that_is_away_leaves_the_other_views"),
        named=("check-nodes",),
        why=_LOOK,
    ),
    "registrations-unused": Row(
        _lab("worker_life", "static_membership_waits_for_the_port"),
        heals={
            _lab("destroy", "one_host_is_cleaned_of_what_another_cluster_has_there"): (
                "forget-worker --inventory",
            ),
            _lab("worker_life", "static_membership_waits_for_the_port"): ("forget-worker",),
        },
        end="the key is gone",
        named=(
            "clean-host",
            "remove-member --inventory",
        ),
        why="clean-host and remove-member are named as what comes before, and other rows run them",
    ),
    "release-missing": Row(
        _unit("rolling", "TestRollback::test_two_of_them"),
        heals={
            _lab("worker_life", "an_upgrade_and_the_way_back"): ("upgrade-workers",),
        },
        end="the workers run the release",
        named=("rollback-workers", "rollback-workers --to"),
        why="rollback-workers --to is planned in unit tests; without --to it is run on hosts",
    ),
    "release-newer": Row(
        _lab("members", "one_becomes_three_becomes_five_and_the_workers_know"),
        heals={
            _lab("worker_life", "an_upgrade_and_the_way_back"): ("rollback-workers",),
            _lab("upgrade", "3_7_goes_back_to_3_6"): ("upgrade-etcd",),
        },
        end="the hosts run the older release",
        named=(
            "deploy-etcd --downgrade",
            "start-masters --downgrade",
            "upgrade-workers --downgrade",
        ),
        why="--downgrade is planned in tests/unit/test_deploy_plan.py and test_start_plan.py",
    ),
    "restart-pending": Row(
        _unit("masters", "the_primary_is_restarted_last"),
        heals={
            _lab("clusters", "a_master_is_started_by_its_unit"): ("start-workers",),
        },
        end="no restart is pending",
        named=("start-masters",),
        why="start-masters: the lab's double has no master",
    ),
    "root-needed": Row(
        _unit("preflight", "a_host[values0-no root]"),
        why=_HOST,
    ),
    "run-resumed": Row(
        _lab("worker_life", "a_rolling_restart_stops_at_the_first_failure_and_goes_on"),
        heals={
            _lab("worker_life", "a_rolling_restart_stops_at_the_first_failure_and_goes_on"): (
                "restart-workers",
            ),
        },
        end="all workers were restarted once",
    ),
    "secret-unreadable": Row(
        _unit("kubernetes", "a_secret_that_cannot_be_read"),
        named=("show-inventory",),
        why=_HERE,
    ),
    "secrets-left-out": Row(
        _unit("kubernetes", "secrets_are_in_values_of_their_own_alone"),
        named=("render-helm --credentials --to",),
        why=_EDIT,
    ),
    "section-missing": Row(
        _unit("kubernetes", "it_needs_workers"),
        named=("init-inventory",),
        why=_EDIT,
    ),
    "setting-removed": Row(
        _lab("upgrade", "what_is_refused_changes_nothing"),
        heals={
            _lab("deploy_etcd", "a_changed_setting_rolls_one_member_at_a_time_the_leader_last"): (
                "deploy-etcd",
            ),
            _lab("upgrade", "3_4_to_3_7_loses_no_write_and_no_worker"): ("upgrade-etcd",),
        },
        end="every member runs the newer release, without the setting",
    ),
    "snapshot-invalid": Row(
        _lab("backup", "nothing_happens_without_the_name_or_with_a_broken_file"),
        heals={
            _lab("backup", "no_other_command_meets_a_half_restored_cluster"): ("restore-etcd",),
        },
        end="a whole backup is restored",
        named=(
            "audit",
            "backup-etcd",
        ),
    ),
    "snapshot-other-cluster": Row(
        _lab("restore", "a_snapshot_of_another_cluster_wants_its_name"),
        heals={
            _lab("restore", "a_snapshot_of_another_cluster_wants_its_name"): (
                "restore-etcd --other-cluster",
            ),
        },
        end="the other cluster's data is in etcd, and this cluster's workers are registered",
        named=("audit", "list-clusters"),
    ),
    "ssh-config-invalid": NoRow("ssh itself refuses the file: the operator corrects it"),
    "ssh-key-unusable": Row(
        _unit("inventory_loader", "problem[key file]"),
        why=_HERE,
    ),
    "ssh-login-refused": Row(
        _unit("nodes", "all_that_was_said_is_reported"),
        named=("export-ssh-config",),
        why=_HERE,
    ),
    "static-workers-unused": Row(
        _lab("workers", "a_switch_to_static_names_what_it_leaves_in_etcd"),
        heals={
            _lab("workers", "and_back_to_etcd_every_worker_is_who_it_was"): ("start-workers",),
        },
        end="all workers are LIVE",
        named=("check-nodes --read",),
    ),
    "tarball-unavailable": Row(
        _unit("artifacts", "TestUrl::test_not_http"),
        why=_HERE,
    ),
    "tarball-unfit": Row(
        _unit("tarball", "one_that_is_cut_short"),
        why=_EDIT,
    ),
    "task-unknown": Row(_unit("usage", "an_unknown_task"), why=_HERE),
    "tool-too-old": Row(
        _lab("tool_version", "an_older_version_of_the_tool_refuses_on_all_hosts_at_once"),
        heals={
            _lab("tool_version", "an_older_version_of_the_tool_refuses_on_all_hosts_at_once"): (
                "deploy-etcd",
            ),
        },
        end="the version that the hosts name changes them again",
        named=("check-nodes --hosts", "status"),
    ),
    "tool-version-unknown": Row(
        _lab("tool_version", "a_file_without_a_version_is_a_warning_and_is_written_again"),
        heals={
            _lab("tool_version", "a_file_without_a_version_is_a_warning_and_is_written_again"): (
                "deploy-etcd",
            ),
        },
        end="the file names this version again",
    ),
    "undo-impossible": Row(
        _lab("restore", "the_way_back_has_a_consent_of_its_own"),
        heals={
            _lab("restore", "the_way_back_has_a_consent_of_its_own"): ("restore-etcd",),
        },
        end="the backup is restored",
        named=("kept-data", "kept-data --delete", "restore-etcd --undo"),
        why="kept-data --delete and restore-etcd --undo are named as what came before",
    ),
    "unit-masked": Row(
        _lab("preflight", "the_remedy_by_hand[a masked unit]"),
        heals={
            _lab("preflight", "the_remedy_by_hand"): ("deploy-etcd --dry-run",),
        },
        end="preflight passes",
    ),
    "unit-overridden": Row(
        _lab("preflight", "the_remedy_by_hand[a drop-in of an earlier installation]"),
        heals={
            _lab("preflight", "the_remedy_by_hand"): ("deploy-etcd --dry-run",),
        },
        end="preflight passes",
    ),
    "upgrade-path": Row(
        _lab("upgrade", "what_is_refused_changes_nothing"),
        heals={
            _lab("upgrade", "a_backup_of_3_4_is_restored"): ("restore-etcd",),
            _lab("upgrade", "3_4_to_3_7_loses_no_write_and_no_worker"): ("upgrade-etcd",),
        },
        end="every member runs the release, or the backup is restored",
    ),
    "upgrade-stopped": Row(
        _unit("before_hops", "an_alarm_stops_the_upgrade_before_the_next_member"),
        heals={
            _lab("upgrade", "the_first_minor_is_finished_after_a_kill"): ("upgrade-etcd",),
        },
        end="every member runs the new release",
        named=(
            "check-nodes",
            "logs",
        ),
    ),
    "voter-taken-for-learner": Row(
        _unit("before_hops", "a_learner_in_any_view_stops_the_upgrade"),
        named=(
            "add-member",
            "remove-member",
            "upgrade-etcd",
        ),
        why="tests/component/test_lives.py goes back to 3.5 and comes again on a real etcd; no "
        "test has a cluster of 3.6 whose members take voters for learners",
    ),
    "worker-address-changing": Row(
        _unit("moved", "what_other_commands_leave_to_start_workers"),
        heals={
            _lab("worker_life", "a_worker_whose_address_changes"): ("start-workers",),
        },
        end="the worker is registered at the new address",
    ),
    "worker-identity-cloned": Row(
        _lab("workers", "a_cloned_identity_is_refused"),
        heals={
            _lab("workers", "a_cloned_identity_is_refused"): ("start-workers",),
        },
        end="the clone has an identity of its own, and both are LIVE",
    ),
    "worker-identity-invalid": Row(
        _lab("workers", "an_identity_file_without_an_identity"),
        heals={
            _lab("workers", "an_identity_file_without_an_identity"): (
                "start-workers",
                "forget-worker",
            ),
        },
        end="the worker is LIVE under a new identity, and the old one is forgotten",
    ),
    "worker-keys-missing": Row(
        _lab("restore", "a_worker_without_both_keys_is_named"),
        heals={
            _lab("restore", "a_worker_without_both_keys_is_named"): ("start-workers",),
        },
        end="the worker is live",
        named=("check-nodes", "restart-workers"),
        why="restart-workers is for a worker whose host did not answer",
    ),
    "worker-left-out": Row(
        _lab("worker_life", "an_upgrade_and_the_way_back"),
        heals={
            _lab("worker_life", "an_upgrade_and_the_way_back"): (
                "start-workers",
                "start-workers",
            ),
            _lab("worker_life", "a_rolling_restart_stops_at_the_first_failure_and_goes_on"): (
                "restart-workers",
            ),
        },
        end="the worker runs the new release",
        named=("check-nodes", "disarm-alarms"),
        why="disarm-alarms is run for alarm-nospace; a restore under an alarm is a unit test",
    ),
    "worker-not-installed": Row(
        _unit("read", "before_the_first_start"),
        heals={
            _lab("workers", "the_first_run_registers_every_worker"): ("start-workers",),
        },
        end="the worker is LIVE",
        named=("start-workers",),
        why="with a name it is the same plan for fewer workers",
    ),
    "worker-not-live": Row(
        _lab("worker_life", "a_rolling_restart_stops_at_the_first_failure_and_goes_on"),
        heals={
            _lab("worker_life", "a_rolling_restart_stops_at_the_first_failure_and_goes_on"): (
                "start-workers",
            ),
        },
        end="the worker is LIVE",
        named=(
            "check-nodes",
            "logs",
        ),
    ),
    "worker-not-ready": Row(
        _lab("check_nodes", "a_port_of_another_process_is_not_ready"),
        heals={
            _lab("check_nodes", "a_port_of_another_process_is_not_ready"): ("restart-workers",),
        },
        end="all listeners of the worker answer",
        named=(
            "check-nodes --hosts",
            "logs",
        ),
    ),
    "worker-not-stopped": NoRow(
        "not tried: another process would have to keep the lease of a stopped worker alive"
    ),
    "worker-registered-elsewhere": Row(
        _lab("workers", "a_cloned_identity_is_refused"),
        heals={
            _lab("workers", "a_cloned_identity_is_refused"): (
                "start-workers",
                "start-workers",
            ),
            _lab("worker_life", "decommissioned"): ("forget-worker",),
        },
        end="every worker is LIVE under an identity of its own",
    ),
}
