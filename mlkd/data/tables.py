"""Tables as columns of values: CSV, TSV, JSONL and Parquet files."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlkd.data.paths import read_file
from mlkd.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class Table:
    """The columns of a table file.

    Attributes:
        path: the file.
        columns: the values of each column, by its name. Those of CSV and TSV files are texts.
        lines: the line in the file of each row; for Parquet the row, from 1.
    """

    path: Path
    columns: dict[str, list[Any]]
    lines: list[int]

    def place(self, row: int) -> str:
        """The file and the line of a row, for error messages."""
        return f"{self.path}, {'row' if self.path.suffix.lower() == '.parquet' else 'line'} {self.lines[row]}"


def read_table(path: Path) -> Table:
    """Reads a table file; its suffix, in `SUFFIXES`, gives the format. Values are not converted.

    A CSV file has a header, and commas, semicolons or tabs between its columns: what its header has most of.

    Raises:
        DataError: the file is missing, broken or empty; a column occurs twice; a row has too many or too few values.
        ImportError: `path` is a Parquet file and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: no table; expected a file that ends in {', '.join(SUFFIXES)}.")
    content = read_file(path, "a table")
    if suffix == ".parquet":
        table = _parse_parquet(path, content)
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not encoded in UTF-8 ({error}); save it in that encoding.") from error
        table = _parse_csv(path, text) if suffix in (".csv", ".tsv") else _parse_json_lines(path, text)
    if not table.lines:
        raise DataError(f"{path}: the table has no rows; expected one row per image.")
    return table


def _parse_csv(path: Path, text: str) -> Table:
    first = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, lines = [], []
    try:
        header = [name.strip() for name in next(reader, [])]
        for values in reader:
            if not values:
                continue  # an empty line
            if len(values) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(values)} values; expected {len(header)}, one per column."
                )
            rows.append(values)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: broken CSV ({error}).") from error
    for name in header:
        if header.count(name) > 1:
            raise DataError(f"{path}: the column `{name:.60}` occurs more than once; expected each column once.")
    return Table(path, dict(zip(header, map(list, zip(*rows, strict=True)), strict=False)), lines)


def _parse_json_lines(path: Path, text: str) -> Table:
    records, lines = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: broken JSON ({error}).") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: a {type(record).__name__}; expected an object, one per line.")
        records.append(record)
        lines.append(number)
    names = dict.fromkeys(name for record in records for name in record)
    return Table(path, {name: [record.get(name) for record in records] for name in names}, lines)


def _parse_parquet(path: Path, content: bytes) -> Table:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{path}: Parquet files need pyarrow: `pip install mlkd[parquet]`.") from error
    try:
        columns = pyarrow.parquet.read_table(io.BytesIO(content)).to_pydict()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: broken Parquet ({error}).") from error
    return Table(path, columns, list(range(1, 1 + max(map(len, columns.values()), default=0))))
