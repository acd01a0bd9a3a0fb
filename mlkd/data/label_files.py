"""Label files with one entry per line."""

from __future__ import annotations

from pathlib import Path

from mlkd.errors import DataError


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a text file, without surrounding spaces and without empty lines at the end.

    Args:
        path: the file.
        expected: what a line is, for the error message: "one image per line".

    Raises:
        DataError: the file does not exist or is empty.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected {expected}.")
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()]
    if not lines:
        raise DataError(f"{path}: the file is empty; expected {expected}.")
    return lines
