"""The loss of PKT: Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer,
ECCV 2018 (arXiv:1803.10837)."""

from __future__ import annotations

import torch
from torch import Tensor

from mlkd.losses.reduction import force_float32
from mlkd.losses.rkd import check_features, directions

MIN_KERNEL = 1e-7


@force_float32
def pkt_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Probabilistic knowledge transfer: divergence between the neighbor distributions of the images of a batch.

    $$ L_{PKT} = \frac{1}{b^2} \sum_{i=1}^{b} \sum_{j \ne i} p_{j|i} \log \frac{p_{j|i}}{q_{j|i}}, \qquad
       p_{j|i} = \frac{K(t_i, t_j)}{\sum_{k \ne i} K(t_i, t_k)}, \quad
       K(a, b) = \frac12 \Big( \frac{a^\top b}{\|a\|_2 \|b\|_2} + 1 \Big) $$

    where $t$ are the teacher's features and $q$ is $p$ of the student's.

    Source: Passalis and Tefas, ECCV 2018, arXiv:1803.10837, with the cosine kernel, as in the official code.
    Differs from the paper: divided by $b^2$, as in the official code; and a kernel is at least 1e-7, so that the loss
    is finite for opposite features. Differs from the official code: as in the paper, an image is not its own neighbor.
    A feature vector of length 0 has no direction; its cosines are 0.

    Args:
        student_features: any finite real. Gradients flow here only.
        teacher_features: any finite real; detached inside. Its width may differ from the student's.

    Shape: (b, d) and (b, any D); output (). Range: >= 0 up to rounding; 0, with a graph, for fewer than three
    images.

    Raises:
        ValueError: not two matrices of the same images.

    Example:
        >>> student, teacher = torch.eye(3), torch.tensor([[1., 0.], [1., 0.], [0., 1.]])
        >>> pkt_loss(student, teacher)
        tensor(0.0126)
    """
    check_features(student_features, teacher_features)
    student, teacher = _log_neighbors(student_features), _log_neighbors(teacher_features.detach())
    return (teacher.exp() * (teacher.to(student) - student)).mean()


def _log_neighbors(features: Tensor) -> Tensor:
    """Log of the probabilities (b, b) of each image's neighbors; 0 on the diagonal, where there is none."""
    units = directions(features)
    kernel = ((units @ units.T + 1) / 2).clamp(min=MIN_KERNEL)
    diagonal = torch.eye(len(features), dtype=torch.bool, device=features.device)
    total = kernel.masked_fill(diagonal, 0.0).sum(dim=1, keepdim=True)  # 0 for a batch of one image
    return (kernel.log() - total.log()).masked_fill(diagonal, 0.0)
