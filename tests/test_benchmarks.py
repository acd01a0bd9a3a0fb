"""Every benchmark runs in its smoke size; the times themselves are not tested."""

from __future__ import annotations

import importlib
import math

import pytest

from benchmarks import scale
from benchmarks.timing import compare, summarize


@pytest.fixture(autouse=True)
def _private_environment(monkeypatch):
    """Some benchmarks set these variables; they are restored after each test."""
    for name in ("MLKD_CACHE", "MLKD_PROGRESS_FILE"):
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize(
    "name", ["led", "ps", "mdkd", "step", "labels", "images", "epoch", "shared_machine", "precision"]
)
def test_benchmark_runs_in_smoke_size(name):
    rows = importlib.import_module(f"benchmarks.{name}").run(smoke=True)
    assert rows
    for row in rows:
        assert row.title
        assert all(math.isfinite(value) and value > 0 for value in row[1:]), row


@pytest.mark.parametrize("name", scale.GROWTHS)
def test_growth_prints_both_times_memory_and_a_note(name, capsys):
    scale.measure(name, 1000 if name in ("cgp", "dgp") else 10)
    wall, cpu, memory, note = capsys.readouterr().out.strip().split("\t")
    assert all(float(value) >= 0 for value in (wall, cpu, memory))
    assert note


def test_ratio_is_the_median_over_pairs():
    row = summarize("title", [(1.0, 2.0), (2.0, 8.0), (4.0, 4.0)])
    assert row == ("title", 2.0, 4.0, 2.0)


def test_compare_calls_both_in_turn_after_a_warm_up():
    calls = []
    compare("title", lambda: calls.append("a"), lambda: calls.append("b"), repeats=2)
    assert "".join(calls) == "ababab"
