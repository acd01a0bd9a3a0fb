"""Dependencies of chosen labels against the equation in loops."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest

from mlkd.analysis import dependency_gaps, label_dependencies, pair_dependencies

CLASSES = ("dog", "car", "cup", "bus", "cat")
RNG = np.random.default_rng(0)
PROBS = {"teacher": RNG.random((3, 5)), "l2d": RNG.random((3, 5)), "same": None}
PROBS["same"] = PROBS["teacher"]
LABELS = (4, 0, 2, 1)


def slow(probs: np.ndarray, sequence: tuple[int, ...]) -> float:
    steps = [(probs[k] - probs[l]) ** 2 for k, l in pairwise(sequence)]  # noqa: E741
    return sum(steps) / len(steps)


def test_sequences_against_loops() -> None:
    table = label_dependencies(PROBS, CLASSES, LABELS)
    assert table.groupby(["run", "order"])["sequence"].nunique()["l2d"].to_dict() == {2: 6, 3: 12, 4: 12}
    sequences = set()
    for row in table.itertuples():
        sequence = tuple(CLASSES.index(name) for name in row.sequence.split("-"))
        assert len(sequence) == row.order
        assert row.dependency == pytest.approx(slow(PROBS[row.run][row.image], sequence), abs=1e-6)
        sequences.add((row.run, row.image, min(sequence, sequence[::-1])))
    expected = {
        (run, image, min(s, s[::-1])) for run in PROBS for image in range(3) for n in (2, 3, 4)
        for s in permutations(LABELS, n)
    }  # fmt: skip
    assert sequences == expected
    assert len(table) == len(expected)


def test_gaps_against_loops() -> None:
    table = label_dependencies(PROBS, CLASSES, LABELS)
    gaps = dependency_gaps(table).set_index(["run", "order"])
    for order in (2, 3, 4):
        sequences = [s for s in permutations(LABELS, order) if s[0] < s[-1]]
        instance, batch = [], []
        for s in sequences:
            gaps_of_images = [slow(PROBS["l2d"][i], s) - slow(PROBS["teacher"][i], s) for i in range(3)]
            instance += [abs(gap) for gap in gaps_of_images]
            batch.append(abs(sum(gaps_of_images) / 3))
        row = gaps.loc[("l2d", order)]
        assert row["instance"] == pytest.approx(np.mean(instance), abs=1e-6)
        assert row["batch"] == pytest.approx(np.mean(batch), abs=1e-6)
        assert row["sequences"] == len(sequences)
        assert gaps.loc[("same", order), "instance"] == 0
    assert len(gaps) == 6


def test_invalid_arguments_give_one_line_errors() -> None:
    table = label_dependencies(PROBS, CLASSES, LABELS, (2,))
    with pytest.raises(ValueError, match=r"`teacher` is 'unknown', expected one of the runs: teacher, l2d"):
        dependency_gaps(table, "unknown")
    with pytest.raises(ValueError, match="more than the 2 labels"):
        label_dependencies(PROBS, CLASSES, (0, 1))
    with pytest.raises(ValueError, match="different labels"):
        label_dependencies(PROBS, CLASSES, (0, 7), (2,))
    assert label_dependencies({}, CLASSES, LABELS).empty


def test_pairs_against_loops() -> None:
    matrix = pair_dependencies(PROBS["l2d"], LABELS)
    for i, k in enumerate(LABELS):
        for j, l in enumerate(LABELS):  # noqa: E741
            expected = sum(slow(PROBS["l2d"][row], (k, l)) for row in range(3)) / 3 if k != l else 0
            assert matrix[i, j] == pytest.approx(expected, abs=1e-6)
    assert pair_dependencies(PROBS["l2d"], [2]).tolist() == [[0]]
