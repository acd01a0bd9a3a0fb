"""Image files with the same content."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from os.path import isfile
from pathlib import Path


def find_duplicates(paths: Iterable[Path]) -> list[list[Path]]:
    """The groups of two or more files with the same bytes, in the order of `paths`.

    Only files of the same size are read. Files that are missing or cannot be read are in no group.
    """
    sizes: defaultdict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        if isfile(path):  # a pipe would wait for a writer
            sizes[path.stat().st_size].append(path)
    contents: defaultdict[tuple[int, bytes], list[Path]] = defaultdict(list)
    for size, files in sizes.items():
        for path in files if len(files) > 1 else ():
            try:
                with path.open("rb") as file:
                    contents[size, hashlib.file_digest(file, "sha256").digest()].append(path)
            except OSError:
                continue
    return [files for files in contents.values() if len(files) > 1]
