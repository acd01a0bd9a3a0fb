"""The papers' recipes: that they say what the papers' tables say, and that a plan can be made of each."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import timm
import torch

import mlkd
from mlkd.methods import METHODS, create_method
from mlkd.models import create_model
from mlkd.models.heads import create_head
from mlkd.study.recipes import DATASETS, NETWORKS, RECIPES, UNAVAILABLE, Recipe, get_recipe
from mlkd.training.config import Config

pytestmark = pytest.mark.usefixtures("own_cache")

every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
every_config = pytest.mark.parametrize(
    "config",
    [config for recipe in RECIPES.values() for config in (recipe.teacher, recipe.student) if config],
)

PRINTED = {
    # The mAP rows of each table as printed, column by column: teacher, student alone, student with the method.
    ("l2d", "coco", "1"): "72.71 73.62 74.70 81.70 / 70.02 70.31 74.45 79.59 / 72.81 72.87 76.61 81.59",
    ("l2d", "coco", "2"): "73.62 79.43 73.62 79.43 / 70.02 70.31 71.85 71.85 / 72.14 73.42 73.24 74.21",
    ("l2d", "nuswide", "5"): "55.32 59.73 / 53.41 54.49 / 55.31 56.91",
    ("l2d", "coco", "6"): "70.19 / 73.98 / 75.51",
    ("l2d", "voc", "7"): "86.20 86.73 88.00 92.75 / 83.79 84.01 88.52 91.31 / 84.56 85.71 89.52 91.92",
    ("l2d", "voc", "8"): "86.73 91.43 86.73 91.43 / 83.79 84.01 86.12 86.12 / 86.26 85.87 87.32 87.37",
    # without two columns of networks that timm does not have
    ("mdkd", "coco", "1"): "73.02 82.18 72.18 / 70.55 80.01 69.25 / 73.35 82.33 73.37",
    # without one such
    ("mdkd", "coco", "2"): "73.02 80.01 73.02 74.08 / 69.58 70.55 71.99 71.99 / 72.65 74.01 73.40 73.98",
    ("mdkd", "coco", "5"): "70.55 / 73.02 / 76.89",
    ("cpsd", "coco", "1"): " / 81.6 84.3 84.0 85.9 86.2 86.7 / 83.1 85.2 84.9 86.7 87.3 87.7",
    ("cpsd", "nuswide", "2"): " / 64.1 64.7 / 65.8 66.5",
    ("mskd", "voc", "1"): " / 82.51 72.88 87.89 / 86.83 82.62 89.16",
    ("mskd", "mirflickr", "2"): " / 76.33 80.69 / 78.54 81.77",
    ("mskd", "coco", "2"): " / 66.26 71.94 / 67.02 73.62",
}


@pytest.mark.parametrize("where", PRINTED)
def test_figures_are_the_printed_ones(where: tuple[str, str, str]) -> None:
    method, data, table = where
    rows = [
        recipe
        for recipe in RECIPES.values()
        if (recipe.method, recipe.dataset) == (method, data)
        and table in recipe.table.split(" and ")
        and recipe.name != "released"
    ]
    teacher, vanilla, ours = [[float(figure) for figure in row.split()] for row in PRINTED[where].split(" / ")]
    assert [recipe.teacher_mean_ap for recipe in rows if recipe.teacher_mean_ap] == teacher
    assert [recipe.vanilla_mean_ap for recipe in rows] == vanilla
    assert [recipe.mean_ap for recipe in rows] == ours


def test_no_row_is_lost() -> None:
    """A name that occurs twice would take another's place."""
    tables = sum(len(printed.split(" / ")[-1].split()) for printed in PRINTED.values())
    assert len(RECIPES) == tables + 1  # "released"
    assert not RECIPES.keys() & UNAVAILABLE.keys()
    for name in ("mdkd-coco-wrn101-wrn40x1", "mdkd-coco-wrn40x2-wrn16x2", "mdkd-coco-r32x4-shufflenetv2"):
        assert "timm" in UNAVAILABLE[name]


