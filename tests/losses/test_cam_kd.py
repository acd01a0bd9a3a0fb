"""The loss of CAM distillation against plain loops over images, labels and cells."""

import math

import pytest
import torch
from compare import (
    PROPERTY,
    REDUCTIONS,
    assert_equals_reference,
    pooled,
    reduced,
    value_and_gradient,
)
from hypothesis import given
from hypothesis import strategies as st

from mlkd.losses.cam_kd import cam_kd_loss


def scaled(cells):
    """Cells divided by their L2 norm; zeros without a gradient if it is 0."""
    if all(cell == 0 for cell in cells):
        return [torch.zeros((), dtype=torch.float64) for _ in cells]
    norm = torch.sqrt(sum(cell**2 for cell in cells))
    return [cell / norm for cell in cells]


def reference_cam_kd(student_maps, teacher_maps, *, grid=2, reduction="batchmean"):
    b, q = student_maps.shape[:2]
    terms = []
    for i in range(b):
        terms.append([])
        for k in range(q):
            student = scaled(pooled(student_maps[i, k], grid))
            teacher = scaled(pooled(teacher_maps[i, k].detach(), grid))
            squares = [(s - t) ** 2 for s, t in zip(student, teacher, strict=True)]
            terms[-1].append(sum(squares) / grid**2 / q)
    return reduced(terms, reduction)


both = pytest.mark.parametrize("loss", [cam_kd_loss, reference_cam_kd], ids=["cam_kd", "reference"])


def random_maps(b=2, q=3, student=(3, 4), teacher=(5, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(b, q, *side, generator=generator, dtype=torch.float64) for side in (student, teacher))


@both
def test_by_hand(loss):
    # Label 0: student (3, 4, 0, 0) / 5, teacher (0, 1, 0, 0); squares 9/25 + 1/25. Label 1: opposite maps, 4.
    # Label 2: the teacher's 4 x 4 map averages to twice the student's.
    student = torch.tensor([[[[3, 4], [0, 0]], [[1, 0], [0, 0]], [[1, 2], [3, 4]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[0, 7], [0, 0]], [[-2, 0], [0, 0]], [[2, 4], [6, 8]]]], dtype=torch.float64)
    teacher = teacher.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = torch.tensor([[10 / 25, 4, 0]], dtype=torch.float64) / 4 / 3
    torch.testing.assert_close(loss(student, teacher, reduction="none"), expected, rtol=1e-12, atol=1e-15)
    assert loss(student, teacher).item() == pytest.approx(expected.sum().item(), rel=1e-12)
    assert loss(student, teacher, grid=1).item() == pytest.approx(4 / 3, rel=1e-12)  # the signs of the means


@PROPERTY
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 4),
    st.sampled_from(REDUCTIONS),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_equals_the_reference(shape, student_sides, teacher_sides, grid, reduction, seed, with_zero):
    student, teacher = random_maps(*shape, student_sides, teacher_sides, seed)
    if with_zero:
        student[0, 0], teacher[-1, -1] = 0, 0
    _, gradient = assert_equals_reference(
        cam_kd_loss, reference_cam_kd, student, teacher, grid=grid, reduction=reduction
    )
    assert not with_zero or gradient[0, 0].abs().sum() == 0


@both
def test_positive_factors_do_not_matter(loss):
    student, teacher = random_maps()
    value = loss(student, teacher)
    assert value > 0
    factors = torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3, 1, 1)
    torch.testing.assert_close(loss(factors * student, teacher / factors), value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss(student, factors * student), torch.zeros_like(value), rtol=0, atol=1e-12)


def test_range():
    student, _ = random_maps()
    for grid in (1, 2, 3):
        assert cam_kd_loss(student, -student, grid=grid).item() == pytest.approx(4 / grid**2, rel=1e-12)


def test_a_step_along_the_gradient_turns_the_maps_towards_the_teachers():
    student, teacher = random_maps()
    value, gradient = value_and_gradient(cam_kd_loss, student, teacher)
    assert cam_kd_loss(student - 0.1 * gradient, teacher) < value
    radial = (gradient * student).sum(dim=(2, 3))  # the length of a map does not matter
    torch.testing.assert_close(radial, torch.zeros_like(radial), rtol=0, atol=1e-12)
    assert math.isfinite(value.item())
