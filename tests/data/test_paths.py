"""Paths where something else than a readable file is: one sentence each, and nothing waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlkd.data import DataError
from mlkd.data.decode import decode_file, image_size
from mlkd.data.paths import check_file, check_folder, read_file


def write_nothing(path: Path) -> None:
    pass


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (write_nothing, "no such file"),
    "folder": (Path.mkdir, "a folder, not a file"),
    "pipe": (os.mkfifo, "a pipe or a device, not a file"),
    "dangling link": (lambda path: path.symlink_to("absent"), "a link to a file that does not exist"),
    "link to itself": (lambda path: path.symlink_to(path.name), "a link that leads to itself"),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_file(tmp_path: Path, place: str) -> None:
    write, reason = PLACES[place]
    path = tmp_path / "a.jpg"
    write(path)
    for read in (decode_file, image_size, check_file, lambda path: read_file(path, "a list")):
        with pytest.raises(DataError, match=rf"a\.jpg: {reason}; expected a[^\n]*[.?]$"):
            read(path)


@pytest.mark.parametrize(("name", "reason"), [("a" * 256, "the name is too long"), ("a\0b", "no such file")])
def test_impossible_names(tmp_path: Path, name: str, reason: str) -> None:
    for read in (
        decode_file,
        image_size,
        lambda path: read_file(path, "a list"),
        lambda path: check_folder(path, "one"),
    ):
        with pytest.raises(DataError, match=reason.replace("file", "(file|folder)")):
            read(tmp_path / name)


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("")
    with pytest.raises(DataError, match="a: a file, not a folder; expected one with images"):
        check_folder(path, "one with images")
    with pytest.raises(DataError, match="b: no such file"):
        check_file(path / "b")


def deny(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions are not checked for the superuser, so opening is replaced."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    monkeypatch.setattr(Path, "open", deny)
    monkeypatch.setattr(Path, "read_bytes", deny)
    for read in (decode_file, lambda path: read_file(path, "a list")):
        with pytest.raises(DataError, match=r"a\.jpg: permission denied; expected a"):
            read(path)
    monkeypatch.setattr(Path, "stat", deny)
    for check in (check_file, lambda path: check_folder(path, "one")):
        with pytest.raises(DataError, match=r"a\.jpg: permission denied; expected "):
            check(path)


def test_other_errors_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "a").write_text("")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DataError, match=r"a: cannot be read \(Input/output error\)"):
        read_file(tmp_path / "a", "a list")
