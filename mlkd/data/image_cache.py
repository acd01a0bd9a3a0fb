"""Pictures decoded once, at training size, into a uint8 memory map."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from mlkd.data.dataset import DataError, ImageFiles, Images, MultiLabelData, missing, whole
from mlkd.files import cache_dir, create_memmap, create_once
from mlkd.progress import is_interactive


class DecodedImages:
    """Decoded pictures: `pixels[i]`, with i a number, a slice or an integer array, is an array of them.

    They are rows of a memory map, which the parts of a split share.

    Attributes:
        table: (M, size, size, 3) uint8, the map of all pictures of the split.
        rows: (N,) int64, the rows of these.
        name: other pictures have another one.
    """

    def __init__(self, path: Path, rows: np.ndarray):
        self.table = np.load(path, mmap_mode="r")
        self.rows = rows
        self.name = hashlib.sha256(path.name.encode() + rows.tobytes()).hexdigest()[:24]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        return np.asarray(self.table[self.rows[index]])


def decoded_images(data: MultiLabelData, size: int) -> DecodedImages:
    """All pictures of a split, squeezed to `size` x `size` pixels as in the papers: N of uint8 (size, size, 3).

    They stand in a memory map, a file of the cache folder that is made on first use; files that changed since are
    decoded again. A subset reads the map of the whole split, which is made for it too. A split of N pictures takes
    3 * N * size**2 bytes on disk, and as much memory as is in use.
    """
    images, rows = whole(data.images)
    path = cache_dir() / "pixels" / f"{_key(images, size)}.npy"
    create_once(path, lambda unfinished: _decode(images, size, unfinished, f"decoding {data.name} {data.split}"))
    return DecodedImages(path, rows)


def _decode(images: Images, size: int, path: Path, title: str) -> None:
    table = create_memmap(path, np.uint8, (len(images), size, size, 3))

    def one(index: int) -> None:
        table[index] = _resized(images, index, size)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in tqdm(pool.map(one, range(len(images))), title, len(images), leave=False, disable=not is_interactive()):
            pass
    table.flush()


def _resized(images: Images, index: int, size: int) -> np.ndarray:
    """One picture at training size; a JPEG file is decoded no larger than needed."""
    image = images.decode(index, size) if isinstance(images, ImageFiles) else Image.fromarray(images[index])
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _key(images: Images, size: int) -> str:
    """Names the pictures by their files' paths, sizes and times, or by their pixels if they are no files."""
    digest = hashlib.sha256(f"{size} {len(images)}".encode())
    for index in range(len(images)):
        if isinstance(images, ImageFiles):
            path = images.paths[index]
            if not path.is_file():
                raise DataError(missing(path))
            status = path.stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}".encode())
        else:
            digest.update(np.ascontiguousarray(images[index]).tobytes())
    return digest.hexdigest()[:24]
