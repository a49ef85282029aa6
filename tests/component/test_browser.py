"""The HTML report in a real browser, headless: what it shows, and that it asks for nothing."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.check_nodes import CheckReport, NodeVerdict, State, page
from provision.check_nodes.picture import NAMED
from provision.errors import Problem
from provision.text import printable
from tests.unit.test_check import LIVE, report

#: Each tells by the title when it runs.
HOSTILE = (
    "<script>document.title='pwned'</script>",
    "\"><img src=http://198.51.100.1/x onerror=document.title='pwned'>",
    "</title></text></svg><iframe src=http://198.51.100.1/></iframe>",
    "javascript:document.title='pwned'",
    printable("\x1b]0;pwned\x07\x1b[31m red"),
)


@pytest.fixture(scope="module")
def browser() -> str:
    for name in ("chromium-headless-shell", "chromium"):
        if found := shutil.which(name):
            return found
    pytest.fail("no chromium-headless-shell: tests/lab/lab deps installs it", pytrace=False)


class Proxy:
    """A port that all of the browser's requests go to, and that answers none."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.requests: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._server.accept()[0]
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                self.requests.append(connection.recv(1000).decode(errors="replace"))

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.close()


def load(browser: str, proxy: Proxy, folder: Path, html: str, *options: str) -> str:
    """What the browser prints when it has loaded the page."""
    file = folder / "report.html"
    file.write_text(html)
    command = [
        browser,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--no-first-run"),
        f"--user-data-dir={folder / 'profile'}",
        f"--proxy-server={proxy.address}",
        "--proxy-bypass-list=<-loopback>",
        *options,
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def shown(count: int) -> CheckReport:
    nodes = [LIVE._replace(name=f"w{i}", host=f"h{i}") for i in range(count)]
    nodes[1] = nodes[1]._replace(state=State.FAILED)
    for evil in HOSTILE:
        nodes.append(NodeVerdict(None, evil, 1, State.UNKNOWN, evil, evil, (evil,)))
    return report(*nodes, cluster="c" + HOSTILE[2])


@pytest.mark.parametrize("count", [3, 500])
def test_hostile_names_are_inert(browser: str, proxy: Proxy, tmp_path: Path, count: int) -> None:
    dom = load(browser, proxy, tmp_path, page.html(shown(count)), "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    assert title[1] == f"c{HOSTILE[2]}: needs attention".replace("<", "&lt;").replace(">", "&gt;")
    pictures = 2 if count + len(HOSTILE) <= NAMED else 1
    assert len(re.findall(r'<g class="box ', dom)) == pictures * (3 + count + len(HOSTILE))
    assert len(re.findall(r'<td class="state ', dom)) == 3 + count + len(HOSTILE)
    assert dom.count('<td class="state bad">FAILED</td>') == 1
    for tag in ("script", "img", "iframe"):
        assert f"<{tag}" not in dom
    assert proxy.requests == []


def test_the_proxy_would_have_seen_a_request(browser: str, proxy: Proxy, tmp_path: Path) -> None:
    load(browser, proxy, tmp_path, "<img src=http://198.51.100.1/x>", "--dump-dom")
    assert any("198.51.100.1" in request for request in proxy.requests)


#: Where the screenshots stay. A person compares them once after a change of the report.
SCREENSHOTS = Path(__file__).parents[2] / ".lab/screenshots"


def pictured() -> CheckReport:
    """A report with what a reader may see: long names, several states, a problem, notes."""
    domain = "cache.rack17.example.com"
    nodes = [
        LIVE._replace(name=f"worker{i:03}", host=f"worker{i:03}.{domain}") for i in range(1, 7)
    ]
    nodes[2] = nodes[2]._replace(state=State.FAILED, info_nodes="OFFLINE")
    nodes[4] = nodes[4]._replace(notes=("info nodes says OFFLINE",))
    nodes.append(NodeVerdict(None, f"stranger.{domain}", 29999, State.UNKNOWN, "a" * 36))
    alarm = Problem("etcd", "3 GiB of 8 GiB are used", "defrag", "warning", id="disk-full")
    return report(*nodes, cluster="Reports", view_problems=(alarm,))


@pytest.mark.parametrize("width", [390, 1100])
def test_light_and_dark(browser: str, proxy: Proxy, tmp_path: Path, width: int) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    pictures = []
    for name, scheme in (("light", 1), ("dark", 0)):  # as Blink counts them
        png = SCREENSHOTS / f"report-{width}-{name}.png"
        png.unlink(missing_ok=True)
        options = (f"--screenshot={png}", f"--window-size={width},1900", "--hide-scrollbars")
        load(
            browser,
            proxy,
            tmp_path,
            page.html(pictured()),
            f"--blink-settings=preferredColorScheme={scheme}",
            *options,
        )
        pictures.append(png.read_bytes())
    assert all(p.startswith(b"\x89PNG") for p in pictures)
    assert pictures[0] != pictures[1]


#: Measures the page, which runs no script of its own, and writes the result into the title.
_MEASURE = """
<script>
const box = e => e.getBoundingClientRect();
const tiles = [...document.querySelectorAll(".tile")];
const broken = [...document.querySelectorAll("td, .tile b, .tile span")].filter(cell => {
  const range = document.createRange();
  const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    for (const word of walk.currentNode.data.matchAll(/\\S+/g)) {
      range.setStart(walk.currentNode, word.index);
      range.setEnd(walk.currentNode, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map(r => r.top)).size > 1) return true;
    }
  }
  return false;
});
document.title = JSON.stringify({
  wide: document.documentElement.scrollWidth,
  row: tiles.filter(tile => box(tile).top === box(tiles[0]).top).length,
  pictures: [...document.querySelectorAll("svg")].filter(e => box(e).width).map(e => box(e).width),
  broken: broken.map(cell => cell.textContent),
  notes: [...document.querySelectorAll("td.notes")].map(cell => box(cell).right),
});
</script></body>"""


@pytest.mark.parametrize(("width", "row"), [(390, 2), (1100, 4)])
def test_it_fits_the_screen(
    browser: str, proxy: Proxy, tmp_path: Path, width: int, row: int
) -> None:
    """On a telephone two tiles stand in a row, and the picture is stacked. No word is broken. Notes
    are seen without moving the table."""
    text = page.html(pictured())
    text = re.sub("<meta http-equiv=.Content-Security-Policy.[^>]*>", "", text)
    text = text.replace("</body>", _MEASURE.replace("\\\\", "\\"))
    dom = load(browser, proxy, tmp_path, text, "--dump-dom", f"--window-size={width},900")
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    seen = json.loads(title[1])
    assert seen["wide"] <= width
    assert seen["row"] == row
    assert len(seen["pictures"]) == 1
    assert seen["pictures"][0] <= width
    assert seen["broken"] == []
    assert seen["notes"]
    assert max(seen["notes"]) <= width
