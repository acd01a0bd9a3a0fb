"""Vehicles and household objects, each drawn in the unit square."""

from __future__ import annotations

from mlkd.scenes.drawing import BLACK, GLASS, WHITE, Pen, Rng, mix, shade


def _wheel(pen: Pen, x: float, y: float, r: float) -> None:
    pen.disc(x, y, r, BLACK)
    pen.dot(x, y, 0.5 * r, (176, 178, 182))


def bicycle(pen: Pen, rng: Rng) -> None:
    """Two spoked wheels, a diamond frame, a saddle, a handlebar."""
    frame, tyre = rng.paint(), rng.choice([BLACK, (110, 104, 100), (196, 180, 150)])
    r, y, thick = 0.27, 0.71, rng.uniform(0.035, 0.055)
    half = 0.5 - r * pen.height / pen.width
    back, front = (0.5 - half, y), (0.5 + half, y)
    for x, _ in (back, front):
        spoke = 0.7 * r * pen.height / pen.width
        pen.line([(x - spoke, y - 0.7 * r), (x + spoke, y + 0.7 * r)], 0.012, tyre, edge=False)
        pen.line([(x - spoke, y + 0.7 * r), (x + spoke, y - 0.7 * r)], 0.012, tyre, edge=False)
        pen.ring(x, y, r, 0.055, tyre)
    pedal, seat, bar = (0.46, 0.72), (0.38, 0.3), (0.68, 0.26)
    pen.line([back, seat, pedal, back], thick, frame, edge=False)
    pen.line([seat, bar, pedal], thick, frame, edge=False)
    pen.line([(0.66, 0.16), bar, front], thick, frame, edge=False)
    pen.line([(0.37, 0.22), seat], thick, frame, edge=False)
    pen.line([(0.31, 0.21), (0.43, 0.21)], 0.06, BLACK, edge=False)
    pen.line([(0.66, 0.16), rng.choice([(0.76, 0.14), (0.6, 0.12)])], 0.045, BLACK, edge=False)
    pen.dot(*pedal, 0.05, BLACK)
    if rng.bernoulli(0.35):
        pen.box(0.68, 0.22, 0.84, 0.4, (176, 130, 84))


def car(pen: Pen, rng: Rng) -> None:
    """A low body on two wheels with a cabin: saloon, hatchback, van or pick-up."""
    paint, glass = rng.paint(), rng.jitter(rng.choice([GLASS, (86, 104, 120), (60, 66, 76)]))
    front, back = rng.uniform(0.66, 0.82), rng.choice([0.04, 0.04, 0.16, 0.22])
    roof = rng.uniform(0.02, 0.16)
    pen.polygon(
        [(back, 0.52), (back + 0.08, roof + 0.02), (back + 0.14, roof), (front - 0.22, roof), (front, 0.48)], paint
    )
    middle = (back + front) / 2 - 0.02
    pen.polygon(
        [(back + 0.07, 0.44), (back + 0.13, roof + 0.1), (middle - 0.02, roof + 0.1), (middle - 0.02, 0.44)], glass
    )
    pen.polygon(
        [(middle + 0.02, 0.44), (middle + 0.02, roof + 0.1), (front - 0.22, roof + 0.1), (front - 0.06, 0.44)], glass
    )
    pen.polygon(
        [(0.01, 0.5), (0.06, 0.44), (front, 0.44), (0.95, 0.52), (0.99, 0.62), (0.99, 0.82), (0.02, 0.82)], paint
    )
    pen.line([(middle, 0.48), (middle, 0.78)], 0.012, shade(paint, 0.6), edge=False)
    pen.flat(
        [(middle + 0.06, 0.56), (middle + 0.12, 0.56), (middle + 0.12, 0.6), (middle + 0.06, 0.6)], shade(paint, 0.5)
    )
    pen.ellipse(0.96, 0.6, 0.03, 0.06, (250, 230, 150), lit=False, edge=False)
    pen.box(0.005, 0.54, 0.035, 0.66, (190, 50, 48), lit=False, edge=False)
    for x in (0.23, 0.77):
        _wheel(pen, x, 0.81, 0.19)


