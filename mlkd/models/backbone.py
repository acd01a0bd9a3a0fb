"""Any timm backbone as a module from pictures to a (b, D, H, W) feature map, with its weights."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from mlkd.errors import WeightsError, first_few
from mlkd.models import cifar_resnet  # noqa: F401  (registers the small nets with timm)


class Backbone(nn.Module):
    """A timm model without its classifier.

    Convolutional nets, Swin (which timm gives as (b, H, W, D)) and ViT (as tokens) all come out as (b, D, H, W).

    Args:
        name: any name that timm knows, the small nets of `mlkd.models.cifar_resnet` and what a user has
            registered with `timm.models.register_model` among them.
        pretrained: False, True for timm's own download, or a safetensors or state-dict file.
        image_size: side of the square pictures in pixels.
        settings: passed to the model's constructor (such as `stem_stride` or `drop_path_rate`).

    Raises:
        ValueError: the name is unknown, the net does not take pictures of that size, or it has no feature map.
        WeightsError: the weights cannot be downloaded, or the file does not fit the model.
    """

    def __init__(self, name: str, pretrained: bool | str | Path = False, image_size: int = 224, **settings):
        super().__init__()
        self.net = _create(name, pretrained is True, image_size, settings)
        if pretrained and pretrained is not True:
            load_weights(self.net, Path(pretrained))
        config = resolve_model_data_config(self.net)
        self.mean: tuple[float, ...] = tuple(config["mean"])
        self.std: tuple[float, ...] = tuple(config["std"])
        self.width = int(self.net.num_features)
        self.layout = self._find_layout(image_size)

    @torch.no_grad()
    def _find_layout(self, image_size: int) -> str:
        """How this net arranges its features, read off the features of one blank picture."""
        was_training: bool = self.net.training
        try:
            features = self.net.eval().forward_features(torch.zeros(1, 3, image_size, image_size))
        except (AssertionError, RuntimeError) as error:
            own = resolve_model_data_config(self.net)["input_size"][-1]
            raise ValueError(
                f"`image_size` is {image_size}, which the backbone {type(self.net).__name__} does not take "
                f"({str(error) or type(error).__name__}); it is made for {own}."
            ) from error
        self.net.train(was_training)
        if isinstance(features, Tensor) and features.ndim == 4 and self.width in (features.shape[1], features.shape[3]):
            return "bdhw" if features.shape[1] == self.width else "bhwd"
        if isinstance(features, Tensor) and features.ndim == 3:
            token: Tensor | None = getattr(self.net, "cls_token", None)
            self.prefix: int = getattr(self.net, "num_prefix_tokens", 0 if token is None else token.shape[1])
            cells = features.shape[1] - self.prefix
            side = math.isqrt(max(cells, 0))
            known = getattr(getattr(self.net, "patch_embed", None), "grid_size", None)
            self.grid: tuple[int, int] = tuple(known) if known and math.prod(known) == cells else (side, side)
            if math.prod(self.grid) == cells > 0 and features.shape[2] == self.width:
                return "tokens"
        raise ValueError(
            f"`backbone` is a {type(self.net).__name__}, whose `forward_features` gives neither one feature map nor "
            f"one token per cell of a grid; expected (b, D, H, W), (b, H, W, D) or tokens."
        )

    def forward(self, images: Tensor) -> Tensor:
        """Normalised pictures (b, 3, H, W) to features (b, D, H', W')."""
        return self.to_feature_map(self.net.forward_features(images))

    def to_feature_map(self, stage: Tensor) -> Tensor:
        """The output of the net's last layer, or of a layer before it, in the net's own layout, to (b, D, H', W')."""
        if stage.ndim == 3 and self.layout == "tokens":
            return stage[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        if stage.ndim == 4 and self.layout == "bhwd":
            return stage.permute(0, 3, 1, 2)
        return stage

    def penultimate_stage(self) -> tuple[nn.Module, int]:
        """The module that ends the last stage but one, and the number of channels it gives.

        Raises:
            ValueError: the net does not list its stages, as timm's nets do in `feature_info`.
        """
        stages: Any = getattr(self.net, "feature_info", ())
        modules = dict(self.net.named_modules())
        if len(stages) < 2 or stages[-2]["module"] not in modules:
            raise ValueError(
                f"`backbone` is a {type(self.net).__name__}, which does not list its stages; expected two or more in "
                f"`feature_info`, each with the name of its last module and its channels."
            )
        return modules[stages[-2]["module"]], stages[-2]["num_chs"]

    def global_pool(self, stage: Tensor) -> Tensor:
        """The output of one of the net's stages, in its own layout, to its mean per channel (b, D)."""
        if stage.ndim == 3 or self.layout == "bhwd":
            return stage.flatten(1, -2).mean(dim=1)
        return stage.flatten(2).mean(dim=2)


def _create(name: str, pretrained: bool, image_size: int, settings: Mapping) -> Any:
    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), 3, 0.5)
        hint = f" Near it: {', '.join(near)}." if near else " `timm.list_models()` has the names."
        raise ValueError(f"`backbone` is {name!r}, which timm does not know.{hint}")
    arguments = dict(settings, num_classes=0)
    config = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    if config is not None and config.fixed_input_size:
        arguments["img_size"] = image_size
    if not pretrained:
        return timm.create_model(name, pretrained=False, **arguments)
    try:
        return timm.create_model(name, pretrained=True, **arguments)
    except Exception as error:  # the hub's client raises errors of many libraries
        raise WeightsError(
            f"The pretrained weights of {name} could not be had ({type(error).__name__}). Without a network, give "
            f"a local file instead: pretrained='/path/{name}.safetensors'."
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a saved state dict; nothing in it is executed.

    A state dict may be wrapped, as training scripts do it, under "state_dict" or "model", and its names may
    begin with "module.".

    Raises:
        WeightsError: there is no such file, or it holds something else than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]  # some errors have no text
        raise WeightsError(f"{path}: not a readable weights file ({reason}).") from error
    except Exception as error:  # pickle.UnpicklingError and what a hostile file may raise
        raise WeightsError(f"{path}: holds more than tensors, and is not loaded; save a plain state dict.") from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: expected a mapping from names to tensors.")
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_weights(net: nn.Module, path: Path) -> None:
    """Loads a file into a backbone. Every tensor of the backbone must be in the file, in the same shape.

    What the file has beyond that (its classifier, say) is left out; anything but a classifier is named in a
    warning.

    Raises:
        WeightsError: tensors are missing or have another shape; the first of them are named.
    """
    found, wanted = read_weights(path), net.state_dict()
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    reshaped = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    if missing or reshaped:
        parts = [f"lacks {first_few(missing)}"] * bool(missing) + [f"has {first_few(reshaped)}"] * bool(reshaped)
        raise WeightsError(f"{path}: does not fit the backbone {type(net).__name__}: it {' and '.join(parts)}.")
    heads = ("classifier.", "head.", "fc.")
    unused = [name for name in found if name not in wanted and not name.startswith(heads)]
    if unused:
        warnings.warn(f"{path}: the backbone has no place for {first_few(unused)}; left out.", stacklevel=2)
    net.load_state_dict({name: found[name] for name in wanted if name in found}, strict=False)
