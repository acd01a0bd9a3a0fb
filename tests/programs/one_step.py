"""Trains each method until its first optimiser step, in however many processes, and writes the gradients.

Usage: one_step.py FOLDER METHOD...
"""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import save_file

import mlkd
from mlkd.data import MultiLabelData
from mlkd.methods import METHODS
from mlkd.models import create_model

folder, names = Path(sys.argv[1]), sys.argv[2:]
CLASSES = ("a", "b", "c", "d", "e")
NET = {"backbone": "test_convnext", "embed_dim": 16}  # layer norm: batch norm would see each process's share


def split(name: str, count: int) -> MultiLabelData:
    rng = np.random.default_rng(["train", "val", "test"].index(name))
    images = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(count)]
    targets = (rng.random((count, len(CLASSES))) < 0.5).astype(np.uint8)
    return MultiLabelData("noise", name, images, targets, CLASSES, tuple(f"{name}{row}" for row in range(count)))


class Done(Exception):
    """The gradients are there."""

    def __init__(self, gradients: list[torch.Tensor]):
        self.gradients = gradients


def stop(optimizer: torch.optim.Optimizer, *_: object) -> None:
    raise Done([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])


def teacher(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return create_model(classes=CLASSES, image_size=64, **NET).eval()


data = {"train": split("train", 8), "val": split("val", 4), "test": split("test", 4)}
config = mlkd.Config(
    pretrained=False, image_size=64, batch_size=8, augmentations=("flip", "cutout"), optimizer="sgd", epochs=1, **NET
)
torch.optim.SGD.step = stop
for name in names:
    settings = {role: teacher(number) for number, role in enumerate(METHODS[name].required_teachers, start=1)}
    settings |= {"crop_mode": "corners"} if name == "mskd" else {}  # random ones differ from process to process
    try:
        mlkd.fit(mlkd.methods.create_method(name, **settings), data, config, runs=folder / "runs", num_workers=0)
    except Done as done:
        if PartialState().is_main_process:
            save_file({str(n): gradient.contiguous() for n, gradient in enumerate(done.gradients)}, folder / name)
    PartialState().wait_for_everyone()
PartialState().destroy_process_group()
