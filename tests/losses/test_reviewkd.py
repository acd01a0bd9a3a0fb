"""The hierarchical context loss of ReviewKD against plain loops over the cells of two feature maps."""

import math
import re

import pytest
import torch
from compare import assert_same, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.losses.reviewkd import hcl

PROPERTY = settings(derandomize=True, deadline=None, max_examples=20, database=None)


def pooled(plane, level):
    """A plane (H, W) averaged onto level x level cells; a cell begins and ends at whole rows and columns."""

    def span(cell, size):
        return cell * size // level, math.ceil((cell + 1) * size / level)

    height, width = plane.shape
    cells = []
    for y in range(level):
        for x in range(level):
            (top, bottom), (left, right) = span(y, height), span(x, width)
            inside = [plane[row, column] for row in range(top, bottom) for column in range(left, right)]
            cells.append(sum(inside) / len(inside))
    return cells


def reference_hcl(student, teacher):
    b, channels, height, width = student.shape
    levels = [None, *[level for level in (4, 2, 1) if level < min(height, width)]]
    loss, total = (0 * student).sum(), 0.0
    for number, level in enumerate(levels):
        squares = []
        for i in range(b):
            for c in range(channels):
                mine, its = student[i, c], teacher.detach()[i, c]
                mine = list(mine.flatten()) if level is None else pooled(mine, level)
                its = list(its.flatten()) if level is None else pooled(its, level)
                squares += [(one - other) ** 2 for one, other in zip(mine, its, strict=True)]
        loss = loss + 0.5**number * sum(squares) / len(squares)
        total += 0.5**number
    return loss / total


both = pytest.mark.parametrize("loss", [hcl, reference_hcl], ids=["hcl", "reference"])


def random_maps(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))


@both
def test_by_hand(loss):
    # 2 x 2 cells: level 1 (their mean) takes part with weight 1/2. Differences 1, 0, 0, 3; of the means 1.
    teacher = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=torch.float64)
    student = teacher + torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    assert loss(student, teacher).item() == pytest.approx((10 / 4 + 1 / 2 * 1) / (3 / 2), rel=1e-12)
    # One cell: no level is smaller.
    assert loss(student[..., :1, :1], teacher[..., :1, :1]).item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(("side", "total"), [(1, 1), (2, 3 / 2), (3, 7 / 4), (4, 7 / 4), (5, 15 / 8), (7, 15 / 8)])
@both
def test_a_constant_difference_is_the_same_at_every_level(loss, side, total):
    teacher = random_maps(1, 2, side, side)[0]
    assert loss(teacher + 3, teacher).item() == pytest.approx(9, rel=1e-12)
    # A difference that sums to 0 in every pooled cell counts at full size alone.
    if side == 4:
        checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(2, 2)
        assert loss(teacher + checks, teacher).item() == pytest.approx(1 / total, rel=1e-12)


@PROPERTY
@given(st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 7), st.integers(1, 7)), st.integers(0, 2**31))
def test_equals_the_reference(shape, seed):
    batch = random_maps(*shape, seed=seed)
    assert_same(value_and_gradient(hcl, *batch), value_and_gradient(reference_hcl, *batch))


def test_gradcheck():
    student, teacher = random_maps(1, 2, 5, 3)
    assert torch.autograd.gradcheck(lambda x: hcl(x, teacher), student.requires_grad_())


def test_equal_maps_are_a_zero_with_a_graph_and_large_ones_finite():
    student, teacher = (1e4 * maps.float() for maps in random_maps(2, 3, 7, 7))
    value, gradient = value_and_gradient(hcl, student, student)
    assert value == 0
    assert gradient.abs().sum() == 0
    value, gradient = value_and_gradient(hcl, student, teacher)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(dtype, autocast):
    student, teacher = (maps.to(dtype) for maps in random_maps(2, 3, 7, 7))
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        actual = value_and_gradient(hcl, student, teacher)
    expected = value_and_gradient(hcl, student.float(), teacher.float())
    assert actual[0].dtype == torch.float32
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(actual[1].float(), expected[1], rtol=1e-2, atol=1e-4)


def test_the_teacher_gets_no_gradient():
    student, teacher = (maps.requires_grad_() for maps in random_maps(2, 3, 4, 4))
    hcl(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_wrong_shapes():
    with pytest.raises(ValueError, match=re.escape("`teacher_features` has shape (2, 3, 4, 4) but `student_features`")):
        hcl(torch.zeros(2, 3, 5, 5), torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=re.escape("`student_features` has shape (2, 3), expected (b, D, H, W)")):
        hcl(torch.zeros(2, 3), torch.zeros(2, 3))
