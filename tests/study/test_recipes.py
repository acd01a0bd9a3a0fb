"""The papers' recipes: that they state what the papers' tables state, and that each is a study."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import timm
import torch

from mlkd.data import DataError, load_data
from mlkd.methods import METHODS
from mlkd.models import create_model
from mlkd.models.heads import create_head
from mlkd.study import Study, create_study
from mlkd.study.read import recipe_files, unavailable_recipes

pytestmark = pytest.mark.usefixtures("own_cache")

NAMES = [name for name in recipe_files() if not name.endswith("-common")]
OFFICIAL = "l2d-coco-r101-r34-official"


@cache
def recipe(name: str) -> Study:
    return create_study(name)


every_recipe = pytest.mark.parametrize("name", NAMES)

REPORTED = {
    # The mAP rows of each table, column by column: teacher / student without distillation / student with the method.
    ("l2d", "coco", "1"): "72.71 73.62 74.70 81.70 / 70.02 70.31 74.45 79.59 / 72.81 72.87 76.61 81.59",
    ("l2d", "coco", "2"): "73.62 79.43 73.62 79.43 / 70.02 70.31 71.85 71.85 / 72.14 73.42 73.24 74.21",
    ("l2d", "nuswide", "5"): "55.32 59.73 / 53.41 54.49 / 55.31 56.91",
    ("l2d", "coco", "6"): "70.19 / 73.98 / 75.51",
    ("l2d", "voc", "7"): "86.20 86.73 88.00 92.75 / 83.79 84.01 88.52 91.31 / 84.56 85.71 89.52 91.92",
    ("l2d", "voc", "8"): "86.73 91.43 86.73 91.43 / 83.79 84.01 86.12 86.12 / 86.26 85.87 87.32 87.37",
    ("mdkd", "coco", "1"): "73.02 82.18 74.96 75.42 72.18 / 70.55 80.01 72.48 73.19 69.25 "
    "/ 73.35 82.33 76.88 75.34 73.37",
    ("mdkd", "coco", "2"): "73.02 80.01 73.02 74.08 79.44 / 69.58 70.55 71.99 71.99 72.58 "
    "/ 72.65 74.01 73.40 73.98 74.07",
    ("mdkd", "coco", "5"): "70.55 / 73.02 / 76.89",
    ("cpsd", "coco", "1"): " / 81.6 84.3 84.0 85.9 86.2 86.7 / 83.1 85.2 84.9 86.7 87.3 87.7",
    ("cpsd", "nuswide", "2"): " / 64.1 64.7 / 65.8 66.5",
    ("mskd", "voc", "1"): " / 82.51 72.88 87.89 / 86.83 82.62 89.16",
    ("mskd", "mirflickr", "2"): " / 76.33 80.69 / 78.54 81.77",
    ("mskd", "coco", "2"): " / 66.26 71.94 / 67.02 73.62",
}


@pytest.mark.parametrize("where", REPORTED)
def test_scores_are_the_reported_ones(where: tuple[str, str, str]) -> None:
    method, data, table = where
    studies = [recipe(name).reported for name in NAMES if name != OFFICIAL]
    rows = [
        (row.score("teacher"), row.score("vanilla"), row.score(row.method))
        for row in studies
        if row and (row.method, row.dataset) == (method, data) and table == row.table
    ]
    teacher, vanilla, distilled = [[float(score) for score in row.split()] for row in REPORTED[where].split(" / ")]
    expected = sorted(zip(teacher or [None] * len(vanilla), vanilla, distilled, strict=True), key=str)
    assert sorted(rows, key=str) == expected


def test_no_row_is_missing() -> None:
    tables = sum(len(scores.split(" / ")[-1].split()) for scores in REPORTED.values())
    assert len(NAMES) == tables + 1  # the official one
    assert not set(NAMES) & set(unavailable_recipes())


@every_recipe
def test_a_recipe_is_a_study(name: str) -> None:
    study = recipe(name)
    reported = study.reported
    assert reported is not None
    assert (study.name, len(study.seeds)) == (name, 3)
    assert name.startswith(f"{reported.method}-{reported.dataset}-")
    assert reported.paper == METHODS[reported.method].paper
    assert reported.table[0].isdigit()
    vanilla, distilled = reported.score("vanilla"), reported.score(reported.method)
    assert vanilla is not None
    assert distilled is not None
    assert vanilla < distilled
    assert (reported.score("teacher") is None) == (reported.method in ("cpsd", "mskd"))
    assert (study.teacher.role, study.student.role) == ("teacher", "student")
    assert bool(study.label_subsets) == (reported.method == "cpsd")
    assert study.notes
    assert all(note.endswith(".") for note in study.notes)


ROWS = {
    # The rows and metrics of each paper's tables. Rows that are no method are other papers' systems.
    "l2d": ("teacher vanilla rkd pkt reviewkd mse ps mld l2d", "mAP OF1 CF1_macro", "oracle_k"),
    "mdkd": ("teacher vanilla rkd pkt reviewkd mse ps l2d mdkd", "mAP OF1 CF1_macro", "oracle_k"),
    "cpsd-coco": ("vanilla cpsd", "mAP CP CR CF1 OP OR OF1", "threshold(0.8)"),
    "cpsd-nuswide": ("vanilla cpsd", "mAP CF1 OF1", "threshold(0.8)"),
    "mskd-voc": ("vanilla tf-kd ps-kd dlb ddgsd uskd mulsupcon ud mskd", "mAP CP CR CF1 OF1", "threshold(0.5)"),
    "mskd": ("vanilla dlb uskd ud mskd", "mAP CP CR CF1 OF1", "threshold(0.5)"),
}


@every_recipe
def test_whole_rows_are_kept(name: str) -> None:
    reported = recipe(name).reported
    assert reported is not None
    key = f"{reported.method}-{reported.dataset}"
    rows, metrics, protocol = ROWS.get(key) or ROWS[reported.method]
    assert reported.protocol == protocol
    ablation = {"sd", "cgpd", "dgpd"} if reported.method == "cpsd" else set()  # of Table 3, which has mAP only
    scores = {row: values for row, values in reported.scores.items() if row not in ablation}
    assert [row for row in scores if row in METHODS or row == "teacher"] == rows.split()
    assert {tuple(values) for values in scores.values()} == {tuple(metrics.split())}
    assert all(set(reported.scores.get(row, {"mAP": 0})) == {"mAP"} for row in ablation)


def test_scores_of_single_rows() -> None:
    """Numbers read from the tables a second time, one for each table."""

    def row(name: str, method: str) -> tuple[float, ...]:
        reported = recipe(name).reported
        assert reported is not None
        return tuple(reported.scores[method].values())

    assert row("l2d-coco-wrn101-wrn50", "ps") == (75.12, 76.05, 71.63)
    assert row("l2d-coco-swint-r34", "mld") == (71.14, 72.99, 67.63)
    assert row("l2d-nuswide-swint-mbv2", "reviewkd") == (54.85, 75.84, 61.75)
    assert row("l2d-coco-r34-r101", "mse") == (74.21, 75.12, 70.18)
    assert row("l2d-voc-swins-swint", "rkd") == (91.52, 90.44, 88.51)
    assert row("l2d-voc-r50-mbv2", "l2d") == (87.32, 86.48, 83.26)
    assert row("mdkd-coco-r56-r20", "pkt") == (70.15, 72.16, 66.40)
    assert row("mdkd-coco-wrn101-wrn40x1", "teacher") == (74.96, 75.68, 71.01)
    assert row("mdkd-coco-wrn40x2-wrn16x2", "mse") == (74.22, 76.15, 73.05)
    assert row("mdkd-coco-r32x4-shufflev2", "ps") == (72.45, 73.81, 70.78)
    assert row("mdkd-coco-vgg13-mbv2", "l2d") == (71.05, 73.98, 68.18)
    assert row("mdkd-coco-r34-r101", "mdkd") == (76.89, 77.45, 73.68)
    assert row("cpsd-coco-r101", "MCAR") == (83.8, 85.0, 72.1, 78.0, 88.0, 73.9, 80.3)
    assert row("cpsd-coco-resnext50", "cpsd") == (87.7, 86.9, 78.6, 82.5, 87.6, 80.9, 84.1)
    assert row("cpsd-coco-r101-tf", "cgpd") == (84.7,)
    assert row("cpsd-nuswide-tresnetl", "vanilla") == (64.7, 63.7, 75.0)
    assert row("mskd-voc-mbv2", "ddgsd") == (81.51, 89.75, 52.07, 65.90, 66.83)
    assert row("mskd-coco-swint", "uskd") == (70.54, 76.84, 54.95, 64.70, 58.62)
    assert row("mskd-mirflickr-r34", "mskd") == (78.54, 82.90, 60.75, 71.09, 80.80)


MISTAKES = {
    "protocol: oracle": "`protocol` is 'oracle', expected one of oracle_k",
    "scores: {l2d: {F1: 3}}": "`scores.l2d` is 'F1', expected one of mAP",
    "scores: {l2d: {mAP: 101}}": "`scores.l2d.mAP` is 101.0, expected a score in %",
    "method: ud": "`scores` of reported has no row 'ud', the method of the recipe",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_wrong_scores_are_one_line_errors(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(f"base: l2d-coco-r101-r34\nreported: {{{text}}}")
    with pytest.raises(ValueError, match=r"^\S*mine\.yml: [^\n]*$") as caught:
        create_study(path)
    assert MISTAKES[text] in str(caught.value)


@every_recipe
def test_the_data_address_has_options_of_its_reader(name: str) -> None:
    reported = create_study(name).reported
    assert reported is not None
    with pytest.raises(DataError, match="absent: no such folder"):
        load_data(reported.data_address("absent"))


@every_recipe
def test_networks_exist(name: str) -> None:
    study = recipe(name)
    for config in (study.teacher, study.student):
        backbone, _, weights = config.backbone.partition(".")
        assert timm.is_model(backbone)
        assert config.backbone in timm.list_pretrained() if weights else not config.pretrained
        with torch.device("meta"):  # without the memory and the time
            create_head(config.head, 512, ("cat", "dog"), config.embed_dim, config.head_settings)


def test_settings_of_each_paper() -> None:
    """Against the papers' paragraphs on their implementation."""
    l2d = recipe("l2d-coco-r101-r34")
    student = l2d.student
    assert (student.image_size, student.batch_size, student.epochs) == (224, 64, 80)
    assert (student.optimizer, student.lr, student.weight_decay, student.schedule) == ("adam", 1e-4, 1e-4, "one_cycle")
    assert student.augmentations == ("flip", "cutout", "randaugment")
    assert l2d.methods["l2d"] == {"lambda_mld": 10, "lambda_cd": 100, "lambda_id": 1000}

    student = recipe("mdkd-coco-r101-r34").student
    assert (student.image_size, student.batch_size, student.epochs) == (224, 32, 110)
    assert (student.optimizer, student.lr, student.weight_decay, student.schedule) == ("adam", 1.5e-4, 1e-4, "cosine")
    assert student.augmentations == ("flip", "cutout")

    cpsd = recipe("cpsd-coco-r101-tf-576")
    student = cpsd.student
    assert (cpsd.label_subsets["epochs"], cpsd.label_subsets["lr"], student.epochs) == (20, 1e-4, 80)
    assert student.replace(role="teacher", **cpsd.label_subsets) == cpsd.teacher
    assert (student.image_size, student.batch_size) == (576, 32)
    assert (student.optimizer, student.weight_decay) == ("adam", 1e-4)
    assert (student.head, student.embed_dim) == ("transformer", 1024)
    assert student.head_settings == {"layers": 3, "heads": 4}
    assert cpsd.methods["cpsd"] == {"k": 5, "tau": 3.0}
    assert recipe("cpsd-coco-r101").student.image_size == 448

    for data, batch_size, lr in (("voc", 64, 0.01), ("mirflickr", 64, 0.01), ("coco", 128, 0.1)):
        mskd = recipe(f"mskd-{data}-r34")
        student = mskd.student
        assert (student.batch_size, student.lr) == (batch_size, lr)
        assert (student.image_size, student.epochs, student.augmentations) == (224, 80, ("randaugment",))
        assert (student.optimizer, student.weight_decay, student.schedule) == ("momentum", 5e-4, "cosine")
        weights = mskd.methods["mskd"]
        assert (weights["lambda_lsd"], weights["lambda_rsd"], weights["lambda_ssd"]) == (1.5, 2.0, 2.0)


