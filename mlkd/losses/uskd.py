"""The losses of USKD: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with
Normalized Loss and Customized Soft Labels, ICCV 2023 (arXiv:2303.13005).

The soft labels come from the student: `target_loss` smooths what it says of the labels that are there,
`non_target_loss` ranks the others by it and by a weak classifier on an earlier stage, which `weak_loss` trains.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.reduction import check_same_shape, force_float32


@force_float32
def target_loss(student_logits: Tensor, targets: Tensor) -> Tensor:
    r"""A cross entropy for the labels that are there, with more weight where the student is surer than usual.

    $$ L_{target} = - \frac{1}{b} \sum_{(i, k) \in P} p_{ik} \log \hat y_{ik} \qquad
       p_{ik} = 1 + \hat y_{ik}^2 - \frac{1}{|P|} \sum_{(j, l) \in P} \hat y_{jl}^2 $$

    where $\hat y$ is the sigmoid of a logit, $P$ are the pairs of an image and a label that is there, and the soft
    label $p$ is a constant to the gradient.

    Source: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation, ICCV 2023, Sec. 3,
    arXiv:2303.13005.
    Differs from the print, which has one label an image and a softmax: here each label that is there has a sigmoid
    of its own, and the mean runs over all of them in the batch.

    Args:
        student_logits: any finite real.
        targets: 0 or 1, of any dtype.

    Shape: all (b, q); output (). Range: >= 0; 0, with a graph, where no image has a label.

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
    r"""A cross entropy among the labels that are not there, against Zipf's law over their rank.

    $$ L_{non} = - \frac{1}{b} \sum_{i=1}^{b} \sum_{k \in N_i} z_{ik} \log \mathcal N(s_i)_k \qquad
       z_{ik} = \frac{1 / r_{ik}}{\sum_{l \in N_i} 1 / r_{il}} $$

    where $N_i$ are the labels that image $i$ does not have, $\mathcal N$ is the softmax over them, $s$ the
    student's logits, $w$ the weak ones, and $r_{ik}$ the rank of $\mathcal N(s_i)_k + \mathcal N(w_i)_k$ among
    $N_i$ (1 for the largest).

    Source: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation, ICCV 2023, Sec. 3,
    arXiv:2303.13005.
    Differs from the print only in that an image may have any number of labels to leave out. It stays a softmax: it
    compares the absent labels with one another and lets the common level of their logits free, so it does not
    disturb the sigmoids. Differs from the released code, which ranks the labels that are there along with the
    others.

    Args:
        student_logits: any finite real. Gradients flow here only.
        weak_logits: any finite real; they serve the rank alone. Equal sums go by the order of the labels.
        targets: 0 or 1, of any dtype.

    Shape: all (b, q); output (). Range: >= 0; an image with every label counts 0.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> non_target_loss(torch.zeros(1, 3), torch.tensor([[9., 2., 1.]]), torch.tensor([[1, 0, 0]]))
        tensor(0.6931)
    """
    check_same_shape(student_logits=student_logits, weak_logits=weak_logits, targets=targets)
    present = targets > 0
    others = student_logits.masked_fill(present, -torch.inf)  # where none is left, NaN until it is masked below
    weak = weak_logits.detach().masked_fill(present, -torch.inf)
    score = others.detach().softmax(dim=1) + weak.softmax(dim=1)
    rank = score.masked_fill(present, -1.0).argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
    zipf = (1 / rank.to(score)).masked_fill(present, 0.0)
    zipf = zipf / zipf.sum(dim=1, keepdim=True).clamp(min=torch.finfo(zipf.dtype).tiny)
    return -(zipf * others.log_softmax(dim=1).masked_fill(present, 0.0)).sum() / len(student_logits)


@force_float32
def weak_loss(weak_logits: Tensor, targets: Tensor, *, smoothing: float = 0.1) -> Tensor:
    r"""Binary cross entropy of the weak classifier against smoothed labels.

    $$ L_{weak} = \frac{1}{b} \sum_{i=1}^{b} \sum_{k=1}^{q} H\big((1 - \epsilon) y_{ik} + \epsilon / 2, \;
       \hat w_{ik}\big) $$

    where $H$ is the binary cross entropy, $y$ the target, $\hat w$ the sigmoid of a weak logit and $\epsilon$ the
    smoothing.

    Source: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation, ICCV 2023, Sec. 3,
    arXiv:2303.13005; the smoothing is the released code's.
    Differs from the print, which has one label among C and smooths with 1/C: here a yes or no (C = 2) each.

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
        raise ValueError(f"`smoothing` is {smoothing}, expected a share between 0 and 1.")
    soft = (1 - smoothing) * targets.to(weak_logits) + smoothing / 2
    return bce(weak_logits, soft, reduction="batchmean")
