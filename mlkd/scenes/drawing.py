"""What every drawing is made with: dice that roll the same everywhere, colours, and a pen."""

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


class Dice:
    """Random choices made from `random.Random(key).random()` alone, which Python promises never to change."""

    def __init__(self, key: str):
        source = random.Random(key)
        self.unit = source.random
        self.bytes = source.randbytes

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int((high - low + 1) * self.unit())

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.unit() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[int(len(options) * self.unit())]

    def weighted(self, weights: Mapping[T, float]) -> T:
        """One of the keys, with probability proportional to its weight."""
        left = self.unit() * sum(weights.values())
        for option, weight in weights.items():
            left -= weight
            if left < 0:
                return option
        return option

    def near(self, color: Color, spread: int = 14) -> Color:
        """A colour like this one: lightness and each channel move by up to `spread`."""
        light = self.uniform(-spread, spread)
        red, green, blue = (min(255, max(0, round(c + light + self.uniform(-spread, spread) / 2))) for c in color)
        return red, green, blue

    def paint(self) -> Color:
        """The colour of something people make: shared by all such classes, so that it gives none away."""
        return self.near(self.pick(PAINTS))

    def fur(self) -> Color:
        """The colour of an animal."""
        return self.near(self.pick(FURS))


def shade(color: Color, factor: float) -> Color:
    """The colour darker (factor < 1) or lighter (factor > 1)."""
    red, green, blue = (min(255, round(c * factor)) for c in color)
    return red, green, blue


