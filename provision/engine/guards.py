"""The guards of plans: what must be known before a plan is applied, or shown by a dry run.

Whether a guard applies follows from what the plan's steps do (:class:`Effect`), not from the
command. So a new command has every guard that its steps need, without a word of its own. A command
that must go without a guard is in :data:`EXEMPT`, with the reason.

:func:`provision.plans.proofs.require` asks the guards, in the one place that shows and applies
plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from provision.host.effects import Effect


class Guard(str, Enum):
    """One question that must be answered before the plan goes on; the value names it."""

    RUN_LOCK = "no other run changes these hosts"
    TOOL_VERSION = "no newer version of this tool changed these hosts"
    WHICH_CLUSTER = "it is known which etcd cluster this is"
    UNFINISHED = "no restore and no recovery is unfinished"
    KNOWN_CA = "the CA of the members' certificates is at hand"
    OTHER_CLUSTERS = "no other cluster's live workers are harmed unasked"
    LEASES = "etcd grants leases"


#: The effects that need each guard. One of them is enough.
APPLIES: Mapping[Guard, frozenset[Effect]] = {
    Guard.RUN_LOCK: frozenset(Effect) - {Effect.HERE},
    Guard.TOOL_VERSION: frozenset(Effect)
    - {Effect.HERE, Effect.ETCD, Effect.MEMBERS, Effect.CLIENTS, Effect.REMOVAL},
    Guard.WHICH_CLUSTER: frozenset(Effect) - {Effect.HERE},
    Guard.UNFINISHED: frozenset(Effect) - {Effect.HERE},
    Guard.KNOWN_CA: frozenset({Effect.TRUST}),
    Guard.OTHER_CLUSTERS: frozenset({Effect.ETCD_GONE, Effect.ETCD_BACK, Effect.CLIENTS}),
    Guard.LEASES: frozenset({Effect.WORKER}),
}

_OF_CLUSTER = (Guard.WHICH_CLUSTER, Guard.UNFINISHED)
_TRANSACTION = "each change is one transaction, which fails when the key has changed meanwhile"
_LATER = "its plan restarts workers only when the alarms are gone"
_DATA = "the data may contain an alarm, and workers without a lease are lost already"


def _all(guards: tuple[Guard, ...], why: str) -> dict[Guard, str]:
    return dict.fromkeys(guards, why)


#: The guards that a command does without, each with the reason.
EXEMPT: Mapping[str, Mapping[Guard, str]] = {
    "destroy": _all(_OF_CLUSTER, "takes everything away, with consent"),
    "clean-host": _all(_OF_CLUSTER, "removes what is another cluster's, with consent"),
    "restore-etcd": {
        **_all(_OF_CLUSTER, "rebuilds every member, with consent, and keeps the old data aside"),
        Guard.LEASES: _DATA,
    },
    "recover-etcd": {
        **_all(_OF_CLUSTER, "is for a lost quorum, with consent; it looks at the groups itself"),
        Guard.LEASES: _DATA,
    },
    "kept-data": _all(_OF_CLUSTER, "deletes only what was kept aside, by name"),
    "export-csrs": _all(_OF_CLUSTER, "makes keys beside those in use"),
    "import-certs": _all(_OF_CLUSTER, "touches no host"),
    "start-masters": _all(_OF_CLUSTER, "masters do not use etcd"),
    "stop-masters": _all(_OF_CLUSTER, "masters do not use etcd"),
    "stop-workers": _all(_OF_CLUSTER, "only stops workers"),
    "forget-worker": {Guard.RUN_LOCK: _TRANSACTION},
    "readmit-worker": {Guard.RUN_LOCK: _TRANSACTION},
    "deploy-etcd": {Guard.LEASES: _LATER},
    "add-member": {Guard.LEASES: _LATER},
    "remove-member": {Guard.LEASES: _LATER},
    "replace-member": {Guard.LEASES: _LATER},
}


def required(command: str, effects: frozenset[Effect]) -> tuple[Guard, ...]:
    """The guards that a plan of ``command`` with these ``effects`` needs, in their order."""
    without = EXEMPT.get(command, {})
    return tuple(g for g in Guard if g not in without and APPLIES[g] & effects)
