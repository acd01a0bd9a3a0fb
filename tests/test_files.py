"""Files that are whole or absent, and where what can be made again is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlkd.files import cache_folder, written_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestWrittenWhole:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_written(self, tmp_path: Path, kind: type) -> None:
        path = tmp_path / "new" / "folder" / "file.txt"
        with written_whole(kind(path)) as unfinished:
            unfinished.write_text("all of it")
            assert unfinished.parent == path.parent  # a rename within one disk
            assert not path.exists()
        assert path.read_text() == "all of it"
        assert names(path.parent) == ["file.txt"]

    def test_replaces(self, tmp_path: Path) -> None:
        (tmp_path / "file.txt").write_text("old")
        with written_whole(tmp_path / "file.txt") as unfinished:
            unfinished.write_text("new")
            assert (tmp_path / "file.txt").read_text() == "old"
        assert (tmp_path / "file.txt").read_text() == "new"

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    @pytest.mark.parametrize("old", [None, "old"])
    def test_an_exception(self, tmp_path: Path, error: type[BaseException], old: str | None) -> None:
        path = tmp_path / "file.txt"
        if old is not None:
            path.write_text(old)

        def write() -> None:
            with written_whole(path) as unfinished:
                unfinished.write_text("half of")
                raise error

        with pytest.raises(error):
            write()
        assert names(tmp_path) == ([] if old is None else ["file.txt"])
        assert old is None or path.read_text() == old

    def test_an_exception_before_the_first_byte(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="nothing"), written_whole(tmp_path / "file.txt"):
            raise ValueError("nothing")
        assert names(tmp_path) == []

    def test_nothing_written(self, tmp_path: Path) -> None:
        """A block that forgets to write is an error, and the old file stays."""
        (tmp_path / "file.txt").write_text("old")
        with pytest.raises(FileNotFoundError), written_whole(tmp_path / "file.txt"):
            pass
        assert (tmp_path / "file.txt").read_text() == "old"


class TestCacheFolder:
    def test_chosen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
        monkeypatch.setenv("MLKD_CACHE", str(tmp_path))
        assert cache_folder() == tmp_path

    @pytest.mark.parametrize("chosen", ["", None])
    def test_usual(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None) -> None:
        monkeypatch.delenv("MLKD_CACHE", raising=False)
        if chosen is not None:
            monkeypatch.setenv("MLKD_CACHE", chosen)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder() == tmp_path / "mlkd"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache" / "mlkd"
