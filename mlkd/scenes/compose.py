"""One image: which objects it has, where they are placed, which are hidden, and the light."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from mlkd.scenes.backgrounds import table
from mlkd.scenes.drawing import Box, Pen, Rng
from mlkd.scenes.kinds import CLASSES, KINDS, ON_TABLES
from mlkd.scenes.layouts import LAYOUTS, Layout, sample_classes, sample_shifted_classes

VERSION = 1  # of the images: increase it with every change that draws them differently
MIN_SIZE = 16  # of an image; in smaller ones no object is visible
SCALE = 4  # canvas pixels per image pixel, along each side
MIN_VISIBLE = 0.3  # an object of which a smaller fraction is visible counts as absent
MIN_AREA = 12  # the smallest visible area of an object in pixels


class Scene(NamedTuple):
    """One image with its objects.

    Attributes:
        pixels: uint8 RGB (size, size, 3).
        boxes: (m, 5) float32, class index, x1, y1, x2, y2 in whole pixels, 0 <= x1 < x2 <= size: the visible
            part of each object, far to near.
        truncated: (m,) bool: the object extends beyond its box, cut by the image's border or partly hidden.
        layout: the name of the layout.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    truncated: np.ndarray
    layout: str


class _Object(NamedTuple):
    """An object to be drawn: its class, and its box as fractions of the image."""

    name: str
    x: float
    base: float
    width: float
    height: float


def _overlap(first: _Object, second: _Object) -> float:
    """The area of the intersection of two objects' boxes."""
    wide = min(first.x + first.width / 2, second.x + second.width / 2) - max(
        first.x - first.width / 2, second.x - second.width / 2
    )
    high = min(first.base, second.base) - max(first.base - first.height, second.base - second.height)
    return max(0.0, wide) * max(0.0, high)


def _place_objects(rng: Rng, layout: Layout, names: list[str]) -> list[_Object]:
    """One to three objects of each class with their boxes, far to near."""
    zoom = rng.uniform(0.85, 1.5)
    objects: list[_Object] = []
    for name in names:
        for _ in range(1 + rng.bernoulli(0.28) + rng.bernoulli(0.12)):
            objects.append(_place_object(rng, layout, name, zoom, objects))
    return sorted(objects, key=lambda obj: obj.base)


def _place_object(rng: Rng, layout: Layout, name: str, zoom: float, others: list[_Object]) -> _Object:
    """An object's box, larger when nearer: beside a related object, or the least occluded of four candidates."""
    _, tall, aspect = KINDS[name]
    related = {"mouse": "laptop", "umbrella": "person"}.get(name, "")
    for other in others:
        if other.name == related and rng.bernoulli(0.6):
            return _place_beside(rng, name, other)
    low, high = layout.ground
    if layout.table is not None and name in ON_TABLES:
        low, high = layout.table + 0.06, 0.98
    elif name == "boat" and layout.water:
        low, high = layout.water
    elif name == "bird" and layout.table is None:
        low = 0.15
    candidates = []
    for _ in range(4):
        base = rng.uniform(low, high)
        depth = (base - low) / (high - low)
        height = tall * zoom * (0.6 + 0.55 * depth) * rng.uniform(0.8, 1.25)
        width = height * aspect * rng.uniform(0.85, 1.18)
        fit = min(1.0, 0.96 / max(width, height))
        if layout.table is not None and name not in ON_TABLES:
            base = min(base, layout.table + 0.5 * height * fit)  # the upper half is visible above the table
        candidates.append(_Object(name, rng.uniform(0.06, 0.94), base, width * fit, height * fit))
    return min(candidates, key=lambda candidate: sum(_overlap(candidate, other) for other in others))


def _place_beside(rng: Rng, name: str, other: _Object) -> _Object:
    """The box of a mouse beside a laptop, or of an umbrella above a person."""
    _, tall, aspect = KINDS[name]
    height = other.height * tall / KINDS[other.name][1] * rng.uniform(0.85, 1.2)
    width = height * aspect
    side = rng.choice([-1, 1])
    if name == "umbrella":
        return _Object(name, other.x + side * 0.15 * width, other.base - 0.5 * other.height, width, height)
    distance = 0.5 * other.width + 0.55 * width
    if not 0.05 < other.x + side * distance < 0.95:
        side = -side
    return _Object(name, other.x + side * distance, other.base + rng.uniform(-0.02, 0.03), width, height)


