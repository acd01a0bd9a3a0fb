"""An image in a notebook that reports clicks."""

from __future__ import annotations

from pathlib import Path

import anywidget
from traitlets import Bytes, Unicode


class ClickableImage(anywidget.AnyWidget):
    """A PNG image. A click sends `{"x": ..., "y": ...}` to `on_msg`: fractions of the width and of the height.

    Both are in [0, 1], from the upper left corner. `hint` is the tooltip that describes the effect of a click.
    """

    _esm = Path(__file__).with_name("clickable_image.js")
    value, hint = Bytes().tag(sync=True), Unicode().tag(sync=True)
