"""Where the scenes play, who lives there, and who is in a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlkd.scenes.backgrounds import harbour, living, meadow, park, room, street
from mlkd.scenes.drawing import Dice, Pen
from mlkd.scenes.kinds import CLASSES

CHANCE = 0.5  # share of the objects that are in a picture by chance, wherever it plays: see `probability`


@dataclass(frozen=True)
class Place:
    """A kind of scene.

    Attributes:
        weight: share of the scenes that play here.
        live: how probable each class that lives here is to be in a picture where nothing is by chance.
        back: draws everything behind the objects.
        ground: heights (shares of the picture) between which objects stand, far to near.
        table: height of the back edge of a table across the picture, or None. Small things stand on it, and
            it hides the lower part of the others.
        afloat: heights between which boats swim, when there is water.
    """

    weight: float
    live: dict[str, float]
    back: Callable[[Pen, Dice], None]
    ground: tuple[float, float]
    table: float | None = None
    afloat: tuple[float, float] | None = None


PLACES: dict[str, Place] = {
    "desk": Place(
        0.18,
        {"person": 0.48, "laptop": 0.75, "mouse": 0.55, "book": 0.58, "cup": 0.5, "bottle": 0.2,
         "chair": 0.35, "cat": 0.15, "apple": 0.03},
        room, (0.7, 0.9), table=0.6,
    ),
    "kitchen": Place(
        0.17,
        {"person": 0.52, "bottle": 0.65, "cup": 0.55, "bowl": 0.7, "apple": 0.07, "chair": 0.4, "cat": 0.12},
        room, (0.7, 0.9), table=0.56,
    ),
    "living": Place(
        0.13,
        {"person": 0.55, "chair": 0.65, "book": 0.55, "cat": 0.5, "dog": 0.4, "cup": 0.3, "bottle": 0.12,
         "laptop": 0.12},
        living, (0.66, 0.95), table=0.8,
    ),
    "street": Place(
        0.2,
        {"person": 0.75, "car": 0.85, "bus": 0.1, "bicycle": 0.5, "traffic light": 0.6, "umbrella": 0.05,
         "dog": 0.15},
        street, (0.68, 0.99),
    ),
    "harbour": Place(
        0.12,
        {"person": 0.65, "boat": 0.95, "bird": 0.7, "umbrella": 0.03, "bicycle": 0.2, "dog": 0.12},
        harbour, (0.84, 0.99), afloat=(0.46, 0.8),
    ),
    "meadow": Place(
        0.1,
        {"person": 0.45, "cow": 0.75, "horse": 0.16, "bird": 0.6, "dog": 0.35},
        meadow, (0.58, 0.98),
    ),
    "park": Place(
        0.1,
        {"person": 0.8, "dog": 0.6, "bird": 0.6, "bicycle": 0.45, "umbrella": 0.06, "book": 0.1,
         "chair": 0.08},
        park, (0.62, 0.98),
    ),
}  # fmt: skip

# Weights with which "context_shift" chooses classes. Each is then about as frequent as in the other splits,
# counting what stays visible: found by drawing 3,000 pictures of each, scaling by the ratio, and repeating.
SHIFT_WEIGHTS: dict[str, float] = {
    "person": 0.2622, "bicycle": 0.056, "car": 0.0624, "bus": 0.0071, "boat": 0.0387,
    "traffic light": 0.0359, "bird": 0.0555, "cat": 0.0287, "dog": 0.0673, "horse": 0.0051, "cow": 0.0206,
    "umbrella": 0.0053, "bottle": 0.0439, "cup": 0.0702, "bowl": 0.0345, "apple": 0.0048, "chair": 0.0573,
    "laptop": 0.069, "mouse": 0.0282, "book": 0.0477,
}  # fmt: skip
SHIFT_MORE = 0.15  # probability of one more class, since more is hidden where things do not belong


def probability(name: str, place: str) -> float:
    """How probable it is that a picture of this place has the class.

    Where it lives decides, but not alone: a share `CHANCE` is as in any place. Without it, a network that tells the
    places apart has no need to look at the objects; with it the classes are as frequent as before.
    """
    anywhere = sum(p.weight * p.live.get(name, 0.0) for p in PLACES.values())
    return (1 - CHANCE) * PLACES[place].live.get(name, 0.0) + CHANCE * anywhere


def cast(dice: Dice) -> tuple[str, list[str]]:
    """A place and who is there: each class with its probability, the mouse mostly with a laptop."""
    place = dice.weighted({name: p.weight for name, p in PLACES.items()})
    names = [name for name in CLASSES if dice.chance(probability(name, place))]
    if "mouse" in names and "laptop" not in names and dice.chance(0.85):
        names.insert(0, "laptop")
    return place, names


def shifted_cast(dice: Dice) -> tuple[str, list[str]]:
    """As many classes as `cast` draws and as often, but independent of each other and away from home."""
    count = len(cast(dice)[1]) + dice.chance(SHIFT_MORE)
    left, names = dict(SHIFT_WEIGHTS), []
    for _ in range(count):
        names.append(dice.weighted(left))
        del left[names[-1]]
    at_home = {place: sum(name in p.live for name in names) for place, p in PLACES.items()}
    return min(PLACES, key=lambda place: at_home[place] + dice.unit()), names
