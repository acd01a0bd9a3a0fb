"""PS: partial softmax distillation, each positive label against the negative ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


@register_method("ps")
class PS(BCEMethod):
    r"""$L_{BCE} + \lambda_{PS} L_{PS}$.

    The baseline "PS" of L2D and MDKD, which do not give its weight; the default of the official code is 1.

    Source: Song et al., Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation,
    ACM MM 2021, in the form of Yang et al., ICCV 2023, arXiv:2308.06453.
    """

    paper = "Song et al., ACM MM 2021"
    equations = "partial softmax"
    formula = "BCE + λ_ps·PS"
    required_teachers = ("teacher",)

    teacher: Teacher | None = None
    lambda_ps: float = 1.0

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        return {
            "bce": self.bce(student.logits, batch),
            "ps": self.lambda_ps * losses.ps_loss(student.logits, batch.teacher.logits, batch.targets),
        }
