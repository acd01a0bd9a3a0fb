"""The loss of CAM distillation: Guo et al., Class Attention Transfer Based Knowledge Distillation, CVPR 2023
(arXiv:2304.12777)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.reduction import force_float32, reduce
from mlkd.losses.rkd import directions


@force_float32
def cam_kd_loss(student_maps: Tensor, teacher_maps: Tensor, *, grid: int = 2, reduction: str = "batchmean") -> Tensor:
    r"""Class attention transfer: the mean squared difference of class activation maps, each scaled to length 1.

    $$ L_{CAM} = \frac{1}{b} \sum_{i=1}^{b} \frac{1}{q g^2} \sum_{k=1}^{q} \left\|
       \frac{\phi(A^S_{ik})}{\|\phi(A^S_{ik})\|_2} - \frac{\phi(A^T_{ik})}{\|\phi(A^T_{ik})\|_2} \right\|_2^2 $$

    where $A_{ik}$ is the class activation map of label $k$ for image $i$, $\phi$ averages it onto a grid of
    $g \times g$ cells, $T$ is the teacher and $S$ the student. A map that is 0 everywhere stays 0 and gets no gradient.

    Source: Guo et al., Class Attention Transfer Based Knowledge Distillation, CVPR 2023, arXiv:2304.12777, with the
    maps of all labels. Zhang et al., Knowledge Distillation from Single to Multi Labels: an Empirical Study, 2023,
    arXiv:2303.08360, distill class activation maps of many labels.
    Differs from the paper: mean over the cells too, as in the official code, to which the weight of the method belongs.

    Args:
        student_maps: any finite real. Gradients flow here only.
        teacher_maps: any finite real; detached inside. Its grid may differ from the student's.
        grid: g, at least 1; 2 as in the official code. A grid of one cell keeps only the sign of each map's mean.
        reduction: "batchmean" (as in the official code), "sum" over the images, or "none" (a term per image and label).

    Shape: (b, q, any h, any w) and (b, q, any H, any W); output () or, for "none", (b, q). Range: "batchmean" is in
    [0, 4 / g^2]; 0 when the maps agree up to a positive factor.

    Raises:
        ValueError: not two maps of the same images and labels, or `reduction` is unknown.

    Example:
        >>> import torch
        >>> cam_kd_loss(torch.tensor([[[[3., 4.]]]]), torch.tensor([[[[4., 3.]]]]))
        tensor(0.0200)
    """
    is_4d = student_maps.ndim == 4 and teacher_maps.ndim == 4
    if not is_4d or student_maps.shape[:2] != teacher_maps.shape[:2]:
        raise ValueError(
            f"`student_maps` has shape {tuple(student_maps.shape)} and `teacher_maps` {tuple(teacher_maps.shape)}; "
            f"expected (b, q, any h, any w) and (b, q, any H, any W) with one b and one q."
        )
    student, teacher = (
        directions(F.adaptive_avg_pool2d(maps, grid).flatten(2)) for maps in (student_maps, teacher_maps.detach())
    )
    terms = (student - teacher.to(student)).square().mean(dim=2) / student_maps.shape[1]
    return reduce(terms, reduction)