def bus(pen: Pen, rng: Rng) -> None:
    """A long tall box with a row of windows and a door; one or two decks."""
    paint, glass, band = (rng.paint(), rng.jitter(rng.choice([GLASS, (86, 104, 120), (60, 66, 76)])), rng.paint())
    decks = 2 if rng.bernoulli(0.25) else 1
    pen.polygon([(0.02, 0.06), (0.04, 0.02), (0.95, 0.02), (0.98, 0.08), (0.99, 0.86), (0.01, 0.86)], paint)
    windows, rows = rng.randint(4, 6), (0.12, 0.5) if decks == 2 else (rng.uniform(0.14, 0.2),)
    deep = 0.2 if decks == 2 else 0.34
    for top in rows:
        for k in range(windows):
            x = 0.05 + 0.76 * k / windows
            pen.box(x, top, x + 0.64 / windows, top + deep, glass, lit=False)
        pen.box(0.88, top, 0.975, top + deep + 0.02, glass, lit=False)
    if rng.bernoulli(0.7):
        y = 0.36 if decks == 2 else 0.64
        pen.box(0.012, y, 0.8, y + 0.09, band, lit=False, edge=False)
    pen.box(0.8, 0.44 if decks == 2 else 0.2, 0.865, 0.84, mix(glass, WHITE, 0.2), lit=False)
    pen.ellipse(0.97, 0.76, 0.02, 0.035, (250, 230, 150), lit=False, edge=False)
    for x in (0.2, 0.72):
        _wheel(pen, x, 0.86, 0.13)


def boat(pen: Pen, rng: Rng) -> None:
    """A hull with sails, a cabin and funnel, or oars."""
    hull, kind = rng.paint(), rng.choice(["sail", "sail", "motor", "row"])
    if kind == "sail":
        sail, second = rng.choice([WHITE, rng.paint()]), rng.choice([WHITE, rng.paint()])
        pen.line([(0.48, 0.03), (0.48, 0.74)], 0.03, (120, 88, 62))
        pen.polygon([(0.51, 0.05), (0.86, 0.64), (0.51, 0.64)], sail)
        pen.polygon([(0.44, 0.12), (0.44, 0.64), (0.16, 0.64)], second)
    elif kind == "motor":
        cabin = rng.choice([WHITE, rng.paint()])
        pen.box(0.3, 0.16, 0.4, 0.5, rng.paint())
        pen.polygon([(0.18, 0.74), (0.2, 0.42), (0.66, 0.42), (0.72, 0.74)], cabin)
        for x in (0.28, 0.42, 0.56):
            pen.dot(x, 0.57, 0.055, (70, 92, 116))
    else:
        pen.ellipse(0.48, 0.72, 0.44, 0.07, shade(hull, 0.5), lit=False)
        for x in (0.3, 0.52):
            pen.box(x, 0.68, x + 0.1, 0.74, (176, 130, 84), lit=False)
        pen.line([(0.5, 0.5), (0.3, 0.68)], 0.035, (176, 130, 84))
    pen.polygon([(0.0, 0.7), (0.5, 0.755), (1.0, 0.66), (0.92, 0.84), (0.82, 0.97), (0.14, 0.97), (0.05, 0.86)], hull)
    pen.flat([(0.01, 0.73), (0.5, 0.785), (0.985, 0.7), (0.97, 0.74), (0.5, 0.83), (0.02, 0.77)], mix(hull, WHITE, 0.6))
    if kind == "row":
        pen.line([(0.5, 0.74), (0.7, 0.97)], 0.035, (176, 130, 84))
        pen.ellipse(0.72, 0.96, 0.06, 0.05, (176, 130, 84))


def traffic_light(pen: Pen, rng: Rng) -> None:
    """A pole with a dark or painted case and three lamps, one of them lit."""
    case = rng.choice([BLACK, (70, 84, 72), rng.paint()])
    lamps = [(226, 62, 54), (244, 186, 62), (84, 190, 98)]
    bright, long = rng.randint(0, 2), rng.uniform(0.5, 0.62)
    pen.box(0.42, long, 0.58, 1.0, rng.jitter((110, 112, 116)))
    pen.box(0.16, 0.01, 0.84, long, case)
    for k, lamp in enumerate(lamps):
        y = long * (0.19 + 0.31 * k)
        color = lamp if k == bright else shade(lamp, 0.38)
        pen.disc(0.5, y, 0.13 * long, color, lit=False)
        if k == bright:
            pen.dot(0.5, y, 0.06 * long, mix(lamp, WHITE, 0.6))


