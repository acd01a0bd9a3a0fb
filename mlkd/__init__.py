"""A notebook-first workbench for multi-label knowledge distillation.

The public names are listed in `__init__.pyi` and loaded when they are first used, so `import mlkd` is fast.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
