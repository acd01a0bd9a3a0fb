"""Knowledge distillation with a softmax over the labels: Hinton et al., Distilling the Knowledge in a Neural Network,
2015 (arXiv:1503.02531)."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.reduction import check_same_shape, force_float32, reduce


@force_float32
def softmax_kd(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0, reduction: str = "sum"
) -> Tensor:
    r"""The KL divergence between the softmax of teacher and student over all labels.

    $$ L_{KD} = \tau^2 \sum_{i=1}^{b} \sum_{j=1}^{q} \tilde p_{ij} \log \frac{\tilde p_{ij}}{\tilde q_{ij}} $$

    where $\tilde p$ and $\tilde q$ are the softmax over the labels of the teacher's and the student's logits divided by
    the temperature $\tau$. The softmax presumes one label per image: the labels of an image compete with each other.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531; Wang et al.,
    Multi-Label Self Knowledge Distillation, AAAI 2025, Eq. (10).

    Args:
        student_logits: any finite real. Gradients flow here only.
        teacher_logits: any finite real; detached inside.
        temperature: above 0.
        reduction: "sum" over labels and images, "batchmean" (sum over labels, mean over images) or "none".

    Shape: all (b, q); output () or, for "none", (b, q). Range: the sum over the labels is >= 0 up to rounding, and 0
    where the logits of an image agree up to a constant.

    Raises:
        ValueError: the shapes differ, `reduction` is unknown or `temperature` is not above 0.

    Example:
        >>> import torch
        >>> softmax_kd(torch.tensor([[0., 0.]]), torch.tensor([[1., 0.]]), temperature=1.0)
        tensor(0.1109)
    """
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    if not temperature > 0:
        raise ValueError(f"`temperature` is {temperature}, expected a number above 0.")
    log_p = (teacher_logits.detach() / temperature).log_softmax(dim=1)
    log_q = (student_logits / temperature).log_softmax(dim=1)
    return reduce(temperature**2 * log_p.exp() * (log_p - log_q), reduction)  # Eq. (10) of MSKD