@every_recipe
def test_what_a_recipe_says(recipe: Recipe) -> None:
    assert RECIPES[recipe.name] is recipe
    assert recipe.name == "released" or recipe.name.startswith(f"{recipe.method}-{recipe.dataset}-")
    assert recipe.dataset in DATASETS
    assert recipe.paper == METHODS[recipe.method].paper
    assert recipe.table[0].isdigit()
    figures = [recipe.mean_ap, recipe.vanilla_mean_ap, recipe.teacher_mean_ap]
    assert all(0 < figure < 100 for figure in figures if figure is not None)
    assert recipe.vanilla_mean_ap is not None
    assert recipe.mean_ap > recipe.vanilla_mean_ap  # what the papers are about
    assert (recipe.teacher is None) == (recipe.method == "mskd")
    assert (recipe.teacher_mean_ap is None) == (recipe.method in ("cpsd", "mskd"))
    assert recipe.teacher is None or recipe.teacher.role == "teacher"
    assert recipe.student.role == "student"
    assert recipe.notes
    assert all(note.endswith(".") for note in recipe.notes)
    with pytest.raises(FrozenInstanceError):
        recipe.mean_ap = 100.0  # type: ignore[misc]


@every_recipe
def test_settings_are_those_of_the_methods(recipe: Recipe) -> None:
    assert recipe.settings.keys() == {"vanilla", recipe.method}
    for method, settings in recipe.settings.items():
        made = create_method(method, **settings)
        assert {name: getattr(made, name) for name in settings} == settings


@every_config
def test_networks_can_be_had(config: Config) -> None:
    name, _, weights = config.backbone.partition(".")
    assert timm.is_model(name)
    assert config.backbone in timm.list_pretrained() if weights else not config.pretrained
    with torch.device("meta"):  # without the memory and the time
        create_head(config.head, 512, ("cat", "dog"), config.embed_dim, config.head_settings)


def test_every_network_stands_in_a_row() -> None:
    named = " ".join([recipe.networks for recipe in RECIPES.values()] + list(UNAVAILABLE.values()))
    assert all(network.called in named for network in NETWORKS.values())
    assert all(bool(network.backbone) != bool(network.missing) for network in NETWORKS.values())


def test_the_settings_of_each_paper() -> None:
    """Against the papers' paragraphs on their implementation."""
    l2d = RECIPES["l2d-coco-r101-r34"].student
    assert (l2d.image_size, l2d.batch_size, l2d.epochs) == (224, 64, 80)
    assert (l2d.optimizer, l2d.lr, l2d.weight_decay, l2d.schedule) == ("adam", 1e-4, 1e-4, "one_cycle")
    assert l2d.augment == ("flip", "cutout", "randaugment")
    assert RECIPES["l2d-coco-r101-r34"].settings["l2d"] == {"lambda_mld": 10, "lambda_cd": 100, "lambda_id": 1000}

    mdkd = RECIPES["mdkd-coco-r101-r34"].student
    assert (mdkd.image_size, mdkd.batch_size, mdkd.epochs) == (224, 32, 110)
    assert (mdkd.optimizer, mdkd.lr, mdkd.weight_decay, mdkd.schedule) == ("adam", 1.5e-4, 1e-4, "cosine")
    assert mdkd.augment == ("flip", "cutout")

    cpsd = RECIPES["cpsd-coco-r101-tf-576"]
    assert cpsd.teacher is not None
    assert (cpsd.teacher.epochs, cpsd.student.epochs) == (20, 80)
    assert (cpsd.student.image_size, cpsd.student.batch_size) == (576, 32)
    assert (cpsd.student.optimizer, cpsd.student.weight_decay) == ("adam", 1e-4)
    assert (cpsd.student.head, cpsd.student.embed_dim) == ("transformer", 1024)
    assert cpsd.student.head_settings == {"layers": 3, "heads": 4}
    assert cpsd.settings["cpsd"] == {"k": 5, "tau": 3.0}
    assert RECIPES["cpsd-coco-r101"].student.image_size == 448

    for data, batch_size, lr in (("voc", 64, 0.01), ("mirflickr", 64, 0.01), ("coco", 128, 0.1)):
        mskd = RECIPES[f"mskd-{data}-r34"].student
        assert (mskd.batch_size, mskd.lr) == (batch_size, lr)
        assert (mskd.image_size, mskd.epochs, mskd.augment) == (224, 80, ("randaugment",))
        assert (mskd.optimizer, mskd.weight_decay, mskd.schedule) == ("sgd", 5e-4, "cosine")
    mskd_settings = RECIPES["mskd-voc-r34"].settings["mskd"]
    assert (mskd_settings["lambda_lsd"], mskd_settings["lambda_rsd"], mskd_settings["lambda_ssd"]) == (1.5, 2.0, 2.0)


