"""The base class of all methods, and what it receives at each training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from mlkd.errors import first_few
from mlkd.registry import Registry
from mlkd.settings import Settings

if TYPE_CHECKING:  # a method declares; listing methods loads no torch
    from torch import Tensor, nn

    from mlkd.models import MultiLabelModel, Output

Reduction = Literal["sum", "batchmean"]
"""How the loss of a batch is reduced: the sum over the images, or their mean."""


class Batch(NamedTuple):
    """One step's data beside the student's output.

    With several processes, logits, embeddings, targets, `ignore_mask` and `sample_indices` belong to the whole batch.
    Images, second views and feature maps belong to this process's slice of it; what a method computes from those, one
    row per image, is passed through `all_gather`. With one process `all_gather` returns its input.

    Attributes:
        images: (b, 3, H, W) uint8, augmented.
        targets: (b, q), 0 or 1.
        ignore_mask: (b, q), True where a label counts neither as present nor as absent; or None.
        teachers: the output of each required teacher on the same images, by its name in `required_teachers`.
        model: the student, for a method that evaluates it again on other images or with other weights.
        auxiliary: the module that the method's `build_auxiliary` returned, or None.
        second_view: (b, 3, H, W), a second augmentation of the same images, for a method with `needs_two_views`.
        sample_indices: (b,), each image's index in the training split.
        epoch_fraction: the fraction of the training's epochs that are finished, in [0, 1).
        all_gather: concatenates the rows of all processes, with their gradient.
    """

    images: Tensor
    targets: Tensor
    ignore_mask: Tensor | None = None
    teachers: Mapping[str, Output] = MappingProxyType({})
    model: MultiLabelModel | None = None
    auxiliary: nn.Module | None = None
    second_view: Tensor | None = None
    sample_indices: Tensor | None = None
    epoch_fraction: float = 0.0
    all_gather: Callable[[Tensor], Tensor] = lambda rows: rows

    @property
    def teacher(self) -> Output:
        """The output of the only teacher of a method that requires one."""
        return self.teachers["teacher"]


@runtime_checkable
class Teacher(Protocol):
    """What a method accepts as a teacher: a `MultiLabelModel`, a `MergedTeacher` or a `CachedTeacher`."""

    classes: tuple[str, ...]
    head: Any


class Method(Settings):
    """A way to train a student. Its fields are its settings, and the teachers it requires.

    A new method is a subclass with `loss_terms` under the `register_method` decorator, in a module of
    `mlkd.methods` or in a plugin.

    Attributes:
        name: as registered.
        version: of the loss: increase it with every change that gives other weights; part of a run's identity.
        paper, equations: the source.
        formula: the loss in one line of plain text, for `mlkd methods`.
        required_teachers: the fields that must hold a trained model before the training: "teacher" (a larger
            network), "all_labels" (the student's own network, trained before), "cgp", "dgp", "random" (networks
            trained on label subsets and merged). They are evaluated on each batch.
        needs_embeddings: whether student and teacher must have a head with label-wise embeddings.
        needs_cams: whether student and teacher must have a head with class activation maps.
        needs_features: whether the teachers' feature maps are compared.
        needs_two_views: whether each batch has a second augmentation of its images.
        needs_overlapping_batches: whether each batch has half of its images in common with the previous one.
        needs_whole_batch: whether all images of a batch must pass through the student at once, so that gradient
            accumulation is not possible: the method has a second forward pass with gradient, or uses activations inside
            the student. A loss that compares the images of a batch is no reason: see `mlkd.training.accumulation`.
        reduction: "sum" over the images of a batch, or "batchmean". The weights of a method belong to its default;
            with the other reduction the whole loss is multiplied or divided by the batch size, so that the ratio of its
            terms stays the same.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    paper: ClassVar[str] = ""
    equations: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    required_teachers: ClassVar[tuple[str, ...]] = ()
    needs_embeddings: ClassVar[bool] = False
    needs_cams: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False
    needs_two_views: ClassVar[bool] = False
    needs_overlapping_batches: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = False

    reduction: Reduction = "sum"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        """The weighted loss terms of one step, each a scalar; the loss is their sum. Runs under autocast.

        They have the reduction that the method's weights belong to, the default of `reduction`.
        """
        raise TypeError(f"{type(self).__name__} has no `loss_terms`.")

    def reduced_loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        """The terms of `loss_terms` with the setting `reduction`: what the student is trained with."""
        terms, num_images = self.loss_terms(student, batch), len(student.logits)
        if self.reduction == self.default_reduction():
            return terms
        if self.reduction == "sum":
            return {name: term * num_images for name, term in terms.items()}
        return {name: term / num_images for name, term in terms.items()}

    @classmethod
    def default_reduction(cls) -> Reduction:
        """The reduction that the method's weights belong to."""
        return cls.model_fields["reduction"].default

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> nn.Module | None:
        """A module that is trained or updated beside the student (a projection, a bank of past logits), or None.

        Its parameters are trained with the student's and its buffers are part of the checkpoint; both are discarded
        after the training. `num_samples` is the number of training images.
        """
        return None

    @property
    def teachers(self) -> dict[str, Any]:
        """The models of `required_teachers`."""
        return {name: getattr(self, name) for name in self.required_teachers}

    @classmethod
    def setting_names(cls) -> list[str]:
        """The names of the settings, without those of the teachers."""
        return [name for name in cls.model_fields if name not in cls.required_teachers]

    def settings(self) -> dict[str, Any]:
        """The settings as plain values; each teacher as a hash of its weights."""
        from mlkd.models import fingerprint

        plain = self.model_dump(mode="json", include=set(self.setting_names()))
        return plain | {name: model and fingerprint(model) for name, model in self.teachers.items()}

    def check(self, student: MultiLabelModel) -> None:
        """Raises ValueError when a teacher or the student lacks what the method requires."""
        for name, model in self.teachers.items():
            if model is None:
                raise ValueError(f"The method {self.name!r} requires a teacher: pass a model as `{name}`.")
            if model.classes != student.classes:
                raise ValueError(
                    f"The teacher has the classes {first_few(model.classes)}, the data has "
                    f"{first_few(student.classes)}; both must have the same names in the same order."
                )
        for role, model in {"student": student, **self.teachers}.items():
            self.check_head(role, model.settings["head"], model.head)

    def check_head(self, role: str, name: str, head: Any) -> None:
        """Raises ValueError when a head, or the class of one, lacks what the method requires of this role's network."""
        if self.needs_embeddings and not head.has_embeddings:
            raise ValueError(
                f"The method {self.name!r} distills label-wise embeddings, which the {role}'s head {name!r} does not "
                f"have; use head='label_wise'."
            )
        if self.needs_cams and not head.has_cams:
            raise ValueError(
                f"The method {self.name!r} distills class activation maps, which the {role}'s head {name!r} does not "
                f"have; use head='gap', 'label_wise' or 'ml_decoder'."
            )


METHODS: Registry[type[Method]] = Registry("method", "mlkd.methods")

M = TypeVar("M", bound=type[Method])


def register_method(name: str) -> Callable[[M], M]:
    """A decorator that registers a method under `name`."""

    def decorate(method: M) -> M:
        method.name, method.title = name, f"the method {name!r}"
        METHODS.register(name)(method)
        return method

    return decorate


def create_method(name: str, **settings: Any) -> Method:
    """The method of that name.

    Raises:
        ValueError: an unknown method or setting (the closest known one is named), or a value of the wrong kind.
    """
    return METHODS[name](**settings)
