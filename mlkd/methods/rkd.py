"""RKD: how the pictures of a batch lie to each other."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.rkd import angle, distance
from mlkd.methods.method import Batch, Method, Teacher, register_method
from mlkd.models import Output


@register_method("rkd")
class RKD(Method):
    r"""$L_{BCE} + \lambda_D L_{RKD-D} + \lambda_A L_{RKD-A}$.

    The relations are those of the last feature map, averaged over its cells. The weights are the paper's for
    classification, where the loss against the labels is a mean over the batch.

    Source: Park et al., Relational Knowledge Distillation, CVPR 2019, Eqs. (5)-(11), arXiv:1904.05068.
    """

    paper = "Park et al., CVPR 2019"
    equations = "(5)-(11)"
    required_teachers = ("teacher",)
    needs_features = True

    teacher: Teacher | None = None
    lambda_distance: float = 25.0
    lambda_angle: float = 50.0
    reduction: str = "sum"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        mine, its = (batch.all_gather(said.features.mean(dim=(2, 3))) for said in (student, batch.teacher))
        return {
            "bce": bce(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask),
            "distance": self.lambda_distance * distance(mine, its),
            "angle": self.lambda_angle * angle(mine, its),
        }
