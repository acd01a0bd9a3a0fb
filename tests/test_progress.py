"""The progress display of a training."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from mlkd.progress import PROGRESS_FILE, Progress, is_interactive


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def train(done: int = 0) -> None:
    with Progress("l2d student, seed 0", 3, 4, 16, done) as progress:
        for epoch in range(done, 3):
            for _ in range(4):
                progress.last_update = 0.0  # as if half a second had passed
                progress.step(epoch, {"bce": 1.23456, "mld": 0.001})
            progress.epoch(
                epoch,
                {
                    "epoch": epoch + 1,
                    "lr": 0.01,
                    "bce": 1.23456,
                    "val_mAP": 0.5,
                    "seconds": 2.0,
                    "images_per_second": 226.4,
                },
            )


@pytest.fixture(autouse=True)
def no_status_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRESS_FILE, raising=False)


def test_one_line_for_each_epoch_without_a_terminal(capsys: pytest.CaptureFixture) -> None:
    train()
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"l2d student, seed 0: epoch {epoch}/3, bce 1.23, val_mAP 0.5, 226 img/s" for epoch in (1, 2, 3)
    ]
    assert captured.err == ""


def test_a_live_bar_in_a_terminal(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    train()
    assert capsys.readouterr().out == ""
    shown = terminal.getvalue()
    assert shown.startswith("\rl2d student, seed 0:   0%|")
    assert "12/12" in shown
    assert "bce 1.23, mld 0.001, " in shown
    assert " img/s" in shown
    assert " left" in shown


def test_the_bar_of_a_resumed_training_starts_at_its_epoch(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    train(done=2)
    assert " 8/12" in terminal.getvalue()
    assert " 7/12" not in terminal.getvalue()


def test_the_status_file_has_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, terminal = tmp_path / "status", Terminal()
    monkeypatch.setenv(PROGRESS_FILE, str(status))
    monkeypatch.setattr(sys, "stderr", terminal)  # under a report the bar belongs to the report
    train()
    line = status.read_text()
    assert line.startswith("l2d student, seed 0: epoch 3/3, bce 1.23, mld 0.001, ")
    assert line.endswith(" img/s")
    assert terminal.getvalue() == ""
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_display_is_updated_at_most_twice_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, now = tmp_path / "status", [1000.0]
    monkeypatch.setenv(PROGRESS_FILE, str(status))
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    updated = []
    with Progress("student", 1, 20, 16) as progress:
        for _ in range(20):
            now[0] += 0.125
            status.unlink(missing_ok=True)
            progress.step(0, {"bce": 1.0})
            updated.append(status.is_file())
        assert progress.images_per_second == pytest.approx(16 / 0.125)
    assert updated == [True, False, False, False] * 5


def test_an_error_closes_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyboardInterrupt), Progress("student", 1, 4, 16) as progress:
        raise KeyboardInterrupt
    assert terminal.getvalue().endswith("\n")
    assert progress.bar.disable


def test_a_silent_display_shows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in all but the first process of a distributed training."""
    status, terminal = tmp_path / "status", Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("student", 1, 1, 16, silent=True) as progress:
        progress.step(0, {"bce": 1.0})
        progress.epoch(0, {"bce": 1.0, "images_per_second": 1.0})
    monkeypatch.setenv(PROGRESS_FILE, str(status))
    with Progress("student", 1, 1, 16, silent=True) as progress:
        progress.step(0, {"bce": 1.0})
    assert terminal.getvalue() == capsys.readouterr().out == ""
    assert not status.exists()


def test_a_status_file_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRESS_FILE, str(tmp_path / "absent" / "status"))
    with Progress("student", 1, 1, 16) as progress:
        progress.step(0, {"bce": 1.0})
    assert progress.steps_done == 1


def test_output_is_interactive_in_a_terminal_but_not_under_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not is_interactive()
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert is_interactive()
    monkeypatch.setenv(PROGRESS_FILE, "status")
    assert not is_interactive()