def _add_light(rng: Rng, image: Image.Image) -> np.ndarray:
    """Adds blur, uneven light, tint, contrast and noise, in integer arithmetic; uint8 (size, size, 3)."""
    size = image.width
    pixels = np.asarray(image).astype(np.int32)
    if rng.bernoulli(0.22):  # blur
        padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        pixels = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) >> 4
    patches = Image.frombytes("L", (4, 4), rng.randbytes(16)).resize((size, size), Image.Resampling.BICUBIC)
    depth = rng.randint(0, 70)
    ramp = (np.arange(size) * rng.randint(0, 60) // size)[:: rng.choice([-1, 1])]
    gain = 256 + ((np.asarray(patches).astype(np.int32) - 128) * depth >> 7) + (ramp - int(ramp.max()) // 2)
    tint = [rng.randint(226, 270) for _ in range(3)]
    brightness, contrast = rng.randint(-12, 16), rng.randint(200, 280)
    pixels = (pixels * gain[..., None] >> 8) * np.array(tint, np.int32) >> 8
    pixels = ((pixels - 128) * contrast >> 8) + 128 + brightness
    strength = rng.choice([0, 2, 4, 6, 10])
    noise = np.frombuffer(rng.randbytes(2 * pixels.size), np.uint8).reshape(2, *pixels.shape).astype(np.int32)
    return np.clip(pixels + ((noise[0] + noise[1] - 255) * strength >> 7), 0, 255).astype(np.uint8)


def _compose(rng: Rng, size: int, shifted: bool) -> Scene:
    """Background, objects, boxes and light. The scene may turn out to have no visible object."""
    name, classes = sample_shifted_classes(rng) if shifted else sample_classes(rng)
    layout, side = LAYOUTS[name], size * SCALE
    canvas, ids = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    pen = Pen(canvas, ids, light=rng.choice([-1, 1]), ink=max(1, side // 192) * rng.choice([0, 1, 1, 1]))
    layout.background(pen, rng)
    objects = _place_objects(rng, layout, classes)
    if layout.table is None:
        drawn = [_draw_object(pen, rng, number, obj) for number, obj in enumerate(objects, start=1)]
    else:
        objects.sort(key=lambda obj: obj.name in ON_TABLES)  # stable: far to near in both groups
        behind = sum(obj.name not in ON_TABLES for obj in objects)
        drawn = [_draw_object(pen, rng, number, obj) for number, obj in enumerate(objects[:behind], start=1)]
        pen.set_box((0, 0, side, side))
        table(pen, rng, layout.table)
        drawn += [_draw_object(pen, rng, number, obj) for number, obj in enumerate(objects[behind:], behind + 1)]
    boxes, truncated = [], []
    for number, (obj, (area, extent)) in enumerate(zip(objects, drawn, strict=True), start=1):
        visible, box = pen.visible(number, extent)
        if box is None or visible < max(MIN_VISIBLE * area, MIN_AREA * SCALE * SCALE):
            continue
        x1, y1, x2, y2 = box
        boxes.append((CLASSES.index(obj.name), x1 // SCALE, y1 // SCALE, -(-x2 // SCALE), -(-y2 // SCALE)))
        truncated.append(max(x1 - extent[0], y1 - extent[1], extent[2] - x2, extent[3] - y2) > SCALE)
    pixels = _add_light(rng, canvas.reduce(SCALE))
    return Scene(pixels, np.array(boxes, np.float32).reshape(-1, 5), np.array(truncated, bool), name)


def _draw_object(pen: Pen, rng: Rng, number: int, obj: _Object) -> tuple[int, Box]:
    """Draws one object; the number of canvas pixels it covers now, and its extent."""
    side = pen.canvas.width
    x1, x2 = (obj.x - obj.width / 2) * side, (obj.x + obj.width / 2) * side
    y1, y2 = (obj.base - obj.height) * side, obj.base * side
    limit = 0.5 if obj.name == "mouse" else 0.08
    pen.set_box((x1, y1, x2, y2), number, flip=rng.bernoulli(0.5), angle=rng.uniform(-limit, limit))
    if obj.name not in ("boat", "bird"):
        pen.shadow()
    KINDS[obj.name][0](pen, rng)
    return pen.visible(number, pen.extent)[0], pen.extent


def draw_scene(seed: int, split: str, index: int, size: int = 96) -> Scene:
    """Image `index` of a split; the same arguments give the same image on every machine.

    Args:
        seed: any integer; another seed gives another data set.
        split: any name. "context_shift" draws objects without their usual context.
        index: from 0.
        size: width and height in pixels, at least `MIN_SIZE`.

    Example:
        >>> draw_scene(0, "train", 0).pixels.shape
        (96, 96, 3)

    Raises:
        ValueError: `size` is less than `MIN_SIZE`.
    """
    if size < MIN_SIZE:
        raise ValueError(f"`size` of the scenes is {size}; expected at least {MIN_SIZE} pixels.")
    attempt = 0
    while True:
        rng = Rng(f"scenes {VERSION} {seed} {split} {index} {attempt}")
        scene = _compose(rng, size, shifted=split == "context_shift")
        if len(scene.boxes):
            return scene
        attempt += 1
