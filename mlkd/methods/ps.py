"""PS: a softmax for each positive label among the negatives."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.uncertainty import ps
from mlkd.methods.method import Batch, Method, Teacher, register_method
from mlkd.models import Output


@register_method("ps")
class PS(Method):
    r"""$L_{BCE} + \lambda_{PS} L_{PS}$.

    What L2D and MDKD compare with as "PS". They do not print its weight; the released code's default is 1.

    Source: Song et al., Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation,
    ACM MM 2021, in the form of Yang et al., ICCV 2023, arXiv:2308.06453.
    """

    paper = "Song et al., ACM MM 2021"
    equations = "partial softmax"
    required_teachers = ("teacher",)

    teacher: Teacher | None = None
    lambda_ps: float = 1.0
    reduction: str = "sum"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        return {
            "bce": bce(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask),
            "ps": self.lambda_ps * ps(student.logits, batch.teacher.logits, batch.targets),
        }
