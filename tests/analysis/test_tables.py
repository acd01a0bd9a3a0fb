"""Tables of runs, on runs that are written without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlkd.analysis import (
    class_ap_table,
    format_score,
    group_runs,
    mean_by_group,
    partition_stability,
    partition_table,
    per_class_ap,
    protocol_table,
    runs_on,
    runs_with_config,
    score_table,
    summary_table,
    top_predictions,
)
from mlkd.bootstrap import bootstrap_weights
from mlkd.data import MultiLabelData
from mlkd.graphs import cooccurrence, partition, stability
from mlkd.metrics import METRICS, PROTOCOLS, average_precision, evaluate
from mlkd.training.config import Config
from mlkd.training.runs import Predictions, Run, open_run

Data = dict[str, MultiLabelData]


def write_run(
    root: Path, data: Data, *, method: str = "vanilla", complete: bool = True, settings=None, **training
) -> Run:
    """A run whose logits are the labels plus noise that depends on the seed."""
    training = {"role": "student", "backbone": "resnet8_cifar", "epochs": 3, "seed": 0, **training}
    description = {
        name: (split.ids, split.classes, split.targets.tolist(), split.ignore_mask) for name, split in data.items()
    }
    splits = {name: str(value) for name, value in description.items()}
    data_settings = {"name": data["test"].name, "splits": splits}
    run = open_run(
        root, {"method": method, "settings": settings or {"teacher": None}, "data": data_settings, "training": training}
    )
    rng = np.random.default_rng(training["seed"])
    metrics = {}
    for name in [name for name in ("val", "test") if name in data]:
        split = data[name]
        logits = (split.targets - 0.5 + rng.normal(0, 1, split.targets.shape)).astype(np.float32)
        metrics[name] = {"mAP": float(np.nanmean(average_precision(split.targets, logits)))}
        if complete:
            run.write_predictions(
                name, Predictions(np.array(split.ids), split.targets, logits, split.classes, split.ignore_mask)
            )
    run.write_history([{"epoch": 1, "bce": 0.5, "val_mAP": 0.4}])
    if complete:
        run.finish({"best_epoch": 1, **metrics})
    return run


def test_groups_differ_in_the_seed_only(toy_data: Data, tmp_path: Path) -> None:
    def run(**changes) -> Run:
        return write_run(tmp_path, toy_data, **changes)

    runs = [
        run(seed=0),
        run(seed=1),
        run(seed=0, epochs=4),
        run(seed=1, epochs=4),
        run(method="l2d", settings={"lambda_cd": 1.0}),
        run(method="l2d", settings={"lambda_cd": 1.0}, seed=5),
        run(method="l2d", settings={"lambda_cd": 2.0}),
        run(method="l2d", settings={"lambda_cd": 3.0}),
        run(role="teacher"),
        run(role="teacher", backbone="resnet20_cifar"),
        write_run(tmp_path, {**toy_data, "test": toy_data["test"].subset(np.arange(30))}),
    ]
    groups = group_runs(runs)
    assert {title: [runs.index(member) for member in group] for title, group in groups.items()} == {
        "vanilla student": [0, 1],
        "vanilla student #2": [2, 3],
        "l2d student": [4, 5],
        "l2d student #2": [6],
        "l2d student #3": [7],
        "teacher": [8],
        "teacher #2": [9],
        "vanilla student #3": [10],
    }
    assert group_runs([]) == {}


def test_runs_on_other_data_are_excluded(toy_data: Data, tmp_path: Path) -> None:
    test = toy_data["test"]
    assert runs_on(tmp_path / "absent", test) == []
    expected = [write_run(tmp_path, toy_data, seed=0), write_run(tmp_path, toy_data, seed=1)]
    others = [
        replace(test, ids=tuple(f"x{i}" for i in test.ids)),
        replace(test, targets=np.roll(test.targets, 1, axis=0)),
        replace(test, classes=("red", "green", "blue", "light")),
        test.subset(np.arange(20)),
        replace(test, ignore_mask=test.targets == 0),
    ]
    for other in others:
        write_run(tmp_path, {**toy_data, "test": other})
    write_run(tmp_path, toy_data, seed=2, complete=False)
    assert [run.path for run in runs_on(tmp_path, test)] == sorted(run.path for run in expected)
    assert [len(runs_on(tmp_path, other)) for other in others] == [1, 1, 1, 1, 1]
    assert runs_on(tmp_path, replace(test, split="context_shift")) == []


def test_runs_with_another_config_are_excluded(toy_data: Data, tmp_path: Path, toy_config: Config) -> None:
    expected = [
        write_run(tmp_path, toy_data, **toy_config.as_dict()),
        write_run(tmp_path, toy_data, **toy_config.replace(seed=1).as_dict()),
        write_run(tmp_path, toy_data, method="l2d", **toy_config.as_dict()),
    ]
    for other in (
        toy_config.replace(epochs=2),
        toy_config.replace(role="teacher"),
        toy_config.replace(backbone="resnet20_cifar"),
    ):
        write_run(tmp_path, toy_data, **other.as_dict())
    runs = runs_with_config(runs_on(tmp_path, toy_data["test"]), toy_config)
    assert sorted(run.path for run in runs) == sorted(run.path for run in expected)


def test_score_table_is_evaluate_on_the_predictions(toy_data: Data, tmp_path: Path) -> None:
    ignore_mask = (toy_data["test"].targets == 0) & (np.random.default_rng(0).random((40, 4)) < 0.2)
    test = replace(toy_data["test"], ignore_mask=ignore_mask)
    data = {**toy_data, "test": test}
    runs = [write_run(tmp_path, data, seed=seed) for seed in (0, 1, 2)]
    single = write_run(tmp_path, data, method="l2d", seed=4)
    table = score_table({"three": runs, "one": [single]})
    assert len(table) == 2 * len(PROTOCOLS) * len(METRICS)
    assert list(table.columns) == ["run", "protocol", "metric", "mean", "std", "n"]
    for protocol in PROTOCOLS:
        scores = []
        for run in [*runs, single]:
            test, val = run.predictions("test"), run.predictions("val")
            validation = (val.targets, val.logits)
            scores.append(
                evaluate(
                    test.targets, test.logits, protocol, ignore_mask=ignore_mask, validation=validation, bootstrap=0
                )
            )
        for metric in METRICS:
            rows = table[(table["protocol"] == protocol) & (table["metric"] == metric)].set_index("run")
            three = [score[metric] for score in scores[:3]]
            assert rows.loc["three", "mean"] == pytest.approx(sum(three) / 3)
            assert rows.loc["three", "std"] == pytest.approx(np.std(three, ddof=1))
            assert rows.loc["three", "n"] == 3
            assert rows.loc["one", "mean"] == pytest.approx(scores[3][metric])
            assert np.isnan(rows.loc["one", "std"])
            assert rows.loc["one", "n"] == 1


def test_thresholds_are_not_tuned_without_val(toy_data: Data, tmp_path: Path) -> None:
    data = {"test": toy_data["test"]}
    table = score_table({"run": [write_run(tmp_path, data)]}, metrics=("OF1",)).set_index("protocol")["mean"]
    assert table.index.tolist() == list(PROTOCOLS)
    assert table[table.isna()].index.tolist() == ["tuned"]


def test_protocol_table_is_evaluate_on_the_predictions(toy_data: Data, tmp_path: Path) -> None:
    run = write_run(tmp_path, toy_data)
    test, val = run.predictions("test"), run.predictions("val")
    table = protocol_table(test, val)
    assert list(table.index) == list(PROTOCOLS)
    assert list(table.columns) == list(METRICS)
    for protocol in PROTOCOLS:
        validation = (val.targets, val.logits)
        expected = evaluate(test.targets, test.logits, protocol, validation=validation, bootstrap=0)
        assert table.loc[protocol].tolist() == [expected[metric] for metric in METRICS]
    assert table["mAP"].nunique() == 1
    assert list(protocol_table(test).index) == [protocol for protocol in PROTOCOLS if protocol != "tuned"]


def test_thresholds_are_tuned_on_val(toy_data: Data, tmp_path: Path) -> None:
    """The test labels are not used."""
    run = write_run(tmp_path, toy_data)
    test, val = run.predictions("test"), run.predictions("val")
    shifted = Predictions(val.ids, val.targets, val.logits + 5.0, val.classes)
    run.write_predictions("val", shifted)
    table = score_table({"run": [run]}, protocols=("tuned",), metrics=("OR",))
    expected = evaluate(test.targets, test.logits, "tuned", validation=(val.targets, val.logits + 5.0), bootstrap=0)
    assert table["mean"].tolist() == [expected["OR"]]
    assert expected["OR"] < 0.5  # the thresholds are too high by 5


def test_summary_table_in_percent(toy_data: Data, tmp_path: Path) -> None:
    runs = [write_run(tmp_path, toy_data, seed=seed) for seed in (0, 1)]
    write_run(tmp_path, toy_data, role="teacher", backbone="resnet14x2_cifar", epochs=0)
    write_run(tmp_path, {**toy_data, "test": toy_data["test"].subset(np.arange(20))})
    write_run(tmp_path, toy_data, method="l2d")
    write_run(tmp_path, toy_data, role="label_subset")
    table = summary_table(group_runs(runs_on(tmp_path, toy_data["test"], ["vanilla"]))).set_index("run")
    assert list(table.columns) == ["backbone", "epochs", "seeds", "mAP %", "CF1 %", "OF1 %"]
    assert sorted(table.index) == ["teacher", "vanilla student"]
    assert table.loc["teacher", ["backbone", "epochs", "seeds"]].tolist() == ["resnet14x2_cifar", 0, 1]
    scores = [100 * run.mean_ap["test"] for run in runs]
    student = table.loc["vanilla student"]
    assert student["seeds"] == 2
    assert student["mAP %"] == f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}"
    assert "±" not in table.loc["teacher", "mAP %"]
    assert len(summary_table(group_runs(runs_on(tmp_path / "absent", toy_data["test"])))) == 0


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [(0.571, 0.004, "57.1 ± 0.4"), (0.571, float("nan"), "57.1"), (1, 0, "100.0 ± 0.0"), (0.00049, 1e-9, "0.0 ± 0.0")],
)
def test_format_score(mean: float, std: float, text: str) -> None:
    assert format_score(mean, std) == text


def test_per_class_ap_is_that_of_evaluate(toy_data: Data, tmp_path: Path) -> None:
    test = toy_data["test"]
    targets = test.targets.copy()
    targets[:, 2] = 0  # a class without positives
    test = replace(test, targets=targets, ignore_mask=(targets == 0) & (np.arange(40)[:, None] < 5))
    run = write_run(tmp_path, {**toy_data, "test": test})
    predictions = run.predictions("test")
    scores = per_class_ap(run)
    assert scores.shape == (4,)
    assert np.isnan(scores[2])
    expected = evaluate(
        test.targets, predictions.logits, classes=test.classes, ignore_mask=test.ignore_mask, bootstrap=0
    )
    assert {name: scores[k] for k, name in enumerate(test.classes) if k != 2} == pytest.approx(expected["AP"])


@pytest.mark.parametrize("seed", [0, 4])
def test_mean_by_group_against_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"image": rng.integers(0, 12, 50), "run": "l2d", "hit": rng.random(50)})
    table.loc[3:6, "hit"] = np.nan
    row = mean_by_group(table, ("run",), ("hit",), resamples=60, seed=seed).iloc[0]
    images = list(dict.fromkeys(table["image"]))
    means = []
    for weights in bootstrap_weights(np.random.default_rng(seed), len(images), 60):
        values = [
            value
            for image, times in zip(images, weights, strict=True)
            for value in table.loc[table["image"] == image, "hit"].dropna().tolist() * int(times)
        ]
        means.append(sum(values) / len(values))
    assert row["hit"] == pytest.approx(table["hit"].mean())
    assert (row["hit_low"], row["hit_high"]) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=1e-5)
    assert (row["n"], row["images"]) == (50, len(images))


def random_targets(q: int = 7) -> np.ndarray:
    return (np.random.default_rng(0).random((60, q)) < 0.3).astype(np.uint8)


def test_partition_table_against_loops() -> None:
    e, n = cooccurrence(random_targets())
    clusters = np.array([0, 1, 0, 0, 2, 0, 1])
    row = partition_table((e, n), {"mine": clusters}, resamples=3000).loc["mine"]
    assert row["sizes"] == "4, 2, 1"
    within = sum(e[k, m] for k in range(7) for m in range(7) if clusters[k] == clusters[m])
    assert row["within"] == pytest.approx(within / e.sum())
    assert row["random"] == pytest.approx((4 * 3 + 2 * 1) / (7 * 6), abs=0.01)
    assert row["random_low"] < row["random"] < row["random_high"]


def test_partition_table_finds_communities() -> None:
    """Labels that co-occur in pairs: CGP is above the range of random partitions of its sizes, DGP is below it."""
    targets = np.tile(np.kron(np.eye(4, dtype=np.uint8), np.ones((1, 2), np.uint8)), (10, 1))
    counts = cooccurrence(targets)
    table = partition_table(counts, {name: partition(counts, 4, name) for name in ("cgp", "dgp")})
    assert table.loc["cgp", "within"] == 1 > table.loc["cgp", "random_high"]
    assert table.loc["dgp", "within"] <= table.loc["dgp", "random_low"]


def test_partition_stability_is_that_of_each_setting() -> None:
    counts = cooccurrence(random_targets())
    table = partition_stability(counts, ks=(2, 3), taus=(1, 3), seeds=3)
    assert len(table) == 8
    for row in table.itertuples():
        assert (row.ari, row.min) == stability(counts, row.k, row.strategy, row.tau, 3)


def test_class_ap_table_is_the_mean_over_seeds(toy_data: Data, tmp_path: Path) -> None:
    groups = {
        "a": [write_run(tmp_path, toy_data, seed=seed) for seed in range(2)],
        "b": [write_run(tmp_path, toy_data, method="l2d", seed=3)],
    }
    table = class_ap_table(groups)
    positives = dict(zip(toy_data["test"].classes, toy_data["test"].targets.sum(axis=0), strict=True))
    names = list(table.index[:-1])
    assert sorted(names) == sorted(positives)
    assert [positives[name] for name in names] == sorted(positives.values(), reverse=True)
    for title, runs in groups.items():
        for name in toy_data["test"].classes:
            values = [
                evaluate(p.targets, p.logits, classes=p.classes)["AP"][name]
                for p in (run.predictions("test") for run in runs)
            ]
            assert table.loc[name, title] == pytest.approx(100 * sum(values) / len(values))
        assert table.loc["mAP", title] == pytest.approx(np.mean([100 * run.mean_ap["test"] for run in runs]))


def test_top_predictions_are_ranked() -> None:
    probs, targets = np.array([0.2, 0.93, 0.5, 0.5]), np.array([0, 1, 0, 1])
    assert top_predictions(probs, targets, ("a", "dog", "c", "d"), k=3) == ["dog 93 % ✓", "c 50 %", "d 50 % ✓"]
