"""Heads: equal to plain loops, settings, word vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mlkd.data import MultiLabelData
from mlkd.methods import L2D
from mlkd.models import (
    HEADS,
    GapHead,
    Head,
    LabelWiseHead,
    MLDecoderHead,
    MultiLabelModel,
    Query2LabelHead,
    TransformerHead,
    create_model,
    fingerprint,
    load_model,
    register_head,
    save_model,
)
from mlkd.models.word_vectors import class_vectors
from mlkd.training.config import Config
from mlkd.training.loop import fit

CLASSES = ("cat", "traffic light", "sheep")
FOUR = ("a", "b", "c", "d")
WITH_EMBEDDINGS = [name for name, kind in HEADS.items() if kind.has_embeddings]
WITH_POSITIONS = [TransformerHead, Query2LabelHead]


def named(q: int) -> tuple[str, ...]:
    return tuple(f"class {k}" for k in range(q))


def randomized(head):
    """The head in float64 and eval mode, with no parameter at 0 or 1, which would hide a missing bias or scale."""
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.6)
    return head.double().eval()


def slow_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    return torch.stack(
        [
            w * (v - mean) / torch.sqrt(variance + norm.eps) + b
            for v, w, b in zip(x, norm.weight, norm.bias, strict=True)
        ]
    )


def slow_attention(query: Tensor, cells: list[Tensor], attention: nn.MultiheadAttention) -> Tensor:
    d, heads = len(query), attention.num_heads
    to_query, to_key, to_value = attention.in_proj_weight.split(d)
    query_bias, key_bias, value_bias = attention.in_proj_bias.split(d)
    outputs = []
    for h in range(heads):
        columns = slice(h * d // heads, (h + 1) * d // heads)
        projected = (to_query @ query + query_bias)[columns]
        keys = [(to_key @ cell + key_bias)[columns] for cell in cells]
        values = [(to_value @ cell + value_bias)[columns] for cell in cells]
        weights = [torch.exp(projected @ key / math.sqrt(d / heads)) for key in keys]
        outputs.append(sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights))
    return attention.out_proj.weight @ torch.cat(outputs) + attention.out_proj.bias


def slow_linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return torch.stack([sum(w * v for w, v in zip(row, x, strict=True)) for row in layer.weight]) + layer.bias


def cells_of(features: Tensor, i: int, project: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The cells of image i, row by row."""
    _, _, rows, columns = features.shape
    return [project(features[i, :, r, c]) for r in range(rows) for c in range(columns)]


def slow_positions(rows: int, columns: int, d: int) -> list[Tensor]:
    """A quarter each of sines of the row, sines of the column, cosines of the row, cosines of the column."""
    positions, bands = [], d // 4
    for r in range(rows):
        for c in range(columns):
            angles = [index * 10000.0 ** -(j / bands) for index in (r, c) for j in range(bands)]
            positions.append(torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles]))
    return positions


def slow_logits(head, embeddings: list[Tensor]) -> Tensor:
    return torch.stack([sum(head.weight[k] * e) + head.bias[k] for k, e in enumerate(embeddings)])


# L2D, Appendix A: the label-wise embedding encoder is a cross-attention module and a feed-forward
# layer (each with a shortcut and a layer norm, as in the transformer it refers to); "we assign a query per class";
# it takes "full queries and feature maps"; h is "a fully-connected layer for each class" with one logit.


def slow_label_wise(head: LabelWiseHead, features: Tensor, i: int) -> list[Tensor]:
    cells = cells_of(features, i, lambda cell: slow_linear(cell, head.project).clamp(min=0))
    grow, _, shrink = head.feed_forward
    embeddings = []
    for query in head.queries:
        e = slow_norm(query + slow_attention(query, cells, head.attention), head.norm1)
        e = slow_norm(e + slow_linear(slow_linear(e, grow).clamp(min=0), shrink), head.norm2)
        embeddings.append(e)
    return embeddings


