"""What every method is: the models it needs and the named loss terms of one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from mlkd.errors import check_choice, closest_match, first_few
from mlkd.models import MultiLabelModel, Output, fingerprint


class Batch(NamedTuple):
    """One step, as a method sees it beside the student's output.

    Where several processes train, logits, embeddings, targets, ignored and rows are those of the whole batch. Pictures,
    twins and feature maps are this process's share, and what a method makes of them, one row per picture, goes through
    `all_gather`. In one process that changes nothing.

    Attributes:
        images: pictures (b, 3, H, W), uint8, augmented.
        targets: (b, q), 0 or 1.
        ignore_mask: (b, q), True where a label counts neither way; or None.
        teachers: the output of each teacher the method needs, by its name in `required_teachers`, on the same pictures.
        model: the student in training, for a method that runs it again, on other pictures or with other weights.
        auxiliary: what the method's own `build_auxiliary` gave, or None.
        second_view: (b, 3, H, W), a second augmentation of the same pictures, for a method with `needs_two_views`.
        sample_indices: (b,), each picture's row in the training split.
        epoch_fraction: the share of the training's epochs that are done, in [0, 1).
        all_gather: gives the rows of all processes, with their gradient.
    """

    images: Tensor
    targets: Tensor
    ignore_mask: Tensor | None = None
    teachers: Mapping[str, Output] = MappingProxyType({})
    model: Any = None
    auxiliary: Any = None
    second_view: Tensor | None = None
    sample_indices: Any = None
    epoch_fraction: float = 0.0
    all_gather: Callable[[Tensor], Tensor] = lambda rows: rows

    @property
    def teacher(self) -> Output:
        """The output of the one teacher of a method that needs one."""
        return self.teachers["teacher"]


@dataclass
class Method:
    """A way to train a student. Its dataclass fields are its settings.

    A new method is a subclass with `loss_terms`, below the `register_method` decorator; nothing else needs to know of it.

    Attributes:
        name: as registered.
        paper, equations: where it comes from.
        required_teachers: the fields that must hold a trained model before the training: "teacher" (a larger network), "whole"
            (the student's own network, trained before), "cgp", "dgp", "random" (one model per part of the labels).
            The loop runs them on each batch.
        needs_embeddings: whether student and teacher must have a head with label-wise embeddings.
        needs_features: whether the teachers' feature maps are compared.
        needs_two_views: whether each batch comes with a second augmentation of its pictures.
        needs_overlapping_batches: whether each batch has half of its pictures from the one before.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    equations: ClassVar[str] = ""
    required_teachers: ClassVar[tuple[str, ...]] = ()
    needs_embeddings: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False
    needs_two_views: ClassVar[bool] = False
    needs_overlapping_batches: ClassVar[bool] = False

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        """The loss terms of one step, already weighted; the loop sums and logs them. It runs under autocast."""
        raise TypeError(f"{type(self).__name__} has no `loss_terms`.")

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> nn.Module | None:
        """What is trained or remembered beside the student (a projection, a table of past logits), or None.

        Its parameters are trained with the student's, its buffers go into the checkpoint; both end with the training.
        `pictures` is the number of pictures of the training split.
        """
        return None

    @property
    def teachers(self) -> dict[str, Any]:
        """The models that `required_teachers` names."""
        return {name: getattr(self, name) for name in self.required_teachers}

    def settings(self) -> dict[str, Any]:
        """The settings as plain values; each teacher as a hash of its weights."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {name: model and fingerprint(model) for name, model in self.teachers.items()}

    def check(self, student: MultiLabelModel) -> None:
        """Raises ValueError when a teacher or the student lacks what the method needs."""
        for name, model in self.teachers.items():
            if model is None:
                raise ValueError(f"The method {self.name!r} needs a teacher: give a model as `{name}`.")
            if model.classes != student.classes:
                raise ValueError(
                    f"The teacher knows the classes {first_few(model.classes)}, the data has "
                    f"{first_few(student.classes)}; both must have the same names in the same order."
                )
        for role, model in {"student": student, **self.teachers}.items():
            if self.needs_embeddings and not model.head.has_embeddings:
                raise ValueError(
                    f"The method {self.name!r} distils label-wise embeddings, which the {role}'s head "
                    f"{model.settings['head']!r} does not have; use head='label_wise'."
                )


METHODS: dict[str, type[Method]] = {}


def register_method(name: str):
    """Makes a method known by its name."""

    def decorate(method: type[Method]) -> type[Method]:
        method.name = name
        METHODS[name] = method
        return method

    return decorate


def create_method(name: str, **settings) -> Method:
    """The method of that name.

    Raises:
        ValueError: an unknown method or setting (the nearest known one is named), or a value of the wrong kind.
    """
    check_choice("method", name, METHODS)
    known = {field.name: field.default for field in fields(METHODS[name])}
    for setting, value in settings.items():
        if setting not in known:
            guess = closest_match(setting, known)
            raise ValueError(f"The method {name!r} has no setting {setting!r}. Did you mean {guess!r}?")
        kind, expected = KINDS.get(type(known[setting]), (object, ""))
        if not isinstance(value, kind) or (isinstance(value, bool) and kind in (Real, Integral)):
            raise ValueError(f"`{setting}` is {value!r}, expected {expected}, as its default {known[setting]!r}.")
    return METHODS[name](**settings)


KINDS: dict[type, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a word"),
}
"""What a setting may be, by the type of its default; a model may be anything."""
