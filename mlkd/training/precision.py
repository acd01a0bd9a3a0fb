"""precision="auto": a few steps in each number format and memory layout, and the fastest is kept."""

from __future__ import annotations

import copy
import statistics
import time
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import nn

from mlkd.models import MultiLabelModel


class ComputeFormat(NamedTuple):
    """What a training computes in.

    Attributes:
        precision: "float32", "bf16" or "fp16".
        channels_last: whether tensors lie in memory with the channels innermost.
        images_per_second: what was measured, by "precision, layout"; None where nothing was.
    """

    precision: str
    channels_last: bool = True
    images_per_second: dict[str, float] | None = None

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


CANDIDATES = (ComputeFormat("float32", False), ComputeFormat("float32", True), ComputeFormat("bf16", True))


def autotune_precision(
    model: MultiLabelModel, batch_size: int, device: torch.device, compiled: bool = False
) -> ComputeFormat:
    """Times forward and backward of a copy of the model, on noise, in float32, channels-last float32 and bf16.

    What is random afterwards is as if nothing had been measured.

    Args:
        model: at most float32; it stays as it is.
        batch_size: pictures a step, of one process.
        device: where the training runs.
        compiled: whether to compile each copy.
    """
    found = {}
    for speed in CANDIDATES:
        layout = "channels last" if speed.channels_last else "channels first"
        with torch.random.fork_rng():
            seconds = _seconds(model, speed, batch_size, device, compiled)
        found[f"{speed.precision}, {layout}"] = batch_size / seconds
    best = max(zip(found.values(), CANDIDATES, strict=True), key=lambda pair: pair[0])[1]
    return best._replace(images_per_second={name: round(value, 1) for name, value in found.items()})


def _seconds(
    model: MultiLabelModel, speed: ComputeFormat, batch_size: int, device: torch.device, compiled: bool
) -> float:
    """The median time of three steps, after one that does not count."""
    trial = copy.deepcopy(model).to(device).to(memory_format=speed.layout).train()
    if compiled:
        trial.compile()
    images = torch.randint(0, 256, (batch_size, 3, model.image_size, model.image_size), dtype=torch.uint8)
    images = images.to(device).to(memory_format=speed.layout)
    targets = torch.zeros(batch_size, len(model.classes), device=device)
    lower = torch.autocast(device.type, torch.bfloat16) if speed.precision == "bf16" else nullcontext()
    times = []
    for _ in range(4):
        _wait(device)
        started = time.perf_counter()
        with lower:
            logits = trial(images).logits
        nn.functional.binary_cross_entropy_with_logits(logits.float(), targets).backward()
        _wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
