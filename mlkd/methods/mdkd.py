"""MDKD: distillation of a teacher's logits and its dependencies between labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Reduction, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import MultiLabelModel, Output

ORDERS = (2, 3, 4)
"""The orders of the paper's main experiments."""


@register_method("mdkd")
class MDKD(BCEMethod):
    r"""$L_{BCE} + \lambda_{MLD} L_{MLD} + \sum_n (\lambda_{BD_n} L_{BD_n} + \lambda_{ID_n} L_{ID_n})$.

    Only logits are compared, so student and teacher may have any head. Ignored labels are excluded from the BCE only:
    the teacher predicts them, so they are part of the other terms.

    Settings:
        lambda_mld: the weight of MLD.
        lambda_bd, lambda_id: order n -> weight of the batch-level and the instance-level term. An order that is not in
            the mapping is left out; a number stands for that weight at the orders 2, 3 and 4.

    The defaults are the paper's and belong to a BCE that is the mean over the batch, Eq. (1).

    Source: Wang et al., Beyond Direct Relationships: Exploring Multi-Order Label Pair Dependencies for Knowledge
    Distillation, ACM MM 2024, Eqs. (9), (14), (15) and Sec. 4.3.
    """

    paper = "Wang et al., ACM MM 2024"
    equations = "(1)-(15)"
    formula = "BCE + λ_mld·MLD + Σ_n (λ_bd[n]·BD_n + λ_id[n]·ID_n)"
    required_teachers = ("teacher",)

    teacher: Teacher | None = None
    lambda_mld: float = 10.0
    lambda_bd: dict[int, float] = dict.fromkeys(ORDERS, 1.0)
    lambda_id: dict[int, float] = dict.fromkeys(ORDERS, 1.0)
    reduction: Reduction = "batchmean"

    @field_validator("lambda_bd", "lambda_id", mode="before")
    @classmethod
    def _weight_of_each_order(cls, value: Any, info: Any) -> dict[int, Any]:
        weights = value if isinstance(value, dict) else dict.fromkeys(ORDERS, value)
        try:
            by_order = {int(order): weight for order, weight in weights.items()}  # JSON has the orders as text
        except (TypeError, ValueError):
            by_order = {}
        if (weights and not by_order) or any(order < 2 for order in by_order):
            raise ValueError(
                f"`{info.field_name}` of {cls.title} is {value!r}, expected a number, or a mapping from orders, "
                f"each 2 or more, to numbers."
            )
        return by_order

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        logits = student.logits, batch.teacher.logits
        terms = {"bce": self.bce(student.logits, batch)}
        if self.lambda_mld:
            terms["mld"] = self.lambda_mld * losses.mld(*logits)
        levels = {
            "bd": (losses.batch_dependency, self.lambda_bd),  # Eq. (9)
            "id": (losses.instance_dependency, self.lambda_id),  # Eq. (14)
        }
        for level, (loss, weights) in levels.items():
            orders = [order for order, weight in weights.items() if weight]
            if orders:
                values = loss(*logits, orders)
                terms |= {f"{level}{n}": weights[n] * value for n, value in zip(orders, values, strict=True)}
        return terms  # Eq. (15), term by term

    def check(self, student: MultiLabelModel) -> None:
        super().check(student)
        for name, weights in (("lambda_bd", self.lambda_bd), ("lambda_id", self.lambda_id)):
            if max(weights, default=2) > len(student.classes):
                raise ValueError(
                    f"`{name}` has the order {max(weights)}, expected orders from 2 to {len(student.classes)}, the "
                    f"number of labels in the data."
                )
