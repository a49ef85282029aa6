"""Tables for a person: one style, and no broken word, whatever the width of the terminal.

A table that is too wide gives way in the order of its columns' ``gives``: texts like endpoints and
ids are shortened in the middle, sentences are wrapped between words, and then whole columns go to a
second line below their row, or away. ``wide``, and a file or a pipe, get every column on one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from provision.dataclass import dataclass
from provision.terminal import console, line
from provision.wrap import hanging, span, unbroken, wrapped

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

T = TypeVar("T")

#: Spaces between two columns, and before a row's second line.
GAP = 2
#: A sentence has at least so many columns of the screen, or it goes to a second line.
SENTENCE = 24


class Styled(NamedTuple):
    """A cell's words with one of rich's styles."""

    words: str
    style: str = ""


def always(_: object) -> bool:
    return True


@dataclass(frozen=True)  # no slots: typing writes to the instances of an alias with types
class Column(Generic[T]):
    """A column of a table with a row for each ``T``. ``right``: it is aligned to the right.

    ``cell``: its words of a row; None: the row is a sequence of words, in the order of the columns.

    ``gives``: of the columns with a number, the one with the lowest number gives way first; None:
    it stays as long as there is room for it. ``least``: it may be shortened in the middle to so
    many characters; 0: it is shown whole. ``words``: it is wrapped between words. ``below`` says of
    a row whether the cell is shown on a second line once the column has given way.
    """

    title: str
    cell: Callable[[T], str | Styled] | None = None
    right: bool = False
    shown: bool = True
    gives: int | None = None
    least: int = 0
    words: bool = False
    below: Callable[[T], bool] = always


#: A column of a table whose rows are words.
Texts = Column[Sequence[str]]


class Table(Generic[T]):
    """A table as rich draws it: as wide as its console lets it be."""

    def __init__(
        self,
        columns: Iterable[Column[T]],
        rows: Iterable[T],
        title: str | None = None,
        *,
        wide: bool = False,
    ) -> None:
        self._columns = [column for column in columns if column.shown]
        self._rows, self._title, self._wide = list(rows), title, wide

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        width = None if self._wide else options.max_width
        if self._title is not None:
            yield Text(line(self._title), style="italic")
        rule = "-" if options.ascii_only else "─"
        for pieces in self.lines(width, rule):
            yield Text.assemble(*pieces, no_wrap=True, overflow="ignore")

    def lines(self, width: int | None, rule: str = "─") -> list[list[Styled]]:
        """The lines of the table in ``width`` columns of a screen; None: as wide as it is. A line
        is wider only when one word alone is."""
        cells = [
            [_cell(column, row, n) for n, column in enumerate(self._columns)] for row in self._rows
        ]
        layout = _fit(self._columns, cells, width)
        heading = [Styled(column.title, "bold") for column in self._columns]
        drawn = [_row(layout, heading), [Styled(rule * layout.width)]]
        for row, found in zip(self._rows, cells, strict=True):
            drawn += _block(layout, found)
            drawn += _below(layout, row, found, width)
        return [_stripped(pieces) for pieces in drawn]


def show(
    columns: Iterable[Column[T]], rows: Iterable[T], title: str | None = None, *, wide: bool = False
) -> None:
    """A table on stdout."""
    console().print(Table(columns, rows, title, wide=wide))


@dataclass(frozen=True, slots=True)
class _Layout:
    columns: Sequence[Column[Any]]
    #: The columns of the first line by their numbers, with their widths; and those that gave way.
    widths: dict[int, int]
    moved: tuple[int, ...]

    @property
    def width(self) -> int:
        return sum(self.widths.values()) + GAP * (len(self.widths) - 1)


def _cell(column: Column[Any], row: Any, number: int) -> Styled:
    found: str | Styled = row[number] if column.cell is None else column.cell(row)
    words, style = (found, "") if isinstance(found, str) else found
    return Styled(line(words), style)


def _fit(
    columns: Sequence[Column[Any]], cells: Sequence[Sequence[Styled]], width: int | None
) -> _Layout:
    natural: dict[int, int] = {}
    longest: dict[int, int] = {}
    for n, column in enumerate(columns):
        lines = [part for row in cells for part in row[n].words.split("\n")]
        natural[n] = max(map(span, [column.title, *lines]))
        if column.words:
            words = (word for part in lines for word in unbroken(part))
            longest[n] = max(map(span, [column.title, *words]))
    if width is None:
        return _Layout(columns, natural, ())
    # The last to go are those that never give way, from the right; the first column stays.
    first: list[int] = []
    last: list[int] = []
    for n, column in enumerate(columns):
        if column.gives is not None:
            first.append(n)
        elif n:
            last.insert(0, n)
    order = sorted(first, key=lambda n: columns[n].gives or 0)
    for count in range(len(order) + 1):
        kept = [n for n in natural if n not in order[:count]]
        if found := _narrowed(columns, natural, longest, kept, width):
            return _Layout(columns, found, tuple(sorted(order[:count])))
    order += last
    for count in range(len(first) + 1, len(order) + 1):
        kept = [n for n in natural if n not in order[:count]]
        if found := _narrowed(columns, natural, longest, kept, width):
            return _Layout(columns, found, tuple(sorted(order[:count])))
    return _Layout(columns, {0: min(natural[0], max(width, 1))}, tuple(sorted(order)))


def _narrowed(
    columns: Sequence[Column[Any]],
    natural: dict[int, int],
    longest: dict[int, int],
    kept: Sequence[int],
    width: int,
) -> dict[int, int] | None:
    """The widths of the columns ``kept`` so that they fit; None when they do not."""
    found = {n: natural[n] for n in kept}
    if not found:
        return None
    over = sum(found.values()) + GAP * (len(found) - 1) - width
    for n in sorted(kept, key=lambda n: (columns[n].gives is None, columns[n].gives)):
        column = columns[n]
        if over <= 0:
            break
        if column.words:
            least = max(longest[n], SENTENCE)
        else:
            least = max(column.least, span(column.title)) if column.least else natural[n]
        less = min(over, max(0, found[n] - least))
        found[n] -= less
        over -= less
    return found if over <= 0 else None


def _block(layout: _Layout, found: Sequence[Styled]) -> Iterator[list[Styled]]:
    """The lines of a row whose cells may have several lines."""
    parts: dict[int, list[str]] = {}
    for n, width in layout.widths.items():
        lines = found[n].words.split("\n")
        if layout.columns[n].words:
            parts[n] = [part for one in lines for part in wrapped(one, width)]
        else:
            parts[n] = [shortened(one, width) for one in lines]
    for number in range(max(map(len, parts.values()))):
        cells = list(found)
        for n, lines in parts.items():
            words = lines[number] if number < len(lines) else ""
            cells[n] = Styled(words, found[n].style)
        yield _row(layout, cells)


def _row(layout: _Layout, cells: Sequence[Styled]) -> list[Styled]:
    pieces: list[Styled] = []
    for n, width in layout.widths.items():
        words, style = cells[n]
        space = Styled(" " * (width - span(words)))
        if pieces:
            pieces.append(Styled(" " * GAP))
        pieces += [space, Styled(words, style)] if layout.columns[n].right else [cells[n], space]
    return pieces


def _below(
    layout: _Layout, row: Any, found: Sequence[Styled], width: int | None
) -> Iterator[list[Styled]]:
    """What gave way, below its row. Each cell begins with its column's title."""
    room = (width or 0) - GAP
    begin = Styled(" " * GAP)
    pieces: list[Styled] = []
    used = 0
    for n in layout.moved:
        column, (words, style) = layout.columns[n], found[n]
        if words in ("", "-") or not column.below(row):
            continue
        title = f"{column.title}: " if column.title else ""
        if column.least:
            words = shortened(words, max(room - span(title), column.least))
        size = span(title) + span(words)
        whole = size <= room and "\n" not in words
        if pieces and (not whole or used + GAP + size > room):
            yield pieces
            pieces, used = [], 0
        if whole:
            pieces += [begin, Styled(title), Styled(words, style)]
            used += size + (GAP if used else 0)
        elif "\n" in words:
            yield [begin, Styled(title.rstrip())]
            for part in (part for one in words.split("\n") for part in hanging(one, room - GAP)):
                yield [begin, begin, Styled(part, style)]
        else:
            for part in hanging(title + words, room):
                yield [begin, Styled(part, style)]
    if pieces:
        yield pieces


class Sentence:
    """A line of text that rich breaks between words only, where its console is narrower."""

    def __init__(self, words: str, style: str = "") -> None:
        self._words, self._style = line(words), style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        for one in self._words.split("\n"):
            for part in hanging(one, options.max_width):
                yield Text(part, self._style, no_wrap=True, overflow="ignore")


def _stripped(pieces: list[Styled]) -> list[Styled]:
    while pieces and not pieces[-1].words.strip():
        pieces = pieces[:-1]
    return pieces


def shortened(words: str, width: int) -> str:
    """``words`` in at most ``width`` columns of a screen: its beginning and its end."""
    if span(words) <= width:
        return words
    for kept in range(min(width, len(words)) - 1, 0, -1):
        begin, end = words[: kept - kept // 2], words[len(words) - kept // 2 :]
        if span(begin + end) < width:
            return f"{begin}…{end}"
    return "…"
