"""Relational distillation (RKD, Eqs 5-10) against plain loops over pairs and triples of images."""

import math

import pytest
import torch
from compare import PROPERTY, assert_equals_reference, huber, random_logits, value_and_gradient, zero
from hypothesis import given
from hypothesis import strategies as st

from mlkd.losses.rkd import directions, rkd_angle, rkd_distance


def length(first, second):
    """Euclidean distance; of two equal vectors 0 without a gradient."""
    if torch.equal(first, second):
        return torch.zeros((), dtype=torch.float64)
    return torch.sqrt(((first - second) ** 2).sum())


def potentials(rows):
    """Eqs 5 and 6, for the pairs of different images."""
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
    student_potentials, teacher_potentials = potentials(student), potentials(teacher.detach())
    terms = [huber(teacher_potentials[pair], value) for pair, value in student_potentials.items()]
    return zero(student) + sum(terms) / len(student) ** 2


def reference_angle(student, teacher):
    """Eq. 10 over b³."""
    b, total = len(student), zero(student)
    for i in range(b):
        for j in range(b):
            for k in range(b):
                if i != j and j != k and k != i:
                    total = total + huber(cosine(teacher.detach(), i, j, k), cosine(student, i, j, k))
    return total / b**3


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

PAIRS = {"distance": (rkd_distance, reference_distance), "angle": (rkd_angle, reference_angle)}
each_pair = pytest.mark.parametrize(("loss", "reference"), list(PAIRS.values()), ids=list(PAIRS))
each_loss = pytest.mark.parametrize("loss", [rkd_distance, rkd_angle], ids=list(PAIRS))


def random_features(b=5, d=3, teacher_d=4, seed=0):
    return random_logits(1, b, d, seed, 1.0) + random_logits(1, b, teacher_d, seed + 1, 2.0)


def test_by_hand():
    for name, expected in {"distance": BY_DISTANCE, "angle": BY_ANGLE}.items():
        for loss in PAIRS[name]:
            assert loss(LINE, TRIANGLE).item() == pytest.approx(expected, rel=1e-12)


@each_pair
@PROPERTY
@given(st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)), st.integers(0, 2**31), st.booleans())
def test_equals_the_reference(loss, reference, shape, seed, on_a_grid):
    """Random features, or ones on a coarse grid of any unit, many of which coincide."""
    student, teacher = random_features(*shape, seed)
    if on_a_grid:
        student, teacher = 0.37 * student.round(), 73.0 * (teacher / 2).round()
    assert_equals_reference(loss, reference, student, teacher)


@pytest.mark.parametrize("loss", [*PAIRS["distance"], *PAIRS["angle"]])
def test_rotation_scale_and_shift_do_not_matter(loss):
    student, teacher = random_features(d=2, teacher_d=2)
    cos, sin = math.cos(1), math.sin(1)
    rotation = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    value = loss(student, teacher)
    assert value > 0
    torch.testing.assert_close(loss(7 * student @ rotation + 3, teacher / 5 - 1), value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss(student, 2 * student @ rotation), torch.zeros_like(value), rtol=0, atol=1e-12)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_coinciding_images_give_finite_values_and_gradient_0(loss, dtype):
    student, teacher = (features.to(dtype) for features in random_features(6))
    student[1] = student[0]
    teacher[3] = teacher[2]
    value, gradient = value_and_gradient(loss, student, teacher)
    assert value.isfinite()
    assert gradient.abs().max() < 1e3
    value, gradient = value_and_gradient(loss, torch.ones_like(student), teacher)
    assert value > 0
    assert gradient.abs().sum() == 0
    value, gradient = value_and_gradient(loss, student, torch.ones_like(teacher))
    assert value > 0
    assert gradient.isfinite().all()


@each_loss
def test_fewer_than_three_images_give_a_zero_with_a_graph(loss):
    for b in (1, 2):
        for tensor in value_and_gradient(loss, *random_features(b)):
            torch.testing.assert_close(tensor, torch.zeros_like(tensor), rtol=0, atol=1e-12)


def test_directions():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    units = directions(vectors)
    torch.testing.assert_close(units, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    units.sum().backward()
    assert vectors.grad[1].tolist() == [0, 0]
    assert vectors.grad[0].abs().sum() > 0
