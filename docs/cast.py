"""The README's moving picture: a recorded run of the three commands on the lab, as it came.

data/demo.cast is an asciicast v2 file (asciinema's "asciicast v2" format). `python -m docs.cast`
records it on a lab whose hosts have nothing on them; `make docs` draws demo.svg of it. A viewer
that does not animate shows the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from rich.style import Style

DOCS = Path(__file__).resolve().parent
RECORDING = DOCS / "data" / "demo.cast"
PICTURE = DOCS / "demo.svg"
COMMANDS = ("deploy-etcd", "start-workers", "check-nodes")
COLUMNS, ROWS = 118, 32
#: Seconds: a longer pause in the run is shown as one of this length, and each command is typed.
PAUSE, TYPING = 1.5, 0.8
_CHAR, _LINE, _MARGIN, _TITLE = 7.25, 17.0, 12.0, 26.0


@dataclass(frozen=True)
class Row:
    """A line of the run. ``at`` is when it is seen, in seconds of the picture."""

    at: float
    text: str


def record() -> None:
    """Run the commands on the lab, and write :data:`RECORDING`. Raises when one fails."""
    began = time.monotonic()
    events: list[tuple[float, str, str]] = []

    def note(text: str) -> None:
        events.append((round(time.monotonic() - began, 3), "o", text))

    env = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    for command in COMMANDS:
        note(f"$ invoke {command}\r\n")
        process = subprocess.Popen(
            [".venv/bin/invoke", command, "--inventory", "inventory/lab.yml"],
            cwd=DOCS.parent,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            note(line.replace("\n", "\r\n"))
        if process.wait():
            raise SystemExit(f"{command} ended with {process.returncode}")
        note("\r\n")
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "deploy, start, check"}
    lines = [json.dumps(one) for one in (header, *events)]
    RECORDING.write_text("\n".join(lines) + "\n", encoding="utf-8")


def rows() -> list[Row]:
    """The recorded lines, wrapped at the terminal's width, in the picture's own time."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=COLUMNS, file=sys.stderr)
    found: list[Row] = []
    before = at = 0.0
    for line in RECORDING.read_text(encoding="utf-8").splitlines()[1:]:
        when, _, text = json.loads(line)
        typed = text.startswith("$ ")
        at += TYPING if typed else min(when - before, PAUSE)
        before = when
        for part in Text.from_ansi(text.rstrip()).wrap(console, COLUMNS) or [Text("")]:
            found.append(Row(at, _markup(part)))
    return found


def _markup(text: Any) -> str:
    """A line as SVG text: ``tspan`` elements where it has colours."""
    from rich.console import Console

    console = Console(width=COLUMNS, file=sys.stderr, color_system="truecolor")
    parts = []
    for piece in text.render(console):
        words = escape(piece.text).replace(" ", "\u00a0").rstrip("\n")
        look = _look(piece.style) if piece.style else ""
        parts.append(f"<tspan {look}>{words}</tspan>" if look else words)
    return "".join(parts)


def _look(style: Style) -> str:
    from rich.terminal_theme import SVG_EXPORT_THEME

    found = []
    if style.color is not None and not style.color.is_default:
        found.append(f'fill="{style.color.get_truecolor(SVG_EXPORT_THEME).hex}"')
    if style.bold:
        found.append('font-weight="bold"')
    if style.dim:
        found.append('opacity="0.7"')
    return " ".join(found)


def svg() -> str:
    """The picture: each line comes in its time, and the screen scrolls."""
    lines = rows()
    width, height = COLUMNS * _CHAR + 2 * _MARGIN, ROWS * _LINE + 2 * _MARGIN + _TITLE
    length = lines[-1].at + 1
    drawn = []
    for number, row in enumerate(lines):
        hidden = f'<set attributeName="visibility" to="hidden" begin="0s" end="{row.at:.2f}s"/>'
        y = _MARGIN + (number + 0.8) * _LINE
        drawn.append(f'<text x="{_MARGIN}" y="{y:.1f}">{row.text}{hidden}</text>')
    ups = {0.0: 0.0}
    for number, row in enumerate(lines):
        ups[row.at] = max(0, number + 1 - ROWS) * _LINE
    times = ";".join(f"{at / length:.5f}" for at in ups)
    values = ";".join(f"0,{-up:.1f}" for up in ups.values())
    last = list(ups.values())[-1]
    return f"""\
<svg viewBox="0 0 {width:.0f} {height:.0f}" xmlns="http://www.w3.org/2000/svg">
<title>invoke deploy-etcd, start-workers and check-nodes, as they ran on the lab</title>
<style>text {{ font: 12px/17px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
fill: #c5c8c6 }}</style>
<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="#292929"/>
<circle cx="18" cy="15" r="5" fill="#ff5f57"/><circle cx="36" cy="15" r="5" fill="#febc2e"/>
<circle cx="54" cy="15" r="5" fill="#28c840"/>
<svg y="{_TITLE:.0f}" width="{width:.0f}" height="{ROWS * _LINE + 2 * _MARGIN:.0f}">
<g transform="translate(0,{-last:.1f})">
<animateTransform attributeName="transform" type="translate" calcMode="discrete" dur="{length:.2f}s"
keyTimes="{times}" values="{values}"/>
{chr(10).join(drawn)}
</g>
</svg>
</svg>
"""


if __name__ == "__main__":
    record()
