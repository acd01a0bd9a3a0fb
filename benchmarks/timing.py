"""Times an implementation and its reference in turn, so that other processes disturb both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Row(NamedTuple):
    """A measurement: medians of both times in seconds, and the median of the ratios reference / mlkd."""

    title: str
    seconds: float
    reference_seconds: float
    ratio: float


def compare(title: str, implementation: Callable[[], object], reference: Callable[[], object], repeats: int = 7) -> Row:
    """Times both `repeats` times in turn, after one call of each to warm up."""
    implementation()
    reference()
    return summarize(title, [(seconds(implementation), seconds(reference)) for _ in range(repeats)])


def summarize(title: str, pairs: list[tuple[float, float]]) -> Row:
    """The row of pairs (seconds, seconds of the reference)."""
    times, reference_times = zip(*pairs, strict=True)
    ratio = statistics.median(reference / duration for duration, reference in pairs)
    return Row(title, statistics.median(times), statistics.median(reference_times), ratio)


def seconds(work: Callable[[], object]) -> float:
    """The duration of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
