"""What precision="auto" measures on this machine, and what compiling adds: against float32, channels first."""

from __future__ import annotations

import torch

from mlkd.models import create_model
from mlkd.training.precision import autotune_precision

BATCH = 16


def run() -> list[tuple[str, float, float, float]]:
    rows = []
    for backbone, size, ways in (("resnet14x2_cifar", 96, (False, True)), ("resnet34", 224, (False,))):
        model = create_model(backbone, [f"class {k}" for k in range(20)], "gap", image_size=size)
        found = {}
        for compiled in ways:
            measured = autotune_precision(model, BATCH, torch.device("cpu"), compiled).images_per_second or {}
            found |= {name + ", compiled" * compiled: speed for name, speed in measured.items()}
        plain = found["float32, channels first"]
        for how, speed in found.items():
            what = f"a step of {backbone}, {size} pixels, {how}, against float32, channels first"
            rows.append((what, BATCH / speed, BATCH / plain, speed / plain))
    return rows
