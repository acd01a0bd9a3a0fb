"""L2D: logits and label-wise embeddings of a teacher."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.l2d import cd, id_, mld
from mlkd.methods.method import Batch, Method, Teacher, register_method
from mlkd.models import Output


@register_method("l2d")
class L2D(Method):
    r"""$L_{BCE} + \lambda_{MLD} L_{MLD} + \lambda_{CD} L_{CD} + \lambda_{ID} L_{ID}$.

    The default weights are the paper's; they belong to pretrained backbones, a small learning rate, a BCE summed
    over the batch and distances over their mean. Networks trained from scratch want smaller ones.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eq. (9) and Sec. 4, arXiv:2308.06453.
    """

    paper = "Yang et al., ICCV 2023"
    equations = "(1)-(9)"
    required_teachers = ("teacher",)
    needs_embeddings = True

    teacher: Teacher | None = None
    lambda_mld: float = 10.0
    lambda_cd: float = 100.0
    lambda_id: float = 1000.0
    normalize: bool = True
    reduction: str = "sum"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        teacher, targets = batch.teacher, batch.targets
        terms = {"bce": bce(student.logits, targets, reduction=self.reduction, ignore_mask=batch.ignore_mask)}
        if self.lambda_mld:
            terms["mld"] = self.lambda_mld * mld(student.logits, teacher.logits)
        if self.lambda_cd or self.lambda_id:
            mine, its = cast(Tensor, student.embeddings), cast(Tensor, teacher.embeddings)  # as `needs_embeddings`
            if self.lambda_cd:
                terms["cd"] = self.lambda_cd * cd(mine, its, targets, normalize=self.normalize)
            if self.lambda_id:
                terms["id"] = self.lambda_id * id_(mine, its, targets, normalize=self.normalize)
        return terms  # Eq. (9), term by term
