"""Model cards."""

from __future__ import annotations

import re

import pytest
import yaml

from mlkd.deploy.card import write_card
from mlkd.deploy.load import load_run_model
from mlkd.metrics import evaluate
from mlkd.training.runs import Run


@pytest.fixture(scope="module")
def card(toy_run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("card") / "student.onnx"
    path = write_card(toy_run, load_run_model(toy_run), file)
    assert path == file.with_name("student.onnx.md")
    return path.read_text()


def test_the_front_matter_has_the_scores(card: str, toy_run: Run) -> None:
    _, front_matter, _ = card.split("---\n", 2)
    content = yaml.safe_load(front_matter)
    assert content["pipeline_tag"] == "image-classification"
    assert content["license"] == "other"
    assert content["library_name"] == "onnx"
    assert "vanilla" in content["tags"]
    (index,) = content["model-index"]
    results = {result["dataset"]["split"]: result["metrics"] for result in index["results"]}
    assert set(results) == {"val", "test"}
    assert results["test"][0] == {"type": "mAP", "value": pytest.approx(100 * toy_run.mean_ap["test"], abs=0.006)}


def test_scores_have_intervals_under_both_protocols(card: str, toy_run: Run) -> None:
    test, val = toy_run.predictions("test"), toy_run.predictions("val")
    for protocol in ("threshold(0.5)", "tuned"):
        scores = evaluate(test.targets, test.logits, protocol, validation=(val.targets, val.logits))
        values = []
        for metric in ("mAP", "CF1", "OF1"):
            low, high = scores["interval"][metric]
            values.append(f"{100 * scores[metric]:.2f} [{100 * low:.2f}, {100 * high:.2f}]")
        assert f"| test | 40 | {protocol} | {' | '.join(values)} |" in card
    assert "| val | 40 | tuned" not in card  # the thresholds were tuned on it


def test_it_states_data_settings_seed_and_versions(card: str, toy_run: Run) -> None:
    for name, digest in toy_run.config["data"]["splits"].items():
        assert f"| {name} | {digest} |" in card
    assert "Seed 0; the kept epoch is 1" in card
    settings = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card, re.S)[1])
    assert settings == {
        "method": {"vanilla": toy_run.config["settings"]},
        "training": toy_run.config["training"],
    }
    assert "| torch | " in card
    assert "license" in card.split("## License")[1]


def test_names_have_no_meaning_in_markdown_and_html(card: str, toy_run: Run) -> None:
    assert not re.search(r"(?<!\\)[<>&]", card.split("## Use")[1])
    assert r"\<script\>alert(1)\</script\>" in card
    assert r"cat \& dog" in card
    thresholds = load_run_model(toy_run).thresholds
    assert f"| blue | {thresholds[2]:.4f} |" in card
