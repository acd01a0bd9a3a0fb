"""Gradients of loss terms: by hand, per class, and without side effects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from interruption import interrupt
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from mlkd.cli import cli
from mlkd.data import MultiLabelData
from mlkd.losses.classification import bce
from mlkd.losses.l2d import mld
from mlkd.methods import create_method
from mlkd.models import MultiLabelModel
from mlkd.training.config import Config
from mlkd.training.gradients import gradients
from mlkd.training.loop import fit
from mlkd.training.runs import Run

Data = Mapping[str, MultiLabelData]


def test_by_hand() -> None:
    """Gradients (3, 4), (0, 10) and (-6, -8): norms 5, 10 and 10."""
    x, y = (nn.Parameter(torch.tensor(value)) for value in (1.0, 2.0))
    table = gradients({"bce": 3 * x + 4 * y, "up": 10 * y, "back": -6 * x - 8 * y}, [x, y]).set_index("term")
    assert table["norm"].tolist() == pytest.approx([5, 10, 10])
    assert table["fraction"].tolist() == pytest.approx([0.2, 0.4, 0.4])
    assert table["cosine"].tolist() == pytest.approx([1, 0.8, -1])
    assert table["class"].tolist() == ["", "", ""]
    assert gradients({"bce": x, "up": y}, [x, y], base="up")["cosine"].tolist() == [0, 1]


def network() -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    return net, torch.randn(4, 5), (torch.rand(4, 3) < 0.5).float(), torch.randn(4, 3)


def plain(gradients: dict[str, list[float]], base: str) -> dict[str, tuple[float, float]]:
    """Fraction and cosine of each term, number by number."""
    norms = {name: math.sqrt(sum(v**2 for v in vector)) for name, vector in gradients.items()}
    expected = {}
    for name, vector in gradients.items():
        dot = sum(a * b for a, b in zip(gradients[base], vector, strict=True))
        expected[name] = norms[name] / sum(norms.values()), dot / norms[base] / norms[name]
    return expected


def test_terms_of_a_network_against_one_backward_each() -> None:
    net, images, targets, teacher = network()
    logits = net(images)
    terms = {"bce": bce(logits, targets), "mld": mld(logits, teacher)}
    vectors = {}
    for name, value in terms.items():
        net.zero_grad()
        value.backward(retain_graph=True)
        vectors[name] = [number for p in net.parameters() for number in p.grad.flatten().tolist()]
    table = gradients(terms, net.parameters()).set_index("term")
    for name, (fraction, cosine) in plain(vectors, "bce").items():
        assert table.loc[name, "fraction"] == pytest.approx(fraction, rel=1e-5)
        assert table.loc[name, "cosine"] == pytest.approx(cosine, rel=1e-4)


def test_classes_against_derivatives_by_hand() -> None:
    """The derivative at a logit: p - y for the BCE, (p - p of the teacher) / b for MLD, known for a mixed term."""
    net, images, targets, teacher = network()
    logits = net(images)
    mixing = (logits.sum(dim=1) ** 2).sum()  # every class has the derivative twice the sum
    terms = {"bce": bce(logits, targets), "mld": mld(logits, teacher), "mix": mixing}
    table = gradients(terms, net.parameters(), outputs=logits, classes=("a", "b", "c"))
    assert len(table) == 3 * 4
    for k, label in enumerate("abc"):
        vectors: dict[str, list[float]] = {"bce": [], "mld": [], "mix": []}
        for i in range(4):
            p = logits[i, k].sigmoid().item()
            vectors["bce"].append(p - targets[i, k].item())
            vectors["mld"].append((p - teacher[i, k].sigmoid().item()) / 4)
            vectors["mix"].append(2 * logits[i].sum().item())
        rows = table[table["class"] == label].set_index("term")
        for name, (fraction, cosine) in plain(vectors, "bce").items():
            assert rows.loc[name, "fraction"] == pytest.approx(fraction, rel=1e-4)
            assert rows.loc[name, "cosine"] == pytest.approx(cosine, rel=1e-4)


def test_gradients_and_graph_are_kept() -> None:
    net, images, targets, teacher = network()
    logits = net(images)
    terms = {"bce": bce(logits, targets), "mld": mld(logits, teacher)}
    net[0].weight.grad = torch.ones(6, 5)
    gradients(terms, net.parameters())
    assert (net[0].weight.grad == 1).all()
    assert net[2].weight.grad is None
    sum(terms.values()).backward()  # the graph is still there


def test_terms_without_a_gradient() -> None:
    x, unused = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.zeros(3))
    terms = {"bce": x.sum(), "none": torch.tensor(0.5), "zero": 0 * x.sum()}
    table = gradients(terms, [x, unused]).set_index("term")
    assert table["fraction"].tolist() == [1, 0, 0]
    assert table["cosine"].isna().tolist() == [False, True, True]
    nothing = gradients({"bce": 0 * x.sum()}, [x])
    assert nothing["norm"].tolist() == [0]
    assert nothing["fraction"].isna().all()
    assert gradients({}, [x]).empty


def test_invalid_arguments() -> None:
    x = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="has none that requires a gradient"):
        gradients({"bce": x.sum()}, [torch.ones(2)])
    with pytest.raises(ValueError, match=r"'mld' has shape \(2,\), expected a scalar"):
        gradients({"mld": x * 1}, [x])
    with pytest.raises(ValueError, match="`base` is 'bec', expected one of the terms: bce, mld"):
        gradients({"bce": x.sum(), "mld": x.sum()}, [x], base="bec")
    with pytest.raises(ValueError, match=r"shape \(4, 2\), expected \(b, 3\) or \(b, 3, d\) for 3 classes"):
        gradients({"bce": x.sum()}, [x], outputs=torch.ones(4, 2), classes=("a", "b", "c"))


def test_half_precision() -> None:
    x = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.bfloat16))
    table = gradients({"bce": 100 * x.sum(), "mld": x[0] * 1}, [x])
    assert table["norm"].tolist() == pytest.approx([100 * 2**0.5, 1], rel=1e-2)


# In the loop


def l2d(teacher: MultiLabelModel):
    return create_method("l2d", teacher=teacher, lambda_mld=1.0, lambda_cd=0.5, lambda_id=0.5)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_recording_does_not_change_the_training(
    precision: str, toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    config = toy_config.replace(precision=precision)
    plain = fit(l2d(toy_teacher), toy_data, config, runs=tmp_path / "plain")
    recorded = fit(l2d(toy_teacher), toy_data, config, runs=tmp_path / "recorded", log_gradients_every=3)
    assert recorded.path.name == plain.path.name
    plain_weights, weights = (load_file(run.path / "model.safetensors") for run in (plain, recorded))
    assert all(torch.equal(plain_weights[name], weights[name]) for name in plain_weights)
    assert plain.gradients.empty

    table, steps = recorded.gradients, len(toy_data["train"]) // config.batch_size
    assert sorted(set(table["step"])) == list(range(0, steps * config.epochs, 3))
    assert (table["epoch"] == table["step"] // steps + 1).all()
    classes = ["", *toy_data["train"].classes]
    assert set(zip(table["term"], table["class"], strict=True)) == {
        (term, label) for term in ("bce", "mld", "cd", "id") for label in classes
    }
    sums = table.groupby(["step", "class"])["fraction"].sum(min_count=1).dropna()
    assert sums.tolist() == pytest.approx([1] * len(sums))
    at_classes = table[table["class"] != ""].groupby("term")["norm"].sum()
    assert (at_classes > 0).all()  # for the terms of the embeddings and of the logits


@pytest.mark.usefixtures("own_cache")
def test_a_head_without_embeddings_has_class_gradients_at_the_logits(
    toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    """With a BCE summed over the batch, its gradient at a logit is p - y: the norm of a class is at most sqrt(b)."""
    config = toy_config.replace(head="gap", embed_dim=None, epochs=1)
    table = fit("vanilla", toy_data, config, runs=tmp_path, log_gradients_every=1).gradients
    at_classes = table[table["class"] != ""]
    assert len(at_classes) == len(toy_data["train"].classes) * (len(toy_data["train"]) // config.batch_size)
    assert at_classes["norm"].between(1e-6, config.batch_size**0.5).all()


@pytest.mark.usefixtures("own_cache")
def test_a_resumed_training_has_every_record_once(
    toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    whole = fit(l2d(toy_teacher), toy_data, toy_config, runs=tmp_path / "whole", log_gradients_every=2)

    with interrupt(2, Run, "save_checkpoint"):
        fit(l2d(toy_teacher), toy_data, toy_config, runs=tmp_path / "stopped", log_gradients_every=2)
    resumed = fit(l2d(toy_teacher), toy_data, toy_config, runs=tmp_path / "stopped", log_gradients_every=2)
    assert resumed.gradients.equals(whole.gradients)


@pytest.mark.usefixtures("own_cache")
def test_gradients_that_cannot_be_recorded(
    toy_data: Data, toy_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="`log_gradients_every` is -1, expected a number of steps"):
        fit("vanilla", toy_data, toy_config, runs=tmp_path, log_gradients_every=-1)
    with pytest.raises(ValueError, match="recorded with one process and compile=False only"):
        fit("vanilla", toy_data, toy_config.replace(compile=True), runs=tmp_path, log_gradients_every=1)
    fit("vanilla", toy_data, toy_config.replace(epochs=1), runs=tmp_path)
    with caplog.at_level("INFO", logger="mlkd"):
        fit("vanilla", toy_data, toy_config.replace(epochs=1), runs=tmp_path, log_gradients_every=1)
    assert "not trained again. Its gradients were not recorded." in caplog.text


@pytest.mark.usefixtures("own_cache")
def test_log_gradients_every_on_the_command_line(tmp_path: Path) -> None:
    arguments = ["train", "--method", "mld", "--study", "smoke", "--runs", str(tmp_path), "--log-gradients-every", "1"]
    assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0
    (run,) = [Run(path.parent) for path in tmp_path.glob("mld-*/config.json")]
    assert set(run.gradients["term"]) == {"bce", "mld"}
    cpsd = ["cpsd" if argument == "mld" else argument for argument in arguments]
    refused = CliRunner().invoke(cli, [*cpsd, "--label-subset", "cgp:1"])
    assert isinstance(refused.exception, ValueError)
    assert "`--log-gradients-every` does not apply to `--label-subset`" in str(refused.exception)
