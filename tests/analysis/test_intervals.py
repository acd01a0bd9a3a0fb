"""The bootstrap over pictures, written out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlkd.analysis.intervals import bootstrap_weights, mean_over_pictures


def test_means_of_drawn_pictures_in_loops() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"picture": rng.integers(0, 12, 50), "run": "l2d", "hit": rng.random(50)})
    table.loc[3:6, "hit"] = np.nan
    row = mean_over_pictures(table, ("run",), ("hit",), resamples=60, seed=4).iloc[0]
    names = list(dict.fromkeys(table["picture"]))
    means = []
    for drawn in bootstrap_weights(np.random.default_rng(4), len(names), 60):
        values = [
            value
            for name, times in zip(names, drawn, strict=True)
            for value in table.loc[table["picture"] == name, "hit"].dropna().tolist() * int(times)
        ]
        means.append(sum(values) / len(values))
    assert row["hit"] == pytest.approx(table["hit"].mean())
    assert (row["hit_low"], row["hit_high"]) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=1e-5)
    assert (row["n"], row["pictures"]) == (50, len(names))


def test_draws_are_fair() -> None:
    drawn = bootstrap_weights(np.random.default_rng(0), 5, 20000)
    assert drawn.shape == (20000, 5)
    assert (drawn.sum(axis=1) == 5).all()
    assert drawn.mean(axis=0) == pytest.approx([1] * 5, abs=0.03)
    assert drawn.var(axis=0) == pytest.approx([0.8] * 5, abs=0.05)  # 5 * 1/5 * 4/5


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for study in range(200):
        table = pd.DataFrame({"picture": range(60), "value": rng.random(60)})
        row = mean_over_pictures(table, (), ("value",), resamples=200, seed=study).iloc[0]
        inside += row["value_low"] <= 0.5 <= row["value_high"]
    assert 0.9 <= inside / 200 <= 0.99
