"""Global average pooling and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlkd.models.heads import Head, register_head


@register_head("gap")
class GapHead(Head):
    """Global average pooling and one linear layer: no label-wise embeddings."""

    has_embeddings = False
    has_cams = True

    def __init__(self, in_channels: int, classes: Sequence[str]):
        super().__init__()
        self.classifier = nn.Linear(in_channels, len(classes))

    def forward(self, features: Tensor) -> tuple[Tensor, None]:
        """Features (b, D, H, W) to logits (b, q)."""
        return self.classifier(features.mean(dim=(-2, -1))), None

    def cams(self, features: Tensor) -> Tensor:
        r"""The maps $M_k(x, y) = \sum_d w_{kd} f_d(x, y)$; the logit is the mean of a map plus the bias.

        Source: Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016, arXiv:1512.04150.
        """
        return torch.einsum("bdhw,qd->bqhw", features, self.classifier.weight)
