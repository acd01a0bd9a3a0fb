"""CPSD's transformer head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlkd.models.heads import Head, blocks, register_head
from mlkd.models.word_vectors import class_vectors


@register_head("transformer")
class TransformerHead(Head):
    """A transformer encoder over the cells of the feature map and one token per label (CPSD's "TF").

    The embedding of a label is its token after the last layer; one linear output per label computes the logit. The
    layers are those of the vision transformer: layer norm first, GELU, a feed-forward width of 4 * d. Cells have fixed
    two-dimensional sine and cosine positions, computed for any size of the feature map, since attention does not
    depend on the order of the cells. The learned class tokens need no positions.

    Source: Xu et al., Boosting Multi-Label Image Classification with Complementary Parallel Self-Distillation,
    IJCAI 2022, Sec. 4.1 ("ResNet101-TF"; arXiv:2205.10986). The paper states depth, number of heads, width and word
    vectors only; positions, the learned projection of the word vectors and dropout are choices made here.
    Differs from the official code, which has a feed-forward width of 1024, attention heads of width 1024 each, a ReLU
    after the projection of the word vectors, and one output layer that all labels share.

    Args:
        in_channels: channels D of the feature map.
        classes: the q label names.
        embed_dim: width d of tokens and embeddings, a multiple of 4 and of `heads`; None: 1024, as in the paper.
        layers: depth of the encoder.
        heads: number of attention heads.
        dropout: as in torch's encoder layers.
        word_vectors: None for learned class tokens, or a text file of GloVe vectors, which are fixed and go through
            one learned layer. The vectors are saved with the model. An integer reserves space for vectors of that
            width, random until a model file is loaded: a saved model is rebuilt without the text file.
    """

    word_vectors: Tensor

    def __init__(
        self,
        in_channels: int,
        classes: Sequence[str],
        embed_dim: int | None = None,
        *,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
        word_vectors: str | Path | int | None = None,
    ):
        super().__init__()
        d = 1024 if embed_dim is None else embed_dim
        blocks.check_width(d, heads, multiple=4)  # for the positions
        blocks.check_positive(layers=layers)
        self.project = nn.Linear(in_channels, d)
        if word_vectors is None:
            self.tokens = nn.Parameter(0.02 * torch.randn(len(classes), d))
        else:
            if isinstance(word_vectors, int):
                blocks.check_positive(word_vectors=word_vectors)
                vectors = torch.randn(len(classes), word_vectors)
            else:
                vectors = class_vectors(word_vectors, classes)
            self.register_buffer("word_vectors", vectors)
            self.project_words = nn.Linear(vectors.shape[1], d)
        self.encoder = blocks.transformer_encoder(d, layers, heads, dropout, activation="gelu", norm_first=True)
        self.weight, self.bias = blocks.classifier_parameters(len(classes), d)

    def saved_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings with the width of the word vectors in place of their file; the vectors are saved as a buffer."""
        width = {"word_vectors": self.word_vectors.shape[1]} if settings.get("word_vectors") is not None else {}
        return {**settings, **width}

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, D, H, W) to logits (b, q) and label-wise embeddings (b, q, d)."""
        tokens = self.project_words(self.word_vectors) if hasattr(self, "word_vectors") else self.tokens
        cells = blocks.add_positions(self.project(features.flatten(2).transpose(1, 2)), features)
        sequence = torch.cat([tokens.expand(features.shape[0], -1, -1), cells], dim=1)  # (b, q + HW, d)
        embeddings = self.encoder(sequence)[:, : len(tokens)]
        return blocks.classify(embeddings, self.weight, self.bias), embeddings
