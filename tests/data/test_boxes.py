"""Clipped boxes, and targets from objects."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlkd.data.boxes import clip_boxes, targets_from_objects

BOX = st.tuples(*[st.floats(-5, 45, width=32)] * 4)


@given(st.lists(st.tuples(BOX, st.integers(1, 40), st.integers(1, 40)), max_size=20))
def test_clip_boxes(objects: list[tuple[tuple[float, float, float, float], int, int]]) -> None:
    boxes = np.array([box for box, _, _ in objects], np.float64).reshape(-1, 4)
    widths, heights = (np.array([sizes[k] for sizes in objects], np.int64) for k in (1, 2))
    all_clipped, valid = clip_boxes(boxes, widths, heights)
    assert (all_clipped.shape, valid.shape) == ((len(objects), 4), (len(objects),))
    for (box, width, height), clipped, is_valid in zip(objects, all_clipped.tolist(), valid, strict=True):
        x1, y1, x2, y2 = box
        ordered = x1 <= x2 and y1 <= y2
        assert is_valid == (ordered and min(x1, y1) >= -1 and x2 <= width + 1 and y2 <= height + 1)
        if ordered and min(x1, y1) >= 0 and x2 <= width and y2 <= height:
            assert clipped == list(box)
        elif is_valid:
            assert all(abs(new - old) <= 1 for new, old in zip(clipped, box, strict=True))
            assert min(clipped[:2]) >= 0
            assert clipped[2] <= width
            assert clipped[3] <= height


def test_box_with_nan_is_invalid() -> None:
    assert clip_boxes(np.array([[0, np.nan, 1, 1], [0, 0, 1, 1]]), 10, 10)[1].tolist() == [False, True]


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=6))
def test_targets_equal_the_definition(classes: list[list[int]]) -> None:
    objects = [np.array([[k, 0, 0, 1, 1] for k in labels], np.float32).reshape(-1, 5) for labels in classes]
    expected = [[int(k in labels) for k in range(5)] for labels in classes]
    assert targets_from_objects(objects, 5).tolist() == expected
