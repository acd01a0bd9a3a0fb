"""What precision="auto" measures on this machine, and what compiling adds: against float32, channels first."""

from __future__ import annotations

import torch

from mlkd.models import create_model
from mlkd.precision import fastest

BATCH = 32


def run() -> list[tuple[str, float, float, float]]:
    rows = []
    for backbone, size in (("resnet8_cifar", 96), ("resnet50", 224)):
        model = create_model(backbone, [f"class {k}" for k in range(20)], "gap", image_size=size)
        plain = fastest(model, BATCH, torch.device("cpu")).images_per_second
        compiled = fastest(model, BATCH, torch.device("cpu"), compiled=True).images_per_second
        slowest = plain["float32, channels first"]
        for how, speed in [*plain.items(), *((f"{name}, compiled", value) for name, value in compiled.items())]:
            what = f"a step of {backbone}, {size} pixels, {how}, against float32, channels first"
            rows.append((what, BATCH / speed, BATCH / slowest, speed / slowest))
    return rows
