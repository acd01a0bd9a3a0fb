"""The settings each paper gives, by name: `mlkd.create_study("coco:/path", recipe="l2d-coco-r101-r34")`.

There is one recipe for each row of the papers' tables that names its networks. What a paper leaves open is taken
from its authors' published code where there is any, and told in the recipe's notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from mlkd.errors import closest_match
from mlkd.training.config import Config


@dataclass(frozen=True)
class Recipe:
    """How one figure of a paper came about.

    Attributes:
        name: such as "l2d-coco-r101-r34": method, data, teacher, student.
        paper, table: where the figure stands.
        dataset: what the paper trains and scores on. For information: a recipe goes with any data.
        networks: as the paper calls them.
        method: what the student trains with.
        settings: method name -> its settings; "vanilla" is how the teacher and the student alone are trained.
        teacher, student: how each is trained. CPSD's teachers are its sub-models; MSKD has none.
        mean_ap: mAP in % of the student with the method, on the test pictures, as the paper reports it.
        vanilla_mean_ap, teacher_mean_ap: the same of the student alone and of the teacher, where reported.
        notes: what the paper leaves open and how it is filled in.
    """

    name: str
    paper: str
    table: str
    dataset: str
    networks: str
    method: str
    settings: Mapping[str, Mapping[str, Any]]
    teacher: Config | None
    student: Config
    mean_ap: float
    vanilla_mean_ap: float | None = None
    teacher_mean_ap: float | None = None
    notes: tuple[str, ...] = ()


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: there is none; the nearest is named, or why this one cannot be had.
    """
    if name in UNAVAILABLE:
        raise ValueError(f"The recipe {name!r} cannot be had: {UNAVAILABLE[name]}")
    if name not in RECIPES:
        guess = closest_match(name, RECIPES)
        raise ValueError(f"There is no recipe {name!r}. Did you mean {guess!r}? `mlkd recipes` lists all.")
    return RECIPES[name]


# What the tables below are written with

DATASETS = {"coco": "MS-COCO 2014", "voc": "Pascal VOC 2007", "nuswide": "NUS-WIDE", "mirflickr": "MIRFLICKR-25k"}


class Network(NamedTuple):
    """What the papers call it, its name in timm with the ImageNet weights, and why it cannot be had (if so)."""

    called: str
    backbone: str
    missing: str = ""


_CIFAR = "is a net for 32-pixel pictures that timm does not have."
NETWORKS = {
    "r101": Network("ResNet-101", "resnet101.tv_in1k"),
    "r50": Network("ResNet-50", "resnet50.tv_in1k"),
    "r34": Network("ResNet-34", "resnet34.tv_in1k"),
    "r18": Network("ResNet-18", "resnet18.tv_in1k"),
    "wrn101": Network("WRN-101", "wide_resnet101_2.tv_in1k"),
    "wrn50": Network("WRN-50", "wide_resnet50_2.tv_in1k"),
    "repvgga2": Network("RepVGG-A2", "repvgg_a2.rvgg_in1k"),
    "repvgga0": Network("RepVGG-A0", "repvgg_a0.rvgg_in1k"),
    "swins": Network("Swin-S", "swin_small_patch4_window7_224.ms_in1k"),
    "swint": Network("Swin-T", "swin_tiny_patch4_window7_224.ms_in1k"),
    "mbv2": Network("MobileNet v2", "mobilenetv2_100.ra_in1k"),
    "vgg13": Network("VGG13", "vgg13_bn.tv_in1k"),
    "r56": Network("ResNet56", "resnet56_cifar"),
    "r20": Network("ResNet20", "resnet20_cifar"),
    "tresnetl": Network("TResNetL", "tresnet_l.miil_in1k_448"),
    "resnext50": Network("ResNeXt50-SWSL", "resnext50_32x4d.fb_swsl_ig1b_ft_in1k"),
    "wrn40x2": Network("WRN40-2", "", _CIFAR),
    "wrn40x1": Network("WRN40-1", "", _CIFAR),
    "wrn16x2": Network("WRN16-2", "", _CIFAR),
    "r32x4": Network("ResNet32x4", "", _CIFAR),
    "shufflenetv2": Network("ShuffleNet-V2", "", "is in torchvision, and not in timm."),
}

_EPOCH = "The papers do not say which epoch's score they report, nor how much it varies with the seed; here the last."
_TEACHER = "How the teacher is trained is not said: as the student alone."


# L2D: Sec. 4, "Implementation Details", and Appendix A

