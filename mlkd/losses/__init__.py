"""One module per paper; each function stands next to its equation."""

from mlkd.losses import classification, l2d

__all__ = ["classification", "l2d"]
