"""Class activation maps (CAMs) for every backbone and head, computed by the grad-cam package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mlkd.data import MultiLabelData
from mlkd.errors import check_choice, closest_match
from mlkd.models import GapHead, MergedTeacher, MultiLabelModel, model_output
from mlkd.training.evaluate import iter_batches

METHODS = {
    "cam": "GradCAM",
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "elementwise": "GradCAMElementWise",
}
"""Name -> class of the grad-cam package: the class-specific methods that need one backward pass per map."""


def cam(
    model: MultiLabelModel | MergedTeacher,
    images: Tensor,
    labels: str | Sequence[int | str] = "ground_truth",
    *,
    method: str = "gradcam",
    targets: np.ndarray | Tensor | None = None,
    layer: str | None = None,
) -> np.ndarray:
    r"""Class activation maps: which regions of each image support each label.

    Grad-CAM weights the D channels f_d of a layer by the spatial mean of the gradient of the logit:

    $$ M_k(x, y) = \operatorname{ReLU} \sum_d \Big( \frac{1}{HW} \sum_{x', y'}
       \frac{\partial z_k}{\partial f_d(x', y')} \Big) f_d(x, y) $$

    "cam" is the original map, $\sum_d w_{kd} f_d(x, y)$ with the weights of a linear layer on globally pooled features.
    For such a head Grad-CAM equals it up to a constant factor, which the normalization removes; it is not defined for
    other heads.

    Source: Zhou et al., CVPR 2016, arXiv:1512.04150 ("cam"); Selvaraju et al., ICCV 2017, arXiv:1610.02391
    ("gradcam"); Jiang et al., LayerCAM, IEEE TIP 2021 ("layercam"). The maps are those of the grad-cam package.

    Args:
        model: on any device, in any mode; its state is restored, also after an error. For a merged teacher, the map of
            a label comes from the submodel that predicts it.
        images: as for the model: uint8 in 0..255, or float in 0..1.
        labels: "ground_truth" for the labels present in each image, "predicted" for those with a probability of at
            least 1/2, or a list of class indices or names, the same for every image.
        method: a name in `METHODS`.
        targets: 0 or 1; used with "ground_truth" only.
        layer: None for the features that the head receives, or the name of a backbone module, as "blocks.1".

    Shape: images (b, 3, H, W), targets (b, q). Output (b, q, H, W) float32 for "ground_truth" and "predicted", nan
    where a label is not selected for an image; (b, len(labels), H, W) for a list. Range: [0, 1], each map is scaled to
    a minimum of 0 and a maximum of 1; all 0 where no region supports the label.

    Raises:
        ValueError: unknown method, layer or label; "ground_truth" without targets; "cam" with a head other than "gap".
        ImportError: the grad-cam package is not installed.

    Example:
        >>> cam(model, images, ["person", "dog"]).shape  # doctest: +SKIP
        (4, 2, 224, 224)
    """
    check_choice("method", method, METHODS)
    with _frozen(model):
        selected, classes = _select_labels(model, images, labels, targets)
        rows, columns = np.nonzero(selected)
        maps = np.full((*selected.shape, *images.shape[-2:]), np.nan, np.float32)
        if len(rows):
            maps[rows, columns] = _maps(model, images, rows, classes[columns], method, layer)
    return maps


class LabelCAM(NamedTuple):
    """The map of one label of each image, (b, H, W) in [0, 1], and the probability of that label, (b,)."""

    maps: np.ndarray
    probabilities: np.ndarray


def cam_per_image(
    model: MultiLabelModel | MergedTeacher,
    data: MultiLabelData,
    indices: Sequence[int],
    labels: Sequence[int],
    *,
    method: str = "gradcam",
    layer: str | None = None,
) -> LabelCAM:
    """The map and the probability of one label for each of several images.

    Args:
        model, method, layer: as for `cam`.
        data: a split.
        indices: b images of the split.
        labels: b class indices, one per image; the label may be absent from the image.

    Raises:
        ValueError: as `cam`.
    """
    maps, probabilities = [], []
    for (_, image), label in zip(iter_batches(model, data, indices, batch_size=1), labels, strict=True):
        maps.append(cam(model, image, [label], method=method, layer=layer)[0, 0])
        probabilities.append(model_output(model, image).logits[0, label].sigmoid().item())
    return LabelCAM(np.stack(maps), np.array(probabilities))


def map_layers(model: MultiLabelModel | MergedTeacher) -> tuple[str, ...]:
    """The layers that `cam` accepts: modules of the backbone whose output is a spatial feature map.

    Args:
        model: evaluated on one gray image.

    Returns:
        Names with at most one dot, such as "blocks.1", in the order of the forward pass; empty for a merged teacher,
        which has several backbones.
    """
    if isinstance(model, MergedTeacher):
        return ()
    layers: list[str] = []

    def make_hook(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Any) -> None:
            with suppress(AttributeError, RuntimeError):  # not a tensor, or tokens that do not form a grid
                features = model.backbone.to_feature_map(output)
                if features.ndim == 4 and min(features.shape[2:]) > 1:
                    layers.append(name)

        return hook

    modules = [(name, module) for name, module in model.backbone.net.named_modules() if name and name.count(".") < 2]
    hooks = [module.register_forward_hook(make_hook(name)) for name, module in modules]
    try:
        device = next(model.parameters()).device
        model_output(model, torch.full((1, 3, model.image_size, model.image_size), 0.5, device=device))
    finally:
        for handle in hooks:
            handle.remove()
    return tuple(dict.fromkeys(layers))


def _select_labels(model, images: Tensor, labels, targets) -> tuple[np.ndarray, np.ndarray]:
    """Which labels are selected for which image, (b, labels) bool, and the class index of each column."""
    q = len(model.classes)
    if not isinstance(labels, str):
        classes = [_class_index(model.classes, label) for label in labels]
        return np.ones((len(images), len(classes)), bool), np.array(classes, np.int64)
    check_choice("labels", labels, ("ground_truth", "predicted"))
    if labels == "predicted":
        with torch.no_grad():
            return (model(images).logits >= 0).cpu().numpy(), np.arange(q)
    if targets is None:
        raise ValueError("`labels` is 'ground_truth' but `targets` is missing; pass the targets of the images, (b, q).")
    targets = np.asarray(targets.cpu() if isinstance(targets, Tensor) else targets)
    if targets.shape != (len(images), q):
        raise ValueError(f"`targets` has shape {targets.shape}, expected ({len(images)}, {q}): one row per image.")
    return targets == 1, np.arange(q)


def _class_index(classes: tuple[str, ...], label: int | str) -> int:
    if isinstance(label, str):
        if label not in classes:
            raise ValueError(
                f"`labels` has {label!r}, which is not a class of the model. "
                f"Did you mean {closest_match(label, classes)!r}?"
            )
        return classes.index(label)
    if label not in range(len(classes)):
        raise ValueError(f"`labels` has {label}, expected class indices in 0..{len(classes) - 1}.")
    return int(label)


def _maps(model, images: Tensor, rows: np.ndarray, labels: np.ndarray, method: str, layer: str | None) -> np.ndarray:
    """The maps (m, H, W) of m pairs of an image, `images[rows[i]]`, and a class index, `labels[i]`."""
    if isinstance(model, MergedTeacher):
        return _merged_maps(model, images, rows, labels, method, layer)
    if method == "cam" and (layer is not None or not isinstance(model.head, GapHead)):
        raise ValueError(
            f"`method` is 'cam', which needs the last layer and a linear head on pooled features ('gap'); the head is "
            f"{model.settings['head']!r} and `layer` {layer!r}. Use method='gradcam', which gives the same maps for "
            f"that head and works for every head."
        )
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    image_of_pair = torch.from_numpy(rows).to(images.device)
    if layer is None:
        network: nn.Module = _HeadOnPairs(model, image_of_pair)
        target_layer, to_feature_map, inputs = network.features, None, images
    else:
        network, target_layer, to_feature_map = _Logits(model), _find_layer(model, layer), model.backbone.to_feature_map
        inputs = (images / 255 if images.dtype == torch.uint8 else images)[image_of_pair].detach().requires_grad_()
    grad_cam = getattr(pytorch_grad_cam, METHODS[method])(network, [target_layer], to_feature_map)
    try:
        with torch.enable_grad():
            return grad_cam(inputs, [ClassifierOutputTarget(label) for label in labels])
    finally:
        grad_cam.activations_and_grads.release()


def _merged_maps(
    merged: MergedTeacher, images: Tensor, rows: np.ndarray, labels: np.ndarray, method: str, layer: str | None
) -> np.ndarray:
    """`_maps` of a merged teacher: each label's map from the submodel that predicts it."""
    maps = np.empty((len(rows), *images.shape[-2:]), np.float32)
    names = np.array(merged.classes)[labels]
    submodels: Any = merged.models
    for model in submodels:
        pairs = np.flatnonzero(np.isin(names, model.classes))
        if len(pairs):
            indices = np.array([model.classes.index(name) for name in names[pairs]])
            maps[pairs] = _maps(model, images, rows[pairs], indices, method, layer)
    return maps


class _HeadOnPairs(nn.Module):
    """Logits (m, q) of m pairs from images (b, 3, H, W); each image passes the backbone once for all of its labels."""

    def __init__(self, model: MultiLabelModel, image_of_pair: Tensor):
        super().__init__()
        self.model, self.image_of_pair, self.features = model, image_of_pair, nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.model.features(images)
        return self.model.head(self.features(features[self.image_of_pair].requires_grad_()))[0]


class _Logits(nn.Module):
    """A model that returns only its logits."""

    def __init__(self, model: MultiLabelModel):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


def _find_layer(model: MultiLabelModel, layer: str) -> nn.Module:
    modules = {name: module for name, module in model.backbone.net.named_modules() if name}
    if layer not in modules:
        raise ValueError(
            f"`layer` is {layer!r}, which the backbone {model.settings['backbone']} does not have. Did you mean "
            f"{closest_match(layer, modules)!r}? None selects the features that the head receives."
        )
    return modules[layer]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and `requires_grad=False`; modes, `requires_grad` and gradients are restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    states = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, requires_grad, gradient in states:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
