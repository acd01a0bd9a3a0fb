"""Dependencies of chosen labels, against the equation in plain loops."""

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


def test_every_sequence_of_every_order() -> None:
    table = label_dependencies(PROBS, CLASSES, LABELS)
    assert table.groupby(["run", "order"])["sequence"].nunique()["l2d"].to_dict() == {2: 6, 3: 12, 4: 12}
    seen = set()
    for row in table.itertuples():
        sequence = tuple(CLASSES.index(name) for name in row.sequence.split("-"))
        assert len(sequence) == row.order
        assert row.dependency == pytest.approx(slow(PROBS[row.run][row.image], sequence), abs=1e-6)
        seen.add((row.run, row.image, min(sequence, sequence[::-1])))
    wanted = {
        (run, picture, min(s, s[::-1])) for run in PROBS for picture in range(3) for n in (2, 3, 4)
        for s in permutations(LABELS, n)
    }  # fmt: skip
    assert seen == wanted
    assert len(table) == len(wanted)


def test_gaps() -> None:
    table = label_dependencies(PROBS, CLASSES, LABELS)
    gaps = dependency_gaps(table).set_index(["run", "order"])
    for order in (2, 3, 4):
        sequences = [s for s in permutations(LABELS, order) if s[0] < s[-1]]
        instance, batch = [], []
        for s in sequences:
            own = [slow(PROBS["l2d"][i], s) - slow(PROBS["teacher"][i], s) for i in range(3)]
            instance += [abs(gap) for gap in own]
            batch.append(abs(sum(own) / 3))
        row = gaps.loc[("l2d", order)]
        assert row["instance"] == pytest.approx(np.mean(instance), abs=1e-6)
        assert row["batch"] == pytest.approx(np.mean(batch), abs=1e-6)
        assert row["sequences"] == len(sequences)
        assert gaps.loc[("same", order), "instance"] == 0
    assert len(gaps) == 6


def test_mistakes_and_edges() -> None:
    table = label_dependencies(PROBS, CLASSES, LABELS, (2,))
    with pytest.raises(ValueError, match=r"`teacher` is 'mine', expected one of the runs: teacher, l2d"):
        dependency_gaps(table, "mine")
    with pytest.raises(ValueError, match="more than the 2 labels"):
        label_dependencies(PROBS, CLASSES, (0, 1))
    with pytest.raises(ValueError, match="different labels"):
        label_dependencies(PROBS, CLASSES, (0, 7), (2,))
    assert label_dependencies({}, CLASSES, LABELS).empty


def test_a_matrix_of_pairs() -> None:
    found = pair_dependencies(PROBS["l2d"], LABELS)
    for i, k in enumerate(LABELS):
        for j, l in enumerate(LABELS):  # noqa: E741
            expected = sum(slow(PROBS["l2d"][row], (k, l)) for row in range(3)) / 3 if k != l else 0
            assert found[i, j] == pytest.approx(expected, abs=1e-6)
    assert pair_dependencies(PROBS["l2d"], [2]).tolist() == [[0]]
