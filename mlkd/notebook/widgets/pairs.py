"""Two labels whose correlation a student has otherwise than its teacher, and the pictures behind it."""

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

PICTURES, CELLS = 3, 8


class LabelPairInspector(Explorer):
    """One cell of a correlation difference: the pictures that drive it, with the maps of both labels.

    The pictures are those that add most to the student's correlation less the teacher's, in its direction. A click
    on a cell of the matrix leads there, as menus do; buttons lead to the largest cells.

    Args:
        students: title -> run.
        teacher: its run.
        data: the split; the runs must have predictions for it.
        pair: two class indices to begin with; None for the largest cell of the first student.

    Raises:
        RunError: a run is not finished, or has no predictions for the split.
        ValueError: no students; predictions of other pictures than those of the split; no such labels.
    """

    hook, hint = "mlkd-pairs", "a click on a cell of the matrix shows its two labels"
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
            raise ValueError("`students` is empty, expected one run at least, as {'l2d student': run}.")
        q = len(data.classes)
        if q < 2 or not set(pair or ()) <= set(range(q)):
            raise ValueError(f"`pair` is {pair}, expected two class indices in 0..{q - 1}.")
        self.data, self.students = data, tuple(students)
        runs = {"teacher": teacher, **students}
        self.probs = {title: _probabilities(run, data) for title, run in runs.items()}
        self.models = {title: run.model() for title, run in runs.items()}
        self.counts = cooccurrence(data.targets)
        self.order: list[int] = seriation(*self.counts).tolist()
        self._difference, self._maps = lru_cache(None)(self._of), lru_cache(64)(self._cams)
        first, second = self.largest(self.students[0])[0] if pair is None else pair
        super().__init__(student=self.students[0], first=first, second=second)
        self._check_pair()

    def largest(self, student: str) -> list[tuple[int, int]]:
        """The pairs of labels with the largest differences, the largest first."""
        matrix = self._difference(student)
        pairs = np.argwhere(np.triu(np.ones_like(matrix), 1))
        order = np.argsort(-matrix[tuple(pairs.T)], kind="stable")[:CELLS]  # nan comes last
        return [(k, m) for k, m in pairs[order].tolist()]

    def drivers(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the pictures that add most to the difference, and what each adds."""
        self._check_pair()
        own, its = self.probs[self.student], self.probs["teacher"]
        added = pair_contributions(own, its, self.first, self.second)
        rows = np.argsort(-added * np.sign(added.sum()), kind="stable")[:PICTURES]
        return rows, added[rows]

    def figure(self) -> Figure:
        rows, added = self.drivers()
        shown = tuple(rows.tolist())
        return plots.pair_images(
            self._difference(self.student),
            (self.first, self.second),
            self.data.classes,
            self.order,
            [self.data.images[row] for row in shown],
            {title: self._maps(title, shown, self.first, self.second) for title in ("teacher", self.student)},
            contributions=added,
        )

    def caption_lines(self) -> list[str]:
        (e, n), data, pair = self.counts, self.data, (self.first, self.second)
        rows, added = self.drivers()
        one, other = (data.classes[k] for k in pair)
        own, its = (label_correlations(self.probs[title][:, pair])[0, 1] for title in (self.student, "teacher"))
        told = [
            f"{one} and {other}: together in {e[pair]} of {len(data)} pictures of {data.split} ({one} in "
            f"{n[self.first]}, {other} in {n[self.second]}).",
            f"Correlation: teacher {its:+.3f}, {self.student} {own:+.3f}, difference {own - its:+.3f}. "
            f"What the pictures add to it:",
        ]
        for row, value in zip(rows, added, strict=True):
            has = [data.classes[k] for k in pair if data.targets[row, k]]
            told.append(f"{value:+.4f}  {data.ids[row]} has {' and '.join(has) if has else 'neither'}.")
        return told

    def controls(self) -> dict[str, ipywidgets.DOMWidget]:
        names = [(name, k) for k, name in enumerate(self.data.classes)]
        return {
            "student": menu("student", self.students),
            "first": menu("labels", names),
            "second": menu("and", names),
        }

    def clicked(self, panel: int, x: float, y: float) -> None:
        if panel == 0:
            row, column = (min(max(round(place), 0), len(self.order) - 1) for place in (y, x))
            self._choose(self.order[row], self.order[column])

    def below(self) -> list[ipywidgets.DOMWidget]:
        """A button for each of the largest cells."""
        self.buttons = [ipywidgets.Button(layout={"width": "auto"}) for _ in self.largest(self.student)]
        for number, button in enumerate(self.buttons):
            button.on_click(lambda _, number=number: self._choose(*self.largest(self.student)[number]))
        self._name_buttons()
        return [ipywidgets.HBox([ipywidgets.Label("largest:"), *self.buttons], layout={"flex_flow": "row wrap"})]

    def _choose(self, first: int, second: int) -> None:
        with self.hold_trait_notifications():
            self.first, self.second = first, second

    @observe("student")
    def _another_student(self, _: object) -> None:
        if "box" in self.__dict__:
            self._name_buttons()

    def _name_buttons(self) -> None:
        matrix = self._difference(self.student)
        for button, (k, m) in zip(self.buttons, self.largest(self.student), strict=True):
            button.description = f"{self.data.classes[k]}, {self.data.classes[m]}: {matrix[k, m]:.2f}"

    def _check_pair(self) -> None:
        if self.first == self.second:
            raise ValueError(
                f"A label's correlation with itself is 1: choose another one than "
                f"{self.data.classes[self.first]} beside it."
            )
        if np.isnan(self._difference(self.student)[self.first, self.second]):
            one, other = self.data.classes[self.first], self.data.classes[self.second]
            raise ValueError(
                f"{one} or {other} has the same probability in every picture, for the teacher or the {self.student}, "
                f"so there is no correlation: choose other labels."
            )

    def _of(self, student: str) -> np.ndarray:
        return correlation_difference(self.probs[student], self.probs["teacher"]).matrix

    def _cams(self, title: str, rows: tuple[int, ...], first: int, second: int) -> np.ndarray:
        """The maps of both labels, (b, 2, H, W)."""
        ((_, images),) = iter_batches(self.models[title], self.data, rows)
        return cam(self.models[title], images, [first, second])


def _probabilities(run: Run, data: MultiLabelData) -> np.ndarray:
    """What a run says of the pictures of a split, (N, q)."""
    found = run.predictions(data.split)
    if found.ids.tolist() != list(data.ids) or found.classes != data.classes:
        raise ValueError(
            f"{run.path}: its predictions for {data.split!r} are of other pictures or labels than this split of "
            f"{data.name} has; give the data that the run was trained with."
        )
    return expit(found.logits)
