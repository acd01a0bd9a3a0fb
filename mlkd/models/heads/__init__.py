"""Heads, one per file: from a feature map to logits and label-wise embeddings. Each registers itself by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from mlkd.errors import closest_match
from mlkd.registry import Registry


class Head(nn.Module):
    """From features (b, D, H, W) to logits (b, q) and label-wise embeddings (b, q, d) or None.

    A new head is a subclass with the constructor `(in_channels, classes, embed_dim=None, **settings)` under the
    `register_head` decorator, in a module of `mlkd.models.heads` or in a plugin. `in_channels` are the D channels of
    the feature map, `classes` the q label names.

    Attributes:
        has_embeddings: whether the head has embeddings. If not, its constructor has no `embed_dim`, their width d.
        has_cams: whether the head has class activation maps, by its method `cams`.
    """

    has_embeddings: ClassVar[bool] = True
    has_cams: ClassVar[bool] = False

    def cams(self, features: Tensor) -> Tensor:
        """Features (b, D, H, W) to class activation maps (b, q, H, W): how much each cell adds to a label's score.

        Gradients flow into the features and the head's parameters.
        """
        raise TypeError(f"{type(self).__name__} has no `cams`.")

    def saved_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings stored in a model file, as plain values, for a head that was created with `settings`."""
        return dict(settings)


HEADS: Registry[type[Head]] = Registry("head", __name__)
"""The heads by name."""

register_head = HEADS.register


def create_head(
    name: str, in_channels: int, classes: Sequence[str], embed_dim: int | None, settings: Mapping[str, Any]
) -> Head:
    """Creates the head of that name.

    Raises:
        ValueError: an unknown head or setting (the closest name is given), or an invalid value of a setting.
    """
    head = HEADS[name]
    known = [setting for setting in inspect.signature(head).parameters if setting not in ("in_channels", "classes")]
    for setting in settings:
        if setting == "embed_dim" or setting not in known:
            others = [other for other in known if other != "embed_dim"]
            hint = f"Did you mean {closest_match(setting, others)!r}?" if others else "It has no settings."
            width = " The width of the embeddings is set by `embed_dim`." if head.has_embeddings else ""
            raise ValueError(f"The head {name!r} has no setting {setting!r}. {hint}{width}")
    return head(in_channels, classes, **({"embed_dim": embed_dim} if head.has_embeddings else {}), **settings)
