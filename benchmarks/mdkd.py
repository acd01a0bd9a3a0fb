"""Label-pair dependencies in closed form against the sum over every sequence of labels, forward and backward."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.timing import Row, compare
from mlkd.losses.mdkd import batch_dependency, instance_dependency

LEVELS = {"instance": instance_dependency, "batch": batch_dependency}


def sequences(q: int, order: int) -> Tensor:
    """Every sequence of `order` different labels among q, without its reverse: (P(q, order) / 2, order)."""
    labels = torch.tensor(list(itertools.permutations(range(q), order)))
    return labels[labels[:, 0] < labels[:, -1]]


def enumerated(level: str, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """MDKD's Eqs. (4)-(8) or (10)-(13), all sequences at once."""

    def dependencies(logits: Tensor) -> Tensor:
        probs = torch.sigmoid(logits)
        pairs = (probs[:, :, None] - probs[:, None, :]).square()
        if level == "batch":
            pairs = pairs.mean(dim=0, keepdim=True)
        return pairs[:, labels[:, :-1], labels[:, 1:]].mean(dim=2)

    return torch.nn.functional.huber_loss(dependencies(student), dependencies(teacher))


def second_order(student: Tensor, teacher: Tensor) -> Tensor:
    """MDKD's Eqs. (4)-(6) from two matrices (q, q)."""

    def pairs(logits: Tensor) -> Tensor:
        probs = torch.sigmoid(logits)
        squares = probs.square().mean(dim=0)
        return squares[:, None] + squares - 2 / len(probs) * probs.T @ probs

    q = student.shape[1]
    return torch.nn.functional.huber_loss(pairs(student), pairs(teacher)) * q / (q - 1)


def run(smoke: bool = False) -> list[Row]:
    rows = []

    def add(title: str, loss: Callable[[], Tensor], reference: Callable[[], Tensor], repeats: int = 7) -> None:
        torch.testing.assert_close(loss(), reference(), rtol=1e-3, atol=0)
        rows.append(compare(title, lambda: loss().backward(), lambda: reference().backward(), repeats))

    settings = (
        (("instance", "batch"), 20, 4),
        (("instance",), 20, 4),
        (("batch",), 20, 4),
        (("batch",), 40, 4),
        (("instance",), 80, 3),
    )
    for levels, q, order in ((("instance", "batch"), 5, 3),) if smoke else settings:
        s, t, labels = *_logits(q), sequences(q, order)
        add(
            f"MDKD {' and '.join(levels)} level (32, {q}) order {order}, against all {len(labels):,} sequences",
            lambda s=s, t=t, n=order, levels=levels: sum(LEVELS[level](s, t, n) for level in levels),
            lambda s=s, t=t, x=labels, levels=levels: sum(enumerated(level, s, t, x) for level in levels),
        )

    many = 50 if smoke else 10_000
    s, t = _logits(many)
    add(
        f"MDKD batch level (32, {many}) order 2, against matrices (q, q)",
        lambda: batch_dependency(s, t, 2),
        lambda: second_order(s, t),
        repeats=3,
    )
    for q in (80, many):
        s, t = _logits(q)
        for name, loss in LEVELS.items():
            row = compare(
                f"MDKD {name} level (32, {q}) order 8, against order 2",
                lambda s=s, t=t, loss=loss: loss(s, t, 8).backward(),
                lambda s=s, t=t, loss=loss: loss(s, t, 2).backward(),
                repeats=3 if smoke else 101,
            )
            rows.append(row)
    return rows


def _logits(q: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(32, q, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher
