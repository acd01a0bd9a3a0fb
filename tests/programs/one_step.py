"""Trains each method until its first optimizer step, in one or more processes, and writes the gradients.

Each process also writes what the other collective operations return, to `collectives-<rank>.npz`, and then runs the
command line given after `--`, if any.

Usage: one_step.py FOLDER METHOD... [-- mlkd ARGUMENT...]
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import save_file

import mlkd
from mlkd.cli import app
from mlkd.data import MultiLabelData
from mlkd.methods import METHODS
from mlkd.models import create_model
from mlkd.training.distributed import broadcast_buffers, create_accelerator, gather_arrays

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


@patch.object(torch.optim.SGD, "step", stop)
def write_gradients(folder: Path, names: Iterable[str]) -> None:
    """Writes the gradients of the first step of each method to `folder/NAME`."""
    data = {"train": split("train", 8), "val": split("val", 4), "test": split("test", 4)}
    settings = {"pretrained": False, "image_size": 64, "batch_size": 8, "augmentations": ("flip", "cutout")}
    config = mlkd.Config(**settings, optimizer="sgd", epochs=1, **NET)
    for name in names:
        method_settings = {
            role: teacher(number) for number, role in enumerate(METHODS[name].required_teachers, start=1)
        }
        method_settings |= (
            {"crop_mode": "corners"} if name == "mskd" else {}
        )  # random ones differ from process to process
        try:
            mlkd.fit(
                mlkd.methods.create_method(name, **method_settings), data, config, runs=folder / "runs", num_workers=0
            )
        except Done as done:
            if PartialState().is_main_process:
                save_file({str(n): gradient.contiguous() for n, gradient in enumerate(done.gradients)}, folder / name)
        PartialState().wait_for_everyone()


def write_collectives(folder: Path) -> None:
    """Writes what the collective operations return in this process."""
    accelerator = create_accelerator()
    rank = accelerator.process_index
    norm = torch.nn.BatchNorm1d(3)
    norm.running_mean.fill_(rank + 1)
    broadcast_buffers(accelerator, norm)
    gathered = gather_arrays(accelerator, np.full((2 + rank, 2), rank))
    np.savez(folder / f"collectives-{rank}.npz", gathered=gathered, running_mean=norm.running_mean.numpy())


if __name__ == "__main__":
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    _, output, *method_names = sys.argv[:end]
    write_gradients(Path(output), method_names)
    write_collectives(Path(output))
    try:
        if sys.argv[end:]:
            sys.argv = sys.argv[end + 1 :]
            app()
    finally:
        PartialState().destroy_process_group()
