"""The command `mlkd`: what it does, and that a mistake is told in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from typer.testing import CliRunner

import mlkd
from mlkd import cli, report
from mlkd.methods import METHODS
from mlkd.study.label_subsets import label_subset_data
from mlkd.study.study import Study
from mlkd.training.runs import iter_runs, open_run, summarize_runs

pytestmark = pytest.mark.usefixtures("own_cache")

TINY = {
    "backbone": "resnet8_cifar",
    "backbone_settings": {"widths": [4, 8, 8]},
    "embed_dim": 8,
    "image_size": 32,
    "pretrained": False,
    "batch_size": 2,
    "epochs": 1,
}
"""Settings with which a network trains on anything in no time."""


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What was said of a mistake: no traceback, nothing else."""
        assert self.code == 1
        assert self.err.startswith("mlkd: ")
        assert "Traceback" not in self.out + self.err
        return self.err.removeprefix("mlkd: ").strip()


@pytest.fixture
def call(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Answer]:
    """Runs the command in this process, as its entry point does, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["mlkd", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.app()
        said, code = capsys.readouterr(), caught.value.code
        if isinstance(code, str):  # `sys.exit` of a text prints it and means 1
            return Answer(1, said.out, f"{said.err}{code}\n")
        return Answer(int(code or 0), said.out, said.err)

    return run


def with_settings(**settings) -> list[str]:
    return [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]


# Options


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(cli.cli, ["--help"])
    assert result.exit_code == 0
    for command in ("data", "methods", "recipes", "train", "report", "runs", "export"):
        assert command in result.output
        assert CliRunner().invoke(cli.cli, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize("command", ["train", "report", "runs", "export", "data"])
def test_an_unknown_option_is_refused(command: str, call: Callable[..., Answer], tmp_path: Path) -> None:
    answer = call(command, "--sedes", "3")
    assert answer.code == 2
    assert "--sedes" in answer.err
    assert "Traceback" not in answer.err
    assert not any(tmp_path.iterdir())


def test_an_unknown_command_is_refused(call: Callable[..., Answer]) -> None:
    answer = call("trian")
    assert answer.code == 2
    assert "trian" in answer.err


# Mistakes

MISTAKES = {
    "unknown setting": (["--set", "epoch=1"], "There is no setting 'epoch'. Did you mean 'epochs'?"),
    "unknown setting of the method": (["--set", "bce_reducton=sum"], "Did you mean 'reduction'?"),
    "no value": (["--set", "epochs"], "`--set epochs` has no value; expected name=value."),
    "unknown optimizer": (["--set", "optimizer=adamm"], "Did you mean 'adam'?"),
    "negative epochs": (["--set", "epochs=-1"], "`epochs` is -1"),
    "a word for a number": (["--set", "epochs=many"], "`epochs`"),
    "a word for a rate": (["--set", "lr=high"], "`lr`"),
    "half an epoch": (["--set", "epochs=1.5"], "`epochs`"),
    "a word for a size": (["--set", "batch_size=big"], "`batch_size`"),
    "not a number": (["--set", "lr=NaN"], "`lr`"),
    "the teacher as a setting": (["--set", "teacher=mine"], "teacher"),
    "unknown role": (["--role", "techer"], "Did you mean 'teacher'?"),
    "unknown method": (["--method", "vanila"], "Did you mean 'vanilla'?"),
    "unknown preset": (["--preset", "quik"], "Did you mean 'quick'?"),
    "unknown data": (["--data", "scene"], "Did you mean `scenes`?"),
    "no such folder": (["--data", "voc:absent"], "absent: no such folder"),
    "no such plugin": (["--plugin", "absent.py"], "`plugin` is "),
    "unknown backbone": (["--student-backbone", "resnet8_cifr"], "resnet8_cifar"),
    "no such weights": (["--student-weights", "absent.safetensors"], "absent.safetensors: no such weights file"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_in_a_sentence(case: str, call: Callable[..., Answer]) -> None:
    arguments, message = MISTAKES[case]
    smoke = [] if "--preset" in arguments else ["--preset", "smoke"]
    assert message in call("train", *smoke, *arguments).sentence


def test_the_role_can_be_given_only_once(call: Callable[..., Answer]) -> None:
    answer = call("train", "--preset", "smoke", "--set", "role=teacher", *with_settings(epochs=0))
    assert "Traceback" not in answer.err
    assert answer.code == 1


def test_a_wrong_setting_is_told_before_the_teacher_is_trained(
    call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "teacher", None)  # a call would fail
    answer = call("train", "--method", "l2d", "--preset", "smoke", "--set", "lambda_mdl=1")
    assert "Did you mean 'lambda_mld'?" in answer.sentence


def test_errors_of_a_training_are_sentences(call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: BaseException) -> Callable:
        def study(*args, **kwargs):
            raise error

        return study

    for error in (mlkd.TrainingError("The loss is nan."), mlkd.DataError("a file is broken"), mlkd.RunError("no run")):
        monkeypatch.setattr(mlkd, "plan", fails(error))
        assert call("train").sentence == str(error)
    monkeypatch.setattr(mlkd, "plan", fails(KeyboardInterrupt()))
    answer = call("train")
    assert answer.code not in (0, 2)
    assert "the same command goes on where it stopped" in answer.err
    assert "Traceback" not in answer.err


# train, runs, export


def test_runs_are_a_table(call: Callable[..., Answer]) -> None:
    """As pandas prints it, but without pandas."""
    for seed, name in enumerate(["toy", "a longer name"]):
        training = {"role": "student", "backbone": "net", "seed": seed, "epochs": 70}
        open_run("runs", {"method": "vanilla", "settings": {}, "data": {"name": name}, "training": training})
    assert call("runs").out == pd.DataFrame(summarize_runs("runs")).to_string(index=False) + "\n"


def test_runs_loads_nothing_that_takes_seconds(tmp_path: Path) -> None:
    script = f"""
