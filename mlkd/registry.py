"""Named extensions: methods, data readers and heads register themselves, in this package or in somebody else's."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from mlkd.errors import PluginError, check_choice

T = TypeVar("T")

ENTRY_POINTS = "mlkd.plugins"
"""The entry-point group of installed packages that register extensions when they are imported."""

_plugin_files: set[str] = set()
"""The files of the plugins that were loaded."""


class Registry(Mapping[str, T], Generic[T]):
    """Classes or functions by name. The first lookup imports the modules that register them.

    Args:
        kind: what is registered, as error messages call it, such as "method".
        package: the package whose modules register the built-in ones.
    """

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package
        self.entries: dict[str, T] = {}
        self.loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that registers a class or function under `name`."""

        def decorate(entry: T) -> T:
            self.entries[name] = entry
            return entry

        return decorate

    def __getitem__(self, name: str) -> T:
        """The entry of that name.

        Raises:
            ValueError: there is none; the closest name is given.
        """
        self._load()
        check_choice(self.kind, name, sorted(self.entries))
        return self.entries[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self.entries))

    def __len__(self) -> int:
        self._load()
        return len(self.entries)

    def _load(self) -> None:
        if not self.loaded:
            self.loaded = True
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__, f"{self.package}."):
                importlib.import_module(module.name)
            load_installed_plugins()


@cache
def load_installed_plugins() -> None:
    """Imports the installed packages that have an entry point in the group `mlkd.plugins`, once.

    Raises:
        PluginError: one of them fails; it is named.
    """
    for plugin in entry_points(group=ENTRY_POINTS):
        try:
            plugin.load()
        except (Exception, SystemExit) as error:
            raise PluginError(f"The plugin {plugin.name!r} ({plugin.value}) failed: {_last_line(error)}") from error
        if file := getattr(sys.modules.get(plugin.module), "__file__", None):
            _plugin_files.add(file)


def load_plugin(path: str | Path) -> None:
    """Runs a Python file that registers methods, readers or heads, or backbones with timm.

    A file is run once in a process; a second call with the same file does nothing.

    Raises:
        ValueError: no such file, or its name does not end in .py.
        PluginError: the file fails; the file and the line are named.
    """
    file = Path(path).expanduser().resolve()
    name = f"mlkd_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if not file.is_file() or file.suffix != ".py":
        raise ValueError(f"`plugin` is {str(path)!r}, expected a Python file that exists and ends in .py.")
    if name in sys.modules:
        return
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # where timm looks up the module of a registered backbone
    try:
        SourceFileLoader(name, str(file)).exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(f"The plugin {file} failed: {_last_line(error, file)}") from error
    _plugin_files.add(str(file))


def plugin_location(error: BaseException) -> str:
    """ "The plugin FILE failed in line N" for an error that was raised in a plugin, or in what it called; else ""."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in _plugin_files:
            return f"The plugin {frame.filename} failed in line {frame.lineno}"
    return ""


def _last_line(error: BaseException, file: Path | None = None) -> str:
    """The error in one line, with the line of the plugin's file where it was raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}: {error}"
