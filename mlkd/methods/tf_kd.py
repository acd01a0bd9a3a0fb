"""Tf-KD_reg: a teacher that is written down."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.tf_kd import tf_kd
from mlkd.methods.method import Batch, Method, register_method
from mlkd.models import Output


@register_method("tf-kd")
class TfKD(Method):
    r"""$(1 - \alpha) L_{BCE} + \alpha L_{reg}$.

    The regularisation form, whose teacher is right about every label; the self-training form has the student's own
    network, trained before, as its teacher. The weights are those the authors released for a ResNet-18. Both terms
    are reduced alike.

    Source: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020, Eq. (9),
    arXiv:1909.11723. Differs from the print: see `mlkd.losses.tf_kd`.
    """

    paper = "Yuan et al., CVPR 2020"
    equations = "(8), (9)"

    alpha: float = 0.1
    confidence: float = 0.99
    temperature: float = 20.0
    soften: str = "teacher"
    reduction: str = "sum"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        hard = bce(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask)
        soft = tf_kd(
            student.logits,
            batch.targets,
            confidence=self.confidence,
            temperature=self.temperature,
            soften=self.soften,
            reduction=self.reduction,
        )
        return {"bce": (1 - self.alpha) * hard, "tf_kd": self.alpha * soft}  # Eq. (9), term by term
