"""Explorer of label pairs whose correlation differs between a student and its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit
from traitlets import Int, Unicode, observe

from mlkd import plots
from mlkd.analysis import correlation_difference, label_correlations, pair_contributions
from mlkd.analysis.cam import cam
from mlkd.data import MultiLabelData
from mlkd.graphs import cooccurrence, seriation
from mlkd.notebook.widgets.explorer import Explorer, menu
from mlkd.training.evaluate import iter_batches
from mlkd.training.runs import Run

NUM_IMAGES, NUM_PAIRS = 3, 8


class LabelPairInspector(Explorer):
    """One cell of a correlation difference: the images that contribute most to it, with the maps of both labels.

    The images are those with the largest contributions to the student's correlation minus the teacher's, in the
    direction of the difference. A label pair is selected by a click on its cell, by menus, or by the buttons of the
    largest differences.

    Args:
        students: title -> run.
        teacher: the teacher's run.
        data: the split; the runs must have predictions for it.
        pair: the first two class indices; None for the largest difference of the first student.

    Raises:
        RunError: a run is not finished, or has no predictions for the split.
        ValueError: no students, predictions for other images than those of the split, or labels that do not exist.
    """

    css_class, click_hint = "mlkd-pairs", "Click a cell of the matrix to select its two labels."
    student, first, second = Unicode(), Int(), Int()

    def __init__(
        self,
        students: Mapping[str, Run],
        teacher: Run,
        data: MultiLabelData,
        *,
        pair: tuple[int, int] | None = None,
    ):
        if not students:
            raise ValueError("`students` is empty, expected at least one run, as in {'l2d student': run}.")
        q = len(data.classes)
        if q < 2 or not set(pair or ()) <= set(range(q)):
            raise ValueError(f"`pair` is {pair}, expected two class indices in 0..{q - 1}.")
        self.data, self.students = data, tuple(students)
        runs = {"teacher": teacher, **students}
        self.probs = {title: _probabilities(run, data) for title, run in runs.items()}
        self.models = {title: run.model() for title, run in runs.items()}
        self.counts = cooccurrence(data.targets)
        self.order: list[int] = seriation(*self.counts).tolist()
        self._difference, self._maps = lru_cache(None)(self._compute_difference), lru_cache(64)(self._compute_maps)
        first, second = self.largest_differences(self.students[0])[0] if pair is None else pair
        super().__init__(student=self.students[0], first=first, second=second)
        self._check_pair()

    def largest_differences(self, student: str) -> list[tuple[int, int]]:
        """The label pairs with the largest differences, in descending order."""
        matrix = self._difference(student)
        pairs = np.argwhere(np.triu(np.ones_like(matrix), 1))
        order = np.argsort(-matrix[tuple(pairs.T)], kind="stable")[:NUM_PAIRS]  # nan comes last
        return [(k, m) for k, m in pairs[order].tolist()]

    def top_contributions(self) -> tuple[np.ndarray, np.ndarray]:
        """The positions of the images with the largest contributions to the difference, and the contributions."""
        self._check_pair()
        contributions = pair_contributions(self.probs[self.student], self.probs["teacher"], self.first, self.second)
        indices = np.argsort(-contributions * np.sign(contributions.sum()), kind="stable")[:NUM_IMAGES]
        return indices, contributions[indices]

    def figure(self) -> Figure:
        top, contributions = self.top_contributions()
        indices = tuple(top.tolist())
        return plots.pair_images(
            self._difference(self.student),
            (self.first, self.second),
            self.data.classes,
            self.order,
            [self.data.images[index] for index in indices],
            {title: self._maps(title, indices, self.first, self.second) for title in ("teacher", self.student)},
            contributions=contributions,
        )

    def caption_lines(self) -> list[str]:
        (e, n), data, pair = self.counts, self.data, (self.first, self.second)
        first, second = (data.classes[k] for k in pair)
        student, teacher = (label_correlations(self.probs[title][:, pair])[0, 1] for title in (self.student, "teacher"))
        lines = [
            f"{first} and {second} co-occur in {e[pair]} of {len(data)} images of {data.split} ({first}: "
            f"{n[self.first]}, {second}: {n[self.second]}).",
            f"Correlation: teacher {teacher:+.3f}, {self.student} {student:+.3f}, difference {student - teacher:+.3f}. "
            f"Contributions of the images:",
        ]
        for index, contribution in zip(*self.top_contributions(), strict=True):
            present = [data.classes[k] for k in pair if data.targets[index, k]]
            lines.append(f"{contribution:+.4f}  {data.ids[index]}: {' and '.join(present) or 'neither label'} present.")
        return lines

    def create_controls(self) -> dict[str, ipywidgets.DOMWidget]:
        classes = [(name, k) for k, name in enumerate(self.data.classes)]
        return {
            "student": menu("student", self.students),
            "first": menu("labels", classes),
            "second": menu("and", classes),
        }

    def on_click(self, panel: int, x: float, y: float) -> None:
        if panel == 0:
            row, column = (min(max(round(coordinate), 0), len(self.order) - 1) for coordinate in (y, x))
            self._select(self.order[row], self.order[column])

    def extra_controls(self) -> list[ipywidgets.DOMWidget]:
        """A button for each of the largest differences."""
        pairs = self.largest_differences(self.student)
        self.buttons = [ipywidgets.Button(layout={"width": "auto"}) for _ in pairs]
        for rank, button in enumerate(self.buttons):
            button.on_click(lambda _, rank=rank: self._select(*self.largest_differences(self.student)[rank]))
        self._update_buttons()
        return [ipywidgets.HBox([ipywidgets.Label("largest:"), *self.buttons], layout={"flex_flow": "row wrap"})]

    def _select(self, first: int, second: int) -> None:
        with self.hold_trait_notifications():
            self.first, self.second = first, second

    @observe("student")
    def _student_changed(self, _: object) -> None:
        if "box" in self.__dict__:
            self._update_buttons()

    def _update_buttons(self) -> None:
        matrix = self._difference(self.student)
        for button, (k, m) in zip(self.buttons, self.largest_differences(self.student), strict=True):
            button.description = f"{self.data.classes[k]}, {self.data.classes[m]}: {matrix[k, m]:.2f}"

    def _check_pair(self) -> None:
        first, second = self.data.classes[self.first], self.data.classes[self.second]
        if self.first == self.second:
            raise ValueError(f"The correlation of {first} with itself is 1: choose two different labels.")
        if np.isnan(self._difference(self.student)[self.first, self.second]):
            raise ValueError(
                f"The correlation of {first} and {second} is not defined: the teacher or the {self.student} predicts "
                f"the same probability for every image. Choose other labels."
            )

    def _compute_difference(self, student: str) -> np.ndarray:
        return correlation_difference(self.probs[student], self.probs["teacher"]).matrix

    def _compute_maps(self, title: str, indices: tuple[int, ...], first: int, second: int) -> np.ndarray:
        """The maps of both labels, (b, 2, H, W)."""
        ((_, images),) = iter_batches(self.models[title], self.data, indices)
        return cam(self.models[title], images, [first, second])


def _probabilities(run: Run, data: MultiLabelData) -> np.ndarray:
    """The predicted probabilities of a run for the images of a split, (N, q)."""
    predictions = run.predictions(data.split)
    if predictions.ids.tolist() != list(data.ids) or predictions.classes != data.classes:
        raise ValueError(
            f"{run.path}: its predictions for {data.split!r} are for other images or labels than those of this split "
            f"of {data.name}; pass the data that the run was trained with."
        )
    return expit(predictions.logits)
