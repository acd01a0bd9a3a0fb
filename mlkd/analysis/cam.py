"""Where a network looks: class activation maps, from the grad-cam package, for every backbone and head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mlkd.data import MultiLabelData
from mlkd.errors import check_choice, closest_match
from mlkd.models import GapHead, MergedTeacher, MultiLabelModel
from mlkd.training.evaluate import iter_batches, model_output

METHODS = {
    "cam": "GradCAM",
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "elementwise": "GradCAMElementWise",
}
"""Name -> class of the grad-cam package: what tells labels apart and takes one pass per map."""


def cam(
    model: MultiLabelModel | MergedTeacher,
    images: Tensor,
    labels: str | Sequence[int | str] = "ground_truth",
    *,
    method: str = "gradcam",
    targets: np.ndarray | Tensor | None = None,
    layer: str | None = None,
) -> np.ndarray:
    r"""Class activation maps: which places of each picture speak for each label.

    Grad-CAM, for one, weighs the D channels f_d of a layer by the mean of the logit's gradient and keeps what speaks
    for the label:

    $$ M_k(x, y) = \operatorname{ReLU} \sum_d \Big( \frac{1}{HW} \sum_{x', y'}
       \frac{\partial z_k}{\partial f_d(x', y')} \Big) f_d(x, y) $$

    "cam" is the map before it, $\sum_d w_{kd} f_d(x, y)$ with the weights of a linear layer on pooled features. Of
    such a head Grad-CAM is the same up to a factor, which the scale of a map takes out; no other head has it.

    Source: Zhou et al., CVPR 2016, arXiv:1512.04150 ("cam"); Selvaraju et al., ICCV 2017, arXiv:1610.02391
    ("gradcam"); Jiang et al., LayerCAM, IEEE TIP 2021 ("layercam"). The maps are those of the grad-cam package.

    Args:
        model: on any device, in any mode; it is left as it was, also after an error. A merged teacher asks the part
            that knows the label.
        images: as the model takes them: uint8 in 0..255, or float in 0..1.
        labels: "ground_truth" for the labels that each picture has, "predicted" for those of probability 1/2 or more, or a
            list of class indices or names, the same for every picture.
        method: a name in `METHODS`.
        targets: 0 or 1; only for "ground_truth".
        layer: the features the head sees for None, else the name of a module in the backbone's net, as "blocks.1".

    Shape: images (b, 3, H, W), targets (b, q); output (b, q, H, W) float32 for "ground_truth" and "predicted", all nan where a
    label was not asked of a picture, or (b, labels, H, W) in the order of a list. Range: [0, 1], each map from 0 to
    its own largest value 1; all 0 where nothing speaks for the label.

    Raises:
        ValueError: an unknown method, layer or label; "ground_truth" without targets; "cam" with another head than "gap".
        ImportError: the grad-cam package is missing.

    Example:
        >>> cam(model, images, ["person", "dog"]).shape  # doctest: +SKIP
        (4, 2, 224, 224)
    """
    check_choice("method", method, METHODS)
    with _frozen(model):
        asked, columns = _asked(model, images, labels, targets)
        rows, places = np.nonzero(asked)
        maps = np.full((*asked.shape, *images.shape[-2:]), np.nan, np.float32)
        if len(rows):
            maps[rows, places] = _maps(model, images, rows, columns[places], method, layer)
    return maps


class LabelCAM(NamedTuple):
    """What a model says of one label of each picture: `maps` (b, H, W) in [0, 1] and `probabilities` (b,)."""

    maps: np.ndarray
    probabilities: np.ndarray


def cam_per_image(
    model: MultiLabelModel | MergedTeacher,
    data: MultiLabelData,
    rows: Sequence[int],
    labels: Sequence[int],
    *,
    method: str = "gradcam",
    layer: str | None = None,
) -> LabelCAM:
    """The map and the probability of one label in each of some pictures.

    Args:
        model, method, layer: as for `cam`.
        data: a split.
        rows: b pictures of it.
        labels: b class indices, one per picture; the picture need not have it.

    Raises:
        ValueError: as `cam`.
    """
    maps, probabilities = [], []
    for (_, images), label in zip(iter_batches(model, data, rows, batch_size=1), labels, strict=True):
        maps.append(cam(model, images, [label], method=method, layer=layer)[0, 0])
        probabilities.append(model_output(model, images).logits[0, label].sigmoid().item())
    return LabelCAM(np.stack(maps), np.array(probabilities))


def map_layers(model: MultiLabelModel | MergedTeacher) -> tuple[str, ...]:
    """The names of the layers that `cam` can look at: modules of the backbone's net that give one map for a picture.

    Args:
        model: asked about one grey picture.

    Returns:
        Names of one or two parts, such as "blocks.1", in the order in which the layers are passed; none for a merged
        teacher, whose backbones are several.
    """
    if isinstance(model, MergedTeacher):
        return ()
    found: list[str] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: object, output: Any) -> None:
            with suppress(AttributeError, RuntimeError):  # no tensor, or other tokens than a cell of the grid has
                stage = model.backbone.to_feature_map(output)
                if stage.ndim == 4 and min(stage.shape[2:]) > 1:
                    found.append(name)

        return hook

    named = [(name, module) for name, module in model.backbone.net.named_modules() if name]
    hooks = [module.register_forward_hook(note(name)) for name, module in named if name.count(".") < 2]
    try:
        parameter = next(model.parameters())
        model_output(model, torch.full((1, 3, model.image_size, model.image_size), 0.5, device=parameter.device))
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(dict.fromkeys(found))


def _asked(model, images: Tensor, labels, targets) -> tuple[np.ndarray, np.ndarray]:
    """Which labels are asked of which picture, (b, labels), and the class index of each column."""
    q = len(model.classes)
    if not isinstance(labels, str):
        columns = [_class_index(model.classes, label) for label in labels]
        return np.ones((len(images), len(columns)), bool), np.array(columns, np.int64)
    check_choice("labels", labels, ("ground_truth", "predicted"))
    if labels == "predicted":
        with torch.no_grad():
            return (model(images).logits >= 0).cpu().numpy(), np.arange(q)
    if targets is None:
        raise ValueError("`labels` is 'ground_truth' but `targets` is missing; pass the pictures' targets, (b, q).")
    found = np.asarray(targets.cpu() if isinstance(targets, Tensor) else targets)
    if found.shape != (len(images), q):
        raise ValueError(f"`targets` has shape {found.shape}, expected ({len(images)}, {q}): a row for each picture.")
    return found == 1, np.arange(q)


def _class_index(classes: tuple[str, ...], label: int | str) -> int:
    if isinstance(label, str):
        if label not in classes:
            raise ValueError(
                f"`labels` has {label!r}, which the model does not know; near it: {closest_match(label, classes)}."
            )
        return classes.index(label)
    if label not in range(len(classes)):
        raise ValueError(f"`labels` has {label}, expected class indices in 0..{len(classes) - 1}.")
    return int(label)


def _maps(model, images: Tensor, rows: np.ndarray, labels: np.ndarray, method: str, layer: str | None) -> np.ndarray:
    """The maps (m, H, W) of m pairs: a row of `images` and a class index each."""
    if isinstance(model, MergedTeacher):
        maps = np.empty((len(rows), *images.shape[-2:]), np.float32)
        names = np.array(model.classes)[labels]
        parts: Any = model.models
        for part in parts:
            own = np.flatnonzero(np.isin(names, part.classes))
            if len(own):
                indices = np.array([part.classes.index(name) for name in names[own]])
                maps[own] = _maps(part, images, rows[own], indices, method, layer)
        return maps
    if method == "cam" and (layer is not None or not isinstance(model.head, GapHead)):
        raise ValueError(
            f"`method` is 'cam', which needs the last layer and a linear head on pooled features ('gap'); the head is "
            f"{model.settings['head']!r} and `layer` {layer!r}. Use method='gradcam', which is the same there and goes "
            f"for every head."
        )
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    chosen = torch.from_numpy(rows).to(images.device)
    if layer is None:
        asking: nn.Module = _Head(model, chosen)
        looked_at, arranged, shown = asking.last, None, images
    else:
        asking, looked_at, arranged = _Whole(model), _module(model, layer), model.backbone.to_feature_map
        shown = (images / 255 if images.dtype == torch.uint8 else images)[chosen].detach().requires_grad_()
    engine = getattr(pytorch_grad_cam, METHODS[method])(asking, [looked_at], arranged)
    try:
        with torch.enable_grad():
            return engine(shown, [ClassifierOutputTarget(label) for label in labels])
    finally:
        engine.activations_and_grads.release()


class _Head(nn.Module):
    """Logits (m, q) of m pairs from the pictures (b, 3, H, W): each picture passes the backbone once for all labels."""

    def __init__(self, model: MultiLabelModel, rows: Tensor):
        super().__init__()
        self.model, self.rows, self.last = model, rows, nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.model.features(images)
        return self.model.head(self.last(features[self.rows].requires_grad_()))[0]


class _Whole(nn.Module):
    """A model that gives its logits alone."""

    def __init__(self, model: MultiLabelModel):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


def _module(model: MultiLabelModel, layer: str) -> nn.Module:
    modules = {name: module for name, module in model.backbone.net.named_modules() if name}
    if layer not in modules:
        raise ValueError(
            f"`layer` is {layer!r}, which the backbone {model.settings['backbone']} does not have; near it: "
            f"{closest_match(layer, modules)!r}. None takes the features that the head sees."
        )
    return modules[layer]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for the weights; afterwards the modes, the wishes and the gradients are back."""
    modes = [(module, module.training) for module in model.modules()]
    held = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, wanted, gradient in held:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient
