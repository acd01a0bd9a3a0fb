"""Clipped boxes, and targets from objects."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlkd.data.boxes import clip_box, targets_from_objects


@given(st.tuples(*[st.floats(-5, 45, width=32)] * 4), st.integers(1, 40), st.integers(1, 40))
def test_clip_box(box: tuple[float, float, float, float], width: int, height: int) -> None:
    x1, y1, x2, y2 = box
    clipped = clip_box(box, width, height)
    ordered = x1 <= x2 and y1 <= y2
    if ordered and min(x1, y1) >= 0 and x2 <= width and y2 <= height:
        assert clipped == box
    elif not ordered or min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1:
        assert clipped is None
    else:
        assert clipped is not None
        assert all(abs(new - old) <= 1 for new, old in zip(clipped, box, strict=True))
        assert min(clipped) >= 0
        assert clipped[2] <= width
        assert clipped[3] <= height


def test_box_with_nan_is_invalid() -> None:
    assert clip_box((0, float("nan"), 1, 1), 10, 10) is None


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=6))
def test_targets_equal_the_definition(classes: list[list[int]]) -> None:
    objects = [np.array([[k, 0, 0, 1, 1] for k in labels], np.float32).reshape(-1, 5) for labels in classes]
    expected = [[int(k in labels) for k in range(5)] for labels in classes]
    assert targets_from_objects(objects, 5).tolist() == expected
