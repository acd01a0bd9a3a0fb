"""The loss of Tf-KD_reg: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization,
CVPR 2020 (arXiv:1909.11723)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlkd.errors import check_choice
from mlkd.losses.l2d import mld
from mlkd.losses.reduction import check_same_shape, check_temperature, force_float32

SOFTEN = ("teacher", "both")


@force_float32
def tf_kd_loss(
    student_logits: Tensor,
    targets: Tensor,
    *,
    confidence: float = 0.99,
    temperature: float = 20.0,
    soften: str = "teacher",
    reduction: str = "sum",
) -> Tensor:
    r"""Distillation from a hand-designed teacher that is correct about every label, softened by a temperature.

    $$ L_{reg} = \sum_{i=1}^{b} \sum_{k=1}^{q} KL\big([p^d_{ik}, 1 - p^d_{ik}]_\tau \,\|\,
       [\hat y_{ik}, 1 - \hat y_{ik}]\big) \qquad p^d_{ik} = \begin{cases} a & y_{ik} = 1 \\ 1 - a & y_{ik} = 0
       \end{cases} $$

    where $a$ is the confidence of the teacher, $[\cdot]_\tau$ divides the log odds by $\tau$, $y$ is the target and
    $\hat y$ the sigmoid of the student's logit.

    Source: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020, Eqs. (8),
    (9), arXiv:1909.11723.
    Differs from the paper, which has one label among K per image: here each label is present or absent (K = 2), and
    the loss is a sum of Bernoulli divergences. By default only the teacher is softened, as in the official code, to
    which a = 0.99 and a temperature of 20 belong; `soften="both"` divides the student's logits too, as in the paper,
    which leaves a very small gradient at that temperature.

    Args:
        student_logits: any finite real.
        targets: 0 or 1, of any dtype.
        confidence: the teacher's probability of a present label, above 0.5 and below 1.
        temperature: above 0.
        soften: "teacher" (as in the official code) or "both" (as in the paper).
        reduction: "sum", "batchmean" (sum over labels, mean over images) or "none".

    Shape: all (b, q); output () or, for "none", (b, q). Range: >= 0 up to rounding.

    Raises:
        ValueError: the shapes differ, a setting is out of range, or `soften` or `reduction` is unknown.

    Example:
        >>> tf_kd_loss(torch.tensor([[0., 0.]]), torch.tensor([[1, 0]]), temperature=1.0)
        tensor(1.2743)
    """
    check_same_shape(student_logits=student_logits, targets=targets)
    check_choice("soften", soften, SOFTEN)
    if not 0.5 < confidence < 1:
        raise ValueError(f"`confidence` is {confidence}, expected a probability above 0.5 and below 1.")
    check_temperature(temperature)
    log_odds = math.log(confidence / (1 - confidence))
    teacher = log_odds * torch.where(targets > 0, 1, -1).to(student_logits)  # Eq. (8)
    student = student_logits / temperature if soften == "both" else student_logits
    return mld(student, teacher / temperature, reduction=reduction)  # Eq. (9), its second term
