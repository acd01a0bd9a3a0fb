"""CPSD and the methods it is compared with: distillation from teachers merged from models of label subsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mlkd import losses
from mlkd.methods.labels import ASLMethod
from mlkd.methods.method import Batch, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


class SelfDistillation(ASLMethod):
    """The asymmetric loss and the squared distance between the logits of the student and of its only teacher.

    The settings of the asymmetric loss are the student's; in a study, its teachers are trained with those of `vanilla`.
    """

    paper = "Xu et al., IJCAI 2022"
    equations = "(3)-(7)"
    formula = "ASL + λ_kd·MSE"

    lambda_kd: float = 1.0

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        return {
            "asl": self.asl(student.logits, batch),
            "kd": self.lambda_kd * self.distillation(student.logits, batch),
        }  # Eq. (7), term by term

    def distillation(self, logits: Tensor, batch: Batch) -> Tensor:
        """Eq. (6) where both of its teachers are the same."""
        (teacher,) = batch.teachers.values()
        return losses.mse(logits, teacher.logits, reduction="sum")


@register_method("sd")
class SD(SelfDistillation):
    r"""$L_{ASL} + L_{kd}$ with one teacher: the student's network, trained before on all labels.

    Source: Xu et al., CPSD, IJCAI 2022, Table 3 and Fig. 3 (k = 1), arXiv:2205.10986.
    """

    required_teachers = ("all_labels",)

    all_labels: Teacher | None = None


class LabelSubsetDistillation(SelfDistillation):
    """Self-distillation from models of label subsets.

    Settings:
        k: the number of label subsets.
        tau: smooths the label graph that is partitioned.
        partition_seed: of k-means, or of the random label subsets.
        partition_as_in_paper: as `as_in_paper` of `mlkd.graphs.partition`, Eq. (2).
        subset_images: the training images of a label subset: those "containing" one of its labels, or "all".
    """

    equations = "(1)-(7)"

    k: int = 5
    tau: float = 3.0
    partition_seed: int = Field(0, ge=0)
    partition_as_in_paper: bool = False
    subset_images: Literal["containing", "all"] = "containing"


@register_method("cgpd")
class CGPD(LabelSubsetDistillation):
    r"""$L_{ASL} + L_{kd}$ with one teacher, merged from models of label subsets that co-occur.

    Source: Xu et al., CPSD, IJCAI 2022, Table 3 and Fig. 3, arXiv:2205.10986.
    """

    required_teachers = ("cgp",)

    cgp: Teacher | None = None


@register_method("dgpd")
class DGPD(LabelSubsetDistillation):
    r"""$L_{ASL} + L_{kd}$ with one teacher, merged from models of label subsets that do not co-occur.

    Source: Xu et al., CPSD, IJCAI 2022, Table 3 and Fig. 3, arXiv:2205.10986.
    """

    required_teachers = ("dgp",)

    dgp: Teacher | None = None


@register_method("random-psd")
class RandomPSD(LabelSubsetDistillation):
    r"""$L_{ASL} + L_{kd}$ with one teacher, merged from models of random label subsets.

    Source: Xu et al., CPSD, IJCAI 2022, Fig. 3, arXiv:2205.10986.
    """

    required_teachers = ("random",)

    random: Teacher | None = None


@register_method("cpsd")
class CPSD(LabelSubsetDistillation):
    r"""$L_{ASL} + L_{kd}$ with two merged teachers: of label subsets that co-occur, and of subsets that do not.

    `alpha` is the weight of the first in $L_{kd}$, 1/2 in the paper.

    Source: Xu et al., CPSD, IJCAI 2022, Eqs. (1)-(7), arXiv:2205.10986.
    """

    formula = "ASL + λ_kd·(α·MSE_cgp + (1 - α)·MSE_dgp)"
    required_teachers = ("cgp", "dgp")

    alpha: float = 0.5
    cgp: Teacher | None = None
    dgp: Teacher | None = None

    def distillation(self, logits: Tensor, batch: Batch) -> Tensor:
        co_logits, dis_logits = batch.teachers["cgp"].logits, batch.teachers["dgp"].logits
        return losses.merged_distillation(logits, co_logits, dis_logits, self.alpha)
