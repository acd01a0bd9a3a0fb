"""Messages of errors: the closest known name, and the first few of many."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlkd.errors import check_choice, closest_match, first_few


@pytest.mark.parametrize(("word", "match"), [("L2D", "l2d"), ("vanila", "vanilla")])
def test_closest_match(word: str, match: str) -> None:
    assert closest_match(word, ["vanilla", "l2d"]) == match


@pytest.mark.parametrize("word", ["zzz", ""])
def test_a_word_like_none_of_them_still_has_a_closest_match(word: str) -> None:
    assert closest_match(word, ["vanilla", "l2d"]) in ("vanilla", "l2d")


def test_the_match_keeps_its_case() -> None:
    assert closest_match("of1", ["CF1_macro", "OF1"]) == "OF1"


def test_first_few() -> None:
    assert first_few(["a", "b"]) == "a, b"
    assert first_few(list("abcdef"), most=2) == "a, b and 4 more"


def test_check_choice() -> None:
    check_choice("method", "l2d", iter(["l2d"]))
    with pytest.raises(ValueError, match=r"`method` is None, expected one of l2d, vanilla\. Did you mean"):
        check_choice("method", None, iter(["l2d", "vanilla"]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "module",
    ["mlkd", "mlkd.cli", "mlkd.deploy.onnx_model", "mlkd.errors", "mlkd.study", "mlkd.methods", "mlkd.training.runs"],
)
def test_importing_this_loads_no_torch(module: str) -> None:
    script = f"import sys, {module}; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output == "False\n"
