"""What `precision="auto"` measures on this machine, with and without compiling, against float32, channels first."""

from __future__ import annotations

import torch

from benchmarks.timing import Row
from mlkd.models import create_model
from mlkd.training.precision import autotune_precision

NETWORKS = (("resnet14x2_cifar", 96, (False, True)), ("resnet34", 224, (False,)))
SMOKE_NETWORKS = (("resnet8_cifar", 32, (False,)),)


def run(smoke: bool = False) -> list[Row]:
    rows = []
    batch_size = 2 if smoke else 16
    for backbone, size, compile_options in SMOKE_NETWORKS if smoke else NETWORKS:
        model = create_model(backbone, [f"class {k}" for k in range(20)], "gap", image_size=size)
        images_per_second: dict[str, float] = {}
        for compiled in compile_options:
            measured = autotune_precision(model, batch_size, torch.device("cpu"), compiled).images_per_second or {}
            images_per_second |= {name + ", compiled" * compiled: speed for name, speed in measured.items()}
        reference = images_per_second["float32, channels first"]
        for compute_format, speed in images_per_second.items():
            title = f"a step of {backbone}, {size} pixels, {compute_format}, against float32, channels first"
            rows.append(Row(title, batch_size / speed, batch_size / reference, speed / reference))
    return rows
