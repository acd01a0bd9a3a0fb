"""An epoch of whole trainings, against its forward and backward passes alone: those of the student and the forward
pass of the teacher on random images, without data loading, augmentation, distillation losses, optimizer or metrics."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import torch

from benchmarks.timing import Row, seconds, summarize
from mlkd.data import MultiLabelData
from mlkd.losses.classification import bce
from mlkd.methods import create_method
from mlkd.models import MultiLabelModel, create_model
from mlkd.training.config import Config
from mlkd.training.loop import fit

LABELS, SIZE = 20, 96
NET = {"image_size": SIZE, "stem_stride": 2}


def run(smoke: bool = False) -> list[Row]:
    num_images, batch_size, repeats = (16, 8, 1) if smoke else (640, 64, 3)
    classes = tuple(f"class {k}" for k in range(LABELS))
    data = {
        name: _random_images(name, count, classes) for name, count in (("train", num_images), ("val", 32), ("test", 32))
    }
    torch.manual_seed(0)
    teacher = create_model("resnet14x2_cifar", classes, embed_dim=128, **NET).eval()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLKD_CACHE"] = folder
        os.environ["MLKD_PROGRESS_FILE"] = f"{folder}/status"
        for name in ("vanilla", "l2d", "mdkd"):
            used_teacher = None if name == "vanilla" else teacher
            method = create_method(name, **({"teacher": teacher} if used_teacher else {}))
            pairs = []
            for repeat in range(repeats):
                reference = _passes(classes, used_teacher, num_images, batch_size)
                config = Config(
                    backbone="resnet8_cifar",
                    backbone_settings={"stem_stride": 2},
                    embed_dim=64,
                    pretrained=False,
                    image_size=SIZE,
                    batch_size=batch_size,
                    epochs=2,
                    augmentations=("flip", "cutout"),
                    seed=repeat,
                )
                history = fit(method, data, config, runs=folder).history
                pairs.append((num_images / history["images_per_second"].iloc[-1], reference))
            title = f"an epoch of {name} ({num_images} images, {SIZE} pixels, warm cache), against its passes alone"
            rows.append(summarize(title, pairs))
    return rows


def _passes(classes: tuple[str, ...], teacher: MultiLabelModel | None, num_images: int, batch_size: int) -> float:
    """Seconds of an epoch's forward and backward passes."""
    student = create_model("resnet8_cifar", classes, embed_dim=64, **NET).to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (batch_size, 3, SIZE, SIZE), dtype=torch.uint8).to(memory_format=torch.channels_last)
    targets = torch.zeros(batch_size, LABELS)

    def epoch() -> None:
        for _ in range(num_images // batch_size):
            if teacher:
                with torch.no_grad():
                    teacher(images)
            student.zero_grad()
            bce(student(images).logits, targets).backward()

    epoch()
    return seconds(epoch)


def _random_images(split: str, count: int, classes: tuple[str, ...]) -> MultiLabelData:
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    targets = (rng.random((count, LABELS)) < 3 / LABELS).astype(np.uint8)
    return MultiLabelData("noise", split, images, targets, classes, tuple(f"{split}{i}" for i in range(count)))
