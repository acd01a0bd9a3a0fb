"""Drawing primitives: a random number generator that is the same on every machine, colors, and a pen."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in canvas pixels; x2 and y2 lie just outside
T = TypeVar("T")

PAINTS: tuple[Color, ...] = (
    (214, 69, 65), (232, 126, 60), (241, 183, 73), (246, 224, 150), (122, 173, 94), (58, 128, 99),
    (72, 169, 166), (97, 160, 214), (49, 92, 158), (44, 52, 84), (130, 98, 168), (219, 132, 167),
    (240, 236, 226), (168, 172, 178), (96, 100, 108), (52, 50, 54), (150, 104, 70), (205, 164, 120),
)  # fmt: skip
SKINS: tuple[Color, ...] = ((250, 214, 184), (232, 184, 146), (198, 140, 100), (141, 92, 62), (98, 64, 48))
FURS: tuple[Color, ...] = (
    (240, 234, 222), (222, 190, 142), (206, 138, 74), (160, 102, 62), (110, 74, 54), (70, 58, 54),
    (46, 44, 50), (150, 146, 146), (108, 110, 120),
)  # fmt: skip
BLACK, WHITE, GLASS = (40, 38, 44), (248, 246, 240), (176, 210, 226)

_CIRCLE = [(math.cos(math.tau * k / 20), math.sin(math.tau * k / 20)) for k in range(20)]


class Rng:
    """Random choices from `random.Random(key)`, whose `random()` gives the same numbers in every version of Python."""

    def __init__(self, key: str):
        source = random.Random(key)
        self.random = source.random
        self.randbytes = source.randbytes

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.random()

    def randint(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int((high - low + 1) * self.random())

    def bernoulli(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, each with the same probability."""
        return options[int(len(options) * self.random())]

    def weighted_choice(self, weights: Mapping[T, float]) -> T:
        """One of the keys, with probability proportional to its weight."""
        remaining = self.random() * sum(weights.values())
        for option, weight in weights.items():
            remaining -= weight
            if remaining < 0:
                return option
        return option

    def jitter(self, color: Color, spread: int = 14) -> Color:
        """A similar color: lightness and each channel change by up to `spread`."""
        light = self.uniform(-spread, spread)
        red, green, blue = (min(255, max(0, round(c + light + self.uniform(-spread, spread) / 2))) for c in color)
        return red, green, blue

    def paint(self) -> Color:
        """The color of a man-made object: one palette for all such classes, so that color does not identify a class."""
        return self.jitter(self.choice(PAINTS))

    def fur(self) -> Color:
        """The color of an animal."""
        return self.jitter(self.choice(FURS))


def shade(color: Color, factor: float) -> Color:
    """A darker (factor < 1) or lighter (factor > 1) color."""
    red, green, blue = (min(255, round(c * factor)) for c in color)
    return red, green, blue


