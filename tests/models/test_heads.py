"""Heads against plain loops, their settings, and class names as word vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
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
    LabelWiseHead,
    Query2LabelHead,
    TransformerHead,
    create_model,
    fingerprint,
    load_model,
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


def scrambled(head):
    """In float64 and eval mode, with nothing left at 0 or 1, where a forgotten bias or scale would not be noticed."""
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
    parts = []
    for h in range(heads):
        of_head = slice(h * d // heads, (h + 1) * d // heads)
        asked = (to_query @ query + query_bias)[of_head]
        keys = [(to_key @ cell + key_bias)[of_head] for cell in cells]
        values = [(to_value @ cell + value_bias)[of_head] for cell in cells]
        weights = [torch.exp(asked @ key / math.sqrt(d / heads)) for key in keys]
        parts.append(sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights))
    return attention.out_proj.weight @ torch.cat(parts) + attention.out_proj.bias


def slow_linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return torch.stack([sum(w * v for w, v in zip(row, x, strict=True)) for row in layer.weight]) + layer.bias


def cells_of(features: Tensor, i: int, project: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The cells of picture i, row by row."""
    _, _, rows, columns = features.shape
    return [project(features[i, :, r, c]) for r in range(rows) for c in range(columns)]


def slow_positions(rows: int, columns: int, d: int) -> list[Tensor]:
    """A quarter each of sines of the row, sines of the column, cosines of the row, cosines of the column."""
    found, bands = [], d // 4
    for r in range(rows):
        for c in range(columns):
            at = [(f, 10000.0 ** -(j / bands)) for f in (r, c) for j in range(bands)]
            angles = [place * frequency for place, frequency in at]
            found.append(torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles]))
    return found


def slow_logits(head, embeddings: list[Tensor]) -> Tensor:
    return torch.stack([sum(head.weight[k] * e) + head.bias[k] for k, e in enumerate(embeddings)])


# L2D's Appendix A in words: the label-wise embedding encoder is a cross-attention module and a feed-forward
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
    keep = isinstance(head.project, nn.Identity)
    cells = cells_of(features, i, lambda cell: cell if keep else slow_linear(cell, head.project))
    x = [cell + at for cell, at in zip(cells, slow_positions(*features.shape[2:], d), strict=True)]

    def fed(v: Tensor, layer) -> Tensor:
        return v + slow_linear(slow_linear(v, layer.linear1).clamp(min=0), layer.linear2)

    for layer in head.encoder.layers:
        x = [slow_norm(v + slow_attention(v, x, layer.self_attn), layer.norm1) for v in x]
        x = [slow_norm(fed(v, layer), layer.norm2) for v in x]
    x = [slow_norm(v, head.encoder.norm) for v in x]
    queries = [*head.queries]
    for layer in head.decoder.layers:
        queries = [slow_norm(v + slow_attention(v, queries, layer.self_attn), layer.norm1) for v in queries]
        queries = [slow_norm(v + slow_attention(v, x, layer.multihead_attn), layer.norm2) for v in queries]
        queries = [slow_norm(fed(v, layer), layer.norm3) for v in queries]
    return [slow_norm(v, head.decoder.norm) for v in queries]


SLOW = {LabelWiseHead: slow_label_wise, TransformerHead: slow_transformer, Query2LabelHead: slow_query2label}


