"""Recall by size, frequency and number of labels, against a loop over the objects."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, sqrt

import numpy as np
import pandas as pd
import pytest

from mlkd.analysis import label_table, object_table, recall_curve, recall_table
from mlkd.data import DataError, MultiLabelData

Data = dict[str, MultiLabelData]


def with_boxes(toy_data: Data) -> MultiLabelData:
    rng = np.random.default_rng(0)
    data = toy_data["test"]
    boxes = []
    for row in data.targets:
        labels = rng.choice(np.flatnonzero(row), rng.integers(0, 4)) if row.any() else np.zeros(0)
        corner = rng.uniform(0, 12, (len(labels), 2))
        boxes.append(
            np.column_stack([labels, corner, corner + rng.uniform(1, 20, (len(labels), 2))]).astype(np.float32)
        )
    return replace(data, boxes=boxes)


def wilson(correct: int, n: int) -> tuple[float, float]:
    z, p = 1.959963984540054, correct / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return middle - reach, middle + reach


def test_recall_by_side_against_loops(toy_data: Data) -> None:
    data = with_boxes(toy_data)
    rng = np.random.default_rng(1)
    predicted = {"one": rng.random(data.targets.shape) < 0.5, "two": rng.random(data.targets.shape) < 0.8}
    table = recall_table(object_table(data), "side", predicted, step=10)
    for title, labels in predicted.items():
        total: dict[int, int] = {}
        correct: dict[int, int] = {}
        for row in range(len(data)):
            for label, x1, y1, x2, y2 in data.boxes[row].astype(np.float64):
                side = sqrt((x2 - x1) * (y2 - y1)) * 224 / 32
                bucket = 10 * ceil(side / 10)
                assert (bucket - 10) ** 2 < side**2 <= bucket**2
                total[bucket] = total.get(bucket, 0) + 1
                correct[bucket] = correct.get(bucket, 0) + int(labels[row, int(label)])
        group = table[table["run"] == title]
        assert dict(zip(group["side"], group["targets"], strict=True)) == total
        assert dict(zip(group["side"], group["correct"], strict=True)) == correct
        for row in group.itertuples():
            assert row.recall == pytest.approx(row.correct / row.targets)
            assert (row.low, row.high) == pytest.approx(wilson(row.correct, row.targets))
    assert list(table["run"].unique()) == ["one", "two"]


def test_group_edges() -> None:
    targets = pd.DataFrame({"image": 0, "label": 0, "side": [0.001, 10, 10.001, 224]})
    table = recall_table(targets, "side", {"all": np.ones((1, 1), bool)}, step=10)
    assert table["side"].tolist() == [10, 20, 230]
    assert table["targets"].tolist() == [2, 1, 1]
    assert recall_table(targets[:0], "side", {"all": np.ones((1, 1), bool)}, step=10).empty


def test_side_in_images_that_are_not_square(toy_data: Data) -> None:
    images = [np.zeros((10, 40, 3), np.uint8)]
    boxes = [np.array([[0, 0, 0, 40, 10], [1, 0, 0, 20, 5]], np.float32)]
    data = MultiLabelData("toy", "test", images, np.array([[1, 1]], np.uint8), ("a", "b"), ("x",), boxes)
    assert object_table(data)["side"].tolist() == pytest.approx([224, 112])


def test_data_without_boxes_gives_one_line_error(toy_data: Data) -> None:
    with pytest.raises(DataError, match="this data set has no boxes"):
        object_table(toy_data["test"])


def test_label_table_against_loops(toy_data: Data) -> None:
    data, train = toy_data["test"], toy_data["train"]
    table = label_table(data, train)
    assert len(table) == data.targets.sum()
    for row in table.itertuples():
        assert data.targets[row.image, row.label] == 1
        assert row.num_labels == sum(data.targets[row.image])
        assert row.frequency == pytest.approx(100 * sum(train.targets[:, row.label].tolist()) / len(train))
    predicted = np.random.default_rng(0).random(data.targets.shape) < 0.5
    by_labels = recall_table(table, "num_labels", {"run": predicted}).set_index("num_labels")
    for count in range(1, 5):
        rows = [i for i in range(len(data)) if data.targets[i].sum() == count]
        correct = sum(int(predicted[i, k]) for i in rows for k in range(4) if data.targets[i, k])
        assert by_labels.loc[count, "correct"] == correct
        assert by_labels.loc[count, "targets"] == count * len(rows)
    assert len(recall_table(table, "frequency", {"run": predicted})) <= 4
    with pytest.raises(ValueError, match="expected the same"):
        label_table(data, train.select_classes([0, 1]))


class TestCurve:
    def test_follows_the_data(self) -> None:
        rng = np.random.default_rng(0)
        side = rng.uniform(0, 224, 4000)
        probability = np.exp(-((side - 120) ** 2) / 5000)  # decreases again for large objects
        at = np.linspace(10, 214, 30)
        curve = recall_curve(side, rng.random(4000) < probability, at)
        assert np.abs(curve - np.exp(-((at - 120) ** 2) / 5000)).max() < 0.1

    def test_edges(self) -> None:
        at = np.array([-5.0, 0, 100, 500])
        assert np.isnan(recall_curve(np.zeros(0), np.zeros(0, bool), at)).all()
        assert recall_curve(np.arange(9.0), np.ones(9, bool), at).tolist() == [1] * 4
        assert recall_curve(np.arange(9.0), np.zeros(9, bool), at).tolist() == [0] * 4
        assert recall_curve(np.ones(4), np.array([1, 0, 1, 1], bool), at).tolist() == [0.75] * 4
        rng = np.random.default_rng(0)
        curve = recall_curve(rng.uniform(0, 100, 50), rng.random(50) < 0.5, at)
        assert ((curve >= 0) & (curve <= 1)).all()
        assert curve[0] == pytest.approx(curve[1], abs=0.05)
