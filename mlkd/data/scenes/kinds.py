"""The 20 classes: how each is drawn and how large it usually is."""

from __future__ import annotations

from collections.abc import Callable

from mlkd.data.scenes import beings, things
from mlkd.data.scenes.pen import Dice, Pen

# How a class is drawn, its usual height as a share of the picture, its width over its height.
KINDS: dict[str, tuple[Callable[[Pen, Dice], None], float, float]] = {
    "person": (beings.person, 0.58, 0.42),
    "bicycle": (things.bicycle, 0.38, 1.55),
    "car": (things.car, 0.33, 2.1),
    "bus": (things.bus, 0.42, 2.1),
    "boat": (things.boat, 0.4, 1.25),
    "traffic light": (things.traffic_light, 0.5, 0.32),
    "bird": (beings.bird, 0.27, 1.2),
    "cat": (beings.cat, 0.34, 1.15),
    "dog": (beings.dog, 0.37, 1.25),
    "horse": (beings.horse, 0.46, 1.2),
    "cow": (beings.cow, 0.38, 1.4),
    "umbrella": (things.umbrella, 0.34, 1.2),
    "bottle": (things.bottle, 0.4, 0.34),
    "cup": (things.cup, 0.27, 1.05),
    "bowl": (things.bowl, 0.23, 1.7),
    "apple": (things.apple, 0.23, 1.0),
    "chair": (things.chair, 0.44, 0.65),
    "laptop": (things.laptop, 0.34, 1.35),
    "mouse": (things.mouse, 0.21, 0.82),
    "book": (things.book, 0.27, 1.25),
}
CLASSES: tuple[str, ...] = tuple(KINDS)
ON_TABLES = frozenset({"cat", "bird", "bottle", "cup", "bowl", "apple", "laptop", "mouse", "book"})
