"""Query2Label."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlkd.models.heads import Head, blocks, register_head


@register_head("query2label")
class Query2LabelHead(Head):
    """Query2Label: a transformer with an encoder over the cells of the feature map and a decoder with label queries.

    Each label has a learned query. In every layer of the decoder the queries attend to each other, then to the cells,
    then pass a feed-forward layer of width 4 * d. The output of the last layer is the label's embedding; one linear
    output per label computes the logit.

    Source: Liu et al., Query2Label: A Simple Transformer Way to Multi-Label Classification, 2021 (arXiv:2107.10834).
    Depth, heads, widths and dropout are those of the authors' training command for ResNet-101.
    Differs from the official code: with torch's own layers the sine positions of the cells are added once, before the
    encoder, instead of to the keys of every layer; the queries are added in the first layer only; and the decoder has
    self-attention, which the paper describes and the code removes by default.

    Args:
        in_channels: channels D of the feature map.
        classes: the q label names.
        embed_dim: width d of queries and embeddings, a multiple of 4 and of `heads`; None: `in_channels` (2048 for
            ResNet-101), and then the cells are not projected, as in the paper.
        layers: depth of the decoder.
        encoder_layers: depth of the encoder.
        heads: number of attention heads.
        dropout: as in torch's layers.
    """

    def __init__(
        self,
        in_channels: int,
        classes: Sequence[str],
        embed_dim: int | None = None,
        *,
        layers: int = 2,
        encoder_layers: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        d = in_channels if embed_dim is None else embed_dim
        blocks.check_width(d, heads, multiple=4)  # for the positions
        blocks.check_positive(layers=layers, encoder_layers=encoder_layers)
        self.project = nn.Identity() if d == in_channels else nn.Linear(in_channels, d)
        self.queries = nn.Parameter(torch.randn(len(classes), d))
        decoder = nn.TransformerDecoderLayer(d, heads, 4 * d, dropout, batch_first=True)
        self.encoder = blocks.transformer_encoder(d, encoder_layers, heads, dropout)
        self.decoder = blocks.init_layers(nn.TransformerDecoder(decoder, layers, nn.LayerNorm(d)))
        self.weight, self.bias = blocks.classifier_parameters(len(classes), d)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, D, H, W) to logits (b, q) and label-wise embeddings (b, q, d)."""
        cells = blocks.add_positions(self.project(features.flatten(2).transpose(1, 2)), features)
        embeddings = self.decoder(self.queries.expand(features.shape[0], -1, -1), self.encoder(cells))
        return blocks.classify(embeddings, self.weight, self.bias), embeddings
