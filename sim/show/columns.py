"""Wide tables on narrow terminals: one below the other, the columns that name a row in each of them."""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final

from rich.cells import cell_len
from rich.table import Column, Table
from rich.text import Text

_PADDING: Final = 3  # of a column: a space on both sides, and the line after it


def narrow(table: Table, width: int) -> Iterator[Table]:
    """Yield the table, or parts of it that are `width` characters wide at most; without its caption.

    Each part begins with the columns that name a row: those at the left edge that are justified left. A
    column that is wider than what is left beside them has a part of its own.
    """
    keys = list(takewhile(lambda column: column.justify == "left", table.columns))
    others = table.columns[len(keys) :]
    room = width - 1 - sum(map(_natural_width, keys))
    for number, part in enumerate(_parts(others, room) or [[]]):
        yield _with_columns(table, [*keys, *part], title=table.title if number == 0 else None)


def _parts(columns: Sequence[Column], room: int) -> list[list[Column]]:
    parts: list[list[Column]] = []
    left = 0
    for column in columns:
        needed = _natural_width(column)
        if not parts or needed > left:
            parts.append([])
            left = room
        parts[-1].append(column)
        left -= needed
    return parts


def _natural_width(column: Column) -> int:
    texts = (line for cell in (column.header, *column.cells) for line in _plain(cell).splitlines())
    return _PADDING + max(map(cell_len, texts), default=0)


def _plain(cell: object) -> str:
    return Text.from_markup(cell).plain if isinstance(cell, str) else str(cell)


def _with_columns(table: Table, columns: Sequence[Column], *, title: object) -> Table:
    part = Table(title=title, show_header=table.show_header)  # type: ignore[arg-type]
    for column in columns:
        part.add_column(column.header, justify=column.justify)
    cells = zip(*(column.cells for column in columns), strict=True)
    for row, texts in zip(table.rows, cells, strict=True):
        part.add_row(*texts, style=row.style, end_section=row.end_section)
    return part
