"""MDKD: distillation of a teacher's logits and its dependencies between labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlkd import losses
from mlkd.methods.method import Batch, Method, Reduction, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import MultiLabelModel, Output


@register_method("mdkd")
class MDKD(Method):
    r"""$L_{BCE} + \lambda_{MLD} L_{MLD} + \sum_{n=2}^{4} (\lambda_{BD} L_{BD_n} + \lambda_{ID} L_{ID_n})$.

    The default weights are the paper's, one for all orders of a level; `max_order` is the highest order. Only logits
    are compared, so student and teacher may have any head. Ignored labels are excluded from the BCE only: the teacher
    predicts them, so they are part of the other terms.

    Source: Wang et al., Beyond Direct Relationships: Exploring Multi-Order Label Pair Dependencies for Knowledge
    Distillation, ACM MM 2024, Eq. (15) and Sec. 4.3.
    """

    paper = "Wang et al., ACM MM 2024"
    equations = "(1)-(15)"
    formula = "BCE + λ_mld·MLD + Σ_n (λ_bd·BD_n + λ_id·ID_n), n = 2 to max_order"
    required_teachers = ("teacher",)

    teacher: Teacher | None = None
    max_order: int = 4
    lambda_mld: float = 10.0
    lambda_bd: float = 1.0
    lambda_id: float = 1.0
    reduction: Reduction = "sum"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        logits = student.logits, batch.teacher.logits
        orders = range(2, self.max_order + 1)
        terms = {
            "bce": losses.bce(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask)
        }
        if self.lambda_mld:
            terms["mld"] = self.lambda_mld * losses.mld(*logits)
        if self.lambda_bd:
            values = losses.batch_dependency(*logits, orders)
            terms |= {f"bd{n}": self.lambda_bd * value for n, value in zip(orders, values, strict=True)}
        if self.lambda_id:
            values = losses.instance_dependency(*logits, orders)
            terms |= {f"id{n}": self.lambda_id * value for n, value in zip(orders, values, strict=True)}
        return terms  # Eq. (15), term by term

    def check(self, student: MultiLabelModel) -> None:
        super().check(student)
        if self.max_order not in range(2, len(student.classes) + 1):
            raise ValueError(
                f"`max_order` is {self.max_order!r}, expected a number of labels from 2 to {len(student.classes)}, "
                f"the number of all labels in the data."
            )
