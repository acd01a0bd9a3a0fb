"""MLD: L2D without the label-wise embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


@register_method("mld")
class MLD(BCEMethod):
    r"""$L_{BCE} + \lambda_{MLD} L_{MLD}$.

    The row of L2D's ablation that distills the logits only. The weight is the paper's; it belongs to a BCE summed over
    the batch. The paper has no temperature; with another `temperature` than 1, both networks' logits are divided by it.
    Student and teacher may have any head.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eq. (3) and Sec. 4, arXiv:2308.06453.
    """

    paper = "Yang et al., ICCV 2023"
    equations = "(3)"
    formula = "BCE + λ_mld·MLD"
    required_teachers = ("teacher",)

    teacher: Teacher | None = None
    lambda_mld: float = 10.0
    temperature: float = Field(1.0, gt=0)

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        return {
            "bce": self.bce(student.logits, batch),
            "mld": self.lambda_mld * losses.mld(student.logits, batch.teacher.logits, temperature=self.temperature),
        }
