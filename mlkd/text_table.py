"""Tables in the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 120


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns as wide as their content; the last one is wrapped."""
    widths = [max(map(len, column)) for column in list(zip(header, *rows, strict=True))[:-1]]
    indent = " " * sum(width + 2 for width in widths)
    for row in (header, *rows):
        first = "".join(f"{text:{width}}  " for text, width in zip(row, widths, strict=False))
        last = textwrap.fill(row[-1], WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
        print(last.rstrip())
