"""A connection that is cut at one moment after another: runs end well, and the next one finishes.

The members are reached through proxies on loopback, one of which cuts its connection when the tool
has spoken for the n-th time. Here some moments are tried; ``CUTS=all`` tries each.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from .lab import SSH, Done, Host, Lab

PORT = 2222
#: How many moments are tried, evenly spread, unless CUTS=all.
MOMENTS = 5


class Proxy:
    """Forwards to a host's sshd. The n-th time that the client speaks after the server, for the n
    that is set, the connection is cut, once. When that is depends on how what is said arrives; the
    exchange of keys is a moment of its own: the client's first word after its version."""

    def __init__(self, address: str, host: Host) -> None:
        self.address, self._target = address, (host.address, 22)
        self.turns = 0
        self.cut_at = 0
        #: How many more connections are cut while keys are exchanged.
        self.unkeyed = 0
        self._server = socket.create_server((address, PORT))
        threading.Thread(target=self._accept, daemon=True).start()

    def expect(self, cut_at: int) -> None:
        self.turns, self.cut_at = 0, cut_at

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            spoken = threading.Event()
            for source, sink, hears in ((client, server, False), (server, client, True)):
                arguments = (source, sink, spoken, hears)
                threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, spoken: threading.Event, hears: bool
    ) -> None:
        version = b""
        with suppress(OSError):
            while data := source.recv(65536):
                if hears:
                    spoken.set()
                elif spoken.is_set():
                    spoken.clear()
                    self.turns += 1
                    if self.turns == self.cut_at:
                        break
                if not hears and self.unkeyed and not version.partition(b"\n")[2]:
                    version += data
                    if version.partition(b"\n")[2]:
                        self.unkeyed -= 1
                        break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(lab: Lab, folder: Path) -> Iterator[tuple[dict[str, Any], Proxy]]:
    """Changes of the inventory that lead to the members through proxies, and the second's."""
    known = (SSH / "known_hosts").read_text(encoding="utf-8")
    keys = dict(re.findall(r"^(\S+?),\S+ (.+)$", known, re.MULTILINE))
    lines, members = [], {}
    with ExitStack() as stack:
        proxies = []
        for number, host in enumerate(lab.etcd):
            proxy = Proxy(f"127.0.77.{11 + number}", host)
            stack.callback(proxy.close)
            proxies.append(proxy)
            lines.append(f"[{proxy.address}]:{PORT} {keys[host.address]}\n")
            members[host.name] = {"host": proxy.address, "address": host.address}
        file = folder / "known_hosts"
        file.write_text("".join(lines), encoding="utf-8")
        ssh = {"port": PORT, "known_hosts": str(file)}
        yield {"ssh": ssh, "etcd": {"members": members}, "alluxio": None}, proxies[1]


def test_a_run_whose_connection_is_cut_anywhere_is_finished_by_the_next(
    lab: Lab, cluster: None, tmp_path: Path
) -> None:
    with proxied(lab, tmp_path) as (changes, proxy):

        def roll(number: int) -> Done:
            settings = {"settings": {"snapshot-count": 20000 + number}}
            inventory = lab.inventory({**changes, "etcd": {**changes["etcd"], **settings}})
            return lab.invoke("deploy-etcd", inventory)

        proxy.expect(0)
        roll(0).expect(0, "etcd1: ok")
        moments = list(range(1, proxy.turns + 1))
        assert len(moments) > 10
        if os.environ.get("CUTS") != "all":
            moments = moments[:: len(moments) // MOMENTS]
        for moment in moments:
            proxy.expect(moment)
            cut = roll(moment)
            assert "Traceback" not in cut.text, cut.text
            assert cut.code in (0, 1, 3, 4), cut.text
            if cut.code == 3:
                cut.expect(3, f"{proxy.address} (")
            if cut.code == 4:
                assert "run the same command again" in cut.text
            proxy.expect(0)
            roll(moment).expect(0, "endpoints: ")
            roll(moment).expect(0, "0 changed")
    lab.invoke("deploy-etcd").expect(0)


def test_a_cut_before_anything_was_changed_says_that_nothing_was(
    lab: Lab, cluster: None, tmp_path: Path
) -> None:
    with proxied(lab, tmp_path) as (changes, proxy):
        proxy.unkeyed = sys.maxsize
        cut = lab.invoke("deploy-etcd", lab.inventory(changes))
        assert proxy.unkeyed < sys.maxsize
        cut.expect(3, f"{proxy.address} (", "nothing was changed")
        # Once: the look that says which cluster it is does without, and the next one connects.
        proxy.unkeyed = 1
        lab.invoke("deploy-etcd", lab.inventory(changes)).expect(0, "0 changed")
        assert proxy.unkeyed == 0


@pytest.fixture(scope="module", autouse=True)
def _put_back(lab: Lab) -> Iterator[None]:
    yield
    lab.invoke("deploy-etcd").expect(0)
