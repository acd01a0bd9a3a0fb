"""Correlation differences against NumPy and loops over the pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mlkd.analysis import correlation_difference, label_correlations, order_by_cluster, pair_contributions
from mlkd.graphs import cooccurrence

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.random((2, 30, 6))


def test_correlations_are_numpys() -> None:
    np.testing.assert_allclose(label_correlations(STUDENT), np.corrcoef(STUDENT.T), atol=1e-12)
    np.testing.assert_allclose(label_correlations(STUDENT.astype(np.float32)), np.corrcoef(STUDENT.T), atol=1e-6)


def test_difference_against_loops() -> None:
    matrix, mean = correlation_difference(STUDENT, TEACHER)
    gaps = []
    for k, l in combinations(range(6), 2):  # noqa: E741
        student = np.corrcoef(STUDENT[:, k], STUDENT[:, l])[0, 1]
        teacher = np.corrcoef(TEACHER[:, k], TEACHER[:, l])[0, 1]
        gaps.append(abs(student - teacher))
        assert matrix[k, l] == matrix[l, k] == pytest.approx(gaps[-1])
    assert mean == pytest.approx(sum(gaps) / 15)
    assert matrix.diagonal().tolist() == [0] * 6


def test_difference_of_extreme_cases() -> None:
    assert correlation_difference(TEACHER, TEACHER).mean == 0
    assert correlation_difference(0.3 * TEACHER + 0.1, TEACHER).mean == pytest.approx(0, abs=1e-12)
    opposite = np.column_stack([TEACHER[:, 0], TEACHER[:, 0]]), np.column_stack([TEACHER[:, 0], 1 - TEACHER[:, 0]])
    assert correlation_difference(*opposite).mean == pytest.approx(2)


def test_constant_label_is_excluded() -> None:
    student = STUDENT.copy()
    student[:, 2] = 0.1
    matrix, mean = correlation_difference(student, TEACHER)
    assert np.isnan(matrix[2]).all()
    assert np.isnan(matrix[:, 2]).all()
    kept = [0, 1, 3, 4, 5]
    assert mean == pytest.approx(correlation_difference(STUDENT[:, kept], TEACHER[:, kept]).mean)
    assert np.isnan(correlation_difference(STUDENT[:1], TEACHER[:1]).mean)  # one image
    assert np.isnan(correlation_difference(STUDENT[:, :1], TEACHER[:, :1]).mean)  # one label


def test_contributions_against_loops() -> None:
    for k, other in ((0, 1), (4, 2), (3, 3)):
        contributions = pair_contributions(STUDENT, TEACHER, k, other)
        assert contributions.shape == (30,)
        for i in range(30):
            added = 0.0
            for probs, sign in ((STUDENT, 1), (TEACHER, -1)):
                z = [(probs[i, label] - probs[:, label].mean()) / probs[:, label].std() for label in (k, other)]
                added += sign * z[0] * z[1] / 30
            assert contributions[i] == pytest.approx(added)
        gap = np.corrcoef(STUDENT.T)[k, other] - np.corrcoef(TEACHER.T)[k, other]
        assert contributions.sum() == pytest.approx(gap, abs=1e-12)


def test_contributions_of_equal_and_constant_labels() -> None:
    assert not pair_contributions(TEACHER, TEACHER, 0, 1).any()
    student = STUDENT.copy()
    student[:, 2] = 0.1
    assert np.isnan(pair_contributions(student, TEACHER, 2, 1)).all()
    with pytest.raises(ValueError, match=r"\(30, 5\) but `teacher_probs` has \(30, 6\)"):
        pair_contributions(STUDENT[:, :5], TEACHER, 0, 1)


def test_different_shapes_give_one_line_error() -> None:
    with pytest.raises(ValueError, match=r"\(30, 5\) but `teacher_probs` has \(30, 6\)"):
        correlation_difference(STUDENT[:, :5], TEACHER)


def test_order_by_cluster() -> None:
    targets = (RNG.random((200, 8)) < 0.3).astype(np.uint8)
    targets[:, 7] = targets[:, 1]
    clusters = np.array([1, 0, 0, 1, 2, 1, 2, 0])
    order = order_by_cluster(cooccurrence(targets), clusters)
    assert sorted(order) == list(range(8))
    assert clusters[order].tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    first = order[:3].tolist()
    assert abs(first.index(1) - first.index(7)) == 1
