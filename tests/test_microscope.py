"""Gradients of loss terms: by hand, per class, and with nothing disturbed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mlkd.losses.classification import bce
from mlkd.losses.l2d import mld
from mlkd.microscope import gradients


def test_by_hand() -> None:
    """Gradients (3, 4), (0, 10) and (-6, -8): norms 5, 10 and 10."""
    x, y = (nn.Parameter(torch.tensor(value)) for value in (1.0, 2.0))
    table = gradients({"bce": 3 * x + 4 * y, "up": 10 * y, "back": -6 * x - 8 * y}, [x, y]).set_index("term")
    assert table["norm"].tolist() == pytest.approx([5, 10, 10])
    assert table["share"].tolist() == pytest.approx([0.2, 0.4, 0.4])
    assert table["cosine"].tolist() == pytest.approx([1, 0.8, -1])
    assert table["class"].tolist() == ["", "", ""]
    assert gradients({"bce": x, "up": y}, [x, y], base="up")["cosine"].tolist() == [0, 1]


def network() -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    return net, torch.randn(4, 5), (torch.rand(4, 3) < 0.5).float(), torch.randn(4, 3)


def test_terms_of_a_network_against_one_backward_each() -> None:
    net, images, targets, teacher = network()
    logits = net(images)
    per_class = {
        "bce": bce(logits, targets, reduction="none").sum(dim=0),
        "mld": mld(logits, teacher, reduction="none").sum(dim=0),
    }
    table = gradients(per_class, net.parameters(), classes=("a", "b", "c"))
    assert len(table) == 2 * 4
    for label in ("", "a", "b", "c"):
        found = {}
        for name, value in per_class.items():
            net.zero_grad()
            part = value.sum() if label == "" else value["abc".index(label)]
            part.backward(retain_graph=True)
            found[name] = [number for p in net.parameters() for number in p.grad.flatten().tolist()]
        norms = {name: math.sqrt(sum(v**2 for v in vector)) for name, vector in found.items()}
        dot = sum(a * b for a, b in zip(found["bce"], found["mld"], strict=True))
        rows = table[table["class"] == label].set_index("term")
        for name in found:
            assert rows.loc[name, "norm"] == pytest.approx(norms[name], rel=1e-5)
            assert rows.loc[name, "share"] == pytest.approx(norms[name] / sum(norms.values()), rel=1e-5)
        assert rows.loc["mld", "cosine"] == pytest.approx(dot / norms["bce"] / norms["mld"], rel=1e-4)
        assert rows.loc["bce", "cosine"] == pytest.approx(1)


def test_a_whole_term_has_no_row_per_class() -> None:
    net, images, targets, _ = network()
    logits = net(images)
    terms = {"bce": bce(logits, targets, reduction="none").sum(dim=0), "cd": logits.square().mean()}
    table = gradients(terms, net.parameters(), classes=("a", "b", "c"))
    assert table[table["term"] == "cd"]["class"].tolist() == [""]
    assert len(table) == 5
    assert len(gradients(terms, net.parameters())) == 2


def test_nothing_is_changed() -> None:
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
    assert table["share"].tolist() == [1, 0, 0]
    assert table["cosine"].isna().tolist() == [False, True, True]
    nothing = gradients({"bce": 0 * x.sum()}, [x])
    assert nothing["norm"].tolist() == [0]
    assert nothing["share"].isna().all()
    assert gradients({"mld": x.sum()}, [x])["cosine"].isna().all()  # no BCE
    assert gradients({}, [x]).empty


def test_mistakes() -> None:
    x = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="has none that needs a gradient"):
        gradients({"bce": x.sum()}, [torch.ones(2)])
    with pytest.raises(ValueError, match=r"'mld' has shape \(2, 1\), expected \(\)"):
        gradients({"mld": x[:, None]}, [x])
    with pytest.raises(ValueError, match=r"\(2,\), expected \(\) or one entry for each of the 3 classes"):
        gradients({"bce": x * 1}, [x], classes=("a", "b", "c"))


def test_half_precision() -> None:
    x = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.bfloat16))
    table = gradients({"bce": 100 * x.sum(), "mld": x[0] * 1}, [x])
    assert table["norm"].tolist() == pytest.approx([100 * 2**0.5, 1], rel=1e-2)
