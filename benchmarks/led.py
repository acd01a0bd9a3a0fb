"""Label-wise embedding distillation against a loop over classes and images, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.timing import Row, compare
from mlkd.losses.l2d import led


def loop(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    """L2D's Eqs. (4)-(9) with distances divided by their mean, one class and one image after the other."""

    def group(embeddings: Tensor) -> Tensor:
        distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
        positive = distances[distances > 0]
        return distances / positive.mean() if len(positive) else distances

    total = 0 * student.sum()
    for weight, s, t, y in (
        (100.0, student.transpose(0, 1), teacher.transpose(0, 1), targets.T),
        (1000.0, student, teacher, targets),
    ):
        for k in range(len(y)):
            rows = y[k] > 0
            if rows.sum() > 1:
                huber = torch.nn.functional.huber_loss(group(s[k][rows]), group(t[k][rows]), reduction="sum")
                total = total + weight * huber / rows.sum()
    return total


def run(smoke: bool = False) -> list[Row]:
    rows = []
    for b, q, d in ((8, 5, 4),) if smoke else ((64, 20, 64), (64, 80, 512), (64, 80, 2048)):
        torch.manual_seed(0)
        student, teacher = torch.randn(b, q, d, requires_grad=True), torch.randn(b, q, d)
        targets = (torch.rand(b, q) < 3 / q).float()
        losses = led(student, teacher, targets), loop(student, teacher, targets)
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
        row = compare(
            f"LED ({b}, {q}, {d}), 3 labels per image, against a loop over classes and images",
            lambda s=student, t=teacher, y=targets: torch.autograd.grad(led(s, t, y), s),
            lambda s=student, t=teacher, y=targets: torch.autograd.grad(loop(s, t, y), s),
        )
        rows.append(row)
    return rows
