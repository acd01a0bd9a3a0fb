"""What turns a feature map into one logit per label."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

from mlkd.errors import check_choice, closest_match
from mlkd.models.word_vectors import class_vectors


class Head(nn.Module):
    """Features (b, D, H, W) to logits (b, q) and label-wise embeddings (b, q, d) or None.

    A new head is a subclass with the constructor `(features, classes, embed_dim=None, **settings)`, `features` being
    the D channels of the feature map and `classes` the q label names, under a name of its own in `HEADS`.

    Attributes:
        has_embeddings: whether it gives embeddings; only then is it told `embed_dim`, their width d.
    """

    has_embeddings: ClassVar[bool] = True

    def saved_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a model file keeps for this head, as plain values; `settings` are those that made it."""
        return dict(settings)


class GapHead(Head):
    """Global average pooling and one linear layer: no label-wise embeddings."""

    has_embeddings = False

    def __init__(self, features: int, classes: Sequence[str]):
        super().__init__()
        self.classifier = nn.Linear(features, len(classes))

    def forward(self, features: Tensor) -> tuple[Tensor, None]:
        """Features (b, D, H, W) to logits (b, q)."""
        return self.classifier(features.mean(dim=(-2, -1))), None


class LabelWiseHead(Head):
    """The label-wise embedding encoder of L2D: a cross-attention module and a feed-forward layer.

    Each label has a query of its own. It attends to the cells of the feature map, which gives the label's
    embedding e_k = g_k(f(x)); one linear output per class, h_k, makes the logit of it.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Sec. 3 and Appendix A (arXiv:2308.06453).

    Args:
        features: channels D of the feature map.
        classes: the q label names.
        embed_dim: width d of the embeddings, a multiple of `heads`; None takes `features`, at most 512.
        heads: attention heads.
    """

    def __init__(self, features: int, classes: Sequence[str], embed_dim: int | None = None, *, heads: int = 4):
        super().__init__()
        d = min(features, 512) if embed_dim is None else embed_dim
        _check_width(d, heads)
        self.project = nn.Linear(features, d)
        self.queries = nn.Parameter(torch.randn(len(classes), d))
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(d)
        self.feed_forward = nn.Sequential(nn.Linear(d, 2 * d), nn.ReLU(), nn.Linear(2 * d, d))
        self.norm2 = nn.LayerNorm(d)
        self.weight, self.bias = _outputs(len(classes), d)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, D, H, W) to logits (b, q) and label-wise embeddings (b, q, d)."""
        cells = F.relu(self.project(features.flatten(2).transpose(1, 2)))  # (b, HW, d)
        queries = self.queries.expand(len(features), -1, -1)
        attended, _ = self.attention(queries, cells, cells, need_weights=False)
        embeddings = self.norm1(queries + attended)
        embeddings = self.norm2(embeddings + self.feed_forward(embeddings))
        return _logits(embeddings, self.weight, self.bias), embeddings


class TransformerHead(Head):
    """A plain transformer encoder over the cells of the feature map and one token per class (CPSD's "TF").

    The embedding of a label is what its token has become after the last layer; one linear output per class makes the
    logit of it. The layers are those of the vision transformer: layer norms first, GELU, four times the width inside.
    Cells have fixed two-dimensional sine and cosine positions, computed for whatever grid comes in, since attention
    alone cannot tell where a cell lies; class tokens have none, they tell themselves apart.

    Source: Xu et al., Boosting Multi-Label Image Classification with Complementary Parallel Self-Distillation,
    IJCAI 2022, Sec. 4.1 ("ResNet101-TF"; arXiv:2205.10986), which names depth, heads, width and word vectors alone;
    positions, the learned projection of the word vectors and dropout are chosen here.

    Args:
        features: channels D of the feature map.
        classes: the q label names.
        embed_dim: width d of tokens and embeddings, a multiple of 4 and of `heads`; None takes the paper's 1024.
        layers: depth of the encoder.
        heads: attention heads.
        dropout: as torch's encoder layers apply it.
        word_vectors: None for class tokens that are learned from scratch, or a text file of GloVe, whose vectors stay
            as they are and go through one learned layer. The vectors are part of the model and are saved with it. A
            number makes room for vectors of that width, random until a model file fills them: so a saved model is
            rebuilt without the text file.
    """

    word_vectors: Tensor

    def __init__(
        self,
        features: int,
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
        _check_width(d, heads, of=4)  # for the positions
        _check_counts(layers=layers)
        self.project = nn.Linear(features, d)
        if word_vectors is None:
            self.tokens = nn.Parameter(0.02 * torch.randn(len(classes), d))
        else:
            if isinstance(word_vectors, int):
                _check_counts(word_vectors=word_vectors)
                vectors = torch.randn(len(classes), word_vectors)
            else:
                vectors = class_vectors(word_vectors, classes)
            self.register_buffer("word_vectors", vectors)
            self.project_words = nn.Linear(vectors.shape[1], d)
        self.encoder = _encoder(d, layers, heads, dropout, activation="gelu", norm_first=True)
        self.weight, self.bias = _outputs(len(classes), d)

    def saved_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """With the vectors' width for their file: the vectors are among the weights."""
        width = {"word_vectors": self.word_vectors.shape[1]} if settings.get("word_vectors") is not None else {}
        return {**settings, **width}

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, D, H, W) to logits (b, q) and label-wise embeddings (b, q, d)."""
        tokens = self.project_words(self.word_vectors) if hasattr(self, "word_vectors") else self.tokens
        cells = _with_positions(self.project(features.flatten(2).transpose(1, 2)), features)
        together = torch.cat([tokens.expand(len(features), -1, -1), cells], dim=1)  # (b, q + HW, d)
        embeddings = self.encoder(together)[:, : len(tokens)]
        return _logits(embeddings, self.weight, self.bias), embeddings


class Query2LabelHead(Head):
    """Query2Label: a transformer whose encoder sees the cells of the feature map and whose decoder asks for labels.

    Each label has a learned query. In every layer of the decoder the queries attend to each other, then to the cells,
    then pass a feed-forward layer four times as wide inside. What comes out of the last layer is the label's
    embedding; one linear output per class makes the logit of it.

    Source: Liu et al., Query2Label: A Simple Transformer Way to Multi-Label Classification, 2021 (arXiv:2107.10834).
    Depth, heads, widths and dropout are those of the authors' training command for ResNet-101.
    Differs from the released code: torch's own layers, so the sine positions of the cells are added once, before the
    encoder, and not to the keys of every layer, the queries are added in the first layer alone, and the decoder keeps
    its self-attention (which the paper describes and the code removes by default).

    Args:
        features: channels D of the feature map.
        classes: the q label names.
        embed_dim: width d of queries and embeddings, a multiple of 4 and of `heads`; None takes `features` (2048 for
            ResNet-101), and then the cells enter unprojected, as published.
        layers: depth of the decoder.
        encoder_layers: depth of the encoder.
        heads: attention heads.
        dropout: as torch's layers apply it.
    """

    def __init__(
        self,
        features: int,
        classes: Sequence[str],
        embed_dim: int | None = None,
        *,
        layers: int = 2,
        encoder_layers: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        d = features if embed_dim is None else embed_dim
        _check_width(d, heads, of=4)  # for the positions
        _check_counts(layers=layers, encoder_layers=encoder_layers)
        self.project = nn.Identity() if d == features else nn.Linear(features, d)
        self.queries = nn.Parameter(torch.randn(len(classes), d))
        decoder = nn.TransformerDecoderLayer(d, heads, 4 * d, dropout, batch_first=True)
        self.encoder = _encoder(d, encoder_layers, heads, dropout)
        self.decoder = _drawn_apart(nn.TransformerDecoder(decoder, layers, nn.LayerNorm(d)))
        self.weight, self.bias = _outputs(len(classes), d)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, D, H, W) to logits (b, q) and label-wise embeddings (b, q, d)."""
        cells = _with_positions(self.project(features.flatten(2).transpose(1, 2)), features)
        embeddings = self.decoder(self.queries.expand(len(features), -1, -1), self.encoder(cells))
        return _logits(embeddings, self.weight, self.bias), embeddings


