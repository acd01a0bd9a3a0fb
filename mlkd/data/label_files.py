"""Label files with one entry per line."""

from __future__ import annotations

from pathlib import Path

from mlkd.data.paths import read_file
from mlkd.errors import DataError


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a text file, without surrounding spaces and without empty lines at the end.

    Args:
        path: the file.
        expected: what a line is, for the error message: "one image per line".

    Raises:
        DataError: the file does not exist, cannot be read, or is empty.
    """
    lines = [line.strip() for line in read_file(path, expected).decode("utf-8", "replace").rstrip().splitlines()]
    if not lines:
        raise DataError(f"{path}: the file is empty; expected {expected}.")
    return lines