L2D = Config(
    head="label_wise",
    embed_dim=768,
    image_size=224,
    epochs=80,
    batch_size=64,
    optimizer="adam",
    lr=1e-4,
    weight_decay=1e-4,
    schedule="one_cycle",
    augmentations=("flip", "cutout", "randaugment"),
)
L2D_SETTINGS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "l2d": {"lambda_mld": 10.0, "lambda_cd": 100.0, "lambda_id": 1000.0},
}
L2D_NOTES = (
    "The embeddings' width (768) and the weights trained on ImageNet-1k (torchvision's for ResNet and WRN) are those "
    "of the authors' published code; the paper names neither. MobileNet v2 has timm's weights.",
    f"{_TEACHER} The published code ends the teacher's schedule after 30 of its 80 epochs; here it goes to its end.",
    "The published code sums BCE over the batch and divides distances by their mean, unlike the equations; the weights "
    "10, 100, 1000 belong to that, and so do the method's defaults.",
    _EPOCH,
)
L2D_ROWS = (  # table, data, teacher, student; mAP of the teacher, of the student alone, with L2D
    ("1", "coco", "repvgga2", "repvgga0", 72.71, 70.02, 72.81),
    ("1", "coco", "r101", "r34", 73.62, 70.31, 72.87),
    ("1", "coco", "wrn101", "wrn50", 74.70, 74.45, 76.61),
    ("1", "coco", "swins", "swint", 81.70, 79.59, 81.59),
    ("2", "coco", "r101", "repvgga0", 73.62, 70.02, 72.14),
    ("2", "coco", "swint", "r34", 79.43, 70.31, 73.42),
    ("2", "coco", "r101", "mbv2", 73.62, 71.85, 73.24),
    ("2", "coco", "swint", "mbv2", 79.43, 71.85, 74.21),
    ("5", "nuswide", "r101", "r34", 55.32, 53.41, 55.31),
    ("5", "nuswide", "swint", "mbv2", 59.73, 54.49, 56.91),
    ("6", "coco", "r34", "r101", 70.19, 73.98, 75.51),
    ("7", "voc", "repvgga2", "repvgga0", 86.20, 83.79, 84.56),
    ("3 and 7", "voc", "r50", "r18", 86.73, 84.01, 85.71),
    ("7", "voc", "wrn101", "wrn50", 88.00, 88.52, 89.52),
    ("7", "voc", "swins", "swint", 92.75, 91.31, 91.92),
    ("8", "voc", "r50", "repvgga0", 86.73, 83.79, 86.26),
    ("8", "voc", "swint", "r18", 91.43, 84.01, 85.87),
    ("8", "voc", "r50", "mbv2", 86.73, 86.12, 87.32),
    ("8", "voc", "swint", "mbv2", 91.43, 86.12, 87.37),
)

# MDKD: Sec. 4.3

MDKD = Config(
    head="label_wise",
    embed_dim=768,
    image_size=224,
    epochs=110,
    batch_size=32,
    optimizer="adam",
    lr=1.5e-4,
    weight_decay=1e-4,
    schedule="cosine",
    augmentations=("flip", "cutout"),
)
MDKD_SETTINGS: dict[str, dict[str, Any]] = {
    "vanilla": {"reduction": "batchmean"},
    "mdkd": {"reduction": "batchmean", "max_order": 4, "lambda_mld": 10.0, "lambda_bd": 1.0, "lambda_id": 1.0},
}
MDKD_NOTES = (
    "MDKD works with any head, and the paper names none: L2D's, with which its tables compare. No code was published, "
    "so BCE is the batch's mean, as in Eq. (1).",
    "Weights of the networks: ImageNet, says the paper; which, it does not (here as in L2D's recipes). VGG13 is taken "
    "for the one with batch normalisation.",
    _TEACHER,
    _EPOCH,
)
MDKD_ROWS = (  # as above
    ("1", "coco", "r101", "r34", 73.02, 70.55, 73.35),
    ("1", "coco", "swins", "swint", 82.18, 80.01, 82.33),
    ("1", "coco", "wrn101", "wrn40x1", 74.96, 72.48, 76.88),
    ("1", "coco", "wrn40x2", "wrn16x2", 75.42, 73.19, 75.34),
    ("1", "coco", "r56", "r20", 72.18, 69.25, 73.37),
    ("2", "coco", "r101", "repvgga0", 73.02, 69.58, 72.65),
    ("2", "coco", "swint", "r34", 80.01, 70.55, 74.01),
    ("2", "coco", "r101", "mbv2", 73.02, 71.99, 73.40),
    ("2", "coco", "vgg13", "mbv2", 74.08, 71.99, 73.98),
    ("2", "coco", "r32x4", "shufflenetv2", 79.44, 72.58, 74.07),
    ("5", "coco", "r34", "r101", 70.55, 73.02, 76.89),
)

