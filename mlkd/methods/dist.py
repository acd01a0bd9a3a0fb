"""DIST: distillation of the correlations between the student's and the teacher's probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Reduction, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


@register_method("dist")
class DIST(BCEMethod):
    r"""$L_{BCE} + \lambda_{inter} L_{inter} + \lambda_{intra} L_{intra}$.

    Student and teacher may have any head. Ignored labels are excluded from the BCE only: the teacher predicts them, so
    they are part of the other terms. The weights are the paper's for classification, where the loss against the labels
    is a mean over the batch. The paper's temperature is 1 for ImageNet and 4 for CIFAR-100.

    Source: Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv:2205.10536.
    Differs from the paper: see `mlkd.losses.dist`.
    """

    paper = "Huang et al., NeurIPS 2022"
    equations = "correlations"
    formula = "BCE + λ_inter·INTER + λ_intra·INTRA"
    required_teachers = ("teacher",)

    teacher: Teacher | None = None
    lambda_inter: float = 2.0
    lambda_intra: float = 2.0
    temperature: float = Field(1.0, gt=0)
    reduction: Reduction = "batchmean"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        logits = student.logits, batch.teacher.logits
        return {
            "bce": self.bce(student.logits, batch),
            "inter": self.lambda_inter * losses.inter_class_relation(*logits, temperature=self.temperature),
            "intra": self.lambda_intra * losses.intra_class_relation(*logits, temperature=self.temperature),
        }
