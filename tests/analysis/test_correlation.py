"""Correlation differences against NumPy's own and loops over the pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mlkd.analysis import correlation_difference, label_correlations, order_by_cluster, pair_contributions
from mlkd.graphs import cooccurrence

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.random((2, 30, 6))


def test_is_pearsons() -> None:
    np.testing.assert_allclose(label_correlations(STUDENT), np.corrcoef(STUDENT.T), atol=1e-12)
    np.testing.assert_allclose(label_correlations(STUDENT.astype(np.float32)), np.corrcoef(STUDENT.T), atol=1e-6)


def test_mean_is_over_the_pairs() -> None:
    matrix, mean = correlation_difference(STUDENT, TEACHER)
    gaps = []
    for k, l in combinations(range(6), 2):  # noqa: E741
        own = np.corrcoef(STUDENT[:, k], STUDENT[:, l])[0, 1]
        its = np.corrcoef(TEACHER[:, k], TEACHER[:, l])[0, 1]
        gaps.append(abs(own - its))
        assert matrix[k, l] == matrix[l, k] == pytest.approx(gaps[-1])
    assert mean == pytest.approx(sum(gaps) / 15)
    assert matrix.diagonal().tolist() == [0] * 6


def test_limits() -> None:
    assert correlation_difference(TEACHER, TEACHER).mean == 0
    assert correlation_difference(0.3 * TEACHER + 0.1, TEACHER).mean == pytest.approx(0, abs=1e-12)
    opposite = np.column_stack([TEACHER[:, 0], TEACHER[:, 0]]), np.column_stack([TEACHER[:, 0], 1 - TEACHER[:, 0]])
    assert correlation_difference(*opposite).mean == pytest.approx(2)


def test_a_label_that_never_moves() -> None:
    student = STUDENT.copy()
    student[:, 2] = 0.1
    matrix, mean = correlation_difference(student, TEACHER)
    assert np.isnan(matrix[2]).all()
    assert np.isnan(matrix[:, 2]).all()
    kept = [0, 1, 3, 4, 5]
    assert mean == pytest.approx(correlation_difference(STUDENT[:, kept], TEACHER[:, kept]).mean)
    assert np.isnan(correlation_difference(STUDENT[:1], TEACHER[:1]).mean)  # one picture
    assert np.isnan(correlation_difference(STUDENT[:, :1], TEACHER[:, :1]).mean)  # one label


def test_contributions_of_pictures() -> None:
    for k, other in ((0, 1), (4, 2), (3, 3)):
        found = pair_contributions(STUDENT, TEACHER, k, other)
        assert found.shape == (30,)
        for i in range(30):
            added = 0.0
            for probs, sign in ((STUDENT, 1), (TEACHER, -1)):
                z = [(probs[i, label] - probs[:, label].mean()) / probs[:, label].std() for label in (k, other)]
                added += sign * z[0] * z[1] / 30
            assert found[i] == pytest.approx(added)
        gap = np.corrcoef(STUDENT.T)[k, other] - np.corrcoef(TEACHER.T)[k, other]
        assert found.sum() == pytest.approx(gap, abs=1e-12)


def test_contributions_where_there_are_none() -> None:
    assert not pair_contributions(TEACHER, TEACHER, 0, 1).any()
    student = STUDENT.copy()
    student[:, 2] = 0.1
    assert np.isnan(pair_contributions(student, TEACHER, 2, 1)).all()
    with pytest.raises(ValueError, match=r"\(30, 5\) but `teacher_probs` has \(30, 6\)"):
        pair_contributions(STUDENT[:, :5], TEACHER, 0, 1)


def test_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(30, 5\) but `teacher_probs` has \(30, 6\)"):
        correlation_difference(STUDENT[:, :5], TEACHER)


def test_parts_stand_together() -> None:
    targets = (RNG.random((200, 8)) < 0.3).astype(np.uint8)
    targets[:, 7] = targets[:, 1]
    parts = np.array([1, 0, 0, 1, 2, 1, 2, 0])
    order = order_by_cluster(cooccurrence(targets), parts)
    assert sorted(order) == list(range(8))
    assert parts[order].tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    first = order[:3].tolist()
    assert abs(first.index(1) - first.index(7)) == 1
