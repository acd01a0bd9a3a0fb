"""Backbones and heads: `create_model(...)` returns a model whose output is `Output(logits, embeddings, features)`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
