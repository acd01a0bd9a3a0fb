"""Word vectors of class names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mlkd.models.word_vectors import class_vectors

CLASSES = ("cat", "traffic light", "sheep")


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    path = tmp_path / "glove.txt"
    path.write_text("the 9 9 9\ncat 1 2 3.5\n. . . 4 5 6\ntraffic 2 0 -2\ncat 0 0 0\nsheep 7 7 -7e-1\nlight 4 1 0\n")
    return path


def test_example(glove: Path) -> None:
    expected = torch.tensor([[1, 2, 3.5], [3, 0.5, -1], [7, 7, -0.7]])
    assert torch.equal(class_vectors(glove, CLASSES), expected)
    assert torch.equal(class_vectors(str(glove), CLASSES[::-1]), expected.flip(0))


@pytest.mark.parametrize(
    "name", ["Traffic light", "traffic_light", "LIGHT-traffic", "traffic / light", "light traffic!x "]
)
def test_several_words(glove: Path, name: str) -> None:
    """The mean of the words that the file has."""
    expected = [[3, 0.5, -1]] if "!" not in name else [[4, 1, 0]]
    assert class_vectors(glove, [name]).tolist() == expected


def test_word_of_the_file_is_not_split(glove: Path) -> None:
    glove.write_text(glove.read_text() + "traffic-light 1 1 1\n")
    assert class_vectors(glove, ["Traffic-light", "traffic light"]).tolist() == [[1, 1, 1], [3, 0.5, -1]]


def test_unknown_classes(glove: Path) -> None:
    with pytest.raises(ValueError, match=r"glove\.txt: has no word of 'tvmonitor', 'potted plant'\. Add a line"):
        class_vectors(glove, ["cat", "tvmonitor", "potted plant"])


@pytest.mark.parametrize("line", ["horse 1 2", "horse 1 2 x", "horse", "horse 1 nan 2", "horse 1 2 inf"])
def test_invalid_line(glove: Path, line: str) -> None:
    glove.write_text(glove.read_text() + line)
    with pytest.raises(ValueError, match=r"glove\.txt: line 8 \('horse'\) is not a word and 3 numbers"):
        class_vectors(glove, ["horse"])


def test_invalid_line_of_another_word(glove: Path) -> None:
    glove.write_text(glove.read_text() + "horse 1 2\nmouse 1 1 1\n")
    assert class_vectors(glove, ["mouse"]).tolist() == [[1, 1, 1]]


def test_word_with_spaces(glove: Path) -> None:
    """GloVe's largest file has "words" such as "at name@domain.com", which is not the word "at"."""
    glove.write_text("the 9 9 9\ncat name@domain.com 1 1 1\ncat 2 2 2\n")
    assert class_vectors(glove, ["cat"]).tolist() == [[2, 2, 2]]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"\n\n"])
def test_file_without_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empty.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"empty\.txt: has no word of 'cat'"):
        class_vectors(tmp_path / "empty.txt", ["cat"])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`word_vectors` is '.*missing\.txt': no such file"):
        class_vectors(tmp_path / "missing.txt", CLASSES)
