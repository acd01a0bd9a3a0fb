"""Users' own Python files, which register backbones with timm or methods with `mlkd.methods.register`."""

from __future__ import annotations

import hashlib
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

PREFIX = "mlkd_plugin_"


def run_plugin(path: str | Path) -> None:
    """Runs a user's Python file, which may register backbones with timm or methods with `mlkd.methods.register`.

    Once in a process: a second call with the same file does nothing.

    Raises:
        ValueError: there is no such file, or its name does not end in .py.
    """
    file = Path(path).resolve()
    name = f"{PREFIX}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if not file.is_file() or file.suffix != ".py":
        raise ValueError(f"`plugin` is {str(path)!r}, expected a Python file that exists and ends in .py.")
    if name in sys.modules:
        return
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # where timm looks for the module of a new backbone
    try:
        SourceFileLoader(name, str(file)).exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def plugins() -> tuple[str, ...]:
    """The files that this process has run, in that order: what another process must run to know the same."""
    return tuple(str(module.__file__) for name, module in list(sys.modules.items()) if name.startswith(PREFIX))
