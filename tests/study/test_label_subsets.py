"""Networks of label subsets, trained by one call and merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from interruption import interrupt

from mlkd.analysis import group_runs, runs_on
from mlkd.data import DataError, MultiLabelData
from mlkd.graphs import cooccurrence, partition
from mlkd.methods import create_method
from mlkd.models import fingerprint
from mlkd.study import label_subsets
from mlkd.study.label_subsets import train_label_subsets
from mlkd.training.config import Config
from mlkd.training.loop import fit
from mlkd.training.runs import Run, iter_runs

pytestmark = pytest.mark.usefixtures("own_cache")

Data = Mapping[str, MultiLabelData]


@pytest.fixture
def config(toy_config: Config) -> Config:
    return toy_config.replace(epochs=1)


def groups(runs: list[Run]) -> list[tuple[str, ...]]:
    return sorted(run.predictions().classes for run in runs)


@pytest.mark.parametrize("strategy", ["cgp", "dgp", "random"])
def test_one_network_per_label_subset_and_their_merge(
    strategy: str, toy_data: Data, config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="mlkd")
    merged = train_label_subsets(toy_data, config, strategy, 2, seed=3, runs=tmp_path)
    subsets = partition(cooccurrence(toy_data["train"].targets), 2, strategy, seed=3)
    names = [tuple(np.array(toy_data["train"].classes)[subsets == number].tolist()) for number in (0, 1)]
    runs = list(iter_runs(tmp_path))
    assert groups(runs) == sorted(names)
    assert merged.classes == toy_data["train"].classes
    for run in runs:
        assert run.config["training"] == config.replace(role="label_subset").as_dict()
        assert (run.config["method"], run.config["settings"]["loss"]) == ("vanilla", "asl")
        assert run.config["data"]["name"].startswith("toy, ")
        images = torch.from_numpy(np.array(toy_data["test"].images)).permute(0, 3, 1, 2)
        columns = [merged.classes.index(name) for name in run.predictions().classes]
        with torch.no_grad():
            logits = merged.eval()(images).logits[:, columns]
        np.testing.assert_allclose(logits, run.predictions().logits, atol=1e-5)
    for number, classes in enumerate(names, start=1):
        assert f"{strategy}, label subset {number} of 2: {', '.join(classes)}" in caplog.messages


@pytest.mark.parametrize("subset_images", ["containing", "all"])
def test_images_of_a_label_subset(
    subset_images: str, toy_data: Data, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = []

    def record(method, data, *args, **kwargs):
        tasks.append(data)
        return fit(method, data, *args, **kwargs)

    monkeypatch.setattr(label_subsets, "fit", record)
    data = {**toy_data, "trainval": replace(toy_data["train"], split="trainval"), "other": toy_data["val"].subset([0])}
    train_label_subsets(data, config, "random", 2, runs=tmp_path, subset_images=subset_images)
    assert [list(task) for task in tasks] == [["train", "val", "test"]] * 2
    for task in tasks:
        columns = [toy_data["train"].classes.index(name) for name in task["train"].classes]
        assert len(columns) == 2
        for name in ("train", "val", "test"):
            whole = toy_data[name]
            kept = [
                row
                for row in range(len(whole))
                if name != "train" or subset_images == "all" or whole.targets[row, columns].any()
            ]
            assert (len(kept) < len(whole)) == (name == "train" and subset_images == "containing")
            assert task[name].ids == tuple(whole.ids[row] for row in kept)
            assert np.array_equal(task[name].targets, whole.targets[kept][:, columns])
            assert all(np.array_equal(task[name].images[k], whole.images[row]) for k, row in enumerate(kept))


def test_a_second_call_trains_nothing_and_an_interrupted_one_is_resumed(
    toy_data: Data, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with interrupt(2, label_subsets, "fit"):
        train_label_subsets(toy_data, config, "random", 2, runs=tmp_path)
    first = train_label_subsets(toy_data, config, "random", 2, runs=tmp_path)
    assert capsys.readouterr().out.count("epoch 1/1") == 2
    again = train_label_subsets(toy_data, config, "random", 2, runs=tmp_path)
    assert "epoch 1/1" not in capsys.readouterr().out
    assert fingerprint(first) == fingerprint(again)
    assert fingerprint(first) != fingerprint(train_label_subsets(toy_data, config, "random", 2, seed=1, runs=tmp_path))


def test_all_labels_is_one_network_on_all_images(toy_data: Data, config: Config, tmp_path: Path) -> None:
    whole = train_label_subsets(toy_data, config, "all_labels", runs=tmp_path)
    (run,) = iter_runs(tmp_path)
    same = fit(create_method("vanilla", loss="asl"), toy_data, config.replace(role="label_subset"), runs=tmp_path)
    assert run.path == same.path
    assert run.predictions().classes == whole.classes


def test_arguments_of_the_partition(
    toy_data: Data, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def record(counts, *args, as_in_paper):
        calls.append((*args, as_in_paper))
        return np.array([0, 1, 1, 0])

    monkeypatch.setattr(label_subsets.graphs, "partition", record)
    train_label_subsets(toy_data, config, "dgp", 2, tau=2.5, seed=7, as_in_paper=True, runs=tmp_path)
    train_label_subsets(toy_data, config, "cgp", 2, runs=tmp_path)
    assert calls == [(2, "dgp", 2.5, 7, True), (2, "cgp", 3.0, 0, False)]
    assert groups(list(iter_runs(tmp_path))) == [("green", "blue"), ("red", "dark")]


def test_label_subset_of_one_label_gives_a_warning(
    toy_data: Data, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(label_subsets.graphs, "partition", lambda *_, **__: np.array([0, 1, 0, 0]))
    for subset_images, strategy in (("all", "dgp"), ("containing", "dgp")):
        splits = label_subsets.label_subset_data(toy_data, strategy, 2, subset_images=subset_images)
        assert splits[1]["train"].targets.all() == (subset_images == "containing")
    (message,) = caplog.messages
    assert message.startswith("dgp, k=2: a label subset of one label each: green. With subset_images='containing', all")
    assert "sees no negative" in message


def test_networks_have_word_vectors(toy_data: Data, config: Config, tmp_path: Path) -> None:
    glove = tmp_path / "glove.txt"
    glove.write_text("red 1 0 0\ngreen 0 1 0\nblue 0 0 1\ndark 1 1 0\n")
    settings = {"layers": 1, "heads": 2, "word_vectors": str(glove)}
    config = config.replace(epochs=0, head="transformer", embed_dim=8, head_settings=settings)
    merged = train_label_subsets(toy_data, config, "random", 2, runs=tmp_path / "runs")
    vectors = {"red": [1, 0, 0], "green": [0, 1, 0], "blue": [0, 0, 1], "dark": [1, 1, 0]}
    assert len(merged.models) == 2
    for model in merged.models:
        assert model.head.word_vectors.tolist() == [vectors[name] for name in model.classes]


def test_another_method(toy_data: Data, config: Config, tmp_path: Path) -> None:
    train_label_subsets(
        toy_data, config, "random", 2, method=create_method("vanilla", reduction="batchmean"), runs=tmp_path
    )
    assert {run.config["settings"]["loss"] for run in iter_runs(tmp_path)} == {"bce"}


def test_tables_of_students_have_no_label_subsets(toy_data: Data, config: Config, tmp_path: Path) -> None:
    """Neither networks of label subsets nor the one of all labels are students, or the teacher."""
    student = fit("vanilla", toy_data, config, runs=tmp_path)
    train_label_subsets(toy_data, config, "cgp", 2, runs=tmp_path)
    assert [run.path for run in runs_on(tmp_path, toy_data["test"])] == [student.path]
    train_label_subsets(toy_data, config, "all_labels", runs=tmp_path)
    assert list(group_runs(runs_on(tmp_path, toy_data["test"]))) == ["vanilla student"]


def test_wrong_arguments(toy_data: Data, config: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`strategy` is 'teacher', expected one of cgp, dgp, random, all_labels"):
        train_label_subsets(toy_data, config, "teacher", 2, runs=tmp_path)
    with pytest.raises(ValueError, match="`subset_images` is 'any'"):
        train_label_subsets(toy_data, config, "cgp", 2, runs=tmp_path, subset_images="any")
    with pytest.raises(ValueError, match="`k` is 2, expected 1: the strategy 'all_labels'"):
        train_label_subsets(toy_data, config, "all_labels", 2, runs=tmp_path)
    with pytest.raises(ValueError, match="`k` is 5"):
        train_label_subsets(toy_data, config, "cgp", 5, runs=tmp_path)
    targets = toy_data["train"].targets.copy()
    targets[:, 0] = 0
    data = {**toy_data, "train": replace(toy_data["train"], targets=targets)}
    with pytest.raises(DataError, match="toy, 1 of 4 labels train: the split is empty"):
        train_label_subsets(data, config, "random", 4, runs=tmp_path)
