"""What a study trains: the networks, schedules and weights of a preset, on one data set.

A notebook or a command says `plan(data="scenes", preset="quick")` and gets the data, a teacher's and a student's
configuration, each method's settings and the seeds; everything in it was chosen on the validation split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mlkd.data import ImageFiles, MultiLabelData, load_data
from mlkd.errors import check_choice
from mlkd.methods import METHODS, Method, create_method
from mlkd.registry import run_plugin
from mlkd.study.label_subsets import label_subset_data, train_label_subsets
from mlkd.study.recipes import get_recipe
from mlkd.training.config import Config
from mlkd.training.loop import fit
from mlkd.training.runs import Run
from mlkd.training.teachers import CachedTeacher

PRESETS = ("smoke", "quick", "full")


@dataclass(frozen=True)
class Study:
    """A teacher, students and their data.

    Attributes:
        spec, data: the data set, as given to `load_data` and as read.
        preset: "smoke" (does it run?), "quick" (minutes on a CPU) or "full".
        teacher_config, student_config: how each is trained; the seed is set by each training.
        settings: method name -> its settings.
        seeds: the students' seeds.
        runs: the folder of all runs.
        recipe: the name of the paper's recipe it follows, or "".
        part_training: what the training of a part's model has instead of the student's, as `{"epochs": 20}`.
        teacher_cache: a folder of answers that stand in for the teacher, or "".
    """

    spec: str
    preset: str
    data: Mapping[str, MultiLabelData]
    teacher_config: Config
    student_config: Config
    settings: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    runs: Path = field(default=Path("runs"))
    recipe: str = ""
    part_training: Mapping[str, Any] = field(default_factory=dict)
    teacher_cache: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data["train"].classes

    def teacher(self) -> Run:
        """The teacher's run: read if it is complete, else trained."""
        return fit(create_method("vanilla", **self.settings["vanilla"]), self.data, self.teacher_config, runs=self.runs)

    def method(self, name: str, **changes: Any) -> Method:
        """A method with this plan's settings, and with the teachers it needs."""
        method = self.untaught(name, **changes)
        return replace(method, **{role: self._model(role, method) for role in method.required_teachers})

    def untaught(self, name: str, **changes: Any) -> Method:
        """A method with this plan's settings, without the teachers it needs."""
        return create_method(name, **{**self.settings.get(name, {}), **changes})

    def _model(self, role: str, method: Method) -> nn.Module:
        """The model that a method needs in that role: the teacher, or one merged from models of parts of the labels."""
        if role == "teacher":
            return CachedTeacher(self.teacher_cache) if self.teacher_cache else self.teacher().model()
        k, tau = division(role, method)
        return train_label_subsets(
            self.data, self._part_config, role, k, tau=tau, method=self._part_method, runs=self.runs
        )

    def part(self, name: str, strategy: str, number: int, **changes: Any) -> Run:
        """One of the runs that a teacher of the method of that name is merged from: read if complete, else trained.

        Args:
            name, changes: the method, such as "cpsd", and settings of it, such as `k=5`.
            strategy: which of its teachers: "cgp", "dgp", "random" or "whole".
            number: which part, from 1 to k.

        Raises:
            ValueError: the method has no such teacher, or that no such part.
        """
        method = self.untaught(name, **changes)
        merged = [role for role in method.required_teachers if role != "teacher"]
        if strategy not in merged:
            expected = f"expected one of {', '.join(merged)}" if merged else "it has no teachers of parts"
            raise ValueError(f"`part` is of {strategy!r}, which the method {name!r} does not need; {expected}.")
        k, tau = division(strategy, method)
        if not 1 <= number <= k:
            raise ValueError(f"`part` has the number {number}, expected 1 to {k}: the method {name!r} has k={k}.")
        task = label_subset_data(self.data, strategy, k, tau=tau)[number - 1]
        return fit(self._part_method, task, self._part_config.replace(role="part"), runs=self.runs)

    @property
    def _part_config(self) -> Config:
        return self.student_config.replace(**self.part_training)

    @property
    def _part_method(self) -> Method:
        return create_method("vanilla", **{**self.settings["vanilla"], "loss": "asl"})

    def student(self, name: str, seed: int = 0, *, log_gradients_every: int = 0, **changes: Any) -> Run:
        """A student's run with the method of that name: read if it is complete, else trained.

        `changes` go to the method (`lambda_cd=0.01`); `log_gradients_every` is that of `mlkd.fit`.
        """
        return self._fit(self.method(name, **changes), seed, log_gradients_every)

    def students(self, name: str, **changes: Any) -> list[Run]:
        """One run per seed, with the same teachers."""
        method = self.method(name, **changes)
        return [self._fit(method, seed) for seed in self.seeds]

    def _fit(self, method: Method, seed: int, log_gradients_every: int = 0) -> Run:
        return fit(
            method,
            self.data,
            self.student_config.replace(seed=seed),
            runs=self.runs,
            log_gradients_every=log_gradients_every,
        )


