"""L2D's label-wise embedding encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlkd.models.heads import blocks, register_head
from mlkd.models.heads.cross_attention import CrossAttentionHead


@register_head("label_wise")
class LabelWiseHead(CrossAttentionHead):
    """The label-wise embedding encoder of L2D: a cross-attention module and a feed-forward layer.

    Each label has a learned query, which attends to the cells of the feature map. The result is the label's embedding
    e_k = g_k(f(x)); one linear output per label, h_k, computes its logit.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Sec. 3 and Appendix A (arXiv:2308.06453). The
    paper states neither the number of attention heads nor the width of the feed-forward layer, here 2 * d.
    Differs from the official code, whose head is `ml_decoder`.

    Args:
        in_channels: channels D of the feature map.
        classes: the q label names.
        embed_dim: width d of the embeddings, a multiple of `heads`; None: `in_channels`, at most 512.
        heads: number of attention heads.
    """

    def __init__(self, in_channels: int, classes: Sequence[str], embed_dim: int | None = None, *, heads: int = 4):
        super().__init__()
        d = min(in_channels, 512) if embed_dim is None else embed_dim
        blocks.check_width(d, heads)
        self.project = nn.Linear(in_channels, d)
        self.queries = nn.Parameter(torch.randn(len(classes), d))
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(d)
        self.feed_forward = nn.Sequential(nn.Linear(d, 2 * d), nn.ReLU(), nn.Linear(2 * d, d))
        self.norm2 = nn.LayerNorm(d)
        self.weight, self.bias = blocks.classifier_parameters(len(classes), d)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, D, H, W) to logits (b, q) and label-wise embeddings (b, q, d)."""
        queries, cells = self.queries_and_cells(features)
        attended, _ = self.attention(queries, cells, cells, need_weights=False)
        embeddings = self.norm1(queries + attended)
        embeddings = self.norm2(embeddings + self.feed_forward(embeddings))
        return blocks.classify(embeddings, self.weight, self.bias), embeddings
