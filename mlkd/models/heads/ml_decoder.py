"""ML-Decoder with one group per label, the head of L2D's official code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.models.heads import blocks, register_head
from mlkd.models.heads.cross_attention import CrossAttentionHead


@register_head("ml_decoder")
class MLDecoderHead(CrossAttentionHead):
    """ML-Decoder with as many groups as labels: fixed queries, one cross-attention and a feed-forward layer.

    Each label has a random query that is not trained. The query attends to the cells of the feature map; the result is
    the label's embedding, and one linear output per label computes the logit. The official code of L2D uses it as the
    label-wise embedding encoder, with `embed_dim=768` and the defaults here.

    Source: Ridnik et al., ML-Decoder: Scalable and Versatile Classification Head, WACV 2023, arXiv:2111.12933, in the
    form of the official code of Yang et al., Multi-Label Knowledge Distillation, ICCV 2023.
    Differs from the paper of L2D, whose queries are trained, and from `label_wise` in the norm of the queries, the
    dropout, the number of attention heads and the width of the feed-forward layer.

    Args:
        in_channels: channels D of the feature map.
        classes: the q label names.
        embed_dim: width d of queries and embeddings, a multiple of `heads`; None: 768.
        heads: number of attention heads.
        feed_forward: width of the feed-forward layer.
        dropout: of the queries, the attention weights and the feed-forward layer.
    """

    def __init__(
        self,
        in_channels: int,
        classes: Sequence[str],
        embed_dim: int | None = None,
        *,
        heads: int = 8,
        feed_forward: int = 2048,
        dropout: float = 0.1,
    ):
        super().__init__()
        d = 768 if embed_dim is None else embed_dim
        blocks.check_width(d, heads)
        blocks.check_positive(feed_forward=feed_forward)
        self.project = nn.Linear(in_channels, d)
        self.register_buffer("queries", torch.randn(len(classes), d))
        self.attention = nn.MultiheadAttention(d, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(d, feed_forward), nn.Linear(feed_forward, d)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(d) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(classes), d)))
        self.bias = nn.Parameter(torch.zeros(len(classes)))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, D, H, W) to logits (b, q) and label-wise embeddings (b, q, d)."""
        queries, cells = self.queries_and_cells(features)
        attended, _ = self.attention(queries, cells, cells, need_weights=False)
        embeddings = self.norm2(queries + self.dropout(attended))
        hidden = self.dropout(F.relu(self.linear1(embeddings)))
        embeddings = self.norm3(embeddings + self.dropout(self.linear2(hidden)))
        return blocks.classify(embeddings, self.weight, self.bias), embeddings

    def queries_and_cells(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The normalized queries (b, q, d) and the projected cells (b, HW, d)."""
        queries, cells = super().queries_and_cells(features)
        return self.norm1(queries + self.dropout(queries)), cells