def create_study(
    data: str = "scenes",
    preset: str = "",
    seeds: int = 0,
    *,
    recipe: str = "",
    runs: str | Path = "runs",
    teacher_backbone: str = "",
    teacher_weights: str = "",
    student_backbone: str = "",
    student_weights: str = "",
    teacher_cache: str = "",
    image_size: int = 0,
    plugin: str = "",
) -> Study:
    """The plan of a preset, or of a paper's recipe, on a data set.

    Args:
        data: as for `load_data`: "scenes", "voc:/path?year=2007", "coco:/path".
        preset: "smoke", "quick" or "full"; "" for quick, or full with a recipe. A recipe has no quick.
        seeds: how many students of each method; 0 for as many as the preset says.
        recipe: a name of `mlkd.RECIPES`, such as "l2d-coco-r101-r34": networks, schedules and weights of a row of a
            paper's tables. In preset smoke they are trained for an epoch on small pictures.
        runs: the folder of all runs.
        teacher_backbone, student_backbone: other timm names than the preset's; "" keeps them.
        teacher_weights, student_weights: local weight files for the backbones; "" for the preset's way.
        teacher_cache: a folder of `cache_teacher_outputs`, in place of the teacher; "" for the teacher itself.
        image_size: side of the pictures in pixels; 0 keeps the preset's.
        plugin: a Python file that is run first; it may register backbones with timm, or methods.

    Raises:
        ValueError: an unknown preset or recipe, or a plugin that is not there; the argument is named.
    """
    preset = preset or ("full" if recipe else "quick")
    check_choice("preset", preset, PRESETS)
    if recipe and preset == "quick":
        raise ValueError(f"`preset` is 'quick', which the recipe {recipe!r} does not have; expected full or smoke.")
    if seeds < 0:
        raise ValueError(f"`seeds` is {seeds}, expected 0 (as the preset says) or more.")
    if plugin:
        run_plugin(plugin)
    scheme = data.split("?")[0].split(":")[0]
    if recipe:
        base = _paper(recipe, preset)
    elif scheme == "scenes":
        base = _scenes(preset)
    else:
        base = _photographs(preset)
    splits: Mapping[str, MultiLabelData] = load_data(data)
    if preset == "smoke":
        splits = {name: _first(split, 96) for name, split in splits.items()}
    common = {"image_size": image_size} if image_size else {}
    teacher = _with(base.teacher_config, teacher_backbone, teacher_weights).replace(role="teacher", **common)
    student = _with(base.student_config, student_backbone, student_weights).replace(**common)
    count = seeds or len(base.seeds)
    return replace(
        base,
        spec=data,
        data=splits,
        teacher_config=teacher,
        student_config=student,
        seeds=tuple(range(count)),
        runs=Path(runs),
        teacher_cache=teacher_cache,
    )


def division(role: str, method: Method) -> tuple[int, float]:
    """k and tau of the parts that a method's teacher in that role is merged from."""
    settings = method.settings()
    return (1 if role == "whole" else settings["k"]), settings.get("tau", 3.0)


def _with(config: Config, backbone: str, weights: str) -> Config:
    """The configuration with another backbone or other weights: then it is trained, not read from a file."""
    if (backbone or weights) and config.init_from:
        config = config.replace(init_from="", epochs=TEACHER_EPOCHS)
    if backbone:
        config = config.replace(
            backbone=backbone, backbone_settings={}, pretrained=bool(config.pretrained), init_from=""
        )
    return config.replace(pretrained=weights) if weights else config


def _first(data: MultiLabelData, count: int) -> MultiLabelData:
    """The first pictures of a split, and for every class at least one that has it."""
    rows = set(range(min(count, len(data)))) | set(data.targets.argmax(axis=0)[data.targets.any(axis=0)].tolist())
    first = data.subset(np.array(sorted(rows)))
    if isinstance(first.images, ImageFiles):  # pictures of their own, so that only they are decoded
        first = replace(first, images=ImageFiles(first.images.root, first.images.paths))
    return first


TEACHER_EPOCHS = 36

SMALL_NET = Config(
    backbone="resnet8_cifar",
    backbone_settings={"stem_stride": 2},
    embed_dim=64,
    pretrained=False,
    image_size=96,
    epochs=15,
    optimizer="adamw",
    lr=6e-3,
    weight_decay=0.05,
    max_grad_norm=5.0,
    augmentations=("flip", "cutout"),
    precision="bf16",
)
"""Small residual nets from scratch: what the drawn scenes are trained with."""


