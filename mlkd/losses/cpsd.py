"""The distillation of CPSD: Xu et al., Boosting Multi-Label Image Classification with Complementary Parallel
Self-Distillation, IJCAI 2022 (arXiv:2205.10986).

`mse` is the squared distance between the logits of a student and of one teacher. `merged_distillation` is that to two
teachers, each merged from models of label subsets.
"""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.reduction import check_same_shape, force_float32, reduce


@force_float32
def mse(student_logits: Tensor, teacher_logits: Tensor, *, reduction: str = "batchmean") -> Tensor:
    r"""Squared Euclidean distance between the logits of student and teacher, image by image.

    $$ \sum_{i=1}^{b} \|\hat y^S_i - \hat y^T_i\|_2^2
       = \sum_{i=1}^{b} \sum_{k=1}^{q} (\hat y^S_{ik} - \hat y^T_{ik})^2 $$

    where $\hat y$ is a logit (here without a sigmoid), $S$ the student and $T$ the teacher.

    Source: Xu et al., CPSD, IJCAI 2022, one of the two terms of Eq. (6), arXiv:2205.10986.
    Differs from the paper by default: "batchmean" is the mean over the images; "sum" is as in the paper.

    Args:
        student_logits: any finite real. Gradients flow here only.
        teacher_logits: any finite real; detached inside.
        reduction: "batchmean" (sum over labels, mean over images), "sum" (as in the paper) or "none".

    Shape: logits (b, q); output () or, for "none", (b, q). Range: >= 0; 0 when the logits agree.

    Raises:
        ValueError: the shapes differ, or `reduction` is unknown.

    Example:
        >>> import torch
        >>> mse(torch.tensor([[1., 3.]]), torch.tensor([[0., 1.]]))
        tensor(5.)
    """
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    return reduce((student_logits - teacher_logits.detach()).square(), reduction)


@force_float32
def merged_distillation(
    student_logits: Tensor, co_logits: Tensor, dis_logits: Tensor, alpha: float = 0.5, *, reduction: str = "sum"
) -> Tensor:
    r"""Weighted squared distances between the logits of a student and of two merged teachers.

    $$ L_{kd} = \sum_{i=1}^{b} \alpha \|\hat y^S_i - \hat y^+_i\|_2^2 + (1 - \alpha) \|\hat y^S_i - \hat y^-_i\|_2^2 $$

    where $\hat y^+$ are the logits of the teacher merged from the label subsets of the co-occurrence graph, $\hat y^-$
    those of the dis-occurrence graph, and $\hat y^S$ the student's.

    Source: Xu et al., CPSD, IJCAI 2022, Eq. (6), arXiv:2205.10986, with `alpha` = 1/2 and "sum".
    Differs from the official code, which halves the weighted sum once more.

    Args:
        student_logits: any finite real. Gradients flow here only.
        co_logits, dis_logits: any finite real; detached inside.
        alpha: the weight of the co-occurrence teacher, in [0, 1]; the other has 1 - alpha.
        reduction: "sum" (as in the paper), "batchmean" (divided by the number of images) or "none".

    Shape: logits (b, q); output () or, for "none", (b, q). Range: >= 0; 0 when all three agree.

    Raises:
        ValueError: the shapes differ, `reduction` is unknown, or `alpha` is not in [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(
            f"`alpha` is {alpha}, expected a fraction from 0 (dis-occurrence only) to 1 (co-occurrence only)."
        )
    check_same_shape(student_logits=student_logits, co_logits=co_logits, dis_logits=dis_logits)
    co = mse(student_logits, co_logits, reduction=reduction)
    dis = mse(student_logits, dis_logits, reduction=reduction)
    return alpha * co + (1 - alpha) * dis  # Eq. (6)
