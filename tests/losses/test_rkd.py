"""Relational distillation (RKD, Eqs 5-10) against plain loops over pairs and triples of pictures."""

import math
import re

import pytest
import torch
from compare import assert_same, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.losses.rkd import angle, directions, distance, rkd

PROPERTY = settings(derandomize=True, deadline=None, max_examples=30, database=None)


def huber(a, b):
    """Eq. 8."""
    difference = abs(a - b)
    return difference**2 / 2 if difference <= 1 else difference - 1 / 2


def length(one, other):
    """Euclidean distance; of two equal vectors 0 without a gradient."""
    if torch.equal(one, other):
        return torch.zeros((), dtype=torch.float64)
    return torch.sqrt(((one - other) ** 2).sum())


def potentials(rows):
    """Eqs 5 and 6, for the pairs of different pictures."""
    pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
    lengths = {pair: length(rows[pair[0]], rows[pair[1]]) for pair in pairs}
    mean = sum(lengths.values()) / max(len(pairs), 1)
    return {pair: value / mean if mean > 0 else value for pair, value in lengths.items()}


def cosine(rows, i, j, k):
    """Eq. 9; 0 where there is no angle."""
    to_i, to_k = rows[i] - rows[j], rows[k] - rows[j]
    if not to_i.any() or not to_k.any():
        return torch.zeros((), dtype=torch.float64)
    return (to_i * to_k).sum() / (length(rows[i], rows[j]) * length(rows[k], rows[j]))


def reference_distance(student, teacher):
    """Eq. 7 over b²."""
    mine, its = potentials(student), potentials(teacher.detach())
    return (0 * student).sum() + sum(huber(its[pair], mine[pair]) for pair in mine) / len(student) ** 2


def reference_angle(student, teacher):
    """Eq. 10 over b³."""
    b, total = len(student), (0 * student).sum()
    for i in range(b):
        for j in range(b):
            for k in range(b):
                if i != j and j != k and k != i:
                    total = total + huber(cosine(teacher.detach(), i, j, k), cosine(student, i, j, k))
    return total / b**3


def reference_rkd(student, teacher, *, lambda_distance=25, lambda_angle=50):
    return lambda_distance * reference_distance(student, teacher) + lambda_angle * reference_angle(student, teacher)


PAIRS = {
    "distance": (distance, reference_distance),
    "angle": (angle, reference_angle),
    "rkd": (rkd, reference_rkd),
}
each_pair = pytest.mark.parametrize(("loss", "reference"), list(PAIRS.values()), ids=list(PAIRS))
each_ours = pytest.mark.parametrize("loss", [distance, angle, rkd], ids=list(PAIRS))
each_loss = pytest.mark.parametrize(
    "loss", [loss for pair in PAIRS.values() for loss in pair], ids=[n for p in PAIRS for n in (p, f"{p}-reference")]
)


def random_features(b=5, d=3, teacher_d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(b, d, generator=generator, dtype=torch.float64)
    return student, 2 * torch.randn(b, teacher_d, generator=generator, dtype=torch.float64)


# Teacher: a triangle of sides 3, 4, 5 with its right angle at 0. Student: on a line, at 0, 3 and 7/2.
#   pair          01      02      12
#   teacher       3/4     1       5/4    (mean 4)
#   student       9/7     3/2     3/14   (mean 7/3)
#   differences   15/28   1/2     29/28
# Cosines at 0, 1, 2: teacher 0, 3/5, 4/5; student 1, -1, 1. Differences 1, 8/5, 1/5.
TRIANGLE = torch.tensor([[0, 0], [3, 0], [0, 4]], dtype=torch.float64)
LINE = torch.tensor([[0], [3], [7 / 2]], dtype=torch.float64)
BY_DISTANCE = 2 / 9 * ((15 / 28) ** 2 / 2 + 1 / 8 + 29 / 28 - 1 / 2)
BY_ANGLE = 2 / 27 * (1 / 2 + 8 / 5 - 1 / 2 + 1 / 50)


@each_loss
def test_by_hand(loss):
    name = next(name for name, pair in PAIRS.items() if loss in pair)
    expected = {"distance": BY_DISTANCE, "angle": BY_ANGLE, "rkd": 25 * BY_DISTANCE + 50 * BY_ANGLE}[name]
    assert loss(LINE, TRIANGLE).item() == pytest.approx(expected, rel=1e-12)


@each_pair
@PROPERTY
@given(st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)), st.integers(0, 2**31))
def test_equals_the_reference(loss, reference, shape, seed):
    batch = random_features(*shape, seed)
    assert_same(value_and_gradient(loss, *batch), value_and_gradient(reference, *batch))


