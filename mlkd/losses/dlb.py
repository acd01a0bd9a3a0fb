"""The loss of DLB: Shen et al., Self-Distillation from the Last Mini-Batch for Consistency Regularization, CVPR 2022
(arXiv:2203.16172)."""

from __future__ import annotations

import math

from torch import Tensor

from mlkd.losses.l2d import mld
from mlkd.losses.reduction import check_same_shape, force_float32


@force_float32
def dlb(student_logits: Tensor, last_logits: Tensor, *, temperature: float = 3.0) -> Tensor:
    r"""Consistency with the last mini-batch: a softened Bernoulli divergence for the pictures that were in it too.

    $$ L_{LB} = \frac{\tau^2}{|B|} \sum_{i \in B} \sum_{k=1}^{q}
       KL\big([\hat y^{t-1}_{ik}, 1 - \hat y^{t-1}_{ik}] \,\|\, [\hat y^t_{ik}, 1 - \hat y^t_{ik}]\big) $$

    where $B$ are the pictures of the mini-batch that were in the one before, and $\hat y^t$ is the sigmoid of the
    logit over $\tau$ at step $t$.

    Source: Shen et al., Self-Distillation from the Last Mini-Batch for Consistency Regularization, CVPR 2022,
    Sec. 3, arXiv:2203.16172.
    Differs from the print, which has one label an image and a softmax: here a sum of Bernoulli divergences.

    Args:
        student_logits: any finite real. Gradients flow here only.
        last_logits: any finite real, or a row of NaN for a picture that was not in the last mini-batch; detached
            inside.
        temperature: above 0.

    Shape: logits (b, q); output (). Range: >= 0 up to rounding; 0, with a graph, where no picture was in the last
    mini-batch.

    Raises:
        ValueError: the shapes differ, or `temperature` is not above 0.

    Example:
        >>> dlb(torch.tensor([[0.], [5.]]), torch.tensor([[2.], [float("nan")]]), temperature=1.0)
        tensor(0.3278)
    """
    check_same_shape(student_logits=student_logits, last_logits=last_logits)
    if not 0 < temperature < math.inf:
        raise ValueError(f"`temperature` is {temperature}, expected a number above 0.")
    absent = last_logits.isnan().any(dim=1, keepdim=True)
    last = last_logits.masked_fill(absent, 0.0)
    terms = mld(student_logits / temperature, last / temperature, reduction="none").masked_fill(absent, 0.0)
    return temperature**2 * terms.sum() / (~absent).sum().clamp(min=1)
