"""Rules of the etcd cluster: its release, size, TLS and settings."""

from __future__ import annotations

import re

from provision.inventory import document, etcd_releases, model, sentences, settings
from provision.inventory.checks.context import Context
from provision.text import verb

#: Words for booleans that YAML had up to 1.1.
_MEANT = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
#: etcd's own defaults, in milliseconds.
_HEARTBEAT, _ELECTION, _MOST_ELECTION = 100, 1000, 50_000
_MOST_QUOTA = 8 << 30
#: Streams of one HTTP/2 connection to etcd, such as calls and leases.
_STREAMS = "max-concurrent-streams"
#: A duration in the form of Go's time.ParseDuration, or a number.
_DURATION = r"[0-9]{1,18}|([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+"


def _nothing_beside_external(context: Context) -> None:
    for key in context.entries("etcd"):
        if key != "external":
            what = f"{key!r} does not go with 'external': that etcd is managed elsewhere"
            remedy = "remove it, or 'external'"
            context.key_error(what, remedy, ("etcd", key), id="inventory-conflict")


def _endpoints_once(context: Context) -> None:
    seen: set[str] = set()
    for place, member in enumerate(context.inventory.etcd.members):
        path: document.Path = ("etcd", "external", "endpoints", place)
        if member.name in seen:
            context.error(
                f"{member.name} is listed twice",
                "list each member once",
                path,
                id="inventory-conflict",
            )
        seen.add(member.name)


def _etcd_version(context: Context) -> None:
    text, path = context.file.etcd.version, ("etcd", "version")
    version = model.version_tuple(text)
    if version < (3, 4, 0):
        what = (
            f"etcd {text} is too old: this tool adds members as learners, and learners "
            "came with 3.4"
        )
        context.error(what, etcd_releases.remedy(text), path, id="etcd-version-unfit")
        return
    etcd = context.file.etcd
    count = len(context.entries("etcd", "members"))
    holding = etcd_releases.states(count, auth=bool(etcd.auth.enabled))
    found = etcd_releases.unfit_problem(text, "", holding, allowed=etcd.allow_corrupting_version)
    if found is None:
        return
    if found.severity == "warning":
        context.warning(found.what, found.remedy, path, id="etcd-version-unfit")
    else:
        remedy = f"{found.remedy}, or set allow_corrupting_version: true"
        context.error(found.what, remedy, path, id="etcd-version-unfit")


def _releases(context: Context) -> None:
    for version, source in context.file.etcd.releases.items():
        path: document.Path = ("etcd", "releases", version)
        if source.package:
            what = f"release {version} cannot come from a package: a host has only one etcd package"
            context.error(
                what,
                "give a tarball by path or url",
                (*path, "package"),
                id="inventory-value-invalid",
            )
        elif version == context.file.etcd.version and source != context.file.etcd.source:
            what = (
                f"{version} is etcd.version: etcd.source has its tarball, so this tarball "
                "is not used"
            )
            context.warning(what, "remove it", path, id="inventory-no-effect")


def _client_tls(context: Context) -> None:
    tls = context.file.etcd.tls
    path: document.Path = ("etcd", "tls", "client")
    plain: document.Path = ("etcd", "tls", "plain_client_port")
    if tls.client and tls.plain_client_port is None and context.workers_use_etcd:
        context.error(
            "with TLS on the client port the workers cannot join: Alluxio 313 has no property for"
            " TLS to etcd",
            "set client: false, or plain_client_port for one more listener without TLS that only"
            " the workers' network can reach",
            path,
            plain,
            id="inventory-incomplete",
        )
    for field in ("plain_client_port", "plain_client_address"):
        if not tls.client and context.has("etcd", "tls", field):
            what = f"{field!r} has no effect: the client port already has no TLS"
            context.warning(
                what,
                "remove it, or set client: true",
                ("etcd", "tls", field),
                path,
                id="inventory-no-effect",
            )
    if tls.client and tls.plain_client_address and len(context.file.etcd.members) > 1:
        context.warning(
            f"the workers get only the address {tls.plain_client_address!r}, for all members",
            "leave it out to listen at each member's own address",
            ("etcd", "tls", "plain_client_address"),
            id="inventory-unwise",
        )


def _external_ca(context: Context) -> None:
    tls = context.file.etcd.tls
    path: document.Path = ("etcd", "tls", "ca")
    bundle: document.Path = ("etcd", "tls", "ca_bundle")
    if tls.ca == "external" and tls.ca_bundle is None:
        what = "an external CA needs its root certificate in the inventory"
        context.error(
            what,
            "give etcd.tls.ca_bundle, a PEM file with its root",
            path,
            bundle,
            id="inventory-incomplete",
        )
    if tls.ca == "own" and tls.ca_bundle is not None:
        what = "'ca_bundle' has no effect: this tool makes the cluster's CA"
        context.warning(
            what, "remove it, or set ca: external", bundle, path, id="inventory-no-effect"
        )


