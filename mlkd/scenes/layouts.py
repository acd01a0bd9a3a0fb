"""The layouts of the scenes: background, where objects are placed, and which classes occur."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlkd.scenes.backgrounds import harbor, living, meadow, park, room, street
from mlkd.scenes.drawing import Pen, Rng
from mlkd.scenes.kinds import CLASSES

CONTEXT_FREE = 0.5  # the fraction of a class's probability that does not depend on the layout: see `probability`


@dataclass(frozen=True)
class Layout:
    """A kind of scene.

    Attributes:
        weight: fraction of the scenes that have this layout.
        classes: the probability of each class that is typical here, before `CONTEXT_FREE` is applied.
        background: draws everything behind the objects.
        ground: heights (fractions of the image) between which objects stand, far to near.
        table: height of the back edge of a table across the image, or None. Small objects stand on it, and
            it hides the lower part of the others.
        water: heights between which boats float, or None.
    """

    weight: float
    classes: dict[str, float]
    background: Callable[[Pen, Rng], None]
    ground: tuple[float, float]
    table: float | None = None
    water: tuple[float, float] | None = None


LAYOUTS: dict[str, Layout] = {
    "desk": Layout(
        0.18,
        {"person": 0.48, "laptop": 0.75, "mouse": 0.55, "book": 0.58, "cup": 0.5, "bottle": 0.2,
         "chair": 0.35, "cat": 0.15, "apple": 0.03},
        room, (0.7, 0.9), table=0.6,
    ),
    "kitchen": Layout(
        0.17,
        {"person": 0.52, "bottle": 0.65, "cup": 0.55, "bowl": 0.7, "apple": 0.07, "chair": 0.4, "cat": 0.12},
        room, (0.7, 0.9), table=0.56,
    ),
    "living": Layout(
        0.13,
        {"person": 0.55, "chair": 0.65, "book": 0.55, "cat": 0.5, "dog": 0.4, "cup": 0.3, "bottle": 0.12,
         "laptop": 0.12},
        living, (0.66, 0.95), table=0.8,
    ),
    "street": Layout(
        0.2,
        {"person": 0.75, "car": 0.85, "bus": 0.1, "bicycle": 0.5, "traffic light": 0.6, "umbrella": 0.05,
         "dog": 0.15},
        street, (0.68, 0.99),
    ),
    "harbor": Layout(
        0.12,
        {"person": 0.65, "boat": 0.95, "bird": 0.7, "umbrella": 0.03, "bicycle": 0.2, "dog": 0.12},
        harbor, (0.84, 0.99), water=(0.46, 0.8),
    ),
    "meadow": Layout(
        0.1,
        {"person": 0.45, "cow": 0.75, "horse": 0.16, "bird": 0.6, "dog": 0.35},
        meadow, (0.58, 0.98),
    ),
    "park": Layout(
        0.1,
        {"person": 0.8, "dog": 0.6, "bird": 0.6, "bicycle": 0.45, "umbrella": 0.06, "book": 0.1,
         "chair": 0.08},
        park, (0.62, 0.98),
    ),
}  # fmt: skip

# Class weights of the split "context_shift", chosen so that each class is about as frequent as in the other splits,
# counting visible objects only: draw 3,000 images of each, scale the weights by the ratio, repeat.
SHIFT_WEIGHTS: dict[str, float] = {
    "person": 0.2622, "bicycle": 0.056, "car": 0.0624, "bus": 0.0071, "boat": 0.0387,
    "traffic light": 0.0359, "bird": 0.0555, "cat": 0.0287, "dog": 0.0673, "horse": 0.0051, "cow": 0.0206,
    "umbrella": 0.0053, "bottle": 0.0439, "cup": 0.0702, "bowl": 0.0345, "apple": 0.0048, "chair": 0.0573,
    "laptop": 0.069, "mouse": 0.0282, "book": 0.0477,
}  # fmt: skip
SHIFT_EXTRA = 0.15  # probability of one more class, since more objects are hidden in unusual layouts


def probability(name: str, layout: str) -> float:
    """The probability that an image of this layout has the class.

    A fraction `CONTEXT_FREE` of it is the mean over all layouts. Without that part, a network that recognizes the
    layout would not need to look at the objects; the overall frequency of the class is the same with and without it.
    """
    mean = sum(other.weight * other.classes.get(name, 0.0) for other in LAYOUTS.values())
    return (1 - CONTEXT_FREE) * LAYOUTS[layout].classes.get(name, 0.0) + CONTEXT_FREE * mean


def sample_classes(rng: Rng) -> tuple[str, list[str]]:
    """A layout and its classes: each with its probability, and a mouse mostly with a laptop."""
    layout = rng.weighted_choice({name: layout.weight for name, layout in LAYOUTS.items()})
    names = [name for name in CLASSES if rng.bernoulli(probability(name, layout))]
    if "mouse" in names and "laptop" not in names and rng.bernoulli(0.85):
        names.insert(0, "laptop")
    return layout, names


def sample_shifted_classes(rng: Rng) -> tuple[str, list[str]]:
    """As many classes as `sample_classes` draws, independent of each other, in a layout where few are typical."""
    count = len(sample_classes(rng)[1]) + rng.bernoulli(SHIFT_EXTRA)
    weights, names = dict(SHIFT_WEIGHTS), []
    for _ in range(count):
        names.append(rng.weighted_choice(weights))
        del weights[names[-1]]
    typical = {name: sum(label in layout.classes for label in names) for name, layout in LAYOUTS.items()}
    return min(LAYOUTS, key=lambda name: typical[name] + rng.random()), names
