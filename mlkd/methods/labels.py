"""The losses against the labels, with their settings: the base classes of methods with such a term."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, Strict

from mlkd import losses
from mlkd.errors import first_few
from mlkd.methods.method import Batch, Method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import MultiLabelModel

NonNegative = Annotated[float, Field(ge=0)]
PerClass = Annotated[tuple[NonNegative, ...], Strict(False)]


class BCEMethod(Method):
    """A method with a binary cross entropy against the labels.

    Settings:
        pos_weight: a factor of the terms of present labels: one number, or one per class.
        class_weights: a factor of the terms of each class, present or absent; () for none.
        label_smoothing: the fraction of each target that is replaced by 1/2, in [0, 1).
    """

    pos_weight: NonNegative | PerClass = 1.0
    class_weights: PerClass = ()
    label_smoothing: float = Field(0.0, ge=0, lt=1)

    def bce(self, logits: Tensor, batch: Batch) -> Tensor:
        """The binary cross entropy of logits (b, q) against the labels of the batch, in the default reduction."""
        return losses.bce(
            logits,
            batch.targets,
            reduction=self.default_reduction(),
            ignore_mask=batch.ignore_mask,
            pos_weight=self.pos_weight,
            class_weights=self.class_weights,
            label_smoothing=self.label_smoothing,
        )

    def check(self, student: MultiLabelModel) -> None:
        super().check(student)
        for name in ("pos_weight", "class_weights"):
            values = getattr(self, name)
            if isinstance(values, tuple) and values and len(values) != len(student.classes):
                raise ValueError(
                    f"`{name}` of the method {self.name!r} has {len(values)} numbers, expected one for each of the "
                    f"{len(student.classes)} classes {first_few(student.classes)}."
                )


class ASLMethod(Method):
    """A method with the asymmetric loss against the labels.

    Settings:
        gamma_neg, gamma_pos, clip, detach_focus: as in `mlkd.losses.asl`.
    """

    gamma_neg: NonNegative = 4.0
    gamma_pos: NonNegative = 0.0
    clip: float = Field(0.05, ge=0, lt=1)
    detach_focus: bool = True

    def asl(self, logits: Tensor, batch: Batch) -> Tensor:
        """The asymmetric loss of logits (b, q) against the labels of the batch, in the default reduction."""
        return losses.asl(
            logits,
            batch.targets,
            gamma_neg=self.gamma_neg,
            gamma_pos=self.gamma_pos,
            clip=self.clip,
            detach_focus=self.detach_focus,
            reduction=self.default_reduction(),
            ignore_mask=batch.ignore_mask,
        )
