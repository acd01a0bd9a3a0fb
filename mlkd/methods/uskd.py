"""USKD: soft labels made to measure, from the student's own logits and a weak classifier on an earlier stage."""

from __future__ import annotations

from torch import Tensor, nn

from mlkd.losses.classification import bce
from mlkd.losses.uskd import non_target_loss, target_loss, weak_loss
from mlkd.methods.method import Batch, Method, register_method
from mlkd.models import MultiLabelModel, Output


class WeakClassifier(nn.Module):
    """A linear layer on the pooled output of the student's last stage but one.

    A hook on the student keeps that output from the student's last call in training mode until it is classified.
    A copy of the student has a classifier of its own in its hook, so the two do not mix.
    """

    def __init__(self, student: MultiLabelModel):
        super().__init__()
        stage, channels = student.backbone.penultimate_stage()
        self.classifier = nn.Linear(channels, len(student.classes))
        self.pooled = student.backbone.global_pool  # a method, so the student is no submodule
        self.kept: Tensor | None = None
        stage.register_forward_hook(self._keep)

    def _keep(self, stage: nn.Module, inputs: tuple, output: Tensor | list[Tensor]) -> None:
        if not isinstance(output, Tensor):
            raise ValueError(
                f"The last stage but one of the student's `backbone` gives {len(output)} outputs, expected one for the "
                f"weak classifier of `uskd`: take another backbone or another method."
            )
        if stage.training:
            self.kept = output

    def forward(self) -> Tensor:
        """Weak logits (b, q) for the pictures of the student's last call."""
        output, self.kept = self.kept, None
        assert output is not None, "the student was not called"
        return self.classifier(self.pooled(output))


@register_method("uskd")
class USKD(Method):
    r"""$L_{BCE} + \alpha L_{target} + \beta L_{non} + \mu L_{weak}$.

    The weights are the paper's; they belong to means over pictures. Where the BCE is a sum over the batch, the other
    terms are multiplied by the number of its pictures, so the balance stays. Beside the BCE, `L_target` gives a label
    that is there about twice the weight of one that is not.

    Source: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation, ICCV 2023, Sec. 3,
    arXiv:2303.13005. Differs from the print: see `mlkd.losses.uskd`.
    """

    paper = "Yang et al., ICCV 2023 (USKD)"

    alpha: float = 1.0
    beta: float = 0.1
    mu: float = 0.005
    reduction: str = "sum"

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> WeakClassifier:
        return WeakClassifier(student)

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        targets, weak = batch.targets, batch.all_gather(batch.auxiliary())
        pictures = len(student.logits) if self.reduction == "sum" else 1
        return {
            "bce": bce(student.logits, targets, reduction=self.reduction, ignore_mask=batch.ignore_mask),
            "target": self.alpha * pictures * target_loss(student.logits, targets),
            "non_target": self.beta * pictures * non_target_loss(student.logits, weak, targets),
            "weak": self.mu * pictures * weak_loss(weak, targets),
        }
