"""Heads, one per file: from a feature map to logits and label-wise embeddings."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
