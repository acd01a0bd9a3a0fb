"""`load_data`: a data set from its address, such as "voc:~/VOCdevkit?year=2007"."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, create_model

from mlkd.data.dataset import MultiLabelData
from mlkd.data.paths import file_error
from mlkd.data.readers import READERS, RECOGNIZERS
from mlkd.errors import DataError, closest_match
from mlkd.settings import Settings


class Options(Settings):
    """The options of a reader, converted from strings to the types of its signature."""

    model_config = ConfigDict(strict=False)


def load_data(address: str) -> dict[str, MultiLabelData]:
    """Reads a data set from its address `<reader>:<path>?<option>=<value>&<option>=<value>`.

    Args:
        address: "scenes", "scenes?size=64&seed=1", "voc:~/VOCdevkit?year=2007&difficult=ignore", "coco:/path",
            "nuswide:/path?unlabeled=drop", "mirflickr:/path?labels=23", "table:/path/labels.csv", ... A path alone is
            recognized by its files. The options are the keyword arguments of
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
    address = resolve_address(address)
    source, query = _split_query(address)
    scheme, colon, root = source.partition(":")
    if scheme not in READERS:
        missing = f"no reader `{scheme}`" + ("" if colon else " and no such file or folder")
        raise ValueError(
            f"`{address}`: {missing}, expected one of {', '.join(READERS)}. "
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


def resolve_address(address: str) -> str:
    """The address with its reader: a path alone is recognized by its files. Other addresses are returned unchanged.

    Raises:
        DataError: no reader recognizes the path, or it can be read in several ways, which are listed.

    Example::

        resolve_address("~/VOCdevkit")  # "voc:~/VOCdevkit"
    """
    if address.partition("?")[0].partition(":")[0] in READERS:
        return address
    path, query = _split_query(address)
    if not os.path.exists(os.path.expanduser(path)):
        return address
    folder = _expand(path)
    options = [(name, option) for name, recognize in sorted(RECOGNIZERS.items()) for option in recognize(folder)]
    candidates = [f"{name}:{path}" + "?" * bool(option) + option for name, option in options]
    if not candidates:
        raise DataError(
            f"{path}: not recognized as a data set; expected the files of Pascal VOC, COCO, NUS-WIDE or MIRFLICKR-25k, "
            f"or a table of images and labels such as `labels.csv`. A reader can be named, as in `voc:{path}`."
        )
    if len(candidates) > 1 and not (len({name for name, _ in options}) == 1 and query):
        raise DataError(f"{path}: can be read in several ways; choose one of {', '.join(candidates)}.")
    return f"{options[0][0]}:{path}" + (f"?{query}" if query else "")


def _split_query(address: str) -> tuple[str, str]:
    """The address up to the `?` of its options, and the options; a `?` in a path that exists is part of the path."""
    scheme, colon, _ = address.partition(":")
    start = len(scheme + colon) if scheme in READERS else 0
    ends = [len(address), *(k for k in range(len(address))[::-1] if address[k] == "?")]
    for end in ends:
        if os.path.exists(os.path.expanduser(address[start:end])):
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
