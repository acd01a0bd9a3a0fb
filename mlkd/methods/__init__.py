"""Methods to train a student with, by name: `create_method("l2d", teacher=model)`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
