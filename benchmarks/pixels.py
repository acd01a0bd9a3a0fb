"""An epoch's pictures from the decoded memory map, against opening and resizing every JPEG file with Pillow."""

from __future__ import annotations

import os
import tempfile

import numpy as np
from PIL import Image

from benchmarks.timing import side_by_side
from mlkd.data import ImageFiles, MultiLabelData
from mlkd.data.pixels import decoded


def run() -> list[tuple[str, float, float, float]]:
    rng = np.random.default_rng(0)
    count, size = 256, 224
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLKD_CACHE"] = folder
        names = [f"{i}.jpg" for i in range(count)]
        for name in names:
            small = rng.integers(0, 256, (32, 42, 3), dtype=np.uint8)
            Image.fromarray(small).resize((500, 375)).save(f"{folder}/{name}", quality=90)
        targets = np.ones((count, 1), np.uint8)
        data = MultiLabelData("bench", "train", ImageFiles(folder, names), targets, ("any",), tuple(names))
        batches = np.array_split(rng.permutation(count), 4)

        def reference() -> None:
            for batch in batches:
                np.stack([np.asarray(Image.open(f"{folder}/{names[i]}").resize((size, size))) for i in batch])

        def ours() -> None:
            pixels = decoded(data, size)
            for batch in batches:
                np.array(pixels[np.sort(batch)])

        times = side_by_side(ours, reference, repeats=3)
    return [(f"{count} pictures of 500 x 375 at {size} pixels, second epoch on, against Pillow", *times)]
