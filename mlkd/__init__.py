"""A notebook-first workbench for multi-label knowledge distillation.

The public names are listed in `__init__.pyi` and loaded when they are first used, so `import mlkd` is fast.
"""

import os

import lazy_loader

# Threads that wait for each other sleep, in place of spinning, which slows a training on a shared machine several times
# (docs/training.md). OpenMP reads the variable when torch is loaded; processes that mlkd starts inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
