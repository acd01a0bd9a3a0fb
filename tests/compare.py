"""Comparing a loss with its plain-loop reference, and the pieces that several references share."""

import math

import torch
from hypothesis import settings
from hypothesis import strategies as st

PROPERTY = settings(max_examples=30)
STEEP = [-1e4, -100.0, -17.0, -1.0, 0.0, 1.0, 17.0, 100.0, 1e4]
REDUCTIONS = ("sum", "batchmean", "none")


def value_and_gradient(loss, student, *args, **options):
    """The loss and the gradient of its weighted sum (weights 1, 2, ... distinguish the entries of a table)."""
    student = student.detach().clone().requires_grad_()
    value = loss(student, *args, **options)
    weights = torch.arange(1, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
    (gradient,) = torch.autograd.grad((weights * value).sum(), student)
    return value.detach(), gradient


def assert_same(actual, expected, rtol=1e-9, atol=1e-12):
    """Finite, and equal up to `rtol` of each entry or to `atol`, in any precision."""
    for tensor, reference in zip(actual, expected, strict=True):
        assert torch.isfinite(tensor).all()
        torch.testing.assert_close(tensor, reference.to(tensor.dtype), rtol=rtol, atol=atol)


def assert_equals_reference(loss, reference, student, *args, **options):
    """Value and gradient of the loss are those of its reference."""
    actual = value_and_gradient(loss, student, *args, **options)
    assert_same(actual, value_and_gradient(reference, student, *args, **options))
    return actual


def random_logits(count, b=5, q=4, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(b, q, generator=generator, dtype=torch.float64) for _ in range(count)]


def random_targets(b=5, q=4, seed=0, density=0.5):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(b, q, generator=generator) < density).to(torch.uint8)


@st.composite
def logit_batches(draw, count=2):
    """`count` tables of logits, then targets of any density, none and all included, and an ignore mask."""
    b, q = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    size = {"min_size": b * q, "max_size": b * q}
    tables = [torch.tensor(draw(st.lists(st.floats(-60, 60), **size)), dtype=torch.float64) for _ in range(count)]
    targets = torch.tensor(draw(st.lists(st.integers(0, 9), **size))) < draw(st.integers(0, 10))
    ignore_mask = torch.tensor(draw(st.lists(st.booleans(), **size)))
    return [table.reshape(b, q) for table in (*tables, targets.to(torch.uint8), ignore_mask)]


# References: one scalar tensor at a time


def log_sigmoid(logit):
    """log(1 / (1 + exp(-logit))), computed on the side of 0 where nothing overflows."""
    if logit >= 0:
        return -torch.log1p(torch.exp(-logit))
    return logit - torch.log1p(torch.exp(logit))


def cross_entropy(target, logit):
    return -(target * log_sigmoid(logit) + (1 - target) * log_sigmoid(-logit))  # 1 - σ(x) = σ(-x)


def bernoulli_divergence(student, teacher):
    """KL([t, 1 - t] || [s, 1 - s]) of the sigmoids of two logits; the teacher's is a constant."""
    teacher, total = teacher.detach(), torch.zeros((), dtype=torch.float64)
    for sign in (1, -1):
        log_teacher = log_sigmoid(sign * teacher)
        total = total + torch.exp(log_teacher) * (log_teacher - log_sigmoid(sign * student))
    return total


def huber(a, b):
    difference = abs(a - b)
    return difference**2 / 2 if difference <= 1 else difference - 1 / 2


def zero(*tensors):
    """A zero with a graph."""
    return sum((0 * tensor.double()).sum() for tensor in tensors)


def reduced(terms, reduction):
    """A list of lists (b, q) of scalar tensors, reduced."""
    table = torch.stack([torch.stack(row) for row in terms])
    return {"none": table, "sum": table.sum(), "batchmean": table.sum() / len(terms)}[reduction]


def log_softmax(entries):
    """Logs of the softmax of a list of scalar tensors."""
    largest = max(entry.item() for entry in entries)
    total = torch.log(sum(torch.exp(entry.double() - largest) for entry in entries)) + largest
    return [entry.double() - total for entry in entries]


def softmax_divergence(student_entries, teacher_entries):
    """KL(softmax(teacher) || softmax(student)) of two lists of scalar tensors; the teacher's is a constant."""
    student, teacher = log_softmax(student_entries), log_softmax([entry.detach() for entry in teacher_entries])
    return sum(torch.exp(log_t) * (log_t - log_s) for log_s, log_t in zip(student, teacher, strict=True))


def pooled(plane, level):
    """A plane (H, W) averaged onto level x level cells; a cell begins and ends at whole rows and columns."""

    def span(cell, size):
        return range(cell * size // level, math.ceil((cell + 1) * size / level))

    height, width = plane.shape
    cells = []
    for y in range(level):
        for x in range(level):
            values = [plane[row, column] for row in span(y, height) for column in span(x, width)]
            cells.append(sum(values) / len(values))
    return cells
