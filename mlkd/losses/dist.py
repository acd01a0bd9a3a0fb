"""The losses of DIST: Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022 (arXiv:2205.10536).

`inter_class_relation` compares the probabilities of each image across the labels, `intra_class_relation` those of each
label across the images of the batch. Both compare by Pearson's correlation, which ignores offset and scale.
"""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.reduction import check_same_shape, check_temperature, force_float32
from mlkd.losses.rkd import directions


@force_float32
def inter_class_relation(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""Inter-class relation: for each image, the correlation across labels between student and teacher.

    $$ L_{inter} = \frac{\tau^2}{b} \sum_{i=1}^{b} \Big( 1 - \rho\big(\hat y^S_{i,:}, \hat y^T_{i,:}\big) \Big), \qquad
       \rho(u, v) = \frac{\sum_k (u_k - \bar u)(v_k - \bar v)}{\|u - \bar u\|_2 \, \|v - \bar v\|_2} $$

    where $\hat y$ is the sigmoid of a logit over $\tau$, $T$ the teacher and $S$ the student. An image for which the
    teacher's probabilities are all equal contributes 0; if only the student's are, the correlation is 0.

    Source: Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv:2205.10536; the factor
    $\tau^2$ as in the official code.
    Differs from the paper, which has one label per image and a softmax: here a sigmoid, which is an option of the
    official code for segmentation.

    Args:
        student_logits: any finite real. Gradients flow here only.
        teacher_logits: any finite real; detached inside.
        temperature: $\tau$, above 0.

    Shape: both (b, q); output (). Range: [0, 2 $\tau^2$] up to rounding; 0, with a graph, for one label, and where
    student and teacher are related by an increasing linear function.

    Raises:
        ValueError: the shapes differ, are not (b, q), or `temperature` is not above 0.

    Example:
        >>> import torch
        >>> inter_class_relation(torch.tensor([[3., 0., -3.]]), torch.tensor([[1., 0., -1.]]))
        tensor(0.)
        >>> inter_class_relation(torch.tensor([[0., 0., 5.]]), torch.tensor([[1., 0., -1.]]))
        tensor(1.8660)
    """
    return temperature**2 * _relation(student_logits, teacher_logits, temperature, dim=1)


@force_float32
def intra_class_relation(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""Intra-class relation: for each label, the correlation across images between student and teacher.

    $$ L_{intra} = \frac{\tau^2}{q} \sum_{k=1}^{q} \Big( 1 - \rho\big(\hat y^S_{:,k}, \hat y^T_{:,k}\big) \Big) $$

    with the symbols of `inter_class_relation`, and "label" for "image". It compares the images of a batch, so it
    depends on the batch size.

    Source, Args, Raises: as `inter_class_relation`. Shape: both (b, q); output (). Range: [0, 2 $\tau^2$] up to
    rounding; 0, with a graph, for one image.
    """
    return temperature**2 * _relation(student_logits, teacher_logits, temperature, dim=0)


def _relation(student_logits: Tensor, teacher_logits: Tensor, temperature: float, dim: int) -> Tensor:
    """The mean of 1 - rho over the rows (`dim=1`) or columns (`dim=0`) of the probabilities."""
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    check_temperature(temperature)
    if student_logits.ndim != 2:
        raise ValueError(f"`student_logits` has shape {tuple(student_logits.shape)}, expected (b, q).")
    student, teacher = (
        _standardize((logits / temperature).sigmoid().movedim(dim, 1))
        for logits in (student_logits, teacher_logits.detach())
    )
    is_constant = (teacher == 0).all(dim=1)
    return (1 - (student * teacher).sum(dim=1)).masked_fill(is_constant, 0.0).mean()


def _standardize(rows: Tensor) -> Tensor:
    """Rows (n, m) minus their mean, scaled to length 1; a constant row becomes exactly 0 and gets no gradient."""
    shifted = rows - rows[:, :1]  # exactly 0 for a constant row, whose mean may be rounded
    return directions(shifted - shifted.mean(dim=1, keepdim=True))
