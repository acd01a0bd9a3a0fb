"""Errors that name what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The member of `known` that is spelled most like `word`; case does not count."""
    lower = {name.lower(): name for name in known}
    return lower[difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.0)[0]]


def check_one_of(argument: str, value: str, known: Iterable[str]) -> None:
    """Raises ValueError, naming the argument, what is known and the nearest of it, when `value` is not known."""
    known = list(known)
    if value not in known:
        raise ValueError(
            f"`{argument}` is {value!r}, expected one of {', '.join(known)}. "
            f"Did you mean {nearest(str(value), known)!r}?"
        )
