"""`load_data`: a data set from its address, such as "voc:~/VOCdevkit?year=2007"."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, create_model

from mlkd.data.dataset import MultiLabelData
from mlkd.data.paths import file_error
from mlkd.data.readers import READERS
from mlkd.errors import DataError, closest_match
from mlkd.settings import Settings


class Options(Settings):
    """The options of a reader, converted from strings to the types of its signature."""

    model_config = ConfigDict(strict=False)


def load_data(address: str) -> dict[str, MultiLabelData]:
    """Reads a data set from its address `<reader>:<path>?<option>=<value>&<option>=<value>`.

    Args:
        address: "scenes", "scenes?size=64&seed=1", "voc:~/VOCdevkit?year=2007&difficult=ignore", "coco:/path",
            "nuswide:/path?unlabeled=drop", "mirflickr:/path?labels=23", ... The options are the keyword arguments of
            the reader, such as `mlkd.data.readers.voc.read`.

    Returns:
        The splits by name: at least `train`, `val` and `test`. If the data set has no split for model selection, a
        tenth of its training images is held out, the same tenth each time, and `trainval` has all of them. If its
        test images have no public labels, `test` is the official validation split (`standard_splits`).

    Raises:
        ValueError: no such reader or option, or a value of the wrong kind.
        DataError: the files are missing or invalid.

    Example::

        data = load_data("voc:~/VOCdevkit?year=2007")
        data["trainval"].targets.shape  # (5011, 20)
    """
    source, query = _split_query(address)
    scheme, colon, root = source.partition(":")
    if scheme not in READERS:
        raise ValueError(
            f"`{address}`: no reader `{scheme}`, expected one of {', '.join(READERS)}. "
            f"Did you mean `{closest_match(scheme, READERS)}`?"
        )
    read = READERS[scheme]
    takes_root = "root" in inspect.signature(read).parameters
    if takes_root and not root:
        raise ValueError(f"`{address}`: `{scheme}` needs a path, as in `{scheme}:/path/to/folder`.")
    if colon and not takes_root:
        raise ValueError(f"`{address}`: `{scheme}` takes no path, expected `{scheme}` or `{scheme}?option=value`.")
    options = _parse_options(address, scheme, query)
    return read(_expand(root), **options) if takes_root else read(**options)


def _split_query(address: str) -> tuple[str, str]:
    """The address up to the `?` of its options, and the options; a `?` in a path that exists is part of the path."""
    ends = [len(address), *(k for k in range(len(address))[::-1] if address[k] == "?")]
    for end in ends:
        if os.path.exists(os.path.expanduser(address[:end].partition(":")[2])):
            return address[:end], address[end + 1 :]
    source, _, query = address.partition("?")
    return source, query


def _expand(root: str) -> Path:
    """The path with the home folder in place of `~`.

    Raises:
        DataError: there is no such home folder, a link leads to itself, a name is too long, or the like.
    """
    try:
        path = Path(root).expanduser()
        path.resolve().exists()
    except OSError as error:
        raise file_error(path, error, "a data folder") from error
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{root}: {error}; expected a data folder.") from error
    return path


def _parse_options(address: str, scheme: str, query: str) -> dict[str, Any]:
    """The options in `query`, converted to the types that the reader's signature declares."""
    values: dict[str, str] = {}
    for item in filter(None, query.split("&")):
        name, equals, value = item.partition("=")
        if not equals or name in values:
            raise ValueError(f"`{address}`: `{item}` is invalid, expected each option once, as `<option>=<value>`.")
        values[name] = value
    hints, parameters = get_type_hints(READERS[scheme]), inspect.signature(READERS[scheme]).parameters.values()
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, str), p.default) for p in parameters if p.kind is p.KEYWORD_ONLY
    }
    if values and not fields:
        raise ValueError(f"`{address}`: `{scheme}` has no options.")
    options = create_model("Options", __base__=Options, **fields)
    options.title = f"the data reader {scheme!r}"
    return options(**values).model_dump(exclude_unset=True)
