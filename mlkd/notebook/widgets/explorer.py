"""What the explorers share: a figure and a few sentences that follow the values of traits."""

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

from mlkd.notebook.widgets.picture import ClickableImage
from mlkd.plots.style import escape_math


class Explorer(HasTraits):
    """Traits hold what is shown, `figure` and `sentences` say how; controls are linked to the traits.

    A value may be set in Python too (`explorer.k = 5`): controls and picture follow. What cannot be shown is told in a
    sentence below the controls, and the last picture stays.

    No control is made before the explorer is shown to somebody, so a notebook that runs by itself keeps no widgets.
    """

    hook: ClassVar[str]
    """CSS class of the outermost box."""
    hint: ClassVar[str] = ""
    """What a click on the picture does."""

    def figure(self) -> Figure:
        """The picture of the present values."""
        raise NotImplementedError

    def caption_lines(self) -> list[str]:
        """What is said below the picture: plain text."""
        return []

    def controls(self) -> dict[str, ipywidgets.DOMWidget]:
        """A control for each trait that can be moved, by the trait's name."""
        raise NotImplementedError

    def below(self) -> list[ipywidgets.DOMWidget]:
        """More controls, below the picture."""
        return []

    def clicked(self, panel: int, x: float, y: float) -> None:
        """A point of the picture was clicked: the number of its axes in the figure, and the place in their units."""

    def static_figure(self) -> Figure:
        """The same view as a figure: the picture, and its sentences below."""
        figure = self.figure()
        width, height = figure.get_size_inches()
        lines = [line for sentence in self.caption_lines() for line in textwrap.wrap(sentence, int(16 * width))]
        if lines:
            figure.set_size_inches(width, height + 0.15 * len(lines) + 0.1)
            figure.supxlabel("\n".join(map(escape_math, lines)), fontsize=8, x=0.01, ha="left", ma="left")
        return figure

    @cached_property
    def control(self) -> dict[str, ipywidgets.DOMWidget]:
        """The controls, by the names of the traits that they move."""
        made = self.controls()
        for name, control in made.items():
            link((self, name), (control, "value"))
        return made

    @cached_property
    def box(self) -> ipywidgets.VBox:
        """All of it as a widget."""
        self._picture = ClickableImage(hint=self.hint, layout={"max_width": "100%", "align_self": "flex-start"})
        self._picture.on_msg(self._click)
        self._said, self._error = ipywidgets.HTML(), ipywidgets.HTML()
        self._drawn: dict[str, Any] | None = None
        controls = ipywidgets.HBox(list(self.control.values()), layout={"flex_flow": "row wrap"})
        below = self.below()
        self.redraw()
        self.observe(self.redraw)
        for widget, name in ((self._picture, "picture"), (self._said, "said"), (self._error, "error")):
            widget.add_class(f"mlkd-{name}")
        box = ipywidgets.VBox([controls, self._error, self._picture, *below, self._said])
        return box.add_class(self.hook)

    def redraw(self, _: object = None) -> None:
        """Makes the picture and the sentences anew, where a value has changed since."""
        values = self.trait_values()
        if values == self._drawn:
            return
        self._drawn = values
        try:
            with _tidied_up():
                self._draw()
            self._error.value = ""
        except (ValueError, OSError, ImportError) as error:
            self.show_error(error)

    def _draw(self) -> None:
        said = [f'<p style="margin: 0; line-height: 1.4">{escape(text)}</p>' for text in self.caption_lines()]
        self._said.value = "".join(said)
        figure = self.figure()
        self._picture.value = png(figure)
        self._panels = [(ax.get_position().frozen(), ax.viewLim.frozen()) for ax in figure.axes]

    def _click(self, _: object, place: dict[str, float], __: object) -> None:
        point = place["x"], 1 - place["y"]  # a figure counts from below
        for number, (box, units) in enumerate(self._panels):
            if box.contains(*point):
                self.clicked(number, *BboxTransform(box, units).transform(point))

    def show_error(self, error: Exception) -> None:
        """Says below the controls what went wrong."""
        self._error.value = f'<p role="alert" style="margin: 0; color: #a4262c">{escape(str(error))}</p>'

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        if watched():
            return self.box._repr_mimebundle_(**settings)
        shell: Any = get_ipython()
        return shell.display_formatter.format(self.static_figure()) if shell else {"text/plain": repr(self)}


@contextmanager
def _tidied_up() -> Iterator[None]:
    """Collects the garbage of a figure, a hundred thousand objects, while it is young: a few milliseconds.

    Left alone it grows old, and about every twentieth picture waits a second while Python looks through all of torch.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(1)
        if enabled:
            gc.enable()


def watched() -> bool:
    """Whether somebody can move a control: in a kernel, and asked by a client that lets people type.

    nbclient, which executes notebooks for papermill and nbconvert, says in each request that nobody can be asked for
    input (`allow_stdin`); JupyterLab says that somebody can. It needs no variable in the environment, which a kernel
    that was started elsewhere would not see.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, 100 pixels to the inch."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, pil_kwargs={"compress_level": 1})
    return file.getvalue()


def menu(description: str, options: Any) -> ipywidgets.Dropdown:
    """A drop-down menu as wide as what it says."""
    return _named(ipywidgets.Dropdown, description, "auto", options=options)


def slider(kind: Any, description: str, low: float, high: float, step: float) -> Any:
    """A slider that tells its value when it is let go."""
    settings = {"min": low, "max": high, "step": step, "value": low, "continuous_update": False}
    return _named(kind, description, "280px", **settings)


def number(description: str, high: int) -> ipywidgets.BoundedIntText:
    """A field for a whole number from 0."""
    return _named(ipywidgets.BoundedIntText, description, "140px", max=high)


def _named(kind: Any, description: str, width: str, **settings: Any) -> Any:
    style, layout = {"description_width": "initial"}, {"width": width, "max_width": "100%"}
    return kind(description=description, style=style, layout=layout, **settings)
