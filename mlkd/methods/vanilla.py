"""No distillation: the labels alone."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mlkd.losses.classification import asl, bce
from mlkd.methods.method import Batch, Method, register_method
from mlkd.models import Output

LOSSES = {"bce": bce, "asl": asl}


@register_method("vanilla")
class Vanilla(Method):
    """Binary cross entropy against the labels; how teachers are trained and what students are compared with.

    `loss="asl"` takes the asymmetric loss instead, with its authors' constants. `reduction` is for either.
    """

    paper = "Yang et al., ICCV 2023"
    equations = "(1)"

    reduction: str = "sum"
    loss: Literal["bce", "asl"] = "bce"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        loss = LOSSES[self.loss]
        return {self.loss: loss(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask)}
