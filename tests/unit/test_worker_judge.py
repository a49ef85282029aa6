"""The judge of the workers' fault runs: it must see a look that is wrong."""

from __future__ import annotations

from tests.faults.worker_judge import Event, Keys, Look, detections, judge

TIMEOUT = 5.0


def keys(*alive: tuple[float, float, str]) -> Keys:
    """Keys seen each 0.1 s for 60 s: each given one from a time to a time."""
    found = Keys()
    for n in range(600):
        at = n / 10
        found.add(at, [w for begin, end, w in alive if begin <= at < end])
    return found


def look(at: float, state: str, info: str | None = None) -> Look:
    status = info or {"LIVE": "ONLINE", "FAILED": "OFFLINE"}[state]
    return Look(at, at + 1, {"a": state}, {"a": status})


KILL = Event("kill", ("a",), 10.0)


def test_a_kill_seen_in_time() -> None:
    seen = [look(5, "LIVE"), look(12, "LIVE"), look(16, "FAILED"), look(30, "FAILED")]
    found = judge(seen, [KILL], keys((0, 15, "a")), TIMEOUT)
    assert (found.right, found.wrong, found.info_right) == (4, [], 4)
    ((event, worker, key, said),) = detections(seen, [KILL], keys((0, 15, "a")))
    assert (event, worker, said) == (KILL, "a", 7.0)
    assert key is not None
    assert abs(key - 5) < 0.2


def test_a_state_that_etcd_never_had() -> None:
    (wrong,) = judge([look(5, "FAILED", "ONLINE")], [], keys((0, 60, "a")), TIMEOUT).wrong
    assert (wrong.worker, wrong.said, wrong.why) == ("a", "FAILED", "etcd had it LIVE")
    assert judge([look(30, "LIVE")], [KILL], keys((0, 15, "a")), TIMEOUT).wrong


def test_a_lease_that_does_not_end() -> None:
    """Agreeing with etcd is not enough: what is dead must be FAILED in time."""
    found = judge([look(17, "LIVE"), look(19, "LIVE")], [KILL], keys((0, 60, "a")), TIMEOUT)
    assert found.right == 1
    assert [w.why for w in found.wrong] == ["FAILED was due 1.0 s before"]


def test_a_leaders_loss_begins_the_time_anew() -> None:
    late = keys((0, 20, "a"))
    kept = [(t, a) for t, a in zip(late.times, late.alive, strict=True) if not 12 < t < 14]
    gap = Keys([t for t, _ in kept], [a for _, a in kept])
    loss = Event("leader", (), 12.0)
    assert gap.served_again(12.0) == 14.0
    assert judge([look(19, "LIVE")], [KILL, loss], gap, TIMEOUT).wrong == []
    assert judge([look(19, "LIVE")], [KILL], gap, TIMEOUT).wrong


def test_info_nodes_is_held_to_the_same() -> None:
    (wrong,) = judge([look(5, "LIVE", "OFFLINE")], [], keys((0, 60, "a")), TIMEOUT).wrong
    assert "info nodes had it OFFLINE" in wrong.why
    silent = Look(5, 6, {"a": "LIVE"}, {"a": None})
    assert judge([silent], [], keys((0, 60, "a")), TIMEOUT).info_missing == 1


def test_a_cut_that_is_healed_in_time_need_not_show() -> None:
    events = [Event("cut", ("a",), 10.0), Event("heal", ("a",), 12.0)]
    seen = [look(13, "LIVE"), look(30, "LIVE")]
    assert judge(seen, events, keys((0, 60, "a")), TIMEOUT).right == 2
    cut, heal = detections(seen, events, keys((0, 60, "a")))
    assert cut[2:] == (None, None)
    assert heal[3] == 2.0


def test_who_is_brought_back_during_a_look_may_be_live_in_it() -> None:
    start = Event("start", ("a",), 30.4)
    back = keys((0, 15, "a"), (30.6, 60, "a"))
    assert judge([look(30, "LIVE")], [KILL, start], back, TIMEOUT).wrong == []
    assert judge([look(28, "LIVE")], [KILL, start], back, TIMEOUT).wrong
