"""Any timm backbone as a module from images to a (b, D, H, W) feature map, with its weights."""

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
from mlkd.models import cifar_resnet, cifar_shufflenet, cifar_wide_resnet  # noqa: F401  (register with timm)


class Backbone(nn.Module):
    """A timm model without its classifier.

    Convolutional networks, Swin (whose features are (b, H, W, D) in timm) and ViT (tokens) all output (b, D, H, W).

    Args:
        name: any model name of timm, including the small networks of `mlkd.models.cifar_resnet`, `cifar_wide_resnet`
            and `cifar_shufflenet`, and models that a user has registered with `timm.models.register_model`.
        pretrained: False, True for timm's download, or a safetensors or state-dict file.
        image_size: side of the square images in pixels.
        settings: arguments of the model's constructor (such as `stem_stride` or `drop_path_rate`).

    Raises:
        ValueError: the name is unknown, the network does not accept this image size, or it has no feature map.
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
        """The order of the axes of this network's features, determined with one blank image."""
        was_training: bool = self.net.training
        try:
            features = self.net.eval().forward_features(torch.zeros(1, 3, image_size, image_size))
        except (AssertionError, RuntimeError) as error:
            default_size = resolve_model_data_config(self.net)["input_size"][-1]
            raise ValueError(
                f"`image_size` is {image_size}, which the backbone {type(self.net).__name__} does not accept "
                f"({str(error) or type(error).__name__}); its default is {default_size}."
            ) from error
        self.net.train(was_training)
        if isinstance(features, Tensor) and features.ndim == 4 and self.width in (features.shape[1], features.shape[3]):
            return "bdhw" if features.shape[1] == self.width else "bhwd"
        if isinstance(features, Tensor) and features.ndim == 3:
            token: Tensor | None = getattr(self.net, "cls_token", None)
            self.prefix: int = getattr(self.net, "num_prefix_tokens", 0 if token is None else token.shape[1])
            cells = features.shape[1] - self.prefix
            side = math.isqrt(max(cells, 0))
            grid = getattr(getattr(self.net, "patch_embed", None), "grid_size", None)
            self.grid: tuple[int, int] = tuple(grid) if grid and math.prod(grid) == cells else (side, side)
            if math.prod(self.grid) == cells > 0 and features.shape[2] == self.width:
                return "tokens"
        raise ValueError(
            f"`backbone` is a {type(self.net).__name__}, whose `forward_features` returns neither one feature map "
            f"nor one token per cell of a grid; expected (b, D, H, W), (b, H, W, D) or tokens."
        )

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images (b, 3, H, W) to features (b, D, H', W')."""
        return self.to_feature_map(self.net.forward_features(images))

    def to_feature_map(self, stage: Tensor) -> Tensor:
        """The output of the last or an earlier layer, in the network's own layout, to (b, D, H', W')."""
        if stage.ndim == 3 and self.layout == "tokens":
            return stage[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        if stage.ndim == 4 and self.layout == "bhwd":
            return stage.permute(0, 3, 1, 2)
        return stage

    def penultimate_stage(self) -> tuple[nn.Module, int]:
        """The last module of the penultimate stage, and its number of output channels.

        Raises:
            ValueError: the network does not list its stages in `feature_info`, as timm's models do.
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
        """The output of a stage, in the network's own layout, to its mean per channel (b, D)."""
        if stage.ndim == 3 or self.layout == "bhwd":
            return stage.flatten(1, -2).mean(dim=1)
        return stage.flatten(2).mean(dim=2)


def _create(name: str, pretrained: bool, image_size: int, settings: Mapping) -> Any:
    if not timm.is_model(name.split(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), 3, 0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else "`timm.list_models()` lists the names."
        raise ValueError(
            f"`backbone` is {name!r}, which is not a model of timm. {hint} A backbone of a plugin needs the "
            f"plugin's file: `--plugin FILE`."
        )
    arguments = dict(settings, num_classes=0)
    config = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    if config is not None and config.fixed_input_size:
        arguments["img_size"] = image_size
    if not pretrained:
        return timm.create_model(name, pretrained=False, **arguments)
    try:
        return timm.create_model(name, pretrained=True, **arguments)
    except Exception as error:  # the client of the hub raises errors of many libraries
        raise WeightsError(
            f"The pretrained weights of {name} could not be downloaded ({type(error).__name__}). Offline, use a local "
            f"file: pretrained='/path/{name}.safetensors'."
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file or of a saved state dict; code in the file is not executed.

    A state dict may be nested under "state_dict" or "model", and its names may begin with "module.".

    Raises:
        WeightsError: no such file, or it contains something other than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]  # some errors have no message
        raise WeightsError(f"{path}: not a readable weights file ({reason}).") from error
    except Exception as error:  # pickle.UnpicklingError and whatever a malicious file may raise
        raise WeightsError(f"{path}: contains more than tensors and is not loaded; save a plain state dict.") from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise WeightsError(f"{path}: expected a mapping from names to tensors.")
    return {name.removeprefix("module."): value for name, value in state.items()}


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises WeightsError if a tensor of a file has a value that is not finite; such a network outputs nan."""
    for name, value in tensors.items():
        if value.is_floating_point() and not value.float().isfinite().all():
            raise WeightsError(
                f"{path}: the tensor {name!r} has values that are not finite (nan or inf); the file is damaged, or its "
                f"training diverged. Use another one."
            )


def load_weights(net: nn.Module, path: Path) -> None:
    """Loads a file into a backbone. Every tensor of the backbone must be in the file, with the same shape.

    Other tensors of the file are not loaded; a warning names them unless they belong to a classifier.

    Raises:
        WeightsError: tensors are missing, have another shape or are not finite; the first ones are named.
    """
    weights, expected = read_weights(path), net.state_dict()
    missing = [name for name in expected if name not in weights and not name.endswith("num_batches_tracked")]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    if missing or reshaped:
        problems = [f"lacks {first_few(missing)}"] * bool(missing) + [f"has {first_few(reshaped)}"] * bool(reshaped)
        raise WeightsError(f"{path}: does not fit the backbone {type(net).__name__}: it {' and '.join(problems)}.")
    classifiers = ("classifier.", "head.", "fc.")
    unused = [name for name in weights if name not in expected and not name.startswith(classifiers)]
    if unused:
        warnings.warn(f"{path}: the backbone has no {first_few(unused)}; not loaded.", stacklevel=2)
    used = {name: weights[name] for name in expected if name in weights}
    check_finite(path, used)
    net.load_state_dict(used, strict=False)
