"""L2D: distillation of a teacher's logits and label-wise embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


@register_method("l2d")
class L2D(BCEMethod):
    r"""$L_{BCE} + \lambda_{MLD} L_{MLD} + \lambda_{CD} L_{CD} + \lambda_{ID} L_{ID}$.

    The default weights are the paper's. They belong to pretrained backbones, a small learning rate, normalized
    distances, and, as in the official code, a BCE that is summed over the batch while MLD is a mean over it.

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Eq. (9) and Sec. 4, arXiv:2308.06453.
    """

    paper = "Yang et al., ICCV 2023"
    equations = "(1)-(9)"
    formula = "BCE + λ_mld·MLD + λ_cd·CD + λ_id·ID"
    required_teachers = ("teacher",)
    needs_embeddings = True

    teacher: Teacher | None = None
    lambda_mld: float = 10.0
    lambda_cd: float = 100.0
    lambda_id: float = 1000.0
    normalize: bool = True

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        teacher, targets = batch.teacher, batch.targets
        terms = {"bce": self.bce(student.logits, batch)}
        if self.lambda_mld:
            terms["mld"] = self.lambda_mld * losses.mld(student.logits, teacher.logits)
        assert student.embeddings is not None  # because of `needs_embeddings`
        assert teacher.embeddings is not None
        embeddings = student.embeddings, teacher.embeddings
        if self.lambda_cd:
            terms["cd"] = self.lambda_cd * losses.cd(*embeddings, targets, normalize=self.normalize)
        if self.lambda_id:
            terms["id"] = self.lambda_id * losses.id_(*embeddings, targets, normalize=self.normalize)
        return terms  # Eq. (9), term by term
