"""The losses of DDGSD: Xu and Liu, Data-Distortion Guided Self-Distillation for Deep Neural Networks, AAAI 2019.

Both compare two distortions of the same pictures: `mutual_kl` what is said of them, `mmd` where they lie.
"""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.l2d import mld
from mlkd.losses.reduction import check_same_shape, force_float32


@force_float32
def mutual_kl(student_logits: Tensor, twin_logits: Tensor, *, reduction: str = "sum") -> Tensor:
    r"""Each distortion of a picture teaches the other: one Bernoulli divergence each way.

    $$ L_{KL} = \sum_{i=1}^{b} \sum_{k=1}^{q} KL\big([\hat y'_{ik}, 1 - \hat y'_{ik}] \,\|\,
       [\hat y_{ik}, 1 - \hat y_{ik}]\big) + KL\big([\hat y_{ik}, 1 - \hat y_{ik}] \,\|\,
       [\hat y'_{ik}, 1 - \hat y'_{ik}]\big) $$

    where $\hat y$ and $\hat y'$ are the sigmoids of the logits for the two distortions; in each divergence the
    first, the teaching one, is a constant to the gradient.

    Source: Xu and Liu, Data-Distortion Guided Self-Distillation for Deep Neural Networks, AAAI 2019.
    Differs from the print, which has one label an image and a softmax: here a sum of Bernoulli divergences.

    Args:
        student_logits, twin_logits: any finite real. Gradients flow into both.
        reduction: "sum", "batchmean" (sum over labels, mean over images) or "none".

    Shape: logits (b, q); output () or, for "none", (b, q). Range: >= 0 up to rounding; 0 when the logits agree.

    Raises:
        ValueError: the shapes differ, or `reduction` is unknown.

    Example:
        >>> mutual_kl(torch.tensor([[2.]]), torch.tensor([[0.]]))
        tensor(0.7616)
    """
    check_same_shape(student_logits=student_logits, twin_logits=twin_logits)
    there = mld(student_logits, twin_logits, reduction=reduction)
    return there + mld(twin_logits, student_logits, reduction=reduction)


@force_float32
def mmd(student_features: Tensor, twin_features: Tensor) -> Tensor:
    r"""Maximum mean discrepancy with a linear kernel: how far apart the mean features of two distortions lie.

    $$ L_{MMD} = \Big\| \frac{1}{b} \sum_{i=1}^{b} h_i - \frac{1}{b} \sum_{i=1}^{b} h'_i \Big\|_2^2 $$

    where $h_i$ and $h'_i$ are the pooled features of the two distortions of picture $i$.

    Source: Xu and Liu, Data-Distortion Guided Self-Distillation for Deep Neural Networks, AAAI 2019.

    Args:
        student_features, twin_features: any finite real. Gradients flow into both.

    Shape: features (b, D); output (). Range: >= 0.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> mmd(torch.tensor([[1., 0.], [3., 0.]]), torch.tensor([[0., 1.], [0., 1.]]))
        tensor(5.)
    """
    check_same_shape(student_features=student_features, twin_features=twin_features)
    return (student_features.mean(dim=0) - twin_features.mean(dim=0)).square().sum()
