"""The losses of USKD: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with
Normalized Loss and Customized Soft Labels, ICCV 2023 (arXiv:2303.13005).

The soft labels come from the student: `target_loss` smooths its predictions of the present labels, `non_target_loss`
ranks the absent labels by the student and by a weak classifier on an earlier stage, which `weak_loss` trains.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.reduction import check_same_shape, force_float32


@force_float32
def target_loss(student_logits: Tensor, targets: Tensor) -> Tensor:
    r"""Cross entropy of the present labels, with more weight where the student is more confident than on average.

    $$ L_{target} = - \frac{1}{b} \sum_{(i, k) \in P} p_{ik} \log \hat y_{ik} \qquad
       p_{ik} = 1 + \hat y_{ik}^2 - \frac{1}{|P|} \sum_{(j, l) \in P} \hat y_{jl}^2 $$

    where $\hat y$ is the sigmoid of a logit, $P$ are the pairs of an image and a present label, and the soft
    label $p$ is a constant to the gradient.

    Source: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation, ICCV 2023, Sec. 3,
    arXiv:2303.13005.
    Differs from the paper, which has one label per image and a softmax: here each present label has a sigmoid, and
    the mean runs over all present labels of the batch.

    Args:
        student_logits: any finite real.
        targets: 0 or 1, of any dtype.

    Shape: all (b, q); output (). Range: >= 0; 0, with a graph, where no label is present.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> target_loss(torch.tensor([[0., 7.]]), torch.tensor([[1, 0]]))
        tensor(0.6931)
    """
    check_same_shape(student_logits=student_logits, targets=targets)
    absent = targets <= 0
    square = torch.sigmoid(student_logits.detach()).square().masked_fill(absent, 0.0)
    soft = 1 + square - square.sum() / (~absent).sum().clamp(min=1)
    return -(soft * F.logsigmoid(student_logits)).masked_fill(absent, 0.0).sum() / len(student_logits)


@force_float32
def non_target_loss(student_logits: Tensor, weak_logits: Tensor, targets: Tensor) -> Tensor:
    r"""Cross entropy of the softmax over the absent labels, against Zipf's law over their ranks.

    $$ L_{non} = - \frac{1}{b} \sum_{i=1}^{b} \sum_{k \in N_i} z_{ik} \log \mathcal N(s_i)_k \qquad
       z_{ik} = \frac{1 / r_{ik}}{\sum_{l \in N_i} 1 / r_{il}} $$

    where $N_i$ are the absent labels of image $i$, $\mathcal N$ is the softmax over them, $s$ the
    student's logits, $w$ the weak ones, and $r_{ik}$ the rank of $\mathcal N(s_i)_k + \mathcal N(w_i)_k$ among
    $N_i$ (1 for the largest).

    Source: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation, ICCV 2023, Sec. 3,
    arXiv:2303.13005.
    Differs from the paper in that an image may have any number of present labels. The softmax is kept: it compares
    the absent labels with each other and does not depend on a constant added to their logits, so it does not interfere
    with the sigmoids. Differs from the official code, which ranks the present labels together with the others.

    Args:
        student_logits: any finite real. Gradients flow here only.
        weak_logits: any finite real; used for the ranks only. Ties are broken by the order of the labels.
        targets: 0 or 1, of any dtype.

    Shape: all (b, q); output (). Range: >= 0; an image without absent labels adds 0.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> non_target_loss(torch.zeros(1, 3), torch.tensor([[9., 2., 1.]]), torch.tensor([[1, 0, 0]]))
        tensor(0.6931)
    """
    check_same_shape(student_logits=student_logits, weak_logits=weak_logits, targets=targets)
    present = targets > 0
    absent = student_logits.masked_fill(present, -torch.inf)  # without absent labels, NaN until it is masked below
    weak = weak_logits.detach().masked_fill(present, -torch.inf)
    score = absent.detach().softmax(dim=1) + weak.softmax(dim=1)
    rank = score.masked_fill(present, -1.0).argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
    zipf = (1 / rank.to(score)).masked_fill(present, 0.0)
    zipf = zipf / zipf.sum(dim=1, keepdim=True).clamp(min=torch.finfo(zipf.dtype).tiny)
    return -(zipf * absent.log_softmax(dim=1).masked_fill(present, 0.0)).sum() / len(student_logits)


@force_float32
def weak_loss(weak_logits: Tensor, targets: Tensor, *, smoothing: float = 0.1) -> Tensor:
    r"""Binary cross entropy of the weak classifier against smoothed labels.

    $$ L_{weak} = \frac{1}{b} \sum_{i=1}^{b} \sum_{k=1}^{q} H\big((1 - \epsilon) y_{ik} + \epsilon / 2, \;
       \hat w_{ik}\big) $$

    where $H$ is the binary cross entropy, $y$ the target, $\hat w$ the sigmoid of a weak logit and $\epsilon$ the
    smoothing.

    Source: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation, ICCV 2023, Sec. 3,
    arXiv:2303.13005; the smoothing is that of the official code.
    Differs from the paper, which has one label among C and smooths with 1/C: here each label is present or absent
    (C = 2).

    Args:
        weak_logits: any finite real.
        targets: 0 or 1, of any dtype.
        smoothing: in [0, 1].

    Shape: all (b, q); output (). Range: >= 0.

    Raises:
        ValueError: the shapes differ, or `smoothing` is out of range.

    Example:
        >>> weak_loss(torch.tensor([[0., 0.]]), torch.tensor([[1, 0]]))
        tensor(1.3863)
    """
    check_same_shape(weak_logits=weak_logits, targets=targets)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"`smoothing` is {smoothing}, expected a fraction between 0 and 1.")
    soft = (1 - smoothing) * targets.to(weak_logits) + smoothing / 2
    return bce(weak_logits, soft, reduction="batchmean")
