"""Tuning: equal numbers of trials, the best on validation, stopped and failed trials, resumed and repeated searches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from toy import TOY_SPLITS

import mlkd
from mlkd.data import MultiLabelData
from mlkd.study import Study, run_tuning, tune
from mlkd.study.executors import Job
from mlkd.study.read import parse_override
from mlkd.study.run_tuning import TUNED_FILE
from mlkd.study.tune import Range, Tuning, load_tuning
from mlkd.training.config import Config

EPOCHS = 4

pytest.importorskip("optuna")


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path,
    toy_data: dict[str, MultiLabelData],
    toy_config: Config,
    monkeypatch: pytest.MonkeyPatch,
    own_cache: None,
) -> Path:
    """A folder to work in, with a study of tiny networks."""
    monkeypatch.chdir(tmp_path)
    TOY_SPLITS["<tuning>"] = {name: replace(split, name="toy") for name, split in toy_data.items()}
    config = toy_config.replace(epochs=EPOCHS)
    teacher = config.replace(role="teacher", epochs=0)
    (tmp_path / "study.yml").write_text(Study(data="toy:<tuning>", teacher=teacher, student=config).to_yaml())
    return tmp_path


def tuning(**changes: Any) -> Tuning:
    settings: dict[str, Any] = {
        "name": "t",
        "study": "study.yml",
        "methods": ("vanilla",),
        "space": {"student.lr": {"low": 1e-4, "high": 1e-1, "log": True}},
        "trials": 5,
    }
    return Tuning(**{**settings, **changes})


class Curves:
    """An executor without trainings: each run has a curve of mAP on validation that ends at the score of its settings.

    Each call of `poll` is one epoch of all running jobs.
    """

    def __init__(self, score: Callable[[Study, str], float], jobs: int = 2, polls: int = 10_000):
        self.score, self.jobs, self.polls = score, jobs, polls
        self.running: dict[str, tuple[Any, float]] = {}
        self.started: list[str] = []
        self.stopped: list[str] = []

    def has_capacity(self) -> bool:
        return len(self.running) < self.jobs

    def start(self, job: Job) -> None:
        options = dict(zip(job.arguments, job.arguments[1:], strict=False))
        overrides = dict(
            parse_override(value)
            for name, value in zip(job.arguments, job.arguments[1:], strict=False)
            if name == "--set"
        )
        study = mlkd.create_study(options["--study"], runs=options["--runs"], overrides=overrides)
        assert "--role" not in options, "teachers are trained by another executor"
        run = study.find_student(options["--method"], int(options["--seed"]))
        self.running[job.name] = run, self.score(study, options["--method"])
        self.started.append(job.name)

    def poll(self) -> list[tuple[str, str]]:
        self.polls -= 1
        if not self.polls:
            raise KeyboardInterrupt
        ended = []
        for name, (run, score) in list(self.running.items()):
            if score != score:
                ended.append((name, "exit status 1: the loss is nan"))
                continue
            rows = len(run.history) + 1
            run.write_history([{"epoch": n, "val_mAP": score * n / EPOCHS} for n in range(1, rows + 1)])
            if rows == EPOCHS:
                run.finish({"val": {"mAP": score}, "test": {"mAP": 1 - score}})  # test must not be used
                ended.append((name, ""))
        for name, _ in ended:
            del self.running[name]
        return ended

    def stop(self, name: str) -> None:
        self.stopped.append(name)
        del self.running[name]

    def terminate(self) -> None:
        self.running.clear()


def lr_score(study: Study, _: str) -> float:
    """The best learning rate is 0.02, and the best score 0.9."""
    import math

    return 0.9 - 0.2 * abs(math.log10(study.student.lr / 0.02))


def run(given: Tuning, monkeypatch: pytest.MonkeyPatch, score: Callable[[Study, str], float], **options: Any) -> Curves:
    """Runs a tuning with `Curves`; teachers are trained in this process."""
    executor = Curves(score, **options)
    monkeypatch.setattr(run_tuning, "create_executor", lambda *_: executor)
    monkeypatch.setattr(run_tuning, "run_tasks", lambda *_: {})
    executor.status = run_tuning.run_tuning(given)  # type: ignore[attr-defined]
    return executor


def trials(given: Tuning) -> pd.DataFrame:
    return pd.read_csv(given.folder / "trials.csv")


def test_the_best_settings_on_validation_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    given = tuning()
    executor = run(given, monkeypatch, lr_score)
    table = trials(given)
    assert len(table) == given.trials
    assert table["student.lr"][0] == mlkd.create_study("study.yml").student.lr  # the study's own setting
    complete = table[table["state"] == "complete"]
    best = complete.loc[complete["val_mAP"].idxmax()]
    tuned = mlkd.create_study(given.folder / TUNED_FILE)
    assert tuned.student.lr == best["student.lr"]
    assert tuned.data == "toy:<tuning>"
    assert (given.folder / "trials.png").stat().st_size > 1000
    assert executor.status == 0  # type: ignore[attr-defined]


def test_settings_of_the_student_are_tuned_first_and_fixed_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"student.lr": {"low": 1e-4, "high": 1e-1, "log": True}, "mld.lambda_mld": {"low": 1.0, "high": 100.0}}
    given = tuning(methods=("mld", "vanilla"), space=space, trials=3)
    executor = run(given, monkeypatch, lr_score, jobs=1)
    assert [name.split()[0] for name in executor.started] == ["vanilla"] * 3 + ["mld"] * 3
    table, tuned = trials(given), mlkd.create_study(given.folder / TUNED_FILE)
    assert set(table[table["method"] == "mld"]["student.lr"]) == {tuned.student.lr}
    assert table["method"].value_counts().to_dict() == {"vanilla": 3, "mld": 3}
    assert tuned.methods["mld"]["lambda_mld"] in table["mld.lambda_mld"].tolist()


def two_methods() -> Tuning:
    lambdas = {"low": 0.1, "high": 1000, "log": True}
    return tuning(methods=("mse", "mld"), space={"mld.lambda_mld": lambdas, "mse.lambda_mse": lambdas}, trials=6)


def lambda_score(study: Study, method: str) -> float:
    value = study.methods[method][f"lambda_{method}"]
    return 0.9 - 0.001 * abs(value - 30)


def test_trials_do_not_depend_on_the_number_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = []
    for jobs in (1, 2):
        given = two_methods().replace(runs=f"runs{jobs}")
        run(given, monkeypatch, lambda_score, jobs=jobs)
        tables.append(trials(given))
    pd.testing.assert_frame_equal(*tables)


def test_an_interrupted_tuning_resumes_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    given, whole = two_methods(), two_methods().replace(runs="whole")
    run(whole, monkeypatch, lambda_score)
    with pytest.raises(KeyboardInterrupt):
        run(given, monkeypatch, lambda_score, polls=9)
    first = trials(given)
    assert 0 < len(first) < 12
    second = run(given, monkeypatch, lambda_score)
    finished = {f"{row.method} trial {row.trial} of 6" for row in first.itertuples()}
    assert not finished & set(second.started)
    pd.testing.assert_frame_equal(trials(given), trials(whole))
    assert (given.folder / TUNED_FILE).read_text() == (whole.folder / TUNED_FILE).read_text()
    assert not run(given, monkeypatch, lambda_score).started  # a third time there is nothing to train


def test_a_trial_below_the_median_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.6, 0.1, 0.7, 0.65])
    executor = run(tuning(), monkeypatch, lambda *_: next(scores))
    table = trials(tuning())
    assert executor.stopped == ["vanilla trial 3 of 5"]
    assert table["state"].tolist() == ["complete", "complete", "stopped", "complete", "complete"]
    assert table["epochs"].tolist() == [4, 4, 2, 4, 4]  # from two thirds of the epochs on
    assert table["val_mAP"][3] == pytest.approx(0.7)


def test_failed_trials_are_counted_and_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    scores = iter([float("nan"), 0.6, float("nan"), 0.7, 0.65])
    executor = run(tuning(), monkeypatch, lambda *_: next(scores))
    assert trials(tuning())["state"].tolist().count("failed") == 2
    assert executor.status == 0  # type: ignore[attr-defined]
    assert "vanilla trial 1 of 5: failed" in capsys.readouterr().out
    given = tuning(runs="other")
    executor = run(given, monkeypatch, lambda *_: float("nan"))
    assert executor.status == 1  # type: ignore[attr-defined]
    assert "All trials of vanilla failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("vanila",)}, "Did you mean 'vanilla'"),
        ({"space": {}}, "`space` has no setting of the method 'vanilla'"),
        ({"methods": ("mld",)}, "'student.lr', which is tuned with vanilla"),
        ({"space": {"teacher.lr": [1, 2]}}, "'teacher.lr', expected a key of `student` or of one of the methods"),
        ({"space": {"student.lr": {"low": 0, "high": 1, "log": True}}}, "expected more than 0"),
        ({"space": {"student.lr": {"low": 2, "high": 1}}}, "expected a number less than `high`"),
        ({"space": {"student.lr": {"low": 2, "high": 3, "logg": True}}}, "Did you mean 'log'"),
        ({"space": {"student.lr": [0.1]}}, "expected a list of two values or more"),
        ({"trials": 0}, "`trials` of the tuning is 0, expected a number of at least 1"),
        ({"trails": 3}, "Did you mean 'trials'"),
    ],
)
def test_invalid_tunings(changes: dict[str, Any], message: str) -> None:
    content = tuning().model_dump() | changes
    Path("bad.yml").write_text(yaml.safe_dump(_plain(content)))
    with pytest.raises(ValueError, match=message) as error:
        load_tuning("bad.yml")
    assert str(error.value).startswith("bad.yml: ")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def test_the_studys_own_value_must_lie_in_the_space(monkeypatch: pytest.MonkeyPatch) -> None:
    given = tuning(space={"student.lr": {"low": 1e-1, "high": 1.0}})
    with pytest.raises(ValueError, match=r"'student\.lr' without the study's own value, 0\.005"):
        run(given, monkeypatch, lr_score)


def test_without_optuna_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'mlkd\[tune\]'"):
        run(tuning(), monkeypatch, lr_score)


def test_the_tuning_of_scenes_has_a_range_for_every_method() -> None:
    from mlkd.methods import METHODS

    file = Path(tune.__file__).parents[2] / "examples" / "tuning" / "scenes.yml"
    content = yaml.safe_load(file.read_text())
    built_in = [name for name, method in METHODS.items() if method.__module__.startswith("mlkd.")]  # without plugins
    assert sorted(content["methods"]) == sorted(built_in)
    for key, values in content["space"].items():
        limits = Range(**values)
        assert not limits.log or limits.high >= 10 * limits.low, key
