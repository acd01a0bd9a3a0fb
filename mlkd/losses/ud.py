"""The losses of UD, uncertainty distillation: Song et al., Handling Difficult Labels for Multi-label Image
Classification via Uncertainty Distillation, ACM MM 2021.

A network has a calibration branch beside its classifier, trained by `pick_all_labels_normalized`. Its `uncertainty` is
the divergence between the two, and `uncertainty_map` locates it in the image. The student is trained by
`prediction_distribution_distillation` and `uncertainty_attention_distillation`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.l2d import mld
from mlkd.losses.ps import log_odds, select_positives
from mlkd.losses.reduction import check_same_shape, check_temperature, force_float32, reduce


@force_float32
def pick_all_labels_normalized(calibration_logits: Tensor, targets: Tensor, *, reduction: str = "sum") -> Tensor:
    r"""Pick-all-labels normalized: the mean cross entropy of the positive labels, each against all negative labels.

    $$ L_{PAL-N} = - \sum_{i=1}^{b} \frac{1}{|P_i|} \sum_{t \in P_i}
       \log \frac{e^{z_{it}}}{e^{z_{it}} + \sum_{j \in N_i} e^{z_{ij}}} $$

    where $z$ are the logits of the calibration branch, $P_i$ the positive and $N_i$ the negative labels of image $i$.

    Source: Song et al., ACM MM 2021, as in the official code.
    Differs from the official code, which divides the sum over the batch by the number of positives of the last image:
    here each image is divided by its number of positives.

    Args:
        calibration_logits: any finite real.
        targets: 0 or 1.
        reduction: "sum" over the images, "batchmean" or "none" (a term at each positive).

    Shape: both (b, q); output () or, for "none", (b, q). Range: >= 0; an image without positives or without
    negatives adds 0.

    Raises:
        ValueError: the shapes differ, or `reduction` is unknown.

    Example:
        >>> pick_all_labels_normalized(torch.tensor([[0., 0.]]), torch.tensor([[1, 0]]))
        tensor(0.6931)
    """
    check_same_shape(calibration_logits=calibration_logits, targets=targets)
    positive = select_positives(targets)
    terms = -F.logsigmoid(log_odds(calibration_logits, positive)) / positive.sum(dim=1, keepdim=True).clamp(min=1)
    return reduce(terms.masked_fill(~positive, 0.0), reduction)


@force_float32
def prediction_distribution_distillation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_calibration: Tensor,
    teacher_calibration: Tensor,
    *,
    temperature: float = 3.0,
    reduction: str = "sum",
) -> Tensor:
    r"""Prediction distribution distillation: classifier and calibration branch of the student match the teacher's.

    $$ L_{dist} = \frac{\tau^2}{2} \sum_{i=1}^{b} \Big( KL\big(\mathrm{softmax}(c^T_i / \tau) \,\|\,
       \mathrm{softmax}(c^S_i / \tau)\big) + \frac{1}{2q} \sum_{k=1}^{q}
       KL\big([\hat y^T_{ik}, 1 - \hat y^T_{ik}] \,\|\, [\hat y^S_{ik}, 1 - \hat y^S_{ik}]\big) \Big) $$

    where $c$ are the logits of the calibration branch, $\hat y$ the sigmoids of the classification logits over
    $\tau$, $T$ the teacher and $S$ the student.

    Source: Song et al., ACM MM 2021, as in the official code with its default weights.
    Differs from the official code: computed in log space, so it is finite where a probability is 0.

    Args:
        student_logits, student_calibration: any finite real. Gradients flow here only.
        teacher_logits, teacher_calibration: any finite real; detached inside.
        temperature: $\tau$, above 0.
        reduction: "sum" over the images, "batchmean" or "none" (one term per image).

    Shape: all (b, q); output () or, for "none", (b,). Range: >= 0 up to rounding; 0 when both branches agree.

    Raises:
        ValueError: the shapes differ, `temperature` is not above 0, or `reduction` is unknown.
    """
    check_temperature(temperature)
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
def uncertainty(logits: Tensor, calibration_logits: Tensor) -> Tensor:
    r"""The uncertainty of a network: the divergence between its two branches, summed over the images.

    $$ U = \sum_{i=1}^{b} KL\big(\mathrm{softmax}(c_i) \,\|\, \mathrm{softmax}(z_i)\big) $$

    where $z$ are the classification logits and $c$ those of the calibration branch. Gradients flow into both.

    Source: Song et al., ACM MM 2021, as in the official code.
    Shape: both (b, q); output (). Range: >= 0 up to rounding; 0 when they agree up to a constant per image.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(logits=logits, calibration_logits=calibration_logits)
    return _softmax_divergence(logits, calibration_logits).sum()