def mix(first: Color, second: Color, amount: float) -> Color:
    """Linear interpolation between two colors: the first at amount 0, the second at 1."""
    red, green, blue = (round(a + (b - a) * amount) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Pen:
    """Draws in the unit square of one object, on the canvas and on the map of visible objects.

    `set_box` maps the unit square, (0, 0) top left and (1, 1) bottom right, to a box of the canvas. Coordinates
    are rounded to whole canvas pixels before anything is drawn, so an image is the same on every machine.

    Args:
        canvas: RGB image.
        ids: image of the same size, mode "L": the number of the object visible at each pixel, 0 for none.
        light: side the light comes from, -1 left or 1 right.
        ink: width of the outlines in canvas pixels, 0 for none.
    """

    def __init__(self, canvas: Image.Image, ids: Image.Image, light: int, ink: int):
        self.canvas_draw, self.ids_draw = ImageDraw.Draw(canvas), ImageDraw.Draw(ids)
        self.canvas, self.ids, self.light, self.ink = canvas, ids, light, ink
        self.set_box((0, 0, canvas.width, canvas.height))

    def set_box(
        self, box: tuple[float, float, float, float], number: int = 0, *, flip: bool = False, angle: float = 0.0
    ) -> None:
        """Maps the unit square to `box` (x1, y1, x2, y2 in canvas pixels) for the object `number`.

        Args:
            flip: flip horizontally.
            angle: rotation in radians, clockwise about the middle of the base.
        """
        x1, y1, x2, y2 = box
        self.width, self.height, self.number = x2 - x1, y2 - y1, number
        side, cos, sin = (-1 if flip else 1), math.cos(angle), math.sin(angle)
        self._x = (x1 + x2) / 2, side * self.width * cos, -self.height * sin
        self._y = y2, side * self.width * sin, self.height * cos
        self.extent = (1 << 20, 1 << 20, -1 << 20, -1 << 20)

    def visible(self, number: int, extent: Box) -> tuple[int, Box | None]:
        """The number of canvas pixels within `extent` where the object `number` is visible, and their bounding box."""
        x1, y1, x2, y2 = (min(self.canvas.width, max(0, edge)) for edge in extent)
        if x1 >= x2 or y1 >= y2:
            return 0, None
        mask = self.ids.crop((x1, y1, x2, y2)).point([0] * number + [255] + [0] * (255 - number))
        inner = mask.getbbox()
        box = inner and (x1 + inner[0], y1 + inner[1], x1 + inner[2], y1 + inner[3])
        return mask.histogram()[255], box

    def _pixels(self, points: Sequence[Point], margin: int = 0) -> list[tuple[int, int]]:
        (ox, ax, bx), (oy, ay, by) = self._x, self._y
        xy = [(round(ox + ax * (x - 0.5) + bx * (y - 1)), round(oy + ay * (x - 0.5) + by * (y - 1))) for x, y in points]
        if self.number:
            xs, ys = [x for x, _ in xy], [y for _, y in xy]
            x1, y1, x2, y2 = self.extent
            self.extent = (
                min(x1, min(xs) - margin),
                min(y1, min(ys) - margin),
                max(x2, max(xs) + margin + 1),
                max(y2, max(ys) + margin + 1),
            )
        return xy

    def polygon(self, points: Sequence[Point], color: Color, *, lit: bool = True, edge: bool = True) -> None:
        """A filled polygon; `lit` adds a shaded side, `edge` an outline."""
        xy = self._pixels(points)
        self.ids_draw.polygon(xy, self.number)
        if lit:
            self.canvas_draw.polygon(xy, shade(color, 0.8))
            cx, cy = sum(x for x, _ in xy) / len(xy), sum(y for _, y in xy) / len(xy)
            cx += 0.5 * self.light * (max(x for x, _ in xy) - cx)
            cy -= 0.5 * (max(y for _, y in xy) - cy)
            xy_lit = [(round(cx + 0.84 * (x - cx)), round(cy + 0.84 * (y - cy))) for x, y in xy]
            self.canvas_draw.polygon(xy_lit, color)
        else:
            self.canvas_draw.polygon(xy, color)
        if edge and self.ink:
            self.canvas_draw.line([*xy, xy[0]], shade(color, 0.45), self.ink)

    def flat(self, points: Sequence[Point], color: Color) -> None:
        """A filled polygon without shaded side and outline, for details."""
        self.polygon(points, color, lit=False, edge=False)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        color: Color,
        *,
        arc: tuple[int, int] = (0, 20),
        lit: bool = True,
        edge: bool = True,
    ) -> None:
        """An ellipse about (x, y), or the sector `arc` of it in twentieths, clockwise from the right."""
        points = [(x + rx * _CIRCLE[k % 20][0], y + ry * _CIRCLE[k % 20][1]) for k in range(*arc)]
        if arc != (0, 20):
            points.append((x + rx * _CIRCLE[arc[1] % 20][0], y + ry * _CIRCLE[arc[1] % 20][1]))
        self.polygon(points, color, lit=lit, edge=edge)

    def disc(self, x: float, y: float, r: float, color: Color, *, lit: bool = True, edge: bool = True) -> None:
        """A circle about (x, y); the radius is a fraction of the height, whatever the aspect ratio."""
        self.ellipse(x, y, r * self.height / self.width, r, color, lit=lit, edge=edge)

    def dot(self, x: float, y: float, r: float, color: Color) -> None:
        """A circle without shaded side and outline."""
        self.disc(x, y, r, color, lit=False, edge=False)

    def box(
        self, x1: float, y1: float, x2: float, y2: float, color: Color, *, lit: bool = True, edge: bool = True
    ) -> None:
        """An upright rectangle."""
        self.polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], color, lit=lit, edge=edge)

    def line(self, points: Sequence[Point], width: float, color: Color, *, edge: bool = True) -> None:
        """A thick line with round ends and joints; the width is a fraction of the height."""
        wide = max(1, round(width * self.height))
        xy = self._pixels(points, wide // 2)
        if edge and self.ink:
            self._stroke(xy, wide + 2 * self.ink, shade(color, 0.45))
        self._stroke(xy, wide, color)

    def _stroke(self, xy: list[tuple[int, int]], wide: int, color: Color) -> None:
        self.canvas_draw.line(xy, color, wide)
        self.ids_draw.line(xy, self.number, wide)
        if wide > 3:
            r = (wide - 1) // 2
            for x, y in xy:
                self.canvas_draw.ellipse((x - r, y - r, x + r, y + r), color)
                self.ids_draw.ellipse((x - r, y - r, x + r, y + r), self.number)

    def ring(self, x: float, y: float, r: float, width: float, color: Color) -> None:
        """A circle's outline; radius and width are fractions of the height."""
        rx = r * self.height / self.width
        xy = self._pixels([(x + rx * c, y + r * s) for c, s in [*_CIRCLE, _CIRCLE[0], _CIRCLE[1]]])
        wide = max(2, round(width * self.height))
        self.canvas_draw.line(xy, color, wide)
        self.ids_draw.line(xy, self.number, wide)

    def fade(self, y1: float, y2: float, top: Color, bottom: Color) -> None:
        """Fills the canvas between two heights (fractions of the canvas) with a vertical gradient."""
        first, last = round(y1 * self.canvas.height), round(y2 * self.canvas.height)
        column = Image.new("RGB", (1, 8))
        for k in range(8):
            column.putpixel((0, k), mix(top, bottom, k / 7))
        if last > first:
            column = column.resize((1, last - first), Image.Resampling.BILINEAR)
            self.canvas.paste(column.resize((self.canvas.width, last - first), Image.Resampling.NEAREST), (0, first))

    def shadow(self) -> None:
        """A dark, translucent ellipse at the base of the unit square; it does not hide other objects."""
        wide, high = max(2, round(0.9 * self.width)), max(2, round(0.1 * self.height + 0.04 * self.width))
        mask = Image.new("L", (wide, high))
        ImageDraw.Draw(mask).ellipse((0, 0, wide - 1, high - 1), 70)
        x, y = round(self._x[0]) - wide // 2, round(self._y[0]) - round(0.6 * high)
        self.canvas.paste((20, 20, 40), (x, y), mask)
