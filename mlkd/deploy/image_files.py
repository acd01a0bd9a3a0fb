"""The image files of a command line: files as they are, folders with all images below them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))


def find_image_files(paths: Iterable[str | Path]) -> list[Path]:
    """Files as given, and in place of each folder the image files in it and its subfolders, sorted by path.

    Raises:
        ValueError: a folder has no image files.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        images = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not images:
            raise ValueError(f"{path}: no image files in this folder, expected {', '.join(sorted(SUFFIXES))}.")
        files += images
    return files
