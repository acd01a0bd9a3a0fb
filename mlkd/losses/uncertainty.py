"""The losses of Song et al., Handling Difficult Labels for Multi-label Image Classification via Uncertainty
Distillation, ACM MM 2021: a softmax for each positive label among the negatives, and distillation of uncertainty.

`ps` compares student and teacher positive by positive, `pick_all_labels` trains a calibration branch with the same
groups. `distribution` and `attention` are the two parts of uncertainty distillation; the uncertainty itself is the
`disagreement` of the two branches of a network, and `uncertainty_map` the place in the picture it comes from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.l2d import mld
from mlkd.losses.reduction import check_same_shape, force_float32, reduce


@force_float32
def ps(student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, *, reduction: str = "batchmean") -> Tensor:
    r"""Partial softmax distillation: one KL divergence per positive label, over itself and all negative labels.

    $$ L_{PS} = \frac{1}{b} \sum_{i=1}^{b} \sum_{t \in P_i} KL\big(p^T_{it} \,\|\, p^S_{it}\big), \qquad
       p_{it} = \mathrm{softmax}\big([z_{ij}]_{j \in \{t\} \cup N_i}\big) $$

    where $z$ are the logits, $P_i$ the positive and $N_i$ the negative labels of image $i$, $T$ the teacher and $S$
    the student. With $\pi_{it}$ the probability of $t$ in its own group and $r_i$ the softmax over the negatives
    alone, the chain rule of the KL divergence gives each group from numbers that all groups of an image share,

    $$ KL(p^T_{it} \| p^S_{it}) = KL\big([\pi^T_{it}, 1 - \pi^T_{it}] \,\|\, [\pi^S_{it}, 1 - \pi^S_{it}]\big)
       + (1 - \pi^T_{it}) \, KL(r^T_i \| r^S_i), $$

    so time and memory go with b q, not with b q q.

    Source: Song et al., Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation,
    ACM MM 2021, in the form that Yang et al. compare with (ICCV 2023, arXiv:2308.06453, "PS"): temperature 1, sum
    over the positives, mean over the images.
    Differs from the code of Song et al., which divides by the number of positives and has temperature 3.

    Args:
        student_logits: any finite real. Gradients flow here only.
        teacher_logits: any finite real; detached inside.
        targets: 0 or 1.
        reduction: "batchmean" (sum over positives, mean over images), "sum" or "none" (a term at each positive).

    Shape: all (b, q); output () or, for "none", (b, q). Range: >= 0 up to rounding; an image without positives or
    without negatives adds 0; 0 when the logits agree up to a constant per image.

    Raises:
        ValueError: the shapes differ, or `reduction` is unknown.

    Example:
        >>> ps(torch.tensor([[0., 0.]]), torch.tensor([[2., 0.]]), torch.tensor([[1, 0]]))
        tensor(0.3278)
    """
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits, targets=targets)
    positive = _positives(targets)
    student, teacher = _log_odds(student_logits, positive), _log_odds(teacher_logits.detach(), positive)
    among_negatives = (teacher.exp().masked_fill(positive, 0.0) * (teacher - student)).sum(dim=1, keepdim=True)
    terms = mld(student, teacher, reduction="none") + torch.sigmoid(-teacher) * among_negatives
    return reduce(terms.masked_fill(~positive, 0.0), reduction)


@force_float32
def pick_all_labels(calibration_logits: Tensor, targets: Tensor, *, reduction: str = "sum") -> Tensor:
    r"""The pick-all-labels normalised loss: cross entropy of each positive label against the negatives, averaged.

    $$ L_{PAL-N} = - \sum_{i=1}^{b} \frac{1}{|P_i|} \sum_{t \in P_i}
       \log \frac{e^{z_{it}}}{e^{z_{it}} + \sum_{j \in N_i} e^{z_{ij}}} $$

    with the symbols of `ps`; $z$ are the logits of the calibration branch.

    Source: Song et al., ACM MM 2021, as their released code has it.
    Differs from that code, which divides the sum over the batch by the positives of its last image, in dividing each
    image by its own.

    Args:
        calibration_logits: any finite real.
        targets: 0 or 1.
        reduction: "sum" over the images, "batchmean" or "none" (a term at each positive).

    Shape: both (b, q); output () or, for "none", (b, q). Range: >= 0; an image without positives or without
    negatives adds 0.

    Raises:
        ValueError: the shapes differ, or `reduction` is unknown.
    """
    check_same_shape(calibration_logits=calibration_logits, targets=targets)
    positive = _positives(targets)
    terms = -F.logsigmoid(_log_odds(calibration_logits, positive)) / positive.sum(dim=1, keepdim=True).clamp(min=1)
    return reduce(terms.masked_fill(~positive, 0.0), reduction)


@force_float32
def distribution(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_calibration: Tensor,
    teacher_calibration: Tensor,
    *,
    temperature: float = 3.0,
    reduction: str = "sum",
) -> Tensor:
    r"""Prediction distribution distillation: both branches of the student follow the teacher's.

    $$ L_{dist} = \frac{\tau^2}{2} \sum_{i=1}^{b} \Big( KL\big(\mathrm{softmax}(c^T_i / \tau) \,\|\,
       \mathrm{softmax}(c^S_i / \tau)\big) + \frac{1}{2q} \sum_{k=1}^{q}
       KL\big([\hat y^T_{ik}, 1 - \hat y^T_{ik}] \,\|\, [\hat y^S_{ik}, 1 - \hat y^S_{ik}]\big) \Big) $$

    where $c$ are the logits of the calibration branch, $\hat y$ the sigmoids of the classification logits over
    $\tau$, $T$ the teacher and $S$ the student.

    Source: Song et al., ACM MM 2021, as their released code has it with its default weights.
    Differs from that code: computed in log space, so it is finite where a probability is 0.

    Args:
        student_logits, student_calibration: any finite real. Gradients flow here only.
        teacher_logits, teacher_calibration: any finite real; detached inside.
        temperature: $\tau$, above 0.
        reduction: "sum" over the images, "batchmean" or "none" (one term per image).

    Shape: all (b, q); output () or, for "none", (b,). Range: >= 0 up to rounding; 0 when both branches agree.

    Raises:
        ValueError: the shapes differ, `temperature` is not positive, or `reduction` is unknown.
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` is {temperature}, expected a number above 0.")
    check_same_shape(
        student_logits=student_logits,
        teacher_logits=teacher_logits,
        student_calibration=student_calibration,
        teacher_calibration=teacher_calibration,
    )
    softmax = _softmax_divergence(student_calibration / temperature, teacher_calibration.detach() / temperature)
    bernoulli = mld(student_logits / temperature, teacher_logits / temperature, reduction="none").mean(dim=1)
    return reduce(temperature**2 / 2 * (softmax + bernoulli / 2), reduction)


@force_float32
def disagreement(logits: Tensor, calibration_logits: Tensor) -> Tensor:
    r"""How uncertain a network is: how far its two branches are apart, summed over the images.

    $$ U = \sum_{i=1}^{b} KL\big(\mathrm{softmax}(c_i) \,\|\, \mathrm{softmax}(z_i)\big) $$

    where $z$ are the classification logits and $c$ those of the calibration branch. Gradients flow into both.

    Source: Song et al., ACM MM 2021, as their released code has it.
    Shape: both (b, q); output (). Range: >= 0 up to rounding; 0 when they agree up to a constant per image.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(logits=logits, calibration_logits=calibration_logits)
    return _softmax_divergence(logits, calibration_logits).sum()


@force_float32
def uncertainty_map(features: Tensor, gradient: Tensor) -> Tensor:
    r"""Where in the picture the uncertainty comes from: the feature map, weighted by what moves the disagreement.

    $$ M_i = \sum_{c=1}^{D} \alpha_{ic} F_{ic}, \qquad
       \alpha_i = \mathrm{softmax}_c \Big( \sum_{x, y} \partial U / \partial F_{ic}(x, y) \Big) $$

    where $F_i$ is the feature map of image $i$ and $U$ the `disagreement`; $\alpha$ is a constant.

    Source: Song et al., ACM MM 2021, as their released code has it.

    Args:
        features: any finite real. Gradients flow here only.
        gradient: $\partial U / \partial F$; detached inside.

    Shape: both (b, D, H, W); output (b, H, W).

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(features=features, gradient=gradient)
    weights = gradient.detach().sum(dim=(2, 3), keepdim=True).softmax(dim=1)
    return (weights * features).sum(dim=1)


@force_float32
def attention(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    r"""Uncertainty attention distillation: the mean squared difference of two uncertainty maps.

    $$ L_{att} = \frac{1}{b H W} \sum_{i=1}^{b} \sum_{x, y} \big( M^S_i(x, y) - M^T_i(x, y) \big)^2 $$

    Source: Song et al., ACM MM 2021, as their released code has it.
    Differs from that code: where the grids differ, the student's map is averaged onto the teacher's.

    Args:
        student_map: any finite real. Gradients flow here only.
        teacher_map: any finite real; detached inside.

    Shape: (b, any h, any w) and (b, H, W); output (). Range: >= 0; 0 when the maps agree.

    Raises:
        ValueError: not two maps of the same images.
    """
    if student_map.ndim != 3 or teacher_map.ndim != 3 or len(student_map) != len(teacher_map):
        raise ValueError(
            f"`student_map` has shape {tuple(student_map.shape)} and `teacher_map` {tuple(teacher_map.shape)}; "
            f"expected (b, any h, any w) and (b, H, W) with one b."
        )
    height, width = teacher_map.shape[1:]
    return F.mse_loss(F.adaptive_avg_pool2d(student_map, (height, width)), teacher_map.detach())


def _positives(targets: Tensor) -> Tensor:
    """Where a label is the positive of a group: an image without negatives has none."""
    positive = targets > 0
    return positive & ~positive.all(dim=1, keepdim=True)


def _log_odds(logits: Tensor, positive: Tensor) -> Tensor:
    """Each logit less the log of what all negatives of its image sum to, (b, q).

    For a positive it is the log odds of it in its group; for a negative the log of its softmax among the negatives.
    """
    return logits - logits.masked_fill(positive, -torch.inf).logsumexp(dim=1, keepdim=True)


def _softmax_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) of each row."""
    known = teacher.log_softmax(dim=1)
    return (known.exp() * (known - student.log_softmax(dim=1))).sum(dim=1)