@each_pair
@PROPERTY
@given(st.data())
def test_equals_the_reference_where_pictures_coincide(loss, reference, data):
    b = data.draw(st.integers(1, 5))
    unit = data.draw(st.sampled_from([1.0, 0.37, 73.0]))
    student, teacher = (
        unit * torch.tensor(data.draw(st.lists(st.integers(-1, 1), min_size=2 * b, max_size=2 * b))).double().view(b, 2)
        for _ in range(2)
    )
    assert_same(value_and_gradient(loss, student, teacher), value_and_gradient(reference, student, teacher))


def test_rkd_weighs_its_terms():
    batch = random_features()
    torch.testing.assert_close(rkd(*batch), 25 * distance(*batch) + 50 * angle(*batch))
    torch.testing.assert_close(rkd(*batch, lambda_distance=2.0, lambda_angle=0.0), 2 * distance(*batch))
    torch.testing.assert_close(rkd(*batch, lambda_distance=0.0, lambda_angle=3.0), 3 * angle(*batch))


@each_loss
def test_what_turns_and_scales_is_the_same(loss):
    student, teacher = random_features(d=2, teacher_d=2)
    cos, sin = math.cos(1), math.sin(1)
    turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    value, gradient = value_and_gradient(loss, student, teacher)
    assert value > 0
    moved = loss(7 * student @ turn + 3, teacher / 5 - 1)
    torch.testing.assert_close(moved, value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss(student, 2 * student @ turn), torch.zeros_like(value), rtol=0, atol=1e-12)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert_same(value_and_gradient(loss, student[order], teacher[order]), (value, gradient[order]))


@each_ours
def test_gradcheck(loss):
    student, teacher = random_features(4)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student.requires_grad_())


@each_ours
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_coinciding_pictures_stay_finite_and_have_gradient_0(loss, dtype):
    student, teacher = (features.to(dtype) for features in random_features(6))
    student[1] = student[0]
    teacher[3] = teacher[2]
    value, gradient = value_and_gradient(loss, student, teacher)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e3
    value, gradient = value_and_gradient(loss, torch.ones_like(student), teacher)
    assert value > 0
    assert gradient.abs().sum() == 0
    value, gradient = value_and_gradient(loss, student, torch.ones_like(teacher))
    assert value > 0
    assert gradient.isfinite().all()


@each_ours
@pytest.mark.parametrize("b", [1, 2])
def test_too_few_pictures_are_a_zero_with_a_graph(loss, b):
    value, gradient = value_and_gradient(loss, *random_features(b))
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@each_ours
def test_large_features_stay_finite(loss):
    student, teacher = (1e4 * features.float() for features in random_features())
    value, gradient = value_and_gradient(loss, student, teacher)
    assert value.isfinite()
    assert gradient.isfinite().all()


@each_ours
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(loss, dtype, autocast):
    student, teacher = (features.to(dtype) for features in random_features(20, 16, 24))

    def within(*batch):
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            return loss(*batch)

    actual = value_and_gradient(within, student, teacher)
    expected = value_and_gradient(loss, student.float(), teacher.float())
    assert actual[0].dtype == torch.float32
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(actual[1].float(), expected[1], rtol=1e-2, atol=1e-3)
    assert_same(value_and_gradient(within, student.float(), teacher.float()), expected, rtol=1e-6)


@each_ours
def test_the_teacher_gets_no_gradient(loss):
    student, teacher = (features.requires_grad_() for features in random_features())
    loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    with torch.no_grad():
        assert not loss(student, teacher).requires_grad


def test_directions():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    units = directions(vectors)
    torch.testing.assert_close(units, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    units.sum().backward()
    assert vectors.grad[1].tolist() == [0, 0]
    assert vectors.grad[0].abs().sum() > 0


@each_ours
@pytest.mark.parametrize(
    "shapes", [((5, 3), (4, 3)), ((5, 3, 2), (5, 3)), ((5, 3), (5,)), ((5, 3, 2, 2), (5, 4, 2, 2))]
)
def test_wrong_shapes(loss, shapes):
    found = re.escape(
        f"`student_features` has shape {shapes[0]} and `teacher_features` {shapes[1]}; expected (b, any d)"
    )
    with pytest.raises(ValueError, match=found):
        loss(*[torch.zeros(shape) for shape in shapes])
