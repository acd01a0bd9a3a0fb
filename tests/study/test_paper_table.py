"""The files of the papers' tables, and the tables: with runs that were written, not trained, but for one sweep."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from in_process import InProcess
from matplotlib.figure import Figure

from mlkd.methods import METHODS
from mlkd.metrics import average_precision
from mlkd.study import create_study
from mlkd.study.executors import command
from mlkd.study.paper_table import format_table, reported_lines, sensitivity_figure, sweep_table
from mlkd.study.read import recipe_files
from mlkd.study.run_sweep import SWEEP_FILE, run_sweep
from mlkd.study.sweep import Sweep, expand_tasks, load_sweep
from mlkd.training.runs import Predictions, Run

pytestmark = pytest.mark.usefixtures("own_cache")

PAPERS = Path(__file__).parents[2] / "examples" / "papers"
FILES = sorted(file.stem for file in PAPERS.glob("*.yml"))

every_file = pytest.mark.parametrize("name", FILES)


# The files

EXPECTED = """
    l2d-table1 l2d-table2 l2d-table4 l2d-table5 l2d-table6 l2d-table7 l2d-table8 l2d-figure6
    mdkd-table1 mdkd-table2 mdkd-table4 mdkd-table5 mdkd-figure4
    cpsd-table1 cpsd-table2 cpsd-table3 cpsd-figure3
    mskd-table1 mskd-table2 mskd-table3 mskd-table4 mskd-figure4
    l2d-label-space l2d-overhead l2d-weak-teachers
"""


def test_each_table_has_a_file() -> None:
    assert sorted(EXPECTED.split()) == FILES


def load_file(name: str) -> Sweep:
    """The sweep of a file with an address for each data set that it names."""
    sweep = load_sweep(PAPERS / f"{name}.yml")
    datasets = {reported.dataset for study in sweep.study if (reported := create_study(study).reported)}
    if name == "cpsd-figure3":  # the same settings on both
        datasets.add("nuswide")
    return sweep.replace(data=[f"{dataset}:/x" for dataset in sorted(datasets)])


@every_file
def test_a_file_resolves_to_valid_studies(name: str) -> None:
    sweep = load_file(name)
    tasks = expand_tasks(sweep)
    assert {task.study for task in tasks} == set(sweep.study)
    assert {task.data.partition("?")[0] for task in tasks} == set(sweep.data)
    groups = {task.group for task in tasks}
    assert set(sweep.table.reported) <= groups
    assert sweep.methods[0] == "vanilla"
    for task in tasks:
        reported = create_study(task.study).reported
        assert reported is not None
        assert task.data == reported.data_address("/x") or name == "cpsd-figure3"
        distilled = task.group and task.group.split()[0] not in ("vanilla", "teacher")
        assert not distilled or task.baseline in groups


@every_file
def test_a_file_has_its_structure_in_smoke_size(name: str) -> None:
    sweep = load_sweep(PAPERS / f"{name}.yml", study="smoke", data=["scenes"])
    assert sweep.name == f"{name}-smoke"
    tasks = expand_tasks(sweep)
    assert {task.group for task in tasks} == {task.group for task in expand_tasks(load_file(name))}
    assert {task.data for task in tasks} == {"scenes"}


def test_every_recipe_belongs_to_a_table() -> None:
    used = {study for name in FILES for study in load_sweep(PAPERS / f"{name}.yml").study}
    recipes = {name for name in recipe_files() if not name.endswith("-common")}
    assert recipes - used == {"l2d-coco-r101-r34-official"}


@pytest.mark.parametrize("name", [name for name in FILES if "table" in name])
def test_a_table_trains_the_methods_that_it_reports(name: str) -> None:
    sweep = load_sweep(PAPERS / f"{name}.yml")
    if sweep.table.reported:
        return
    paper, table = re.fullmatch(r"(\w+)-table(\d)", name).groups()
    for study in sweep.study:
        reported = create_study(study).reported
        assert reported.method == paper
        assert table in reported.table or table == "3"  # CPSD's ablation adds rows to its Table 1
        rows = {row for row in reported.scores if row in METHODS} - {"sd", "cgpd", "dgpd"}
        assert rows <= set(sweep.methods)


# A table


RECIPE = """
base: smoke
reported:
  paper: Somebody, 2020
  table: '1'
  dataset: voc
  options: year=2007
  networks: large -> small
  method: l2d
  protocol: threshold(0.5)
  scores:
    teacher: {mAP: 80.25, CF1: 70.5}
    Other system: {mAP: 77.0, CF1: 60.0}
    vanilla: {mAP: 60.0, CF1: 50.0}
    mld: {mAP: 65.0, CF1: 55.0}
    l2d: {mAP: 70.0, CF1: 60.0}