# CPSD: Sec. 4.1, "Implementation Details"

CPSD = Config(
    head="gap",
    image_size=448,
    epochs=80,
    batch_size=32,
    optimizer="adam",
    lr=1e-5,
    weight_decay=1e-4,
    schedule="one_cycle",
    augmentations=("cutout", "randaugment"),
)
CPSD_PART = {"epochs": 20, "lr": 1e-4}  # what a sub-model's training has instead
CPSD_SETTINGS: dict[str, dict[str, Any]] = {"vanilla": {"loss": "asl"}, "cpsd": {"k": 5, "tau": 3.0}}
CPSD_HEADS: dict[str, tuple[str, dict[str, Any]]] = {  # what the paper calls the network with it; what a Config has
    "": ("", {"head": "gap"}),
    "tf": (" + TF", {"head": "transformer", "embed_dim": 1024, "head_settings": {"layers": 3, "heads": 4}}),
    "q2l": (" + Q2L", {"head": "query2label"}),
}
CPSD_HEAD_NOTES = {
    "": (),
    "tf": (
        "The class tokens come from GloVe in the paper: head_settings with word_vectors='glove.txt' take its file.",
    ),
    "q2l": ("Depth, heads and width are the head's defaults; the paper does not say them.",),
}
CPSD_NOTES = (
    "The teacher's settings are those of the sub-models, one for each part of the labels.",
    "The paper names no learning rate, schedule or augmentation. They are those of the authors' published scripts, "
    "which build on ASL's: one cycle, 1e-4 for sub-models and 1e-5 for the student, Cutout 0.5, RandAugment, no flip. "
    "The scripts warm up over 10 % of the steps, here 30 %; spare biases and norms the weight decay; and report the "
    "better of the network and its moving average. Their batch size is 24, the paper's 32.",
    _EPOCH,
)
CPSD_ROWS = (  # table, data, network, head, image size; mAP of the baseline, with CPSD
    ("1", "coco", "r101", "", 448, 81.6, 83.1),
    ("1", "coco", "r101", "tf", 448, 84.3, 85.2),
    ("1", "coco", "r101", "q2l", 448, 84.0, 84.9),
    ("1", "coco", "r101", "tf", 576, 85.9, 86.7),
    ("1", "coco", "tresnetl", "", 448, 86.2, 87.3),
    ("1", "coco", "resnext50", "", 448, 86.7, 87.7),
    ("2", "nuswide", "r101", "tf", 448, 64.1, 65.8),
    ("2", "nuswide", "tresnetl", "", 448, 64.7, 66.5),
)

# MSKD: "Implementations" and "Coefficients"

MSKD = Config(
    head="gap",
    image_size=224,
    epochs=80,
    batch_size=64,
    optimizer="sgd",
    lr=0.01,
    weight_decay=5e-4,
    schedule="cosine",
    augmentations=("randaugment",),
)
MSKD_COCO = {"batch_size": 128, "lr": 0.1}
MSKD_SETTINGS: dict[str, dict[str, Any]] = {
    "vanilla": {"reduction": "batchmean"},
    "mskd": {"reduction": "batchmean", "lambda_lsd": 1.5, "lambda_rsd": 2.0, "lambda_ssd": 2.0, "propagation_steps": 2},
}
MSKD_NOTES = (
    "Weights trained on ImageNet, as in the authors' published code; the paper does not say so.",
    "The paper's Eq. (1) sums over the batch. Here all terms are divided by its size, as with SGD a sum would make lr "
    "that many times larger. The published code averages over the labels too and gives the backbone a tenth of lr, "
    "which a Config cannot say: where a training diverges, lower lr. SGD has Nesterov's momentum here.",
    _EPOCH,
)
MSKD_SWIN = "The paper's Swin-T has two heads and an attention dropout of 0.4, it does not say in which part; not here."
MSKD_ROWS = (  # table, data, network; mAP of the student alone, with MSKD
    ("1", "voc", "r34", 82.51, 86.83),
    ("1", "voc", "mbv2", 72.88, 82.62),
    ("1", "voc", "swint", 87.89, 89.16),
    ("2", "mirflickr", "r34", 76.33, 78.54),
    ("2", "mirflickr", "swint", 80.69, 81.77),
    ("2", "coco", "r34", 66.26, 67.02),
    ("2", "coco", "swint", 71.94, 73.62),
)

# One recipe's own notes

