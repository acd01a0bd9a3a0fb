"""The loss of ReviewKD: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021 (arXiv:2104.09044)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.reduction import check_same_shape, force_float32

LEVELS = (4, 2, 1)


@force_float32
def hcl(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Hierarchical context loss: the mean squared difference of two feature maps, at full size and pooled.

    $$ L_{HCL} = \frac{\sum_l w_l \, MSE\big(g_l(F^S), g_l(F^T)\big)}{\sum_l w_l} $$

    where $F$ are the feature maps, $g_l$ averages a map onto a grid of l x l cells, and $MSE$ is the mean over all
    entries. The first level is the map itself, with weight 1; then l = 4, 2, 1, each with half the weight of the
    level before. A level that is not smaller than the map is omitted.

    Source: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021, arXiv:2104.09044; levels and weights as
    in the official code.

    Args:
        student_features: any finite real, with the teacher's channels and grid. Gradients flow here only.
        teacher_features: any finite real; detached inside.

    Shape: both (b, D, H, W); output (). Range: >= 0; 0 when the maps agree.

    Raises:
        ValueError: the shapes differ, or are not (b, D, H, W).

    Example:
        >>> import torch
        >>> hcl(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
        tensor(1.)
    """
    check_same_shape(student_features=student_features, teacher_features=teacher_features)
    if student_features.ndim != 4:
        raise ValueError(f"`student_features` has shape {tuple(student_features.shape)}, expected (b, D, H, W).")
    student, teacher = student_features, teacher_features.detach()
    weight = total = 1.0
    loss = F.mse_loss(student, teacher)
    for level in LEVELS:
        if level < min(student.shape[2:]):
            weight /= 2
            total += weight
            coarse = F.adaptive_avg_pool2d(student, level), F.adaptive_avg_pool2d(teacher, level)
            loss = loss + weight * F.mse_loss(*coarse)
    return loss / total