import sys
sys.argv = ["mlkd", "runs", {str(tmp_path)!r}]
from mlkd.cli import app
try:
    app()
finally:
    print(sorted({{"torch", "timm", "pandas", "scipy", "sklearn", "matplotlib"}} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == f"{tmp_path}: no runs here.\n[]\n"


def test_train_runs_and_export(call: Callable[..., Answer], tmp_path: Path) -> None:
    assert call("runs").out == "runs: no runs here.\n"
    assert call("runs", tmp_path / "absent").out.endswith("absent: no runs here.\n")
    tiny = with_settings(**TINY | {"batch_size": 16})
    answer = call("train", "--preset", "smoke", "--seed", "4", *tiny, "--export", "models/student.safetensors")
    assert answer.code == 0
    assert "vanilla student, seed 4: epoch 1/1" in answer.out
    (run,) = iter_runs("runs")
    assert run.complete
    made = {name: run.config["training"][name] for name in TINY}
    assert made == TINY | {"batch_size": 16}
    scores = ", ".join(f"{split} {100 * score:.2f}" for split, score in run.mean_ap.items())
    assert f"{run.path}: mAP % {scores}" in answer.out
    assert list(run.mean_ap) == ["val", "test", "context_shift"]
    model = mlkd.load_model("models/student.safetensors")
    assert model.classes == mlkd.load_data("scenes")["test"].classes

    again = call("train", "--preset", "smoke", "--seed", "4", *tiny)
    assert "found complete" in again.out
    assert "epoch 1/1" not in again.out

    table = call("runs")
    assert run.path.name in table.out
    assert "1/1" in table.out
    assert f"{100 * run.mean_ap['test']:.2f}" in table.out

    answer = call("export", run.path, "other.safetensors")
    assert answer.code == 0
    assert answer.out.startswith("other.safetensors: ")
    with safe_open("other.safetensors", "pt") as file:
        notes = file.metadata()
    assert json.loads(notes["config"]) == run.config
    assert json.loads(notes["metrics"]) == run.metrics
    exported, kept = mlkd.load_model("other.safetensors").state_dict(), run.model().state_dict()
    assert all(value.equal(kept[name]) for name, value in exported.items())


def test_train_with_a_teacher(call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    quick = with_settings(backbone_settings={"stem_stride": 3, "widths": [4, 8, 8]})
    taught = ("train", "--method", "l2d", "--preset", "smoke", "--image-size", "48", *quick, "--set", "lambda_cd=0.5")
    answer = call(*taught)
    assert answer.code == 0
    assert "vanilla teacher, seed 0: epoch 1/1" in answer.out
    assert "l2d student, seed 0: epoch 1/1" in answer.out
    student, teacher = iter_runs("runs")
    assert student.config["settings"]["lambda_cd"] == 0.5
    assert student.config["training"]["image_size"] == teacher.config["training"]["image_size"] == 48
    answer = call("train", "--role", "teacher", "--preset", "smoke", "--image-size", "48")
    assert "found complete" in answer.out
    assert len(list(iter_runs("runs"))) == 2


def test_train_on_a_voc_folder(call: Callable[..., Answer], voc_folder: Path) -> None:
    answer = call("train", "--data", f"voc:{voc_folder}?difficult=ignore", *with_settings(**TINY))
    assert answer.code == 0, answer.err
    (run,) = iter_runs("runs")
    assert run.config["data"]["name"] == "VOC2007"
    assert list(run.mean_ap) == ["val", "test"]
    assert len(run.predictions("test").ids) == 2


def test_an_unfinished_run_is_listed_and_not_exported(call: Callable[..., Answer]) -> None:
    training = {"role": "student", "backbone": "resnet8_cifar", "seed": 0, "epochs": 7}
    run = open_run("runs", {"method": "vanilla", "settings": {}, "data": {"name": "toy"}, "training": training})
    assert "0/7" in call("runs").out
    assert "not finished" in call("export", run.path, "model.safetensors").sentence
    assert not Path("model.safetensors").exists()
    assert "no run here" in call("export", "absent", "model.safetensors").sentence
    (run.path / "config.json").write_text("{")
    assert "not valid JSON" in call("runs").sentence


def test_an_export_can_be_loaded_or_is_refused(call: Callable[..., Answer]) -> None:
    call("train", "--preset", "smoke", *with_settings(**TINY | {"epochs": 0}))
    (run,) = iter_runs("runs")
    assert ".safetensors" in call("export", run.path, "model.bin").sentence
    assert not Path("model.bin").exists()


def test_train_with_a_recipe(call: Callable[..., Answer]) -> None:
    tiny = with_settings(**TINY | {"batch_size": 16})
    answer = call("train", "--recipe", "mskd-voc-r34", "--preset", "smoke", *tiny, "--set", "lambda_rsd=0.5")
    assert answer.code == 0, answer.err
    (run,) = iter_runs("runs")
    assert run.config["method"] == "mskd"  # without being told
    settings = run.config["settings"]
    assert (settings["lambda_lsd"], settings["lambda_rsd"], settings["reduction"]) == (1.5, 0.5, "batchmean")
    assert (run.config["training"]["optimizer"], run.config["training"]["head"]) == ("sgd", "gap")
    assert run.config["training"]["weight_decay"] == 5e-4
    call("train", "--recipe", "mskd-voc-r34", "--preset", "smoke", *tiny, "--method", "vanilla")
    call("train", "--recipe", "mskd-voc-r34", "--preset", "smoke", *tiny, "--role", "teacher")
    assert sorted(run.config["method"] for run in iter_runs("runs")) == ["mskd", "vanilla", "vanilla"]
    assert "Did you mean 'mskd-voc-r34'" in call("train", "--recipe", "mskd-voc-r35").sentence
    assert "expected full or smoke" in call("train", "--recipe", "mskd-voc-r34", "--preset", "quick").sentence


# sweep, and models of parts


def test_a_model_of_a_part(call: Callable[..., Answer]) -> None:
    one = ("train", "--role", "part", "--method", "cpsd", "--preset", "smoke", "--image-size", "32")
    answer = call(*one, "--part", "dgp:2", "--set", "k=3", "--run-file", "named")
    assert answer.code == 0, answer.err
    (run,) = iter_runs("runs")
    assert Path("named").read_text() == str(run.path)
    assert run.config["training"]["role"] == "part"
    assert run.config["settings"]["loss"] == "asl"
    data = mlkd.create_study("scenes", "smoke", image_size=32).data
    assert run.predictions().classes == label_subset_data(data, "dgp", 3)[1]["train"].classes
    mistakes = {
        (): "`--part` is '', expected a strategy and a number, as in cgp:2.",
        ("--part", "cgp"): "`--part` is 'cgp', expected",
        ("--part", "cgp:3"): "`part` has the number 3, expected 1 to 2: the method 'cpsd' has k=2.",
        (
            "--part",
            "random:1",
        ): "`part` is of 'random', which the method 'cpsd' does not need; expected one of cgp, dgp.",
        ("--part", "cgp:1", "--set", "epochs=2"): "The method 'cpsd' has no setting 'epochs'.",
        ("--part", "teacher:1", "--method", "l2d"): "it has no teachers of parts",
        ("--part", "cgp:1", "--role", "student"): "`--part cgp:1` goes with `--role part`, not with 'student'.",
    }
    for arguments, message in mistakes.items():
        assert message in call(*one, *arguments).sentence


def test_a_sweep_trains_teachers_first_and_then_skips_all(call: Callable[..., Answer]) -> None:
    Path("mine.yml").write_text(f"""
        methods: {{vanilla: {{}}, cgpd: {{k: 2, lambda_kd: [0.5]}}}}
        settings: {json.dumps({name: [value] for name, value in TINY.items() if name != "backbone"})}
        preset: smoke
        image_size: 32
        seeds: [4]
    """)
    dry = call("sweep", "mine.yml", "--dry-run")
    assert [line for line in dry.out.splitlines() if not line.startswith(" ")] == [
        "cgp-part=1of2-tau=3.0",
        "cgp-part=2of2-tau=3.0",
        "vanilla-seed=4",
        "cgpd-seed=4",
    ]
    assert "    after cgp-part=1of2-tau=3.0, cgp-part=2of2-tau=3.0\n    mlkd train --method cgpd" in dry.out
    assert not Path("runs").exists()
    answer = call("sweep", "mine.yml", "--jobs", "2")
    assert answer.code == 0, answer.out + answer.err
    assert len(list(iter_runs("runs"))) == 4  # the student trained no part of its own
    assert "found complete" in Path("runs/sweeps/mine/cgpd-seed=4.log").read_text()
    table = answer.out[answer.out.index("\nscenes\n") :].splitlines()
    assert [line.split()[0] for line in table[3:]] == ["vanilla", "cgpd"]
    again = call("sweep", "mine.yml")
    assert "4 runs, 4 of them finished before." in again.out
    assert again.out.endswith(answer.out[answer.out.index("\nscenes\n") :])
    assert "no such sweep file" in call("sweep", "none.yml").sentence


# methods and recipes


def test_methods_are_listed_as_plain_text(call: Callable[..., Answer]) -> None:
    answer = call("methods")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert [line.split()[0] for line in lines[1:] if not line.startswith(" ")] == sorted(METHODS)
    assert all(len(line) <= 120 for line in lines)
    assert not set("$\\{}") & set(answer.out)
    (l2d,) = (line for line in lines if line.startswith("l2d "))
    formula = "L_BCE + λ_MLD L_MLD + λ_CD L_CD + λ_ID L_ID. [(1)-(9)]"
    assert l2d.endswith(formula)
    assert "teacher, embeddings" in l2d
    assert "Yang et al., ICCV 2023" in l2d


def test_recipes_are_listed(call: Callable[..., Answer]) -> None:
    answer = call("recipes")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert all(len(line) <= 120 for line in lines)
    assert mlkd.RECIPES.keys() <= {line.split()[0] for line in lines if line}
    (row,) = (line for line in lines if line.startswith("l2d-voc-r50-r18 "))
    columns = [text.strip() for text in row.split("  ") if text]
    assert columns[1:] == ["ResNet-50 -> ResNet-18", "86.73", "84.01", "85.71", "Yang et al., ICCV 2023, table 3 and 7"]
    (row,) = (line for line in lines if line.startswith("mskd-voc-mbv2 "))
    assert [text.strip() for text in row.split("  ") if text][2:5] == ["-", "72.88", "82.62"]
    assert "mdkd-coco-wrn40x2-wrn16x2: WRN40-2 -> WRN16-2, 75.34 % mAP" in answer.out


def test_one_recipe_is_shown_in_full(call: Callable[..., Answer]) -> None:
    out = call("recipes", "cpsd-coco-r101-tf-576").out
    assert "ResNet-101 + TF, 576 px on MS-COCO 2014, Xu et al., IJCAI 2022, table 1" in out
    assert "mAP % cpsd 86.70, alone 85.90\n" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows["setting"] == ["teacher", "student"]
    assert rows["epochs"] == ["20", "80"]
    assert rows["backbone"] == ["resnet101.tv_in1k"] * 2
    assert rows["cpsd:"] == ["k=5,", "tau=3.0"]
    assert out.rstrip().endswith("mlkd train --data coco:/path --recipe cpsd-coco-r101-tf-576")
    alone = call("recipes", "mskd-coco-r34").out
    assert "setting            student\n" in alone
    assert "mAP % mskd 67.02, alone 66.26\n" in alone
    assert "Did you mean 'mskd-coco-r34'" in call("recipes", "mskd-coco-r35").sentence
    assert "cannot be had" in call("recipes", "mdkd-nuswide").sentence


# data check


def test_data_check(call: Callable[..., Answer], voc_folder: Path) -> None:
    spec = f"voc:{voc_folder}"
    answer = call("data", "check", spec)
    assert (answer.code, answer.out) == (
        0,
        f"{spec}: nothing wrong with train 2, val 1, test 2, trainval 3 pictures of 20 classes.\n",
    )
    (voc_folder / "JPEGImages" / "4.jpg").unlink()
    picture = voc_folder / "JPEGImages" / "1.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    answer = call("data", "check", spec)
    assert answer.code == 1
    first, second = sorted(answer.out.splitlines())
    assert "1.jpg: the file is truncated" in first
    assert "4.jpg: no such image file" in second
    assert "nothing wrong" not in answer.out
    (voc_folder / "Annotations" / "2.xml").write_text("<annotation>")
    assert "2.xml: broken or forbidden XML" in call("data", "check", spec).sentence
    assert "no such folder" in call("data", "check", "voc:absent").sentence


# report


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping]]:
    calls: list[tuple[str, Mapping]] = []

    def run(name: str, parameters: Mapping, **others: object) -> int:
        calls.append((name, {**parameters, **others}))
        return 3

    monkeypatch.setattr(report, "run", run)
    return calls


def test_report_hands_on_its_options(call: Callable[..., Answer], reported: list[tuple[str, Mapping]]) -> None:
    answer = call("report", "--preset", "smoke", "--seeds", "2", "--runs", "mine", "--image-size", "48")
    assert answer.code == 3
    ((name, parameters),) = reported
    assert name == "scenes-smoke"
    assert parameters.pop("plan").runs == Path("mine")
    assert {key: value for key, value in parameters.items() if value} == {
        "data": "scenes",
        "preset": "smoke",
        "seeds": 2,
        "runs": "mine",
        "image_size": 48,
        "timeout_s": 3600,
    }
    call("report", "--preset", "smoke", "--name", "night")
    assert reported[1][0] == "night"
    np.savez("counts.npz", counts=np.eye(2), nums=np.ones(2), class_names=np.array(["a", "b"]))
    call("report", "--preset", "smoke", "--counts", "counts.npz")
    assert reported[2][1]["counts"] == "counts.npz"
    assert "none.npz" in call("report", "--preset", "smoke", "--counts", "none.npz").sentence
    assert "`methods` is 'l2b'" in call("report", "--preset", "smoke", "--methods", "vanilla,l2b").sentence
    assert len(reported) == 3
    call("report", "--preset", "smoke", "--methods", "vanilla,cpsd")
    assert reported.pop()[1]["methods"] == ["vanilla", "cpsd"]
    call("report", "--preset", "full")
    call("report", "--preset", "full", "--timeout", "5")
    assert [parameters["timeout_s"] for _, parameters in reported[3:]] == [24 * 3600, 300]


def test_report_from_runs_needs_some(call: Callable[..., Answer], reported: list[tuple[str, Mapping]]) -> None:
    asked = ("report", "--preset", "smoke", "--runs", "mine", "--no-train")
    assert call(*asked).sentence.startswith("mine: no finished run here to make a report from;")
    assert not reported
    for name in ("config.json", "metrics.json"):
        path = Path("mine", "some", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert call(*asked).code == 3
    assert reported[0][1]["no_train"] is True


def test_report_refuses_what_is_wrong_before_it_starts(
    call: Callable[..., Answer], reported: list[tuple[str, Mapping]], voc_folder: Path
) -> None:
    assert call("report", "--nonsense", "1").code == 2
    assert "Did you mean 'quick'?" in call("report", "--preset", "quik").sentence
    (voc_folder / "Annotations" / "2.xml").unlink()
    assert "2.xml: no such annotation file" in call("report", "--data", f"voc:{voc_folder}").sentence
    assert not reported


def test_report_without_its_packages_says_what_to_install(
    call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("series", "execute"):
        monkeypatch.delitem(sys.modules, f"mlkd.report.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "papermill", None)
    answer = call("report", "--preset", "smoke")
    assert answer.sentence == "A report needs the package 'papermill': pip install 'mlkd[notebooks]'."
