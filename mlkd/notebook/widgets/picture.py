"""A picture in a notebook that tells where it was clicked."""

from __future__ import annotations

from pathlib import Path

import anywidget
from traitlets import Bytes, Unicode


class ClickableImage(anywidget.AnyWidget):
    """A PNG file. A click is a message `{"x": ..., "y": ...}` for `on_msg`: shares of the width and of the height.

    They are in [0, 1] and counted from the picture's left upper corner. `hint` says what a click does; without one the
    pointer stays an arrow.
    """

    _esm = Path(__file__).with_name("picture.js")
    value, hint = Bytes().tag(sync=True), Unicode().tag(sync=True)
