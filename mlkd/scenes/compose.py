"""One picture: who is in it, where each object stands, what hides what, and the light."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from mlkd.scenes.backgrounds import table
from mlkd.scenes.drawing import Box, Dice, Pen
from mlkd.scenes.kinds import CLASSES, KINDS, ON_TABLES
from mlkd.scenes.layouts import PLACES, Place, cast, shifted_cast

VERSION = 1  # of the pictures: raise it with every change that draws them differently
FINE = 4  # canvas pixels per pixel of the picture, each way
HIDDEN = 0.3  # an object of which less than this share stays visible is not in the picture
SMALLEST = 12  # pixels an object must show


class Drawing(NamedTuple):
    """One picture.

    Attributes:
        pixels: uint8 RGB (size, size, 3).
        boxes: (m, 5) float32, class index, x1, y1, x2, y2 in whole pixels, 0 <= x1 < x2 <= size: the visible
            part of each object, far to near.
        truncated: (m,) bool: the object reaches beyond its box, being cut by the border or partly hidden.
        place: the name of the background.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    truncated: np.ndarray
    place: str


class _Actor(NamedTuple):
    """An object to be drawn: its class and its box on the canvas, as shares of the picture."""

    name: str
    x: float
    base: float
    width: float
    height: float


def _overlap(first: _Actor, second: _Actor) -> float:
    """The area that two objects' boxes share."""
    wide = min(first.x + first.width / 2, second.x + second.width / 2) - max(
        first.x - first.width / 2, second.x - second.width / 2
    )
    high = min(first.base, second.base) - max(first.base - first.height, second.base - second.height)
    return max(0.0, wide) * max(0.0, high)


def _stage(dice: Dice, place: Place, names: list[str]) -> list[_Actor]:
    """Where everybody stands, far to near; each takes the emptiest of a few spots."""
    zoom = dice.uniform(0.85, 1.5)
    actors: list[_Actor] = []
    for name in names:
        for _ in range(1 + dice.chance(0.28) + dice.chance(0.12)):
            actors.append(_spot(dice, place, name, zoom, actors))
    return sorted(actors, key=lambda actor: actor.base)


def _spot(dice: Dice, place: Place, name: str, zoom: float, others: list[_Actor]) -> _Actor:
    """A place to stand, nearer is larger: beside a companion, or the emptiest of four spots."""
    _, tall, aspect = KINDS[name]
    partner = {"mouse": "laptop", "umbrella": "person"}.get(name, "")
    for other in others:
        if other.name == partner and dice.chance(0.6):
            return _beside(dice, name, other)
    low, high = place.ground
    if place.table is not None and name in ON_TABLES:
        low, high = place.table + 0.06, 0.98
    elif name == "boat" and place.afloat:
        low, high = place.afloat
    elif name == "bird" and place.table is None:
        low = 0.15
    spots = []
    for _ in range(4):
        base = dice.uniform(low, high)
        depth = (base - low) / (high - low)
        height = tall * zoom * (0.6 + 0.55 * depth) * dice.uniform(0.8, 1.25)
        width = height * aspect * dice.uniform(0.85, 1.18)
        fit = min(1.0, 0.96 / max(width, height))
        if place.table is not None and name not in ON_TABLES:
            base = min(base, place.table + 0.5 * height * fit)  # half of it looks out from behind the table
        spots.append(_Actor(name, dice.uniform(0.06, 0.94), base, width * fit, height * fit))
    return min(spots, key=lambda spot: sum(_overlap(spot, other) for other in others))


def _beside(dice: Dice, name: str, other: _Actor) -> _Actor:
    """A mouse at a laptop's side, an umbrella over a person's head."""
    _, tall, aspect = KINDS[name]
    height = other.height * tall / KINDS[other.name][1] * dice.uniform(0.85, 1.2)
    width = height * aspect
    side = dice.pick([-1, 1])
    if name == "umbrella":
        return _Actor(name, other.x + side * 0.15 * width, other.base - 0.5 * other.height, width, height)
    reach = 0.5 * other.width + 0.55 * width
    if not 0.05 < other.x + side * reach < 0.95:
        side = -side
    return _Actor(name, other.x + side * reach, other.base + dice.uniform(-0.02, 0.03), width, height)


