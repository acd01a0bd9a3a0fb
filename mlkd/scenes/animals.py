"""People and animals, each drawn in the unit square, in side view facing right."""

from __future__ import annotations

from mlkd.scenes.drawing import BLACK, SKINS, WHITE, Color, Pen, Point, Rng, mix, shade


def person(pen: Pen, rng: Rng) -> None:
    """Standing, walking or waving, in trousers or a skirt, with hair or a hat."""
    skin, hair = rng.jitter(rng.choice(SKINS)), rng.fur()
    top, bottom, shoes = rng.paint(), rng.paint(), rng.paint()
    stride, skirt, wide = rng.uniform(0.0, 0.2), rng.bernoulli(0.3), rng.uniform(0.9, 1.2)
    for side in (-1, 1):
        foot = 0.5 + side * (0.1 + stride)
        pen.line([(0.5 + 0.1 * side, 0.56), (foot, 0.94)], 0.085, skin if skirt else bottom)
        pen.ellipse(foot + 0.05, 0.965, 0.12, 0.032, shoes)
    if rng.bernoulli(0.35):
        pen.ellipse(0.5, 0.16, 0.25, 0.15, hair)  # long hair, behind the shoulders
    for side in (-1, 1):
        hand = rng.choice([(0.36, 0.56), (0.42, 0.5), (0.44, 0.12), (0.3, 0.42)])
        elbow = (0.5 + side * 0.36, (0.28 + hand[1]) / 2 + 0.02)
        pen.line([(0.5 + 0.2 * side * wide, 0.28), elbow, (0.5 + side * hand[0], hand[1])], 0.06, top)
        pen.disc(0.5 + side * hand[0], hand[1], 0.032, skin)
    left, right = 0.5 - 0.24 * wide, 0.5 + 0.24 * wide
    pen.polygon([(left, 0.27), (left + 0.1, 0.22), (right - 0.1, 0.22), (right, 0.27), (0.68, 0.6), (0.32, 0.6)], top)
    if rng.bernoulli(0.3):
        stripe = rng.paint()
        for y in (0.34, 0.44):
            pen.flat([(left + 0.05, y), (right - 0.05, y), (right - 0.06, y + 0.045), (left + 0.06, y + 0.045)], stripe)
    if skirt:
        pen.polygon([(0.32, 0.5), (0.68, 0.5), (0.84, 0.76), (0.16, 0.76)], bottom)
    pen.line([(0.5, 0.18), (0.5, 0.23)], 0.06, skin, edge=False)
    pen.disc(0.5, 0.115, 0.092, skin)
    if rng.bernoulli(0.25):
        hat = rng.paint()
        pen.ellipse(0.5, 0.09, 0.24, 0.09, hat, arc=(10, 20))
        pen.box(0.5 - 0.3, 0.075, 0.5 + rng.uniform(0.2, 0.36), 0.1, hat)
    else:
        pen.ellipse(0.5, 0.095, 0.24, 0.088, hair, arc=(10, 20))
    for x in (0.42, 0.6):
        pen.dot(x, 0.125, 0.012, BLACK)
    pen.line([(0.45, 0.165), (0.56, 0.165)], 0.01, shade(skin, 0.6), edge=False)


def _legs(pen: Pen, xs: tuple[float, ...], top: float, width: float, color: Color, foot: Color) -> None:
    """Four legs from the belly to the ground; the two far ones are darker."""
    for k, x in enumerate(xs):
        tone = shade(color, 0.75) if k % 2 else color
        pen.line([(x, top), (x + (0.02 if k % 2 else -0.01), 0.95)], width, tone)
        pen.line([(x + (0.02 if k % 2 else -0.01), 0.95), (x + 0.03, 0.96)], width, foot)


