"""Tf-KD_reg: distillation from a hand-designed teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


@register_method("tf-kd")
class TfKD(BCEMethod):
    r"""$(1 - \alpha) L_{BCE} + \alpha L_{reg}$.

    The regularization form, whose teacher is correct about every label. (In the self-training form the teacher is the
    student's network, trained before.) The settings are those of the official code for a ResNet-18.

    Source: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020, Eq. (9),
    arXiv:1909.11723.
    Differs from the paper: see `mlkd.losses.tf_kd`.
    """

    paper = "Yuan et al., CVPR 2020"
    equations = "(8), (9)"
    formula = "(1 - α)·BCE + α·REG"

    alpha: float = 0.1
    confidence: float = 0.99
    temperature: float = 20.0
    soften: Literal["teacher", "both"] = "teacher"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        bce = self.bce(student.logits, batch)
        regularization = losses.tf_kd_loss(
            student.logits,
            batch.targets,
            confidence=self.confidence,
            temperature=self.temperature,
            soften=self.soften,
        )
        return {"bce": (1 - self.alpha) * bce, "tf_kd": self.alpha * regularization}  # Eq. (9), term by term
