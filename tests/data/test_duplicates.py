"""Files with the same content."""

from __future__ import annotations

import os
from pathlib import Path

from mlkd.data.duplicates import find_duplicates


def test_groups(tmp_path: Path) -> None:
    contents = {"a": b"1", "b": b"2", "c": b"1", "d": b"12", "e": b"2", "f": b"3"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    paths = [tmp_path / name for name in (*contents, "absent", "pipe", "a", "x" * 300)]
    groups = [[path.name for path in group] for group in find_duplicates([*paths, tmp_path])]
    assert groups == [["a", "c"], ["b", "e"]]
