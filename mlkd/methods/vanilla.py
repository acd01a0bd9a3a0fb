"""The baseline: training against the labels, without distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mlkd import losses
from mlkd.methods.method import Batch, Method, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


@register_method("vanilla")
class Vanilla(Method):
    """Binary cross entropy against the labels, for teachers and for the baseline that students are compared with.

    `loss="asl"` selects the asymmetric loss with the constants of its authors.
    """

    paper = "Yang et al., ICCV 2023"
    equations = "(1)"
    formula = "BCE"

    loss: Literal["bce", "asl"] = "bce"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        loss = losses.asl if self.loss == "asl" else losses.bce
        return {self.loss: loss(student.logits, batch.targets, ignore_mask=batch.ignore_mask)}
