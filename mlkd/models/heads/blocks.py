"""Building blocks of heads: transformer encoder, positions, one linear output per label."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def transformer_encoder(d: int, layers: int, heads: int, dropout: float, **settings) -> nn.TransformerEncoder:
    """torch's encoder, batch first, with a final layer norm and a feed-forward width of 4 * d."""
    layer = nn.TransformerEncoderLayer(d, heads, 4 * d, dropout, batch_first=True, **settings)
    return init_layers(nn.TransformerEncoder(layer, layers, nn.LayerNorm(d), enable_nested_tensor=False))


def init_layers(stack: M) -> M:
    """Initializes every layer with its own weights, as `nn.Transformer` does; torch's stacks copy the first layer."""
    for parameter in stack.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    return stack


def add_positions(cells: Tensor, features: Tensor) -> Tensor:
    """Cells (b, HW, d) plus the sine and cosine of their row and column in the (b, D, H, W) map."""
    rows, columns = features.shape[-2:]
    return cells + build_sincos2d_pos_embed([rows, columns], cells.shape[2], device=cells.device, dtype=cells.dtype)


def classifier_parameters(q: int, d: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights (q, d) and biases (q,) of one linear output per label."""
    bound = 1 / math.sqrt(d)
    return nn.Parameter(torch.empty(q, d).uniform_(-bound, bound)), nn.Parameter(torch.zeros(q))


def classify(embeddings: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits (b, q) of embeddings (b, q, d), each with the linear output of its own label."""
    return torch.einsum("bqd,qd->bq", embeddings, weight) + bias


def cross_attention_cams(attention: nn.MultiheadAttention, queries: Tensor, cells: Tensor, weight: Tensor) -> Tensor:
    r"""The class score of each cell, weighted by the label's attention to it.

    $$ M_k(x, y) = \sum_h a_{hk}(x, y) \, w_k^\top W_h \, v_h(x, y) $$

    where, in attention head $h$, $a_{hk}$ is the attention of the query of label $k$, $v_h$ the value of a cell and
    $W_h$ the output projection; $w_k$ are the weights of the label's linear output. The sum of a map over its cells is
    what the cells add to $w_k^\top$ of the attended vector. What follows the attention in a head (shortcut, norms and
    feed-forward layer) is not part of it, so the maps do not add up to the logit.

    Args:
        attention: batch first. Its dropout, if any, applies to the maps too.
        queries, cells: its inputs, (b, q, d) and (b, HW, d).
        weight: of the linear outputs, (q, d).

    Returns:
        (b, q, HW).
    """
    d, heads = queries.shape[2], attention.num_heads
    _, weights = attention(queries, cells, cells, average_attn_weights=False)  # (b, heads, q, HW)
    values = nn.functional.linear(cells, attention.in_proj_weight[-d:], attention.in_proj_bias[-d:])
    projected = weight @ attention.out_proj.weight  # (q, d)
    scores = torch.einsum("bche,qhe->bhqc", values.unflatten(2, (heads, -1)), projected.unflatten(1, (heads, -1)))
    return (weights * scores).sum(dim=1)


def check_width(d: int, heads: int, multiple: int = 1) -> None:
    """Raises ValueError unless `embed_dim` is a multiple of `multiple` and of the number of attention heads."""
    check_positive(embed_dim=d, heads=heads)
    if d % math.lcm(multiple, heads):
        also = f"{multiple} and of " if multiple > 1 else ""
        raise ValueError(f"`embed_dim` is {d}, expected a multiple of {also}the {heads} attention heads.")


def check_positive(**values: int) -> None:
    """Raises ValueError unless all values are whole numbers of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` is {value!r}, expected a whole number of at least 1.")
