"""One function per figure: it takes arrays or a table and returns a matplotlib Figure, without opening a window."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
