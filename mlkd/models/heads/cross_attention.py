"""The base class of heads whose label queries attend to the cells of the feature map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.models.heads import Head, blocks


class CrossAttentionHead(Head):
    """A head with one query per label, cross-attention to the cells, and one linear output per label.

    Attributes:
        project: the linear layer from the D channels of a cell to the width d.
        queries: (q, d), a parameter or a buffer.
        attention: from the queries to the cells, batch first.
        weight: the weights (q, d) of the linear outputs.
    """

    has_cams = True

    project: nn.Linear
    queries: Tensor
    attention: nn.MultiheadAttention
    weight: nn.Parameter

    def queries_and_cells(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, D, H, W) to the inputs of the attention: queries (b, q, d) and projected cells (b, HW, d)."""
        cells = F.relu(self.project(features.flatten(2).transpose(1, 2)))
        return self.queries.expand(features.shape[0], -1, -1), cells

    def cams(self, features: Tensor) -> Tensor:
        """The maps of the cross-attention: see `blocks.cross_attention_cams`."""
        maps = blocks.cross_attention_cams(self.attention, *self.queries_and_cells(features), self.weight)
        return maps.unflatten(2, features.shape[2:])