# ML-Decoder, Fig. 3, without self-attention: fixed queries with a shortcut around nothing but dropout and a norm, then
# cross-attention and a feed-forward layer, each with a shortcut and a norm. Outside of training, dropout is the
# identity, so the first shortcut doubles the queries.


def slow_ml_decoder(head: MLDecoderHead, features: Tensor, i: int) -> list[Tensor]:
    cells = cells_of(features, i, lambda cell: slow_linear(cell, head.project).clamp(min=0))
    embeddings = []
    for query in head.queries:
        e = slow_norm(query + query, head.norm1)
        e = slow_norm(e + slow_attention(e, cells, head.attention), head.norm2)
        e = slow_norm(e + slow_linear(slow_linear(e, head.linear1).clamp(min=0), head.linear2), head.norm3)
        embeddings.append(e)
    return embeddings


# Dosovitskiy et al., An Image is Worth 16x16 Words, Eqs (2)-(4): attention and a GELU layer, each behind a layer norm
# and beside a shortcut, and a layer norm at the end; CPSD puts the class tokens among the visual ones.


def slow_transformer(head: TransformerHead, features: Tensor, i: int) -> list[Tensor]:
    d, q = head.weight.shape[1], head.weight.shape[0]
    tokens = (
        [slow_linear(word, head.project_words) for word in head.word_vectors]
        if hasattr(head, "word_vectors")
        else [*head.tokens]
    )
    cells = cells_of(features, i, lambda cell: slow_linear(cell, head.project))
    x = tokens + [cell + at for cell, at in zip(cells, slow_positions(*features.shape[2:], d), strict=True)]
    for layer in head.encoder.layers:
        normed = [slow_norm(v, layer.norm1) for v in x]
        x = [v + slow_attention(n, normed, layer.self_attn) for v, n in zip(x, normed, strict=True)]
        for t, v in enumerate(x):
            inner = slow_linear(slow_norm(v, layer.norm2), layer.linear1)
            inner = torch.stack([u * 0.5 * (1 + torch.erf(u / math.sqrt(2))) for u in inner])
            x[t] = v + slow_linear(inner, layer.linear2)
    return [slow_norm(v, head.encoder.norm) for v in x[:q]]


# Query2Label, Sec. 3: in each layer of the decoder Q <- self-attention, then cross-attention to the cells, then FFN,
# "with a shortcut and a norm" after each, as in Vaswani et al. The encoder's layer is theirs too.


def slow_query2label(head: Query2LabelHead, features: Tensor, i: int) -> list[Tensor]:
    d = head.weight.shape[1]
    identity = isinstance(head.project, nn.Identity)
    cells = cells_of(features, i, lambda cell: cell if identity else slow_linear(cell, head.project))
    x = [cell + at for cell, at in zip(cells, slow_positions(*features.shape[2:], d), strict=True)]

    def feed_forward(v: Tensor, layer) -> Tensor:
        return v + slow_linear(slow_linear(v, layer.linear1).clamp(min=0), layer.linear2)

    for layer in head.encoder.layers:
        x = [slow_norm(v + slow_attention(v, x, layer.self_attn), layer.norm1) for v in x]
        x = [slow_norm(feed_forward(v, layer), layer.norm2) for v in x]
    x = [slow_norm(v, head.encoder.norm) for v in x]
    queries = [*head.queries]
    for layer in head.decoder.layers:
        queries = [slow_norm(v + slow_attention(v, queries, layer.self_attn), layer.norm1) for v in queries]
        queries = [slow_norm(v + slow_attention(v, x, layer.multihead_attn), layer.norm2) for v in queries]
        queries = [slow_norm(feed_forward(v, layer), layer.norm3) for v in queries]
    return [slow_norm(v, head.decoder.norm) for v in queries]


SLOW = {
    LabelWiseHead: slow_label_wise,
    MLDecoderHead: slow_ml_decoder,
    TransformerHead: slow_transformer,
    Query2LabelHead: slow_query2label,
}


