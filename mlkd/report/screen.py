"""What is seen while notebooks run: two live bars in a terminal, elsewhere a line at each start and end."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from types import TracebackType

from tqdm import tqdm


class NotebookProgress:
    """The progress of a series of notebooks, as a context manager.

    Args:
        names: the notebooks, in order.
        before: the seconds that some of them took at an earlier time, for the time left.
    """

    def __init__(self, names: Sequence[str] = (), before: Mapping[str, float] | None = None):
        self.waiting, self.before = list(names), dict(before or {})
        self.took: dict[str, float] = {}
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def say(self, text: str) -> None:
        if self.live:
            tqdm.write(text)
        else:
            print(text, flush=True)

    def skip(self, name: str, text: str) -> None:
        """A notebook that need not run."""
        self.say(text)
        self._ended(name)

    @contextmanager
    def watch(self, name: str, cells: int, status_file: Path) -> Iterator[tqdm]:
        """A bar over a notebook's cells; a thread shows beside it what the training in the notebook says."""
        started = time.monotonic()
        if not self.live:
            left = self.left(name, 0)
            print(f"{name}: started{f'; {left}' if left else ''}", flush=True)
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
                self.bar.set_postfix_str(self.left(name, time.monotonic() - started), refresh=True)

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
        self.took[name] = time.monotonic() - started
        self._ended(name)

    def _ended(self, name: str) -> None:
        if name in self.waiting:
            self.waiting.remove(name)
        self.bar.update()

    def left(self, name: str, seconds: float) -> str:
        """The time left, where the notebook `name` has been running for some seconds; empty where nothing is known.

        Each notebook is taken to need what it took before, or the mean of the others; and all together longer or
        shorter by the factor seen so far.
        """
        if not (self.took or self.before):
            return ""
        usual = fmean(self.before.values()) if self.before else 1.0
        expected = {other: self.before.get(other, usual) for other in [*self.took, *self.waiting]}
        pace = sum(self.took.values()) / sum(expected[other] for other in self.took) if self.took else 1.0
        left = {other: pace * expected[other] for other in self.waiting}
        left[name] = max(0.0, left.get(name, 0.0) - seconds)
        said = duration(sum(left.values()))
        return f"about {said} left" if left.keys() <= self.before.keys() else f"{said} left at this pace"


def duration(seconds: float) -> str:
    """Seconds as a person says them: "34 s", "3 min 20 s", "1 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
