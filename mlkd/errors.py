"""How errors name things: what was probably meant, and the first few of many."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def closest_match(word: str, known: Iterable[str]) -> str:
    """The member of `known` that is spelled most like `word`; case does not count."""
    lower = {name.lower(): name for name in known}
    return lower[difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.0)[0]]


def first_few(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_choice(argument: str, value: str, known: Iterable[str]) -> None:
    """Raises ValueError, naming the argument, what is known and the nearest of it, when `value` is not known."""
    known = list(known)
    if value not in known:
        raise ValueError(
            f"`{argument}` is {value!r}, expected one of {', '.join(known)}. "
            f"Did you mean {closest_match(str(value), known)!r}?"
        )
