"""Several processes from a notebook, and where they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlkd

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.soak
def test_a_run_is_followed_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--preset", "smoke", "--runs", str(tmp_path), "--set", "epochs=2", "--set", "batch_size=16"]
    run = mlkd.launch(*arguments, processes=2)
    assert run.complete
    assert run.path.parent == tmp_path
    assert "2/2" in capsys.readouterr().err


def test_what_went_wrong_is_shown(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)failed:\nmlkd: There is no setting 'epoch'. Did you mean 'epo"):
        mlkd.launch("--preset", "smoke", "--runs", str(tmp_path), "--set", "epoch=2", processes=1)