NOTES = {
    "l2d-coco-r34-r101": "Table 1 has other figures for the same networks alone: 70.31 and 73.62.",
    "mdkd-coco-r101-r34": "Table 4 has 74.15 in the row that reads like the same setting.",
    "mdkd-coco-r56-r20": "These nets have no ImageNet weights in timm: from scratch, unless weight files are given.",
}

PAPERS: dict[str, tuple[str, Mapping[str, Mapping[str, Any]], tuple[str, ...]]] = {
    "l2d": ("Yang et al., ICCV 2023", L2D_SETTINGS, L2D_NOTES),
    "mdkd": ("Wang et al., ACM MM 2024", MDKD_SETTINGS, MDKD_NOTES),
    "cpsd": ("Xu et al., IJCAI 2022", CPSD_SETTINGS, CPSD_NOTES),
    "mskd": ("Wang et al., AAAI 2025", MSKD_SETTINGS, MSKD_NOTES),
}

RECIPES: dict[str, Recipe] = {}

UNAVAILABLE = {
    "mdkd-voc": "Table 3 of Wang et al., ACM MM 2024, is missing in the copy at hand, and the text names no networks.",
    "mdkd-nuswide": "Table 6 of Wang et al., ACM MM 2024, is in an appendix that the copy at hand lacks.",
}
"""What the papers report and no recipe is for: a name and the reason."""


def _add(
    name: str,
    table: str,
    networks: str,
    teacher: Config | None,
    student: Config,
    figures: tuple[float, float, float | None],
    *notes: str,
) -> None:
    method, data = name.split("-")[:2]
    paper, settings, common = PAPERS[method]
    own = (NOTES[name],) if name in NOTES else ()
    teacher = teacher and teacher.replace(role="teacher")
    RECIPES[name] = Recipe(
        name, paper, table, data, networks, method, settings, teacher, student, *figures, (*common, *notes, *own)
    )


def _on(config: Config, network: Network, **changes: Any) -> Config:
    return config.replace(backbone=network.backbone, pretrained=not network.backbone.endswith("_cifar"), **changes)


def _teacher_to_student(method: str, config: Config, rows: Sequence[tuple]) -> None:
    for table, data, first, second, teacher_ap, vanilla_ap, ap in rows:
        name, pair = f"{method}-{data}-{first}-{second}", (NETWORKS[first], NETWORKS[second])
        networks = " -> ".join(network.called for network in pair)
        absent = [f"{network.called} {network.missing}" for network in pair if network.missing]
        if absent:
            UNAVAILABLE[name] = f"{networks}, {ap} % mAP in table {table} of {PAPERS[method][0]}. {' '.join(absent)}"
        else:
            _add(name, table, networks, _on(config, pair[0]), _on(config, pair[1]), (ap, vanilla_ap, teacher_ap))


def _parts_to_student() -> None:
    for table, data, network, head, size, vanilla_ap, ap in CPSD_ROWS:
        name = "-".join(filter(None, ["cpsd", data, network, head, "576" if size == 576 else ""]))
        called, changes = CPSD_HEADS[head]
        student = _on(CPSD, NETWORKS[network], image_size=size, **changes)
        networks = f"{NETWORKS[network].called}{called}, {size} px"
        _add(
            name, table, networks, student.replace(**CPSD_PART), student, (ap, vanilla_ap, None), *CPSD_HEAD_NOTES[head]
        )


def _student_alone() -> None:
    for table, data, network, vanilla_ap, ap in MSKD_ROWS:
        student = _on(MSKD, NETWORKS[network], **(MSKD_COCO if data == "coco" else {}))
        notes = (MSKD_SWIN,) if network == "swint" else ()
        _add(f"mskd-{data}-{network}", table, NETWORKS[network].called, None, student, (ap, vanilla_ap, None), *notes)


def _released() -> None:
    """L2D as its authors' code trains it, where that differs from the paper's text."""
    recipe = RECIPES["l2d-coco-r101-r34"]
    teacher = cast(Config, recipe.teacher)
    changes = {
        "augmentations": ("cutout", "randaugment"),
        "backbone_settings": {"pretrained_cfg_overlay": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}},
    }
    note = (
        "As the authors' published code and unlike the paper: no horizontal flip. Pictures stay in [0, 1], not "
        "normalised by the weights' mean and standard deviation, of which the paper says nothing."
    )
    RECIPES["released"] = replace(
        recipe,
        name="released",
        teacher=teacher.replace(**changes),
        student=recipe.student.replace(**changes),
        notes=(*recipe.notes, note),
    )


_teacher_to_student("l2d", L2D, L2D_ROWS)
_teacher_to_student("mdkd", MDKD, MDKD_ROWS)
_parts_to_student()
_student_alone()
_released()
