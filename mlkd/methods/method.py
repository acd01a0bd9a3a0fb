"""What every method is: the models it needs and the named loss terms of one step."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

from torch import Tensor

from mlkd.models import MultiLabelModel, Output, fingerprint
from mlkd.spelling import check_one_of, nearest


class Batch(NamedTuple):
    """One step's pictures (b, 3, H, W), targets (b, q), ignored labels (b, q) or None, and the teacher's output."""

    images: Tensor
    targets: Tensor
    ignored: Tensor | None = None
    teacher: Output | None = None


@dataclass
class Method:
    """A way to train a student. Its dataclass fields are its settings.

    A new method is a subclass with `terms`, below the `register` decorator; nothing else needs to know of it.

    Attributes:
        name: as registered.
        paper: where it comes from.
        needs_teacher: whether `teacher` must be given; the loop then puts its output into the batch.
        needs_embeddings: whether student and teacher must have a head with label-wise embeddings.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    needs_teacher: ClassVar[bool] = False
    needs_embeddings: ClassVar[bool] = False

    teacher: MultiLabelModel | None = None

    def terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        """The loss terms of one step, already weighted; the loop sums and logs them."""
        raise TypeError(f"{type(self).__name__} has no `terms`.")

    def settings(self) -> dict:
        """The settings as plain values; the teacher as a hash of its weights."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["teacher"] = None if self.teacher is None else fingerprint(self.teacher)
        return plain

    def check(self, student: MultiLabelModel) -> None:
        """Raises ValueError when the teacher or the student lacks what the method needs."""
        if self.needs_teacher and self.teacher is None:
            raise ValueError(f"The method {self.name!r} needs a teacher: give a model as `teacher`.")
        if self.teacher is not None and self.teacher.classes != student.classes:
            raise ValueError(
                f"The teacher knows the classes {_some(self.teacher.classes)}, the data has {_some(student.classes)}; "
                f"both must have the same names in the same order."
            )
        for role, model in (("student", student), ("teacher", self.teacher)):
            if self.needs_embeddings and model is not None and model.settings["head"] == "gap":
                raise ValueError(
                    f"The method {self.name!r} distils label-wise embeddings, which the {role}'s head 'gap' does not "
                    f"have; use head='label_wise'."
                )


METHODS: dict[str, type[Method]] = {}


def register(name: str):
    """Makes a method known by its name."""

    def decorate(method: type[Method]) -> type[Method]:
        method.name = name
        METHODS[name] = method
        return method

    return decorate


def create(name: str, **settings) -> Method:
    """The method of that name.

    Raises:
        ValueError: an unknown method or setting; the nearest known one is named.
    """
    check_one_of("method", name, METHODS)
    known = [field.name for field in fields(METHODS[name])]
    for setting in settings:
        if setting not in known:
            guess = nearest(setting, known)
            raise ValueError(f"The method {name!r} has no setting {setting!r}. Did you mean {guess!r}?")
    return METHODS[name](**settings)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")
