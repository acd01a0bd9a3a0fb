"""The loss of PKT: Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer,
ECCV 2018 (arXiv:1803.10837)."""

from __future__ import annotations

import torch
from torch import Tensor

from mlkd.losses.reduction import force_float32
from mlkd.losses.rkd import check_features, directions

SMALLEST = 1e-7


@force_float32
def pkt(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Probabilistic knowledge transfer: which pictures of the batch lie near each picture, as a distribution.

    $$ L_{PKT} = \frac{1}{b^2} \sum_{i=1}^{b} \sum_{j \ne i} p_{j|i} \log \frac{p_{j|i}}{q_{j|i}}, \qquad
       p_{j|i} = \frac{K(t_i, t_j)}{\sum_{k \ne i} K(t_i, t_k)}, \quad
       K(a, b) = \frac12 \Big( \frac{a^\top b}{\|a\|_2 \|b\|_2} + 1 \Big) $$

    where $t$ are the teacher's features and $q$ is $p$ of the student's.

    Source: Passalis and Tefas, ECCV 2018, arXiv:1803.10837, with the cosine kernel; the released code likewise.
    Differs from the print: divided by $b^2$, as the released code does, and a kernel is at least 1e-7, so that a
    student with opposite features stays finite. Differs from the released code: a picture is no neighbour of its own,
    as printed. A feature vector of length 0 has no direction: its cosines are 0.

    Args:
        student_features: any finite real. Gradients flow here only.
        teacher_features: any finite real; detached inside. Its width may differ from the student's.

    Shape: (b, d) and (b, any D); output (). Range: >= 0 up to rounding; 0, with a graph, for fewer than three
    pictures.

    Raises:
        ValueError: not two matrices of the same pictures.
    """
    check_features(student_features, teacher_features)
    student, teacher = _log_neighbours(student_features), _log_neighbours(teacher_features.detach())
    return (teacher.exp() * (teacher.to(student) - student)).mean()


def _log_neighbours(features: Tensor) -> Tensor:
    """Log of the probabilities (b, b) of each picture's neighbours; 0 on the diagonal, where there is none."""
    units = directions(features)
    kernel = ((units @ units.T + 1) / 2).clamp(min=SMALLEST)
    own = torch.eye(len(features), dtype=torch.bool, device=features.device)
    total = kernel.masked_fill(own, 0.0).sum(dim=1, keepdim=True)  # 0 for a picture alone
    return (kernel.log() - total.log()).masked_fill(own, 0.0)
