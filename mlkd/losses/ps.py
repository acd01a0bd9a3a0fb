"""The loss of PS, partial softmax distillation: Song et al., Handling Difficult Labels for Multi-label Image
Classification via Uncertainty Distillation, ACM MM 2021.

`select_positives` and `log_odds` describe its groups, one for each positive label: the label and all negative ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlkd.losses.l2d import mld
from mlkd.losses.reduction import check_same_shape, force_float32, reduce


@force_float32
def ps_loss(student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, *, reduction: str = "batchmean") -> Tensor:
    r"""Partial softmax distillation: one KL divergence per positive label, over that label and all negative labels.

    $$ L_{PS} = \frac{1}{b} \sum_{i=1}^{b} \sum_{t \in P_i} KL\big(p^T_{it} \,\|\, p^S_{it}\big), \qquad
       p_{it} = \mathrm{softmax}\big([z_{ij}]_{j \in \{t\} \cup N_i}\big) $$

    where $z$ are the logits, $P_i$ the positive and $N_i$ the negative labels of image $i$, $T$ the teacher and $S$
    the student. With $\pi_{it}$ the probability of $t$ in its group and $r_i$ the softmax over the negatives, the
    chain rule of the KL divergence expresses each group by quantities that all groups of an image share,

    $$ KL(p^T_{it} \| p^S_{it}) = KL\big([\pi^T_{it}, 1 - \pi^T_{it}] \,\|\, [\pi^S_{it}, 1 - \pi^S_{it}]\big)
       + (1 - \pi^T_{it}) \, KL(r^T_i \| r^S_i), $$

    so time and memory grow with b q, not with b q q.

    Source: Song et al., Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation,
    ACM MM 2021, in the form of "PS" in Yang et al., ICCV 2023, arXiv:2308.06453: temperature 1, sum over the
    positives, mean over the images.
    Differs from the official code of Song et al., which divides by the number of positives and has temperature 3.

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
        >>> ps_loss(torch.tensor([[0., 0.]]), torch.tensor([[2., 0.]]), torch.tensor([[1, 0]]))
        tensor(0.3278)
    """
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits, targets=targets)
    positive = select_positives(targets)
    student, teacher = log_odds(student_logits, positive), log_odds(teacher_logits.detach(), positive)
    among_negatives = (teacher.exp().masked_fill(positive, 0.0) * (teacher - student)).sum(dim=1, keepdim=True)
    terms = mld(student, teacher, reduction="none") + torch.sigmoid(-teacher) * among_negatives
    return reduce(terms.masked_fill(~positive, 0.0), reduction)


def select_positives(targets: Tensor) -> Tensor:
    """A mask (b, q) of the positive labels that have a group; an image without negatives has none."""
    positive = targets > 0
    return positive & ~positive.all(dim=1, keepdim=True)


def log_odds(logits: Tensor, positive: Tensor) -> Tensor:
    """Each logit minus the logsumexp of the negatives of its image, (b, q).

    For a positive label these are its log odds in its group, for a negative label its log softmax among the negatives.
    """
    return logits - logits.masked_fill(positive, -torch.inf).logsumexp(dim=1, keepdim=True)