def _auth(context: Context) -> None:
    auth, alluxio = context.file.etcd.auth, context.file.alluxio
    path: document.Path = ("etcd", "auth", "enabled")
    if auth.enabled and auth.root_password is None:
        context.error(
            "etcd turns authentication on only if it has a user root",
            "give etcd.auth.root_password by reference: {env: NAME} or {file: PATH}",
            path,
            id="inventory-incomplete",
        )
    if alluxio is None or not context.workers_use_etcd:
        return
    login: document.Path = ("alluxio", "etcd", "username")
    if auth.enabled and alluxio.etcd.username is None:
        context.error(
            "with authentication on the workers cannot join without a login",
            "give alluxio.etcd.username and password",
            path,
            login,
            id="inventory-incomplete",
        )
    if alluxio.etcd.username == "root" and auth.enabled is not None:
        context.error(
            "as etcd's user root, the workers would have every right",
            "name a user of their own, such as alluxio: enable-auth makes it",
            login,
            id="inventory-value-invalid",
        )


def _backup(context: Context) -> None:
    backup, members = context.file.etcd.backup, context.file.etcd.members
    if backup is not None and backup.member is not None and backup.member not in members:
        context.error(
            f"there is no member {backup.member!r}",
            f"one of {', '.join(members)}",
            ("etcd", "backup", "member"),
            id="name-unknown",
        )


def _etcd_settings(context: Context) -> None:
    places: list[document.Path] = [("etcd", "settings")]
    places += [("etcd", "members", name, "settings") for name in context.file.etcd.members]
    for place in places:
        for key, entry in context.entries(*place).items():
            dashed = key.replace("_", "-")
            path = (*place, key)
            if dashed in model.OWNED_ETCD_SETTINGS:
                source = model.OWNED_ETCD_SETTINGS[dashed]
                context.key_error(
                    f"{key!r} is set by this tool",
                    f"it comes from {source}",
                    path,
                    id="inventory-key-owned",
                )
            elif dashed != key:
                context.key_error(
                    f"{key!r} is not a key of etcd.conf.yml",
                    f"write it as {dashed!r}",
                    path,
                    id="inventory-unknown-key",
                )
            elif (remedy := _unknown_setting(context, key)) is not None:
                context.key_error(
                    f"{key!r} is not a key of etcd.conf.yml: etcd would ignore it",
                    remedy,
                    path,
                    id="inventory-unknown-key",
                )
            elif not _is_of_another_type(context, path) and not _is_too_narrow(context, path):
                _warn_of_yes(context, path, entry.value)


#: They have rules of their own.
_CHECKED = frozenset({"heartbeat-interval", "election-timeout", "quota-backend-bytes"})


def _is_of_another_type(context: Context, path: document.Path) -> bool:
    """Report a value that etcd would not start with."""
    etcd, key = context.file.etcd, str(path[-1])
    of = etcd if len(path) == 3 else etcd.members.get(str(path[2]))
    if key in _CHECKED or of is None or key not in of.settings:
        return False
    try:
        settings.typed(key, of.settings[key])
    except ValueError as error:
        what = f"{key!r} must be {error}: etcd would not start"
        word = str(of.settings[key]).lower()
        remedy = f"write {_MEANT[word]}" if str(error) == "true or false" and word in _MEANT else ""
        context.error(what, remedy, path, id="inventory-value-invalid")
        return True
    return False


def _is_too_narrow(context: Context, path: document.Path) -> bool:
    """Report a connection with one stream. etcd starts with it, and no client can keep a lease: its
    keepalive has the stream, and every call beside it waits for ever. (0 means no limit.)"""
    etcd, key = context.file.etcd, str(path[-1])
    of = etcd if len(path) == 3 else etcd.members.get(str(path[2]))
    if key != _STREAMS or of is None or key not in of.settings:
        return False
    if settings.typed(key, of.settings[key]) != 1:
        return False
    context.error(
        f"{key!r} must be more than 1: workers and the backup's lock keep one stream for their "
        "lease, and wait for a second one",
        "leave it out, or write 100",
        path,
        id="inventory-value-invalid",
    )
    return True


def _unknown_setting(context: Context, key: str) -> str | None:
    """The remedy for a key that the declared release does not have; None when it has the key.

    A release that is not in the list yet counts as having every key.
    """
    etcd = context.file.etcd
    minor = None if etcd.source.package else ".".join(etcd.version.split(".")[:2])
    known = settings.keys(minor)
    if not known or key in known:
        return None
    if (others := settings.minors().get(key)) is not None:
        return (
            f"etcd {', '.join(others)} {verb(others, 'has', 'have')} it, but etcd {minor} does not"
        )
    return sentences.did_you_mean(key, known) or "etcd --help lists the keys"


def _warn_of_yes(context: Context, path: document.Path, value: document.Node) -> None:
    if isinstance(value, document.Scalar) and value.plain:
        word = value.text.lower()
        if word in _MEANT:
            what = f"{path[-1]!r} is the text {value.text!r}, not a boolean"
            remedy = f"write {_MEANT[word]}, or quote the text"
            context.warning(what, remedy, path, id="inventory-unwise")


