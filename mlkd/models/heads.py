"""What turns a feature map into one logit per label."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GapHead(nn.Module):
    """Global average pooling and one linear layer: no label-wise embeddings."""

    def __init__(self, features: int, labels: int):
        super().__init__()
        self.classifier = nn.Linear(features, labels)

    def forward(self, features: Tensor) -> tuple[Tensor, None]:
        """Features (b, D, H, W) to logits (b, q)."""
        return self.classifier(features.mean(dim=(-2, -1))), None


class LabelWiseHead(nn.Module):
    """The label-wise embedding encoder of L2D: a cross-attention module and a feed-forward layer.

    Each label has a query of its own. It attends to the cells of the feature map, which gives the label's
    embedding e_k = g_k(f(x)); one linear output per class, h_k, makes the logit of it.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Sec. 3 and Appendix A (arXiv:2308.06453).

    Args:
        features: channels D of the feature map.
        labels: the number of labels q.
        embed_dim: width d of the embeddings, a multiple of `heads`.
        heads: attention heads.
    """

    def __init__(self, features: int, labels: int, embed_dim: int, heads: int = 4):
        super().__init__()
        if embed_dim % heads:
            raise ValueError(f"`embed_dim` is {embed_dim}, expected a multiple of the {heads} attention heads.")
        self.project = nn.Linear(features, embed_dim)
        self.queries = nn.Parameter(torch.randn(labels, embed_dim))
        self.attention = nn.MultiheadAttention(embed_dim, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(embed_dim, 2 * embed_dim), nn.ReLU(), nn.Linear(2 * embed_dim, embed_dim)
        )
        self.norm2 = nn.LayerNorm(embed_dim)
        bound = 1 / math.sqrt(embed_dim)
        self.weight = nn.Parameter(torch.empty(labels, embed_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(labels))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, D, H, W) to logits (b, q) and label-wise embeddings (b, q, d)."""
        cells = F.relu(self.project(features.flatten(2).transpose(1, 2)))  # (b, HW, d)
        queries = self.queries.expand(len(features), -1, -1)
        attended, _ = self.attention(queries, cells, cells, need_weights=False)
        embeddings = self.norm1(queries + attended)
        embeddings = self.norm2(embeddings + self.feed_forward(embeddings))
        logits = torch.einsum("bqd,qd->bq", embeddings, self.weight) + self.bias
        return logits, embeddings


HEADS = ("gap", "label_wise")
