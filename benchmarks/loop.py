"""Pictures per second of whole trainings, as a share of the bare limit: the student's forward and backward pass and the
teacher's forward pass on noise, without data, augmentation, losses of a method, optimiser or scores."""

from __future__ import annotations

import os
import statistics
import tempfile

import numpy as np
import torch

from benchmarks.timing import seconds
from mlkd.data import MultiLabelData
from mlkd.losses.classification import bce
from mlkd.methods import create_method
from mlkd.models import MultiLabelModel, create_model
from mlkd.training.config import Config
from mlkd.training.loop import fit

LABELS, SIZE, BATCH, COUNT = 20, 96, 64, 640
NET = {"image_size": SIZE, "stem_stride": 2}


def run() -> list[tuple[str, float, float, float]]:
    """The seconds of an epoch: the training's, the limit's, and the limit's share of the training's."""
    classes = tuple(f"class {k}" for k in range(LABELS))
    data = {name: _noise(name, count, classes) for name, count in (("train", COUNT), ("val", 32), ("test", 32))}
    torch.manual_seed(0)
    teacher = create_model("resnet14x2_cifar", classes, embed_dim=128, **NET).eval()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLKD_CACHE"] = folder
        os.environ["MLKD_PROGRESS_FILE"] = f"{folder}/status"
        for name in ("vanilla", "l2d", "mdkd"):
            taught = name != "vanilla"
            method = create_method(name, **({"teacher": teacher} if taught else {}))
            limits, ours = [], []
            for repeat in range(3):
                limits.append(_limit(classes, teacher if taught else None))
                config = Config(
                    backbone="resnet8_cifar",
                    backbone_settings={"stem_stride": 2},
                    embed_dim=64,
                    pretrained=False,
                    image_size=SIZE,
                    batch_size=BATCH,
                    epochs=2,
                    augmentations=("flip", "cutout"),
                    seed=repeat,
                )
                history = fit(method, data, config, runs=folder).history
                ours.append(COUNT / history["images_per_second"].iloc[-1])
            shares = [limit / mine for limit, mine in zip(limits, ours, strict=True)]
            what = f"an epoch of {name} ({COUNT} pictures, {SIZE} pixels, warm cache), as a share of the bare limit"
            rows.append((what, statistics.median(ours), statistics.median(limits), statistics.median(shares)))
    return rows


def _limit(classes: tuple[str, ...], teacher: MultiLabelModel | None) -> float:
    """Seconds of an epoch's forward and backward passes."""
    student = create_model("resnet8_cifar", classes, embed_dim=64, **NET).to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8).to(memory_format=torch.channels_last)
    targets = torch.zeros(BATCH, LABELS)

    def epoch() -> None:
        for _ in range(COUNT // BATCH):
            if teacher:
                with torch.no_grad():
                    teacher(images)
            student.zero_grad()
            bce(student(images).logits, targets).backward()

    epoch()
    return seconds(epoch)


def _noise(split: str, count: int, classes: tuple[str, ...]) -> MultiLabelData:
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    targets = (rng.random((count, LABELS)) < 3 / LABELS).astype(np.uint8)
    return MultiLabelData("noise", split, images, targets, classes, tuple(f"{split}{i}" for i in range(count)))
