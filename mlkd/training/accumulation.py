"""Gradient accumulation: a batch passes through the student in slices, and the losses are those of the whole batch.

Losses that compare the images of a batch with each other cannot be computed slice by slice. Therefore the outputs of
all slices are concatenated, the losses are computed once, and the activations of each slice are computed again when
its gradient is (`torch.utils.checkpoint`). The gradient is exact for every such loss, only the activations of one slice
are in memory at a time, and a step takes one more forward pass of the student. Random numbers (dropout) are the same in
both passes. Batch normalization uses the statistics of each slice and updates its running statistics once per slice.

Source: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, RepL4NLP 2021 (GradCache),
arXiv:2101.06983.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mlkd.models import Output


def forward_in_slices(model: nn.Module, images: Tensor, num_slices: int) -> Output:
    """The model's output for images (b, 3, H, W), computed in `num_slices` slices of nearly equal length.

    Methods must use this output only, not what the model computes on the way, since there is no gradient of that.
    """
    if num_slices == 1:
        return model(images)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _restore_buffers(model)

    slices = images.tensor_split(min(num_slices, len(images)))
    outputs = [checkpoint(model, part, use_reentrant=False, context_fn=contexts) for part in slices]
    logits, embeddings, features = zip(*outputs, strict=True)
    return Output(torch.cat(logits), None if embeddings[0] is None else torch.cat(embeddings), torch.cat(features))


@contextmanager
def _restore_buffers(model: nn.Module) -> Iterator[None]:
    """Restores running statistics at the end, so that a second pass over the same images does not update them again."""
    saved = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(model.buffers(), saved, strict=True):
            buffer.data.copy_(value)
