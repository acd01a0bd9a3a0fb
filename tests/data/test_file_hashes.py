"""Hashes of images and files: of the content, computed once, computed again if a file changes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from mlkd.data import DataError, ImageFiles, file_hashes
from mlkd.data.images import select_images


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageFiles:
    monkeypatch.setenv("MLKD_CACHE", str(tmp_path / "cache"))
    for index in range(5):
        (tmp_path / f"{index}.jpg").write_bytes(bytes([index]) * 100)
    return ImageFiles(tmp_path, [f"{index}.jpg" for index in range(5)])


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    paths: list[Path] = []
    original = file_hashes._hash_file
    monkeypatch.setattr(file_hashes, "_hash_file", lambda path: paths.append(path) or original(path))
    return paths


def test_hashes_of_files_are_those_of_their_content(files: ImageFiles) -> None:
    expected = [hashlib.sha256(bytes([index]) * 100).digest() for index in range(5)]
    assert [row.tobytes() for row in file_hashes.image_hashes(files)] == expected


def test_files_are_read_once_until_one_changes(files: ImageFiles, hashed: list[Path]) -> None:
    before = file_hashes.image_hashes(files)
    file_hashes.image_hashes(files)
    assert len(hashed) == 5
    status = files.path(2).stat()
    files.path(2).write_bytes(b"x" * 100)  # the same size
    os.utime(files.path(2), ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = file_hashes.image_hashes(files)
    assert np.flatnonzero((before != after).any(1)).tolist() == [2]


def test_a_subset_uses_the_hashes_of_all_files(files: ImageFiles, hashed: list[Path]) -> None:
    everything = file_hashes.image_hashes(files)
    subset = select_images(files, np.array([3, 1]))
    assert np.array_equal(file_hashes.image_hashes(subset), everything[[3, 1]])
    assert len(hashed) == 5


def test_arrays_are_hashed_with_their_shape() -> None:
    pixels = np.arange(24, dtype=np.uint8)
    images = [pixels.reshape(2, 4, 3), pixels.reshape(4, 2, 3), pixels.reshape(2, 4, 3)]
    hashes = file_hashes.image_hashes(images)
    assert hashes.shape == (3, 32)
    assert np.array_equal(hashes[0], hashes[2])
    assert not np.array_equal(hashes[0], hashes[1])


def test_a_missing_image_is_named(files: ImageFiles) -> None:
    files.path(4).unlink()
    with pytest.raises(DataError, match=r"4\.jpg: no such file"):
        file_hashes.image_hashes(files)
