"""The bootstrap against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlkd.bootstrap import bootstrap_weights, percentile_interval


@given(st.integers(1, 20), st.integers(0, 10), st.integers(0, 5), st.data())
def test_weights_count_the_drawn_samples(n: int, resamples: int, seed: int, data: st.DataObject) -> None:
    required = data.draw(st.none() | st.sets(st.integers(0, n - 1), min_size=1).map(sorted))
    rng, expected = np.random.default_rng(seed), []
    while len(expected) < resamples:
        drawn = [int(rng.integers(n)) for _ in range(n)] if n == 1 else rng.integers(n, size=n).tolist()
        if required is None or any(i in drawn for i in required):
            expected.append([drawn.count(i) for i in range(n)])
    weights = bootstrap_weights(np.random.default_rng(seed), n, resamples, required)
    assert weights.shape == (resamples, n)
    assert weights.dtype == np.float32
    assert weights.tolist() == expected


def test_weights_have_the_moments_of_the_multinomial_distribution() -> None:
    weights = bootstrap_weights(np.random.default_rng(0), 5, 20000)
    assert weights.mean(axis=0) == pytest.approx([1] * 5, abs=0.03)
    assert weights.var(axis=0) == pytest.approx([0.8] * 5, abs=0.05)  # 5 * 1/5 * 4/5


@given(st.lists(st.floats(-10, 10) | st.just(float("nan")), min_size=1, max_size=20))
def test_interval_interpolates_between_sorted_values(values: list[float]) -> None:
    known = sorted(value for value in values if value == value)
    if not known:
        return
    expected = []
    for fraction in (0.025, 0.975):
        position = fraction * (len(known) - 1)
        left = int(position)
        right = min(left + 1, len(known) - 1)
        expected.append(known[left] + (position - left) * (known[right] - known[left]))
    assert percentile_interval(np.array(values)) == pytest.approx(tuple(expected), abs=1e-9)


def test_interval_of_a_mean_has_its_coverage() -> None:
    rng, covered = np.random.default_rng(0), 0
    for study in range(200):
        values = rng.random(60)
        weights = bootstrap_weights(np.random.default_rng(study), 60, 200)
        low, high = percentile_interval(weights @ values / 60)
        covered += low <= 0.5 <= high
    assert 0.9 <= covered / 200 <= 0.99
