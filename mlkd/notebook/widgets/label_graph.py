"""Explorer of the label graph and its partitions."""

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
    """A heat map of the label graph, partitioned into k label subsets by a strategy, with the root tau.

    The caption gives the cut fraction, the sizes of the subsets and their labels.

    Args:
        counts: as `mlkd.graphs.cooccurrence` returns them, dense.
        classes: the q names.
        k, tau, strategy: the first partition, as in `mlkd.graphs.partition`.

    Raises:
        ValueError: as `mlkd.graphs.partition`.
    """

    css_class = "mlkd-label-graph"
    k, tau, strategy = Int(), Float(), Enum(STRATEGIES)

    def __init__(self, counts: Counts, classes: Sequence[str], *, k: int = 4, tau: float = 3.0, strategy: str = "cgp"):
        partition(counts, k, strategy, tau)
        self.counts, self.classes = counts, tuple(classes)
        self._partition = lru_cache(64)(partial(partition, counts))
        super().__init__(k=k, tau=tau, strategy=strategy)

    @property
    def label_subsets(self) -> np.ndarray:
        """The label subset of each label, (q,), from 0."""
        return self._partition(self.k, self.strategy, self.tau)

    def figure(self) -> Figure:
        graph = affinity(self.counts, "cgp", self.tau)
        return plots.partitions(graph, {self.strategy: self.label_subsets}, self.classes)

    def caption_lines(self) -> list[str]:
        subsets, names = self.label_subsets, np.array(self.classes, object)
        cut = cut_fraction(affinity(self.counts, "cgp", self.tau), subsets)
        sizes = ", ".join(map(str, np.bincount(subsets)))
        return [
            f"Cut: {100 * cut:.1f} % of the graph's edge weight is between label subsets. Labels per subset: {sizes}.",
            *(f"{number + 1}: {', '.join(names[subsets == number])}" for number in range(self.k)),
        ]

    def create_controls(self) -> dict[str, ipywidgets.DOMWidget]:
        return {
            "strategy": menu("strategy", STRATEGIES),
            "k": slider(ipywidgets.IntSlider, "label subsets k", 1, len(self.classes), 1),
            "tau": slider(ipywidgets.FloatSlider, "root tau", 0.5, 6, 0.5),
        }
