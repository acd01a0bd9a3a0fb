"""Partial softmax distillation against a loop over images, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.timing import Row, compare
from mlkd.losses.ps import ps_loss


def loop(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    """The softmax of each positive label and all negatives, one image after the other."""

    def groups(logits: Tensor, positive: Tensor) -> Tensor:
        negatives = logits[~positive].expand(int(positive.sum()), -1)
        return torch.cat([logits[positive][:, None], negatives], dim=1).log_softmax(dim=1)

    total = 0 * student.sum()
    for s, t, y in zip(student, teacher, targets, strict=True):
        positive = y > 0
        if positive.any():
            log_teacher = groups(t, positive)
            total = total + (log_teacher.exp() * (log_teacher - groups(s, positive))).sum()
    return total / len(student)


def run(smoke: bool = False) -> list[Row]:
    rows = []
    for b, q in ((8, 5),) if smoke else ((64, 20), (64, 80)):
        torch.manual_seed(0)
        student, teacher = torch.randn(b, q, requires_grad=True), torch.randn(b, q)
        targets = (torch.rand(b, q) < 3 / q).float()
        torch.testing.assert_close(ps_loss(student, teacher, targets), loop(student, teacher, targets))
        row = compare(
            f"PS ({b}, {q}), 3 labels per image, against a loop over images",
            lambda s=student, t=teacher, y=targets: torch.autograd.grad(ps_loss(s, t, y), s),
            lambda s=student, t=teacher, y=targets: torch.autograd.grad(loop(s, t, y), s),
            repeats=15,
        )
        rows.append(row)
    return rows
