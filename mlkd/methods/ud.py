"""UD: the student learns its teacher's uncertainty and where in the image it arises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlkd.models import MultiLabelModel, Output


@register_method("ud")
class UD(BCEMethod):
    r"""$L_{BCE} + L_{PAL-N} + \lambda_{dist} L_{dist} + \lambda_{att} L_{att}$.

    Teacher and student each have a calibration branch beside their classifier. The student matches both branches of the
    teacher, and the teacher's map of where they disagree. With a teacher of the student's architecture this is the
    self-distillation that MSKD is compared with.

    Source: Song et al., Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation,
    ACM MM 2021; form, weights and temperature of the official code.
    Differs from the official code in three points. There the teacher is trained together with its branch; here any
    trained model is a teacher, and its branch learns on its fixed features while the student trains ($L_{PAL-N}$, which
    has no other gradient). There the student has no loss against the labels by default; here it has, as in all other
    methods. There the classifier is a linear layer on the maximum of each channel; here it is the model's head.
    """

    paper = "Song et al., ACM MM 2021"
    equations = "uncertainty distillation"
    formula = "BCE + PAL-N + λ_distribution·DIST + λ_attention·ATT"
    required_teachers = ("teacher",)
    needs_features = True

    teacher: Teacher | None = None
    lambda_distribution: float = 1.0
    lambda_attention: float = 0.1
    temperature: float = 3.0

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> nn.ModuleDict:
        from torch import nn

        from mlkd.models.auxiliary import CalibrationBranch

        models = {"student": student, "teacher": cast("MultiLabelModel", self.teacher)}
        return nn.ModuleDict(
            {role: CalibrationBranch(model.backbone.width, len(model.classes)) for role, model in models.items()}
        )

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        model, teacher = cast("MultiLabelModel", batch.model), cast("MultiLabelModel", self.teacher)
        branches = cast("nn.ModuleDict", batch.auxiliary)
        teacher_features = batch.teacher.features.detach()
        student_calibration = batch.all_gather(branches["student"](student.features))
        teacher_calibration = batch.all_gather(branches["teacher"](teacher_features))
        distribution = losses.prediction_distribution_distillation(
            student.logits,
            batch.teacher.logits,
            student_calibration,
            teacher_calibration,
            temperature=self.temperature,
        )
        attention = losses.uncertainty_attention_distillation(
            batch.all_gather(_uncertainty_map(student.features, model.head, branches["student"])),
            batch.all_gather(_uncertainty_map(teacher_features, teacher.head, branches["teacher"])),
        )
        return {
            "bce": self.bce(student.logits, batch),
            "calibration": losses.pick_all_labels_normalized(teacher_calibration, batch.targets),
            "distribution": self.lambda_distribution * distribution,
            "attention": self.lambda_attention * attention,
        }


def _uncertainty_map(features: Tensor, head: Any, branch: Any) -> Tensor:
    """The uncertainty map (b, H, W) of a network; gradients flow into the features only."""
    return losses.uncertainty_map(features, losses.uncertainty_gradient(features, head, branch))
