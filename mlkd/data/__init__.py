"""Data readers: each ends in `MultiLabelData`, one per split."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mlkd.data import coco, voc
from mlkd.data.dataset import (
    READERS,
    DataError,
    ImageFiles,
    MultiLabelData,
    hold_out,
    register_reader,
    standard_splits,
)
from mlkd.errors import closest_match

__all__ = [
    "DataError",
    "ImageFiles",
    "MultiLabelData",
    "coco",
    "hold_out",
    "load_data",
    "register_reader",
    "standard_splits",
    "voc",
]


def load_data(spec: str) -> dict[str, MultiLabelData]:
    """Read a data set named in one line: `<reader>:<path>?<option>=<value>&<option>=<value>`.

    Args:
        spec: "scenes", "scenes?size=64&seed=1", "voc:~/VOCdevkit?year=2007&difficult=ignore", ...
            The options are the keyword arguments of the reader, such as `mlkd.data.voc.read`.

    Returns:
        The splits by name: at least `train`, `val` and `test`. A data set without a split to choose by has
        a tenth of its training pictures held out for it, the same tenth each time, and all of them as
        `trainval`; one whose test pictures have no public labels is scored on its official validation split
        (`standard_splits`).

    Raises:
        ValueError: no such reader or option, or a value of the wrong kind.
        DataError: what the reader finds wrong in the files.

    Example:
        >>> data = load_data("scenes?seed=1")  # doctest: +SKIP
        >>> data["train"].targets.shape  # doctest: +SKIP
        (4000, 20)
    """
    address, _, query = spec.partition("?")
    scheme, colon, root = address.partition(":")
    if scheme not in READERS:
        known = ", ".join(sorted(READERS))
        raise ValueError(
            f"`{spec}`: no reader `{scheme}`; known are {known}. Did you mean `{closest_match(scheme, READERS)}`?"
        )
    read = READERS[scheme]
    takes_root = "root" in inspect.signature(read).parameters
    if takes_root and not root:
        raise ValueError(f"`{spec}`: `{scheme}` needs a path, as in `{scheme}:/path/to/folder`.")
    if colon and not takes_root:
        raise ValueError(f"`{spec}`: `{scheme}` takes no path, expected `{scheme}` or `{scheme}?option=value`.")
    options = _options(spec, scheme, query)
    return read(Path(root).expanduser(), **options) if takes_root else read(**options)


def _options(spec: str, scheme: str, query: str) -> dict[str, Any]:
    """The options in `query`, converted to the types that the reader's signature declares."""
    hints = get_type_hints(READERS[scheme])
    parameters = inspect.signature(READERS[scheme]).parameters.values()
    kinds = {p.name: _kind(hints[p.name]) for p in parameters if p.kind is p.KEYWORD_ONLY}
    kinds = {name: kind for name, kind in kinds.items() if kind is not None}
    options: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, equals, text = part.partition("=")
        if name not in kinds:
            known = f"Did you mean `{closest_match(name, kinds)}`?" if kinds else "It has none."
            raise ValueError(f"`{spec}`: `{scheme}` has no option `{name}`. {known}")
        if not equals or name in options:
            raise ValueError(f"`{spec}`: `{part}` is not one `{name}=<value>`.")
        options[name] = _convert(spec, name, text, kinds[name])
    return options


def _kind(hint: Any) -> Any:
    """int, str, or the allowed values of a `Literal`; None for what cannot be written in a specification."""
    if get_origin(hint) in (Union, UnionType):
        parts = [part for part in get_args(hint) if part is not NoneType]
        return _kind(parts[0]) if len(parts) == 1 else None
    if get_origin(hint) is Literal:
        return get_args(hint)
    return hint if hint in (int, str) else None


def _convert(spec: str, name: str, text: str, kind: Any) -> Any:
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"`{spec}`: `{name}` is `{text}`; expected a whole number.") from None
    if isinstance(kind, tuple) and text not in kind:
        raise ValueError(
            f"`{spec}`: `{name}` is `{text}`; expected one of {', '.join(kind)}. Did you mean `{closest_match(text, kind)}`?"
        )
    return text


@register_reader("scenes")
def _scenes(*, size: int = 96, seed: int = 0) -> dict[str, MultiLabelData]:
    """The embedded drawings: a VOC folder made on first use (see `mlkd.scenes`)."""
    from mlkd import scenes  # the drawing code is loaded where it is used

    splits = voc.read(scenes.folder(seed=seed, size=size), classes=scenes.CLASSES)
    return {split: replace(data, name="scenes") for split, data in splits.items()}
