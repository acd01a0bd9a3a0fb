"""What a training is told: network, schedule, augmentation, seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from mlkd.data.augmentation import AUGMENTATIONS
from mlkd.errors import check_choice, closest_match

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("one_cycle", "cosine", "constant")
PRECISIONS = ("auto", "float32", "bf16", "fp16")


@dataclass(frozen=True)
class Config:
    """The settings of one training. The defaults are L2D's (Sec. 4 of the paper, ResNet-34 on MS-COCO).

    Attributes:
        backbone, head, embed_dim, head_settings, pretrained, backbone_settings: as in `mlkd.models.create_model`.
        image_size: side of the pictures in pixels.
        init_from: a model file of `save_model` the training starts from ("" for none). With `epochs=0` the file is
            only scored.
        epochs: passes over the training split.
        batch_size: pictures a step; a last, smaller batch is dropped.
        optimizer: "adam" (weight decay as in its paper), "adamw" (decoupled) or "sgd" (momentum 0.9, Nesterov).
        lr: the highest learning rate of the schedule.
        backbone_lr_scale: the backbone's learning rate as a share of `lr`; small where a trained backbone meets a new head.
        weight_decay: for all parameters.
        schedule: "one_cycle" (up over the first 30 % of the steps, then down to nothing), "cosine" or "constant".
        max_grad_norm: gradients are scaled down to this norm; 0 for never.
        augmentations: what each training batch goes through, in order: "flip", "crop", "cutout", "randaugment".
        cache_teacher_outputs: ask the teachers about each training picture and its mirror image once, keep the answers in the
            cache folder and use them at every epoch, of every run. With augmentations=() or ("flip",) only. Methods that
            compare feature maps, which are too large to keep, ask at every step.
        precision: "float32", or autocast to "bf16" or "fp16"; losses are computed in float32 always. "auto" measures a
            few steps of float32 and bf16 when the run begins, and keeps the fastest for it (`Run.speed`).
        compile: whether the student is compiled by torch.compile, which takes a minute or more and then saves time.
        seed: the initial weights, the order of the pictures and their augmentation follow from it.
        role: "teacher", "student" or "part" (a teacher of some of the labels), for tables and figures.
    """

    backbone: str = "resnet34"
    head: str = "label_wise"
    embed_dim: int | None = None
    head_settings: dict[str, Any] = field(default_factory=dict)
    pretrained: bool | str = True
    backbone_settings: dict[str, Any] = field(default_factory=dict)
    image_size: int = 224
    init_from: str = ""
    epochs: int = 80
    batch_size: int = 64
    optimizer: str = "adam"
    lr: float = 1e-4
    backbone_lr_scale: float = 1.0
    weight_decay: float = 1e-4
    schedule: str = "one_cycle"
    max_grad_norm: float = 0.0
    augmentations: tuple[str, ...] = ("flip", "cutout", "randaugment")
    cache_teacher_outputs: bool = False
    precision: str = "float32"
    compile: bool = False
    seed: int = 0
    role: str = "student"

    def __post_init__(self) -> None:
        object.__setattr__(self, "augmentations", tuple(self.augmentations))
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("role", self.role, ("teacher", "student", "part"))
        for name in self.augmentations:
            check_choice("augmentations", name, AUGMENTATIONS)
            if self.cache_teacher_outputs and name != "flip":
                raise ValueError(
                    f"`cache_teacher_outputs` is on, but `augmentations` has {name!r}, which draws a new picture at each step; a "
                    f"teacher's answers can be kept for augmentations=() and augmentations=('flip',) only."
                )
        for name in ("batch_size", "image_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}, expected a whole number of at least 1.")
        for name in ("epochs", "seed"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}, expected a whole number, 0 or more.")
        for name in ("lr", "backbone_lr_scale", "weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"`{name}` is {value!r}, expected a number, 0 or more.")

    def replace(self, **changes: Any) -> Config:
        """This configuration with some settings changed; an unknown one is an error naming the nearest."""
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                raise ValueError(f"There is no setting {name!r}. Did you mean {closest_match(name, known)!r}?")
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "augmentations": list(self.augmentations)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Config:
        return cls().replace(**settings)
