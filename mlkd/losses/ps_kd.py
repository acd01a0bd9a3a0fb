"""The loss of PS-KD: Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, ICCV 2021
(arXiv:2006.12000)."""

from __future__ import annotations

import torch
from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.reduction import check_same_shape, force_float32


@force_float32
def ps_kd_loss(
    student_logits: Tensor,
    past_logits: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    reduction: str = "sum",
    ignore_mask: Tensor | None = None,
) -> Tensor:
    r"""Binary cross entropy against a mixture of the targets and the student's predictions of the previous epoch.

    $$ L_{PS} = \sum_{i=1}^{b} \sum_{k=1}^{q} H\big((1 - \alpha_t) y_{ik} + \alpha_t \hat y^{t-1}_{ik}, \;
       \hat y^t_{ik}\big) $$

    where $H$ is the binary cross entropy, $y$ the target, $\hat y^t$ the sigmoid of the logit in epoch $t$ and
    $\alpha_t$ the weight of the past predictions.

    Source: Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, ICCV 2021, Sec. 3,
    arXiv:2006.12000.
    Differs from the paper, which has one label per image and a softmax: here each label has a sigmoid.

    Args:
        student_logits: any finite real. Gradients flow here only.
        past_logits: any finite real, or NaN where there is no past prediction and the target is kept. Detached inside.
        targets: 0 or 1, of any dtype.
        alpha: in [0, 1].
        reduction: "sum", "batchmean" (sum over labels, mean over images) or "none".
        ignore_mask: True where a label counts neither as present nor as absent (its term is 0), or None.

    Shape: all (b, q); output () or, for "none", (b, q). Range: >= 0; above 0 where a target is soft.

    Raises:
        ValueError: the shapes differ, `alpha` is out of range, or `reduction` is unknown.

    Example:
        >>> ps_kd_loss(torch.zeros(1, 2), torch.tensor([[3., -3.]]), torch.tensor([[1, 0]]), alpha=0.5)
        tensor(1.3863)
    """
    check_same_shape(student_logits=student_logits, past_logits=past_logits, targets=targets)
    if not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` is {alpha}, expected a fraction between 0 and 1.")
    hard, past = targets.to(student_logits), past_logits.detach().to(student_logits)
    soft = torch.where(past.isnan(), hard, (1 - alpha) * hard + alpha * torch.sigmoid(past))
    return bce(student_logits, soft, reduction=reduction, ignore_mask=ignore_mask)