def test_reversed_networks() -> None:
    for method in ("l2d", "mdkd"):
        there, back = RECIPES[f"{method}-coco-r101-r34"], RECIPES[f"{method}-coco-r34-r101"]
        assert back.student == there.student.replace(backbone="resnet101.tv_in1k")
        assert there.teacher is not None
        assert back.teacher == there.teacher.replace(backbone="resnet34.tv_in1k")


def test_released_neither_flips_nor_normalises() -> None:
    released, printed = RECIPES["released"].student, RECIPES["l2d-coco-r101-r34"].student
    assert "flip" not in released.augment
    small = {"image_size": 32, "embed_dim": 8}
    raw = create_model(released.backbone, ("cat", "dog"), **small, **released.backbone_settings)
    usual = create_model(printed.backbone, ("cat", "dog"), **small, **printed.backbone_settings)
    assert (raw.mean.tolist(), raw.std.tolist()) == ([[[[0]], [[0]], [[0]]]], [[[[1]], [[1]], [[1]]]])
    assert usual.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


# Plans


@pytest.mark.parametrize("name", ["l2d-coco-r101-r34", "mdkd-coco-r56-r20", "cpsd-coco-r101-q2l", "mskd-voc-r34"])
def test_a_plan_of_a_recipe(name: str) -> None:
    recipe, study = get_recipe(name), mlkd.create_study("scenes", recipe=name)
    assert (study.recipe, study.name, study.data) == (name, "full", "scenes")
    assert study.student == recipe.student
    assert study.teacher == recipe.teacher if recipe.teacher else study.teacher.role == "teacher"
    assert {method: study.methods.get(method, {}) for method in recipe.settings} == recipe.settings
    assert len(study.seeds) == 3


def test_parts_are_trained_as_the_recipe_says() -> None:
    part = mlkd.create_study("scenes", recipe="cpsd-coco-r101").part_training
    assert (part["epochs"], part["lr"]) == (20, 1e-4)


def test_a_plan_of_a_recipe_that_is_tried_out() -> None:
    study = mlkd.create_study("scenes", "smoke", recipe="mdkd-coco-r56-r20")
    assert (study.student.backbone, study.teacher.backbone) == ("resnet20_cifar", "resnet56_cifar")
    for config in (study.teacher, study.student):
        assert (config.epochs, config.image_size) == (1, 64)
        assert config.batch_size <= len(study.splits["train"])
    assert len(study.splits["train"]) < len(mlkd.load_data("scenes")["train"])
    assert study.seeds == (0,)


def test_overrides_reach_a_recipe() -> None:
    study = mlkd.create_study(
        "scenes", recipe="l2d-voc-r50-r18", student_backbone="resnet20_cifar", image_size=48, seeds=2
    )
    assert study.student == RECIPES["l2d-voc-r50-r18"].student.replace(backbone="resnet20_cifar", image_size=48)
    assert study.teacher.backbone == "resnet50.tv_in1k"
    assert study.seeds == (0, 1)


def test_comparing_methods_reduce_as_the_recipe_does() -> None:
    mskd, l2d = (mlkd.create_study("scenes", "smoke", recipe=name) for name in ("mskd-voc-r34", "l2d-voc-r50-r18"))
    assert mskd.settings["tf-kd"] == {"reduction": "batchmean"}
    assert "tf-kd" not in l2d.settings


def test_without_a_recipe_nothing_changes() -> None:
    study, quick = mlkd.create_study("scenes"), mlkd.create_study("scenes", "quick")
    assert (study.name, study.recipe) == ("quick", "")
    assert (study.teacher, study.student) == (quick.teacher_config, quick.student_config)


def test_wrong_recipes_are_told() -> None:
    with pytest.raises(ValueError, match=r"no recipe 'l2d-coco-r101-r43'. Did you mean 'l2d-coco-r101-r34'"):
        mlkd.create_study("scenes", recipe="l2d-coco-r101-r43")
    with pytest.raises(ValueError, match=r"'mdkd-coco-wrn40x2-wrn16x2' cannot be had: .*75.34.*WRN16-2"):
        mlkd.create_study("scenes", recipe="mdkd-coco-wrn40x2-wrn16x2")
    with pytest.raises(ValueError, match=r"`preset` is 'quick', .*'mskd-voc-r34' does not have"):
        mlkd.create_study("scenes", "quick", recipe="mskd-voc-r34")
    with pytest.raises(ValueError, match="no recipe"):
        mlkd.create_study("voc:absent", recipe="lxd")  # before the data is read
