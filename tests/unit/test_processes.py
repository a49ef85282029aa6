"""What :mod:`tests.unit.processes` refuses is refused."""

from __future__ import annotations

import socket

import pytest

from tests.unit.processes import is_outside


@pytest.mark.parametrize(
    ("event", "args", "outside"),
    [
        ("socket.connect", (None, ("127.0.0.9", 22)), False),
        ("socket.connect", (None, ("::1", 22, 0, 0)), False),
        ("socket.connect", (None, "/run/agent"), False),
        ("socket.connect", (None, ("10.0.0.1", 22)), True),
        ("socket.getaddrinfo", ("localhost", 22, 0, 1, 0), False),
        ("socket.getaddrinfo", ("w1", 22, 0, 1, 0), True),
        ("socket.gethostbyname", ("w1",), True),
    ],
)
def test_only_this_machine_is_inside(event: str, args: tuple[object, ...], outside: bool) -> None:
    assert is_outside(event, args) is outside


@pytest.mark.process
def test_who_swallows_the_refusal_is_found(request: pytest.FixtureRequest) -> None:
    from tests.unit import conftest

    with pytest.raises(AssertionError, match="leaves this machine"):
        socket.getaddrinfo("name.invalid", 22)
    assert conftest._watch.outside == ["socket.getaddrinfo ('name.invalid', 22, 0, 0, 0)"]
    conftest._watch.outside.clear()
