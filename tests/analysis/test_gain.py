"""Gains: the bootstrap against one written out, resampled AP against repeated pictures, and what noise looks like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from mlkd.analysis import class_gains, gain, minimum_detectable_effect, pair_by_seed
from mlkd.analysis.gain import Paired, resampled_ap
from mlkd.analysis.intervals import draws
from mlkd.data import MultiLabelData
from mlkd.metrics import average_precision
from mlkd.training.runs import Predictions, Run, open_run

Data = dict[str, MultiLabelData]
RNG = np.random.default_rng(0)


def made(better: float = 0.0, s: int = 3, n: int = 60, q: int = 4, noise: float = 0.3, seed: int = 0) -> Paired:
    """Logits that know the labels; ours know the first label better, and the seeds differ a little."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, q)) < 0.4).astype(np.uint8)
    common = targets + rng.normal(size=(n, q))
    ours, theirs = (common + noise * rng.normal(size=(s, n, q)) for _ in range(2))
    ours[:, :, 0] += better * targets[:, 0]
    names = tuple(f"class {k}" for k in range(q))
    return Paired(targets, None, ours.astype(np.float32), theirs.astype(np.float32), names, tuple(range(s)))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("with_ignored", [False, True])
def test_resampled_ap_is_that_of_repeated_pictures(ties: bool, with_ignored: bool) -> None:
    targets = (RNG.random((25, 3)) < 0.3).astype(np.uint8)
    targets[:, 2] = 0
    targets[4, 2] = 1  # one positive: absent from some resamples
    scores = RNG.normal(size=(25, 3))
    if ties:
        scores = scores.round()
    ignore_mask = (RNG.random((25, 3)) < 0.2) & (targets == 0) if with_ignored else None
    drawn = draws(np.random.default_rng(1), 25, 20)
    assert (drawn.sum(axis=1) == 25).all()
    found = resampled_ap(targets, scores, drawn, ignore_mask)
    for r in range(20):
        rows = np.repeat(np.arange(25), drawn[r].astype(int))
        part = None if ignore_mask is None else ignore_mask[rows]
        np.testing.assert_allclose(found[r], average_precision(targets[rows], scores[rows], part), atol=1e-6)
    assert np.isnan(found[:, 2]).any()


def test_the_bootstrap_written_out() -> None:
    pair = made(better=1.0)
    table = class_gains(pair, resamples=40, seed=5)
    rng = np.random.default_rng(5)
    pictures, seeds = draws(rng, 60, 40), draws(rng, 3, 40)
    for k, label in enumerate(pair.classes):
        values = []
        for r in range(40):
            rows = np.repeat(np.arange(60), pictures[r].astype(int))
            difference = 0.0
            for s in range(3):
                ap = [average_precision(pair.targets[rows], side[s][rows])[k] for side in (pair.ours, pair.theirs)]
                difference += seeds[r, s] * (ap[0] - ap[1]) / 3
            values.append(difference)
        row = table[table["label"] == label].iloc[0]
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-6)
        one_side = min(sum(v <= 0 for v in values), sum(v >= 0 for v in values))
        assert row["p"] == pytest.approx(min(1, 2 * (1 + one_side) / 41))
        by_seed = [
            average_precision(pair.targets, pair.ours[s])[k] - average_precision(pair.targets, pair.theirs[s])[k]
            for s in range(3)
        ]
        assert row["difference"] == pytest.approx(sum(by_seed) / 3)
        assert row["positives"] == sum(pair.targets[:, k].tolist())


def test_benjamini_and_hochberg_by_hand() -> None:
    table = class_gains(made(better=0.4), resamples=200)
    ranked = table.sort_values("p")
    expected = [min(ranked["p"].iloc[i] * 4 / (i + 1) for i in range(rank, 4)) for rank in range(4)]
    assert ranked["adjusted"].tolist() == pytest.approx([min(1, value) for value in expected])
    assert (table["significant"] == (table["adjusted"] <= 0.05)).all()


