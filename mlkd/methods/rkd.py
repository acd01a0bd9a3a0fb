"""RKD: distillation of the distances and angles between the images of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Reduction, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


@register_method("rkd")
class RKD(BCEMethod):
    r"""$L_{BCE} + \lambda_D L_{RKD-D} + \lambda_A L_{RKD-A}$.

    The features are the last feature map, averaged over its grid. The weights are the paper's for classification,
    where the loss against the labels is a mean over the batch.

    Source: Park et al., Relational Knowledge Distillation, CVPR 2019, Eqs. (5)-(11), arXiv:1904.05068.
    """

    paper = "Park et al., CVPR 2019"
    equations = "(5)-(11)"
    formula = "BCE + λ_distance·RKD-D + λ_angle·RKD-A"
    required_teachers = ("teacher",)
    needs_features = True

    teacher: Teacher | None = None
    lambda_distance: float = 25.0
    lambda_angle: float = 50.0
    reduction: Reduction = "batchmean"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        features = [batch.all_gather(output.features.mean(dim=(2, 3))) for output in (student, batch.teacher)]
        return {
            "bce": self.bce(student.logits, batch),
            "distance": self.lambda_distance * losses.rkd_distance(*features),
            "angle": self.lambda_angle * losses.rkd_angle(*features),
        }
