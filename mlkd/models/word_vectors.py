"""Class names as word vectors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def class_vectors(path: str | Path, classes: Sequence[str]) -> Tensor:
    """One word vector per class, (q, n), from a text file as GloVe has them: a word and n numbers a line.

    Words are looked up in small letters. A class that is no word of the file itself ("traffic light") is the mean of
    those of its words that are.

    Source of the files: Pennington et al., GloVe: Global Vectors for Word Representation, EMNLP 2014.

    Raises:
        ValueError: no such file, a line that is none of a word and numbers, or classes of which the file has no word.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`word_vectors` is {str(path)!r}: no such file; expected a text file of GloVe's vectors.")
    words = {name: [name.lower(), *re.split(r"[\s_/-]+", name.lower())] for name in classes}
    found = _read(path, {word for of_class in words.values() for word in of_class if word and " " not in word})
    vectors, unknown = [], []
    for name, (whole, *parts) in words.items():
        known = [found[word] for word in ([whole] if whole in found else parts) if word in found]
        if known:
            vectors.append(torch.tensor(known, dtype=torch.float64).mean(dim=0).float())
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"{path}: has no word of {', '.join(map(repr, unknown))}. Add a line for each to a copy of the file, such "
            f"as the vector of a word that means the same."
        )
    return torch.stack(vectors)


def _read(path: Path, wanted: set[str]) -> dict[str, list[float]]:
    """The vectors of the wanted words; the search ends with the last of them. A word that comes twice counts once."""
    found: dict[str, list[float]] = {}
    size = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            word, _, numbers = line.partition(" ")
            size = size or len(numbers.split())
            if word not in wanted or word in found:
                continue
            values = numbers.split()
            if len(values) > size:  # some of GloVe's "words" have blanks, "at name@domain.com" for one
                continue
            try:
                vector = [float(value) for value in values]
            except ValueError:
                vector = []
            if not vector or len(vector) < size:
                raise ValueError(f"{path}: line {number} ({word!r}) is not a word and {size} numbers.")
            found[word] = vector
            if len(found) == len(wanted):
                break
    return found
