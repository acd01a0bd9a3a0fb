"""MSKD: self-distillation from crops of the image and from the weights of the previous step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self, cast

from pydantic import Field, model_validator

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import MultiLabelModel, Output
    from mlkd.models.auxiliary import PreviousWeights


@register_method("mskd")
class MSKD(BCEMethod):
    r"""$L_{BCE} + \iota L_{L-SD} + \sum_i (\kappa L_{R-SD}^{(i)} + \lambda L_{S-SD}^{(i)})$, without a teacher.

    At each step the student is also evaluated, without gradient, on `num_crops` crops of each image, and on the full
    images with the weights of the previous step. Both use the batch statistics of their inputs and do not update the
    student's running statistics, which belong to full images. Crops are taken from the batch's images, so they have no
    higher resolution. A crop of the feature map is resized to the size of the map before the head.

    `mbd=False` replaces MBD by the softmax and the KL divergence, as in rows of the paper's Table 3; `temperature`,
    `omega`, `gamma_pos`, `gamma_neg`, `detach_weights` and `as_in_paper` are those of `mlkd.losses.mbd`.

    Differs from the official code in S-SD: as in Eq. (9), the teacher are the weights of the previous step on the same
    images; there it is the previous batch.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eqs. (1)-(17). Random crops have 0.2 to
    0.3 of the area and an aspect ratio of 2:5 to 5:3, as in the official code; "corners" are the four quarters.
    """

    paper = "Wang et al., AAAI 2025"
    equations = "(1)-(17)"
    formula = "BCE + λ_lsd·L-SD + λ_rsd·R-SD + λ_ssd·S-SD"

    lambda_lsd: float = 1.5
    lambda_rsd: float = 2.0
    lambda_ssd: float = 2.0
    num_crops: int = Field(4, ge=1)
    crop_mode: Literal["random", "corners"] = "random"
    propagation_steps: int = 2
    temperature: float = 4.0
    omega: float = 0.5
    gamma_pos: float = 0.25
    gamma_neg: float = 1.0
    detach_weights: bool = True
    as_in_paper: bool = False
    mbd: bool = True

    @model_validator(mode="after")
    def _check_num_crops(self) -> Self:
        if self.crop_mode == "corners" and self.num_crops != 4:
            raise ValueError(f"`num_crops` is {self.num_crops}, expected 4 with crop_mode='corners'.")
        return self

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> PreviousWeights | None:
        from mlkd.models.auxiliary import PreviousWeights

        return PreviousWeights(student) if self.lambda_ssd else None

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        from mlkd.models.auxiliary import logits_with_weights

        logits, targets = student.logits, batch.targets
        model = cast("MultiLabelModel", batch.model)
        terms = {"bce": self.bce(logits, batch)}
        if self.lambda_lsd or self.lambda_rsd:
            boxes = self.boxes(len(batch.images)).to(logits.device)
            if self.lambda_lsd:  # before the crops: autocast may otherwise reuse weights that were cast without a graph
                roi_logits = self._group_by_image(batch, model.head(losses.roi_crop(student.features, boxes))[0])
            images = batch.images if batch.images.is_floating_point() else batch.images.float() / 255
            statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
            crops = losses.roi_crop(images, boxes)
            crop_logits = self._group_by_image(batch, logits_with_weights(model, statistics, crops))
            if self.lambda_lsd:
                terms["lsd"] = self.lambda_lsd * losses.l_sd(roi_logits, crop_logits)
            if self.lambda_rsd:
                combined = losses.combine_crops(crop_logits, logits, targets, self.propagation_steps)
                terms["rsd"] = self.lambda_rsd * self._distill(logits, combined, targets)  # Eq. (8)
        if self.lambda_ssd:
            previous = cast("PreviousWeights", batch.auxiliary)
            if previous.is_set:
                previous_logits = batch.all_gather(logits_with_weights(model, previous.weights(), batch.images))
                terms["ssd"] = self.lambda_ssd * self._distill(logits, previous_logits, targets)  # Eq. (9)
            else:
                terms["ssd"] = 0.0 * logits.sum()
            previous.update(model)
        return terms  # Eq. (17), term by term

    def _distill(self, logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Eq. (16), or Eq. (10) with `mbd=False`."""
        if not self.mbd:
            return losses.softmax_kd(logits, teacher_logits, temperature=self.temperature)
        names = ("temperature", "omega", "gamma_pos", "gamma_neg", "detach_weights", "as_in_paper")
        return losses.mbd(logits, teacher_logits, targets, **{name: getattr(self, name) for name in names})

    def _group_by_image(self, batch: Batch, logits: Tensor) -> Tensor:
        """Logits (b * num_crops, q) as (b, num_crops, q), of all processes."""
        return batch.all_gather(logits.view(-1, self.num_crops, logits.shape[1]))

    def boxes(self, b: int) -> Tensor:
        """The crops of b images: (b, num_crops, 4), x1 y1 x2 y2 as fractions of the sides."""
        return losses.corner_boxes(b) if self.crop_mode == "corners" else losses.random_boxes(b, self.num_crops)