def test_reversed_networks() -> None:
    for method in ("l2d", "mdkd"):
        there, back = recipe(f"{method}-coco-r101-r34"), recipe(f"{method}-coco-r34-r101")
        assert back.student == there.student.replace(backbone="resnet101.tv_in1k")
        assert back.teacher == there.teacher.replace(backbone="resnet34.tv_in1k")


def test_the_official_recipe_neither_flips_nor_normalizes() -> None:
    official, paper = recipe(OFFICIAL).student, recipe("l2d-coco-r101-r34").student
    assert "flip" not in official.augmentations
    small = {"image_size": 32, "embed_dim": 8}
    raw = create_model(official.backbone, ("cat", "dog"), **small, **official.backbone_settings)
    usual = create_model(paper.backbone, ("cat", "dog"), **small, **paper.backbone_settings)
    assert (raw.mean.tolist(), raw.std.tolist()) == ([[[[0]], [[0]], [[0]]]], [[[[1]], [[1]], [[1]]]])
    assert usual.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_comparing_methods_have_the_reduction_of_the_recipe() -> None:
    def reductions(study: Study) -> set[str]:
        return {study.create_method(name).settings()["reduction"] for name in METHODS}

    assert reductions(recipe("mskd-voc-r34")) == {"batchmean"}
    assert reductions(recipe("l2d-voc-r50-r18")) == {"sum"}


def test_unavailable_recipes_give_the_reason() -> None:
    with pytest.raises(ValueError, match=r"no recipe 'mdkd-nuswide': Table 6 of Wang et al.*is in an appendix"):
        recipe("mdkd-nuswide")


def test_settings_of_the_official_code_of_l2d() -> None:
    """The recipe differs from that of the paper in what the official code has, and in nothing else."""
    paper, official = create_study("l2d-coco-r101-r34"), create_study("l2d-coco-r101-r34-official")
    unnormalized = {"pretrained_cfg_overlay": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}}
    changes = {
        "head": "ml_decoder",
        "augmentations": ("cutout", "randaugment"),
        "precision": "fp16",
        "select": "last",
        "backbone_settings": unnormalized,
    }
    assert official.student == paper.student.replace(**changes)
    assert official.teacher == paper.teacher.replace(**changes, epochs=30, schedule_epochs=80)
    assert (official.train_split, paper.train_split) == ("trainval", "train")
    assert (paper.student.warmup, paper.student.filter_bias_and_bn, paper.student.optimizer) == (0.2, True, "adam")
    assert official.create_method("l2d") == paper.create_method("l2d")
    assert official.create_method("l2d").reduction == "sum"
