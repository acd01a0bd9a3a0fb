"""MSE: the student's logits follow the teacher's as numbers."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.cpsd import mse
from mlkd.methods.method import Batch, Method, Teacher, register_method
from mlkd.models import Output


@register_method("mse")
class MSE(Method):
    r"""$L_{BCE} + \lambda_{MSE} L_{MSE}$.

    What L2D and MDKD compare with as "MSE": the squared distance between the logits, as CPSD has it, from one
    teacher of all labels. They do not print its weight.

    Source: Xu et al., CPSD, IJCAI 2022, a term of Eq. (6), arXiv:2205.10986.
    Differs from the print: mean over the images, as L2D's own distillation of logits is.
    """

    paper = "Xu et al., IJCAI 2022"
    equations = "(6)"
    required_teachers = ("teacher",)

    teacher: Teacher | None = None
    lambda_mse: float = 1.0
    reduction: str = "sum"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        return {
            "bce": bce(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask),
            "mse": self.lambda_mse * mse(student.logits, batch.teacher.logits),
        }
