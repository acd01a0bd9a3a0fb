"""The configuration of one training: network, schedule, augmentation, seed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict, model_validator

from mlkd.settings import Settings

Augmentation = Literal["flip", "crop", "cutout", "randaugment"]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Config(Settings):
    """The settings of one training. The defaults are L2D's (Sec. 4 of the paper, ResNet-34 on MS-COCO).

    Attributes:
        backbone, head, embed_dim, head_settings, pretrained, backbone_settings: as in `mlkd.models.create_model`.
        image_size: side of the images in pixels.
        select: the epoch whose weights are kept and evaluated on the other splits: "best" for the one with the highest
            mAP on `val` (the first of several), "last" for the last one.
        init_from: a model file of `save_model` that the training starts from ("" for none). With `epochs=0` the model
            is only evaluated.
        epochs: passes over the training split.
        batch_size: images per step; a last, smaller batch is dropped.
        eval_batch_size: images per forward pass on `val` and `test`; without influence on the result but for rounding.
        grad_accum_steps: the batch passes through the student in so many slices, one after the other, so that less
            memory is needed; see `mlkd.training.accumulation`. `batch_size` counts the images of all slices. The
            gradient is that of the whole batch, but batch normalization uses the statistics of each slice.
        optimizer: "adam" (L2 weight decay), "adamw" (decoupled weight decay), "sgd" (momentum 0.9,
            Nesterov) or "momentum" (SGD with momentum 0.9).
        lr: the maximum learning rate of the schedule.
        backbone_lr_scale: the backbone's learning rate divided by `lr`; small for a pretrained backbone.
        weight_decay: for all parameters, or without those that `filter_bias_and_bn` excludes.
        filter_bias_and_bn: no weight decay of biases and parameters with one dimension, such as those of normalization
            layers; as timm's option of that name.
        schedule: "one_cycle" (increases, then decays to 0), "cosine" (decays to 0) or "constant".
        schedule_epochs: the length of the schedule, at least `epochs`, for a training that stops before its end; None
            for `epochs`.
        warmup: the fraction of the schedule in which the learning rate increases; None for 0.3 with "one_cycle" and 0
            with the others. "cosine" and "constant" increase linearly and then start.
        ema_decay: the decay per step of an exponential moving average of the weights (timm's `ModelEmaV3`, of
            parameters and buffers); 0 for none. With one, the averaged weights are validated, saved and tested, and the
            student's are only trained. An average of decay d is over about 1 / (1 - d) steps.
        max_grad_norm: gradients are clipped to this norm; 0 for no clipping.
        augmentations: applied to each training batch, in order: "flip", "crop", "cutout", "randaugment".
        cache_teacher_outputs: evaluate the teachers once on each training image and its horizontal flip, store the
            outputs in the cache folder and use them at every epoch of every run. Requires augmentations=() or
            ("flip",). Methods that compare feature maps, which are too large to store, evaluate them at every step.
        precision: "float32", or autocast to "bf16" or "fp16"; losses are always computed in float32. "auto" measures
            float32 and bf16 for a few steps when the run starts, and keeps the faster one (`Run.compute_format`).
        compile: whether the student is compiled by torch.compile, which takes a minute or more at the start.
        seed: determines the initial weights, the order of the images and their augmentation.
        role: "teacher", "student" or "label_subset" (a teacher of some of the labels), for tables and figures.
    """

    title: ClassVar[str] = "the training"

    backbone: str = "resnet34"
    head: str = "label_wise"
    embed_dim: int | None = None
    head_settings: dict[str, Any] = Field(default_factory=dict)
    pretrained: bool | str = True
    backbone_settings: dict[str, Any] = Field(default_factory=dict)
    image_size: Annotated[int, Field(ge=1)] = 224
    select: Literal["best", "last"] = "best"
    init_from: str = ""
    epochs: Annotated[int, Field(ge=0)] = 80
    batch_size: Annotated[int, Field(ge=1)] = 64
    eval_batch_size: Annotated[int, Field(ge=1)] = 256
    grad_accum_steps: Annotated[int, Field(ge=1)] = 1
    optimizer: Literal["adam", "adamw", "sgd", "momentum"] = "adam"
    lr: NonNegative = 1e-4
    backbone_lr_scale: NonNegative = 1.0
    weight_decay: NonNegative = 1e-4
    filter_bias_and_bn: bool = False
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    schedule_epochs: Annotated[int, Field(ge=1)] | None = None
    warmup: Fraction | None = None
    ema_decay: Fraction = 0.0
    max_grad_norm: NonNegative = 0.0
    augmentations: Annotated[tuple[Augmentation, ...], Strict(False)] = ("flip", "cutout", "randaugment")
    cache_teacher_outputs: bool = False
    precision: Literal["auto", "float32", "bf16", "fp16"] = "float32"
    compile: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    role: Literal["teacher", "student", "label_subset"] = "student"

    @model_validator(mode="after")
    def _check_cached_outputs(self) -> Config:
        if self.cache_teacher_outputs and set(self.augmentations) - {"flip"}:
            raise ValueError(
                f"`cache_teacher_outputs` is on, but `augmentations` is {list(self.augmentations)}; teacher outputs "
                f"can be cached for augmentations=() and ('flip',) only, since the others change the images at each "
                f"step."
            )
        return self

    @model_validator(mode="after")
    def _check_schedule(self) -> Config:
        if self.schedule_epochs is not None and self.schedule_epochs < self.epochs:
            raise ValueError(
                f"`schedule_epochs` is {self.schedule_epochs}, expected at least the number of epochs: `epochs` is "
                f"{self.epochs}."
            )
        return self

    @model_validator(mode="after")
    def _check_accumulation(self) -> Config:
        if self.grad_accum_steps > self.batch_size:
            raise ValueError(
                f"`grad_accum_steps` is {self.grad_accum_steps}, expected at most the number of images in a batch: "
                f"`batch_size` is {self.batch_size}."
            )
        return self
