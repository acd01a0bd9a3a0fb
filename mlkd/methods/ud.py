"""UD: the student learns what its teacher is uncertain of, and where in the picture that comes from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mlkd.losses.classification import bce
from mlkd.losses.uncertainty import attention, disagreement, distribution, pick_all_labels, uncertainty_map
from mlkd.methods.method import Batch, Method, Teacher, register_method
from mlkd.models import MultiLabelModel, Output


class Calibration(nn.Module):
    """A second opinion on the labels: the largest value of each channel and two linear layers."""

    def __init__(self, features: int, labels: int, hidden: int = 512):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, labels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (b, D, H, W) to logits (b, q)."""
        return self.layers(features.amax(dim=(2, 3)))


@register_method("ud")
class UD(Method):
    r"""$L_{BCE} + L_{PAL-N} + \lambda_{dist} L_{dist} + \lambda_{att} L_{att}$.

    Teacher and student each have a calibration branch beside their classifier. The student follows both of the
    teacher's branches, and its map of where they disagree follows the teacher's. With a teacher of the student's own
    architecture it is the self-distillation that MSKD compares with.

    Source: Song et al., Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation,
    ACM MM 2021; form, weights and temperature as the code they released.
    Differs in three points. There the teacher is trained together with its branch; here any trained model is a
    teacher, and its branch learns on its fixed features while the student trains ($L_{PAL-N}$, which reaches nothing
    else). There the student has no loss against the labels by default; here it has, as with every method compared.
    There the classifier is a linear layer on the largest value of each channel; here it is the model's own head.
    """

    paper = "Song et al., ACM MM 2021"
    equations = "uncertainty distillation"
    required_teachers = ("teacher",)
    needs_features = True

    teacher: Teacher | None = None
    lambda_distribution: float = 1.0
    lambda_attention: float = 0.1
    temperature: float = 3.0
    reduction: str = "sum"

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> nn.Module:
        assert self.teacher is not None  # because of `check`
        models = {"student": student, "teacher": self.teacher}
        return nn.ModuleDict(
            {role: Calibration(model.backbone.width, len(model.classes)) for role, model in models.items()}
        )

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        assert self.teacher is not None  # because of `check`
        mine, its = batch.auxiliary["student"], batch.auxiliary["teacher"]
        features = batch.teacher.features.detach()
        branches = batch.all_gather(mine(student.features)), batch.all_gather(its(features))
        followed = distribution(student.logits, batch.teacher.logits, *branches, temperature=self.temperature)
        maps = _uncertainty(student.features, batch.model.head, mine), _uncertainty(features, self.teacher.head, its)
        return {
            "bce": bce(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask),
            "calibration": pick_all_labels(branches[1], batch.targets),
            "distribution": self.lambda_distribution * followed,
            "attention": self.lambda_attention * attention(*(batch.all_gather(found) for found in maps)),
        }


def _uncertainty(features: Tensor, head: Callable[[Tensor], tuple[Tensor, Tensor | None]], branch: nn.Module) -> Tensor:
    """The map of where head and branch disagree; gradients flow into the features alone."""
    copy = features.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(disagreement(head(copy)[0], branch(copy)), copy)
    return uncertainty_map(features, gradient)
