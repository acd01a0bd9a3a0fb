"""ReviewKD: the student's last feature map, translated, matches the teacher's at several resolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Reduction, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import MultiLabelModel, Output
    from mlkd.models.auxiliary import FeatureTranslation


@register_method("reviewkd")
class ReviewKD(BCEMethod):
    r"""$L_{BCE} + \lambda_{HCL} L_{HCL}$.

    The student's last feature map is translated by two convolutions, 1x1 to `width` channels and 3x3 to the teacher's,
    each with batch normalization. They are trained with the student and discarded after the training.

    Source: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021, arXiv:2104.09044.
    Differs from the paper in having one level: L2D and MDKD apply feature-based methods to the last feature map only,
    so there is no deeper map to fuse with and of the fusion module only its two convolutions remain. Where the grids
    differ, the student's map is first averaged onto the teacher's. `width` is that of L2D's official code.
    """

    paper = "Chen et al., CVPR 2021"
    equations = "one level, HCL"
    formula = "BCE + λ_hcl·HCL"
    required_teachers = ("teacher",)
    needs_features = True

    teacher: Teacher | None = None
    lambda_hcl: float = 1.0
    width: int = 256
    reduction: Reduction = "batchmean"

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> FeatureTranslation:
        from mlkd.models.auxiliary import FeatureTranslation

        teacher = cast("MultiLabelModel", self.teacher)
        return FeatureTranslation(student.backbone.width, self.width, teacher.backbone.width)

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        teacher_features = batch.teacher.features
        translation = cast("FeatureTranslation", batch.auxiliary)
        student_features = translation(student.features, tuple(teacher_features.shape[2:]))
        return {
            "bce": self.bce(student.logits, batch),
            "hcl": self.lambda_hcl * losses.hcl(batch.all_gather(student_features), batch.all_gather(teacher_features)),
        }
