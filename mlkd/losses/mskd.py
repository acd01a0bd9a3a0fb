"""The losses of MSKD: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025.

A student is its own teacher in three ways. L-SD (locality) compares distances between crops: `l_sd`. The teacher of
R-SD (reconstruction) are the logits of the crops, combined by `combine_crops`; that of S-SD (step) are the logits of
the weights before the last update. Both are distilled with `mbd`, which is based on `reformulated_softmax`.
`random_boxes` or `corner_boxes` place the crops, `roi_crop` takes them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from mlkd.losses.distances import normalize_by_mean, pairwise_distances
from mlkd.losses.reduction import check_same_shape, check_temperature, force_float32, reduce


@force_float32
def reformulated_softmax(logits: Tensor, targets: Tensor, *, as_in_paper: bool = False) -> Tensor:
    r"""Reformulated softmax: each positive against all negatives, without the other positives.

    $$ \tilde q_{ij} = \frac{1}{|M_i|} \sum_{t \in M_i}
       \frac{e^{q_{ij}}}{e^{q_{it}} + \sum_{k \notin M_i} e^{q_{ik}}} $$

    where $q_{ij}$ is the logit of label $j$ and $M_i$ are the positive labels of image $i$.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eq. (13).
    Differs from the paper by default: each positive $t$ forms one softmax with all negatives, and a positive's
    probability is the one in its group. In the paper's sum it is also divided by the denominators of the other groups
    and can exceed 1. A negative is in every group; its probability is the mean over them, as in the paper.

    Args:
        logits: any finite real, already divided by the temperature.
        targets: 0 or 1.
        as_in_paper: whether a positive is summed over all groups, as in the paper.

    Shape: both (b, q); output (b, q). Range: [0, 1], and the mean of the positives' and the sum of the negatives'
    probabilities of an image add to 1; all 0 in an image without positives. With `as_in_paper` it grows without bound
    as a positive rises above another one and all negatives; it is clamped at e^20.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> reformulated_softmax(torch.tensor([[3., 1., 1., 2.]]).log(), torch.tensor([[1, 1, 0, 0]]))
        tensor([[0.5000, 0.2500, 0.2083, 0.4167]])
    """
    check_same_shape(logits=logits, targets=targets)
    return _log_reformulated_softmax(logits, targets > 0, as_in_paper).exp()


@force_float32
def mbd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    *,
    temperature: float = 4.0,
    omega: float = 0.5,
    gamma_pos: float = 0.25,
    gamma_neg: float = 1.0,
    detach_weights: bool = True,
    as_in_paper: bool = False,
    reduction: str = "sum",
) -> Tensor:
    r"""Multi-label balanced distillation: a KL divergence weighted label by label.

    $$ L_{MBD} = \tau^2 \sum_{i=1}^{b} \sum_{j=1}^{q} w_{ij} \, \tilde p_{ij} \log\frac{\tilde p_{ij}}{\tilde q_{ij}},
       \quad w_{ij} = \begin{cases} |(1 - \omega) + \omega \tilde p_{ij} - \tilde q_{ij}|^{\gamma^+} & j \in M_i \\
       |\omega \tilde p_{ij} - \tilde q_{ij}|^{\gamma^-} & j \notin M_i \end{cases} $$

    where $\tilde p$ and $\tilde q$ are the `reformulated_softmax` of the teacher's and the student's logits divided by
    the temperature $\tau$, and $M_i$ the positive labels of image $i$.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eqs. (14)-(16), and (17) for the sum
    over images.
    Differs from the paper by default, which calls the weights trainable: here they are constants to the gradient, as
    in the official code. `detach_weights=False` lets the gradient flow through them.
    Differs from the official code, which omits the teacher's entropy.

    Args:
        student_logits: any finite real. Gradients flow here only.
        teacher_logits: any finite real; detached inside.
        targets: 0 or 1.
        temperature: above 0.
        omega: the fraction of the teacher's probabilities in the weights; the labels have 1 - omega.
        gamma_pos, gamma_neg: exponents of the weights, 0 or more; 0 makes the weight 1.
        detach_weights: whether the weights are constants to the gradient. Otherwise the gradient has no bound where a
            weight with an exponent below 1 is close to 0; where it is 0, the gradient through it is 0.
        as_in_paper: as in `reformulated_softmax`.
        reduction: "sum" (as in the paper, over labels and images), "batchmean" (sum over labels, mean over images) or
            "none".

    Shape: all (b, q); output () or, for "none", (b, q). Range: any sign, as the labels have different weights. For
    equal logits the value is 0, but not the gradient: positives have larger weights, so their logits still increase.
    Images without positives contribute 0.

    Raises:
        ValueError: the shapes differ, `reduction` is unknown, `temperature` is not above 0 or an exponent is below 0.

    Example:
        >>> mbd(torch.tensor([[0., 0.]]), torch.tensor([[4., 0.]]), torch.tensor([[1, 0]]))
        tensor(2.4797)
    """
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits, targets=targets)
    check_temperature(temperature)
    for name, gamma in {"gamma_pos": gamma_pos, "gamma_neg": gamma_neg}.items():
        if not gamma >= 0:
            raise ValueError(f"`{name}` is {gamma}, expected a number, 0 or more.")
    positive = targets > 0
    log_p = _log_reformulated_softmax(teacher_logits.detach() / temperature, positive, as_in_paper)
    log_q = _log_reformulated_softmax(student_logits / temperature, positive, as_in_paper)
    p, q = log_p.exp(), (log_q.detach() if detach_weights else log_q).exp()
    difference = torch.where(positive, (1 - omega) + omega * p - q, omega * p - q).abs()
    if not detach_weights:
        difference = difference.clamp(min=torch.finfo(q.dtype).tiny)
    weight = torch.where(positive, difference**gamma_pos, difference**gamma_neg)  # Eq. (15)
    divergence = weight * p * (log_p - log_q)  # Eq. (14)
    return reduce(divergence * temperature**2, reduction)  # Eq. (16)


@force_float32
def l_sd(roi_logits: Tensor, crop_logits: Tensor) -> Tensor:
    r"""L-SD, locality: pairwise distances between crops of the feature map match those between crops of the image.

    $$ L_{L-SD} = \frac{1}{b} \sum_{i=1}^{b} \ell\big(\mathrm{sim}_p(r_i), \mathrm{sim}_p(o_i)\big)
       + \ell\big(\mathrm{sim}_b(r), \mathrm{sim}_b(o)\big), $$
    $$ \mathrm{sim}_p(r_i)_{st} = \|r_i^s - r_i^t\|_2, \quad
       \mathrm{sim}_b(r)_{ij} = \big\|\tfrac{1}{S} \sum_s r_i^s - \tfrac{1}{S} \sum_s r_j^s\big\|_2 $$

    where $r_i^s$ are the logits of crop $s$ of the feature map of image $i$, $o_i^s$ those of the cropped image, and
    $\ell$ the Huber loss with threshold 1, averaged over the matrix.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eqs. (3), (4).
    "Normalized" distances are understood as in L2D: each matrix (one per image, one for the batch) is divided by the
    mean of its positive entries, and the gradient flows through that mean. So two crops, or two images, contribute
    nothing.
    Differs from the official code, which takes one mean for the crops of all images.

    Args:
        roi_logits: any finite real. Gradients flow here only; a distance of 0 has gradient 0.
        crop_logits: any finite real; detached inside.

    Shape: both (b, S, q); output (). Range: >= 0; 0, with a graph, where nothing can be compared.

    Raises:
        ValueError: the shapes differ or are not (b, S, q).
    """
    _check_crops("roi_logits", roi_logits)
    check_same_shape(roi_logits=roi_logits, crop_logits=crop_logits)
    r, o = roi_logits, crop_logits.detach().to(roi_logits)
    between_crops = F.huber_loss(_similarity(r), _similarity(o))
    between_images = F.huber_loss(_similarity(r.mean(dim=1)[None]), _similarity(o.mean(dim=1)[None]))
    return between_crops + between_images  # Eq. (4)


@force_float32
def pseudo_labels(crop_logits: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    r"""Pseudo labels of the crops: 1 where a crop's logit is far above the image's, -1 where it is far below.

    $$ u_{ij}^s = \begin{cases} 1 & o_{ij}^s - q_{ij} \text{ among the } \beta \text{ largest} \\
       -1 & o_{ij}^s - q_{ij} \text{ among the } \beta \text{ smallest} \\ 0 & \text{else} \end{cases} $$

    where $o_{ij}^s$ is the logit of label $j$ for crop $s$ of image $i$, $q_{ij}$ the one for the full image, and
    $\beta$ the number of positives in the batch. All $b S q$ entries of the batch are ranked together.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eq. (5).
    Where there are fewer than $2 \beta$ entries, as with one crop per image, $\beta$ is half of them. Ties are broken
    by position.

    Args:
        crop_logits, logits: any finite real. No gradient flows.
        targets: 0 or 1.

    Shape: crop_logits (b, S, q), the others (b, q); output (b, S, q). Range: -1, 0 or 1, as many of -1 as of 1.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check_crops("crop_logits", crop_logits)
    for name, tensor in {"logits": logits, "targets": targets}.items():
        if tensor.shape != (crop_logits.shape[0], crop_logits.shape[2]):
            raise ValueError(
                f"`{name}` has shape {tuple(tensor.shape)} but `crop_logits` has {tuple(crop_logits.shape)}; expected "
                f"(b, q) and (b, S, q) with one b and one q."
            )
    order = (crop_logits - logits[:, None]).flatten().argsort(stable=True)
    beta = min(int((targets > 0).sum()), len(order) // 2)
    labels = torch.zeros_like(crop_logits).flatten()
    labels[order[:beta]] = -1
    labels[order[len(order) - beta :]] = 1  # Eq. (5)
    return labels.view(crop_logits.shape)


@force_float32
def graph_propagation(crop_logits: Tensor, labels: Tensor, steps: int = 2) -> Tensor:
    r"""Propagates pseudo labels between the crops of an image; distant logits have strong edges.

    $$ u_i \leftarrow D_i^{-1/2} (A_i + I) D_i^{-1/2} u_i, \quad
       (A_i)_{st} = \frac{\|o_i^s - o_i^t\|_2}{\max_{j, k, l} \|o_j^k - o_j^l\|_2}, \quad
       (D_i)_{ss} = 1 + \sum_t (A_i)_{st} $$

    where $u_i$ (S, q) are the pseudo labels and $o_i^s$ the logits of the crops of image $i$.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eqs. (6), (7); two steps by Table 4.
    The maximum is taken over the pairs of crops of one image, over all images of the batch.

    Args:
        crop_logits: any finite real; detached inside.
        labels: as `pseudo_labels` returns them.
        steps: the number of propagation steps, 0 or more.

    Shape: both (b, S, q); output (b, S, q).

    Raises:
        ValueError: the shapes differ or are not (b, S, q), or `steps` is below 0.
    """
    _check_crops("crop_logits", crop_logits)
    check_same_shape(crop_logits=crop_logits, labels=labels)
    if steps < 0:
        raise ValueError(f"`steps` is {steps}, expected a whole number of at least 0.")
    distances = pairwise_distances(crop_logits.detach())
    largest = distances.max()
    edges = distances / largest.masked_fill(largest == 0, 1.0)  # Eq. (6)
    edges = edges + torch.eye(edges.shape[1]).to(edges)
    scale = edges.sum(dim=2).rsqrt()
    edges = scale[:, :, None] * edges * scale[:, None, :]
    labels = labels.to(edges)
    for _ in range(steps):
        labels = edges @ labels  # Eq. (7)
    return labels


@force_float32
def combine_crops(crop_logits: Tensor, logits: Tensor, targets: Tensor, steps: int = 2) -> Tensor:
    r"""The logits of the crops combined to those of an image, the teacher of R-SD.

    $$ \sum_{s=1}^{S} \mathrm{softmax}(\bar e_i)^s \odot o_i^s $$

    where $o_i^s$ are the logits of crop $s$ of image $i$ and $\bar e_i$ the propagated pseudo labels; the softmax runs
    over the crops, separately for each label.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eq. (8).
    Differs from the official code, which divides the sum by S.

    Args:
        crop_logits, logits: any finite real. No gradient flows.
        targets: 0 or 1.
        steps: as in `graph_propagation`.

    Shape: crop_logits (b, S, q), the others (b, q); output (b, q).

    Raises:
        ValueError: as `pseudo_labels` and `graph_propagation`.
    """
    crop_logits = crop_logits.detach()
    propagated = graph_propagation(crop_logits, pseudo_labels(crop_logits, logits, targets), steps)
    return (propagated.softmax(dim=1) * crop_logits).sum(dim=1)  # Eq. (8)


def _log_reformulated_softmax(logits: Tensor, positive: Tensor, as_in_paper: bool) -> Tensor:
    """The logarithm of Eq. (13); without positives, a number so low that its exponential is 0."""
    log_zero = torch.finfo(logits.dtype).min / 2  # stands for log 0, and has gradients
    largest = logits.detach().masked_fill(positive & ~positive.all(dim=1, keepdim=True), log_zero)
    logits = logits - largest.amax(dim=1, keepdim=True)  # sums of exponentials are accurate for logits close to 0
    negatives = logits.masked_fill(positive, log_zero).logsumexp(dim=1, keepdim=True)
    log_group = torch.logaddexp(logits, negatives)  # log of the denominator of t's group
    count = positive.sum(dim=1, keepdim=True).clamp(min=1).to(logits)
    over_groups = (-log_group).masked_fill(~positive, log_zero).logsumexp(dim=1, keepdim=True) - count.log()
    log_probs = logits + over_groups  # Eq. (13)
    if as_in_paper:
        return log_probs.clamp(max=20.0)  # keeps the exponential finite
    return torch.where(positive, logits - log_group, log_probs)


def _similarity(logits: Tensor) -> Tensor:
    """Normalized distances (groups, m, m) within each group of rows (groups, m, q)."""
    return normalize_by_mean(pairwise_distances(logits))  # Eq. (3)


def _check_crops(name: str, logits: Tensor) -> None:
    if logits.ndim != 3 or not logits.numel():
        raise ValueError(f"`{name}` has shape {tuple(logits.shape)}; expected (b, S, q), one row per crop.")


def random_boxes(b: int, num_crops: int) -> Tensor:
    """Random crops of b images: (b, num_crops, 4), x1 y1 x2 y2 as fractions of the sides.

    As in the official code, a crop has 0.2 to 0.3 of the image's area and an aspect ratio of 2:5 to 5:3.
    """
    random = torch.rand(4, b, num_crops)
    area = 0.2 + 0.1 * random[0]
    low, high = math.log(2 / 5), math.log(5 / 3)
    ratio = torch.exp(low + (high - low) * random[1])
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=2)
    corner = (1 - sides) * random[2:].permute(1, 2, 0)
    return torch.cat([corner, corner + sides], dim=2)


def corner_boxes(b: int) -> Tensor:
    """The four quarters of b images: (b, 4, 4), x1 y1 x2 y2 as fractions of the sides."""
    corner = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]) / 2
    return torch.cat([corner, corner + 0.5], dim=1).expand(b, -1, -1)


def roi_crop(maps: Tensor, boxes: Tensor) -> Tensor:
    """Crops images or feature maps, each resized to the size of the map. Eq. (2).

    Args:
        maps: (b, D, H, W), differentiable.
        boxes: (b, S, 4), x1 y1 x2 y2 as fractions of the sides.

    Returns:
        (b * S, D, H, W), image by image.
    """
    height, width = maps.shape[-2:]
    scaled = boxes.to(maps) * maps.new_tensor([width, height, width, height])
    return roi_align(maps, list(scaled), (height, width), aligned=True)