def _election(context: Context) -> None:
    for member in context.members:
        heartbeat = member.settings.get("heartbeat-interval", _HEARTBEAT)
        election = member.settings.get("election-timeout", _ELECTION)
        for field, value in (("heartbeat-interval", heartbeat), ("election-timeout", election)):
            if type(value) is not int or value <= 0:
                what = f"{field!r} must be a whole number of milliseconds"
                context.error(
                    what, "", context.setting_path(member.name, field), id="inventory-value-invalid"
                )
                break
        else:
            assert isinstance(heartbeat, int)
            assert isinstance(election, int)
            _election_of(context, member.name, heartbeat, election)


def _election_of(context: Context, name: str, heartbeat: int, election: int) -> None:
    at = context.setting_path(name, "election-timeout")
    other = context.setting_path(name, "heartbeat-interval")
    if at[-1] != "election-timeout":
        at, other = other, at
    if election < 5 * heartbeat:
        context.error(
            f"etcd refuses an election-timeout ({election} ms) below 5 heartbeat-intervals"
            f" ({heartbeat} ms each)",
            f"set election-timeout to {5 * heartbeat} at least; 10 heartbeats are usual",
            at,
            other,
            id="inventory-value-invalid",
        )
    elif election > _MOST_ELECTION:
        what = f"etcd refuses an election-timeout above {_MOST_ELECTION} ms"
        context.error(what, "lower it", at, id="inventory-value-invalid")


def _compaction(context: Context) -> None:
    for member in context.members:
        mode = member.settings.get("auto-compaction-mode")
        kept = str(member.settings.get("auto-compaction-retention"))
        key = "auto-compaction-retention"
        at = context.setting_path(member.name, key)
        if mode not in ("periodic", "revision"):
            what = f"'auto-compaction-mode' is periodic or revision, not {str(mode)!r}"
            context.error(
                what,
                "",
                context.setting_path(member.name, "auto-compaction-mode"),
                id="inventory-value-invalid",
            )
        elif mode == "revision" and not re.fullmatch(r"[0-9]{1,18}", kept):
            # etcd would read a duration as a number of revisions: one for each nanosecond.
            what = f"with auto-compaction-mode revision, {key!r} is a number of revisions"
            at = at if at[-1] == key else context.setting_path(member.name, "auto-compaction-mode")
            context.error(f"{what}, not {kept!r}", "such as 1000", at, id="inventory-value-invalid")
        elif mode == "periodic" and not re.fullmatch(_DURATION, kept):
            what = f"{key!r} is a duration such as 30m or 1h (hours without a unit), not {kept!r}"
            context.error(what, "", at, id="inventory-value-invalid")


def _checkpoints(context: Context) -> None:
    """etcd ends at its start when leases' times are to be kept and are not even sent."""
    key = "experimental-enable-lease-checkpoint"
    for member in context.members:
        given = member.settings
        gates = str(given.get("feature-gates", "")).replace(" ", "").split(",")
        kept = _is_true(given.get(f"{key}-persist")) or "LeaseCheckpointPersist=true" in gates
        if kept and not (_is_true(given.get(key)) or "LeaseCheckpoint=true" in gates):
            here = f"{key}-persist" if f"{key}-persist" in given else "feature-gates"
            what = "etcd does not start with LeaseCheckpointPersist and without LeaseCheckpoint"
            at = context.setting_path(member.name, here)
            context.error(what, f"set {key}: true, too", at, id="inventory-value-invalid")


def _is_true(value: object) -> bool:
    return str(value).lower() in ("true", "t", "1")


def _quota(context: Context) -> None:
    for member in context.members:
        given = member.settings.get("quota-backend-bytes", 0)
        at = context.setting_path(member.name, "quota-backend-bytes")
        if type(given) is not int:
            what = "'quota-backend-bytes' must be a whole number of bytes"
            context.error(what, "such as 8589934592 for 8 GiB", at, id="inventory-value-invalid")
        elif given > _MOST_QUOTA:
            what = "etcd warns of a 'quota-backend-bytes' above 8 GiB"
            context.warning(
                what,
                "snapshots and restarts of a large database take long",
                at,
                id="inventory-unwise",
            )


def _member_count(context: Context) -> None:
    path: document.Path = ("etcd", "members")
    if path in context.unknown:
        return
    count = len(context.entries(*path))
    if count == 1:
        what = "one member only: the cluster does not survive the loss of a host"
        context.warning(what, "use 3, or 5 to survive two losses", path, id="member-count")
    elif count and count % 2 == 0:
        what = f"{count} members survive no more losses than {count - 1}"
        context.warning(what, "use an odd number of members", path, id="member-count")
    if count > 7:
        what = f"{count} members: every write waits for more members, and etcd recommends 7 at most"
        context.warning(what, "use 3, 5 or 7", path, id="member-count")


RULES = (
    _etcd_version,
    _releases,
    _client_tls,
    _external_ca,
    _auth,
    _backup,
    _etcd_settings,
    _election,
    _compaction,
    _checkpoints,
    _quota,
    _member_count,
)

#: For an external etcd.
EXTERNAL_RULES = (_nothing_beside_external, _endpoints_once)
