"""A method as a plugin: the student's logits point in the direction of the teacher's.

mlkd train --method cosine --plugin examples/cosine_method.py --set cosine.lambda_cosine=2.0
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mlkd import Output
from mlkd.methods import Batch, BCEMethod, register_method
from mlkd.methods.method import Reduction, Teacher


def cosine_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""One minus the cosine similarity of the logits, mean over the images.

    $$ L_{cos} = \frac{1}{b} \sum_{i=1}^{b} 1 - \cos(z_i^S, z_i^T) $$

    Shape: both (b, q); output (). Range: [0, 2].
    """
    return (1 - F.cosine_similarity(student_logits.float(), teacher_logits.float().detach(), dim=1)).mean()


@register_method("cosine")
class Cosine(BCEMethod):
    r"""$L_{BCE} + \lambda_{cos} L_{cos}$."""

    paper = "an example"
    formula = "BCE + λ_cosine·cosine"
    required_teachers = ("teacher",)

    teacher: Teacher | None = None
    lambda_cosine: float = 1.0
    reduction: Reduction = "batchmean"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        return {
            "bce": self.bce(student.logits, batch),
            "cosine": self.lambda_cosine * cosine_loss(student.logits, batch.teacher.logits),
        }
