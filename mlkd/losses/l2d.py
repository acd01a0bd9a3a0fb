"""The losses of L2D: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023 (arXiv:2308.06453).

`mld` distils the logits label by label, `cd` and `id_` the distances between label-wise embeddings: of one
class across images, and of one image across classes. `led` is the weighted sum of the last two.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.reduction import check_same_shape, force_float32, reduce


@force_float32
def mld(student_logits: Tensor, teacher_logits: Tensor, *, reduction: str = "batchmean") -> Tensor:
    r"""Multi-label logits distillation: one Bernoulli KL divergence per image and label.

    $$ L_{MLD} = \frac{1}{b} \sum_{i=1}^{b} \sum_{k=1}^{q}
       KL\big([\hat y^T_{ik}, 1 - \hat y^T_{ik}] \,\|\, [\hat y^S_{ik}, 1 - \hat y^S_{ik}]\big) $$

    where $\hat y$ is the sigmoid of a logit, $T$ the teacher and $S$ the student.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eq. (3), arXiv:2308.06453.
    Differs from the released code: computed from logits, so it is finite where a clamped probability is not.

    Args:
        student_logits: any finite real. Gradients flow here only.
        teacher_logits: any finite real; detached inside.
        reduction: "batchmean" (the paper's: sum over labels, mean over images), "sum" or "none".

    Shape: logits (b, q); output () or, for "none", (b, q). Range: >= 0 up to rounding
    (a term can be -1e-7 in float32); 0 when the logits agree.

    Raises:
        ValueError: the shapes differ, or `reduction` is unknown.

    Example:
        >>> mld(torch.tensor([[0., 2.]]), torch.tensor([[0., 0.]]))
        tensor(0.4338)
    """
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    student, teacher = student_logits, teacher_logits.detach()
    terms = torch.sigmoid(teacher) * (F.logsigmoid(teacher) - F.logsigmoid(student)) + torch.sigmoid(-teacher) * (
        F.logsigmoid(-teacher) - F.logsigmoid(-student)
    )  # Eq. (3)
    return reduce(terms, reduction)


@force_float32
def cd(student_embeddings: Tensor, teacher_embeddings: Tensor, targets: Tensor, *, normalize: bool = True) -> Tensor:
    r"""Class-aware label-wise embedding distillation: how one class's embeddings lie across images.

    $$ L_{CD} = \sum_{k=1}^{q} \sum_{i,j \in [b]} \ell\big(\phi(e^T_{ik}, e^T_{jk}), \phi(e^S_{ik}, e^S_{jk})\big) $$

    where $e_{ik}$ is the embedding of label $k$ in image $i$, $\phi$ the Euclidean distance if both images have
    the label and 0 otherwise, and $\ell$ the Huber loss with threshold 1.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eqs. (4)-(6), arXiv:2308.06453.
    Differs from the print by default: the released code, to which the paper's weight 100 belongs, divides each
    class's distances by the mean of the positive ones (the student's mean carries gradient) and the class's sum
    by the number of its positives. So a class with exactly two positives in the batch says nothing: both its
    distances are 1. `normalize=False` is the print.

    Args:
        student_embeddings: any finite real. Gradients flow here only; a distance of 0 has gradient 0.
        teacher_embeddings: any finite real; detached inside. Its width may differ from the student's.
        targets: 0 or 1. Positives are read here, never from zeros in the embeddings.
        normalize: True (as in the official code) or False (as in the paper).

    Shape: embeddings (b, q, d), targets (b, q); output (). Range: >= 0; 0, with a graph, where no class has
    two positives.

    Raises:
        ValueError: the shapes do not fit.
    """
    pairs = _Positives.of(student_embeddings, teacher_embeddings, targets)
    return pairs.structure(pairs.label, targets.shape[1], normalize)  # Eq. (5): one group per class


@force_float32
def id_(student_embeddings: Tensor, teacher_embeddings: Tensor, targets: Tensor, *, normalize: bool = True) -> Tensor:
    r"""Instance-aware label-wise embedding distillation: how one image's embeddings lie across its labels.

    $$ L_{ID} = \sum_{i=1}^{b} \sum_{k,l \in [q]} \ell\big(\phi(e^T_{ik}, e^T_{il}), \phi(e^S_{ik}, e^S_{il})\big) $$

    with the symbols of `cd`; here $\phi$ is not 0 where the image has both labels.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eqs. (7), (8), arXiv:2308.06453.
    Differs from the print by default as `cd` does, with "image" for "class". So only images with three labels
    or more take part: most pictures of Pascal VOC do not.

    Args, Shape, Range and Raises: as `cd`.
    """
    pairs = _Positives.of(student_embeddings, teacher_embeddings, targets)
    return pairs.structure(pairs.image, len(targets), normalize)  # Eq. (8): one group per image


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
    pairs = _Positives.of(student_embeddings, teacher_embeddings, targets)
    class_aware = pairs.structure(pairs.label, targets.shape[1], normalize)
    instance_aware = pairs.structure(pairs.image, len(targets), normalize)
    return lambda_cd * class_aware + lambda_id * instance_aware  # Eq. (9)


class _Positives(NamedTuple):
    """The embeddings of the positive labels alone, one row each: images and labels without each other are not touched.

    student (p, d), teacher (p, any d), image (p,) and label (p,) of each row.
    """

    student: Tensor
    teacher: Tensor
    image: Tensor
    label: Tensor

    @classmethod
    def of(cls, student: Tensor, teacher: Tensor, targets: Tensor) -> _Positives:
        three = student.ndim == 3 and teacher.ndim == 3
        if not three or student.shape[:2] != targets.shape or teacher.shape[:2] != targets.shape:
            raise ValueError(
                f"`student_embeddings` has shape {tuple(student.shape)}, `teacher_embeddings` {tuple(teacher.shape)} "
                f"and `targets` {tuple(targets.shape)}; expected (b, q, d), (b, q, any d) and (b, q) with one b and "
                f"one q."
            )
        image, label = (targets > 0).nonzero(as_tuple=True)
        row = image * targets.shape[1] + label
        student, teacher = (x.flatten(0, 1).index_select(0, row) for x in (student, teacher.detach()))
        return cls(student, teacher, image, label)

    def structure(self, group: Tensor, groups: int, normalize: bool) -> Tensor:
        """Huber loss between the pairwise distances of student and teacher within each group of rows.

        `group` (p,) is the number of each row's group. Groups are filled up to the size of the largest, so the work
        and memory go with the positives, not with all images and labels.
        """
        count = group.bincount(minlength=groups)
        most = max(int(count.max()), 1) if groups else 1
        order = group.argsort(stable=True)
        within = torch.arange(len(group), device=group.device) - (count.cumsum(0) - count)[group[order]]
        place = group[order] * most + within
        present = torch.arange(most, device=group.device) < count[:, None]
        pairs = present[:, :, None] & present[:, None, :]

        def distances(rows: Tensor) -> Tensor:
            filled = rows.new_zeros(groups * most, rows.shape[1]).index_copy(0, place, rows.index_select(0, order))
            found = _Distances.apply(filled.view(groups, most, -1)).masked_fill(~pairs, 0.0)
            return _over_mean(found) if normalize else found

        teacher, student = distances(self.teacher), distances(self.student)
        huber = F.huber_loss(student, teacher.to(student), reduction="none", delta=1.0)  # Eq. (6)
        per_group = huber.sum(dim=(1, 2))
        if normalize:
            per_group = per_group / count.clamp(min=1)
        return per_group.sum()


class _Distances(torch.autograd.Function):
    """Euclidean distances within each group, Eqs. (4), (7): (groups, m, d) to (groups, m, m).

    With W = G / distance, the gradient of row i is the sum over j of (W_ij + W_ji) (x_i - x_j): two products of
    matrices, where `cdist` would keep every difference. A distance of 0 has gradient 0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x - x[:, :1]  # distances stay, and close rows far from the origin keep their digits
        distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        ctx.save_for_backward(x, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, distances = ctx.saved_tensors
        weight = (gradient / distances).masked_fill(distances == 0, 0.0)
        weight = weight + weight.mT
        with torch.autocast(x.device.type, enabled=False):
            return x * weight.sum(dim=2, keepdim=True) - weight @ x


def _over_mean(distances: Tensor) -> Tensor:
    """Each group's distances divided by the mean of the positive ones."""
    positive = (distances > 0).sum(dim=(1, 2), keepdim=True)
    mean = distances.sum(dim=(1, 2), keepdim=True) / positive.clamp(min=1)
    return distances / mean.masked_fill(positive == 0, 1.0)