def umbrella(pen: Pen, rng: Rng) -> None:
    """An open canopy, plain or in two colors, scalloped below, on a stick with a hooked handle."""
    first, second = rng.paint(), rng.paint()
    gore = rng.choice([first, second, second])
    wood = rng.jitter((120, 84, 58))
    pen.line([(0.5, 0.02), (0.5, 0.92), (0.54, 0.97), (0.6, 0.93)], 0.035, wood)
    edge, top = rng.uniform(0.44, 0.56), 0.06
    bend = [(0.01, edge), (0.1, 0.24), (0.3, 0.1), (0.5, top), (0.7, 0.1), (0.9, 0.24), (0.99, edge)]
    under = [(x, edge - (0.07 if k % 2 else 0.0)) for k, x in enumerate([0.99, 0.91, 0.83, 0.725, 0.62, 0.5])]
    left = [(1 - x, y) for x, y in reversed(under[:-1])]
    pen.polygon([*bend, *under, *left], first)
    for x1, m1, m2, x2 in ((0.17, 0.372, 0.468, 0.38), (0.62, 0.532, 0.628, 0.83)):
        low = ((x1 + x2) / 2, edge - 0.07)
        pen.flat([(x1, edge), (m1, 0.15), (0.5, top), (m2, 0.15), (x2, edge), low], gore)


def bottle(pen: Pen, rng: Rng) -> None:
    """A body narrowing to a neck with a cap, half full, with a label."""
    glass, cap, label = rng.paint(), rng.paint(), rng.choice([WHITE, rng.paint()])
    neck, body = rng.uniform(0.28, 0.42), rng.uniform(0.36, 0.48)
    slim = rng.uniform(0.12, 0.17)
    pen.polygon(
        [(0.5 - slim, 0.06), (0.5 + slim, 0.06), (0.5 + slim, neck - 0.06), (0.5 + body, neck + 0.1),
         (0.5 + body, 0.96), (0.5 + body - 0.06, 0.99), (0.56 - body, 0.99), (0.5 - body, 0.96),
         (0.5 - body, neck + 0.1), (0.5 - slim, neck - 0.06)],
        glass,
    )  # fmt: skip
    if rng.bernoulli(0.75):
        y = rng.uniform(0.52, 0.62)
        pen.box(0.51 - body, y, 0.49 + body, y + 0.24, label, lit=False, edge=False)
        pen.box(0.36, y + 0.06, 0.64, y + 0.12, shade(label, 0.6), lit=False, edge=False)
    pen.box(0.48 - slim, 0.01, 0.52 + slim, 0.09, cap)
    pen.line([(0.5 - 0.6 * body, neck + 0.14), (0.5 - 0.6 * body, 0.9)], 0.025, mix(glass, WHITE, 0.7), edge=False)


def cup(pen: Pen, rng: Rng) -> None:
    """A mug with a handle, sometimes steaming, sometimes on a saucer, plain or striped."""
    paint, second = rng.paint(), rng.paint()
    taper, top = rng.uniform(0.0, 0.12), rng.uniform(0.16, 0.3)
    if rng.bernoulli(0.3):
        pen.ellipse(0.45, 0.93, 0.45, 0.07, mix(paint, WHITE, 0.4))
    pen.line([(0.74, top + 0.16), (0.95, top + 0.2), (0.93, 0.66), (0.72, 0.74)], 0.09, paint)
    pen.polygon(
        [(0.1, top), (0.78, top), (0.78 - taper, 0.93), (0.7 - taper, 0.98), (0.18 + taper, 0.98), (0.1 + taper, 0.93)],
        paint,
    )
    if rng.bernoulli(0.4):
        y = rng.uniform(0.5, 0.7)
        pen.flat(
            [(0.12 + taper / 2, y), (0.76 - taper / 2, y), (0.76 - taper / 2, y + 0.12), (0.12 + taper / 2, y + 0.12)],
            second,
        )
    pen.ellipse(0.44, top, 0.34, 0.075, mix(paint, WHITE, 0.4), lit=False)
    pen.ellipse(0.44, top + 0.015, 0.28, 0.05, rng.jitter((98, 62, 44)), lit=False, edge=False)
    if rng.bernoulli(0.3):
        for x in (0.36, 0.54):
            pen.line([(x, top - 0.06), (x + 0.04, top - 0.12), (x, top - 0.16)], 0.02, (226, 226, 226), edge=False)


