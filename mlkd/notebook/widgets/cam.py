"""Explorer of class activation maps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit
from torch import Tensor
from traitlets import Enum, Float, Int, Unicode, observe

from mlkd import plots
from mlkd.analysis.cam import METHODS, cam, map_layers
from mlkd.data import MultiLabelData
from mlkd.errors import check_choice
from mlkd.models import MergedTeacher, MultiLabelModel, model_output
from mlkd.notebook.widgets.explorer import Explorer, index_field, menu, slider
from mlkd.training.evaluate import iter_batches


class CamExplorer(Explorer):
    """The class activation map of one label in one image, for a network, a CAM method and a layer.

    The probabilities of the labels are shown beside it. When the image changes, its first label is selected.

    Args:
        models: title -> network.
        data: a split; its boxes are drawn if it has them.
        index: the position of the first image in the split.
        label: the first class index; None for the image's first label.
        method: a name in `mlkd.analysis.cam.METHODS`.

    Raises:
        ValueError: no networks, or an image, a label or a method that does not exist.
    """

    css_class = "mlkd-cam"
    network, index, label = Unicode(), Int(), Int()
    method, layer, opacity = Enum(tuple(METHODS)), Unicode(), Float(0.55)

    def __init__(
        self,
        models: Mapping[str, MultiLabelModel | MergedTeacher],
        data: MultiLabelData,
        *,
        index: int = 0,
        label: int | None = None,
        method: str = "gradcam",
    ):
        if not models:
            raise ValueError("`models` is empty, expected at least one network, as in {'teacher': run.model()}.")
        check_index("index", index, data)
        check_choice("method", method, METHODS)
        if label is not None and label not in range(len(data.classes)):
            raise ValueError(f"`label` is {label}, expected a class index in 0..{len(data.classes) - 1}.")
        self.models, self.data = dict(models), data
        self._probabilities, self._map = lru_cache(64)(self._predict), lru_cache(64)(self._compute_map)
        super().__init__(network=next(iter(self.models)), index=index, method=method)
        self.label = self._sorted_labels()[0] if label is None else label

    def figure(self) -> Figure:
        data, boxes = self.data, None
        if data.boxes is not None:
            image_boxes = data.normalized_boxes(self.index)
            boxes = image_boxes[image_boxes[:, 0] == self.label, 1:]
        return plots.cam_overlay(
            data.images[self.index],
            self._map(self.network, self.index, self.label, self.method, self.layer),
            self.label,
            self._probabilities(self.network, self.index),
            data.targets[self.index],
            data.classes,
            boxes=boxes,
            opacity=self.opacity,
        )

    def caption_lines(self) -> list[str]:
        probability = self._probabilities(self.network, self.index)[self.label]
        presence = "present" if self.data.targets[self.index, self.label] else "absent"
        return [
            f"{self.network}, image {self.data.ids[self.index]}: {self.data.classes[self.label]} "
            f"{100 * probability:.0f} %; the label is {presence}."
        ]

    def create_controls(self) -> dict[str, ipywidgets.DOMWidget]:
        return {
            "network": menu("network", list(self.models)),
            "index": index_field("image", len(self.data) - 1),
            "label": menu("label", self._label_options()),
            "method": menu("CAM method", list(METHODS)),
            "layer": menu("layer", self._layer_options()),
            "opacity": slider(ipywidgets.FloatSlider, "opacity", 0, 1, 0.05),
        }

    def _sorted_labels(self) -> list[int]:
        """All class indices, those present in the image first."""
        return np.argsort(-self.data.targets[self.index].astype(int), kind="stable").tolist()

    def _label_options(self) -> list[tuple[str, int]]:
        present = self.data.targets[self.index]
        return [(self.data.classes[k] + (" ✓" if present[k] else ""), k) for k in self._sorted_labels()]

    def _layer_options(self) -> list[tuple[str, str]]:
        return [("last", "")] + [(name, name) for name in map_layers(self.models[self.network])]

    @observe("index")
    def _image_changed(self, _: object) -> None:
        if "controls" in self.__dict__:
            self.controls["label"].options = self._label_options()
        self.label = self._sorted_labels()[0]

    @observe("network")
    def _network_changed(self, _: object) -> None:
        if "controls" in self.__dict__:
            self.controls["layer"].options = self._layer_options()
        self.layer = ""

    def _predict(self, network: str, index: int) -> np.ndarray:
        """The probabilities of all labels, (q,)."""
        return expit(model_output(self.models[network], self._images(network, index)).logits[0].float().cpu().numpy())

    def _compute_map(self, network: str, index: int, label: int, method: str, layer: str) -> np.ndarray:
        """The map of one label, (H, W)."""
        images = self._images(network, index)
        return cam(self.models[network], images, [label], method=method, layer=layer or None)[0, 0]

    def _images(self, network: str, index: int) -> Tensor:
        """The image as the network's input, (1, 3, H, W)."""
        ((_, images),) = iter_batches(self.models[network], self.data, [index])
        return images


def check_index(argument: str, index: int, data: MultiLabelData) -> None:
    """Raises ValueError if the split has no image at this position."""
    if index not in range(len(data)):
        raise ValueError(
            f"`{argument}` is {index}, expected 0 to {len(data) - 1}: the split {data.split} has {len(data)} images."
        )