"""


def write_runs(sweep: Sweep, quality: Callable[[str], float] = lambda group: len(group) / 4) -> None:
    """A complete run for each task of a sweep, with logits that fit the targets as well as `quality` says."""
    sweep.folder.mkdir(parents=True)
    (sweep.folder / SWEEP_FILE).write_text(sweep.to_yaml())
    targets = np.random.default_rng(0).integers(0, 2, (60, 4)).astype(np.uint8)
    for number, task in enumerate(expand_tasks(sweep)):
        noise = np.random.default_rng(number).normal(size=targets.shape)
        logits = (quality(task.group) * (targets - 0.5) + noise).astype(np.float32)
        path = Path(sweep.runs) / f"run{number}"
        path.mkdir()
        seed = int(task.arguments[task.arguments.index("--seed") + 1]) if "--seed" in task.arguments else 0
        training = {"role": "student", "backbone": "net", "seed": seed, "epochs": 1}
        (path / "config.json").write_text(json.dumps({"method": "vanilla", "training": training}))
        (path / "metrics.json").write_text(json.dumps({"test": {"mAP": average_precision(targets, logits).mean()}}))
        (path / "history.csv").write_text(f"epoch,seconds,images_per_second\n1,{number + 1},50\n")
        ids = np.array([str(row) for row in range(len(targets))])
        Run(path).write_predictions("test", Predictions(ids, targets, logits, ("a", "b", "c", "d")))
        (sweep.folder / f"{task.name}.log").write_text(f"$ {command(task.arguments)}\n{path}: mAP % test 50.00\n")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yml").write_text(RECIPE)
    return "recipe.yml"


def test_ours_and_the_papers_scores_are_side_by_side(recipe: str) -> None:
    sweep = Sweep(name="t", study=recipe, data="voc:/x", methods=("vanilla", "mld", "l2d"), seeds=(0, 1, 2))
    write_runs(sweep)
    for log in sweep.folder.glob("mld*.log"):
        log.unlink()  # not there yet
    table = sweep_table(sweep, resamples=20)
    assert list(dict.fromkeys(table["row"])) == ["Other system", "teacher", "vanilla", "mld", "l2d"]
    assert set(table["networks"]) == {"large -> small"}
    scores = table.set_index(["row", "metric"])
    l2d = scores.loc["l2d", "mAP"]
    runs = [Run(f"runs/run{number}") for number in range(7)]
    by_group = {"teacher": runs[:1], "vanilla": runs[1:4], "l2d": runs[-3:]}
    means = {name: 100 * np.mean([run.mean_ap["test"] for run in group]) for name, group in by_group.items()}
    assert (l2d["seeds"], l2d["reported"], l2d["reported_gain"]) == (3, 70.0, 10.0)
    assert scores.loc["vanilla", "mAP"]["mean"] == pytest.approx(means["vanilla"])
    assert scores.loc["teacher", "mAP"][["mean", "seeds"]].tolist() == [pytest.approx(means["teacher"]), 1]
    assert l2d["gain_low"] < l2d["gain"] < l2d["gain_high"]
    assert scores.loc["mld", "mAP"][["mean", "gain"]].isna().all()
    assert scores.loc["teacher", "mAP"][["gain", "reported_gain"]].isna().all()

    text = format_table(sweep, table).splitlines()
    assert text[0] == "t"
    assert "threshold(0.5): a probability of at least 0.5" in text[1]
    assert "large -> small, voc:/x?year=2007" in text
    cells = {line.split("  ")[0]: re.split(r"\s{2,}", line) for line in text}
    assert re.fullmatch(r"\d+\.\d ± \d+\.\d \(3\)", cells["vanilla"][1])
    assert cells["mld"] == ["mld", "-", "+5.00"]  # of the last block, the gains
    first = text.index(next(line for line in text if line.startswith("Other system")))
    assert re.split(r"\s{2,}", text[first]) == ["Other system", "-", "77.00", "-", "60.0"]
    assert re.search(r"^l2d +[+-]\d+\.\d \[-?\d+\.\d, -?\d+\.\d\]( \*)? +\+10\.00$", text[-1])


def test_without_runs_the_papers_scores_are_shown(recipe: str) -> None:
    sweep = Sweep(name="t", study=recipe, methods=("vanilla", "l2d"))
    table = sweep_table(sweep)
    assert set(table["row"]) == {"teacher", "Other system", "vanilla", "l2d"}  # mld is not trained
    assert set(table["seeds"]) == {0}
    assert "70.00" in format_table(sweep, table)


def test_other_data_has_no_reported_scores(recipe: str) -> None:
    sweep = Sweep(name="t", study=recipe, data="coco:/x", methods="vanilla", seeds=(0,))
    write_runs(sweep)
    table = sweep_table(sweep)
    assert table["reported"].isna().all()
    assert set(table["row"]) == {"vanilla"}


def test_one_metric_has_the_networks_as_columns(recipe: str) -> None:
    Path("other.yml").write_text(RECIPE.replace("large -> small", "wide -> narrow").replace("70.0,", "71.0,"))
    layout = {"metrics": ["mAP"], "caption": "Two networks", "notes": ["A note."]}
    Path("t.yml").write_text(
        json.dumps({"study": [recipe, "other.yml"], "methods": ["vanilla", "l2d"], "table": layout})
    )
    sweep = load_sweep("t.yml")
    text = format_table(sweep, sweep_table(sweep))
    assert text.startswith("Two networks\n")
    assert text.endswith("A note.")
    assert re.search(r"^l2d +- +70.00 +- +71.00$", text, re.MULTILINE)
    narrow = format_table(sweep, sweep_table(sweep), width=40).splitlines()
    assert max(map(len, narrow[3:])) <= 40
    assert sum(line.startswith("l2d ") for line in narrow) >= 3


def test_seeds_of_other_kinds_are_repetitions_of_one_row(recipe: str) -> None:
    """Random partitions: their runs share a row, and its gain has no interval."""
    grid = {"random-psd.k": (2, 3), "random-psd.partition_seed": (0, 1, 2)}
    methods = ("vanilla", "random-psd")
    sweep = Sweep(name="t", study=recipe, data="voc:/x", methods=methods, grid=grid, seeds=(0, 1))
    write_runs(sweep)
    scores = sweep_table(sweep).set_index(["row", "metric"])
    for row in ("random-psd k=2", "random-psd k=3"):
        gain = scores.loc[row, "mAP"]
        assert gain["seeds"] == 6
        assert gain["gain"] == pytest.approx(gain["mean"] - scores.loc["vanilla", "mAP"]["mean"])
        assert np.isnan(gain["gain_low"])


# The plot, costs and a user's own result


def test_sensitivity_has_a_panel_for_each_setting(recipe: str) -> None:
    grid = ({"l2d.lambda_cd": (0, 1, 10)}, {"l2d.lambda_id": (0, 5)})
    sweep = Sweep(name="t", study=recipe, data="voc:/x", methods=("vanilla", "l2d"), grid=grid, seeds=(0, 1))
    with pytest.raises(ValueError, match="no finished run has a setting that varies"):
        sensitivity_figure(sweep)
    write_runs(sweep)
    figure = sensitivity_figure(sweep)
    assert isinstance(figure, Figure)
    panels = {ax.get_xlabel(): ax for ax in figure.axes}
    assert list(panels) == ["lambda_cd", "lambda_id"]
    ticks = [label.get_text() for label in panels["lambda_cd"].get_xticklabels()]
    assert ticks == ["0", "1", "10"]
    dots = [line for line in panels["lambda_id"].lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [2, 2]  # two seeds at each value
    assert sum(line.get_linestyle() == "--" for line in panels["lambda_id"].lines) == 2  # vanilla and the teacher


def test_costs_are_relative_to_the_baseline_of_the_same_data(recipe: str) -> None:
    grid, layout = {"max_images": (10, 20)}, {"metrics": ["relative_time", "epoch_seconds"]}
    Path("t.yml").write_text(
        json.dumps({"study": recipe, "data": "voc:/x", "methods": ["vanilla", "mld"], "grid": grid, "table": layout})
    )
    sweep = load_sweep("t.yml", seeds=1)
    write_runs(sweep)
    tasks = [task.group for task in expand_tasks(sweep)]
    seconds = {group: tasks.index(group) + 1 for group in tasks}  # as `write_runs` writes them
    scores = sweep_table(sweep).set_index(["row", "metric"])["mean"]
    for size in (10, 20):
        expected = seconds[f"mld max_images={size}"] / seconds[f"vanilla max_images={size}"]
        assert scores[f"mld max_images={size}", "relative_time"] == pytest.approx(expected)
    assert scores["mld max_images=10", "epoch_seconds"] == seconds["mld max_images=10"]


def test_a_result_is_shown_beside_the_reported_one(recipe: str) -> None:
    sweep = Sweep(name="t", study=recipe, data="voc:/x", methods="l2d", seeds=(0,))
    write_runs(sweep)
    run = Run("runs/run1")
    lines = reported_lines(create_study(recipe, data="voc:/x"), "l2d", run)
    assert lines[0] == "Reported (Somebody, 2020, table 1; protocol threshold(0.5)): mAP 70.0, CF1 60.0"
    assert re.fullmatch(r"This run (.*): mAP \d+\.\d, CF1 \d+\.\d", lines[1])
    assert f"mAP {100 * run.mean_ap['test']:.1f}" in lines[1]
    assert reported_lines(create_study(recipe, data="coco:/x"), "l2d", run) == []
    assert reported_lines(create_study(recipe, data="voc:/x"), "mse", run) == []
    assert reported_lines(create_study("smoke"), "l2d", run) == []


# From the file to the table

TINY = {
    "student.backbone_settings": {"stem_stride": 2, "widths": [8, 8, 8]},
    "student.embed_dim": 8,
    "student.image_size": 32,
    "student.batch_size": 16,
}


def test_a_table_is_trained_and_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlkd.study.run_sweep.create_executor", lambda *_: InProcess())
    file = PAPERS / "mskd-table4.yml"
    overrides = TINY | {"mskd.propagation_steps": [1, 2], "max_images": 32}
    assert run_sweep(load_sweep(file, study="smoke", data=["scenes"], overrides=overrides)) == 0
    sweep = load_sweep(file, study="smoke")
    text = format_table(sweep, sweep_table(sweep, resamples=10))
    assert text.startswith("MSKD, Table 4")
    for row in ("vanilla", "mskd propagation_steps=1", "mskd propagation_steps=2"):
        assert re.search(rf"^{row} + *(\d+\.\d \(1\) *){{5}}$", text, re.MULTILINE), text


SLOW = ("l2d-weak-teachers", "mdkd-figure4")
"""The files with the most runs."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.soak) if n in SLOW else n for n in FILES])
def test_each_file_is_trained_in_smoke_size(
    name: str, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What several files train, such as the teacher and the baseline, is trained once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlkd.study.run_sweep.create_executor", lambda *_: InProcess())
    overrides = TINY | {"max_images": 32}
    if name == "cpsd-figure3":  # small label subsets have no positives in so few images
        overrides |= {f"{method}.k": [2] for method in ("cgpd", "dgpd", "random-psd")}
    runs = str(shared_folder / "paper-runs")
    sweep = load_sweep(PAPERS / f"{name}.yml", study="smoke", data=["scenes"], seeds=1, runs=runs, overrides=overrides)
    assert run_sweep(sweep) == 0
    trained = sweep_table(sweep, resamples=10).dropna(subset="mean")
    assert set(trained["row"]) == {task.group for task in expand_tasks(sweep)} - {""}