def bowl(pen: Pen, rng: Rng) -> None:
    """A wide half circle on a foot; empty, or with soup or a heap of food."""
    paint, second, food = (
        rng.paint(),
        rng.paint(),
        rng.jitter(rng.choice([(226, 150, 60), (240, 226, 190), (120, 160, 80)])),
    )
    pen.box(0.34, 0.86, 0.66, 0.99, paint)
    if rng.bernoulli(0.35):
        for x in (0.3, 0.5, 0.7):
            pen.ellipse(x, 0.24, 0.15, 0.2, rng.jitter(food, 30))
    pen.ellipse(0.5, 0.34, 0.48, 0.58, paint, arc=(0, 10))
    if rng.bernoulli(0.5):
        pen.flat([(0.05, 0.48), (0.95, 0.48), (0.92, 0.58), (0.08, 0.58)], second)
    if rng.bernoulli(0.5):
        pen.ellipse(0.5, 0.34, 0.48, 0.12, mix(paint, WHITE, 0.35), lit=False)
        pen.ellipse(0.5, 0.36, 0.4, 0.08, food, lit=False, edge=False)


def apple(pen: Pen, rng: Rng) -> None:
    """Round with a dent, a stem and a leaf; red, green, yellow or in between."""
    skin = rng.jitter(rng.choice([(204, 52, 48), (160, 186, 72), (232, 190, 84), (222, 120, 70), (150, 40, 60)]))
    right = [(0.5, 0.31), (0.6, 0.23), (0.74, 0.2), (0.87, 0.26), (0.95, 0.38), (0.97, 0.52), (0.93, 0.68)]
    right += [(0.86, 0.82), (0.76, 0.93), (0.64, 0.98), (0.5, 0.95)]
    pen.polygon([*right, *((1 - x, y) for x, y in right[-2:0:-1])], skin)
    pen.line([(0.5, 0.32), (0.54, 0.08)], 0.05, (104, 72, 50), edge=False)
    if rng.bernoulli(0.7):
        pen.polygon([(0.54, 0.2), (0.66, 0.05), (0.86, 0.06), (0.74, 0.2)], (106, 160, 78), lit=False)
    pen.ellipse(0.3, 0.42, 0.07, 0.1, mix(skin, WHITE, 0.6), lit=False, edge=False)


def chair(pen: Pen, rng: Rng) -> None:
    """A back, a seat, four legs; slatted, solid or upholstered."""
    wood, seat = rng.paint(), rng.paint()
    height = rng.uniform(0.5, 0.6)
    for x in (0.3, 0.86):
        pen.line([(x, height), (x, 0.88)], 0.04, shade(wood, 0.7))
    if rng.bernoulli(0.5):
        for x in (0.14, 0.3, 0.46, 0.62):
            pen.line([(x, 0.06), (x, height)], 0.04, wood)
        pen.line([(0.12, 0.06), (0.66, 0.06)], 0.07, wood)
        pen.line([(0.14, 0.26), (0.62, 0.26)], 0.04, wood)
    else:
        pen.polygon([(0.1, 0.04), (0.16, 0.01), (0.62, 0.01), (0.68, 0.04), (0.66, height), (0.12, height)], seat)
    pen.polygon([(0.08, height + 0.06), (0.22, height - 0.05), (0.92, height - 0.05), (0.8, height + 0.06)], seat)
    for x in (0.12, 0.76):
        pen.line([(x, height + 0.06), (x, 0.97)], 0.05, wood)


def laptop(pen: Pen, rng: Rng) -> None:
    """An open screen above a keyboard seen from the front."""
    case = rng.jitter(rng.choice([(176, 180, 186), (96, 100, 108), (52, 50, 54), (240, 236, 226), (205, 164, 120)]))
    screen = rng.choice([rng.paint(), (50, 70, 110), (226, 236, 244)])
    pen.polygon([(0.14, 0.03), (0.86, 0.03), (0.88, 0.66), (0.12, 0.66)], case)
    pen.box(0.18, 0.08, 0.82, 0.6, screen, lit=False, edge=False)
    for k in range(rng.randint(1, 3)):
        x, y, wide = rng.uniform(0.2, 0.45), 0.14 + 0.14 * k, rng.uniform(0.1, 0.34)
        pen.box(x, y, x + wide, y + 0.07, rng.paint(), lit=False, edge=False)
    pen.polygon([(0.12, 0.66), (0.88, 0.66), (0.99, 0.92), (0.01, 0.92)], case, lit=False)
    pen.box(0.01, 0.92, 0.99, 0.98, shade(case, 0.75), lit=False)
    for k in range(3):
        y = 0.69 + 0.055 * k
        pen.flat(
            [(0.15 - 0.02 * k, y), (0.85 + 0.02 * k, y), (0.86 + 0.02 * k, y + 0.035), (0.14 - 0.02 * k, y + 0.035)],
            shade(case, 0.5),
        )
    pen.flat([(0.4, 0.86), (0.6, 0.86), (0.61, 0.91), (0.39, 0.91)], shade(case, 0.8))


