"""The base class of the explorers: a figure and a caption that follow the values of traits."""

from __future__ import annotations

import gc
import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from html import escape
from typing import Any, ClassVar

import ipywidgets
from IPython.core.getipython import get_ipython
from matplotlib.figure import Figure
from matplotlib.transforms import BboxTransform
from traitlets import HasTraits, link

from mlkd.notebook.widgets.clickable_image import ClickableImage
from mlkd.plots.style import escape_math


class Explorer(HasTraits):
    """An interactive figure. Traits hold the state; `figure` and `caption_lines` draw it; controls change the traits.

    Traits can be set in Python too (`explorer.k = 5`); controls and figure follow. If a state cannot be drawn, the
    explorer shows the error below the controls and keeps the last figure.

    Widgets are created when the explorer is displayed by a client that supports them. Otherwise a notebook shows
    `static_figure()`, and its file contains no widgets.
    """

    css_class: ClassVar[str]
    """CSS class of the outermost box."""
    click_hint: ClassVar[str] = ""
    """The effect of a click on the figure."""

    def figure(self) -> Figure:
        """The figure of the current state."""
        raise NotImplementedError

    def caption_lines(self) -> list[str]:
        """The lines below the figure, as plain text."""
        return []

    def create_controls(self) -> dict[str, ipywidgets.DOMWidget]:
        """A control for each trait that the user can change, by the trait's name."""
        raise NotImplementedError

    def extra_controls(self) -> list[ipywidgets.DOMWidget]:
        """More controls, shown below the figure."""
        return []

    def on_click(self, panel: int, x: float, y: float) -> None:
        """Called after a click on the figure, with the index of the axes and the point in data coordinates."""

    def static_figure(self) -> Figure:
        """The current state as one figure, with the caption below."""
        figure = self.figure()
        width, height = figure.get_size_inches()
        lines = [line for text in self.caption_lines() for line in textwrap.wrap(text, int(16 * width))]
        if lines:
            figure.set_size_inches(width, height + 0.15 * len(lines) + 0.1)
            figure.supxlabel("\n".join(map(escape_math, lines)), fontsize=8, x=0.01, ha="left", ma="left")
        return figure

    @cached_property
    def controls(self) -> dict[str, ipywidgets.DOMWidget]:
        """The controls, linked to the traits of the same names."""
        controls = self.create_controls()
        for name, control in controls.items():
            link((self, name), (control, "value"))
        return controls

    @cached_property
    def box(self) -> ipywidgets.VBox:
        """The explorer as one widget."""
        self._image = ClickableImage(hint=self.click_hint, layout={"max_width": "100%", "align_self": "flex-start"})
        self._image.on_msg(self._handle_click)
        self._caption, self._error = ipywidgets.HTML(), ipywidgets.HTML()
        self._drawn_state: dict[str, Any] | None = None
        controls = ipywidgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        extra_controls = self.extra_controls()
        self.redraw()
        self.observe(self.redraw)
        for widget, name in ((self._image, "image"), (self._caption, "caption"), (self._error, "error")):
            widget.add_class(f"mlkd-{name}")
        box = ipywidgets.VBox([controls, self._error, self._image, *extra_controls, self._caption])
        return box.add_class(self.css_class)

    def redraw(self, _: object = None) -> None:
        """Draws figure and caption again if the state has changed."""
        state = self.trait_values()
        if state == self._drawn_state:
            return
        self._drawn_state = state
        try:
            with _collect_young_garbage():
                self._draw()
            self._error.value = ""
        except (ValueError, OSError, ImportError) as error:
            self.show_error(error)

    def _draw(self) -> None:
        lines = [f'<p style="margin: 0; line-height: 1.4">{escape(text)}</p>' for text in self.caption_lines()]
        self._caption.value = "".join(lines)
        figure = self.figure()
        self._image.value = to_png(figure)
        self._panels = [(ax.get_position().frozen(), ax.viewLim.frozen()) for ax in figure.axes]

    def _handle_click(self, _: object, message: dict[str, float], __: object) -> None:
        point = message["x"], 1 - message["y"]  # figure coordinates start at the lower left corner
        for panel, (box, limits) in enumerate(self._panels):
            if box.contains(*point):
                self.on_click(panel, *BboxTransform(box, limits).transform(point))

    def show_error(self, error: Exception) -> None:
        """Shows an error message below the controls."""
        self._error.value = f'<p role="alert" style="margin: 0; color: #a4262c">{escape(str(error))}</p>'

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        if supports_widgets():
            return self.box._repr_mimebundle_(**settings)
        shell: Any = get_ipython()
        return shell.display_formatter.format(self.static_figure()) if shell else {"text/plain": repr(self)}


@contextmanager
def _collect_young_garbage() -> Iterator[None]:
    """Collects the objects of a figure, about 100,000, while they are in a young generation: a few milliseconds.

    Otherwise about every twentieth figure triggers a full collection, which takes a second with torch loaded.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(1)
        if enabled:
            gc.enable()


def supports_widgets() -> bool:
    """Whether the client that executes the current cell can show widgets, as JupyterLab can.

    nbclient, which executes notebooks for papermill and nbconvert, sends its requests with `allow_stdin` false;
    JupyterLab sends them with `allow_stdin` true. This also works for kernels that were started elsewhere.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file with 100 dpi."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, pil_kwargs={"compress_level": 1})
    return file.getvalue()


def menu(description: str, options: Any) -> ipywidgets.Dropdown:
    """A drop-down menu."""
    return _control(ipywidgets.Dropdown, description, "auto", options=options)


def slider(kind: Any, description: str, low: float, high: float, step: float) -> Any:
    """A slider that sets its value when it is released."""
    settings = {"min": low, "max": high, "step": step, "value": low, "continuous_update": False}
    return _control(kind, description, "280px", **settings)


def index_field(description: str, high: int) -> ipywidgets.BoundedIntText:
    """A field for an integer from 0 to `high`."""
    return _control(ipywidgets.BoundedIntText, description, "140px", max=high)


def _control(kind: Any, description: str, width: str, **settings: Any) -> Any:
    style, layout = {"description_width": "initial"}, {"width": width, "max_width": "100%"}
    return kind(description=description, style=style, layout=layout, **settings)
