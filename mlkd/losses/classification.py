"""Losses against the labels: binary cross entropy and the asymmetric loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.reduction import check_same_shape, force_float32, reduce


@force_float32
def bce(
    student_logits: Tensor,
    targets: Tensor,
    *,
    reduction: str = "sum",
    ignore_mask: Tensor | None = None,
    pos_weight: float | Sequence[float] = 1.0,
    class_weights: Sequence[float] = (),
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Binary cross entropy, one term per image and label.

    $$ L_{BCE} = - \sum_{i=1}^{b} \sum_{k=1}^{q} y_{ik} \log \hat y_{ik} + (1 - y_{ik}) \log(1 - \hat y_{ik}) $$

    where $\hat y$ is the sigmoid of a logit and $y$ the target.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eq. (1), arXiv:2308.06453.
    Differs from the paper, which has the factor 1/b: the official code sums over the batch, and the weights
    10, 100, 1000 of the other terms belong to that. "batchmean" is as in the paper.

    With weights and label smoothing, which are not part of the paper, a term is

    $$ - w_k \big( p_k \tilde y_{ik} \log \hat y_{ik} + (1 - \tilde y_{ik}) \log(1 - \hat y_{ik}) \big), \qquad
       \tilde y = (1 - \epsilon) y + \epsilon / 2 $$

    with $p$ and $w$ as `pos_weight` and `weight` of `torch.nn.BCEWithLogitsLoss`. Label smoothing mixes the target with
    the uniform distribution over present and absent, as that of Szegedy et al., Rethinking the Inception Architecture
    for Computer Vision, CVPR 2016, does for one of many classes.

    Args:
        student_logits: any finite real.
        targets: 0 or 1, of any dtype.
        reduction: "sum", "batchmean" (sum over labels, mean over images) or "none".
        ignore_mask: True where a label counts neither as present nor as absent (its term is 0), or None.
        pos_weight: the factor $p_k$ of present labels, >= 0: one number for all classes, or q.
        class_weights: the factors $w_k$ of the classes, >= 0: q numbers; empty for 1.
        label_smoothing: $\epsilon$ in [0, 1).

    Shape: all (b, q); output () or, for "none", (b, q). Range: >= 0.

    Raises:
        ValueError: the shapes differ, a weight or `label_smoothing` is out of range, or `reduction` is unknown.

    Example:
        >>> bce(torch.tensor([[0., 0.]]), torch.tensor([[1, 0]]))
        tensor(1.3863)
    """
    check_same_shape(student_logits=student_logits, targets=targets)
    if ignore_mask is not None:
        check_same_shape(student_logits=student_logits, ignore_mask=ignore_mask)
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"`label_smoothing` is {label_smoothing}, expected a fraction, 0 or more and below 1.")
    smoothed = (1 - label_smoothing) * targets.to(student_logits) + label_smoothing / 2
    terms = F.binary_cross_entropy_with_logits(  # Eq. (1)
        student_logits,
        smoothed,
        weight=_class_factors("class_weights", class_weights, student_logits),
        pos_weight=_class_factors("pos_weight", pos_weight, student_logits),
        reduction="none",
    )
    if ignore_mask is not None:
        terms = terms.masked_fill(ignore_mask, 0.0)
    return reduce(terms, reduction)


@force_float32
def asl(
    student_logits: Tensor,
    targets: Tensor,
    *,
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    detach_focus: bool = True,
    reduction: str = "sum",
    ignore_mask: Tensor | None = None,
) -> Tensor:
    r"""Asymmetric loss: a cross entropy with little or no weight on labels that are easily recognized as absent.

    $$ L_{ASL} = - \sum_{i=1}^{b} \sum_{k=1}^{q} \begin{cases}
       (1 - \hat y_{ik})^{\gamma_+} \log \hat y_{ik} & y_{ik} = 1 \\
       \tilde y_{ik}^{\gamma_-} \log(1 - \tilde y_{ik}) & y_{ik} = 0 \end{cases}
       \qquad \tilde y_{ik} = \max(\hat y_{ik} - \mu, 0) $$

    where $\hat y$ is the sigmoid of a logit, $y$ the target and $\mu$ the probability below which the term of an
    absent label is 0.

    Source: Ridnik et al., Asymmetric Loss For Multi-Label Classification, ICCV 2021, arXiv:2009.14119;
    Xu et al., CPSD, IJCAI 2022, Eq. (4), arXiv:2205.10986, where the minus sign is missing.
    Differs from the paper by default: as in the official code, the factors with the exponents are constants to the
    gradient. `detach_focus=False` is as in the paper.

    Args:
        student_logits: any finite real.
        targets: 0 or 1, of any dtype.
        gamma_neg, gamma_pos: the exponents of absent and present labels, >= 0; both 0 with `clip` 0 is `bce`.
        clip: the threshold mu, in [0, 1).
        detach_focus: whether the factors with the exponents are constants to the gradient.
        reduction: "sum" (as in the paper), "batchmean" (sum over labels, mean over images) or "none".
        ignore_mask: True where a label counts neither as present nor as absent (its term is 0), or None.

    Shape: all (b, q); output () or, for "none", (b, q). Range: >= 0.

    Raises:
        ValueError: the shapes differ, an exponent or `clip` is out of range, or `reduction` is unknown.

    Example:
        >>> asl(torch.tensor([[0., 0.]]), torch.tensor([[1, 0]]), clip=0.0)
        tensor(0.7365)
    """
    check_same_shape(student_logits=student_logits, targets=targets)
    if ignore_mask is not None:
        check_same_shape(student_logits=student_logits, ignore_mask=ignore_mask)
    for name, value in {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos}.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"`{name}` is {value}, expected an exponent of 0 or more.")
    if not 0 <= clip < 1:
        raise ValueError(f"`clip` is {clip}, expected a probability, 0 or more and below 1.")
    present = targets > 0
    error = torch.where(present, torch.sigmoid(-student_logits), torch.sigmoid(student_logits) - clip)
    gamma = torch.where(present, gamma_pos, gamma_neg).to(student_logits)
    focus = error.clamp(min=torch.finfo(error.dtype).tiny) ** gamma  # where it would be 0, the logarithm is 0
    if detach_focus:
        focus = focus.detach()
    shift = torch.tensor(clip, dtype=error.dtype, device=error.device).log()
    absent = torch.logaddexp(F.logsigmoid(-student_logits), shift).clamp(max=0)  # log(1 - max(p - clip, 0))
    terms = -focus * torch.where(present, F.logsigmoid(student_logits), absent)  # Eq. (4) of CPSD
    if ignore_mask is not None:
        terms = terms.masked_fill(ignore_mask, 0.0)
    return reduce(terms, reduction)


def _class_factors(name: str, values: float | Sequence[float], logits: Tensor) -> Tensor | None:
    """One factor per class (q,), or None where all are 1.

    Raises:
        ValueError: not one number or q, or a negative one.
    """
    factors = torch.as_tensor(values, dtype=logits.dtype)
    if (factors == 1).all():
        return None
    if factors.shape not in ((), logits.shape[1:]) or not (factors >= 0).all():
        raise ValueError(f"`{name}` is {values}, expected {logits.shape[1]} numbers, one per class, of 0 or more.")
    return factors.expand(logits.shape[1]).to(logits.device)
