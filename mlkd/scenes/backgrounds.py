"""The backgrounds, with clutter that belongs to no class."""

from __future__ import annotations

from mlkd.scenes.drawing import GLASS, PAINTS, WHITE, Color, Pen, Rng, mix, shade

SKIES: tuple[tuple[Color, Color], ...] = (
    ((112, 178, 226), (206, 230, 240)), ((86, 140, 196), (240, 220, 190)), ((232, 150, 110), (250, 214, 160)),
    ((70, 78, 124), (214, 150, 150)), ((170, 178, 188), (216, 220, 222)), ((142, 190, 206), (236, 240, 226)),
)  # fmt: skip
WALLS: tuple[Color, ...] = (
    (228, 214, 190), (190, 206, 196), (176, 196, 214), (232, 196, 178), (214, 214, 218), (150, 166, 168),
    (238, 222, 168), (168, 150, 170), (112, 128, 136), (206, 178, 150),
)  # fmt: skip
WOODS: tuple[Color, ...] = (
    (186, 136, 90), (150, 104, 70), (214, 176, 128), (112, 78, 60), (226, 214, 196), (96, 92, 92),
    (178, 162, 148),
)  # fmt: skip
GREENS: tuple[Color, ...] = ((122, 166, 84), (96, 140, 80), (160, 176, 92), (74, 120, 88), (176, 160, 96))


def _frames(pen: Pen, rng: Rng, top: float, bottom: float) -> None:
    """Posters, windows and shelves on a wall."""
    for _ in range(rng.randint(1, 4)):
        x, y, w, h = (
            rng.uniform(-0.05, 0.85),
            rng.uniform(top, bottom - 0.2),
            rng.uniform(0.1, 0.3),
            rng.uniform(0.1, 0.26),
        )
        kind = rng.randint(0, 3)
        if kind == 0:  # a window
            pen.box(x, y, x + w, y + 1.2 * h, WHITE)
            top_sky, low_sky = rng.choice(SKIES)
            pen.box(
                x + 0.015,
                y + 0.015,
                x + w - 0.015,
                y + 1.2 * h - 0.015,
                mix(top_sky, low_sky, 0.5),
                lit=False,
                edge=False,
            )
            pen.box(x + w / 2 - 0.006, y, x + w / 2 + 0.006, y + 1.2 * h, WHITE, lit=False, edge=False)
        elif kind == 1:  # a shelf with boxes
            pen.box(x, y + h, x + w + 0.1, y + h + 0.025, rng.choice(WOODS))
            at = x + 0.01
            while at < x + w:
                wide, high = rng.uniform(0.02, 0.06), rng.uniform(0.05, 0.13)
                pen.box(at, y + h - high, at + wide, y + h, rng.paint())
                at += wide + rng.uniform(0.0, 0.03)
        else:  # a framed image of colored shapes
            pen.box(x, y, x + w, y + h, rng.paint())
            pen.box(
                x + 0.015, y + 0.015, x + w - 0.015, y + h - 0.015, rng.jitter(rng.choice(WALLS)), lit=False, edge=False
            )
            for _ in range(rng.randint(1, 3)):
                pen.ellipse(
                    x + w * rng.uniform(0.3, 0.7),
                    y + h * rng.uniform(0.3, 0.7),
                    w * rng.uniform(0.1, 0.25),
                    h * rng.uniform(0.1, 0.25),
                    rng.paint(),
                    lit=False,
                    edge=False,
                )


