"""Presets: what a study trains, and what its arguments change."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mlkd
from mlkd.data import MultiLabelData
from mlkd.data.image_cache import decoded_images
from mlkd.graphs import cooccurrence, partition
from mlkd.methods import METHODS, create_method
from mlkd.models import create_model, fingerprint
from mlkd.study import study as studies
from mlkd.study.label_subsets import train_label_subsets
from mlkd.study.study import PRESETS, Study
from mlkd.training.config import Config
from mlkd.training.runs import Run, iter_runs

pytestmark = pytest.mark.usefixtures("own_cache")

PLUGIN = """
from __future__ import annotations

from dataclasses import dataclass

from mlkd.methods import Vanilla, register_method
from mlkd.models.cifar_resnet import CifarResNet
from timm.models import register_model


@register_model
def NAME(pretrained=False, **settings):
    return CifarResNet(blocks=1, widths=(4, 8, 12))


@register_method("NAME")
@dataclass
class Mine(Vanilla):
    mine: float = 2.0
"""


@pytest.fixture
def toy_plan(toy_data: Mapping[str, MultiLabelData], toy_config: Config, tmp_path: Path) -> Study:
    student = toy_config.replace(epochs=1)
    settings = {"vanilla": {"reduction": "batchmean"}, "l2d": {"lambda_cd": 0.5, "lambda_id": 0.25}}
    return Study(
        "toy", "smoke", toy_data, student.replace(role="teacher"), student, settings, (0, 1), tmp_path / "runs"
    )


@pytest.mark.parametrize(("preset", "count"), [("smoke", 1), ("quick", 2), ("full", 5)])
def test_the_presets_of_the_scenes(preset: str, count: int) -> None:
    study = mlkd.create_study("scenes", preset)
    assert (study.data, study.name, study.runs) == ("scenes", preset, Path("runs"))
    assert study.seeds == tuple(range(count))
    assert study.teacher.role == "teacher"
    assert study.student.role == "student"
    assert study.student.epochs > 0
    assert bool(study.teacher.init_from) == (preset == "quick")
    assert study.classes == study.splits["test"].classes
    assert {"vanilla", "l2d", "cpsd"} <= set(study.methods) <= set(METHODS)
    for name in study.methods:  # every setting is one that the method has
        create_method(name, **study.methods[name])


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_of_photographs(preset: str, voc_folder: Path) -> None:
    study = mlkd.create_study(f"voc:{voc_folder}", preset)
    assert (study.teacher.backbone, study.student.backbone) == ("resnet101", "resnet34")
    assert study.teacher.pretrained is True
    assert len(study.classes) == 20
    if preset == "full":  # the paper's recipe: all of `Config`'s defaults
        assert study.student == Config()
        assert "l2d" not in study.methods
        assert create_method("cpsd", **study.methods["cpsd"]).settings() == create_method("cpsd").settings()
        assert study.part_training == {"epochs": 20}


@pytest.mark.parametrize(("preset", "nearest"), [("qick", "quick"), ("Full", "full"), ("smok", "smoke")])
def test_an_unknown_preset_names_the_nearest(preset: str, closest_match: str) -> None:
    with pytest.raises(ValueError, match=f"`preset` is '{preset}'.*smoke, quick, full.*Did you mean '{closest_match}'"):
        mlkd.create_study("scenes", preset)


def test_seeds() -> None:
    assert mlkd.create_study("scenes", "quick", 3).seeds == (0, 1, 2)
    assert mlkd.create_study("scenes", "full", seeds=1).seeds == (0,)
    with pytest.raises(ValueError, match="`seeds` is -1"):
        mlkd.create_study("scenes", "quick", -1)


def test_overrides_reach_the_configurations(tmp_path: Path) -> None:
    plain = mlkd.create_study("scenes", "full")
    study = mlkd.create_study(
        "scenes",
        "full",
        runs=tmp_path,
        teacher_backbone="resnet56_cifar",
        teacher_weights="teacher.safetensors",
        student_backbone="resnet20_cifar",
        student_weights="student.safetensors",
        image_size=48,
    )
    teacher, student = study.teacher, study.student
    assert (teacher.backbone, teacher.pretrained, teacher.image_size) == ("resnet56_cifar", "teacher.safetensors", 48)
    assert (student.backbone, student.pretrained, student.image_size) == ("resnet20_cifar", "student.safetensors", 48)
    assert study.runs == tmp_path
    kept = ("epochs", "batch_size", "optimizer", "lr", "schedule", "augmentations", "role", "seed", "head", "embed_dim")
    for name in kept:
        assert getattr(teacher, name) == getattr(plain.teacher_config, name)
        assert getattr(student, name) == getattr(plain.student_config, name)
    only = mlkd.create_study("scenes", "full", student_backbone="resnet20_cifar")
    assert only.teacher_config == plain.teacher_config


@pytest.mark.parametrize("changes", [{"teacher_backbone": "resnet20_cifar"}, {"teacher_weights": "own.safetensors"}])
def test_another_teacher_than_the_packaged_one_is_trained(changes: dict[str, str]) -> None:
    """Where nothing is changed, preset quick only scores the teacher that comes with the package."""
    config = mlkd.create_study("scenes", "quick", **changes).teacher_config
    assert config.init_from == ""
    assert config.epochs > 0


def test_smoke_takes_few_pictures_and_every_class() -> None:
    whole, few = mlkd.load_data("scenes"), mlkd.create_study("scenes", "smoke").data
    assert few.keys() == whole.keys()
    for name, split in few.items():
        assert len(split) <= min(96, len(whole[name])) + len(split.classes)
        assert np.array_equal(split.targets.any(axis=0), whole[name].targets.any(axis=0))
        assert set(split.ids) <= set(whole[name].ids)
        assert split.ids[: min(96, len(split))] == whole[name].ids[: min(96, len(split))]
    assert len(few["train"]) < len(whole["train"])
    assert {name: len(split) for name, split in mlkd.create_study("scenes", "quick").data.items()} == {
        name: len(split) for name, split in whole.items()
    }


def test_smoke_decodes_no_other_pictures() -> None:
    """A subset's pixels are rows of the whole split's; a smoke test of a large data set must not decode all of it."""
    for split in mlkd.create_study("scenes", "smoke").data.values():
        assert len(decoded_images(split, 32).table) == len(split)


# Plugins


@pytest.fixture
def plugin(tmp_path: Path):
    """A function that writes a plugin with a backbone and a method of the given name."""
    names = []

    def write(name: str, file: str = "plugin.py") -> str:
        names.append(name)
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(PLUGIN.replace("NAME", name))
        return str(path)

    yield write
    for name in names:
        METHODS.pop(name, None)
    for module in [module for module in sys.modules if module.startswith("mlkd_plugin_")]:
        del sys.modules[module]


def test_a_plugin_registers_backbones_and_methods(plugin) -> None:
    path = plugin("net_of_a_plugin")
    for _ in range(2):  # a second time it changes nothing
        study = mlkd.create_study("scenes", "full", plugin=path, student_backbone="net_of_a_plugin")
    assert study.student.backbone == "net_of_a_plugin"
    assert create_model("net_of_a_plugin", ("a", "b"), image_size=32).backbone.width == 12
    assert study.build_method("net_of_a_plugin", mine=3.0).settings()["mine"] == 3.0


def test_two_plugins_of_one_name_are_both_run(plugin) -> None:
    mlkd.create_study("scenes", "full", plugin=plugin("net_in_a", "a/plugin.py"))
    mlkd.create_study("scenes", "full", plugin=plugin("net_in_b", "b/plugin.py"))
    assert create_model("net_in_b", ("a", "b"), image_size=32).backbone.width == 12


def test_a_missing_plugin_is_named(tmp_path: Path) -> None:
    (tmp_path / "plugin.txt").write_text("")
    for path in (tmp_path / "absent.py", tmp_path, tmp_path / "plugin.txt"):
        with pytest.raises(ValueError, match=r"`plugin` is .*expected a Python file") as caught:
            mlkd.create_study("scenes", "smoke", plugin=str(path))
        assert str(path) in str(caught.value)


def test_a_plugin_that_fails_is_run_again(tmp_path: Path, plugin) -> None:
    path = tmp_path / "plugin.py"
    path.write_text("raise KeyError('mine')")
    with pytest.raises(KeyError, match="mine"):
        mlkd.create_study("scenes", "smoke", plugin=str(path))
    plugin("net_after_failure")
    mlkd.create_study("scenes", "smoke", plugin=str(path))
    assert "net_after_failure" in METHODS


# What a plan trains


def test_a_plan_trains_its_teacher_once_and_a_student_for_each_seed(
    toy_plan: Study, capsys: pytest.CaptureFixture
) -> None:
    teacher = toy_plan.teacher()
    assert teacher.config["training"]["role"] == "teacher"
    assert teacher.config["settings"]["reduction"] == "batchmean"
    students = toy_plan.students("l2d", lambda_cd=0.75)
    assert [run.config["training"]["seed"] for run in students] == [0, 1]
    for run in students:
        settings = run.config["settings"]
        assert (settings["lambda_cd"], settings["lambda_id"], settings["lambda_mld"]) == (0.75, 0.25, 10.0)
        assert settings["teacher"]
        assert list(run.history.columns)[2:6] == ["bce", "mld", "cd", "id"]
    out = capsys.readouterr().out
    assert out.count("vanilla teacher, seed 0: epoch 1/1") == 1
    again = toy_plan.student("l2d", 1, lambda_cd=0.75)
    assert again.path == students[1].path
    assert "teacher" not in toy_plan.student("vanilla").config["settings"]


def part_runs(study: Study) -> list[Run]:
    return [run for run in iter_runs(study.runs) if run.config["training"]["role"] == "part"]


def test_a_plan_trains_the_models_of_parts_once(toy_plan: Study, capsys: pytest.CaptureFixture) -> None:
    students = toy_plan.students("cpsd", k=2, tau=2.0)
    assert [run.config["training"]["seed"] for run in students] == [0, 1]
    counts = cooccurrence(toy_plan.data["train"].targets)
    for role in ("cgp", "dgp"):
        assert len({run.config["settings"][role] for run in students}) == 1
        merged = train_label_subsets(
            toy_plan.data,
            toy_plan.student_config,
            role,
            2,
            tau=2.0,
            method=create_method("vanilla", loss="asl", reduction="batchmean"),
            runs=toy_plan.runs,
        )
        assert students[0].config["settings"][role] == fingerprint(merged)
    expected = [partition(counts, 2, role, 2.0) for role in ("cgp", "dgp")]
    names = {tuple(np.array(toy_plan.classes)[parts == part]) for parts in expected for part in (0, 1)}
    runs = part_runs(toy_plan)
    assert {run.predictions().classes for run in runs} == names
    for run in runs:
        assert run.config["training"] == toy_plan.student_config.replace(role="part").as_dict()
        assert run.config["settings"] == {"reduction": "batchmean", "loss": "asl"}
    out = capsys.readouterr().out
    assert out.count("vanilla part, seed 0: epoch 1/1") == len(runs)
    assert "teacher" not in out


def test_parts_are_made_as_the_method_says(toy_plan: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def watched(data, config, strategy, k, *, tau, **others):
        asked.append((strategy, k, tau))
        return create_model("resnet8_cifar", toy_plan.classes, image_size=32)

    monkeypatch.setattr(studies, "train_label_subsets", watched)
    toy_plan.method("cpsd", k=4, tau=2.5)
    toy_plan.method("random-psd")
    toy_plan.method("sd")
    assert asked == [("cgp", 4, 2.5), ("dgp", 4, 2.5), ("random", 5, 3.0), ("whole", 1, 3.0)]


@pytest.mark.parametrize(
    ("name", "count"), [("sd", 1), ("cgpd", 2), ("dgpd", 2), ("random-psd", 2), ("vanilla", 0), ("l2d", 0)]
)
def test_each_method_gets_what_it_needs(name: str, count: int, toy_plan: Study) -> None:
    changes = {"k": 2} if count == 2 else {}
    method = toy_plan.method(name, **changes)
    assert all(model.classes == toy_plan.classes for model in method.teachers.values())
    assert len(part_runs(toy_plan)) == count


def test_parts_may_be_trained_otherwise_than_the_student(toy_plan: Study) -> None:
    replace(toy_plan, part_training={"epochs": 2, "lr": 1e-3}).method("sd")
    (run,) = part_runs(toy_plan)
    expected = toy_plan.student_config.replace(role="part", epochs=2, lr=1e-3)
    assert run.config["training"] == expected.as_dict()


def test_the_models_of_parts_follow_a_recipe() -> None:
    """CPSD, Sec. 4.1: 20 epochs for sub-models, 80 for the student."""
    study = mlkd.create_study("scenes", recipe="cpsd-coco-r101")
    assert (study.part_training["epochs"], study.student.epochs) == (20, 80)
    assert study.student.replace(role="teacher", **study.part_training) == study.teacher
    assert mlkd.create_study("scenes", "smoke", recipe="cpsd-coco-r101").part_training["epochs"] == 1
    assert mlkd.create_study("scenes", recipe="l2d-coco-r101-r34").part_training == {}


def test_unknown_methods_and_settings_name_the_nearest(toy_plan: Study) -> None:
    with pytest.raises(ValueError, match="Did you mean 'vanilla'"):
        toy_plan.student("vanila")
    with pytest.raises(ValueError, match=r"'l2d' has no setting 'lambda_cdd'. Did you mean 'lambda_cd'"):
        toy_plan.student("l2d", lambda_cdd=1.0)
    assert not toy_plan.runs.exists()  # before the teacher is trained
    with pytest.raises(ValueError, match=r"no setting 'epoch'. Did you mean 'epochs'"):
        toy_plan.student_config.replace(epoch=1)
