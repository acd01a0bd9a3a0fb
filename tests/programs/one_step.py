"""Trains each method until its first optimizer step, in one or more processes, and writes the gradients.

Each process also writes what the other collective operations return, to `collectives-<rank>.npz`.

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
from mlkd.training.distributed import broadcast_buffers, create_accelerator, gather_arrays

folder, names = Path(sys.argv[1]), sys.argv[2:]
CLASSES = ("a", "b", "c", "d", "e")
NET = {"backbone": "test_convnext", "embed_dim": 16}  # layer norm does not depend on the slice of the batch


def split(name: str, count: int) -> MultiLabelData:
    rng = np.random.default_rng(["train", "val", "test"].index(name))
    images = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(count)]
    targets = (rng.random((count, len(CLASSES))) < 0.5).astype(np.uint8)
    return MultiLabelData("noise", name, images, targets, CLASSES, tuple(f"{name}{row}" for row in range(count)))


class Done(Exception):
    """Raised at the first optimizer step, with its gradients."""

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

accelerator = create_accelerator()
rank = accelerator.process_index
norm = torch.nn.BatchNorm1d(3)
norm.running_mean.fill_(rank + 1)
broadcast_buffers(accelerator, norm)
gathered = gather_arrays(accelerator, np.full((2 + rank, 2), rank))
np.savez(folder / f"collectives-{rank}.npz", gathered=gathered, running_mean=norm.running_mean.numpy())
PartialState().destroy_process_group()
