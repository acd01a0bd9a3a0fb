"""The label graph and its parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from traitlets import Enum, Float, Int

from mlkd import plots
from mlkd.graphs import STRATEGIES, Counts, affinity, cut_fraction, partition
from mlkd.notebook.widgets.explorer import Explorer, menu, slider


class LabelGraphExplorer(Explorer):
    """How the labels fall into parts: a heat map of what stands together, for a strategy, a root and a number of parts.

    Below it, how much of the graph the parts cut through, how large they are and which labels they hold.

    Args:
        counts: as `mlkd.graphs.cooccurrence` returns them, not sparse.
        classes: the q names.
        k, tau, strategy: as in `mlkd.graphs.partition`; to begin with.

    Raises:
        ValueError: as `mlkd.graphs.partition`.
    """

    hook = "mlkd-label-graph"
    k, tau, strategy = Int(), Float(), Enum(STRATEGIES)

    def __init__(self, counts: Counts, classes: Sequence[str], *, k: int = 4, tau: float = 3.0, strategy: str = "cgp"):
        partition(counts, k, strategy, tau)
        self.counts, self.classes = counts, tuple(classes)
        self._partition = lru_cache(64)(partial(partition, counts))
        super().__init__(k=k, tau=tau, strategy=strategy)

    @property
    def parts(self) -> np.ndarray:
        """The part of each label, (q,)."""
        return self._partition(self.k, self.strategy, self.tau)

    def figure(self) -> Figure:
        return plots.partitions(affinity(self.counts, "cgp", self.tau), {self.strategy: self.parts}, self.classes)

    def caption_lines(self) -> list[str]:
        parts = self.parts
        sizes = ", ".join(map(str, np.bincount(parts)))
        share = cut_fraction(affinity(self.counts, "cgp", self.tau), parts)
        told = [f"Cut: {100 * share:.1f} % of the graph's weight joins labels of two parts. Labels in a part: {sizes}."]
        names = np.array(self.classes, object)
        return told + [f"{part + 1}: {', '.join(names[parts == part])}" for part in range(self.k)]

    def controls(self) -> dict[str, ipywidgets.DOMWidget]:
        return {
            "strategy": menu("strategy", STRATEGIES),
            "k": slider(ipywidgets.IntSlider, "parts k", 1, len(self.classes), 1),
            "tau": slider(ipywidgets.FloatSlider, "root tau", 0.5, 6, 0.5),
        }
