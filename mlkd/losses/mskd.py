"""The losses of MSKD: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025.

A student is its own teacher in three ways. `locality` (L-SD) compares how far patches lie apart, `reconstruction`
(R-SD) puts the logits of the patches together again as a teacher, `step` (S-SD) takes the logits of the weights
before the last update. The last two distil with `mbd`, which rests on `reformulated_softmax`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.l2d import _over_mean
from mlkd.losses.reduction import check_same_shape, force_float32, reduce


@force_float32
def reformulated_softmax(logits: Tensor, targets: Tensor, *, as_in_paper: bool = False) -> Tensor:
    r"""Reformulated softmax: each positive against all negatives, without the other positives.

    $$ \tilde q_{ij} = \frac{1}{|M_i|} \sum_{t \in M_i}
       \frac{e^{q_{ij}}}{e^{q_{it}} + \sum_{k \notin M_i} e^{q_{ik}}} $$

    where $q_{ij}$ is the logit of label $j$ and $M_i$ are the positive labels of image $i$.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eq. (13).
    Differs from the print by default: each positive $t$ forms one softmax with all negatives, and a positive's
    probability is the one of its own group. Summed as printed it also stands over the other groups' denominators,
    where it can exceed 1. A negative is in every group; its probability is the mean over them, as printed.

    Args:
        logits: any finite real, already divided by the temperature.
        targets: 0 or 1.
        as_in_paper: True for the print.

    Shape: both (b, q); output (b, q). Range: [0, 1], and the mean of the positives' and the sum of the negatives'
    probabilities of an image are 1 together; all 0 in an image without positives. `as_in_paper` grows without bound as a
    positive rises above another one and all negatives; it is held at e^20.

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
    over images. The weights are constants to the gradient. The released code leaves out the teacher's entropy.

    Args:
        student_logits: any finite real. Gradients flow here only.
        teacher_logits: any finite real; detached inside.
        targets: 0 or 1.
        temperature: above 0.
        omega: the teacher's share in the weights, against the labels'.
        gamma_pos, gamma_neg: exponents of the weights, 0 or more; 0 makes the weight 1.
        as_in_paper: as in `reformulated_softmax`.
        reduction: "sum" (as printed: labels and images), "batchmean" (sum over labels, mean over images) or "none".

    Shape: all (b, q); output () or, for "none", (b, q). Range: any sign, since labels weigh differently. Equal logits
    give 0, but not a gradient of 0: positives weigh more, so their logits still rise. Images without positives
    contribute 0.

    Raises:
        ValueError: the shapes differ, `reduction` is unknown, `temperature` is not above 0 or an exponent is below 0.

    Example:
        >>> mbd(torch.tensor([[0., 0.]]), torch.tensor([[4., 0.]]), torch.tensor([[1, 0]]))
        tensor(2.4797)
    """
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits, targets=targets)
    if not temperature > 0:
        raise ValueError(f"`temperature` is {temperature}, expected a number above 0.")
    for name, gamma in {"gamma_pos": gamma_pos, "gamma_neg": gamma_neg}.items():
        if not gamma >= 0:
            raise ValueError(f"`{name}` is {gamma}, expected a number, 0 or more.")
    positive = targets > 0
    log_p = _log_reformulated_softmax(teacher_logits.detach() / temperature, positive, as_in_paper)
    log_q = _log_reformulated_softmax(student_logits / temperature, positive, as_in_paper)
    p, q = log_p.exp(), log_q.detach().exp()
    weight = torch.where(
        positive, ((1 - omega) + omega * p - q).abs() ** gamma_pos, (omega * p - q).abs() ** gamma_neg
    )  # Eq. (15)
    divergence = weight * p * (log_p - log_q)  # Eq. (14)
    return reduce(divergence * temperature**2, reduction)  # Eq. (16)


@force_float32
def l_sd(roi_logits: Tensor, crop_logits: Tensor) -> Tensor:
    r"""L-SD: patches cut from the feature map lie to each other as patches cut from the picture do.

    $$ L_{L-SD} = \frac{1}{b} \sum_{i=1}^{b} \ell\big(\mathrm{sim}_p(r_i), \mathrm{sim}_p(o_i)\big)
       + \ell\big(\mathrm{sim}_b(r), \mathrm{sim}_b(o)\big), $$
    $$ \mathrm{sim}_p(r_i)_{st} = \|r_i^s - r_i^t\|_2, \quad
       \mathrm{sim}_b(r)_{ij} = \big\|\tfrac{1}{S} \sum_s r_i^s - \tfrac{1}{S} \sum_s r_j^s\big\|_2 $$

    where $r_i^s$ are the logits of patch $s$ of image $i$ from the whole image's feature map, $o_i^s$ those of the
    cropped picture, and $\ell$ the Huber loss with threshold 1, averaged over the matrix.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eqs. (3), (4).
    "Normalised" distances are read as L2D does it: each matrix (one per image, one for the batch) is divided by the
    mean of its own positive entries, and the gradient goes through that mean. So two patches, or two images, say
    nothing. The released code takes one mean for the patches of all images.

    Args:
        roi_logits: any finite real. Gradients flow here only; a distance of 0 has gradient 0.
        crop_logits: any finite real; detached inside.

    Shape: both (b, S, q); output (). Range: >= 0; 0, with a graph, where nothing can be compared.

    Raises:
        ValueError: the shapes differ or are not (b, S, q).
    """
    _check_patches("roi_logits", roi_logits)
    check_same_shape(roi_logits=roi_logits, crop_logits=crop_logits)
    r, o = roi_logits, crop_logits.detach().to(roi_logits)
    between_patches = F.huber_loss(_over_mean(_distances(r)), _over_mean(_distances(o)))
    r, o = r.mean(dim=1)[None], o.mean(dim=1)[None]
    between_images = F.huber_loss(_over_mean(_distances(r)), _over_mean(_distances(o)))
    return between_patches + between_images  # Eq. (4)


@force_float32
def pseudo_labels(crop_logits: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    r"""The labels a patch speaks for: 1 where it says far more than the whole image, -1 where far less.

    $$ u_{ij}^s = \begin{cases} 1 & o_{ij}^s - q_{ij} \text{ among the } \beta \text{ largest} \\
       -1 & o_{ij}^s - q_{ij} \text{ among the } \beta \text{ smallest} \\ 0 & \text{else} \end{cases} $$

    where $o_{ij}^s$ is the logit of label $j$ for patch $s$ of image $i$, $q_{ij}$ the one for the whole image, and
    $\beta$ the number of positives in the batch. The order is that of all $b S q$ entries of the batch.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eq. (5).
    Where one patch an image leaves fewer than $2 \beta$ entries, $\beta$ is half of them. Ties go by position.

    Args:
        crop_logits, logits: any finite real. No gradient flows.
        targets: 0 or 1.

    Shape: crop_logits (b, S, q), the others (b, q); output (b, S, q). Range: -1, 0 or 1, as many of -1 as of 1.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check_patches("crop_logits", crop_logits)
    _check_whole(crop_logits, logits=logits, targets=targets)
    order = (crop_logits - logits[:, None]).flatten().argsort(stable=True)
    beta = min(int((targets > 0).sum()), len(order) // 2)
    labels = torch.zeros_like(crop_logits).flatten()
    labels[order[:beta]] = -1
    labels[order[len(order) - beta :]] = 1  # Eq. (5)
    return labels.view(crop_logits.shape)


@force_float32
def graph_propagation(crop_logits: Tensor, labels: Tensor, steps: int = 2) -> Tensor:
    r"""Pseudo labels passed on between the patches of an image, the further apart in logits the more.

    $$ u_i \leftarrow D_i^{-1/2} (A_i + I) D_i^{-1/2} u_i, \quad
       (A_i)_{st} = \frac{\|o_i^s - o_i^t\|_2}{\max_{j, k, l} \|o_j^k - o_j^l\|_2}, \quad
       (D_i)_{ss} = 1 + \sum_t (A_i)_{st} $$

    where $u_i$ (S, q) are the pseudo labels and $o_i^s$ the logits of the patches of image $i$.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eqs. (6), (7); two steps by Table 4.
    The largest distance is that between two patches of one image, over all images of the batch.

    Args:
        crop_logits: any finite real; detached inside.
        labels: as `pseudo_labels` gives them.
        steps: how often the labels are passed on, 0 or more.

    Shape: both (b, S, q); output (b, S, q).

    Raises:
        ValueError: the shapes differ or are not (b, S, q), or `steps` is below 0.
    """
    _check_patches("crop_logits", crop_logits)
    check_same_shape(crop_logits=crop_logits, labels=labels)
    if steps < 0:
        raise ValueError(f"`steps` is {steps}, expected a whole number, 0 or more.")
    distances = _distances(crop_logits.detach())
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
def r_sd(logits: Tensor, crop_logits: Tensor, targets: Tensor, *, steps: int = 2, **options: Any) -> Tensor:
    r"""R-SD: the logits of the patches, put together again, teach the whole image.

    $$ L_{R-SD}^{(i)} = L_{MBD}\Big(\sum_{s=1}^{S} \mathrm{softmax}(\bar e_i)^s \odot o_i^s, \; q_i\Big) $$

    where $q_i$ are the logits of image $i$, $o_i^s$ those of its patch $s$ and $\bar e_i$ the propagated pseudo labels;
    the softmax goes over the patches, for each label by itself.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eq. (8). The released code divides the
    sum by S.

    Args:
        logits: any finite real. Gradients flow here only.
        crop_logits: any finite real; detached inside.
        targets: 0 or 1.
        steps: as in `graph_propagation`.
        options: as in `mbd`.

    Shape: logits and targets (b, q), crop_logits (b, S, q); output as of `mbd`. Range: as `mbd`.

    Raises:
        ValueError: as `mbd`, `pseudo_labels` and `graph_propagation`.
    """
    propagated = graph_propagation(crop_logits, pseudo_labels(crop_logits, logits, targets), steps)
    reconstructed = (propagated.softmax(dim=1) * crop_logits).sum(dim=1)
    return mbd(logits, reconstructed, targets, **options)  # Eq. (8)


def s_sd(logits: Tensor, previous_logits: Tensor, targets: Tensor, **options: Any) -> Tensor:
    r"""S-SD: the logits do not run away from those of the weights before the last update.

    $$ L_{S-SD}^{(i)} = L_{MBD}\big(q_i^t, q_i^{t-1}\big) $$

    where $q_i^t$ are the logits of image $i$ by the weights of step $t$; both see the same picture.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eq. (9). The released code takes the
    previous batch's pictures and logits instead.

    Args:
        logits: any finite real. Gradients flow here only.
        previous_logits: any finite real; detached inside.
        targets: 0 or 1.
        options: as in `mbd`.

    Shape, Range and Raises: as `mbd`.
    """
    check_same_shape(logits=logits, previous_logits=previous_logits, targets=targets)
    return mbd(logits, previous_logits, targets, **options)  # Eq. (9)


def _log_reformulated_softmax(logits: Tensor, positive: Tensor, as_in_paper: bool) -> Tensor:
    """The logarithm of Eq. (13); where there is no positive, a number so low that its exponential is 0."""
    nothing = torch.finfo(logits.dtype).min / 2  # stands for log 0, and has gradients
    largest = logits.detach().masked_fill(positive & ~positive.all(dim=1, keepdim=True), nothing)
    logits = logits - largest.amax(dim=1, keepdim=True)  # so that what is added up is close to 0, where digits are
    negatives = logits.masked_fill(positive, nothing).logsumexp(dim=1, keepdim=True)
    log_group = torch.logaddexp(logits, negatives)  # log of the denominator of t's group
    count = positive.sum(dim=1, keepdim=True).clamp(min=1).to(logits)
    over_groups = (-log_group).masked_fill(~positive, nothing).logsumexp(dim=1, keepdim=True) - count.log()
    log_probs = logits + over_groups  # Eq. (13)
    if as_in_paper:
        return log_probs.clamp(max=20.0)  # so that what overflows stays finite
    return torch.where(positive, logits - log_group, log_probs)


def _distances(rows: Tensor) -> Tensor:
    """Euclidean distances within each group: (groups, m, q) to (groups, m, m); a distance of 0 has gradient 0."""
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")  # Eq. (3)


def _check_patches(name: str, logits: Tensor) -> None:
    if logits.ndim != 3 or not logits.numel():
        raise ValueError(f"`{name}` has shape {tuple(logits.shape)}; expected (b, S, q), one row per patch.")


def _check_whole(crop_logits: Tensor, **tensors: Tensor) -> None:
    b, _, q = crop_logits.shape
    for name, tensor in tensors.items():
        if tensor.shape != (b, q):
            raise ValueError(
                f"`{name}` has shape {tuple(tensor.shape)} but `crop_logits` has {tuple(crop_logits.shape)}; expected "
                f"(b, q) and (b, S, q) with one b and one q."
            )