def _patches(pen: Pen, rng: Rng, color: Color, area: tuple[float, float, float, float], count: int) -> None:
    """Blots within an area (x1, y1, x2, y2)."""
    x1, y1, x2, y2 = area
    for _ in range(count):
        rx, ry = rng.uniform(0.03, 0.08), rng.uniform(0.03, 0.07)
        pen.ellipse(rng.uniform(x1, x2), rng.uniform(y1, y2), rx, ry, color, lit=False, edge=False)


def dog(pen: Pen, rng: Rng) -> None:
    """A long snout with a black nose, hanging or folded ears, a raised tail; standing or sitting."""
    fur, second = rng.fur(), rng.fur()
    ears, socks = rng.choice([second, shade(fur, 0.65)]), rng.choice([fur, second])
    if rng.bernoulli(0.3):  # sitting
        pen.line([(0.3, 0.9), (0.14, 0.86), (0.06, 0.7)], 0.08, fur)
        pen.ellipse(0.38, 0.82, 0.2, 0.16, fur)
        pen.polygon([(0.3, 0.86), (0.4, 0.5), (0.6, 0.36), (0.74, 0.5), (0.68, 0.95), (0.4, 0.97)], fur)
        pen.line([(0.62, 0.6), (0.64, 0.95), (0.7, 0.96)], 0.09, socks)
        head = (0.64, 0.28)
    else:
        tail: list[Point] = [(0.2, 0.5), (0.1, 0.4), (rng.uniform(0.0, 0.12), rng.uniform(0.15, 0.35))]
        pen.line(tail, 0.07, fur)
        _legs(pen, (0.24, 0.33, 0.6, 0.68), 0.6, 0.09, fur, socks)
        pen.line([(0.62, 0.52), (0.74, 0.36)], 0.2, fur)
        pen.ellipse(0.45, 0.55, 0.29, rng.uniform(0.14, 0.2), fur)
        if rng.bernoulli(0.4):
            _patches(pen, rng, second, (0.26, 0.48, 0.6, 0.58), 3)
        head = (0.76, 0.3)
    x, y = head
    pen.disc(x, y, 0.16, fur)
    long = rng.uniform(0.1, 0.15)
    pen.ellipse(x + long, y + 0.06, 0.11, 0.075, mix(fur, WHITE, 0.25))
    pen.dot(x + long + 0.09, y + 0.03, 0.036, BLACK)
    pen.dot(x + 0.05, y - 0.04, 0.026, BLACK)
    if rng.bernoulli(0.7):
        pen.ellipse(x - 0.08, y + 0.03, 0.055, 0.14, ears)
    else:
        pen.polygon([(x - 0.13, y - 0.06), (x - 0.08, y - 0.22), (x - 0.01, y - 0.12)], ears)
    if rng.bernoulli(0.5):
        pen.line([(x - 0.12, y + 0.14), (x + 0.02, y + 0.18)], 0.035, rng.paint())