def mouse(pen: Pen, rng: Rng) -> None:
    """A computer mouse from above: a rounded case, two buttons, a wheel, with or without a cable."""
    case = rng.jitter(rng.choice([(52, 50, 54), (240, 236, 226), (168, 172, 178), rng.paint()]))
    wheel, line = rng.choice([BLACK, (200, 60, 56), (150, 154, 160)]), shade(case, 0.45)
    if rng.bernoulli(0.6):
        bend = rng.uniform(-0.3, 0.3)
        cable = [(0.5, 0.3), (0.5 + 0.2 * bend, 0.16), (0.5 + 0.7 * bend, 0.1), (0.5 + bend, 0.01)]
        pen.line(cable, 0.05, (84, 84, 90), edge=False)
    half = [(0.2, 0.22), (0.34, 0.27), (0.42, 0.4), (0.44, 0.7), (0.38, 0.86), (0.24, 0.96), (0.1, 0.99)]
    pen.polygon([*((0.5 + x, y) for x, y in half), *((0.5 - x, y) for x, y in half[::-1])], case)
    pen.line([(0.08, 0.56), (0.3, 0.6), (0.7, 0.6), (0.92, 0.56)], 0.035, line, edge=False)
    pen.line([(0.5, 0.22), (0.5, 0.6)], 0.035, line, edge=False)
    pen.ellipse(0.5, 0.4, 0.08, 0.1, wheel, lit=False)


def book(pen: Pen, rng: Rng) -> None:
    """Lying in a stack, standing with its cover to the front, or open."""
    cover, second, page = rng.paint(), rng.paint(), (244, 236, 214)
    kind = rng.choice(["stack", "front", "open"])
    if kind == "stack":
        high, count = rng.uniform(0.24, 0.33), rng.randint(2, 3)
        for k in range(count):
            y, x, color = 1 - high * (k + 1), rng.uniform(0.0, 0.14), rng.paint()
            pen.box(x, y, x + 0.84, y + high, color)
            pen.box(x + 0.12, y + 0.06, x + 0.84, y + high - 0.06, page, lit=False, edge=False)
            pen.line([(x + 0.14, y + high / 2), (x + 0.82, y + high / 2)], 0.015, (190, 178, 150), edge=False)
            pen.box(x, y + 0.08, x + 0.07, y + high - 0.08, mix(color, WHITE, 0.5), lit=False, edge=False)
    elif kind == "front":
        pen.box(0.26, 0.02, 0.8, 0.98, page)
        pen.box(0.2, 0.01, 0.74, 0.99, cover)
        pen.box(0.2, 0.01, 0.27, 0.99, shade(cover, 0.65), lit=False, edge=False)
        pen.box(0.34, 0.18, 0.66, 0.34, second, lit=False, edge=False)
        pen.box(0.38, 0.44, 0.62, 0.5, mix(cover, WHITE, 0.5), lit=False, edge=False)
    else:
        pen.polygon([(0.01, 0.3), (0.5, 0.38), (0.99, 0.3), (0.99, 0.94), (0.5, 0.99), (0.01, 0.94)], cover, lit=False)
        for side in (-1, 1):
            pen.polygon(
                [
                    (0.5, 0.34),
                    (0.5 + 0.22 * side, 0.2),
                    (0.5 + 0.45 * side, 0.24),
                    (0.5 + 0.45 * side, 0.86),
                    (0.5 + 0.22 * side, 0.82),
                    (0.5, 0.93),
                ],
                page,
            )
            for y in (0.4, 0.52, 0.64):
                pen.line(
                    [(0.5 + 0.08 * side, y + 0.02), (0.5 + 0.38 * side, y - 0.04)], 0.025, (150, 140, 130), edge=False
                )
