"""A private cache folder for each test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real label files are old enough for the index cache; it must not fill the user's folder."""
    monkeypatch.setenv("MLKD_CACHE", str(tmp_path / "cache"))
