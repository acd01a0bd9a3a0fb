"""The baseline: training against the labels, without distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from mlkd.methods.labels import ASLMethod, BCEMethod
from mlkd.methods.method import Batch, Method, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


@register_method("vanilla")
class Vanilla(BCEMethod, ASLMethod):
    """Binary cross entropy against the labels, for teachers and for the baseline that students are compared with.

    `loss="asl"` selects the asymmetric loss, by default with the constants of its authors. The settings of `BCEMethod`
    belong to the first loss, those of `ASLMethod` to the second.
    """

    paper = "Yang et al., ICCV 2023"
    equations = "(1)"
    formula = "BCE"

    loss: Literal["bce", "asl"] = "bce"

    @model_validator(mode="after")
    def _check_loss(self) -> Self:
        other, owner = ("bce", BCEMethod) if self.loss == "asl" else ("asl", ASLMethod)
        for name in owner.model_fields.keys() - Method.model_fields.keys():
            if getattr(self, name) != owner.model_fields[name].default:
                raise ValueError(
                    f"`{name}` of the method 'vanilla' is a setting of loss='{other}', but `loss` is {self.loss!r}."
                )
        return self

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        loss = self.asl if self.loss == "asl" else self.bce
        return {self.loss: loss(student.logits, batch)}
