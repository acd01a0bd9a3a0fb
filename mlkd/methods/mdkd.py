"""MDKD: logits of a teacher, and its dependencies between labels."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.l2d import mld
from mlkd.losses.mdkd import batch_dependency, instance_dependency
from mlkd.methods.method import Batch, Method, Teacher, register_method
from mlkd.models import MultiLabelModel, Output


@register_method("mdkd")
class MDKD(Method):
    r"""$L_{BCE} + \lambda_{MLD} L_{MLD} + \sum_{n=2}^{4} (\lambda_{BD} L_{BD_n} + \lambda_{ID} L_{ID_n})$.

    The default weights are the paper's, one for all orders of a level; `max_order` is the highest order. Only logits
    are compared, so student and teacher may have any head. Labels marked as ignored leave the BCE only: the teacher
    has an opinion on them, so they take part in the other terms.

    Source: Wang et al., Beyond Direct Relationships: Exploring Multi-Order Label Pair Dependencies for Knowledge
    Distillation, ACM MM 2024, Eq. (15) and Sec. 4.3.
    """

    paper = "Wang et al., ACM MM 2024"
    equations = "(1)-(15)"
    required_teachers = ("teacher",)

    teacher: Teacher | None = None
    max_order: int = 4
    lambda_mld: float = 10.0
    lambda_bd: float = 1.0
    lambda_id: float = 1.0
    reduction: str = "sum"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        mine, its = student.logits, batch.teacher.logits
        terms = {"bce": bce(mine, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask)}
        if self.lambda_mld:
            terms["mld"] = self.lambda_mld * mld(mine, its)
        orders = range(2, self.max_order + 1)
        if self.lambda_bd:
            losses = batch_dependency(mine, its, orders)
            terms |= {f"bd{n}": self.lambda_bd * loss for n, loss in zip(orders, losses, strict=True)}
        if self.lambda_id:
            losses = instance_dependency(mine, its, orders)
            terms |= {f"id{n}": self.lambda_id * loss for n, loss in zip(orders, losses, strict=True)}
        return terms  # Eq. (15), term by term

    def check(self, student: MultiLabelModel) -> None:
        super().check(student)
        if self.max_order not in range(2, len(student.classes) + 1):
            raise ValueError(
                f"`max_order` is {self.max_order!r}, expected a number of labels from 2 to {len(student.classes)}, "
                f"which is how many the data has."
            )
