"""Probabilistic knowledge transfer against plain loops over the images of a batch."""

import math

import pytest
import torch
from compare import PROPERTY, assert_equals_reference, random_logits, value_and_gradient, zero
from hypothesis import given
from hypothesis import strategies as st

from mlkd.losses.pkt import pkt_loss


def kernel(first, second):
    """Cosine similarity in [0, 1], at least 1e-7; a vector of length 0 has cosine 0."""
    cosine = torch.zeros((), dtype=torch.float64)
    if first.any() and second.any():
        cosine = (first * second).sum() / torch.sqrt((first**2).sum()) / torch.sqrt((second**2).sum())
    value = (cosine + 1) / 2
    return value if value > 1e-7 else torch.tensor(1e-7, dtype=torch.float64)


def neighbors(rows, i):
    """The conditional probabilities of all other images, given image i."""
    kernels = {j: kernel(rows[i], rows[j]) for j in range(len(rows)) if j != i}
    return {j: value / sum(kernels.values()) for j, value in kernels.items()}


def reference_pkt(student, teacher):
    b, total = len(student), zero(student)
    for i in range(b):
        q, p = neighbors(student, i), neighbors(teacher.detach(), i)
        total = total + sum(p[j] * torch.log(p[j] / q[j]) for j in p)
    return total / b**2


both = pytest.mark.parametrize("loss", [pkt_loss, reference_pkt], ids=["pkt", "reference"])


def random_features(b=5, d=3, teacher_d=4, seed=0):
    return random_logits(1, b, d, seed, 1.0) + random_logits(1, b, teacher_d, seed + 1, 2.0)


@both
def test_by_hand(loss):
    # Teacher: e1, e1, e2; kernels 1, 1/2, 1/2. From 0 and 1: 2/3 to each other, 1/3 to 2. From 2: 1/2 each.
    # Student: e1, e2, e2; kernels 01 1/2, 02 1/2, 12 1. From 0: 1/2 each. From 1: 1/3 to 0, 2/3 to 2. From 2: 1/3, 2/3.
    east, north = [1.0, 0.0], [0.0, 1.0]
    teacher = 3 * torch.tensor([east, east, north], dtype=torch.float64)
    student = torch.tensor([east, north, north], dtype=torch.float64)
    from_0 = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    from_1 = 2 / 3 * math.log(2) + 1 / 3 * math.log(1 / 2)
    from_2 = 1 / 2 * math.log(3 / 2) + 1 / 2 * math.log(3 / 4)
    assert loss(student, teacher).item() == pytest.approx((from_0 + from_1 + from_2) / 9, rel=1e-12)


@PROPERTY
@given(st.integers(1, 6), st.integers(2, 5), st.integers(2, 5), st.integers(0, 2**31), st.booleans())
def test_equals_the_reference(b, d, teacher_d, seed, with_zero):
    # In one dimension all cosines are 1 or -1, where rounding decides about the minimum: see the test of edges.
    student, teacher = random_features(b, d, teacher_d, seed)
    if with_zero:
        student[0], teacher[-1] = 0, 0
    _, gradient = assert_equals_reference(pkt_loss, reference_pkt, student, teacher)
    assert not with_zero or gradient[0].abs().sum() == 0


@both
def test_lengths_do_not_matter(loss):
    student, teacher = random_features()
    lengths = torch.arange(1.0, 6.0, dtype=torch.float64)[:, None]
    value = loss(student, teacher)
    assert value > 0
    torch.testing.assert_close(loss(lengths * student, teacher / lengths), value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss(student, lengths * student), torch.zeros_like(value), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "rows",
    [
        [[1, 1], [1, 1], [1, 1]],
        [[0, 0], [0, 0], [0, 0]],
        [[1, 2], [-1, -2], [1, 2]],
        [[1, 0], [-1, 0], [-1, 0]],  # all kernels of the first image are 0
        [[1e4, 0], [1e4, 1e-4], [-1e4, 3]],
    ],
)
def test_equal_opposite_and_zero_features_give_finite_values(dtype, rows):
    edge, other = torch.tensor(rows, dtype=dtype), random_features(3)[1].to(dtype)
    for batch in ((edge, other), (other, edge), (edge, edge)):
        value, gradient = value_and_gradient(pkt_loss, *batch)
        assert value.isfinite()
        assert value >= -1e-6
        assert gradient.isfinite().all()


def test_fewer_than_three_images_give_a_zero_with_a_graph():
    for b in (1, 2):
        for sign in (1, -1):
            student, teacher = random_features(b)
            student[-1] = sign * student[0]
            value, gradient = value_and_gradient(pkt_loss, student, teacher)
            assert value == 0
            assert gradient.abs().max() < 1e-12
