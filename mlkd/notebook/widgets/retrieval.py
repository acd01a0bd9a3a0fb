"""Pictures that a network finds alike."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from traitlets import Int, Unicode

from mlkd import plots
from mlkd.analysis import nearest_neighbors, retrieval_scores
from mlkd.data import MultiLabelData
from mlkd.notebook.widgets.cams import check_row
from mlkd.notebook.widgets.explorer import Explorer, menu, number


class RetrievalExplorer(Explorer):
    """The pictures nearest to a query, for one run; a click on one makes it the next query.

    A label that the query has too is green with a tick, another one is red.

    Args:
        vectors: title of a run -> its `mlkd.analysis.representations` of all pictures of the split.
        data: the split.
        query: the picture to begin with.
        k: how many are found.

    Raises:
        ValueError: no vectors, or of other pictures; no such query; k is not in 1..N-1.
    """

    hook, hint = "mlkd-retrieval", "a click on a picture makes it the query"
    run, query = Unicode(), Int()

    def __init__(self, vectors: Mapping[str, np.ndarray], data: MultiLabelData, *, query: int = 0, k: int = 5):
        if not vectors:
            raise ValueError("`vectors` is empty, expected those of one run at least: title -> (N, D).")
        for title, found in vectors.items():
            if len(found) != len(data):
                raise ValueError(
                    f"`vectors` of {title!r} has {len(found)} rows, expected {len(data)}, one per picture."
                )
            nearest_neighbors(found, [0], k)
        check_row(query, data)
        self.vectors, self.data, self.k = dict(vectors), data, k
        super().__init__(run=next(iter(self.vectors)), query=query)

    @property
    def found(self) -> np.ndarray:
        """The rows of the pictures found, (k,), the nearest first."""
        return nearest_neighbors(self.vectors[self.run], [self.query], self.k)[0]

    def figure(self) -> Figure:
        return plots.retrieval_grid(self.data, [self.query], {self.run: self.found[None]})

    def caption_lines(self) -> list[str]:
        scores = retrieval_scores(self.data.targets, self.found[None], [self.query]).iloc[0]
        told = f"{self.run}, query {self.data.ids[self.query]}"
        if np.isnan(scores["precision"]):
            return [f"{told}: it has no labels to share."]
        shared = round(scores["precision"] * self.k)
        order = "" if np.isnan(scores["ndcg"]) else f"; nDCG@{self.k} is {100 * scores['ndcg']:.0f} %"
        return [f"{told}: {shared} of the {self.k} pictures found share a label with it{order}."]

    def controls(self) -> dict[str, ipywidgets.DOMWidget]:
        return {
            "run": menu("run", list(self.vectors)),
            "query": number("picture", len(self.data) - 1),
        }

    def clicked(self, panel: int, x: float, y: float) -> None:
        if panel:  # the query itself is the first
            self.query = int(self.found[panel - 1])
