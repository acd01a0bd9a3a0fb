"""Files that are complete or absent, and the cache folder."""

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


class TestAtomicWrite:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_new_file(self, tmp_path: Path, kind: type) -> None:
        path = tmp_path / "new" / "folder" / "file.txt"
        with atomic_write(kind(path)) as unfinished:
            unfinished.write_text("complete")
            assert unfinished.parent == path.parent  # a rename within one disk
            assert not path.exists()
        assert path.read_text() == "complete"
        assert names(path.parent) == ["file.txt"]

    def test_old_file_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "file.txt").write_text("old")
        with atomic_write(tmp_path / "file.txt") as unfinished:
            unfinished.write_text("new")
            assert (tmp_path / "file.txt").read_text() == "old"
        assert (tmp_path / "file.txt").read_text() == "new"

    @pytest.mark.skipif(os.name != "posix", reason="files are flushed on POSIX systems")
    def test_content_is_flushed_before_the_rename(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise a power failure could leave empty files."""
        calls: list[object] = []
        flush, rename = os.fsync, os.replace

        def record_flush(handle: int) -> None:
            calls.append(os.fstat(handle).st_ino)
            flush(handle)

        def record_rename(old: Path, new: Path) -> None:
            calls.append(new.name)
            rename(old, new)

        monkeypatch.setattr(os, "fsync", record_flush)
        monkeypatch.setattr(os, "replace", record_rename)
        folder, file = tmp_path / "folder", tmp_path / "file"
        with atomic_write(folder) as unfinished:
            unfinished.mkdir()
            (unfinished / "a").write_text("a")
            (unfinished / "b").write_text("b")
        assert {path.stat().st_ino for path in (folder, folder / "a", folder / "b")} == set(calls[:3])
        assert calls[3:] == ["folder", tmp_path.stat().st_ino]
        with atomic_write(file) as unfinished:
            unfinished.write_text("c")
        assert calls[5:] == [file.stat().st_ino, "file", tmp_path.stat().st_ino]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    @pytest.mark.parametrize("old", [None, "old"])
    def test_exception(self, tmp_path: Path, error: type[BaseException], old: str | None) -> None:
        path = tmp_path / "file.txt"
        if old is not None:
            path.write_text(old)

        def write() -> None:
            with atomic_write(path) as unfinished:
                unfinished.write_text("incomplete")
                raise error

        with pytest.raises(error):
            write()
        assert names(tmp_path) == ([] if old is None else ["file.txt"])
        assert old is None or path.read_text() == old

    def test_exception_before_the_first_byte(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="nothing"), atomic_write(tmp_path / "file.txt"):
            raise ValueError("nothing")
        assert names(tmp_path) == []

    def test_nothing_written(self, tmp_path: Path) -> None:
        """A block that writes nothing is an error, and the old file is unchanged."""
        (tmp_path / "file.txt").write_text("old")
        with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file.txt"):
            pass
        assert (tmp_path / "file.txt").read_text() == "old"


class TestCacheDir:
    def test_environment_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
        monkeypatch.setenv("MLKD_CACHE", str(tmp_path))
        assert cache_dir() == tmp_path

    @pytest.mark.parametrize("value", ["", None])
    def test_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
        monkeypatch.delenv("MLKD_CACHE", raising=False)
        if value is not None:
            monkeypatch.setenv("MLKD_CACHE", value)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_dir() == tmp_path / "mlkd"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_dir() == tmp_path / ".cache" / "mlkd"


SHAPE = (1000, 256)


class TestCreateOnce:
    def test_second_call_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "file.txt"
        create_once(path, lambda unfinished: unfinished.write_text("first"))
        create_once(path, lambda unfinished: unfinished.write_text("second"))
        assert path.read_text() == "first"
        assert names(path.parent) == ["file.txt"]

    def test_leftovers_of_a_killed_process_are_removed(self, tmp_path: Path) -> None:
        for name in (".file[1].here.7.unfinished", ".other.here.7.unfinished"):
            (tmp_path / name).write_text("incomplete")
        create_once(tmp_path / "file[1]", lambda unfinished: unfinished.write_text("complete"))
        assert names(tmp_path) == [".other.here.7.unfinished", "file[1]"]

    def test_exception(self, tmp_path: Path) -> None:
        def fail(unfinished: Path) -> None:
            unfinished.write_text("incomplete")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            create_once(tmp_path / "file.txt", fail)
        assert names(tmp_path) == []
        create_once(tmp_path / "file.txt", lambda unfinished: unfinished.write_text("complete"))
        assert names(tmp_path) == ["file.txt"]

    @pytest.mark.parametrize("below", ["file.txt", "folder/file.txt"])
    def test_parent_is_a_file(self, tmp_path: Path, below: str) -> None:
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(WriteError, match=r"cache.*file.txt: could not be written: a parent folder"):
            create_once(tmp_path / "cache" / below, lambda unfinished: unfinished.write_text("complete"))

    @pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users as on Unix")
    def test_permission_denied(self) -> None:
        """Root may write everywhere, so the test writes as another user, outside of pytest's private folders."""
        message = r"file.txt: could not be written: permission denied. Free some space or"
        with tempfile.TemporaryDirectory() as name:
            os.chmod(name, 0o555)
            with pytest.raises(WriteError, match=message), not_as_root():
                create_once(Path(name) / "file.txt", lambda unfinished: unfinished.write_text("complete"))
            assert names(Path(name)) == []
            os.chmod(name, 0o755)

    def test_one_process_creates_and_the_others_wait(self, tmp_path: Path) -> None:
        script = f"""
import os, sys, time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from mlkd.files import create_once

def create(unfinished):
    Path({str(tmp_path)!r}, f"created-by-{{os.getpid()}}").touch()
    time.sleep(0.5)
    unfinished.write_text("complete")

path = Path({str(tmp_path / "cache" / "file.txt")!r})
print("ready", flush=True)
sys.stdin.readline()
create_once(path, create)
print(path.read_text())
"""
        command = [sys.executable, "-c", script]
        pipe = subprocess.PIPE
        processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.communicate(timeout=60)[0] for process in processes] == ["complete\n"] * 3
        assert len(list(tmp_path.glob("created-by-*"))) == 1
        assert names(tmp_path / "cache") == ["file.txt"]


class TestCreateMemmap:
    def test_written_and_read(self, tmp_path: Path) -> None:
        table = create_memmap(tmp_path / "table.npy", np.float32, (3, 4))
        table[:] = np.arange(12).reshape(3, 4)
        table.flush()
        assert np.load(tmp_path / "table.npy").tolist() == np.arange(12.0).reshape(3, 4).tolist()

    @pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve disk space")
    def test_disk_space_is_reserved(self, tmp_path: Path) -> None:
        create_memmap(tmp_path / "table.npy", np.uint8, SHAPE)
        status = (tmp_path / "table.npy").stat()
        assert 512 * status.st_blocks >= status.st_size > 256_000

    @pytest.mark.skipif(sys.platform == "win32", reason="no such limit on Windows")
    def test_full_disk(self, tmp_path: Path) -> None:
        """An error and no file; without reserved space, writing to the map would kill the process."""
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
        process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (process.returncode, process.stdout) == (0, "an error\n"), process.stderr
        assert names(tmp_path) == []