class TestAgainstLoops:
    @given(
        kind=st.sampled_from([*SLOW]),
        b=st.integers(1, 2),
        q=st.integers(1, 3),
        in_channels=st.integers(1, 5),
        embed_dim=st.sampled_from([4, 8]),
        heads=st.sampled_from([1, 2, 4]),
        rows=st.integers(1, 3),
        columns=st.integers(1, 3),
        seed=st.integers(0, 99),
    )
    @settings(max_examples=30)
    @torch.no_grad()
    def test_values(self, kind, b, q, in_channels, embed_dim, heads, rows, columns, seed) -> None:
        torch.manual_seed(seed)
        head = randomized(kind(in_channels, named(q), embed_dim, heads=heads))
        features = torch.randn(b, in_channels, rows, columns).double()
        logits, embeddings = head(features)
        for i in range(b):
            expected = SLOW[kind](head, features, i)
            torch.testing.assert_close(embeddings[i], torch.stack(expected), atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(logits[i], slow_logits(head, expected), atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize("kind", SLOW)
    def test_gradients(self, kind) -> None:
        torch.manual_seed(0)
        head = randomized(kind(3, named(2), 4, heads=2))
        features = torch.randn(1, 3, 2, 2).double().requires_grad_()
        inputs = [features, *head.parameters()]
        gradients = torch.autograd.grad(head(features)[0].square().sum(), inputs)
        slow = slow_logits(head, SLOW[kind](head, features, 0))
        expected = torch.autograd.grad(slow.square().sum(), inputs)
        for grad, slow_grad in zip(gradients, expected, strict=True):
            torch.testing.assert_close(grad, slow_grad, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("settings", [{"layers": 1}, {"layers": 4}, {"word_vectors": 5}])
    @torch.no_grad()
    def test_transformer_settings(self, settings: dict) -> None:
        torch.manual_seed(0)
        head = randomized(TransformerHead(3, named(2), 8, **settings))
        features = torch.randn(1, 3, 2, 3).double()
        torch.testing.assert_close(
            head(features)[1][0], torch.stack(slow_transformer(head, features, 0)), atol=1e-6, rtol=0
        )

    @pytest.mark.parametrize("settings", [{"layers": 1}, {"layers": 3, "encoder_layers": 2}])
    @torch.no_grad()
    def test_query2label_settings(self, settings: dict) -> None:
        torch.manual_seed(0)
        head = randomized(Query2LabelHead(8, named(2), **settings))
        features = torch.randn(1, 8, 2, 3).double()
        torch.testing.assert_close(
            head(features)[1][0], torch.stack(slow_query2label(head, features, 0)), atol=1e-6, rtol=0
        )

    @torch.no_grad()
    def test_gap(self) -> None:
        torch.manual_seed(0)
        head = GapHead(3, named(2))
        features = torch.randn(2, 3, 2, 4)
        logits, embeddings = head(features)
        assert embeddings is None
        for i in range(2):
            for k in range(2):
                pooled = [sum(float(v) for v in features[i, c].flatten()) / 8 for c in range(3)]
                expected = sum(float(head.classifier.weight[k, c]) * pooled[c] for c in range(3))
                assert float(logits[i, k]) == pytest.approx(expected + float(head.classifier.bias[k]), abs=1e-5)


class TestClassActivationMaps:
    def test_heads_that_have_them(self) -> None:
        assert {name for name, head in HEADS.items() if head.has_cams} >= {"gap", "label_wise", "ml_decoder"}
        for name, head in HEADS.items():
            has_method = head.cams is not Head.cams
            assert head.has_cams == has_method, name
        with pytest.raises(TypeError, match="TransformerHead has no `cams`"):
            TransformerHead(3, named(2), 8).cams(torch.zeros(1, 3, 2, 2))

    @torch.no_grad()
    def test_maps_of_gap_average_to_the_logits(self) -> None:
        torch.manual_seed(0)
        head, features = randomized(GapHead(3, named(2))), torch.randn(2, 3, 2, 4).double()
        maps = head.cams(features)
        assert maps.shape == (2, 2, 2, 4)
        torch.testing.assert_close(maps.mean(dim=(2, 3)) + head.classifier.bias, head(features)[0])
        expected = sum(head.classifier.weight[1, c] * features[0, c, 1, 2] for c in range(3))
        torch.testing.assert_close(maps[0, 1, 1, 2], expected)

    @pytest.mark.parametrize("kind", [LabelWiseHead, MLDecoderHead])
    @pytest.mark.parametrize(("embed_dim", "heads"), [(4, 1), (8, 4)])
    @torch.no_grad()
    def test_maps_of_cross_attention_against_loops(self, kind, embed_dim: int, heads: int) -> None:
        torch.manual_seed(0)
        head = randomized(kind(3, named(2), embed_dim, heads=heads))
        features = torch.randn(2, 3, 2, 3).double()
        maps = head.cams(features)
        assert maps.shape == (2, 2, 2, 3)
        attention = head.attention
        to_query, to_key, to_value = attention.in_proj_weight.split(embed_dim)
        query_bias, key_bias, value_bias = attention.in_proj_bias.split(embed_dim)
        for i in range(2):
            cells = cells_of(features, i, lambda cell: slow_linear(cell, head.project).clamp(min=0))
            for k, query in enumerate(head.queries):
                if kind is MLDecoderHead:
                    query = slow_norm(query + query, head.norm1)
                expected = [torch.zeros(()).double() for _ in cells]
                for h in range(heads):
                    part = slice(h * embed_dim // heads, (h + 1) * embed_dim // heads)
                    projected = (to_query @ query + query_bias)[part]
                    keys = [(to_key @ cell + key_bias)[part] for cell in cells]
                    weights = [torch.exp(projected @ key / math.sqrt(embed_dim / heads)) for key in keys]
                    for c, cell in enumerate(cells):
                        value = (to_value @ cell + value_bias)[part]
                        score = head.weight[k] @ (attention.out_proj.weight[:, part] @ value)
                        expected[c] = expected[c] + weights[c] / sum(weights) * score
                torch.testing.assert_close(maps[i, k].flatten(), torch.stack(expected), atol=1e-6, rtol=1e-6)
                attended = slow_attention(query, cells, attention) - attention.out_proj.bias
                torch.testing.assert_close(maps[i, k].sum(), head.weight[k] @ attended, atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize("name", ["gap", "label_wise", "ml_decoder"])
    def test_gradients_reach_features_and_head(self, name: str) -> None:
        torch.manual_seed(0)
        head = HEADS[name](8, FOUR)
        features = torch.randn(2, 8, 2, 3, requires_grad=True)
        weight = head.classifier.weight if name == "gap" else head.weight
        for gradient in torch.autograd.grad(head.cams(features).square().sum(), [features, weight]):
            assert gradient.abs().sum() > 0


class TestClasses:
    @pytest.mark.parametrize("name", WITH_EMBEDDINGS)
    @torch.no_grad()
    def test_permuted_classes(self, name: str) -> None:
        torch.manual_seed(0)
        head, other = randomized(HEADS[name](6, FOUR, 8)), HEADS[name](6, FOUR, 8).double().eval()
        order = torch.tensor([2, 0, 3, 1])
        state = head.state_dict()
        for name in {"queries", "tokens", "weight", "bias"} & state.keys():
            state[name] = state[name][order]
        other.load_state_dict(state)
        features = torch.randn(3, 6, 2, 2).double()
        for output, expected in zip(other(features), head(features), strict=True):
            torch.testing.assert_close(output, expected[:, order])

    @torch.no_grad()
    def test_query_of_l2d_changes_one_class_only(self) -> None:
        torch.manual_seed(0)
        head = randomized(LabelWiseHead(6, FOUR, 8))
        features = torch.randn(3, 6, 2, 2).double()
        logits, embeddings = head(features)
        head.queries[1] += 1
        new_logits, new_embeddings = head(features)
        others = [0, 2, 3]
        assert torch.equal(new_logits[:, others], logits[:, others])
        assert torch.equal(new_embeddings[:, others], embeddings[:, others])
        assert (new_logits[:, 1] != logits[:, 1]).all()

    @pytest.mark.parametrize("kind", WITH_POSITIONS)
    @torch.no_grad()
    def test_tokens_attend_to_each_other(self, kind) -> None:
        torch.manual_seed(0)
        head = randomized(kind(6, FOUR, 8))
        features = torch.randn(3, 6, 2, 2).double()
        logits = head(features)[0]
        (head.tokens if kind is TransformerHead else head.queries)[1] += torch.arange(8)
        assert ((head(features)[0] - logits).abs() > 1e-6).all()


class TestCells:
    """Shuffled cells change the output of heads with positions only."""

    def shuffled(self, features: Tensor) -> Tensor:
        return features.flatten(2)[:, :, [4, 2, 0, 5, 1, 3]].unflatten(2, (2, 3))

    @torch.no_grad()
    def test_without_positions(self) -> None:
        torch.manual_seed(0)
        head, features = randomized(LabelWiseHead(6, FOUR, 8)), torch.randn(3, 6, 2, 3).double()
        torch.testing.assert_close(head(self.shuffled(features))[0], head(features)[0])

    @pytest.mark.parametrize("kind", WITH_POSITIONS)
    @torch.no_grad()
    def test_with_positions(self, kind) -> None:
        torch.manual_seed(0)
        head, features = randomized(kind(6, FOUR, 8)), torch.randn(3, 6, 2, 3).double()
        assert (head(self.shuffled(features))[0] - head(features)[0]).abs().min() > 1e-6

    @pytest.mark.parametrize("name", HEADS)
    @torch.no_grad()
    def test_any_feature_map_size(self, name: str) -> None:
        model = create_model("resnet8_cifar", FOUR, name, image_size=16, embed_dim=8).eval()
        for side in (8, 16, 20):
            model.image_size = side
            assert model(torch.rand(2, 3, side, side)).logits.shape == (2, 4)


class TestSizes:
    """The sizes of the papers, on the meta device."""

    def test_transformer(self) -> None:
        with torch.device("meta"):
            head = TransformerHead(2048, named(80))
        assert head.tokens.shape == head.weight.shape == (80, 1024)
        assert len(head.encoder.layers) == 3
        for layer in head.encoder.layers:
            assert (layer.self_attn.num_heads, layer.linear1.out_features) == (4, 4096)

    def test_query2label(self) -> None:
        with torch.device("meta"):
            head = Query2LabelHead(2048, named(80))
        assert head.queries.shape == head.weight.shape == (80, 2048)
        assert (len(head.encoder.layers), len(head.decoder.layers)) == (1, 2)
        for layer in [*head.encoder.layers, *head.decoder.layers]:
            assert (layer.self_attn.num_heads, layer.linear1.out_features, layer.dropout.p) == (4, 8192, 0.1)
        assert not list(head.project.parameters())

    def test_ml_decoder(self) -> None:
        """The head of L2D's official code: only the queries are fixed."""
        with torch.device("meta"):
            head = MLDecoderHead(512, named(80))
        assert head.queries.shape == head.weight.shape == (80, 768)
        assert "queries" not in dict(head.named_parameters())
        assert "queries" in head.state_dict()
        assert (head.attention.num_heads, head.linear1.out_features) == (8, 2048)
        assert (head.attention.dropout, head.dropout.p) == (0.1, 0.1)

    def test_label_wise(self) -> None:
        assert LabelWiseHead(64, FOUR).weight.shape == (4, 64)
        assert LabelWiseHead(640, FOUR).weight.shape == (4, 512)

    @pytest.mark.parametrize("kind", WITH_POSITIONS)
    def test_layers_have_different_initial_weights(self, kind) -> None:
        head = kind(8, FOUR, 8, layers=2)
        first, second = (head.encoder if kind is TransformerHead else head.decoder).layers
        for name, parameter in first.named_parameters():
            if parameter.ndim > 1:
                assert not torch.equal(parameter, second.get_parameter(name)), name


def test_registered_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HEADS, "entries", {**HEADS})  # removes the new head after the test

    @register_head("max_pool")
    class MaxPoolHead(Head):
        has_embeddings = False

        def __init__(self, in_channels: int, classes: Sequence[str], *, bias: bool = True):
            super().__init__()
            self.classifier = nn.Linear(in_channels, len(classes), bias=bias)

        def forward(self, features: Tensor) -> tuple[Tensor, None]:
            return self.classifier(features.amax(dim=(-2, -1))), None

    model = create_model("resnet8_cifar", CLASSES, "max_pool", image_size=16, head_settings={"bias": False})
    assert model(torch.rand(2, 3, 16, 16)).logits.shape == (2, 3)
    assert model.head.classifier.bias is None


class TestSettings:
    def test_unknown_head(self) -> None:
        with pytest.raises(ValueError, match=r"`head` is 'q2l', expected one of gap, .*Did you mean 'query2label'"):
            create_model("resnet8_cifar", CLASSES, "q2l")

    @pytest.mark.parametrize(
        ("head", "head_settings", "message"),
        [
            ("transformer", {"layer": 2}, "The head 'transformer' has no setting 'layer'. Did you mean 'layers'?"),
            ("query2label", {"encoder_layer": 2}, "Did you mean 'encoder_layers'?"),
            ("label_wise", {"layers": 2}, "The head 'label_wise' has no setting 'layers'. Did you mean 'heads'?"),
            ("transformer", {"embed_dim": 8}, "The width of the embeddings is set by `embed_dim`"),
            ("transformer", {"in_channels": 8}, "has no setting 'in_channels'"),
            ("gap", {"heads": 2}, "The head 'gap' has no setting 'heads'. It has no settings"),
            ("transformer", {"layers": 0}, "`layers` is 0, expected a whole number of at least 1"),
            ("query2label", {"layers": 1.5}, r"`layers` is 1\.5, expected a whole number"),
            ("query2label", {"encoder_layers": 0}, "`encoder_layers` is 0"),
            ("label_wise", {"heads": 0}, "`heads` is 0"),
            ("transformer", {"heads": "4"}, "`heads` is '4'"),
            ("transformer", {"word_vectors": 0}, "`word_vectors` is 0"),
            ("transformer", {"word_vectors": True}, "`word_vectors` is True"),
            ("label_wise", {"heads": 3}, "`embed_dim` is 64, expected a multiple of the 3"),
        ],
    )
    def test_invalid(self, head: str, head_settings: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            create_model("resnet8_cifar", CLASSES, head, image_size=16, embed_dim=64, head_settings=head_settings)

    @pytest.mark.parametrize(("kind", "d"), [(LabelWiseHead, 10), (TransformerHead, 10), (Query2LabelHead, 6)])
    def test_width(self, kind, d: int) -> None:
        with pytest.raises(ValueError, match=f"`embed_dim` is {d}, expected a multiple of .*the 4 attention heads"):
            kind(6, FOUR, d)
        with pytest.raises(ValueError, match="`embed_dim` is 0, expected a whole number"):
            kind(6, FOUR, 0)

    def test_width_with_positions(self) -> None:
        with pytest.raises(ValueError, match="`embed_dim` is 6, expected a multiple of 4 and of the 1 attention heads"):
            Query2LabelHead(6, FOUR, heads=1)

    def test_fingerprint_without_settings(self) -> None:
        """A model without head settings has no entry for them, so its fingerprint does not depend on them."""
        assert "head_settings" not in create_model("resnet8_cifar", CLASSES, image_size=16).settings
        assert fingerprint(load_model("mlkd:scenes_teacher")) == "22c395bef123c529"

    @pytest.mark.parametrize("name", HEADS)
    def test_half_precision(self, name: str) -> None:
        model = create_model("resnet8_cifar", CLASSES, name, image_size=16, embed_dim=8)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(torch.rand(2, 3, 16, 16))
        out.logits.float().square().sum().backward()
        assert out.logits.isfinite().all()

    def test_dropout(self) -> None:
        """Outputs in training mode differ from call to call unless dropout is 0."""
        for name in ("transformer", "query2label", "ml_decoder"):
            for dropout, same in ((0.0, True), (0.5, False)):
                head = HEADS[name](8, FOUR, 8, dropout=dropout)
                features = torch.randn(1, 8, 2, 2)
                assert torch.equal(head(features)[0], head(features)[0]) == same
                assert torch.equal(head.eval()(features)[0], head(features)[0])


@pytest.mark.parametrize("head", HEADS)
def test_training(head: str, toy_data: dict[str, MultiLabelData], toy_config: Config, tmp_path: Path) -> None:
    """The head settings reach the run's model, and the loss decreases."""
    head_settings = {"layers": 1, "dropout": 0.0} if head in ("transformer", "query2label") else {}
    config = toy_config.replace(head=head, head_settings=head_settings, lr=2e-3)
    run = fit("vanilla", toy_data, config, runs=tmp_path)
    assert run.model().settings.get("head_settings", {}) == head_settings
    loss = run.history["bce"]
    assert loss.iloc[-1] < loss.iloc[0]


def test_l2d_accepts_any_pair_of_heads_with_embeddings() -> None:
    for teacher in WITH_EMBEDDINGS:
        for student in WITH_EMBEDDINGS:
            models = [create_model("resnet8_cifar", CLASSES, h, image_size=16, embed_dim=8) for h in (teacher, student)]
            L2D(teacher=models[0]).check(models[1])


def transformer_model(**head_settings) -> MultiLabelModel:
    settings = {"image_size": 16, "embed_dim": 8, "head_settings": head_settings}
    return create_model("resnet8_cifar", CLASSES, "transformer", **settings)


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    path = tmp_path / "glove.txt"
    path.write_text("the 9 9 9\ncat 1 2 3.5\n. . . 4 5 6\ntraffic 2 0 -2\ncat 0 0 0\nsheep 7 7 -7e-1\nlight 4 1 0\n")
    return path


class TestWordVectors:
    def test_word_vectors_are_fixed(self, glove: Path) -> None:
        torch.manual_seed(0)
        head = TransformerHead(6, CLASSES, 8, word_vectors=glove)
        assert torch.equal(head.word_vectors, class_vectors(glove, CLASSES))
        assert "word_vectors" not in dict(head.named_parameters())
        head(torch.randn(2, 6, 2, 2))[0].sum().backward()
        assert head.project_words.weight.grad.abs().sum() > 0

    @torch.no_grad()
    def test_saved_model_needs_no_file(self, glove: Path, tmp_path: Path) -> None:
        head_settings = {"word_vectors": glove, "layers": 1}
        model = create_model(
            "resnet8_cifar", CLASSES, "transformer", image_size=16, embed_dim=8, head_settings=head_settings
        )
        assert json.loads(json.dumps(model.settings))["head_settings"] == {"word_vectors": 3, "layers": 1}
        assert head_settings == {"word_vectors": glove, "layers": 1}
        save_model(model, tmp_path / "model.safetensors")
        glove.unlink()
        loaded = load_model(tmp_path / "model.safetensors")
        assert torch.equal(loaded.head.word_vectors, model.head.word_vectors)
        assert fingerprint(loaded) == fingerprint(model)
        images = torch.rand(2, 3, 16, 16)
        assert torch.equal(loaded(images).logits, model.eval()(images).logits)

    def test_fingerprint_depends_on_word_vectors(self) -> None:
        torch.manual_seed(0)
        model = transformer_model(word_vectors=3)
        before = fingerprint(model)
        model.head.word_vectors[0, 0] += 1
        assert fingerprint(model) != before

    def test_none_is_saved(self, tmp_path: Path) -> None:
        head_settings = {"word_vectors": None}
        model = create_model(
            "resnet8_cifar", CLASSES, "transformer", image_size=16, embed_dim=8, head_settings=head_settings
        )
        save_model(model, tmp_path / "model.safetensors")
        assert load_model(tmp_path / "model.safetensors").settings["head_settings"] == {"word_vectors": None}
