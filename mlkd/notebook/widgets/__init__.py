"""Explorers: figures of `mlkd.plots` that follow sliders, menus and clicks in a notebook.

In static output, as in a report or under `nbconvert --execute`, an explorer shows its `static_figure()`.
"""

try:
    from mlkd.notebook.widgets.cam import CamExplorer
    from mlkd.notebook.widgets.label_graph import LabelGraphExplorer
    from mlkd.notebook.widgets.label_pairs import LabelPairInspector
    from mlkd.notebook.widgets.monitor import TrainingMonitor
    from mlkd.notebook.widgets.retrieval import RetrievalExplorer
except ModuleNotFoundError as error:
    if error.name not in ("anywidget", "ipywidgets", "IPython", "traitlets"):
        raise
    raise ImportError(f"The explorers need the package {error.name!r}: pip install 'mlkd[notebooks]'.") from error

__all__ = ["CamExplorer", "LabelGraphExplorer", "LabelPairInspector", "RetrievalExplorer", "TrainingMonitor"]
