"""An epoch's batches from the decoded memory map, against a plain pipeline of Pillow and torchvision per picture."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from benchmarks.timing import side_by_side
from mlkd.data import ImageFiles, MultiLabelData
from mlkd.training.config import Config
from mlkd.training.loader import BatchDataset

COUNT, SIZE, BATCH = 256, 224, 64

PIPELINES = {
    ("flip",): [v2.RandomHorizontalFlip()],
    ("flip", "randaugment"): [v2.RandomHorizontalFlip(), v2.RandAugment()],
}


def run() -> list[tuple[str, float, float, float]]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLKD_CACHE"] = folder
        data = _photographs(Path(folder))
        rows = []
        for names, steps in PIPELINES.items():
            config = Config(image_size=SIZE, batch_size=BATCH, epochs=1, augmentations=names)
            batches = BatchDataset(data, config, overlap=False, second_view=False)
            plain = v2.Compose([v2.Resize((SIZE, SIZE)), *steps, v2.PILToTensor()])

            def reference(data: MultiLabelData = data, plain: v2.Compose = plain) -> None:
                for start in range(0, COUNT, BATCH):
                    paths = data.images.paths[start : start + BATCH]
                    torch.stack([plain(Image.open(path).convert("RGB")) for path in paths])

            def ours(batches: BatchDataset = batches) -> None:
                for augmented in batches.make_loader(0, 0, torch.device("cpu")):
                    augmented.images.contiguous()

            what = f"{COUNT} pictures of 500 x 375 at {SIZE} pixels, {' and '.join(names)}, second epoch on"
            rows.append((f"{what}, against Pillow and torchvision", *side_by_side(ours, reference, repeats=5)))
    return rows


def _photographs(folder: Path) -> MultiLabelData:
    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(COUNT)]
    for name in names:
        small = rng.integers(0, 256, (32, 42, 3), dtype=np.uint8)
        Image.fromarray(small).resize((500, 375)).save(folder / name, quality=90)
    return MultiLabelData(
        "bench", "train", ImageFiles(folder, names), np.ones((COUNT, 1), np.uint8), ("any",), tuple(names)
    )
