from __future__ import annotations

import errno
import gc
import os
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from provision.host import gather
from provision.host.facts import HostFacts, Probe, seen_by
from tests import shares

from .processes import Watch

# A busy machine is slow at times: that is no failure.
_fixtures = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile(
    "unit", deadline=None, max_examples=25, derandomize=True, suppress_health_check=_fixtures
)
#: `make fuzz`: other examples at every run, and many.
settings.register_profile("fuzz", deadline=None, max_examples=1000, suppress_health_check=_fixtures)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))

_watch = Watch()
_watch.start()

#: The files of other processes, when several of them share the tests.
_others = shares.left_out(Path(__file__).parent)
#: By file of tests, the processor time that it took: a busy machine does not change it.
_seconds: dict[str, float] = defaultdict(float)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return True if collection_path in _others else None


# More than in the program (provision/cli/lightly.py). Thousands of tests stay, with their modules:
# the collector would find nothing among them, and all tests leave fewer objects than that.
gc.set_threshold(1_000_000)


def pytest_collection_finish() -> None:
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    _watch.test = None if item.get_closest_marker("process") else item.nodeid
    began = time.process_time()
    try:
        return (yield)
    finally:
        _watch.test = None
        _seconds[item.path.name] += time.process_time() - began


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """The code under test may have taken the refusal for an error of the network."""
    _watch.outside.clear()
    result = yield
    assert not _watch.outside, _watch.outside
    return result


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """A file of which no test runs takes nothing."""
    for item in items:
        _seconds[item.path.name] += 0


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    chosen = session.config.option
    failed = vars(chosen).get("lf", False)  # not there without pytest's cache
    whole = not (chosen.keyword or chosen.maxfail or failed)
    if whole and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        shares.tell(_seconds)


@pytest.fixture
def unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every host refuses every connection."""

    def refused(*_: object, **named: object) -> NoReturn:
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.fixture(scope="session", autouse=True)
def _no_file_of_ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave no line in the audit log of whoever runs them, and nothing in their cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk() -> Iterator[None]:
    """The tests' files need not outlive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of how a plan is shown, on a run without an inventory: the guards of plans have
    tests of their own (test_proofs)."""
    from provision.cli.tasks import common

    monkeypatch.setattr(common, "_guarded", lambda run, plan: plan)


@pytest.fixture
def no_other_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other Alluxio cluster is in etcd: plans that ask go on (test_cut_off has the others)."""
    from provision.plans.etcd.state import other_clusters

    monkeypatch.setattr(other_clusters, "look", lambda *_: other_clusters.Others())


class _Strict(ModuleType):
    """:mod:`provision.host.gather`, of which a test may replace what looks at hosts. What it gives
    instead has only the facts that the probes name, as a look has."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("gather_facts", "require_facts") and not hasattr(value, "looks"):
            value = _looking(value)
        super().__setattr__(name, value)


def _looking(given: Callable[..., Any]) -> Callable[..., Any]:
    def look(fleet: object, probes: Mapping[Any, Probe], *more: Any, **named: Any) -> Any:
        found = given(fleet, probes, *more, **named)
        facts, rest = (found[0], found[1:]) if isinstance(found, tuple) else (found, None)
        if isinstance(facts, Mapping):
            facts = {
                m: seen_by(probes[m], f) if m in probes and isinstance(f, HostFacts) else f
                for m, f in facts.items()
            }
        return facts if rest is None else (facts, *rest)

    look.looks = True  # type: ignore[attr-defined]
    return look


gather.gather_facts.looks = gather.require_facts.looks = True  # type: ignore[attr-defined]
gather.__class__ = _Strict


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that every user may enter, as a service enters its own.

    Every session of pytest closes the folder above ``tmp_path`` to other users.
    """
    with tempfile.TemporaryDirectory(prefix="alxp-") as made:
        Path(made).chmod(0o755)
        yield Path(made)
