"""Files that are whole or absent, and where what can be made again is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mlkd.files import WriteError, atomic_write, cache_dir, create_memmap, create_once


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def not_as_root() -> Iterator[None]:
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


class TestWrittenWhole:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_written(self, tmp_path: Path, kind: type) -> None:
        path = tmp_path / "new" / "folder" / "file.txt"
        with atomic_write(kind(path)) as unfinished:
            unfinished.write_text("all of it")
            assert unfinished.parent == path.parent  # a rename within one disk
            assert not path.exists()
        assert path.read_text() == "all of it"
        assert names(path.parent) == ["file.txt"]

    def test_replaces(self, tmp_path: Path) -> None:
        (tmp_path / "file.txt").write_text("old")
        with atomic_write(tmp_path / "file.txt") as unfinished:
            unfinished.write_text("new")
            assert (tmp_path / "file.txt").read_text() == "old"
        assert (tmp_path / "file.txt").read_text() == "new"

    @pytest.mark.skipif(os.name != "posix", reason="files are flushed on POSIX systems")
    def test_it_is_on_the_disk_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else a power cut could leave empty files under their names."""
        done: list[object] = []
        flush, rename = os.fsync, os.replace

        def noted_flush(handle: int) -> None:
            done.append(os.fstat(handle).st_ino)
            flush(handle)

        def noted_rename(old: Path, new: Path) -> None:
            done.append(new.name)
            rename(old, new)

        monkeypatch.setattr(os, "fsync", noted_flush)
        monkeypatch.setattr(os, "replace", noted_rename)
        folder, file = tmp_path / "folder", tmp_path / "file"
        with atomic_write(folder) as unfinished:
            unfinished.mkdir()
            (unfinished / "a").write_text("a")
            (unfinished / "b").write_text("b")
        assert {path.stat().st_ino for path in (folder, folder / "a", folder / "b")} == set(done[:3])
        assert done[3:] == ["folder", tmp_path.stat().st_ino]
        with atomic_write(file) as unfinished:
            unfinished.write_text("c")
        assert done[5:] == [file.stat().st_ino, "file", tmp_path.stat().st_ino]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    @pytest.mark.parametrize("old", [None, "old"])
    def test_an_exception(self, tmp_path: Path, error: type[BaseException], old: str | None) -> None:
        path = tmp_path / "file.txt"
        if old is not None:
            path.write_text(old)

        def write() -> None:
            with atomic_write(path) as unfinished:
                unfinished.write_text("half of")
                raise error

        with pytest.raises(error):
            write()
        assert names(tmp_path) == ([] if old is None else ["file.txt"])
        assert old is None or path.read_text() == old

    def test_an_exception_before_the_first_byte(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="nothing"), atomic_write(tmp_path / "file.txt"):
            raise ValueError("nothing")
        assert names(tmp_path) == []

    def test_nothing_written(self, tmp_path: Path) -> None:
        """A block that forgets to write is an error, and the old file stays."""
        (tmp_path / "file.txt").write_text("old")
        with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file.txt"):
            pass
        assert (tmp_path / "file.txt").read_text() == "old"


class TestCacheFolder:
    def test_chosen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
        monkeypatch.setenv("MLKD_CACHE", str(tmp_path))
        assert cache_dir() == tmp_path

    @pytest.mark.parametrize("chosen", ["", None])
    def test_usual(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None) -> None:
        monkeypatch.delenv("MLKD_CACHE", raising=False)
        if chosen is not None:
            monkeypatch.setenv("MLKD_CACHE", chosen)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_dir() == tmp_path / "mlkd"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_dir() == tmp_path / ".cache" / "mlkd"


SHAPE = (1000, 256)