def cat(pen: Pen, rng: Rng) -> None:
    """Two pointed ears on a round, flat face, whiskers, a long thin tail; standing or sitting."""
    fur, second = rng.fur(), rng.fur()
    stripes, chest = shade(fur, 0.65), rng.choice([fur, WHITE])
    if rng.bernoulli(0.5):  # sitting
        pen.line([(0.66, 0.92), (0.86, 0.9), (0.94, 0.74), (0.88, 0.56)], 0.06, fur)
        pen.ellipse(0.48, 0.76, 0.24, 0.22, fur)
        pen.ellipse(0.46, 0.72, 0.1, 0.16, chest, lit=False, edge=False)
        for x_foot in (0.38, 0.56):
            pen.line([(x_foot, 0.72), (x_foot, 0.95)], 0.09, fur)
        x, y = 0.47, 0.38
    else:
        pen.line([(0.22, 0.56), (0.09, 0.5), (0.05, 0.3), (rng.uniform(0.02, 0.16), 0.14)], 0.055, fur)
        _legs(pen, (0.24, 0.33, 0.58, 0.66), 0.62, 0.07, fur, chest)
        pen.ellipse(0.45, 0.58, 0.28, 0.14, fur)
        if rng.bernoulli(0.5):
            for x_stripe in (0.28, 0.38, 0.48):
                pen.line([(x_stripe, 0.46), (x_stripe + 0.02, 0.6)], 0.035, stripes, edge=False)
        x, y = 0.74, 0.4
    for side in (-1, 1):
        ear = x + 0.105 * side
        pen.polygon([(ear - 0.075, y - 0.07), (ear + 0.035 * side, y - 0.28), (ear + 0.075, y - 0.07)], fur)
    pen.ellipse(x, y, 0.19, 0.17, fur)
    if rng.bernoulli(0.5):
        pen.ellipse(x - 0.08, y - 0.05, 0.08, 0.09, second, lit=False, edge=False)
    pen.ellipse(x + 0.02, y + 0.07, 0.09, 0.06, mix(fur, WHITE, 0.5), lit=False, edge=False)
    eyes = rng.choice([(150, 190, 80), (230, 180, 60), (90, 150, 190)])
    for side in (-1, 1):
        pen.dot(x + 0.02 + 0.08 * side, y - 0.02, 0.036, eyes)
        pen.dot(x + 0.02 + 0.08 * side, y - 0.02, 0.02, BLACK)
        pen.line([(x + 0.06 * side, y + 0.06), (x + 0.24 * side, y + 0.08)], 0.008, mix(fur, WHITE, 0.7), edge=False)
    pen.dot(x + 0.02, y + 0.045, 0.022, (206, 120, 120))


def bird(pen: Pen, rng: Rng) -> None:
    """A beak, a wing, a tail; standing on thin legs or flying."""
    body, wing = rng.choice([rng.fur(), rng.paint()]), rng.choice([rng.fur(), rng.paint()])
    beak = rng.jitter(rng.choice([(238, 164, 56), (90, 84, 80), (222, 100, 60)]))
    if rng.bernoulli(0.45):  # flying
        lift = rng.uniform(0.02, 0.3)
        pen.polygon([(0.5, 0.5), (0.62, 0.55), (0.36, lift), (0.2, lift - 0.02), (0.3, 0.3)], shade(wing, 0.8))
        pen.polygon([(0.26, 0.56), (0.0, 0.52), (0.04, 0.7), (0.28, 0.66)], wing)
        pen.ellipse(0.5, 0.6, 0.28, 0.14, body)
        pen.disc(0.76, 0.52, 0.13, body)
        x, y, r = 0.76, 0.52, 0.13
        pen.polygon([(0.44, 0.6), (0.64, 0.58), (0.6, lift + 0.1), (0.46, lift + 0.02), (0.4, 0.36)], wing)
    else:
        for x in (0.46, 0.56):
            pen.line([(x, 0.75), (x, 0.96), (x + 0.06, 0.97)], 0.03, beak, edge=False)
        pen.polygon([(0.3, 0.5), (0.02, 0.66), (0.04, 0.78), (0.36, 0.72)], wing)
        pen.ellipse(0.5, 0.58, 0.27, 0.22, body)
        pen.disc(0.7, 0.32, 0.19, body)
        x, y, r = 0.7, 0.32, 0.19
        pen.ellipse(0.42, 0.58, 0.2, 0.13, wing)
    ahead = r * pen.height / pen.width
    long = rng.uniform(1.5, 2.1) * ahead
    pen.polygon([(x + 0.8 * ahead, y - 0.07), (x + long, y + 0.02), (x + 0.8 * ahead, y + 0.08)], beak, lit=False)
    pen.dot(x + 0.4 * ahead, y - 0.03, 0.05, WHITE)
    pen.dot(x + 0.42 * ahead, y - 0.03, 0.032, BLACK)


