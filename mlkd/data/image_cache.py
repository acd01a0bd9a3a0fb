"""Images decoded once, at training size, into a uint8 memory map."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from mlkd.data.dataset import MultiLabelData
from mlkd.data.file_hashes import image_hashes
from mlkd.data.images import ImageFiles, Images, parent_images
from mlkd.files import cache_dir, create_memmap, create_once
from mlkd.progress import is_interactive

DECODING = 2
"""Part of the name of a map; it changes when `decode_file` reads some files differently."""


class DecodedImages:
    """Decoded images: `images[i]`, with i an integer, a slice or an integer array, is an array of uint8 images.

    They are rows of a memory map that all subsets of a split share.

    Attributes:
        table: (M, size, size, 3) uint8, the memory map of all images of the split.
        rows: (N,) int64, the rows of these images.
        name: a hash that differs for other images, another size or another order.
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
    """All images of a split, resized to `size` x `size` without keeping the aspect ratio, as in the papers.

    The memory map is a file of the cache folder, created on first use; if an image file changes, a new map is
    created. A subset uses the map of the full split. A split of N images takes 3 * N * size**2 bytes on disk.

    Returns:
        N images, uint8 (size, size, 3).

    Raises:
        DataError: an image file is missing or broken.
    """
    images, rows = parent_images(data.images)
    key = hashlib.sha256(f"{size} {DECODING} ".encode() + image_hashes(images).tobytes()).hexdigest()[:24]
    path = cache_dir() / "pixels" / f"{key}.npy"
    create_once(path, lambda unfinished: _decode_all(images, size, unfinished, f"decoding {data.name} {data.split}"))
    return DecodedImages(path, rows)


def _decode_all(images: Images, size: int, path: Path, title: str) -> None:
    table = create_memmap(path, np.uint8, (len(images), size, size, 3))

    def decode(index: int) -> None:
        table[index] = resized_image(images, index, size)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(decode, range(len(images)))
        for _ in tqdm(results, title, len(images), leave=False, disable=not is_interactive()):
            pass
    table.flush()


def resized_image(images: Images, index: int, size: int) -> np.ndarray:
    """One image at training size; a JPEG file is decoded no larger than needed."""
    image = images.decode(index, size) if isinstance(images, ImageFiles) else Image.fromarray(images[index])
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)
