"""MLD alone: L2D without the label-wise embeddings."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.l2d import mld
from mlkd.methods.method import Batch, Method, Teacher, register_method
from mlkd.models import Output


@register_method("mld")
class MLD(Method):
    r"""$L_{BCE} + \lambda_{MLD} L_{MLD}$.

    The row of L2D's ablation that distils the logits only; any head will do.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eq. (3) and Sec. 4, arXiv:2308.06453.
    """

    paper = "Yang et al., ICCV 2023"
    equations = "(3)"
    required_teachers = ("teacher",)

    teacher: Teacher | None = None
    lambda_mld: float = 10.0
    reduction: str = "sum"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        return {
            "bce": bce(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask),
            "mld": self.lambda_mld * mld(student.logits, batch.teacher.logits),
        }