class TestAgainstLoops:
    @given(
        kind=st.sampled_from([*SLOW]),
        b=st.integers(1, 2),
        q=st.integers(1, 3),
        features=st.integers(1, 5),
        embed_dim=st.sampled_from([4, 8]),
        heads=st.sampled_from([1, 2, 4]),
        rows=st.integers(1, 3),
        columns=st.integers(1, 3),
        seed=st.integers(0, 99),
    )
    @settings(max_examples=30)
    @torch.no_grad()
    def test_values(self, kind, b, q, features, embed_dim, heads, rows, columns, seed) -> None:
        torch.manual_seed(seed)
        head = scrambled(kind(features, named(q), embed_dim, heads=heads))
        picture = torch.randn(b, features, rows, columns).double()
        logits, embeddings = head(picture)
        for i in range(b):
            expected = SLOW[kind](head, picture, i)
            torch.testing.assert_close(embeddings[i], torch.stack(expected), atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(logits[i], slow_logits(head, expected), atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize("kind", SLOW)
    def test_gradients(self, kind) -> None:
        torch.manual_seed(0)
        head = scrambled(kind(3, named(2), 4))
        picture = torch.randn(1, 3, 2, 2).double().requires_grad_()
        inputs = [picture, *head.parameters()]
        found = torch.autograd.grad(head(picture)[0].square().sum(), inputs)
        slow = slow_logits(head, SLOW[kind](head, picture, 0))
        expected = torch.autograd.grad(slow.square().sum(), inputs)
        for grad, slow_grad in zip(found, expected, strict=True):
            torch.testing.assert_close(grad, slow_grad, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("settings", [{"layers": 1}, {"layers": 4}, {"word_vectors": 5}])
    @torch.no_grad()
    def test_transformer_settings(self, settings: dict) -> None:
        torch.manual_seed(0)
        head = scrambled(TransformerHead(3, named(2), 8, **settings))
        picture = torch.randn(1, 3, 2, 3).double()
        torch.testing.assert_close(
            head(picture)[1][0], torch.stack(slow_transformer(head, picture, 0)), atol=1e-6, rtol=0
        )

    @pytest.mark.parametrize("settings", [{"layers": 1}, {"layers": 3, "encoder_layers": 2}])
    @torch.no_grad()
    def test_query2label_settings(self, settings: dict) -> None:
        torch.manual_seed(0)
        head = scrambled(Query2LabelHead(8, named(2), **settings))
        picture = torch.randn(1, 8, 2, 3).double()
        torch.testing.assert_close(
            head(picture)[1][0], torch.stack(slow_query2label(head, picture, 0)), atol=1e-6, rtol=0
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


class TestClasses:
    @pytest.mark.parametrize("name", WITH_EMBEDDINGS)
    @torch.no_grad()
    def test_permuted(self, name: str) -> None:
        torch.manual_seed(0)
        head, other = scrambled(HEADS[name](6, FOUR, 8)), HEADS[name](6, FOUR, 8).double().eval()
        order = torch.tensor([2, 0, 3, 1])
        state = head.state_dict()
        for part in ("queries", "tokens", "weight", "bias"):
            if part in state:
                state[part] = state[part][order]
        other.load_state_dict(state)
        picture = torch.randn(3, 6, 2, 2).double()
        for found, expected in zip(other(picture), head(picture), strict=True):
            torch.testing.assert_close(found, expected[:, order])

    @torch.no_grad()
    def test_a_query_of_l2d_belongs_to_one_class(self) -> None:
        torch.manual_seed(0)
        head = scrambled(LabelWiseHead(6, FOUR, 8))
        picture = torch.randn(3, 6, 2, 2).double()
        logits, embeddings = head(picture)
        head.queries[1] += 1
        new_logits, new_embeddings = head(picture)
        same = [0, 2, 3]
        assert torch.equal(new_logits[:, same], logits[:, same])
        assert torch.equal(new_embeddings[:, same], embeddings[:, same])
        assert (new_logits[:, 1] != logits[:, 1]).all()

    @pytest.mark.parametrize("kind", WITH_POSITIONS)
    @torch.no_grad()
    def test_tokens_see_each_other(self, kind) -> None:
        torch.manual_seed(0)
        head = scrambled(kind(6, FOUR, 8))
        picture = torch.randn(3, 6, 2, 2).double()
        logits = head(picture)[0]
        (head.tokens if kind is TransformerHead else head.queries)[1] += torch.arange(8)
        assert ((head(picture)[0] - logits).abs() > 1e-6).all()


class TestCells:
    """Shuffled cells: the same to attention alone, another picture to a head with positions."""

    def shuffled(self, picture: Tensor) -> Tensor:
        return picture.flatten(2)[:, :, [4, 2, 0, 5, 1, 3]].unflatten(2, (2, 3))

    @torch.no_grad()
    def test_without_positions(self) -> None:
        torch.manual_seed(0)
        head, picture = scrambled(LabelWiseHead(6, FOUR, 8)), torch.randn(3, 6, 2, 3).double()
        torch.testing.assert_close(head(self.shuffled(picture))[0], head(picture)[0])

    @pytest.mark.parametrize("kind", WITH_POSITIONS)
    @torch.no_grad()
    def test_with_positions(self, kind) -> None:
        torch.manual_seed(0)
        head, picture = scrambled(kind(6, FOUR, 8)), torch.randn(3, 6, 2, 3).double()
        assert (head(self.shuffled(picture))[0] - head(picture)[0]).abs().min() > 1e-6

    @pytest.mark.parametrize("name", HEADS)
    @torch.no_grad()
    def test_any_grid(self, name: str) -> None:
        model = create_model("resnet8_cifar", FOUR, name, image_size=16, embed_dim=8).eval()
        for side in (8, 16, 20):
            model.image_size = side
            assert model(torch.rand(2, 3, side, side)).logits.shape == (2, 4)


class TestSizes:
    """The published ones; on the meta device, where they cost nothing."""

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

    def test_label_wise(self) -> None:
        assert LabelWiseHead(64, FOUR).weight.shape == (4, 64)
        assert LabelWiseHead(640, FOUR).weight.shape == (4, 512)

    @pytest.mark.parametrize("kind", WITH_POSITIONS)
    def test_layers_start_apart(self, kind) -> None:
        head = kind(8, FOUR, 8, layers=2)
        first, second = (head.encoder if kind is TransformerHead else head.decoder).layers
        for name, parameter in first.named_parameters():
            if parameter.ndim > 1:
                assert not torch.equal(parameter, second.get_parameter(name)), name


class TestSettings:
    def test_unknown_head(self) -> None:
        with pytest.raises(ValueError, match=r"`head` is 'q2l', expected one of gap, .*Did you mean 'query2label'"):
            create_model("resnet8_cifar", CLASSES, "q2l")

    @pytest.mark.parametrize(
        ("head", "given", "message"),
        [
            ("transformer", {"layer": 2}, "The head 'transformer' has no setting 'layer'. Did you mean 'layers'?"),
            ("query2label", {"encoder_layer": 2}, "Did you mean 'encoder_layers'?"),
            ("label_wise", {"layers": 2}, "The head 'label_wise' has no setting 'layers'. Did you mean 'heads'?"),
            ("transformer", {"embed_dim": 8}, "embeddings' width is `embed_dim`, beside `head_settings`"),
            ("transformer", {"features": 8}, "has no setting 'features'"),
            ("gap", {"heads": 2}, "The head 'gap' has no setting 'heads'. It has none"),
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
    def test_wrong(self, head: str, given: dict, message: str) -> None:
        embed_dim = 64
        with pytest.raises(ValueError, match=message):
            create_model("resnet8_cifar", CLASSES, head, image_size=16, embed_dim=embed_dim, head_settings=given)

    @pytest.mark.parametrize(("kind", "d"), [(LabelWiseHead, 10), (TransformerHead, 10), (Query2LabelHead, 6)])
    def test_width(self, kind, d: int) -> None:
        with pytest.raises(ValueError, match=f"`embed_dim` is {d}, expected a multiple of .*the 4 attention heads"):
            kind(6, FOUR, d)
        with pytest.raises(ValueError, match="`embed_dim` is 0, expected a whole number"):
            kind(6, FOUR, 0)

    def test_width_of_the_positions(self) -> None:
        with pytest.raises(ValueError, match="`embed_dim` is 6, expected a multiple of 4 and of the 1 attention heads"):
            Query2LabelHead(6, FOUR, heads=1)

    def test_no_settings_leave_the_fingerprint_alone(self) -> None:
        """Model files of before heads had settings are the models they were."""
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
        """Other outputs each time in training, unless it is 0."""
        for name in ("transformer", "query2label"):
            for dropout, same in ((0.0, True), (0.5, False)):
                head = HEADS[name](8, FOUR, 8, dropout=dropout)
                picture = torch.randn(1, 8, 2, 2)
                assert torch.equal(head(picture)[0], head(picture)[0]) == same
                assert torch.equal(head.eval()(picture)[0], head(picture)[0])


@pytest.mark.parametrize("head", HEADS)
def test_training(head: str, toy_data: dict[str, MultiLabelData], toy_config: Config, tmp_path: Path) -> None:
    """The loop hands the settings on, the losses fall, and the run's model is the one it was."""
    given = {"layers": 1, "dropout": 0.0} if head in ("transformer", "query2label") else {}
    config = toy_config.replace(head=head, head_settings=given, lr=2e-3)
    run = fit("vanilla", toy_data, config, runs=tmp_path)
    assert run.model().settings.get("head_settings", {}) == given
    loss = run.history["bce"]
    assert loss.iloc[-1] < loss.iloc[0]


def test_heads_with_embeddings_distil_into_each_other() -> None:
    for teacher in WITH_EMBEDDINGS:
        for student in WITH_EMBEDDINGS:
            models = [create_model("resnet8_cifar", CLASSES, h, image_size=16, embed_dim=8) for h in (teacher, student)]
            L2D(teacher=models[0]).check(models[1])


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    path = tmp_path / "glove.txt"
    path.write_text("the 9 9 9\ncat 1 2 3.5\n. . . 4 5 6\ntraffic 2 0 -2\ncat 0 0 0\nsheep 7 7 -7e-1\nlight 4 1 0\n")
    return path


class TestWordVectors:
    def test_by_hand(self, glove: Path) -> None:
        expected = torch.tensor([[1, 2, 3.5], [3, 0.5, -1], [7, 7, -0.7]])
        assert torch.equal(class_vectors(glove, CLASSES), expected)
        assert torch.equal(class_vectors(str(glove), CLASSES[::-1]), expected.flip(0))

    @pytest.mark.parametrize(
        "name", ["Traffic light", "traffic_light", "LIGHT-traffic", "traffic / light", "light traffic!x "]
    )
    def test_several_words(self, glove: Path, name: str) -> None:
        """Those that the file has."""
        expected = [[3, 0.5, -1]] if "!" not in name else [[4, 1, 0]]
        assert class_vectors(glove, [name]).tolist() == expected

    def test_a_word_of_the_file_is_not_taken_apart(self, glove: Path) -> None:
        glove.write_text(glove.read_text() + "traffic-light 1 1 1\n")
        assert class_vectors(glove, ["Traffic-light", "traffic light"]).tolist() == [[1, 1, 1], [3, 0.5, -1]]

    def test_unknown_classes(self, glove: Path) -> None:
        with pytest.raises(ValueError, match=r"glove\.txt: has no word of 'tvmonitor', 'potted plant'\. Add a line"):
            class_vectors(glove, ["cat", "tvmonitor", "potted plant"])

    @pytest.mark.parametrize("line", ["horse 1 2", "horse 1 2 x", "horse"])
    def test_a_broken_line(self, glove: Path, line: str) -> None:
        glove.write_text(glove.read_text() + line)
        with pytest.raises(ValueError, match=r"glove\.txt: line 8 \('horse'\) is not a word and 3 numbers"):
            class_vectors(glove, ["horse"])

    def test_a_broken_line_of_no_interest(self, glove: Path) -> None:
        glove.write_text(glove.read_text() + "horse 1 2\nmouse 1 1 1\n")
        assert class_vectors(glove, ["mouse"]).tolist() == [[1, 1, 1]]

    def test_a_word_with_blanks(self, glove: Path) -> None:
        """As in GloVe's largest file: "at name@domain.com" is not the word "at"."""
        glove.write_text("the 9 9 9\ncat name@domain.com 1 1 1\ncat 2 2 2\n")
        assert class_vectors(glove, ["cat"]).tolist() == [[2, 2, 2]]

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"\n\n"])
    def test_no_words_at_all(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "odd.txt").write_bytes(content)
        with pytest.raises(ValueError, match=r"odd\.txt: has no word of 'cat'"):
            class_vectors(tmp_path / "odd.txt", ["cat"])

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"`word_vectors` is '.*gone\.txt': no such file"):
            create_model("resnet8_cifar", CLASSES, "transformer", head_settings={"word_vectors": tmp_path / "gone.txt"})

    def test_they_stay_as_they_are(self, glove: Path) -> None:
        torch.manual_seed(0)
        head = TransformerHead(6, CLASSES, 8, word_vectors=glove)
        assert torch.equal(head.word_vectors, class_vectors(glove, CLASSES))
        assert "word_vectors" not in dict(head.named_parameters())
        head(torch.randn(2, 6, 2, 2))[0].sum().backward()
        assert head.project_words.weight.grad.abs().sum() > 0

    @torch.no_grad()
    def test_a_saved_model_needs_no_file(self, glove: Path, tmp_path: Path) -> None:
        given = {"word_vectors": glove, "layers": 1}
        model = create_model("resnet8_cifar", CLASSES, "transformer", image_size=16, embed_dim=8, head_settings=given)
        assert json.loads(json.dumps(model.settings))["head_settings"] == {"word_vectors": 3, "layers": 1}
        assert given == {"word_vectors": glove, "layers": 1}
        save_model(model, tmp_path / "model.safetensors")
        glove.unlink()
        back = load_model(tmp_path / "model.safetensors")
        assert torch.equal(back.head.word_vectors, model.head.word_vectors)
        assert fingerprint(back) == fingerprint(model)
        images = torch.rand(2, 3, 16, 16)
        assert torch.equal(back(images).logits, model.eval()(images).logits)

    def test_they_are_part_of_the_fingerprint(self) -> None:
        torch.manual_seed(0)
        model = create_model(
            "resnet8_cifar", CLASSES, "transformer", image_size=16, embed_dim=8, head_settings={"word_vectors": 3}
        )
        before = fingerprint(model)
        model.head.word_vectors[0, 0] += 1
        assert fingerprint(model) != before

    def test_none_is_said_as_well(self, tmp_path: Path) -> None:
        given = {"word_vectors": None}
        model = create_model("resnet8_cifar", CLASSES, "transformer", image_size=16, embed_dim=8, head_settings=given)
        save_model(model, tmp_path / "model.safetensors")
        assert load_model(tmp_path / "model.safetensors").settings["head_settings"] == given
