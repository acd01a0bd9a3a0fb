"""The losses of RKD: Park et al., Relational Knowledge Distillation, CVPR 2019 (arXiv:1904.05068).

`rkd_distance` compares the distances between the images of a batch, `rkd_angle` the angles between triples of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.distances import normalize_by_mean, pairwise_distances
from mlkd.losses.reduction import force_float32


@force_float32
def rkd_distance(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Distance-wise distillation: the distance of each pair of images, over the mean distance of the batch.

    $$ L_{RKD-D} = \frac{1}{b^2} \sum_{i \ne j} \ell_\delta\big(\psi_D(t_i, t_j), \psi_D(s_i, s_j)\big), \qquad
       \psi_D(t_i, t_j) = \frac{1}{\mu} \|t_i - t_j\|_2 $$

    where $t$ and $s$ are the features of teacher and student, $\mu$ the mean distance of the pairs $i \ne j$ (for each
    network separately; the student's carries gradient) and $\ell_\delta$ the Huber loss with threshold 1.

    Source: Park et al., Relational Knowledge Distillation, CVPR 2019, Eqs. (5)-(8), arXiv:1904.05068.
    Differs from the paper: divided by the $b^2$ entries of the distance matrix, as in the official code, to which
    the paper's weight 25 belongs.

    Args:
        student_features: any finite real. Gradients flow here only; a distance of 0 has gradient 0.
        teacher_features: any finite real; detached inside. Its width may differ from the student's.

    Shape: (b, d) and (b, any D); output (). Range: >= 0; 0, with a graph, for one image.

    Raises:
        ValueError: not two matrices of the same images.

    Example:
        >>> rkd_distance(torch.tensor([[0.], [1.], [2.]]), torch.tensor([[0.], [1.], [4.]]))
        tensor(0.0312)
    """
    check_features(student_features, teacher_features)
    num_pairs = len(student_features) * (len(student_features) - 1)
    student, teacher = (
        normalize_by_mean(pairwise_distances(features), num_pairs)  # Eqs. (5), (6)
        for features in (student_features, teacher_features.detach())
    )
    return F.huber_loss(student, teacher.to(student), delta=1.0)  # Eq. (7)


@force_float32
def rkd_angle(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Angle-wise distillation: the cosine of the angle at each image between two others.

    $$ L_{RKD-A} = \frac{1}{b^3} \sum_{i \ne j \ne k \ne i} \ell_\delta\big(\psi_A(t_i, t_j, t_k),
       \psi_A(s_i, s_j, s_k)\big), \qquad
       \psi_A(t_i, t_j, t_k) = \langle e^{ij}, e^{kj} \rangle, \quad e^{ij} = \frac{t_i - t_j}{\|t_i - t_j\|_2} $$

    with the symbols of `rkd_distance`. Where two of three images coincide there is no angle; the potential is 0.

    Source: Park et al., Relational Knowledge Distillation, CVPR 2019, Eqs. (8)-(10), arXiv:1904.05068.
    Differs from the paper: divided by $b^3$, as in the official code, to which the paper's weight 50 belongs.
    Memory grows with b b d and b b b: 33 MB each for b = 64, d = 2048 and for b = 200.

    Args, Raises: as `rkd_distance`. Shape: (b, d) and (b, any D); output (). Range: [0, 2]; 0, with a graph, for fewer
    than three images.
    """
    check_features(student_features, teacher_features)
    student, teacher = _cosines(student_features), _cosines(teacher_features.detach())
    return F.huber_loss(student, teacher.to(student), delta=1.0)  # Eq. (10)


def directions(vectors: Tensor) -> Tensor:
    """Vectors (..., d) scaled to length 1; one of length 0 stays 0 and gets no gradient."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return (vectors / length.masked_fill(length == 0, 1.0)).masked_fill(length == 0, 0.0)


def check_features(student_features: Tensor, teacher_features: Tensor) -> None:
    """Raises ValueError unless both are matrices of the same images."""
    if student_features.ndim != 2 or teacher_features.ndim != 2 or len(student_features) != len(teacher_features):
        raise ValueError(
            f"`student_features` has shape {tuple(student_features.shape)} and `teacher_features` "
            f"{tuple(teacher_features.shape)}; expected (b, any d) and (b, any D) with one b. Pool a feature map first."
        )


def _cosines(features: Tensor) -> Tensor:
    """Cosines (j, i, k) of the angles at j between i and k; 0 where two of them are the same image. Eq. (9)."""
    units = directions(features[None] - features[:, None])
    diagonal = torch.eye(len(features), dtype=torch.bool, device=features.device)
    return (units @ units.transpose(1, 2)).masked_fill(diagonal, 0.0)
