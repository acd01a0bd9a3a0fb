"""Where a network looks in a picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit
from traitlets import Enum, Float, Int, Unicode, observe

from mlkd import plots
from mlkd.analysis.cam import METHODS, cam, map_layers
from mlkd.data import MultiLabelData
from mlkd.errors import check_choice
from mlkd.models import MergedTeacher, MultiLabelModel
from mlkd.notebook.widgets.explorer import Explorer, menu, number, slider
from mlkd.training.evaluate import iter_batches, model_output


class CamExplorer(Explorer):
    """The map of one label over one picture, by a network, a method and a layer, and what the network says of it.

    Beside it the probabilities of the picture's labels. With another picture, its first label is shown.

    Args:
        models: title -> network.
        data: a split; its boxes are drawn where it has them.
        row: the picture to begin with.
        label: a class index to begin with; None for the picture's first label.
        method: a name in `mlkd.analysis.cam.METHODS`.

    Raises:
        ValueError: no networks; a picture, label or method that there is not.
    """

    hook = "mlkd-cam"
    network, row, label = Unicode(), Int(), Int()
    method, layer, opacity = Enum(tuple(METHODS)), Unicode(), Float(0.55)

    def __init__(
        self,
        models: Mapping[str, MultiLabelModel | MergedTeacher],
        data: MultiLabelData,
        *,
        row: int = 0,
        label: int | None = None,
        method: str = "gradcam",
    ):
        if not models:
            raise ValueError("`models` is empty, expected one network at least, as {'teacher': run.model()}.")
        check_row(row, data)
        check_choice("method", method, METHODS)
        if label is not None and label not in range(len(data.classes)):
            raise ValueError(f"`label` is {label}, expected a class index in 0..{len(data.classes) - 1}.")
        self.models, self.data = dict(models), data
        self._probabilities, self._map = lru_cache(64)(self._answer), lru_cache(64)(self._cam)
        super().__init__(network=next(iter(self.models)), row=row, method=method)
        self.label = self._labels()[0] if label is None else label

    def figure(self) -> Figure:
        data, boxes = self.data, None
        if data.boxes is not None:
            found = data.normalized_boxes(self.row)
            boxes = found[found[:, 0] == self.label, 1:]
        return plots.cam_overlay(
            data.images[self.row],
            self._map(self.network, self.row, self.label, self.method, self.layer),
            self.label,
            self._probabilities(self.network, self.row),
            data.targets[self.row],
            data.classes,
            boxes=boxes,
            opacity=self.opacity,
        )

    def caption_lines(self) -> list[str]:
        said = self._probabilities(self.network, self.row)[self.label]
        has = "has it" if self.data.targets[self.row, self.label] else "does not have it"
        return [
            f"{self.network}, picture {self.data.ids[self.row]}: {self.data.classes[self.label]} "
            f"{100 * said:.0f} %; the picture {has}."
        ]

    def controls(self) -> dict[str, ipywidgets.DOMWidget]:
        return {
            "network": menu("network", list(self.models)),
            "row": number("picture", len(self.data) - 1),
            "label": menu("label", self._label_options()),
            "method": menu("map", list(METHODS)),
            "layer": menu("layer", self._layer_options()),
            "opacity": slider(ipywidgets.FloatSlider, "opacity", 0, 1, 0.05),
        }

    def _labels(self) -> list[int]:
        """All class indices, those of the picture first."""
        return np.argsort(-self.data.targets[self.row].astype(int), kind="stable").tolist()

    def _label_options(self) -> list[tuple[str, int]]:
        has = self.data.targets[self.row]
        return [(self.data.classes[k] + (" ✓" if has[k] else ""), k) for k in self._labels()]

    def _layer_options(self) -> list[tuple[str, str]]:
        return [("the last", "")] + [(name, name) for name in map_layers(self.models[self.network])]

    @observe("row")
    def _another_picture(self, _: object) -> None:
        if "control" in self.__dict__:
            self.control["label"].options = self._label_options()
        self.label = self._labels()[0]

    @observe("network")
    def _another_network(self, _: object) -> None:
        if "control" in self.__dict__:
            self.control["layer"].options = self._layer_options()
        self.layer = ""

    def _answer(self, network: str, row: int) -> np.ndarray:
        """The probabilities of all labels, (q,)."""
        return expit(model_output(self.models[network], self._pixels(network, row)).logits[0].float().cpu().numpy())

    def _cam(self, network: str, row: int, label: int, method: str, layer: str) -> np.ndarray:
        """A map, (H, W)."""
        images = self._pixels(network, row)
        return cam(self.models[network], images, [label], method=method, layer=layer or None)[0, 0]

    def _pixels(self, network: str, row: int) -> Any:
        ((_, images),) = iter_batches(self.models[network], self.data, [row])
        return images


def check_row(row: int, data: MultiLabelData) -> None:
    """Raises ValueError where the split has no such picture."""
    if row not in range(len(data)):
        raise ValueError(f"`row` is {row}, expected 0 to {len(data) - 1}: {data.split} has {len(data)} pictures.")
