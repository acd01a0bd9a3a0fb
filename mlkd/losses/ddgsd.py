"""The losses of DDGSD: Xu and Liu, Data-Distortion Guided Self-Distillation for Deep Neural Networks, AAAI 2019.

Both compare two augmented views of the same images: `mutual_kl` their predictions, `mmd` their mean features.
"""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.l2d import mld
from mlkd.losses.reduction import check_same_shape, force_float32


@force_float32
def mutual_kl(first_logits: Tensor, second_logits: Tensor, *, reduction: str = "sum") -> Tensor:
    r"""Mutual distillation of two views: a Bernoulli KL divergence in each direction.

    $$ L_{KL} = \sum_{i=1}^{b} \sum_{k=1}^{q} KL\big([\hat y'_{ik}, 1 - \hat y'_{ik}] \,\|\,
       [\hat y_{ik}, 1 - \hat y_{ik}]\big) + KL\big([\hat y_{ik}, 1 - \hat y_{ik}] \,\|\,
       [\hat y'_{ik}, 1 - \hat y'_{ik}]\big) $$

    where $\hat y$ and $\hat y'$ are the sigmoids of the logits for the two views; the first argument of each
    divergence is a constant to the gradient.

    Source: Xu and Liu, Data-Distortion Guided Self-Distillation for Deep Neural Networks, AAAI 2019.
    Differs from the paper, which has one label per image and a softmax: here a sum of Bernoulli divergences.

    Args:
        first_logits, second_logits: any finite real. Gradients flow into both.
        reduction: "sum", "batchmean" (sum over labels, mean over images) or "none".

    Shape: logits (b, q); output () or, for "none", (b, q). Range: >= 0 up to rounding; 0 when the logits agree.

    Raises:
        ValueError: the shapes differ, or `reduction` is unknown.

    Example:
        >>> import torch
        >>> mutual_kl(torch.tensor([[2.]]), torch.tensor([[0.]]))
        tensor(0.7616)
    """
    check_same_shape(first_logits=first_logits, second_logits=second_logits)
    forward = mld(first_logits, second_logits, reduction=reduction)
    return forward + mld(second_logits, first_logits, reduction=reduction)


@force_float32
def mmd(first_features: Tensor, second_features: Tensor) -> Tensor:
    r"""Maximum mean discrepancy with a linear kernel: squared distance between the mean features of two views.

    $$ L_{MMD} = \Big\| \frac{1}{b} \sum_{i=1}^{b} h_i - \frac{1}{b} \sum_{i=1}^{b} h'_i \Big\|_2^2 $$

    where $h_i$ and $h'_i$ are the pooled features of the two views of image $i$.

    Source: Xu and Liu, Data-Distortion Guided Self-Distillation for Deep Neural Networks, AAAI 2019.

    Args:
        first_features, second_features: any finite real. Gradients flow into both.

    Shape: features (b, D); output (). Range: >= 0.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> mmd(torch.tensor([[1., 0.], [3., 0.]]), torch.tensor([[0., 1.], [0., 1.]]))
        tensor(5.)
    """
    check_same_shape(first_features=first_features, second_features=second_features)
    return (first_features.mean(dim=0) - second_features.mean(dim=0)).square().sum()