def mix(first: Color, second: Color, amount: float) -> Color:
    """Between two colours: the first at amount 0, the second at 1."""
    red, green, blue = (round(a + (b - a) * amount) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Pen:
    """Draws on the unit square of one object, into the picture and into the map of which object is visible.

    The unit square, (0, 0) top left and (1, 1) bottom right, is laid on the canvas by `lay`. Coordinates
    become whole canvas pixels before anything is drawn, so a picture is the same on every machine.

    Args:
        picture: RGB canvas.
        numbers: canvas of the same size, mode "L": the number of the object seen at each pixel, 0 for none.
        light: side the light comes from, -1 left or 1 right.
        ink: width of the outlines in canvas pixels, 0 for none.
    """

    def __init__(self, picture: Image.Image, numbers: Image.Image, light: int, ink: int):
        self.picture, self.numbers = ImageDraw.Draw(picture), ImageDraw.Draw(numbers)
        self.canvas, self.owners, self.light, self.ink = picture, numbers, light, ink
        self.lay((0, 0, picture.width, picture.height))

    def lay(
        self,
        box: tuple[float, float, float, float],
        number: int = 0,
        *,
        flip: bool = False,
        turn: float = 0.0,
    ) -> None:
        """Lay the unit square on `box` (x1, y1, x2, y2 in canvas pixels) for the object `number`.

        Args:
            flip: mirror it left to right.
            turn: radians, clockwise about the middle of its base.
        """
        x1, y1, x2, y2 = box
        self.width, self.height, self.number = x2 - x1, y2 - y1, number
        side, cos, sin = (-1 if flip else 1), math.cos(turn), math.sin(turn)
        self._x = (x1 + x2) / 2, side * self.width * cos, -self.height * sin
        self._y = y2, side * self.width * sin, self.height * cos
        self.extent = (1 << 20, 1 << 20, -1 << 20, -1 << 20)

    def seen(self, number: int, extent: Box) -> tuple[int, Box | None]:
        """How many canvas pixels within `extent` show the object `number`, and the box around them."""
        x1, y1, x2, y2 = (min(self.canvas.width, max(0, edge)) for edge in extent)
        if x1 >= x2 or y1 >= y2:
            return 0, None
        mask = self.owners.crop((x1, y1, x2, y2)).point([0] * number + [255] + [0] * (255 - number))
        found = mask.getbbox()
        box = found and (x1 + found[0], y1 + found[1], x1 + found[2], y1 + found[3])
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

    def shape(self, points: Sequence[Point], color: Color, *, lit: bool = True, edge: bool = True) -> None:
        """A filled polygon; `lit` gives it a shadow side, `edge` an outline."""
        xy = self._pixels(points)
        self.numbers.polygon(xy, self.number)
        if lit:
            self.picture.polygon(xy, shade(color, 0.8))
            cx, cy = sum(x for x, _ in xy) / len(xy), sum(y for _, y in xy) / len(xy)
            cx += 0.5 * self.light * (max(x for x, _ in xy) - cx)
            cy -= 0.5 * (max(y for _, y in xy) - cy)
            xy_lit = [(round(cx + 0.84 * (x - cx)), round(cy + 0.84 * (y - cy))) for x, y in xy]
            self.picture.polygon(xy_lit, color)
        else:
            self.picture.polygon(xy, color)
        if edge and self.ink:
            self.picture.line([*xy, xy[0]], shade(color, 0.45), self.ink)

    def flat(self, points: Sequence[Point], color: Color) -> None:
        """A filled polygon without shadow side and outline, for details."""
        self.shape(points, color, lit=False, edge=False)

    def oval(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        color: Color,
        *,
        part: tuple[int, int] = (0, 20),
        lit: bool = True,
        edge: bool = True,
    ) -> None:
        """An ellipse about (x, y), or its `part` in twentieths, clockwise from the right."""
        points = [(x + rx * _CIRCLE[k % 20][0], y + ry * _CIRCLE[k % 20][1]) for k in range(*part)]
        if part != (0, 20):
            points.append((x + rx * _CIRCLE[part[1] % 20][0], y + ry * _CIRCLE[part[1] % 20][1]))
        self.shape(points, color, lit=lit, edge=edge)

    def disc(self, x: float, y: float, r: float, color: Color, *, lit: bool = True, edge: bool = True) -> None:
        """A circle about (x, y); the radius is a share of the height, whatever the aspect ratio."""
        self.oval(x, y, r * self.height / self.width, r, color, lit=lit, edge=edge)

    def dot(self, x: float, y: float, r: float, color: Color) -> None:
        """A circle without shadow side and outline."""
        self.disc(x, y, r, color, lit=False, edge=False)

    def box(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        color: Color,
        *,
        lit: bool = True,
        edge: bool = True,
    ) -> None:
        """An upright rectangle."""
        self.shape([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], color, lit=lit, edge=edge)

    def limb(self, points: Sequence[Point], width: float, color: Color, *, edge: bool = True) -> None:
        """A thick line with round ends and joints; the width is a share of the height."""
        wide = max(1, round(width * self.height))
        xy = self._pixels(points, wide // 2)
        if edge and self.ink:
            self._stroke(xy, wide + 2 * self.ink, shade(color, 0.45))
        self._stroke(xy, wide, color)

    def _stroke(self, xy: list[tuple[int, int]], wide: int, color: Color) -> None:
        self.picture.line(xy, color, wide)
        self.numbers.line(xy, self.number, wide)
        if wide > 3:
            r = (wide - 1) // 2
            for x, y in xy:
                self.picture.ellipse((x - r, y - r, x + r, y + r), color)
                self.numbers.ellipse((x - r, y - r, x + r, y + r), self.number)

    def ring(self, x: float, y: float, r: float, width: float, color: Color) -> None:
        """A circle's outline; radius and width are shares of the height."""
        rx = r * self.height / self.width
        xy = self._pixels([(x + rx * c, y + r * s) for c, s in [*_CIRCLE, _CIRCLE[0], _CIRCLE[1]]])
        wide = max(2, round(width * self.height))
        self.picture.line(xy, color, wide)
        self.numbers.line(xy, self.number, wide)

    def fade(self, y1: float, y2: float, top: Color, bottom: Color) -> None:
        """Fill the canvas between two heights (shares of the canvas) with a vertical gradient."""
        first, last = round(y1 * self.canvas.height), round(y2 * self.canvas.height)
        column = Image.new("RGB", (1, 8))
        for k in range(8):
            column.putpixel((0, k), mix(top, bottom, k / 7))
        if last > first:
            column = column.resize((1, last - first), Image.Resampling.BILINEAR)
            self.canvas.paste(column.resize((self.canvas.width, last - first), Image.Resampling.NEAREST), (0, first))

    def shadow(self) -> None:
        """A soft dark ellipse at the foot of the unit square; it hides nobody."""
        wide, high = max(2, round(0.9 * self.width)), max(2, round(0.1 * self.height + 0.04 * self.width))
        mask = Image.new("L", (wide, high))
        ImageDraw.Draw(mask).ellipse((0, 0, wide - 1, high - 1), 70)
        x, y = round(self._x[0]) - wide // 2, round(self._y[0]) - round(0.6 * high)
        self.canvas.paste((20, 20, 40), (x, y), mask)
