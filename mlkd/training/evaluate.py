"""What a finished model says of the pictures of a split, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mlkd.data import MultiLabelData
from mlkd.data.image_cache import decoded_images
from mlkd.models import Output


def batches(model, data: MultiLabelData, rows: Sequence[int] | None = None, batch: int = 128) -> Iterator[tuple]:
    """The pictures at `rows` (all of them for None) as the model takes them.

    Yields:
        The rows of a batch, (b,) int64, and their pictures, (b, 3, H, W) uint8 at the model's size, on its device.
    """
    pixels = decoded_images(data, model.image_size)
    chosen = np.arange(len(data)) if rows is None else np.asarray(rows, np.int64)
    device = next(model.parameters()).device
    for start in range(0, len(chosen), batch):
        part = chosen[start : start + batch]
        yield part, torch.from_numpy(np.array(pixels[part])).permute(0, 3, 1, 2).to(device)


@torch.no_grad()
def answer(model: nn.Module, images: Tensor) -> Output:
    """The model's output for pictures (b, 3, H, W), in evaluation mode; the mode is as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        return model.eval()(images)
    finally:
        for module, mode in modes:
            module.training = mode
