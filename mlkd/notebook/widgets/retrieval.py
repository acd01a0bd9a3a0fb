"""Explorer of image retrieval."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from traitlets import Int, Unicode

from mlkd import plots
from mlkd.analysis import nearest_neighbors, retrieval_scores
from mlkd.data import MultiLabelData
from mlkd.notebook.widgets.cam import check_index
from mlkd.notebook.widgets.explorer import Explorer, index_field, menu


class RetrievalExplorer(Explorer):
    """The nearest neighbors of a query image in the features of one run. A click on an image makes it the query.

    Labels that the query has too are green with a tick, the others are red.

    Args:
        features: title of a run -> its `mlkd.analysis.extract_features` of all images of the split, (N, D).
        data: the split.
        query: the position of the first query in the split.
        k: the number of neighbors.

    Raises:
        ValueError: no features, or not one row per image; a query that does not exist; k is not in 1..N-1.
    """

    css_class, click_hint = "mlkd-retrieval", "Click an image to make it the query."
    run, query = Unicode(), Int()

    def __init__(self, features: Mapping[str, np.ndarray], data: MultiLabelData, *, query: int = 0, k: int = 5):
        if not features:
            raise ValueError("`features` is empty, expected those of at least one run: title -> (N, D).")
        for title, run_features in features.items():
            if len(run_features) != len(data):
                raise ValueError(
                    f"`features` of {title!r} has {len(run_features)} rows, expected {len(data)}, one per image."
                )
            nearest_neighbors(run_features, [0], k)
        check_index("query", query, data)
        self.features, self.data, self.k = dict(features), data, k
        super().__init__(run=next(iter(self.features)), query=query)

    @property
    def neighbors(self) -> np.ndarray:
        """The positions of the query's nearest neighbors, (k,), the nearest first."""
        return nearest_neighbors(self.features[self.run], [self.query], self.k)[0]

    def figure(self) -> Figure:
        return plots.retrieval_grid(self.data, [self.query], {self.run: self.neighbors[None]})

    def caption_lines(self) -> list[str]:
        scores = retrieval_scores(self.data.targets, self.neighbors[None], [self.query]).iloc[0]
        title = f"{self.run}, query {self.data.ids[self.query]}"
        if np.isnan(scores["precision"]):
            return [f"{title}: the query has no labels."]
        matches = round(scores["precision"] * self.k)
        ndcg = "" if np.isnan(scores["ndcg"]) else f"; nDCG@{self.k} {100 * scores['ndcg']:.0f} %"
        return [f"{title}: {matches} of the {self.k} nearest images share a label with it{ndcg}."]

    def create_controls(self) -> dict[str, ipywidgets.DOMWidget]:
        return {
            "run": menu("run", list(self.features)),
            "query": index_field("image", len(self.data) - 1),
        }

    def on_click(self, panel: int, x: float, y: float) -> None:
        if panel:  # panel 0 shows the query
            self.query = int(self.neighbors[panel - 1])
