"""Hashes of files and images by their content, computed once and kept in the cache folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from mlkd.data.images import ImageFiles, Images, parent_images
from mlkd.data.paths import check_file
from mlkd.files import cache_dir, create_once
from mlkd.progress import is_interactive


def image_hashes(images: Images) -> np.ndarray:
    """The SHA-256 of each image: of its file, or of its pixels if the images are not files.

    A subset uses the hashes of the full split, as `file_hashes` keeps them.

    Returns:
        (N, 32) uint8.

    Raises:
        DataError: an image file is missing.
    """
    images, rows = parent_images(images)
    if not isinstance(images, ImageFiles):
        return _as_table([_hash_pixels(images[row]) for row in rows.tolist()])
    paths = [images.path(index) for index in range(len(images))]
    for path in paths:
        check_file(path)
    return file_hashes(paths)[rows]


def file_hashes(paths: Sequence[Path]) -> np.ndarray:
    """The SHA-256 of each file, (N, 32) uint8.

    They are kept in the cache folder, and computed again when the path, the size or the modification time of one of
    the files has changed.
    """
    key = hashlib.sha256()
    for path in paths:
        status = path.stat()
        key.update(f"{path.absolute()} {status.st_size} {status.st_mtime_ns}\n".encode())
    cached = cache_dir() / "file_hashes" / f"{key.hexdigest()[:24]}.npy"
    create_once(cached, lambda unfinished: _write_hashes(paths, unfinished))
    return np.load(cached)


def _write_hashes(paths: Sequence[Path], target: Path) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool, target.open("wb") as file:
        hashes = tqdm(
            pool.map(_hash_file, paths), "hashing files", len(paths), leave=False, disable=not is_interactive()
        )
        np.save(file, _as_table(list(hashes)))


def _hash_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _hash_pixels(image: np.ndarray) -> bytes:
    return hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()).digest()


def _as_table(hashes: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32)
