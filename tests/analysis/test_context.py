"""Context reliance: the masks against loops over pixels, and a network with known reliance."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from mlkd.analysis import (
    context_masks,
    context_reliance,
    context_scores,
    reliance_regression,
    top_cooccurring_labels,
)
from mlkd.data import DataError, MultiLabelData
from mlkd.graphs import cooccurrence
from mlkd.models import Output

SIZE = 32
CLASSES = ("mouse", "laptop", "cup")


def test_top_cooccurring_labels() -> None:
    targets = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], np.uint8)
    # 2 of 3 images with a mouse have a laptop and 2 of 3 with a laptop have a mouse; the cup never co-occurs
    assert top_cooccurring_labels(cooccurrence(targets)) == [(0, 1), (1, 0)]
    targets[0, 2] = 1  # the cup co-occurs once with the mouse and once with the laptop: the lower index
    assert top_cooccurring_labels(cooccurrence(targets)) == [(0, 1), (1, 0), (2, 0)]
    assert top_cooccurring_labels(cooccurrence(np.zeros((2, 0), np.uint8))) == []


class TestMasks:
    def test_masks_against_loops(self) -> None:
        rng = np.random.default_rng(0)
        num_masked = 0
        for _ in range(60):
            corner = rng.uniform(0, 0.7, (4, 2))
            boxes = np.column_stack([rng.integers(0, 3, 4), corner, corner + rng.uniform(0.02, 0.3, (4, 2))])
            masks = context_masks(boxes, 0, 1, SIZE, rng)
            label, context = np.zeros((2, SIZE, SIZE), bool)
            for kind, x1, y1, x2, y2 in boxes:
                for y in range(SIZE):
                    for x in range(SIZE):
                        if x1 * SIZE < x + 1 and x < x2 * SIZE and y1 * SIZE < y + 1 and y < y2 * SIZE:
                            label[y, x] |= kind == 0
                            context[y, x] |= kind == 1
            if masks is None:
                continue
            num_masked += 1
            np.testing.assert_array_equal(masks.context, context & ~label)
            assert masks.control.sum() == masks.context.sum() > 0
            assert not (masks.control & (label | context)).any()
        assert num_masked > 10

    def test_control_has_the_shape_of_the_context(self) -> None:
        boxes = np.array([[0, 0, 0, 0.25, 0.25], [1, 0.5, 0.5, 0.75, 1]])
        masks = context_masks(boxes, 0, 1, 8, np.random.default_rng(0))
        rows, columns = np.nonzero(masks.control)
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)) == (4, 2, 8)

    def test_control_takes_every_free_position(self) -> None:
        boxes = np.array([[0, 0, 0, 1, 0.25], [1, 0, 0.25, 0.5, 0.5]])
        positions = {
            tuple(np.argwhere(context_masks(boxes, 0, 1, 4, np.random.default_rng(seed)).control)[0])
            for seed in range(60)
        }
        assert positions == {(row, column) for row in (2, 3) for column in (0, 1, 2)} | {(1, 2)}

    @pytest.mark.parametrize(
        "boxes",
        [
            [[0, 0, 0, 1, 1]],  # no context
            [[1, 0, 0, 0.5, 0.5]],  # no label
            [[0, 0, 0, 0.5, 0.5], [1, 0.1, 0.1, 0.4, 0.4]],  # the context lies within the label
            [[0, 0, 0, 0.25, 0.25], [1, 0, 0, 1, 1]],  # no position for the control
        ],
    )
    def test_image_without_masks(self, boxes: list) -> None:
        assert context_masks(np.array(boxes, float), 0, 1, 16, np.random.default_rng(0)) is None


class ContextNetwork(nn.Module):
    """A network whose logits are the brightness of the laptop's region times `reliance`."""

    def __init__(self, reliance: float):
        super().__init__()
        self.reliance = nn.Parameter(torch.tensor(reliance))
        self.classes, self.image_size = CLASSES, SIZE

    def forward(self, images: Tensor) -> Output:
        white = (images[:, 0, 16:, 16:].float() / 255).mean(dim=(1, 2))
        return Output(torch.stack([self.reliance * white] * 3, dim=1), None, images)


def make_data(n: int = 6) -> MultiLabelData:
    """Black images with a white laptop in the lower right quarter and a mouse in the upper left corner."""
    images = np.zeros((n, SIZE, SIZE, 3), np.uint8)
    images[:, 16:, 16:] = 255
    boxes = [np.array([[0, 0, 0, 4, 4], [1, 16, 16, 32, 32]], np.float32)] * n
    targets = np.tile(np.array([1, 1, 0], np.uint8), (n, 1))
    return MultiLabelData("toy", "test", images, targets, CLASSES, tuple(map(str, range(n))), boxes)


