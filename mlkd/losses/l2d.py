"""The losses of L2D: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023 (arXiv:2308.06453).

`mld` distills the logits label by label. `cd` and `id_` distill the distances between label-wise embeddings: those of
one class across images, and those of one image across classes. `led` is the weighted sum of the two.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.distances import group_distances, normalize_by_mean, pad_groups
from mlkd.losses.reduction import check_same_shape, check_temperature, force_float32, reduce


@force_float32
def mld(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, reduction: str = "batchmean"
) -> Tensor:
    r"""Multi-label logits distillation: one Bernoulli KL divergence per image and label.

    $$ L_{MLD} = \frac{\tau^2}{b} \sum_{i=1}^{b} \sum_{k=1}^{q}
       KL\big([\hat y^T_{ik}, 1 - \hat y^T_{ik}] \,\|\, [\hat y^S_{ik}, 1 - \hat y^S_{ik}]\big) $$

    where $\hat y$ is the sigmoid of a logit over the temperature $\tau$, $T$ the teacher and $S$ the student.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eq. (3), arXiv:2308.06453, which has no
    temperature ($\tau = 1$). A larger one, and the factor $\tau^2$ that keeps the size of the gradient, are those of
    Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
    Differs from the official code: computed from logits, so it is finite where a clamped probability is not.

    Args:
        student_logits: any finite real. Gradients flow here only.
        teacher_logits: any finite real; detached inside.
        temperature: $\tau$, above 0; 1 as in the paper.
        reduction: "batchmean" (as in the paper: sum over labels, mean over images), "sum" or "none".

    Shape: logits (b, q); output () or, for "none", (b, q). Range: >= 0 up to rounding
    (a term can be -1e-7 in float32); 0 when the logits agree.

    Raises:
        ValueError: the shapes differ, `temperature` is not above 0, or `reduction` is unknown.

    Example:
        >>> mld(torch.tensor([[0., 2.]]), torch.tensor([[0., 0.]]))
        tensor(0.4338)
    """
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    check_temperature(temperature)
    student, teacher = student_logits / temperature, teacher_logits.detach() / temperature
    terms = torch.sigmoid(teacher) * (F.logsigmoid(teacher) - F.logsigmoid(student)) + torch.sigmoid(-teacher) * (
        F.logsigmoid(-teacher) - F.logsigmoid(-student)
    )  # Eq. (3)
    return reduce(temperature**2 * terms, reduction)


@force_float32
def cd(student_embeddings: Tensor, teacher_embeddings: Tensor, targets: Tensor, *, normalize: bool = True) -> Tensor:
    r"""Class-aware label-wise embedding distillation: distances between one class's embeddings across images.

    $$ L_{CD} = \sum_{k=1}^{q} \sum_{i,j \in [b]} \ell\big(\phi(e^T_{ik}, e^T_{jk}), \phi(e^S_{ik}, e^S_{jk})\big) $$

    where $e_{ik}$ is the embedding of label $k$ in image $i$, $\phi$ the Euclidean distance if both images have
    the label and 0 otherwise, and $\ell$ the Huber loss with threshold 1.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eqs. (4)-(6), arXiv:2308.06453.
    Differs from the paper by default: the official code, to which the paper's weight 100 belongs, divides each
    class's distances by the mean of the positive ones (the student's mean carries gradient) and the class's sum
    by the number of its positives. Then a class with exactly two positives in the batch contributes nothing: both its
    distances are 1. `normalize=False` is as in the paper.

    Args:
        student_embeddings: any finite real. Gradients flow here only; a distance of 0 has gradient 0.
        teacher_embeddings: any finite real; detached inside. Its width may differ from the student's.
        targets: 0 or 1. They determine which embeddings are compared.
        normalize: True (as in the official code) or False (as in the paper).

    Shape: embeddings (b, q, d), targets (b, q); output (). Range: >= 0; 0, with a graph, where no class has
    two positives.

    Raises:
        ValueError: the shapes do not fit.
    """
    student, teacher, _, label = _select_positives(student_embeddings, teacher_embeddings, targets)
    return _compare_distances(student, teacher, label, targets.shape[1], normalize)  # Eq. (5): one group per class


@force_float32
def id_(student_embeddings: Tensor, teacher_embeddings: Tensor, targets: Tensor, *, normalize: bool = True) -> Tensor:
    r"""Instance-aware label-wise embedding distillation: distances between one image's embeddings across its labels.

    $$ L_{ID} = \sum_{i=1}^{b} \sum_{k,l \in [q]} \ell\big(\phi(e^T_{ik}, e^T_{il}), \phi(e^S_{ik}, e^S_{il})\big) $$

    with the symbols of `cd`; here $\phi$ is not 0 where the image has both labels.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eqs. (7), (8), arXiv:2308.06453.
    Differs from the paper by default as `cd` does, with "image" for "class". Then only images with three labels
    or more contribute, which most images of Pascal VOC do not have.

    Args, Shape, Range and Raises: as `cd`.
    """
    student, teacher, image, _ = _select_positives(student_embeddings, teacher_embeddings, targets)
    return _compare_distances(student, teacher, image, len(targets), normalize)  # Eq. (8): one group per image


@force_float32
def led(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    targets: Tensor,
    *,
    lambda_cd: float = 100.0,
    lambda_id: float = 1000.0,
    normalize: bool = True,
) -> Tensor:
    r"""Label-wise embedding distillation, $\lambda_{CD} L_{CD} + \lambda_{ID} L_{ID}$.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eq. (9) and Sec. 4, arXiv:2308.06453.
    Arguments and shapes as `cd`; the weights are the paper's and belong to `normalize=True` and a BCE summed
    over the batch.
    """
    student, teacher, image, label = _select_positives(student_embeddings, teacher_embeddings, targets)
    class_aware = _compare_distances(student, teacher, label, targets.shape[1], normalize)
    instance_aware = _compare_distances(student, teacher, image, len(targets), normalize)
    return lambda_cd * class_aware + lambda_id * instance_aware  # Eq. (9)


def _select_positives(student: Tensor, teacher: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The embeddings of the p positive labels, student (p, d) and teacher (p, any d), with image and label (p,)."""
    is_3d = student.ndim == 3 and teacher.ndim == 3
    if not is_3d or student.shape[:2] != targets.shape or teacher.shape[:2] != targets.shape:
        raise ValueError(
            f"`student_embeddings` has shape {tuple(student.shape)}, `teacher_embeddings` {tuple(teacher.shape)} "
            f"and `targets` {tuple(targets.shape)}; expected (b, q, d), (b, q, any d) and (b, q) with one b and "
            f"one q."
        )
    image, label = (targets > 0).nonzero(as_tuple=True)
    row = image * targets.shape[1] + label
    student, teacher = (x.flatten(0, 1).index_select(0, row) for x in (student, teacher.detach()))
    return student, teacher, image, label


def _compare_distances(student: Tensor, teacher: Tensor, group: Tensor, num_groups: int, normalize: bool) -> Tensor:
    """Huber loss between the pairwise distances of student and teacher within each group of rows.

    Groups are padded to the size of the largest, so time and memory grow with the positives, not with b q.
    """
    (student, teacher), mask = pad_groups((student, teacher), group, num_groups)
    no_pair = ~(mask[:, :, None] & mask[:, None, :])
    student, teacher = (group_distances(rows).masked_fill(no_pair, 0.0) for rows in (student, teacher))  # Eqs. (4), (7)
    if normalize:
        student, teacher = normalize_by_mean(student), normalize_by_mean(teacher)
    loss = F.huber_loss(student, teacher.to(student), reduction="none", delta=1.0).sum(dim=(1, 2))  # Eq. (6)
    if normalize:
        loss = loss / mask.sum(dim=1).clamp(min=1)
    return loss.sum()
