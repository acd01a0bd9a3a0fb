"""Reads the YAML files of studies and sweeps: plain values only, which execute nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

try:
    from yaml import CSafeLoader as SafeLoader  # ten times as fast
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]

MAX_VALUES = 100_000
"""The most values in a file; aliases count as often as they are used."""

MAX_DEPTH = 50
"""The most lists and mappings inside each other."""


class _Loader(SafeLoader):
    """Refuses a key that occurs twice, of which YAML would take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ValueError: no such file, not YAML, no mapping, or a value other than texts, finite numbers, true, false, null,
            lists and mappings.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a safe loader)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); expected a YAML file.") from error
    except RecursionError as error:
        raise ValueError(f"{path}: too deeply nested; expected a study or a sweep.") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        # Invalid values of a tag raise various errors, such as `!!int x` and `2026-99-99`.
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path}: expected a mapping of settings, as in `student: {{epochs: 5}}`.")
    _check_plain(path, content)
    return content


def _check_plain(path: Path, content: dict[str, Any]) -> None:
    """Raises ValueError if a value is of another kind than JSON's, not finite or too deep, or if there are too many."""
    pending: list[tuple[Any, int]] = [(content, 0)]
    count = 0
    while pending:
        (value, depth), count = pending.pop(), count + 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(
                f"{path}: has more than {MAX_VALUES} values or is nested more than {MAX_DEPTH} times; expected a study "
                f"or a sweep."
            )
        if isinstance(value, dict):
            pending += [(item, depth + 1) for item in (*value, *value.values())]
        elif isinstance(value, list):
            pending += [(item, depth + 1) for item in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{path}: has the value {value}, expected finite numbers.")
        elif not isinstance(value, str | int | float | None):
            raise ValueError(
                f"{path}: has the {type(value).__name__} {value!r}, expected texts, numbers, true, false, null, lists "
                f"and mappings."
            )
