"""Two ways to do one thing, timed in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def side_by_side(
    ours: Callable[[], object], reference: Callable[[], object], repeats: int = 7
) -> tuple[float, float, float]:
    """Median seconds of each, and the median of the ratios reference / ours, pair by pair; one warm-up each."""
    ours()
    reference()
    pairs = [(seconds(ours), seconds(reference)) for _ in range(repeats)]
    mine, theirs = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(theirs), statistics.median(b / a for a, b in pairs)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, once."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