class TestReliance:
    def test_reliance_of_the_network(self, own_cache) -> None:
        models = {"teacher": ContextNetwork(4.0), "blind": ContextNetwork(0.0)}
        table = context_reliance(models, make_data(), [(0, 1), (2, 0)]).set_index("run")
        sigmoid = [1 / (1 + np.exp(-4 * white)) for white in (1, 127 / 255)]
        row = table.loc["teacher"]
        assert (row["label"], row["context"], row["n"], row["images"]) == ("mouse", "laptop", 6, 6)
        assert row["drop"] == pytest.approx(sigmoid[0] - sigmoid[1], abs=1e-6)
        assert row["control"] == pytest.approx(0, abs=1e-6)
        assert row["reliance"] == pytest.approx(row["drop"])
        assert row["reliance_low"] == pytest.approx(row["reliance_high"])
        assert table.loc["blind", ["drop", "control", "reliance"]].tolist() == [0, 0, 0]

    def test_number_of_images(self, own_cache) -> None:
        models = {"teacher": ContextNetwork(1.0)}
        assert context_reliance(models, make_data(), [(0, 1)], max_images=2)["n"].tolist() == [2]
        assert context_reliance(models, make_data(), [(2, 0)]).empty
        assert context_reliance(models, make_data(), []).empty
        one = context_reliance(models, make_data(1), [(0, 1)]).iloc[0]
        assert one["n"] == 1
        assert np.isnan(one["drop_low"])

    def test_invalid_arguments(self, own_cache) -> None:
        with pytest.raises(DataError, match="this data set has no boxes"):
            context_reliance({"teacher": ContextNetwork(1.0)}, replace(make_data(), boxes=None), [(0, 1)])
        other = ContextNetwork(1.0)
        other.classes = ("a", "b", "c")
        with pytest.raises(ValueError, match=r"'odd' has the classes \('a', 'b', 'c'\)"):
            context_reliance({"odd": other}, make_data(), [(0, 1)])


class TestRegression:
    def table(self, **runs: list[float]) -> pd.DataFrame:
        return pd.concat(
            pd.DataFrame({"run": run, "label": list("abcd")[: len(v)], "context": "x", "reliance": v})
            for run, v in runs.items()
        )

    def test_line_by_hand(self) -> None:
        x, y = [0.0, 0.1, 0.2, 0.5], [0.02, 0.05, 0.14, 0.27]
        row = reliance_regression(self.table(teacher=x, l2d=y)).iloc[0]
        mx, my = sum(x) / 4, sum(y) / 4
        sxy = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
        sxx, syy = sum((a - mx) ** 2 for a in x), sum((b - my) ** 2 for b in y)
        assert row["slope"] == pytest.approx(sxy / sxx)
        assert row["correlation"] == pytest.approx(sxy / (sxx * syy) ** 0.5)
        residual = syy - sxy**2 / sxx
        half_width = 4.302652729911275 * (residual / 2 / sxx) ** 0.5  # t of 2 degrees of freedom
        assert (row["low"], row["high"]) == pytest.approx((sxy / sxx - half_width, sxy / sxx + half_width))
        assert row["pairs"] == 4

    def test_limits(self) -> None:
        x = [0.0, 0.1, 0.2, 0.5]
        table = self.table(teacher=x, same=x, half=[v / 2 for v in x], none=[0.0] * 4)
        lines = reliance_regression(table).set_index("run")
        assert lines["slope"].to_dict() == pytest.approx({"same": 1, "half": 0.5, "none": 0})
        few = reliance_regression(self.table(teacher=[0.1, 0.2], l2d=[0.1, 0.2])).iloc[0]
        assert few["pairs"] == 2
        assert np.isnan(few["slope"])
        assert np.isnan(reliance_regression(self.table(teacher=[0.1] * 4, l2d=x)).iloc[0]["slope"])
        with pytest.raises(ValueError, match="`teacher` is 'teacher', expected one of the runs: l2d"):
            reliance_regression(self.table(l2d=x))


def test_scores_of_splits() -> None:
    def run(**scores: float) -> SimpleNamespace:
        return SimpleNamespace(mean_ap=scores)

    groups = {"l2d": [run(test=0.6, context_shift=0.4), run(test=0.5, context_shift=0.2)], "photos": [run(test=0.7)]}
    table = context_scores(groups)
    assert table.values.tolist()[0] == ["l2d", "test", pytest.approx(0.55), pytest.approx(0.1 / 2**0.5), 2]
    assert table.values.tolist()[1][:3] == ["l2d", "context_shift", pytest.approx(0.3)]
    assert table["run"].tolist() == ["l2d", "l2d", "photos"]
    assert np.isnan(table["std"][2])
