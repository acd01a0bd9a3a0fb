"""Batches of an epoch from the decoded-image cache, against Pillow and torchvision, one image at a time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from benchmarks.timing import Row, compare
from mlkd.data import ImageFiles, MultiLabelData
from mlkd.training.config import Config
from mlkd.training.loader import BatchDataset

SIZE = 224

PIPELINES = {
    ("flip",): [v2.RandomHorizontalFlip()],
    ("flip", "randaugment"): [v2.RandomHorizontalFlip(), v2.RandAugment()],
}


def run(smoke: bool = False) -> list[Row]:
    num_images, batch_size, repeats = (8, 4, 1) if smoke else (256, 64, 5)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLKD_CACHE"] = folder
        data = _jpeg_files(Path(folder), num_images)
        rows = []
        for names, steps in PIPELINES.items():
            config = Config(image_size=SIZE, batch_size=batch_size, epochs=1, augmentations=names)
            batches = BatchDataset(data, config, overlap=False, second_view=False)
            plain = v2.Compose([v2.Resize((SIZE, SIZE)), *steps, v2.PILToTensor()])

            def reference(data: MultiLabelData = data, plain: v2.Compose = plain) -> None:
                for start in range(0, num_images, batch_size):
                    paths = [data.images.path(index) for index in range(start, start + batch_size)]
                    torch.stack([plain(Image.open(path).convert("RGB")) for path in paths])

            def cached(batches: BatchDataset = batches) -> None:
                for augmented in batches.make_loader(0, 0, torch.device("cpu")):
                    augmented.images.contiguous()

            title = f"{num_images} images of 500 x 375 at {SIZE} pixels, {' and '.join(names)}, from the second epoch"
            rows.append(compare(f"{title}, against Pillow and torchvision", cached, reference, repeats))
    return rows


def _jpeg_files(folder: Path, num_images: int) -> MultiLabelData:
    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(num_images)]
    for name in names:
        small = rng.integers(0, 256, (32, 42, 3), dtype=np.uint8)
        Image.fromarray(small).resize((500, 375)).save(folder / name, quality=90)
    return MultiLabelData(
        "bench", "train", ImageFiles(folder, names), np.ones((num_images, 1), np.uint8), ("any",), tuple(names)
    )
