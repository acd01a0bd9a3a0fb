"""Word vectors of class names."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def class_vectors(path: str | Path, classes: Sequence[str]) -> Tensor:
    """One word vector per class, (q, n), from a text file in GloVe's format: a word and n numbers per line.

    Words are looked up in lower case. A class name that is not a word of the file ("traffic light") gets the mean of
    the vectors of those of its words that are in the file.

    Source of the files: Pennington et al., GloVe: Global Vectors for Word Representation, EMNLP 2014.

    Raises:
        ValueError: no such file, a line is not a word and n numbers, or the file has no word of a class.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`word_vectors` is {str(path)!r}: no such file; expected a text file of GloVe vectors.")
    words = {name: [name.lower(), *re.split(r"[\s_/-]+", name.lower())] for name in classes}
    known = _read(path, {word for class_words in words.values() for word in class_words if word and " " not in word})
    vectors, unknown = [], []
    for name, (full_name, *class_words) in words.items():
        rows = [known[word] for word in ([full_name] if full_name in known else class_words) if word in known]
        if rows:
            vectors.append(torch.tensor(rows, dtype=torch.float64).mean(dim=0).float())
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"{path}: has no word of {', '.join(map(repr, unknown))}. Add a line for each to a copy of the file, such "
            f"as the vector of a synonym."
        )
    return torch.stack(vectors)


def _read(path: Path, words: set[str]) -> dict[str, list[float]]:
    """The vectors of `words`; reading stops at the last of them. If a word occurs twice, its first line counts."""
    vectors: dict[str, list[float]] = {}
    size = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            word, _, numbers = line.partition(" ")
            size = size or len(numbers.split())
            if word not in words or word in vectors:
                continue
            values = numbers.split()
            if len(values) > size:  # some of GloVe's "words" contain spaces, such as "at name@domain.com"
                continue
            try:
                vector = [float(value) for value in values]
            except ValueError:
                vector = []
            if not vector or len(vector) < size or not all(map(math.isfinite, vector)):
                raise ValueError(f"{path}: line {number} ({word!r}) is not a word and {size} numbers.")
            vectors[word] = vector
            if len(vectors) == len(words):
                break
    return vectors
