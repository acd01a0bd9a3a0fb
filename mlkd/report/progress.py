"""The progress of a report: two live bars in a terminal, elsewhere a line at the start and end of each notebook."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from tqdm import tqdm


class NotebookProgress:
    """The progress of a series of notebooks, as a context manager.

    Args:
        names: the notebooks, in order.
        earlier: the seconds that notebooks took in an earlier report; the time left is estimated from them.
    """

    def __init__(self, names: Sequence[str] = (), earlier: Mapping[str, float] | None = None):
        self.pending, self.earlier = list(names), dict(earlier or {})
        self.seconds: dict[str, float] = {}
        self.live = sys.stderr.isatty()
        self.bar = tqdm(
            desc="notebooks",
            total=len(names),
            disable=not self.live,
            position=0,
            dynamic_ncols=True,
            bar_format="{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        )

    def __enter__(self) -> NotebookProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def write(self, text: str) -> None:
        """Prints a line above the bars."""
        tqdm.write(text)
        sys.stdout.flush()

    def skip(self, name: str, seconds: float) -> None:
        """A notebook is up to date; it took that many seconds before."""
        self._end(name, f"up to date, took {format_duration(seconds)}")

    def end(self, name: str, seconds: float, error: str) -> None:
        """A notebook has ended, with an error message or without."""
        self.seconds[name], duration = seconds, format_duration(seconds)
        self._end(name, f"failed after {duration}. {error}" if error else f"done in {duration}")

    def _end(self, name: str, outcome: str) -> None:
        self.write(f"{name}: {outcome}")
        self.pending.remove(name)
        self.bar.update()

    @contextmanager
    def watch(self, name: str, cells: int, status_file: Path) -> Iterator[tqdm]:
        """A bar over a notebook's cells. A thread shows the status line of the training in the notebook beside it."""
        started = time.monotonic()
        if not self.live:
            left = self.time_left(name, 0)
            self.write(f"{name}: started{f', {left}' if left else ''}")
        bar = tqdm(
            desc=name,
            total=cells,
            disable=not self.live,
            position=1,
            leave=False,
            dynamic_ncols=True,
            bar_format="{desc} |{bar:20}| {n_fmt}/{total_fmt} cells [{elapsed}{postfix}]",
        )
        ended = threading.Event()

        def poll() -> None:
            while not ended.wait(0.5):
                status = status_file.read_text() if status_file.is_file() else ""
                bar.set_postfix_str(status, refresh=True)
                self.bar.set_postfix_str(self.time_left(name, time.monotonic() - started), refresh=True)

        thread = threading.Thread(target=poll, daemon=True)
        if self.live:
            thread.start()
        try:
            yield bar
        finally:
            ended.set()
            if self.live:
                thread.join()
            bar.close()

    def time_left(self, name: str, seconds: float) -> str:
        """The time left while the notebook `name` has been running for some seconds; empty if nothing is known.

        A notebook is expected to take as long as before, or the mean of the others if it is new. All expectations are
        scaled by the ratio of the measured to the expected time of the notebooks that have ended.
        """
        if not (self.seconds or self.earlier):
            return ""
        mean = fmean(self.earlier.values()) if self.earlier else 1.0
        expected = {other: self.earlier.get(other, mean) for other in [*self.seconds, *self.pending]}
        ratio = sum(self.seconds.values()) / sum(expected[other] for other in self.seconds) if self.seconds else 1.0
        left = {other: ratio * expected[other] for other in self.pending}
        left[name] = max(0.0, left.get(name, 0.0) - seconds)
        return f"about {format_duration(sum(left.values()))} left"


def format_duration(seconds: float) -> str:
    """Seconds as a text.

    Example:
        >>> [format_duration(seconds) for seconds in (34, 200, 3900)]
        ['34 s', '3 min 20 s', '1 h 5 min']
    """
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"
