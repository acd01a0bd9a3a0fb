"""Loss functions, `losses.bce(student_logits, targets)`, in one module per paper, each beside its equation.

The public names are listed in `__init__.pyi` and loaded when they are first used. A loss that would have the name of
its module ends in `_loss` instead.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
