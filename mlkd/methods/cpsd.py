"""CPSD, and what it is compared with: students of teachers that are merged from models of parts of the labels."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.classification import asl
from mlkd.losses.cpsd import merged_distillation, mse
from mlkd.methods.method import Batch, Method, Teacher, register_method
from mlkd.models import Output


class SelfDistillation(Method):
    """The asymmetric loss, and the squared distance between the logits of the student and its one teacher.

    `reduction` is that of both: "sum" over the batch as printed, or "batchmean".
    """

    paper = "Xu et al., IJCAI 2022"
    equations = "(3)-(7)"

    reduction: str = "sum"
    lambda_kd: float = 1.0

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        return {
            "asl": asl(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask),
            "kd": self.lambda_kd * self.distillation(student.logits, batch),
        }  # Eq. (7), term by term

    def distillation(self, logits: Tensor, batch: Batch) -> Tensor:
        """Eq. (6) where both of its teachers are the same."""
        (teacher,) = batch.teachers.values()
        return mse(logits, teacher.logits, reduction=self.reduction)


@register_method("sd")
class SD(SelfDistillation):
    r"""$L_{ASL} + L_{kd}$, the teacher being the student's own network trained before on all labels.

    Source: Xu et al., CPSD, IJCAI 2022, Table 3 and Fig. 3 (k = 1), arXiv:2205.10986.
    """

    required_teachers = ("all_labels",)

    all_labels: Teacher | None = None


class PartDistillation(SelfDistillation):
    """Self-distillation from models of k parts of the labels; `tau` smooths the graph that is divided."""

    equations = "(1)-(7)"

    k: int = 5
    tau: float = 3.0


@register_method("cgpd")
class CGPD(PartDistillation):
    r"""$L_{ASL} + L_{kd}$, the teacher merged from parts of labels that stand together.

    Source: Xu et al., CPSD, IJCAI 2022, Table 3 and Fig. 3, arXiv:2205.10986.
    """

    required_teachers = ("cgp",)

    cgp: Teacher | None = None


@register_method("dgpd")
class DGPD(PartDistillation):
    r"""$L_{ASL} + L_{kd}$, the teacher merged from parts of labels that do not stand together.

    Source: Xu et al., CPSD, IJCAI 2022, Table 3 and Fig. 3, arXiv:2205.10986.
    """

    required_teachers = ("dgp",)

    dgp: Teacher | None = None


@register_method("random-psd")
class RandomPSD(PartDistillation):
    r"""$L_{ASL} + L_{kd}$, the teacher merged from parts of labels drawn at random.

    Source: Xu et al., CPSD, IJCAI 2022, Fig. 3, arXiv:2205.10986.
    """

    required_teachers = ("random",)

    random: Teacher | None = None


@register_method("cpsd")
class CPSD(PartDistillation):
    r"""$L_{ASL} + L_{kd}$ with two merged teachers: parts of labels that stand together, and of labels that do not.

    `alpha` is the share of the first in $L_{kd}$; 1/2 is the paper's.

    Source: Xu et al., CPSD, IJCAI 2022, Eqs. (1)-(7), arXiv:2205.10986.
    """

    required_teachers = ("cgp", "dgp")

    alpha: float = 0.5
    cgp: Teacher | None = None
    dgp: Teacher | None = None

    def distillation(self, logits: Tensor, batch: Batch) -> Tensor:
        co, dis = batch.teachers["cgp"].logits, batch.teachers["dgp"].logits
        return merged_distillation(logits, co, dis, self.alpha, reduction=self.reduction)
