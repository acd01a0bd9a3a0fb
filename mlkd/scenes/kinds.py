"""The 20 classes: how each is drawn and how large it usually is."""

from __future__ import annotations

from collections.abc import Callable

from mlkd.scenes import animals, objects
from mlkd.scenes.drawing import Pen, Rng

# The function that draws the class, its usual height as a fraction of the image, its width over its height.
KINDS: dict[str, tuple[Callable[[Pen, Rng], None], float, float]] = {
    "person": (animals.person, 0.58, 0.42),
    "bicycle": (objects.bicycle, 0.38, 1.55),
    "car": (objects.car, 0.33, 2.1),
    "bus": (objects.bus, 0.42, 2.1),
    "boat": (objects.boat, 0.4, 1.25),
    "traffic light": (objects.traffic_light, 0.5, 0.32),
    "bird": (animals.bird, 0.27, 1.2),
    "cat": (animals.cat, 0.34, 1.15),
    "dog": (animals.dog, 0.37, 1.25),
    "horse": (animals.horse, 0.46, 1.2),
    "cow": (animals.cow, 0.38, 1.4),
    "umbrella": (objects.umbrella, 0.34, 1.2),
    "bottle": (objects.bottle, 0.4, 0.34),
    "cup": (objects.cup, 0.27, 1.05),
    "bowl": (objects.bowl, 0.23, 1.7),
    "apple": (objects.apple, 0.23, 1.0),
    "chair": (objects.chair, 0.44, 0.65),
    "laptop": (objects.laptop, 0.34, 1.35),
    "mouse": (objects.mouse, 0.21, 0.82),
    "book": (objects.book, 0.27, 1.25),
}
CLASSES: tuple[str, ...] = tuple(KINDS)
ON_TABLES = frozenset({"cat", "bird", "bottle", "cup", "bowl", "apple", "laptop", "mouse", "book"})
