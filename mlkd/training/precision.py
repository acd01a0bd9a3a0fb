"""Number format and memory layout of a training, and the measurement behind precision="auto"."""

from __future__ import annotations

import copy
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from mlkd.models import MultiLabelModel
from mlkd.training.config import Config
from mlkd.training.distributed import rank_slice
from mlkd.training.runs import Run

if TYPE_CHECKING:
    from accelerate import Accelerator

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class ComputeFormat(NamedTuple):
    """Number format and memory layout of a training.

    Attributes:
        precision: "float32", "bf16" or "fp16".
        channels_last: whether image tensors have the channels innermost in memory.
        images_per_second: the measurements, by "precision, layout"; None where nothing was measured.
    """

    precision: str
    channels_last: bool = True
    images_per_second: dict[str, float] | None = None

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """A context in which operations run in this precision."""
        return torch.autocast(device.type, DTYPES[self.precision]) if self.precision in DTYPES else nullcontext()

    def grad_scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """The loss scaling that fp16 needs; without effect for the other formats."""
        return torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")


CANDIDATES = (ComputeFormat("float32", False), ComputeFormat("float32", True), ComputeFormat("bf16", True))


def choose_compute_format(accelerator: Accelerator, run: Run, model: MultiLabelModel, config: Config) -> ComputeFormat:
    """The configured format; for precision="auto" the fastest one, which is measured once and stored with the run."""
    if config.precision != "auto":
        return ComputeFormat(config.precision)
    if accelerator.is_main_process and not run.compute_format:
        shard = rank_slice(accelerator, config.batch_size)
        num_images = max((shard.stop - shard.start) // config.grad_accum_steps, 1)  # of one forward pass
        compute_format = autotune_precision(model, num_images, accelerator.device, config.compile)
        run.write_json("compute_format.json", compute_format._asdict())
    accelerator.wait_for_everyone()
    return ComputeFormat(**run.compute_format)


def autotune_precision(
    model: MultiLabelModel, batch_size: int, device: torch.device, compiled: bool = False
) -> ComputeFormat:
    """Measures forward and backward passes in float32, channels-last float32 and bf16, and returns the fastest.

    The passes run on a copy of the model and on noise. The state of the random number generators is restored.

    Args:
        model: at most float32; it is not changed.
        batch_size: images per step, of one process.
        device: where the training runs.
        compiled: whether to compile each copy.
    """
    images_per_second = {}
    for candidate in CANDIDATES:
        layout = "channels last" if candidate.channels_last else "channels first"
        with torch.random.fork_rng():
            seconds = _seconds_per_step(model, candidate, batch_size, device, compiled)
        images_per_second[f"{candidate.precision}, {layout}"] = batch_size / seconds
    best = max(zip(images_per_second.values(), CANDIDATES, strict=True), key=lambda pair: pair[0])[1]
    return best._replace(images_per_second={name: round(value, 1) for name, value in images_per_second.items()})


def _seconds_per_step(
    model: MultiLabelModel, compute_format: ComputeFormat, batch_size: int, device: torch.device, compiled: bool
) -> float:
    """The median duration of three steps after a warm-up step."""
    trial = copy.deepcopy(model).to(device).to(memory_format=compute_format.layout).train()
    if compiled:
        trial.compile()
    images = torch.randint(0, 256, (batch_size, 3, model.image_size, model.image_size), dtype=torch.uint8)
    images = images.to(device).to(memory_format=compute_format.layout)
    targets = torch.zeros(batch_size, len(model.classes), device=device)
    durations = []
    for _ in range(4):
        _synchronize(device)
        start = time.perf_counter()
        with compute_format.autocast(device):
            logits = trial(images).logits
        nn.functional.binary_cross_entropy_with_logits(logits.float(), targets).backward()
        _synchronize(device)
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[1:])


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