def _scenes(preset: str) -> Study:
    teacher = SMALL_NET.replace(backbone="resnet14x2_cifar", embed_dim=128, epochs=TEACHER_EPOCHS, lr=5e-3)
    student = SMALL_NET
    if preset == "quick":
        teacher = teacher.replace(init_from="mlkd:scenes_teacher", epochs=0, precision="float32")
        student = student.replace(
            backbone_settings={"stem_stride": 3},  # less than half of the work
            epochs=6,
            precision="float32",  # bf16 is far slower on some CPUs
            augmentations=("flip",),
            cache_teacher_outputs=True,  # the teachers are asked once, not at every epoch
        )
    if preset == "smoke":
        teacher = teacher.replace(backbone="resnet8_cifar", epochs=1, precision="float32")
        student = student.replace(epochs=1, precision="float32")
    settings = _averaged(preset)
    part_training = {"epochs": 5} if preset == "quick" else {}
    seeds = {"smoke": 1, "quick": 2, "full": 5}[preset]
    return Study("", preset, {}, teacher, student, settings, tuple(range(seeds)), part_training=part_training)


NEW_HEAD: dict[str, Any] = {
    "image_size": 128,
    "epochs": 10,
    "batch_size": 32,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "max_grad_norm": 5.0,
    "augmentations": ("flip",),
}
"""A trained backbone under a new head, on a few thousand pictures: the head learns, the backbone moves little."""


def _photographs(preset: str) -> Study:
    """Pretrained backbones: the paper's recipe, ResNet-101 to ResNet-34 (L2D, Sec. 4); shorter and smaller in quick."""
    teacher = Config(backbone="resnet101")
    student = Config(backbone="resnet34")
    settings: dict[str, dict[str, Any]] = {"vanilla": {}, **_parts(preset, "sum")}
    if preset != "full":
        teacher = teacher.replace(**NEW_HEAD, backbone_lr_scale=0.05)
        student = student.replace(**NEW_HEAD, backbone_lr_scale=0.2, cache_teacher_outputs=True)
        settings = _averaged(preset)
    if preset == "smoke":
        tiny = {"epochs": 1, "image_size": 64}
        teacher, student = teacher.replace(**tiny), student.replace(**tiny)
    part_training = {"epochs": 20} if preset == "full" else {}  # CPSD, Sec. 4.1
    seeds = {"smoke": 1, "quick": 2, "full": 3}[preset]
    return Study("", preset, {}, teacher, student, settings, tuple(range(seeds)), part_training=part_training)


def _averaged(preset: str) -> dict[str, dict[str, Any]]:
    """Every method with losses averaged over the batch; L2D and MSE with weights chosen on the drawn scenes."""
    settings = _reduced_as({"reduction": "batchmean"}) | _parts(preset, "batchmean")
    settings["l2d"] |= {"lambda_mld": 1.0, "lambda_cd": 0.01, "lambda_id": 0.1}
    settings["mse"]["lambda_mse"] = 0.01
    return settings


def _parts(preset: str, reduction: str) -> dict[str, dict[str, Any]]:
    """The settings of CPSD and its relatives: five parts as in the paper, or fewer in less time."""
    k = {"smoke": 2, "quick": 2, "full": 5}[preset]
    names = ("cgpd", "dgpd", "random-psd", "cpsd")
    return {"sd": {"reduction": reduction}, **{name: {"reduction": reduction, "k": k} for name in names}}


def _paper(name: str, preset: str) -> Study:
    """The networks, schedules and weights of a paper's recipe."""
    recipe = get_recipe(name)
    student = recipe.student
    teacher = recipe.teacher or student.replace(role="teacher")
    if preset == "smoke":
        tiny = {"epochs": 1, "image_size": 64, "batch_size": 16}
        teacher, student = teacher.replace(**tiny), student.replace(**tiny)
    seeds = {"smoke": 1, "full": 3}[preset]
    settings = {**_reduced_as(recipe.settings["vanilla"]), **recipe.settings}
    part_training = {"epochs": teacher.epochs, "lr": teacher.lr} if recipe.method == "cpsd" else {}
    return Study(
        "", preset, {}, teacher, student, settings, tuple(range(seeds)), recipe=name, part_training=part_training
    )


def _reduced_as(vanilla: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each method the reduction of its BCE that a vanilla training has: with another, lr would mean another."""
    name = "reduction"
    having = [method for method, kind in METHODS.items() if name in {field.name for field in fields(kind)}]
    return {method: {name: vanilla[name]} for method in having} if name in vanilla else {}