def _light(dice: Dice, picture: Image.Image) -> np.ndarray:
    """Daylight or lamplight, contrast, dapples of shade, blur and noise; all in whole numbers."""
    size = picture.width
    pixels = np.asarray(picture).astype(np.int32)
    if dice.chance(0.22):  # blur
        padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        pixels = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) >> 4
    dapples = Image.frombytes("L", (4, 4), dice.bytes(16)).resize((size, size), Image.Resampling.BICUBIC)
    depth = dice.integer(0, 70)
    ramp = (np.arange(size) * dice.integer(0, 60) // size)[:: dice.pick([-1, 1])]
    gain = 256 + ((np.asarray(dapples).astype(np.int32) - 128) * depth >> 7) + (ramp - int(ramp.max()) // 2)
    tint = [dice.integer(226, 270) for _ in range(3)]
    bright, contrast = dice.integer(-12, 16), dice.integer(200, 280)
    pixels = (pixels * gain[..., None] >> 8) * np.array(tint, np.int32) >> 8
    pixels = ((pixels - 128) * contrast >> 8) + 128 + bright
    strength = dice.pick([0, 2, 4, 6, 10])
    noise = np.frombuffer(dice.bytes(2 * pixels.size), np.uint8).reshape(2, *pixels.shape).astype(np.int32)
    return np.clip(pixels + ((noise[0] + noise[1] - 255) * strength >> 7), 0, 255).astype(np.uint8)


def _picture(dice: Dice, size: int, shifted: bool) -> Drawing:
    """One attempt at a picture, perhaps with nothing to see in it: background, objects, boxes, light."""
    where, names = shifted_cast(dice) if shifted else cast(dice)
    place, side = PLACES[where], size * FINE
    canvas, numbers = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    pen = Pen(canvas, numbers, light=dice.pick([-1, 1]), ink=max(1, side // 192) * dice.pick([0, 1, 1, 1]))
    place.back(pen, dice)
    actors = _stage(dice, place, names)
    if place.table is None:
        drawn = [_act(pen, dice, number, actor) for number, actor in enumerate(actors, start=1)]
    else:
        actors.sort(key=lambda actor: actor.name in ON_TABLES)  # a stable sort: far to near in both halves
        behind = sum(actor.name not in ON_TABLES for actor in actors)
        drawn = [_act(pen, dice, number, actor) for number, actor in enumerate(actors[:behind], start=1)]
        pen.lay((0, 0, side, side))
        table(pen, dice, place.table)
        drawn += [_act(pen, dice, number, actor) for number, actor in enumerate(actors[behind:], behind + 1)]
    boxes, truncated = [], []
    for number, (actor, (area, extent)) in enumerate(zip(actors, drawn, strict=True), start=1):
        left, box = pen.seen(number, extent)
        if box is None or left < max(HIDDEN * area, SMALLEST * FINE * FINE):
            continue
        x1, y1, x2, y2 = box
        boxes.append((CLASSES.index(actor.name), x1 // FINE, y1 // FINE, -(-x2 // FINE), -(-y2 // FINE)))
        truncated.append(max(x1 - extent[0], y1 - extent[1], extent[2] - x2, extent[3] - y2) > FINE)
    pixels = _light(dice, canvas.reduce(FINE))
    return Drawing(pixels, np.array(boxes, np.float32).reshape(-1, 5), np.array(truncated, bool), where)


def _act(pen: Pen, dice: Dice, number: int, actor: _Actor) -> tuple[int, Box]:
    """Draw one object; the canvas pixels it covers now, and how far it reaches."""
    side = pen.canvas.width
    x1, x2 = (actor.x - actor.width / 2) * side, (actor.x + actor.width / 2) * side
    y1, y2 = (actor.base - actor.height) * side, actor.base * side
    turn = 0.5 if actor.name == "mouse" else 0.08
    pen.lay((x1, y1, x2, y2), number, flip=dice.chance(0.5), turn=dice.uniform(-turn, turn))
    if actor.name not in ("boat", "bird"):
        pen.shadow()
    KINDS[actor.name][0](pen, dice)
    return pen.seen(number, pen.extent)[0], pen.extent


def draw(seed: int, split: str, index: int, size: int = 96) -> Drawing:
    """Picture `index` of a split; the same for the same arguments on every machine.

    Args:
        seed: any whole number; another seed gives another data set.
        split: any name. "context_shift" places objects without their usual companions and surroundings.
        index: from 0.
        size: width and height in pixels.

    Example:
        >>> draw(0, "train", 0).pixels.shape
        (96, 96, 3)
    """
    attempt = 0
    while True:
        dice = Dice(f"scenes {VERSION} {seed} {split} {index} {attempt}")
        drawing = _picture(dice, size, shifted=split == "context_shift")
        if len(drawing.boxes):
            return drawing
        attempt += 1