class TestMadeOnce:
    def test_made_and_then_found(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "file.txt"
        create_once(path, lambda unfinished: unfinished.write_text("first"))
        create_once(path, lambda unfinished: unfinished.write_text("second"))
        assert path.read_text() == "first"
        assert names(path.parent) == ["file.txt"]

    def test_what_a_killed_process_left_is_taken_away(self, tmp_path: Path) -> None:
        for name in (".file[1].here.7.unfinished", ".other.here.7.unfinished"):
            (tmp_path / name).write_text("half of")
        create_once(tmp_path / "file[1]", lambda unfinished: unfinished.write_text("all of it"))
        assert names(tmp_path) == [".other.here.7.unfinished", "file[1]"]

    def test_an_exception(self, tmp_path: Path) -> None:
        def fail(unfinished: Path) -> None:
            unfinished.write_text("half of")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            create_once(tmp_path / "file.txt", fail)
        assert names(tmp_path) == []
        create_once(tmp_path / "file.txt", lambda unfinished: unfinished.write_text("all of it"))
        assert names(tmp_path) == ["file.txt"]

    @pytest.mark.parametrize("below", ["file.txt", "further/file.txt"])
    def test_a_file_in_the_way_is_told(self, tmp_path: Path, below: str) -> None:
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(WriteError, match=r"cache.*file.txt: could not be written, a part of that path is a file"):
            create_once(tmp_path / "cache" / below, lambda unfinished: unfinished.write_text("all of it"))

    @pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users as on Unix")
    def test_a_folder_of_someone_else_is_told(self) -> None:
        """Root may write everywhere, so there another user asks; pytest's own folders are closed to others."""
        told = r"file.txt: could not be written, you may not write there. Make room or"
        with tempfile.TemporaryDirectory() as name:
            os.chmod(name, 0o555)
            with pytest.raises(WriteError, match=told), not_as_root():
                create_once(Path(name) / "file.txt", lambda unfinished: unfinished.write_text("all of it"))
            assert names(Path(name)) == []
            os.chmod(name, 0o755)

    def test_one_process_makes_it_and_the_others_wait(self, tmp_path: Path) -> None:
        script = f"""
import os, sys, time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from mlkd.files import create_once

def make(unfinished):
    Path({str(tmp_path)!r}, f"made-by-{{os.getpid()}}").touch()
    time.sleep(0.5)
    unfinished.write_text("all of it")

path = Path({str(tmp_path / "cache" / "file.txt")!r})
print("ready", flush=True)
sys.stdin.readline()
create_once(path, make)
print(path.read_text())
"""
        command = [sys.executable, "-c", script]
        pipe = subprocess.PIPE
        several = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
        for process in several:
            assert process.stdout.readline() == "ready\n"
        for process in several:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.communicate(timeout=60)[0] for process in several] == ["all of it\n"] * 3
        assert len(list(tmp_path.glob("made-by-*"))) == 1
        assert names(tmp_path / "cache") == ["file.txt"]


class TestNewMap:
    def test_filled_and_read(self, tmp_path: Path) -> None:
        table = create_memmap(tmp_path / "table.npy", np.float32, (3, 4))
        table[:] = np.arange(12).reshape(3, 4)
        table.flush()
        assert np.load(tmp_path / "table.npy").tolist() == np.arange(12.0).reshape(3, 4).tolist()

    @pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room for a file")
    def test_its_room_is_taken_at_once(self, tmp_path: Path) -> None:
        create_memmap(tmp_path / "table.npy", np.uint8, SHAPE)
        status = (tmp_path / "table.npy").stat()
        assert 512 * status.st_blocks >= status.st_size > 256_000

    @pytest.mark.skipif(sys.platform == "win32", reason="no such limit on Windows")
    def test_a_full_disk(self, tmp_path: Path) -> None:
        """An error, where writing to a map without room ends the process; and no half-made file is left."""
        script = f"""
import resource
import numpy as np
from mlkd.files import create_memmap, atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with atomic_write({str(tmp_path / "table.npy")!r}) as unfinished:
        create_memmap(unfinished, np.uint8, {SHAPE})[:] = 1
except OSError:
    print("an error")
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "an error\n"), done.stderr
        assert names(tmp_path) == []
