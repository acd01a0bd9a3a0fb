"""A backbone and a head as one multi-label classifier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mlkd.errors import check_choice
from mlkd.files import atomic_write
from mlkd.models.backbone import Backbone, WeightsError, check_finite, read_weights
from mlkd.models.heads import HEADS, Head, create_head
from mlkd.models.image_predictor import ImagePredictor
from mlkd.models.metadata import ModelMetadata, check_preprocessing, describe_preprocessing, read_settings


class Output(NamedTuple):
    """A model's output: logits (b, q), label-wise embeddings (b, q, d) or None, features (b, D, H, W)."""

    logits: Tensor
    embeddings: Tensor | None
    features: Tensor


class MultiLabelModel(ImagePredictor, nn.Module):
    """From images to `Output`. A model normalizes its input itself, so teacher and student may differ in this.

    Attributes:
        classes: the label names, in the order of the logits.
        image_size: side of the input; images of another size are resized.
        settings: the arguments of `create_model` that rebuild the model.
        thresholds: (q,) the probabilities from which on `predict` predicts a label; None for 0.5.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, head: Head, classes: Sequence[str], settings: dict):
        super().__init__()
        self.backbone, self.head = backbone, head
        self.classes, self.settings = tuple(classes), settings
        self.image_size: int = settings["image_size"]
        self.thresholds: np.ndarray | None = None
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Images (b, 3, H, W), uint8 in 0..255 or float in 0..1, to the backbone's features (b, D, H', W')."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        if images.shape[-2:] != (self.image_size, self.image_size):
            images = nn.functional.interpolate(
                images, size=(self.image_size, self.image_size), mode="bilinear", antialias=True
            )
        return self.backbone((images - self.mean) / self.std)

    def forward(self, images: Tensor) -> Output:
        """Images (b, 3, H, W), uint8 in 0..255 or float in 0..1."""
        features = self.features(images)
        logits, embeddings = self.head(features)
        return Output(logits, embeddings, features)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Images (b, 3, H, W) uint8 to probabilities (b, q) float32, in eval mode."""
        output = model_output(self, torch.from_numpy(images).to(self.mean.device))
        return torch.sigmoid(output.logits.float()).cpu().numpy()

    @property
    def metadata(self) -> ModelMetadata:
        """Class names, preprocessing and thresholds, as every model file states them."""
        preprocessing = describe_preprocessing(self.image_size, self.backbone.mean, self.backbone.std)
        thresholds = None if self.thresholds is None else tuple(self.thresholds.tolist())
        return ModelMetadata(self.classes, preprocessing, thresholds)


@torch.no_grad()
def model_output(model: nn.Module, images: Tensor) -> Output:
    """The model's output for images (b, 3, H, W), in eval mode and without gradient; the mode is restored."""
    with eval_mode(model):
        return model(images)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The model is in eval mode inside the block; the mode of each of its modules is restored."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def create_model(
    backbone: str,
    classes: Sequence[str],
    head: str = "label_wise",
    *,
    pretrained: bool | str | Path = False,
    image_size: int = 224,
    embed_dim: int | None = None,
    head_settings: Mapping[str, Any] | None = None,
    **backbone_settings,
) -> MultiLabelModel:
    """Creates a multi-label classifier with any timm backbone.

    Args:
        backbone: a timm name ("resnet50", "swin_tiny_patch4_window7_224", ...), a small network for small
            images ("resnet20_cifar", "wrn40_2_cifar", "shufflenetv2_cifar", ...) or a name registered by the user.
        classes: the q label names.
        head: a name in `HEADS`: "label_wise" (L2D's encoder), "ml_decoder" (that of its official code), "transformer"
            (CPSD's) or "query2label", all with label-wise embeddings, or "gap" (global average pooling, without).
        pretrained: False, True (timm's download) or the path of a safetensors or state-dict file.
        image_size: side of the square input in pixels.
        embed_dim: width d of the label-wise embeddings; None for that of the head's paper ("label_wise": the
            backbone's width, at most 512).
        head_settings: arguments of the head's constructor, such as `{"layers": 3, "word_vectors": "glove.txt"}`.
        backbone_settings: arguments of the backbone's constructor, such as `stem_stride=2`.

    Raises:
        ValueError: an unknown backbone, head or setting of a head (the closest name is given).
        WeightsError: the weights cannot be downloaded or do not fit.

    Example:
        >>> model = create_model("resnet20_cifar", ("cat", "dog"), image_size=32)
        >>> model(torch.zeros(4, 3, 32, 32)).logits.shape
        torch.Size([4, 2])
    """
    check_choice("head", head, HEADS)
    backbone_module = Backbone(backbone, pretrained, image_size, **backbone_settings)
    head_module = create_head(head, backbone_module.width, classes, embed_dim, head_settings or {})
    settings = {
        "backbone": backbone,
        "head": head,
        "image_size": image_size,
        "embed_dim": embed_dim,
        **({"head_settings": head_module.saved_settings(head_settings)} if head_settings else {}),
        **backbone_settings,
    }
    return MultiLabelModel(backbone_module, head_module, classes, settings)


def save_model(model: MultiLabelModel, path: str | Path, **notes: str) -> None:
    """Writes a safetensors file with everything that rebuilds the model: settings, class names, thresholds, weights.

    Args:
        notes: further metadata, such as the scores of the model.
    """
    metadata = {"settings": json.dumps(model.settings), **model.metadata.to_texts(), **notes}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(save(tensors, metadata))


def load_model(path: str | Path) -> MultiLabelModel:
    """Loads a model that `save_model` wrote, on the CPU and in eval mode.

    Args:
        path: the file, or "mlkd:NAME" for a model that is part of the package ("mlkd:scenes_teacher").

    Raises:
        WeightsError: no such file, or not one that `save_model` wrote: its settings or tensors are damaged or would
            open another file; or the backbone of this installation expects another preprocessing (the difference is
            shown).
    """
    if str(path).startswith("mlkd:"):
        path = Path(__file__).parents[1] / "pretrained" / f"{str(path).removeprefix('mlkd:')}.safetensors"
    tensors = read_weights(Path(path))
    metadata: dict[str, str] = {}
    if Path(path).suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    if "settings" not in metadata or "classes" not in metadata:
        raise WeightsError(
            f"{path}: has no settings and class names, so it is not a model file of mlkd. Weights of a backbone are "
            f"loaded by `create_model(..., pretrained={str(path)!r})`."
        )
    stored, settings = ModelMetadata.from_texts(metadata, path), read_settings(metadata, path)
    try:
        model = create_model(classes=stored.classes, **settings)
    except Exception as error:  # other people's settings of a backbone or head raise errors of many kinds
        reason = shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
        raise WeightsError(f"{path}: no model can be built from its settings ({reason}).") from error
    check_preprocessing(stored.preprocessing, model.metadata.preprocessing, path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = shorten(str(error).partition("\n")[2], 300, placeholder=" ...")
        raise WeightsError(f"{path}: its tensors do not fit its settings ({reason}).") from error
    check_finite(Path(path), tensors)
    model.thresholds = None if stored.thresholds is None else np.array(stored.thresholds)
    return model.eval()


def fingerprint(model: nn.Module) -> str:
    """A hash of class names, settings and weights: models with the same fingerprint have the same outputs.

    A `CachedTeacher` has the fingerprint of its model as an attribute.
    """
    if stored := getattr(model, "fingerprint", None):
        return stored
    digest = hashlib.sha256(json.dumps([model.classes, model.settings], sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