def uncertainty_gradient(
    features: Tensor, head: Callable[[Tensor], tuple[Tensor, Tensor | None]], calibration: Callable[[Tensor], Tensor]
) -> Tensor:
    r"""The gradient of a network's `uncertainty` with respect to its feature map, $\partial U / \partial F$.

    Args:
        features: (b, D, H, W), any finite real; detached inside.
        head: features to logits (b, q) and embeddings.
        calibration: features to the logits (b, q) of the calibration branch.

    Returns:
        (b, D, H, W), without a graph.
    """
    leaf = features.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(uncertainty(head(leaf)[0], calibration(leaf)), leaf)
    return gradient


@force_float32
def uncertainty_map(features: Tensor, gradient: Tensor) -> Tensor:
    r"""Where in the image the uncertainty arises: the feature map, weighted by the channels' effect on it.

    $$ M_i = \sum_{c=1}^{D} \alpha_{ic} F_{ic}, \qquad
       \alpha_i = \mathrm{softmax}_c \Big( \sum_{x, y} \partial U / \partial F_{ic}(x, y) \Big) $$

    where $F_i$ is the feature map of image $i$ and $U$ the `uncertainty`; $\alpha$ is a constant.

    Source: Song et al., ACM MM 2021, as in the official code.

    Args:
        features: any finite real. Gradients flow here only.
        gradient: $\partial U / \partial F$, as `uncertainty_gradient` returns it; detached inside.

    Shape: both (b, D, H, W); output (b, H, W).

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(features=features, gradient=gradient)
    weights = gradient.detach().sum(dim=(2, 3), keepdim=True).softmax(dim=1)
    return (weights * features).sum(dim=1)


@force_float32
def uncertainty_attention_distillation(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    r"""Uncertainty attention distillation: the mean squared difference of two uncertainty maps.

    $$ L_{att} = \frac{1}{b H W} \sum_{i=1}^{b} \sum_{x, y} \big( M^S_i(x, y) - M^T_i(x, y) \big)^2 $$

    Source: Song et al., ACM MM 2021, as in the official code.
    Differs from the official code: where the grids differ, the student's map is averaged onto the teacher's.

    Args:
        student_map: any finite real. Gradients flow here only.
        teacher_map: any finite real; detached inside.

    Shape: (b, any h, any w) and (b, H, W); output (). Range: >= 0; 0 when the maps agree.

    Raises:
        ValueError: not two maps of the same images.

    Example:
        >>> uncertainty_attention_distillation(torch.tensor([[[1., 2.]]]), torch.tensor([[[1., 4.]]]))
        tensor(2.)
    """
    if student_map.ndim != 3 or teacher_map.ndim != 3 or len(student_map) != len(teacher_map):
        raise ValueError(
            f"`student_map` has shape {tuple(student_map.shape)} and `teacher_map` {tuple(teacher_map.shape)}; "
            f"expected (b, any h, any w) and (b, H, W) with one b."
        )
    height, width = teacher_map.shape[1:]
    return F.mse_loss(F.adaptive_avg_pool2d(student_map, (height, width)), teacher_map.detach())


def _softmax_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) of each row."""
    log_teacher = teacher.log_softmax(dim=1)
    return (log_teacher.exp() * (log_teacher - student.log_softmax(dim=1))).sum(dim=1)
