"""CAM-KD: the student's class activation maps match the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pydantic import Field

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Reduction, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import MultiLabelModel, Output


@register_method("cam-kd")
class CAMKD(BCEMethod):
    r"""$L_{BCE} + \lambda_{CAM} L_{CAM}$.

    Each label's class activation map, averaged onto `grid` x `grid` cells and scaled to length 1, matches the
    teacher's. Student and teacher need a head that has such maps: "gap", where they are exact, or "label_wise" or
    "ml_decoder", where they are those of the cross-attention. Ignored labels are excluded from the BCE only: the
    teacher has maps of them.

    Weight and grid are the defaults of the official code, where the loss against the labels is a mean over the batch;
    the configurations of its experiments with scaled maps have weights from 10 to 600. Its authors advise to choose the
    weight for the networks, so that the term is between 1 and 50 after the first epoch.

    Source: Guo et al., Class Attention Transfer Based Knowledge Distillation, CVPR 2023, arXiv:2304.12777 (CAT-KD); for
    many labels, Zhang et al., Knowledge Distillation from Single to Multi Labels: an Empirical Study, 2023,
    arXiv:2303.08360.
    Differs from the papers: see `mlkd.losses.cam_kd`. They distill networks with global average pooling only.
    """

    paper = "Guo et al., CVPR 2023"
    equations = "CAT loss"
    formula = "BCE + λ_cam·CAM"
    required_teachers = ("teacher",)
    needs_features = True
    needs_cams = True

    teacher: Teacher | None = None
    lambda_cam: float = 400.0
    grid: int = Field(2, ge=1)
    reduction: Reduction = "batchmean"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        import torch

        model, teacher = cast("MultiLabelModel", batch.model), cast("MultiLabelModel", self.teacher)
        student_maps = model.head.cams(student.features)
        with torch.no_grad():
            teacher_maps = teacher.head.cams(batch.teacher.features)
        maps = batch.all_gather(student_maps), batch.all_gather(teacher_maps)
        return {
            "bce": self.bce(student.logits, batch),
            "cam": self.lambda_cam * losses.cam_kd_loss(*maps, grid=self.grid),
        }

    def check(self, student: MultiLabelModel) -> None:
        if self.teacher is not None and not hasattr(self.teacher, "backbone"):  # merged networks, or cached outputs
            raise ValueError(
                f"The method {self.name!r} distills the class activation maps of one network, and `teacher` is a "
                f"{type(self.teacher).__name__}; pass a MultiLabelModel."
            )
        super().check(student)
