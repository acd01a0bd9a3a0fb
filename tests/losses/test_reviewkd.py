"""The hierarchical context loss of ReviewKD against plain loops over the cells of two feature maps."""

import re

import pytest
import torch
from compare import PROPERTY, assert_equals_reference, pooled, zero
from hypothesis import given
from hypothesis import strategies as st

from mlkd.losses.reviewkd import hcl


def reference_hcl(student, teacher):
    b, channels, height, width = student.shape
    levels = [None, *[level for level in (4, 2, 1) if level < min(height, width)]]
    loss, total = zero(student), 0.0
    for number, level in enumerate(levels):
        squares = []
        for i in range(b):
            for c in range(channels):
                planes = student[i, c], teacher.detach()[i, c]
                cells = [list(plane.flatten()) if level is None else pooled(plane, level) for plane in planes]
                squares += [(s - t) ** 2 for s, t in zip(*cells, strict=True)]
        loss = loss + 0.5**number * sum(squares) / len(squares)
        total += 0.5**number
    return loss / total


both = pytest.mark.parametrize("loss", [hcl, reference_hcl], ids=["hcl", "reference"])


def random_maps(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))


@both
def test_by_hand(loss):
    # 2 x 2 cells: level 1 (their mean) has weight 1/2. Differences 1, 0, 0, 3; of the means 1.
    teacher = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=torch.float64)
    student = teacher + torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    assert loss(student, teacher).item() == pytest.approx((10 / 4 + 1 / 2 * 1) / (3 / 2), rel=1e-12)
    # One cell: no level is smaller.
    assert loss(student[..., :1, :1], teacher[..., :1, :1]).item() == pytest.approx(1, rel=1e-12)


@both
def test_constant_difference_is_the_same_at_every_level(loss):
    for side in (1, 2, 3, 4, 5, 7):
        teacher = random_maps(1, 2, side, side)[0]
        assert loss(teacher + 3, teacher).item() == pytest.approx(9, rel=1e-12)
    # A difference that sums to 0 in every pooled cell counts at full size only, with weight 1 of 7/4.
    teacher = random_maps(1, 2, 4, 4)[0]
    checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(2, 2)
    assert loss(teacher + checkerboard, teacher).item() == pytest.approx(4 / 7, rel=1e-12)


@PROPERTY
@given(st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 7), st.integers(1, 7)), st.integers(0, 2**31))
def test_equals_the_reference(shape, seed):
    assert_equals_reference(hcl, reference_hcl, *random_maps(*shape, seed=seed))


def test_vectors_are_not_feature_maps():
    with pytest.raises(ValueError, match=re.escape("`student_features` has shape (2, 3), expected (b, D, H, W)")):
        hcl(torch.zeros(2, 3), torch.zeros(2, 3))
