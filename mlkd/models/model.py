"""A backbone and a head as one multi-label classifier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mlkd.errors import check_choice
from mlkd.files import atomic_write
from mlkd.models.backbone import Backbone, WeightsError, read_weights
from mlkd.models.heads import HEADS, Head, create_head


class Output(NamedTuple):
    """What a model says of a batch: logits (b, q), label-wise embeddings (b, q, d) or None, features (b, D, H, W)."""

    logits: Tensor
    embeddings: Tensor | None
    features: Tensor


class MultiLabelModel(nn.Module):
    """Pictures in, `Output` out. It normalises its own input, so a teacher and a student may differ in that.

    Attributes:
        classes: the label names, in the order of the logits.
        image_size: side of the pictures it was made for; others are resized on the way in.
        settings: the arguments of `create_model` that rebuild it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, head: Head, classes: Sequence[str], settings: dict):
        super().__init__()
        self.backbone, self.head = backbone, head
        self.classes, self.settings = tuple(classes), settings
        self.image_size: int = settings["image_size"]
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Pictures (b, 3, H, W), uint8 in 0..255 or float in 0..1, to the backbone's features (b, D, H', W')."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        if images.shape[-2:] != (self.image_size, self.image_size):
            images = nn.functional.interpolate(
                images, size=(self.image_size, self.image_size), mode="bilinear", antialias=True
            )
        return self.backbone((images - self.mean) / self.std)

    def forward(self, images: Tensor) -> Output:
        """Pictures (b, 3, H, W), uint8 in 0..255 or float in 0..1."""
        features = self.features(images)
        logits, embeddings = self.head(features)
        return Output(logits, embeddings, features)


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
    """A multi-label classifier on any timm backbone.

    Args:
        backbone: a timm name ("resnet50", "swin_tiny_patch4_window7_224", ...), one of the small nets for small
            pictures ("resnet20_cifar", ...) or a name registered by the user.
        classes: the q label names.
        head: a name in `HEADS`: "label_wise" (L2D's encoder), "transformer" (CPSD's) or "query2label", all with
            label-wise embeddings, or "gap" (average pooling, without).
        pretrained: False, True (timm's download) or the path of a safetensors or state-dict file.
        image_size: side of the square input in pixels.
        embed_dim: width d of the label-wise embeddings; None takes what the head's paper has ("label_wise": the
            backbone's width, at most 512).
        head_settings: passed to the head's constructor, such as `{"layers": 3, "word_vectors": "glove.txt"}`.
        backbone_settings: passed to the backbone's constructor, such as `stem_stride=2`.

    Raises:
        ValueError: an unknown backbone, head or setting of a head (the nearest is named).
        WeightsError: weights that cannot be had or do not fit.

    Example:
        >>> model = create_model("resnet20_cifar", ("cat", "dog"), image_size=32)
        >>> model(torch.zeros(4, 3, 32, 32)).logits.shape
        torch.Size([4, 2])
    """
    check_choice("head", head, HEADS)
    trunk = Backbone(backbone, pretrained, image_size, **backbone_settings)
    top = create_head(head, trunk.width, classes, embed_dim, head_settings or {})
    settings = {
        "backbone": backbone,
        "head": head,
        "image_size": image_size,
        "embed_dim": embed_dim,
        **({"head_settings": top.saved_settings(head_settings)} if head_settings else {}),
        **backbone_settings,
    }
    return MultiLabelModel(trunk, top, classes, settings)


def save_model(model: MultiLabelModel, path: str | Path, **notes: str) -> None:
    """Writes a safetensors file that rebuilds the model by itself: settings, class names and weights.

    Args:
        notes: further text to keep in the file, such as the scores it reached.
    """
    metadata = {"settings": json.dumps(model.settings), "classes": json.dumps(model.classes), **notes}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(save(tensors, metadata))


def load_model(path: str | Path) -> MultiLabelModel:
    """The model that `save_model` wrote, on the CPU and in eval mode.

    Args:
        path: the file, or "mlkd:NAME" for a model that comes with the package ("mlkd:scenes_teacher").

    Raises:
        WeightsError: no such file, or not one that `save_model` wrote.
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
            f"{path}: lacks the settings and class names that mlkd keeps in a model file. A backbone's weights "
            f"alone go to `create_model(..., pretrained={str(path)!r})`."
        )
    model = create_model(classes=json.loads(metadata["classes"]), **json.loads(metadata["settings"]))
    model.load_state_dict(tensors)
    return model.eval()


def fingerprint(model: nn.Module) -> str:
    """A hash over class names and weights: two models with the same one give the same outputs.

    What stands in for a model (`CachedTeacher`) carries that model's as an attribute.
    """
    if kept := getattr(model, "fingerprint", None):
        return kept
    digest = hashlib.sha256(json.dumps([model.classes, model.settings], sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