HEADS: dict[str, type[Head]] = {
    "gap": GapHead,
    "label_wise": LabelWiseHead,
    "transformer": TransformerHead,
    "query2label": Query2LabelHead,
}


def create_head(
    name: str, features: int, classes: Sequence[str], embed_dim: int | None, settings: Mapping[str, Any]
) -> Head:
    """The head of that name.

    Raises:
        ValueError: an unknown head or setting (the nearest is named), or a setting's value that does not fit.
    """
    check_choice("head", name, HEADS)
    kind = HEADS[name]
    known = [setting for setting in inspect.signature(kind).parameters if setting not in ("features", "classes")]
    for setting in settings:
        if setting == "embed_dim" or setting not in known:
            others = [other for other in known if other != "embed_dim"]
            hint = f"Did you mean {closest_match(setting, others)!r}?" if others else "It has none."
            width = " The embeddings' width is `embed_dim`, beside `head_settings`." if kind.has_embeddings else ""
            raise ValueError(f"The head {name!r} has no setting {setting!r}. {hint}{width}")
    return kind(features, classes, **({"embed_dim": embed_dim} if kind.has_embeddings else {}), **settings)


def _encoder(d: int, layers: int, heads: int, dropout: float, **kind) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(d, heads, 4 * d, dropout, batch_first=True, **kind)
    return _drawn_apart(nn.TransformerEncoder(layer, layers, nn.LayerNorm(d), enable_nested_tensor=False))


def _drawn_apart(stack):
    """The stack with weights of their own in every layer, as in `nn.Transformer`; torch copies the first one's."""
    for parameter in stack.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    return stack


def _with_positions(cells: Tensor, features: Tensor) -> Tensor:
    """Cells (b, HW, d) plus the sine and cosine of their row and column in the (b, D, H, W) map."""
    rows, columns = features.shape[-2:]
    return cells + build_sincos2d_pos_embed([rows, columns], cells.shape[2], device=cells.device, dtype=cells.dtype)


def _outputs(labels: int, d: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights (q, d) and biases (q,) of one linear output per class."""
    bound = 1 / math.sqrt(d)
    return nn.Parameter(torch.empty(labels, d).uniform_(-bound, bound)), nn.Parameter(torch.zeros(labels))


def _logits(embeddings: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.einsum("bqd,qd->bq", embeddings, weight) + bias


def _check_width(d: int, heads: int, of: int = 1) -> None:
    _check_counts(embed_dim=d, heads=heads)
    if d % math.lcm(of, heads):
        also = f"{of} and of " if of > 1 else ""
        raise ValueError(f"`embed_dim` is {d}, expected a multiple of {also}the {heads} attention heads.")


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` is {value!r}, expected a whole number of at least 1.")