def test_a_true_gain_is_found_and_noise_is_not() -> None:
    table = class_gains(made(better=2.0, n=300), resamples=500)
    assert table["label"][0] == "class 0"
    assert table["significant"].tolist() == [True, False, False, False]
    assert table["difference"].is_monotonic_decreasing


def test_a_class_without_positives() -> None:
    pair = made()
    pair.targets[:, 1] = 0
    table = class_gains(pair, resamples=50)
    assert table["label"].iloc[-1] == "class 1"
    assert table.iloc[-1][["difference", "low", "p", "adjusted"]].isna().all()
    assert not table["significant"].iloc[-1]
    assert np.isfinite(gain(pair, resamples=50).difference)


def test_gain() -> None:
    pair = made(better=2.0, n=200)
    found = gain(pair, resamples=300)
    by_seed = [
        average_precision(pair.targets, pair.ours[s]).mean() - average_precision(pair.targets, pair.theirs[s]).mean()
        for s in range(3)
    ]
    assert found.difference == pytest.approx(sum(by_seed) / 3)
    assert found.low < found.difference < found.high
    assert found.smallest == pytest.approx(minimum_detectable_effect(np.array(by_seed)))
    assert found.seeds == 3
    assert found.is_significant
    assert not gain(made(n=200), resamples=300).is_significant


def test_a_gain_with_one_seed_is_never_called_real() -> None:
    found = gain(made(better=3.0, s=1, n=200), resamples=100)
    assert found.low > 0
    assert np.isnan(found.smallest)
    assert not found.is_significant


@pytest.mark.parametrize("s", [5, 10])
def test_the_smallest_effect_is_found_with_that_power(s: int) -> None:
    """Seeds drawn around the effect: the t-test finds it in about 80 of 100 studies."""
    rng = np.random.default_rng(0)
    standard = rng.normal(size=(4000, s))
    first = standard[0] / standard[0].std(ddof=1)
    effect = minimum_detectable_effect(first)  # for a standard deviation of 1
    assert effect == pytest.approx(minimum_detectable_effect(7 + first))
    assert np.mean(ttest_1samp(standard + effect, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.05)
    assert minimum_detectable_effect(2 * first) == pytest.approx(2 * effect)


def write(root: Path, data: MultiLabelData, method: str, seed: int) -> Run:
    run = open_run(root, {"method": method, "training": {"role": "student", "backbone": "none", "seed": seed}})
    logits = np.random.default_rng(seed).normal(size=data.targets.shape) + (method == "l2d")
    run.write_predictions(
        "test", Predictions(np.array(data.ids), data.targets, logits.astype(np.float32), data.classes, data.ignore_mask)
    )
    return run


def test_runs_are_paired_by_seed(toy_data: Data, tmp_path: Path) -> None:
    test = toy_data["test"]
    ours = [write(tmp_path, test, "l2d", seed) for seed in (2, 0, 7)]
    theirs = [write(tmp_path, test, "vanilla", seed) for seed in (0, 1, 2)]
    pair = pair_by_seed(ours, theirs)
    assert pair.seeds == (0, 2)
    np.testing.assert_allclose(pair.ours, pair.theirs + 1, atol=1e-6)
    np.testing.assert_array_equal(pair.ours[1], ours[0].predictions("test").logits)
    assert pair.classes == test.classes
    with pytest.raises(ValueError, match=r"seeds \[7\] and \[0, 1, 2\]; expected at least one in common"):
        pair_by_seed(ours[2:], theirs)
    other = write(tmp_path / "other", replace(test, targets=np.roll(test.targets, 1, axis=0)), "l2d", 1)
    masked = write(tmp_path / "masked", replace(test, ignore_mask=test.targets == 0), "l2d", 1)
    with pytest.raises(ValueError, match="different pictures or labels"):
        pair_by_seed([masked], theirs)
    with pytest.raises(ValueError, match="different pictures or labels"):
        pair_by_seed([other], theirs)
