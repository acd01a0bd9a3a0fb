"""Global average pooling and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mlkd.models.heads import Head, register_head


@register_head("gap")
class GapHead(Head):
    """Global average pooling and one linear layer: no label-wise embeddings."""

    has_embeddings = False

    def __init__(self, in_channels: int, classes: Sequence[str]):
        super().__init__()
        self.classifier = nn.Linear(in_channels, len(classes))

    def forward(self, features: Tensor) -> tuple[Tensor, None]:
        """Features (b, D, H, W) to logits (b, q)."""
        return self.classifier(features.mean(dim=(-2, -1))), None
