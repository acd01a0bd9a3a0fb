"""MSE: squared distance between the logits of student and teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


@register_method("mse")
class MSE(BCEMethod):
    r"""$L_{BCE} + \lambda_{MSE} L_{MSE}$.

    The baseline "MSE" of L2D and MDKD: the squared distance between the logits, as in CPSD, with one teacher of all
    labels. L2D and MDKD do not give its weight.

    Source: Xu et al., CPSD, IJCAI 2022, a term of Eq. (6), arXiv:2205.10986.
    Differs from the paper: mean over the images, as in L2D's distillation of logits.
    """

    paper = "Xu et al., IJCAI 2022"
    equations = "(6)"
    formula = "BCE + λ_mse·MSE"
    required_teachers = ("teacher",)

    teacher: Teacher | None = None
    lambda_mse: float = 1.0

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        return {
            "bce": self.bce(student.logits, batch),
            "mse": self.lambda_mse * losses.mse(student.logits, batch.teacher.logits),
        }
