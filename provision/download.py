"""A download over HTTP, with an end: the server may be anyone.

The socket's own timeout limits each wait only. So every byte from the server is counted where it is
read from the socket: those of headers, of redirects and of a proxy's answer, too.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Any

from provision import bounds
from provision.text import size

if TYPE_CHECKING:
    from urllib.request import OpenerDirector


@contextlib.contextmanager
def opened(url: str, timeout: float) -> Iterator[HTTPResponse]:
    """The answer to a GET of ``url`` (http or https, through redirects and the environment's
    proxy). ``timeout``: seconds for each wait.

    Raises ``OSError`` and ``HTTPException``, while it is read, too: for a server that drips, that
    sends more than a tarball has, or headers without an end (:mod:`provision.bounds`).
    """
    budget = _Budget()
    with contextlib.closing(_opener(budget).open(url, timeout=timeout)) as answer:
        budget.headers_end()
        yield answer


#: Bytes of one read. Python from 3.14 on would read 128 KiB, and the headers would have their end
#: before they are counted.
_BUFFER = 8192


class _Budget:
    """What a server may still send: at first headers, then a tarball."""

    def __init__(self) -> None:
        self._count, self._until = 0, time.monotonic() + bounds.DOWNLOAD_HEADER_SECONDS
        self._flow: bounds.Flow | None = None

    def headers_end(self) -> None:
        self._flow = bounds.Flow()

    def check(self) -> None:
        if self._flow is None:
            if time.monotonic() > self._until:
                most = bounds.DOWNLOAD_HEADER_SECONDS
                raise TimeoutError(f"the server's headers have no end in {most:g} s")
            if self._count > bounds.DOWNLOAD_HEADER:
                most = bounds.DOWNLOAD_HEADER
                raise OSError(f"the server's headers have more than {size(most)}")
        elif self._flow.drips:
            raise TimeoutError(self._flow.slow)
        elif self._flow.count > bounds.TARBALL:
            raise OSError(f"it has more than {size(bounds.TARBALL)}")

    def add(self, count: int) -> None:
        if self._flow is None:
            self._count += count
        else:
            self._flow.add(count)


class _Counted(io.RawIOBase):
    """What comes from the socket. With ``raw``, it is closed."""

    def __init__(self, raw: io.RawIOBase, budget: _Budget) -> None:
        self._raw, self._budget = raw, budget

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any, /) -> int | None:
        self._budget.check()
        count = self._raw.readinto(into)
        self._budget.add(count or 0)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _opener(budget: _Budget) -> OpenerDirector:
    """An opener for HTTP and HTTPS only. The library's own also reads FTP, which is not counted."""
    from urllib import request

    def response(*given: Any, **options: Any) -> HTTPResponse:
        made = HTTPResponse(*given, **options)
        made.fp = io.BufferedReader(_Counted(made.fp.detach(), budget), _BUFFER)
        return made

    def counted(connection: HTTPConnection) -> HTTPConnection:
        connection.response_class = response  # type: ignore[assignment]
        return connection

    def plain(host: str, **options: Any) -> HTTPConnection:
        return counted(HTTPConnection(host, **options))

    def secure(host: str, **options: Any) -> HTTPConnection:
        return counted(HTTPSConnection(host, **options))

    class Plain(request.HTTPHandler):
        def http_open(self, req: request.Request) -> HTTPResponse:
            return self.do_open(plain, req)

    class Secure(request.HTTPSHandler):
        def https_open(self, req: request.Request) -> HTTPResponse:
            return self.do_open(secure, req)

    made = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.UnknownHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPErrorProcessor(),
        Plain(),
        Secure(),
    ):
        made.add_handler(handler)
    return made