def _wall(pen: Pen, rng: Rng, floor: float) -> None:
    """A papered, tiled, boarded or plain wall above a floor."""
    wall = rng.jitter(rng.choice(WALLS))
    pen.fade(0, floor, shade(wall, 1.06), shade(wall, 0.9))
    line, kind = shade(wall, rng.choice([0.86, 0.92, 1.08])), rng.randint(0, 3)
    if kind == 0:  # tiles
        step = rng.uniform(0.07, 0.14)
        for k in range(int(1 / step) + 1):
            pen.box(k * step, 0, k * step + 0.008, floor, line, lit=False, edge=False)
            if k * step < floor:
                pen.box(0, k * step, 1, k * step + 0.008, line, lit=False, edge=False)
    elif kind == 1:  # stripes
        step = rng.uniform(0.06, 0.16)
        for k in range(int(1 / step) + 1):
            pen.box(k * step, 0, (k + 0.5) * step, floor, line, lit=False, edge=False)
    elif kind == 2:  # dots
        for k in range(40):
            pen.dot((k % 8 + 0.5 * (k // 8 % 2)) / 8, (k // 8 + 0.5) * floor / 5, 0.012, line)
    tone = rng.jitter(rng.choice(WOODS))
    pen.fade(floor, 1, shade(tone, 0.85), tone)
    pen.box(0, floor - 0.02, 1, floor, shade(wall, 0.75), lit=False, edge=False)
    for k in range(-4, 9):
        pen.flat(
            [(k / 5, floor), (k / 5 + 0.006, floor), (1.8 * k / 5 - 0.4, 1), (1.8 * k / 5 - 0.41, 1)], shade(tone, 0.75)
        )


def _lamp(pen: Pen, rng: Rng, x: float, y: float) -> None:
    """A standing lamp with its base at (x, y)."""
    pen.line([(x, y), (x, y - 0.3)], 0.012, (70, 66, 70))
    pen.polygon([(x - 0.04, y - 0.42), (x + 0.04, y - 0.42), (x + 0.08, y - 0.28), (x - 0.08, y - 0.28)], rng.paint())


def _pot(pen: Pen, rng: Rng, x: float, y: float, size: float) -> None:
    """A plant in a pot."""
    leaf = rng.jitter(rng.choice(GREENS))
    for k in range(5):
        pen.line([(x, y - 0.4 * size), (x + (k - 2) * 0.2 * size, y - size * rng.uniform(0.7, 1.0))], 0.14 * size, leaf)
    pen.polygon(
        [
            (x - 0.22 * size, y - 0.4 * size),
            (x + 0.22 * size, y - 0.4 * size),
            (x + 0.15 * size, y),
            (x - 0.15 * size, y),
        ],
        rng.paint(),
    )


def _clutter(pen: Pen, rng: Rng, y1: float, y2: float, count: int) -> None:
    """Stones, boxes and blocks on the ground."""
    for _ in range(count):
        x, y, s = rng.uniform(0, 1), rng.uniform(y1, y2), rng.uniform(0.02, 0.08)
        kind = rng.randint(0, 3)
        color = rng.paint()
        if kind == 0:
            pen.box(x, y - s, x + s * rng.uniform(0.7, 1.8), y, color)
        elif kind == 1:
            pen.ellipse(x, y - 0.5 * s, s, 0.6 * s, mix(color, (140, 136, 130), 0.7))
        elif kind == 2:
            pen.dot(x, y - s, 0.8 * s, color)
        else:
            pen.polygon([(x - s, y), (x, y - 1.5 * s), (x + s, y)], color)


def room(pen: Pen, rng: Rng) -> None:
    """A wall with frames, a floor, perhaps a lamp and a plant."""
    floor = rng.uniform(0.55, 0.68)
    _wall(pen, rng, floor)
    _frames(pen, rng, 0.0, floor)
    if rng.bernoulli(0.4):
        _lamp(pen, rng, rng.uniform(0, 1), rng.uniform(floor, 0.75))
    if rng.bernoulli(0.4):
        _pot(pen, rng, rng.uniform(0, 1), rng.uniform(floor, 0.75), rng.uniform(0.2, 0.4))


def living(pen: Pen, rng: Rng) -> None:
    """A room with a sofa and a rug."""
    room(pen, rng)
    pen.ellipse(0.5, 0.86, rng.uniform(0.3, 0.6), 0.14, rng.paint(), lit=False)
    if rng.bernoulli(0.6):
        x, y, cloth = rng.uniform(-0.2, 0.7), rng.uniform(0.68, 0.76), rng.paint()
        pen.box(x, y - 0.24, x + 0.5, y - 0.04, cloth)
        pen.box(x - 0.05, y - 0.16, x + 0.05, y, cloth)
        pen.box(x + 0.45, y - 0.16, x + 0.55, y, cloth)
        pen.box(x + 0.05, y - 0.1, x + 0.45, y, shade(cloth, 1.1))
        pen.box(x + 0.1, y - 0.18, x + 0.2, y - 0.09, rng.paint())


def _sky(pen: Pen, rng: Rng, horizon: float) -> None:
    """A sky at some time of day, with clouds and perhaps the sun."""
    top, low = rng.choice(SKIES)
    pen.fade(0, horizon, rng.jitter(top), rng.jitter(low))
    if rng.bernoulli(0.4):
        pen.dot(
            rng.uniform(0.1, 0.9), rng.uniform(0.05, horizon), rng.uniform(0.03, 0.07), mix(low, (255, 244, 200), 0.7)
        )
    for _ in range(rng.randint(0, 3)):
        x, y, s = rng.uniform(0, 1), rng.uniform(0.02, 0.7 * horizon), rng.uniform(0.04, 0.1)
        for k in (-1, 0, 1):
            pen.ellipse(
                x + 0.8 * s * k, y, s, 0.45 * s + 0.2 * s * (k == 0), mix(low, WHITE, 0.6), lit=False, edge=False
            )


def _tree(pen: Pen, rng: Rng, x: float, y: float, size: float) -> None:
    """A round or pointed tree with the base of its trunk at (x, y)."""
    leaf = rng.jitter(rng.choice([*GREENS, (206, 140, 70)]))
    pen.box(x - 0.06 * size, y - 0.5 * size, x + 0.06 * size, y, (112, 84, 64))
    if rng.bernoulli(0.3):
        for k in range(3):
            pen.polygon(
                [
                    (x, y - size),
                    (x + 0.3 * size, y - (0.6 - 0.2 * k) * size),
                    (x - 0.3 * size, y - (0.6 - 0.2 * k) * size),
                ],
                leaf,
            )
    else:
        for dx, dy in ((-0.2, 0.55), (0.2, 0.6), (0.0, 0.78)):
            pen.disc(x + dx * size, y - dy * size, rng.uniform(0.2, 0.28) * size, leaf)


def _bush(pen: Pen, rng: Rng, x: float, y: float, size: float) -> None:
    leaf = rng.jitter(rng.choice(GREENS))
    for dx in (-0.5, 0.5, 0.0):
        pen.disc(x + dx * size, y - 0.3 * size, rng.uniform(0.35, 0.55) * size, leaf)


def _tufts(pen: Pen, rng: Rng, top: float, ground: Color, count: int) -> None:
    """Blades and specks, the texture of the ground."""
    for _ in range(count):
        x, y = rng.uniform(0, 1), rng.uniform(top, 1)
        s, tone = 0.012 + 0.04 * (y - top), shade(ground, rng.choice([0.8, 0.88, 1.12]))
        pen.flat([(x - s, y), (x - 0.3 * s, y - s), (x, y - 0.2 * s), (x + 0.6 * s, y - 1.1 * s), (x + s, y)], tone)


def street(pen: Pen, rng: Rng) -> None:
    """Houses with windows, a pavement, a road with markings, lamp posts and trees."""
    _sky(pen, rng, 0.6)
    x = rng.uniform(-0.2, 0.0)
    while x < 1:
        wide, top, house = (
            rng.uniform(0.16, 0.36),
            rng.uniform(0.02, 0.36),
            rng.jitter(rng.choice([*WALLS, *PAINTS[:4]])),
        )
        pen.box(x, top, x + wide, 0.62, house)
        pane = rng.choice([GLASS, (70, 84, 100), (244, 220, 150)])
        columns, rows = rng.randint(2, 4), rng.randint(2, 4)
        for k in range(columns * rows):
            px = x + wide * (k % columns + 0.25) / columns
            py = top + 0.04 + (0.56 - top) * (k // columns) / rows
            pen.box(px, py, px + 0.5 * wide / columns, py + 0.3 / rows * (0.62 - top) * 2, pane, lit=False)
        x += wide
    road = rng.jitter((112, 112, 118))
    pen.fade(0.6, 0.7, shade(road, 1.45), shade(road, 1.35))
    pen.fade(0.68, 1.0, shade(road, 0.9), road)
    for k in range(6):
        x = 0.2 * k + rng.uniform(-0.03, 0.03)
        pen.flat([(x, 0.83), (x + 0.1, 0.83), (x + 0.11, 0.85), (x, 0.85)], (226, 222, 206))
    for _ in range(rng.randint(0, 3)):
        x = rng.uniform(0, 1)
        if rng.bernoulli(0.5):
            _tree(pen, rng, x, 0.66, rng.uniform(0.25, 0.5))
        else:
            pen.line([(x, 0.66), (x, 0.2), (x + 0.07, 0.18)], 0.014, (76, 80, 86))
            pen.ellipse(x + 0.08, 0.2, 0.04, 0.02, (250, 236, 180))
    _clutter(pen, rng, 0.66, 0.76, rng.randint(0, 3))


def harbor(pen: Pen, rng: Rng) -> None:
    """Sea with waves up to the horizon, hills or a lighthouse, a quay of planks in front."""
    _sky(pen, rng, 0.4)
    sea = rng.jitter(rng.choice([(72, 132, 170), (96, 158, 170), (84, 108, 140), (120, 140, 150)]))
    if rng.bernoulli(0.5):
        pen.ellipse(
            rng.uniform(0, 1),
            0.42,
            rng.uniform(0.2, 0.5),
            rng.uniform(0.06, 0.2),
            mix(sea, (120, 140, 110), 0.6),
            lit=False,
            edge=False,
        )
    if rng.bernoulli(0.3):
        x = rng.uniform(0.1, 0.9)
        pen.polygon([(x - 0.03, 0.15), (x + 0.03, 0.15), (x + 0.05, 0.42), (x - 0.05, 0.42)], rng.paint())
        pen.box(x - 0.04, 0.1, x + 0.04, 0.15, rng.paint())
    pen.fade(0.4, 1, mix(sea, WHITE, 0.25), shade(sea, 0.9))
    for _ in range(36):
        x, y = rng.uniform(0, 1), rng.uniform(0.42, 0.85)
        s = 0.03 + 0.08 * (y - 0.4)
        pen.flat([(x - s, y), (x, y - 0.2 * s), (x + s, y), (x, y + 0.1 * s)], mix(sea, WHITE, rng.uniform(0.1, 0.5)))
    wood = rng.jitter(rng.choice(WOODS))
    pen.fade(0.8, 1, shade(wood, 1.05), shade(wood, 0.85))
    for k in range(11):
        pen.flat(
            [(k / 10, 0.8), (k / 10 + 0.008, 0.8), (1.3 * k / 10 - 0.14, 1), (1.3 * k / 10 - 0.15, 1)],
            shade(wood, 0.65),
        )
    for _ in range(rng.randint(0, 3)):
        x = rng.uniform(0, 1)
        pen.box(x, 0.72, x + 0.04, 0.86, shade(wood, 0.8))
    _clutter(pen, rng, 0.84, 0.98, rng.randint(0, 3))


def _fields(pen: Pen, rng: Rng) -> None:
    """Sky, hills and grass."""
    _sky(pen, rng, 0.55)
    grass = rng.jitter(rng.choice(GREENS))
    for k in range(rng.randint(1, 3)):
        hill = mix(grass, (150, 170, 190), 0.5 - 0.2 * k)
        pen.ellipse(
            rng.uniform(0, 1), 0.58, rng.uniform(0.3, 0.6), rng.uniform(0.08, 0.22), hill, lit=False, edge=False
        )
    pen.fade(0.5, 1, mix(grass, WHITE, 0.2), shade(grass, 0.9))
    _tufts(pen, rng, 0.52, grass, 50)


def meadow(pen: Pen, rng: Rng) -> None:
    """Grass with flowers, a fence, a barn, bushes and stones."""
    _fields(pen, rng)
    if rng.bernoulli(0.35):
        x, barn = rng.uniform(0, 0.8), rng.paint()
        pen.box(x, 0.38, x + 0.2, 0.54, barn)
        pen.polygon([(x - 0.03, 0.39), (x + 0.1, 0.28), (x + 0.23, 0.39)], shade(barn, 0.7))
    if rng.bernoulli(0.5):
        y, post = rng.uniform(0.54, 0.64), rng.jitter(rng.choice(WOODS))
        for k in range(9):
            pen.box(k / 8, y - 0.1, k / 8 + 0.02, y, post, lit=False)
        for dy in (0.08, 0.04):
            pen.box(0, y - dy, 1, y - dy + 0.016, post, lit=False)
    for _ in range(rng.randint(0, 2)):
        _bush(pen, rng, rng.uniform(0, 1), rng.uniform(0.55, 0.7), rng.uniform(0.08, 0.18))
    for _ in range(rng.randint(0, 10)):
        pen.dot(rng.uniform(0, 1), rng.uniform(0.6, 1), 0.012, rng.paint())
    _clutter(pen, rng, 0.6, 0.95, rng.randint(0, 2))


def park(pen: Pen, rng: Rng) -> None:
    """Grass with a winding path, trees, bushes, a bench."""
    _fields(pen, rng)
    x = rng.uniform(0.2, 0.8)
    sand = rng.jitter((214, 196, 160))
    pen.flat(
        [(x - 0.03, 0.52), (x + 0.03, 0.52), (x + 0.1, 0.7), (1.0 - 0.4 * x, 1), (0.3 - 0.4 * x, 1), (x - 0.08, 0.7)],
        sand,
    )
    for _ in range(rng.randint(2, 4)):
        _tree(pen, rng, rng.uniform(0, 1), rng.uniform(0.54, 0.66), rng.uniform(0.3, 0.6))
    for _ in range(rng.randint(0, 2)):
        _bush(pen, rng, rng.uniform(0, 1), rng.uniform(0.55, 0.7), rng.uniform(0.06, 0.14))
    if rng.bernoulli(0.4):
        x, y, wood = rng.uniform(0, 0.75), rng.uniform(0.62, 0.72), rng.jitter(rng.choice(WOODS))
        for dy in (0.14, 0.1, 0.05):
            pen.box(x, y - dy, x + 0.26, y - dy + 0.028, wood)
        for dx in (0.02, 0.22):
            pen.box(x + dx, y - 0.03, x + dx + 0.02, y + 0.02, shade(wood, 0.6))


def table(pen: Pen, rng: Rng, edge: float) -> None:
    """A table top from its back edge to the bottom of the image, with grain, a cloth or papers."""
    wood = rng.jitter(rng.choice([*WOODS, *WALLS]))
    pen.box(-0.1, edge, 1.1, 1.1, wood, lit=False)
    pen.fade(edge, 1, mix(wood, WHITE, 0.12), shade(wood, 0.88))
    for _ in range(10):
        y, x = rng.uniform(edge + 0.02, 1), rng.uniform(-0.3, 0.9)
        pen.flat(
            [(x, y), (x + 0.3, y - 0.004), (x + 0.5, y + 0.004), (x + 0.3, y + 0.008)],
            shade(wood, rng.choice([0.86, 1.08])),
        )
    if rng.bernoulli(0.4):
        x, y, cloth = rng.uniform(0, 0.7), rng.uniform(edge + 0.04, 0.8), rng.paint()
        w, h, lean = rng.uniform(0.14, 0.4), rng.uniform(0.06, 0.2), rng.uniform(-0.1, 0.1)
        pen.polygon([(x, y), (x + w, y), (x + w + lean, y + h), (x + lean, y + h)], cloth, lit=False)
    _clutter(pen, rng, edge + 0.05, 0.98, rng.randint(0, 3))
