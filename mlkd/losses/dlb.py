"""The loss of DLB: Shen et al., Self-Distillation from the Last Mini-Batch for Consistency Regularization, CVPR 2022
(arXiv:2203.16172)."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.l2d import mld
from mlkd.losses.reduction import check_same_shape, check_temperature, force_float32


@force_float32
def dlb_loss(student_logits: Tensor, last_logits: Tensor, *, temperature: float = 3.0) -> Tensor:
    r"""Last-batch consistency: a softened Bernoulli KL divergence for the images that were in the last batch too.

    $$ L_{LB} = \frac{\tau^2}{|B|} \sum_{i \in B} \sum_{k=1}^{q}
       KL\big([\hat y^{t-1}_{ik}, 1 - \hat y^{t-1}_{ik}] \,\|\, [\hat y^t_{ik}, 1 - \hat y^t_{ik}]\big) $$

    where $B$ are the images of the batch that were in the previous one, and $\hat y^t$ is the sigmoid of the logit
    over $\tau$ at step $t$.

    Source: Shen et al., Self-Distillation from the Last Mini-Batch for Consistency Regularization, CVPR 2022,
    Sec. 3, arXiv:2203.16172.
    Differs from the paper, which has one label per image and a softmax: here a sum of Bernoulli divergences.

    Args:
        student_logits: any finite real. Gradients flow here only.
        last_logits: any finite real, or a row of NaN for an image that was not in the last batch; detached inside.
        temperature: above 0.

    Shape: logits (b, q); output (). Range: >= 0 up to rounding; 0, with a graph, where no image was in the last
    batch.

    Raises:
        ValueError: the shapes differ, or `temperature` is not above 0.

    Example:
        >>> import torch
        >>> dlb_loss(torch.tensor([[0.], [5.]]), torch.tensor([[2.], [float("nan")]]), temperature=1.0)
        tensor(0.3278)
    """
    check_same_shape(student_logits=student_logits, last_logits=last_logits)
    check_temperature(temperature)
    is_new = last_logits.isnan().any(dim=1, keepdim=True)
    last_logits = last_logits.masked_fill(is_new, 0.0)
    terms = mld(student_logits / temperature, last_logits / temperature, reduction="none").masked_fill(is_new, 0.0)
    return temperature**2 * terms.sum() / (~is_new).sum().clamp(min=1)