def horse(pen: Pen, rng: Rng) -> None:
    """Long legs, a long raised neck with a mane, a narrow head, a hanging tail."""
    fur, mane = rng.fur(), rng.fur()
    socks, up = rng.choice([fur, WHITE, shade(fur, 0.6)]), rng.uniform(-0.04, 0.16)
    pen.line([(0.16, 0.42), (0.06, 0.5), (0.05, 0.72)], 0.08, mane)
    _legs(pen, (0.2, 0.29, 0.58, 0.66), 0.55, 0.065, fur, socks)
    pen.ellipse(0.42, 0.46, 0.29, 0.14, fur)
    if rng.bernoulli(0.25):
        _patches(pen, rng, mix(fur, WHITE, 0.7), (0.22, 0.4, 0.58, 0.52), 4)
    neck = [(0.54, 0.42), (0.74, 0.08 + up), (0.86, 0.14 + up), (0.72, 0.52), (0.62, 0.56)]
    pen.polygon([(0.5, 0.42), (0.66, 0.06 + up), (0.78, 0.02 + up), (0.74, 0.2 + up), (0.62, 0.46)], mane)
    pen.polygon(neck, fur)
    pen.polygon([(0.75, 0.0 + up), (0.79, 0.1 + up), (0.72, 0.09 + up)], fur, lit=False)
    pen.polygon(
        [(0.72, 0.1 + up), (0.8, 0.07 + up), (0.9, 0.14 + up), (0.99, 0.28 + up), (0.95, 0.34 + up), (0.78, 0.23 + up)],
        fur,
    )
    pen.ellipse(0.955, 0.295 + up, 0.04, 0.045, rng.choice([socks, shade(fur, 0.6)]), lit=False, edge=False)
    pen.dot(0.82, 0.14 + up, 0.018, BLACK)
    if rng.bernoulli(0.3):
        saddle = rng.paint()
        pen.polygon([(0.33, 0.33), (0.5, 0.33), (0.48, 0.5), (0.36, 0.5)], saddle)


def cow(pen: Pen, rng: Rng) -> None:
    """A heavy square body, often in patches, short legs, horns, a broad pink muzzle, an udder."""
    fur, second = rng.fur(), rng.fur()
    low = rng.uniform(-0.06, 0.22)
    pen.line([(0.12, 0.3), (0.05, 0.4), (0.06, 0.62)], 0.03, fur)
    pen.ellipse(0.06, 0.66, 0.03, 0.05, second, lit=False)
    _legs(pen, (0.19, 0.28, 0.58, 0.67), 0.66, 0.09, fur, BLACK)
    if rng.bernoulli(0.7):
        pen.ellipse(0.36, 0.69, 0.08, 0.08, (232, 160, 160))
    pen.polygon(
        [(0.1, 0.32), (0.16, 0.26), (0.68, 0.26), (0.77, 0.34), (0.74, 0.64), (0.62, 0.7), (0.2, 0.69), (0.12, 0.6)],
        fur,
    )
    if rng.bernoulli(0.65):
        for x in (0.22, 0.42, 0.6):
            y, rx, ry = rng.uniform(0.36, 0.56), rng.uniform(0.05, 0.1), rng.uniform(0.06, 0.12)
            pen.ellipse(x, y, rx, ry, second, lit=False, edge=False)
    y = 0.3 + low
    horn = (236, 224, 196)
    for side in (-1, 1):
        pen.line([(0.83 + 0.06 * side, y - 0.12), (0.83 + 0.1 * side, y - 0.25)], 0.035, horn)
        pen.ellipse(0.83 + 0.12 * side, y - 0.08, 0.06, 0.045, fur)
    pen.polygon(
        [(0.74, y - 0.15), (0.92, y - 0.15), (0.94, y + 0.05), (0.9, y + 0.2), (0.77, y + 0.2), (0.72, y + 0.05)], fur
    )
    pen.ellipse(0.835, y + 0.16, 0.1, 0.085, (232, 176, 168), lit=False)
    for side in (-1, 1):
        pen.dot(0.835 + 0.05 * side, y + 0.16, 0.016, BLACK)
        pen.dot(0.83 + 0.055 * side, y - 0.04, 0.024, BLACK)
