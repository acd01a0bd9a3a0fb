"""The errors of the package, and how their messages name things. Nothing here imports torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class DataError(ValueError):
    """Invalid data; the message names the file, the field and what was expected.

    Args:
        lines: the message; each line is shown by `one_line`.
    """

    def __init__(self, *lines: str):
        super().__init__(*lines)

    def __str__(self) -> str:
        return "\n".join(map(one_line, self.args))


class RunError(ValueError):
    """A run folder that cannot be used; the message names it and says what to do."""


class TrainingError(RuntimeError):
    """A training that cannot continue; the message gives the reason and what to do."""


class WeightsError(ValueError):
    """Model weights that are missing or do not fit; the message names the file or the network."""


class PluginError(ValueError):
    """A plugin that cannot be loaded; the message names it, the line and the reason."""


class WriteError(OSError):
    """A file that could not be written; the message names it, the reason and what to do."""


def closest_match(word: str, known: Iterable[str]) -> str:
    """The member of `known` that is spelled most like `word`; case does not count."""
    lower = {name.lower(): name for name in known}
    return lower[difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.0)[0]]


def printable(text: str) -> str:
    """The text with control characters and lone surrogates escaped, so that it has no effect on a terminal.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def one_line(text: str) -> str:
    """`printable`, with line breaks as escapes too: a name in a data file may contain any character."""
    return printable(text).replace("\n", "\\n")


def first_few(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_choice(argument: str, value: str, known: Iterable[str]) -> None:
    """Raises ValueError, with the argument, the choices and the closest of them, when `value` is none of them."""
    known = list(known)
    if value not in known:
        raise ValueError(
            f"`{argument}` is {value!r}, expected one of {', '.join(known)}. "
            f"Did you mean {closest_match(str(value), known)!r}?"
        )
