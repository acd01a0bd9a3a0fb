"""Explorers for a notebook: figures of `mlkd.plots` that follow sliders, menus and clicks.

Where nobody can move a slider, in a report or under `nbconvert --execute`, an explorer shows its `static_figure()`.
"""

try:
    from mlkd.notebook.widgets.cams import CamExplorer
    from mlkd.notebook.widgets.graph import LabelGraphExplorer
    from mlkd.notebook.widgets.monitor import TrainingMonitor
    from mlkd.notebook.widgets.pairs import LabelPairInspector
    from mlkd.notebook.widgets.retrieval import RetrievalExplorer
except ModuleNotFoundError as error:
    if error.name not in ("anywidget", "ipywidgets", "IPython", "traitlets"):
        raise
    raise ImportError(f"The explorers need the package {error.name!r}: pip install 'mlkd[notebooks]'.") from error

__all__ = ["CamExplorer", "LabelGraphExplorer", "LabelPairInspector", "RetrievalExplorer", "TrainingMonitor"]
