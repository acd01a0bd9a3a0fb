"""Probabilistic knowledge transfer against plain loops over the pictures of a batch."""

import math
import re

import pytest
import torch
from compare import assert_same, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.losses.pkt import pkt

PROPERTY = settings(derandomize=True, deadline=None, max_examples=30, database=None)


def kernel(one, other):
    """Cosine similarity in [0, 1], at least 1e-7; a vector of length 0 has cosine 0."""
    cosine = torch.zeros((), dtype=torch.float64)
    if one.any() and other.any():
        cosine = (one * other).sum() / torch.sqrt((one**2).sum()) / torch.sqrt((other**2).sum())
    value = (cosine + 1) / 2
    return value if value > 1e-7 else torch.tensor(1e-7, dtype=torch.float64)


def neighbours(rows, i):
    """The conditional probabilities of all other pictures, given picture i."""
    kernels = {j: kernel(rows[i], rows[j]) for j in range(len(rows)) if j != i}
    return {j: value / sum(kernels.values()) for j, value in kernels.items()}


def reference_pkt(student, teacher):
    b, total = len(student), (0 * student).sum()
    for i in range(b):
        mine, its = neighbours(student, i), neighbours(teacher.detach(), i)
        total = total + sum(its[j] * torch.log(its[j] / mine[j]) for j in its)
    return total / b**2


both = pytest.mark.parametrize("loss", [pkt, reference_pkt], ids=["pkt", "reference"])


def random_features(b=5, d=3, teacher_d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(b, d, generator=generator, dtype=torch.float64)
    return student, 2 * torch.randn(b, teacher_d, generator=generator, dtype=torch.float64)


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
@given(st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)), st.integers(0, 2**31))
def test_equals_the_reference(shape, seed):
    # Of one dimension, all cosines are 1 or -1, where rounding decides about the floor: those are tested by hand.
    b, d, teacher_d = shape
    batch = random_features(b, d + 1, teacher_d + 1, seed)
    assert_same(value_and_gradient(pkt, *batch), value_and_gradient(reference_pkt, *batch))


def test_vectors_of_length_0_equal_the_reference():
    student, teacher = random_features()
    student[1], teacher[2] = 0, 0
    actual = value_and_gradient(pkt, student, teacher)
    assert_same(actual, value_and_gradient(reference_pkt, student, teacher))
    assert actual[1][1].abs().sum() == 0


@both
def test_only_directions_count(loss):
    student, teacher = random_features()
    lengths = torch.arange(1.0, 6.0, dtype=torch.float64)[:, None]
    value, gradient = value_and_gradient(loss, student, teacher)
    assert value > 0
    torch.testing.assert_close(loss(lengths * student, teacher / lengths), value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss(student, lengths * student), torch.zeros_like(value), rtol=0, atol=1e-12)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert_same(value_and_gradient(loss, student[order], teacher[order]), (value, gradient[order]))


def test_gradcheck():
    student, teacher = random_features()
    assert torch.autograd.gradcheck(lambda x: pkt(x, teacher), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "rows",
    [
        [[1, 1], [1, 1], [1, 1]],
        [[0, 0], [0, 0], [0, 0]],
        [[1, 2], [-1, -2], [1, 2]],
        [[1, 0], [-1, 0], [-1, 0]],  # all kernels of the first picture are 0
        [[1e4, 0], [1e4, 1e-4], [-1e4, 3]],
    ],
)
def test_identical_opposite_and_no_directions_stay_finite(dtype, rows):
    edge, other = torch.tensor(rows, dtype=dtype), random_features(3)[1].to(dtype)
    for batch in ((edge, other), (other, edge), (edge, edge)):
        value, gradient = value_and_gradient(pkt, *batch)
        assert value.isfinite()
        assert value >= -1e-6
        assert gradient.isfinite().all()


@pytest.mark.parametrize("b", [1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_too_few_pictures_are_a_zero_with_a_graph(b, sign):
    student, teacher = random_features(b)
    student[-1] = sign * student[0]
    value, gradient = value_and_gradient(pkt, student, teacher)
    assert value == 0
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(dtype, autocast):
    student, teacher = (features.to(dtype) for features in random_features(20, 16, 24))

    def within(*batch):
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            return pkt(*batch)

    actual = value_and_gradient(within, student, teacher)
    expected = value_and_gradient(pkt, student.float(), teacher.float())
    assert actual[0].dtype == torch.float32
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(actual[1].float(), expected[1], rtol=1e-2, atol=1e-3)
    assert_same(value_and_gradient(within, student.float(), teacher.float()), expected, rtol=1e-6)


def test_the_teacher_gets_no_gradient():
    student, teacher = (features.requires_grad_() for features in random_features())
    pkt(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("shapes", [((5, 3), (4, 3)), ((5, 3, 2, 2), (5, 3))])
def test_wrong_shapes(shapes):
    found = re.escape(
        f"`student_features` has shape {shapes[0]} and `teacher_features` {shapes[1]}; expected (b, any d)"
    )
    with pytest.raises(ValueError, match=found):
        pkt(*[torch.zeros(shape) for shape in shapes])
