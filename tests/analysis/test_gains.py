"""Gains: the bootstrap against plain loops, weighted AP against repeated images, and false positives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from mlkd.analysis import class_gains, gain, minimum_detectable_effect, pair_by_seed
from mlkd.analysis.gains import PairedPredictions, weighted_average_precision
from mlkd.bootstrap import bootstrap_weights
from mlkd.data import MultiLabelData
from mlkd.metrics import average_precision
from mlkd.training.runs import Predictions, Run, open_run

Data = dict[str, MultiLabelData]


def make_pair(
    better: float = 0.0, s: int = 3, n: int = 60, q: int = 4, noise: float = 0.3, seed: int = 0
) -> PairedPredictions:
    """Logits that correlate with the labels, better than the baseline for the first one, and differ between seeds."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, q)) < 0.4).astype(np.uint8)
    common = targets + rng.normal(size=(n, q))
    logits, baseline = (common + noise * rng.normal(size=(s, n, q)) for _ in range(2))
    logits[:, :, 0] += better * targets[:, 0]
    names, seeds = tuple(f"class {k}" for k in range(q)), tuple(range(s))
    return PairedPredictions(targets, None, logits.astype(np.float32), baseline.astype(np.float32), names, seeds)


@given(st.integers(0, 20), st.booleans(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_weighted_ap_is_that_of_repeated_images(seed: int, ties: bool, with_ignored: bool) -> None:
    rng = np.random.default_rng(seed)
    targets = (rng.random((25, 3)) < 0.3).astype(np.uint8)
    targets[:, 2] = 0
    targets[4, 2] = 1  # one positive: absent from some resamples
    scores = rng.normal(size=(25, 3))
    if ties:
        scores = scores.round()
    ignore_mask = (rng.random((25, 3)) < 0.2) & (targets == 0) if with_ignored else None
    weights = bootstrap_weights(rng, 25, 10)
    ap = weighted_average_precision(targets, scores, weights, ignore_mask)
    for r in range(10):
        rows = np.repeat(np.arange(25), weights[r].astype(int))
        ignored = None if ignore_mask is None else ignore_mask[rows]
        np.testing.assert_allclose(ap[r], average_precision(targets[rows], scores[rows], ignored), atol=1e-6)


def test_bootstrap_against_loops() -> None:
    pair = make_pair(better=1.0)
    table = class_gains(pair, resamples=40, seed=5)
    rng = np.random.default_rng(5)
    images, seeds = bootstrap_weights(rng, 60, 40), bootstrap_weights(rng, 3, 40)
    for k, label in enumerate(pair.classes):
        values = []
        for r in range(40):
            rows = np.repeat(np.arange(60), images[r].astype(int))
            difference = 0.0
            for s in range(3):
                ap = [
                    average_precision(pair.targets[rows], side[s][rows])[k]
                    for side in (pair.logits, pair.baseline_logits)
                ]
                difference += seeds[r, s] * (ap[0] - ap[1]) / 3
            values.append(difference)
        row = table[table["label"] == label].iloc[0]
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-6)
        smaller = min(sum(v <= 0 for v in values), sum(v >= 0 for v in values))
        assert row["p"] == pytest.approx(min(1, 2 * (1 + smaller) / 41))
        by_seed = [
            average_precision(pair.targets, pair.logits[s])[k]
            - average_precision(pair.targets, pair.baseline_logits[s])[k]
            for s in range(3)
        ]
        assert row["difference"] == pytest.approx(sum(by_seed) / 3)
        assert row["positives"] == sum(pair.targets[:, k].tolist())


def test_adjusted_p_values_by_hand() -> None:
    table = class_gains(make_pair(better=0.4), resamples=200)
    ranked = table.sort_values("p")
    expected = [min(ranked["p"].iloc[i] * 4 / (i + 1) for i in range(rank, 4)) for rank in range(4)]
    assert ranked["adjusted"].tolist() == pytest.approx([min(1, value) for value in expected])
    assert (table["significant"] == (table["adjusted"] <= 0.05)).all()


def test_only_a_true_gain_is_significant() -> None:
    table = class_gains(make_pair(better=2.0, n=300), resamples=500)
    assert table["label"][0] == "class 0"
    assert table["significant"].tolist() == [True, False, False, False]
    assert table["difference"].is_monotonic_decreasing


def test_class_without_positives_comes_last() -> None:
    pair = make_pair()
    pair.targets[:, 1] = 0
    table = class_gains(pair, resamples=50)
    assert table["label"].iloc[-1] == "class 1"
    assert table.iloc[-1][["difference", "low", "p", "adjusted"]].isna().all()
    assert not table["significant"].iloc[-1]
    assert np.isfinite(gain(pair, resamples=50).difference)


def test_gain_is_the_mean_difference_over_seeds() -> None:
    pair = make_pair(better=2.0, n=200)
    result = gain(pair, resamples=300)
    by_seed = [
        average_precision(pair.targets, pair.logits[s]).mean()
        - average_precision(pair.targets, pair.baseline_logits[s]).mean()
        for s in range(3)
    ]
    assert result.difference == pytest.approx(sum(by_seed) / 3)
    assert result.low < result.difference < result.high
    assert result.minimum_detectable_effect == pytest.approx(minimum_detectable_effect(np.array(by_seed)))
    assert result.seeds == 3
    assert result.is_significant
    assert not gain(make_pair(n=200), resamples=300).is_significant


def test_gain_of_one_seed_is_not_significant() -> None:
    result = gain(make_pair(better=3.0, s=1, n=200), resamples=100)
    assert result.low > 0
    assert np.isnan(result.minimum_detectable_effect)
    assert not result.is_significant


@pytest.mark.parametrize("s", [5, 10])
def test_minimum_detectable_effect_has_its_power(s: int) -> None:
    """With seeds sampled around the effect, the t-test detects it in about 80 % of the studies."""
    rng = np.random.default_rng(0)
    standard = rng.normal(size=(4000, s))
    first = standard[0] / standard[0].std(ddof=1)
    effect = minimum_detectable_effect(first)  # for a standard deviation of 1
    assert effect == pytest.approx(minimum_detectable_effect(7 + first))
    assert np.mean(ttest_1samp(standard + effect, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.05)
    assert minimum_detectable_effect(2 * first) == pytest.approx(2 * effect)


def write_run(root: Path, data: MultiLabelData, method: str, seed: int) -> Run:
    training = {"role": "student", "backbone": "none", "seed": seed, "epochs": 1}
    run = open_run(root, {"method": method, "training": training})
    logits = np.random.default_rng(seed).normal(size=data.targets.shape) + (method == "l2d")
    run.write_predictions(
        "test", Predictions(np.array(data.ids), data.targets, logits.astype(np.float32), data.classes, data.ignore_mask)
    )
    return run


def test_pair_by_seed(toy_data: Data, tmp_path: Path) -> None:
    test = toy_data["test"]
    runs = [write_run(tmp_path, test, "l2d", seed) for seed in (2, 0, 7)]
    baseline = [write_run(tmp_path, test, "vanilla", seed) for seed in (0, 1, 2)]
    pair = pair_by_seed(runs, baseline)
    assert pair.seeds == (0, 2)
    np.testing.assert_allclose(pair.logits, pair.baseline_logits + 1, atol=1e-6)
    np.testing.assert_array_equal(pair.logits[1], runs[0].predictions("test").logits)
    assert pair.classes == test.classes
    with pytest.raises(
        ValueError, match=r"seeds \[7\] and the baseline runs \[0, 1, 2\]; expected at least one seed in both"
    ):
        pair_by_seed(runs[2:], baseline)
    other = write_run(tmp_path / "other", replace(test, targets=np.roll(test.targets, 1, axis=0)), "l2d", 1)
    masked = write_run(tmp_path / "masked", replace(test, ignore_mask=test.targets == 0), "l2d", 1)
    with pytest.raises(ValueError, match="different images or labels"):
        pair_by_seed([masked], baseline)
    with pytest.raises(ValueError, match="different images or labels"):
        pair_by_seed([other], baseline)
