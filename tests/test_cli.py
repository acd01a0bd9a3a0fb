"""The command `mlkd`: its results, and one-line errors."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from in_process import InProcess
from safetensors import safe_open
from typer.testing import CliRunner

import mlkd
from mlkd import cli, report
from mlkd.data.readers import READERS
from mlkd.methods import METHODS
from mlkd.study import Study, create_study
from mlkd.study.executors import Local
from mlkd.study.label_subsets import label_subset_data
from mlkd.study.read import recipe_files
from mlkd.study.run_sweep import run_tasks
from mlkd.study.sweep import Task
from mlkd.training.runs import iter_runs, open_run, summarize_runs

pytestmark = pytest.mark.usefixtures("own_cache")

TINY = {
    "backbone": "resnet8_cifar",
    "backbone_settings": {"stem_stride": 2, "widths": [8, 8, 8]},
    "embed_dim": 8,
    "image_size": 32,
    "pretrained": False,
    "batch_size": 2,
    "epochs": 1,
}
"""With these settings a network trains on any data in a second."""


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one-line error of the command."""
        assert self.code in (1, 2)
        assert self.err.startswith("mlkd: ")
        assert "Traceback" not in self.out + self.err
        return self.err.removeprefix("mlkd: ").strip()


@pytest.fixture
def call(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs the command in this process, as its entry point does, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["mlkd", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.app()
        output = capsys.readouterr()
        return Result(int(caught.value.code or 0), output.out, output.err)

    return run


def student_settings(**settings) -> list[str]:
    return [text for name, value in settings.items() for text in ("--set", f"student.{name}={json.dumps(value)}")]


# Options


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(cli.cli, ["--help"])
    assert result.exit_code == 0
    for command in ("data", "methods", "recipes", "train", "report", "runs", "export", "predict"):
        assert command in result.output
        assert CliRunner().invoke(cli.cli, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize("command", ["train", "report", "runs", "export", "data"])
def test_an_unknown_option_is_refused(command: str, call: Callable[..., Result], tmp_path: Path) -> None:
    result = call(command, "--sedes", "3")
    assert result.code == 2
    assert "--sedes" in result.err
    assert "Traceback" not in result.err
    assert not any(tmp_path.iterdir())


def test_an_unknown_command_is_refused(call: Callable[..., Result]) -> None:
    result = call("trian")
    assert result.code == 2
    assert "trian" in result.err


# Mistakes

MISTAKES = {
    "unknown setting": (["--set", "epoch=1"], "There is no setting 'epoch'. Did you mean 'student.epochs'?"),
    "unknown setting of the student": (["--set", "student.epoch=1"], "Did you mean 'epochs'?"),
    "unknown setting of the method": (["--set", "vanilla.reducton=sum"], "Did you mean 'reduction'?"),
    "no value": (["--set", "student.epochs"], "`--set` is 'student.epochs', expected a key and a value"),
    "unknown optimizer": (["--set", "student.optimizer=adamm"], "Did you mean 'adam'?"),
    "negative epochs": (["--set", "student.epochs=-1"], "`epochs` of the training is -1"),
    "true for a number": (["--set", "student.epochs=true"], "`epochs` of the training is True"),
    "a word for a number": (["--set", "student.epochs=many"], "`epochs`"),
    "a word for a rate": (["--set", "student.lr=high"], "`lr`"),
    "half an epoch": (["--set", "student.epochs=1.5"], "`epochs`"),
    "a word for a size": (["--set", "student.batch_size=big"], "`batch_size`"),
    "not a number": (["--set", "student.lr=NaN"], "`lr`"),
    "the teacher as a setting": (["--set", "teacher=mine"], "`teacher` is 'mine', expected a mapping"),
    "unknown role": (["--role", "techer"], "Did you mean 'teacher'?"),
    "a method for the teacher": (["--role", "teacher", "--method", "l2d"], "leave out `--method`"),
    "unknown method": (["--method", "vanila"], "Did you mean 'vanilla'?"),
    "unknown study": (["--study", "quik"], "Did you mean 'quick'?"),
    "unknown data": (["--data", "scene"], "Did you mean `scenes`?"),
    "no such folder": (["--data", "voc:absent"], "absent: no such folder"),
    "no such plugin": (["--plugin", "absent.py"], "`plugin` is "),
    "unknown backbone": (["--set", "student.backbone=resnet8_cifr"], "resnet8_cifar"),
    "no such weights": (["--set", "student.pretrained=absent.safetensors"], "absent.safetensors: no such weights file"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_invalid_argument_gives_one_line_error(case: str, call: Callable[..., Result]) -> None:
    arguments, message = MISTAKES[case]
    smoke = [] if "--study" in arguments else ["--study", "smoke"]
    assert message in call("train", *smoke, *arguments).message


def test_the_role_of_a_student_cannot_be_set(call: Callable[..., Result]) -> None:
    result = call("train", "--study", "smoke", "--set", "student.role=label_subset", "--set", "student.epochs=0")
    assert "`role` is determined by the study" in result.message


def test_a_wrong_setting_is_refused_before_the_teacher_is_trained(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "train_teacher", None)  # a call would fail
    result = call("train", "--method", "l2d", "--study", "smoke", "--set", "l2d.lambda_mdl=1")
    assert "Did you mean 'lambda_mld'?" in result.message


def test_errors_of_a_training_are_one_line(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_(error: BaseException) -> Callable:
        def create_study(*args, **kwargs):
            raise error

        return create_study

    for error in (mlkd.TrainingError("The loss is nan."), mlkd.DataError("a file is broken"), mlkd.RunError("no run")):
        monkeypatch.setattr(mlkd, "create_study", raise_(error))
        assert call("train").message == str(error)
    monkeypatch.setattr(mlkd, "create_study", raise_(KeyboardInterrupt()))
    result = call("train")
    assert result.code not in (0, 2)
    assert "run the same command again to resume" in result.err
    assert "Traceback" not in result.err


# train, runs, export


def test_runs_are_a_table(call: Callable[..., Result]) -> None:
    """As pandas prints it, without importing pandas."""
    for seed, name in enumerate(["toy", "a longer name"]):
        training = {"role": "student", "backbone": "net", "seed": seed, "epochs": 70}
        open_run("runs", {"method": "vanilla", "settings": {}, "data": {"name": name}, "training": training})
    assert call("runs").out == pd.DataFrame(summarize_runs("runs")).to_string(index=False) + "\n"


def test_runs_imports_nothing_that_takes_seconds(tmp_path: Path) -> None:
    script = f"""
import sys
sys.argv = ["mlkd", "runs", {str(tmp_path)!r}]
from mlkd.cli import app
try:
    app()
finally:
    print(sorted({{"torch", "timm", "pandas", "scipy", "sklearn", "matplotlib"}} & set(sys.modules)))
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output == f"{tmp_path}: no runs here.\n[]\n"


def test_train_runs_and_export(call: Callable[..., Result], tmp_path: Path) -> None:
    assert call("runs").out == "runs: no runs here.\n"
    assert call("runs", tmp_path / "absent").out.endswith("absent: no runs here.\n")
    tiny = student_settings(**TINY | {"batch_size": 16})
    result = call("train", "--study", "smoke", "--seed", "4", *tiny, "--export", "models/student.safetensors")
    assert result.code == 0
    assert "vanilla student, seed 4: epoch 1/1" in result.out
    (run,) = iter_runs("runs")
    assert run.complete
    made = {name: run.config["training"][name] for name in TINY}
    assert made == TINY | {"batch_size": 16}
    scores = ", ".join(f"{split} {100 * score:.2f}" for split, score in run.mean_ap.items())
    assert f"{run.path}: mAP % {scores}" in result.out
    assert list(run.mean_ap) == ["val", "test", "context_shift"]
    model = mlkd.load_model("models/student.safetensors")
    assert model.classes == mlkd.load_data("scenes")["test"].classes

    again = call("train", "--study", "smoke", "--seed", "4", *tiny)
    assert "found complete" in again.out
    assert "epoch 1/1" not in again.out

    table = call("runs")
    assert run.path.name in table.out
    assert "1/1" in table.out
    assert f"{100 * run.mean_ap['test']:.2f}" in table.out

    result = call("export", run.path, "other.safetensors")
    assert result.code == 0
    assert result.out.startswith("other.safetensors: ")
    with safe_open("other.safetensors", "pt") as file:
        notes = file.metadata()
    assert json.loads(notes["config"]) == run.config
    assert json.loads(notes["metrics"]) == run.metrics
    exported, kept = mlkd.load_model("other.safetensors").state_dict(), run.model().state_dict()
    assert all(value.equal(kept[name]) for name, value in exported.items())


def test_train_with_a_teacher(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    quick = student_settings(backbone_settings={"stem_stride": 3, "widths": [8, 8, 8]}, image_size=48)
    quick += ["--set", "teacher.image_size=48"]
    result = call("train", "--method", "l2d", "--study", "smoke", *quick, "--set", "l2d.lambda_cd=0.5")
    assert result.code == 0
    assert "vanilla teacher, seed 0: epoch 1/1" in result.out
    assert "l2d student, seed 0: epoch 1/1" in result.out
    student, teacher = iter_runs("runs")
    assert student.config["settings"]["lambda_cd"] == 0.5
    assert student.config["training"]["image_size"] == teacher.config["training"]["image_size"] == 48
    result = call("train", "--role", "teacher", "--study", "smoke", *quick)
    assert "found complete" in result.out
    assert len(list(iter_runs("runs"))) == 2


def test_train_on_a_voc_folder(call: Callable[..., Result], voc_folder: Path) -> None:
    tiny = student_settings(**TINY, backbone_lr_scale=1.0)
    result = call("train", "--data", f"voc:{voc_folder}?difficult=ignore", *tiny)
    assert result.code == 0, result.err
    (run,) = iter_runs("runs")
    assert run.config["data"]["name"] == "VOC2007"
    assert list(run.mean_ap) == ["val", "test"]
    assert len(run.predictions("test").ids) == 2


def test_an_unfinished_run_is_listed_and_not_exported(call: Callable[..., Result]) -> None:
    training = {"role": "student", "backbone": "resnet8_cifar", "seed": 0, "epochs": 7}
    run = open_run("runs", {"method": "vanilla", "settings": {}, "data": {"name": "toy"}, "training": training})
    assert "0/7" in call("runs").out
    assert "not finished" in call("export", run.path, "model.safetensors").message
    assert not Path("model.safetensors").exists()
    assert "no run here" in call("export", "absent", "model.safetensors").message


def test_a_damaged_run_does_not_hide_the_others(call: Callable[..., Result]) -> None:
    for seed in range(3):
        training = {"role": "student", "backbone": "net", "seed": seed, "epochs": 7}
        run = open_run("runs", {"method": "vanilla", "data": {"name": "toy\x1b[2J"}, "training": training})
        run.finish({"test": {"mAP": 0.5}})
        if seed == 1:
            (run.path / "metrics.json").write_text("[]")
    result = call("runs")
    assert result.code == 0
    first, *table = result.out.splitlines()
    assert re.match(r"Left out: runs/.*-s1-.*/metrics\.json: has list .*; remove the folder runs/.*-s1-", first)
    assert not any("-s1-" in line for line in table)
    assert result.out.count("50.00") == 2
    assert "\x1b" not in result.out  # which would clear the terminal


# Errors in plugins, and the traceback

PLUGIN = """
import sys
from mlkd.data import register_reader

@register_reader("broken_reader")
def read(root, *, error="KeyError"):
    if error == "exit":
        sys.exit(0)
    raise KeyError("no such column")
"""


@pytest.mark.parametrize(("error", "name"), [("KeyError", "KeyError: 'no such column'"), ("exit", "SystemExit: 0")])
def test_an_error_in_a_plugin_names_its_line(error: str, name: str, call: Callable[..., Result]) -> None:
    Path(f"{error}.py").write_text(PLUGIN)
    result = call("data", "check", f"broken_reader:/path?error={error}", "--plugin", f"{error}.py")
    assert result.code == 1
    line = 9 if error == "KeyError" else 8
    assert result.message == f"The plugin {Path(f'{error}.py').resolve()} failed in line {line}: {name}"


def test_a_plugin_that_ends_the_process_is_an_error(call: Callable[..., Result]) -> None:
    Path("ends.py").write_text("raise SystemExit(0)\n")
    result = call("train", "--study", "smoke", "--plugin", "ends.py")
    assert result.code == 1
    assert "ends.py failed: SystemExit in line 1: 0" in result.message


def test_debug_prints_the_traceback(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("mlkd"), "level", logging.INFO)
    result = call("train", "--study", "quik")
    assert result.code == 2
    assert "Did you mean 'quick'?" in result.message
    result = call("--debug", "train", "--study", "quik")
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.endswith("Did you mean 'quick'?\n")


def test_an_export_can_be_loaded_or_is_refused(call: Callable[..., Result]) -> None:
    call("train", "--study", "smoke", *student_settings(**TINY | {"epochs": 0}))
    (run,) = iter_runs("runs")
    assert ".safetensors" in call("export", run.path, "model.bin").message
    assert not Path("model.bin").exists()


def test_train_with_a_recipe(call: Callable[..., Result]) -> None:
    tiny = [*student_settings(**TINY | {"batch_size": 16}), "--set", "max_images=32"]
    tiny += [text.replace("student.", "teacher.") for text in tiny]
    result = call("train", "--study", "mskd-voc-r34", *tiny, "--set", "mskd.lambda_rsd=0.5")
    assert result.code == 0, result.err
    (run,) = iter_runs("runs")
    assert run.config["method"] == "mskd"  # the method of the recipe
    settings = run.config["settings"]
    assert (settings["lambda_lsd"], settings["lambda_rsd"], settings["reduction"]) == (1.5, 0.5, "batchmean")
    assert (run.config["training"]["optimizer"], run.config["training"]["head"]) == ("momentum", "gap")
    assert run.config["training"]["weight_decay"] == 5e-4
    call("train", "--study", "mskd-voc-r34", *tiny, "--method", "vanilla")
    call("train", "--study", "mskd-voc-r34", *tiny, "--role", "teacher")
    assert sorted(run.config["method"] for run in iter_runs("runs")) == ["mskd", "vanilla", "vanilla"]
    assert "Did you mean 'mskd-voc-r34'" in call("train", "--study", "mskd-voc-r35").message


# sweep, and networks of label subsets


def test_a_network_of_a_label_subset(call: Callable[..., Result]) -> None:
    train = ("train", "--method", "cpsd", "--study", "smoke", "--set", "student.image_size=32")
    result = call(*train, "--label-subset", "dgp:2", "--set", "cpsd.k=3", "--run-file", "named")
    assert result.code == 0, result.err
    (run,) = iter_runs("runs")
    assert Path("named").read_text() == str(run.path)
    assert run.config["training"]["role"] == "label_subset"
    assert run.config["settings"]["loss"] == "asl"
    assert run.predictions().classes == label_subset_data(create_study("smoke").splits, "dgp", 3)[1]["train"].classes
    mistakes = {
        ("cgp",): "`--label-subset` is 'cgp', expected a strategy and a number, as in cgp:2.",
        ("cgp:3",): "The label subset is number 3, expected 1 to 2: the method 'cpsd' has k=2.",
        ("random:1",): "The method 'cpsd' has no label subsets 'random'; expected one of cgp, dgp.",
        ("cgp:1", "--set", "cpsd.epochs=2"): "There is no setting 'epochs' of the method 'cpsd'.",
        ("teacher:1", "--method", "l2d"): "it has no merged teacher",
        ("cgp:1", "--num-workers", "0"): "`--num-workers` does not apply to `--label-subset`.",
    }
    for arguments, message in mistakes.items():
        assert message in call(*train, "--label-subset", *arguments).message
    assert "leave out" in call("train", "--role", "teacher", "--label-subset", "cgp:1").message


def test_a_student_of_cached_teacher_outputs(call: Callable[..., Result]) -> None:
    """The outputs of `mlkd cache-teacher` replace the teacher; so do those of `cache_teacher_outputs`."""
    tiny = student_settings(**TINY | {"batch_size": 16}, augmentations=["flip"])
    tiny += ["--set", "max_images=32", "--study", "smoke"]
    small = [text.replace("student.", "teacher.") for text in tiny]
    assert call("train", "--role", "teacher", *small, "--export", "teacher.safetensors").code == 0
    cached = call("cache-teacher", "teacher.safetensors", "outputs", *tiny)
    assert cached.code == 0, cached.err
    assert "outputs: the outputs of teacher.safetensors for" in cached.out
    for change in ("teacher_cache=outputs", "teacher_model=teacher.safetensors"):
        result = call("train", "--method", "mld", *tiny, "--set", change)
        assert result.code == 0, result.err
    result = call("train", "--method", "mld", *small, *tiny, "--set", "student.cache_teacher_outputs=true")
    assert result.code == 0, result.err
    runs = [run for run in iter_runs("runs") if run.config["method"] == "mld"]
    assert len({run.predictions().logits.tobytes() for run in runs}) == 1


def test_the_program_of_a_sweep_is_the_command(tmp_path: Path) -> None:
    task = Task("help", ("--help",))
    assert run_tasks([task], tmp_path, Local(1))["help"].note.startswith("it ended well, but its log has no complete")
    assert "Usage: python -m mlkd train" in (tmp_path / "help.log").read_text()


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_sweep_trains_teachers_first_and_then_skips_all(
    processes: bool, call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not processes:
        monkeypatch.setattr("mlkd.study.run_sweep.create_executor", lambda *_: InProcess())
    grid = {f"student.{name}": [value] for name, value in TINY.items() if name != "backbone"}
    Path("mine.yml").write_text(f"""
        study: smoke
        methods: [vanilla, cgpd]
        grid: {json.dumps({**grid, "cgpd.k": 2, "cgpd.lambda_kd": [0.5]})}
        seeds: [4]
    """)
    dry = call("sweep", "mine.yml", "--dry-run")
    assert [line for line in dry.out.splitlines() if not line.startswith(" ")] == [
        "cgp-1-of-2-tau=3.0",
        "cgp-2-of-2-tau=3.0",
        "vanilla-seed=4",
        "cgpd-seed=4",
    ]
    assert "    after cgp-1-of-2-tau=3.0, cgp-2-of-2-tau=3.0\n    mlkd train --method cgpd" in dry.out
    assert not Path("runs").exists()
    result = call("sweep", "mine.yml", "--jobs", "2")
    assert result.code == 0, result.out + result.err
    assert len(list(iter_runs("runs"))) == 4  # the student trained no network of a label subset itself
    output = Path("runs/sweeps/mine/cgpd-seed=4.log").read_text() if processes else result.out
    assert "found complete" in output
    table = result.out[result.out.index("\nscenes\n") :].splitlines()
    assert [line.split()[0] for line in table[3:5]] == ["vanilla", "cgpd"]
    assert table[-1] == "The table: mlkd table runs/sweeps/mine/sweep.yml"
    scores = call("table", "mine.yml").out
    assert scores == call("table", "runs/sweeps/mine/sweep.yml").out
    assert re.search(r"^vanilla +\d+\.\d \(1\) ", scores, re.MULTILINE)
    assert re.search(r"gain in mAP over vanilla\n.*\ncgpd +[+-]\d+\.\d \[", scores)
    again = call("sweep", "mine.yml")
    assert "4 runs, 4 of them finished before." in again.out
    assert again.out.endswith(result.out[result.out.index("\nscenes\n") :])
    assert "none.yml: cannot be read" in call("sweep", "none.yml").message


# Lists


def test_methods_are_listed_as_plain_text(call: Callable[..., Result]) -> None:
    result = call("methods")
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines[1:] if not line.startswith(" ")] == sorted(METHODS)
    assert all(len(line) <= 120 for line in lines)
    assert not set("$\\{}") & set(result.out)
    (l2d,) = (line for line in lines if line.startswith("l2d "))
    assert l2d.endswith("BCE + λ_mld·MLD + λ_cd·CD + λ_id·ID [(1)-(9)]")
    assert "teacher, embeddings" in l2d
    assert "Yang et al., ICCV 2023" in l2d
    assert all(method.formula for method in METHODS.values())


def test_recipes_are_listed(call: Callable[..., Result]) -> None:
    result = call("recipes")
    assert result.code == 0
    lines = result.out.splitlines()
    assert all(len(line) <= 120 for line in lines)
    names = {name for name in recipe_files() if not name.endswith("-common")}
    listed = {line.split()[0] for line in lines if line}
    assert names <= listed
    assert not {"l2d-common", "mskd-common"} & listed
    (row,) = (line for line in lines if line.startswith("l2d-voc-r50-r18 "))
    columns = [text.strip() for text in row.split("  ") if text]
    assert columns[1:] == ["ResNet-50 -> ResNet-18", "86.73", "84.01", "85.71", "Yang et al., ICCV 2023, table 7"]
    (row,) = (line for line in lines if line.startswith("mskd-voc-mbv2 "))
    assert [text.strip() for text in row.split("  ") if text][2:5] == ["-", "72.88", "82.62"]
    assert "The epoch that is kept: the best on val (`select: best`), except" in lines
    assert "  the last (`select: last`): l2d-coco-r101-r34-official" in lines
    assert "mdkd-nuswide: Table 6 of Wang et al., ACM MM 2024, is in an appendix" in result.out


def test_a_recipe_is_shown_as_a_study(call: Callable[..., Result]) -> None:
    out = call("recipes", "cpsd-coco-r101-tf-576").out
    shown, source, scores, command = out.split("\n\n")
    recipe = create_study("cpsd-coco-r101-tf-576")
    assert create_study(yaml.safe_load(shown)) == recipe.replace(reported=None)
    assert source.startswith("Reported in Xu et al., IJCAI 2022, table 1, in % on coco; ResNet-101 + TF, 576 px;")
    rows = {line.split("  ")[0]: line.split()[-7:] for line in scores.splitlines()}
    assert rows["cpsd"] == ["86.70", "83.50", "79.00", "81.20", "84.50", "81.40", "82.90"]
    assert list(rows)[1:] == ["SSGRL", "C-Trans", "ADD-GCN", "Q2L-R101", "vanilla", "cpsd"]
    assert command == "mlkd train --study cpsd-coco-r101-tf-576 --data 'coco:/path?year=2014&unlabeled=drop'\n"
    assert "Did you mean 'mskd-coco-r34'" in call("recipes", "mskd-coco-r35").message
    assert "There is no recipe 'mdkd-nuswide': Table 6" in call("recipes", "mdkd-nuswide").message


def test_the_command_of_a_recipe_can_run(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(READERS.entries, "voc")
    out = call("recipes", "l2d-voc-r50-r18").out
    assert out.endswith("There is no data reader for voc; a plugin can add one (`mlkd train --plugin FILE`).\n")
    assert "mlkd train --study" not in out


def test_a_study_is_shown_resolved(call: Callable[..., Result]) -> None:
    out = call("study", "show", "quick", "--set", "student.epochs=9", "--set", "l2d.lambda_cd=3").out
    study = create_study(yaml.safe_load(out))
    assert study == create_study("quick", overrides={"student.epochs": 9, "l2d.lambda_cd": 3})
    assert (study.student.epochs, study.methods["l2d"]["lambda_cd"]) == (9, 3)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["methods"], ["recipes"], ["study", "show"]])
def test_lists_and_help_load_no_torch(arguments: list[str]) -> None:
    """They answer in under two seconds; importing torch alone takes longer."""
    script = f"""
import sys
sys.argv = ["mlkd", *{arguments!r}]
from mlkd.cli import app
try:
    app()
finally:
    print(sorted({{"torch", "timm", "torchvision", "matplotlib"}} & set(sys.modules)))
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.endswith("\n[]\n")


# data check


def test_data_check(call: Callable[..., Result], voc_folder: Path) -> None:
    spec = f"voc:{voc_folder}"
    result = call("data", "check", spec)
    assert result.code == 0
    assert result.out.startswith(f"{spec}: 20 classes\n")
    assert result.out.endswith(f"{spec}: no problems in train 2, val 1, test 2, trainval 3 images of 20 classes.\n")
    (voc_folder / "JPEGImages" / "4.jpg").unlink()
    image_file = voc_folder / "JPEGImages" / "1.jpg"
    image_file.write_bytes(image_file.read_bytes()[:200])
    result = call("data", "check", spec)
    assert result.code == 1
    first, second = sorted(line for line in result.out.splitlines() if ".jpg: " in line)
    assert "1.jpg: the file is truncated" in first
    assert "4.jpg: no such file; expected an image" in second
    assert "no problems" not in result.out
    (voc_folder / "Annotations" / "2.xml").write_text("<annotation>")
    assert "2.xml: broken or forbidden XML" in call("data", "check", spec).message
    assert "no such folder" in call("data", "check", "voc:absent").message


# report


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping]]:
    calls: list[tuple[str, Mapping]] = []

    def run(name: str, parameters: Mapping, *, study: Study, **others: object) -> int:
        calls.append((name, {**parameters, **others, "resolved": study}))
        return 3

    monkeypatch.setattr(report, "run", run)
    return calls


def test_report_passes_its_options_on(call: Callable[..., Result], reported: list[tuple[str, Mapping]]) -> None:
    options = ("--seeds", "2", "--runs", "mine", "--set", "student.image_size=48", "--set", "l2d.lambda_cd=0.5")
    result = call("report", "--study", "smoke", *options)
    assert result.code == 3
    ((name, parameters),) = reported
    assert name == "scenes-smoke"
    study = parameters.pop("resolved")
    assert (study.runs, study.seeds, study.student.image_size) == (Path("mine"), (0, 1), 48)
    assert {key: value for key, value in parameters.items() if value} == {
        "data": "scenes",
        "study": "smoke",
        "seeds": 2,
        "runs": "mine",
        "overrides": {"student.image_size": 48, "l2d.lambda_cd": 0.5},
        "timeout_s": 3600,
    }
    call("report", "--study", "smoke", "--name", "night")
    assert reported[1][0] == "night"
    np.savez("counts.npz", counts=np.eye(2), nums=np.ones(2), class_names=np.array(["a", "b"]))
    call("report", "--study", "smoke", "--counts", "counts.npz")
    assert reported[2][1]["counts"] == "counts.npz"
    assert "none.npz" in call("report", "--study", "smoke", "--counts", "none.npz").message
    assert "`methods` is 'l2b'" in call("report", "--study", "smoke", "--methods", "vanilla,l2b").message
    assert len(reported) == 3
    call("report", "--study", "smoke", "--methods", "vanilla,cpsd")
    assert reported.pop()[1]["methods"] == ["vanilla", "cpsd"]
    call("report", "--study", "full")
    call("report", "--study", "full", "--timeout", "5")
    assert [parameters["timeout_s"] for _, parameters in reported[3:]] == [24 * 3600, 300]


def test_report_without_training_requires_runs(
    call: Callable[..., Result], reported: list[tuple[str, Mapping]]
) -> None:
    arguments = ("report", "--study", "smoke", "--runs", "mine", "--no-train")
    assert call(*arguments).message.startswith("mine: no finished run to make a report from;")
    assert not reported
    training = {"role": "student", "backbone": "net", "seed": 0, "epochs": 1}
    open_run("mine", {"method": "vanilla", "training": training}).finish({"test": {"mAP": 0.5}})
    assert call(*arguments).code == 3
    assert reported[0][1]["no_train"] is True


def test_report_refuses_invalid_arguments_before_it_starts(
    call: Callable[..., Result], reported: list[tuple[str, Mapping]], voc_folder: Path
) -> None:
    assert call("report", "--nonsense", "1").code == 2
    assert "Did you mean 'quick'?" in call("report", "--study", "quik").message
    (voc_folder / "Annotations" / "2.xml").unlink()
    assert "2.xml: no such file" in call("report", "--data", f"voc:{voc_folder}").message
    assert not reported


def test_report_without_its_packages_names_the_extra(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("build", "execute"):
        monkeypatch.delitem(sys.modules, f"mlkd.report.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "papermill", None)
    result = call("report", "--study", "smoke")
    assert result.message == "A report needs the package 'papermill': pip install 'mlkd[notebooks]'."
