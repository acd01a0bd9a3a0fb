"""The methods that L2D, MDKD and MSKD compare with: the sum of their terms, one real step, and whole trainings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mlkd.data import MultiLabelData
from mlkd.losses.classification import bce
from mlkd.losses.cpsd import mse
from mlkd.losses.l2d import mld
from mlkd.losses.pkt import pkt
from mlkd.losses.reviewkd import hcl
from mlkd.losses.rkd import angle, distance
from mlkd.losses.uncertainty import attention, disagreement, distribution, pick_all_labels, ps, uncertainty_map
from mlkd.methods import METHODS, Batch, Method, create_method
from mlkd.models import MultiLabelModel, create_model
from mlkd.progress import Progress
from mlkd.training.config import Config
from mlkd.training.loop import fit
from mlkd.training.runs import Run

CLASSES = ("a", "b", "c", "d")
TERMS = {
    "mld": ["mld"],
    "mse": ["mse"],
    "ps": ["ps"],
    "rkd": ["distance", "angle"],
    "pkt": ["pkt"],
    "reviewkd": ["hcl"],
    "ud": ["calibration", "distribution", "attention"],
}
Step = tuple[Method, MultiLabelModel, MultiLabelModel, Batch]


def small(head: str, size: int, widths: tuple[int, ...], seed: int) -> MultiLabelModel:
    torch.manual_seed(seed)
    return create_model("resnet8_cifar", CLASSES, head, image_size=size, embed_dim=None, widths=widths)


def step(name: str, *, heads=("label_wise", "gap"), sizes=(16, 24), ignore_mask=False, **settings) -> Step:
    """A method with a student, a teacher of other width, grid and head, and a batch of pictures with 0 to 4 labels."""
    student = small(heads[0], sizes[0], (4, 8, 8), 0)
    teacher = small(heads[1], sizes[1], (8, 8, 12), 1).eval()
    method = create_method(name, teacher=teacher, **settings)
    method.check(student)
    torch.manual_seed(2)
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    targets = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])
    hidden = torch.zeros(5, 4, dtype=torch.bool)
    hidden[4, 0] = hidden[2, 3] = True
    with torch.no_grad():
        output = teacher(images)
    parts = method.build_auxiliary(student, 64)
    batch = Batch(
        images,
        targets,
        hidden if ignore_mask else None,
        {"teacher": output},
        model=student,
        auxiliary=parts or nn.Identity(),
    )
    return method, student, teacher, batch


each = pytest.mark.parametrize("name", TERMS)


def test_the_papers_weights() -> None:
    assert create_method("mld").lambda_mld == 10
    assert (create_method("rkd").lambda_distance, create_method("rkd").lambda_angle) == (25, 50)
    assert create_method("pkt").lambda_pkt == 30_000
    assert (create_method("reviewkd").lambda_hcl, create_method("reviewkd").width) == (1, 256)
    ud = create_method("ud")
    assert (ud.lambda_distribution, ud.lambda_attention, ud.temperature) == (1, 0.1, 3)


@each
def test_says_where_it_comes_from(name: str) -> None:
    kind = METHODS[name]
    assert kind.paper
    assert kind.equations
    assert (kind.__doc__ or "").startswith("$L_{BCE} + ")
    assert kind.required_teachers == ("teacher",)
    with pytest.raises(ValueError, match=f"{name!r} needs a teacher"):
        create_method(name).check(small("gap", 16, (4, 8, 8), 0))


@each
@pytest.mark.parametrize("ignore_mask", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "batchmean"])
def test_the_labels_count_as_always(name: str, ignore_mask: bool, reduction: str) -> None:
    method, student, _, batch = step(name, ignore_mask=ignore_mask, reduction=reduction)
    output = student(batch.images)
    terms = method.loss_terms(output, batch)
    assert list(terms) == ["bce", *TERMS[name]]
    assert terms["bce"] == bce(output.logits, batch.targets, reduction=reduction, ignore_mask=batch.ignore_mask)


@pytest.mark.parametrize(
    ("name", "setting", "term"),
    [
        ("mld", "lambda_mld", "mld"),
        ("mse", "lambda_mse", "mse"),
        ("ps", "lambda_ps", "ps"),
        ("rkd", "lambda_distance", "distance"),
        ("rkd", "lambda_angle", "angle"),
        ("pkt", "lambda_pkt", "pkt"),
        ("reviewkd", "lambda_hcl", "hcl"),
        ("ud", "lambda_distribution", "distribution"),
        ("ud", "lambda_attention", "attention"),
    ],
)
def test_a_weight_is_for_its_own_term(name: str, setting: str, term: str) -> None:
    method, student, _, batch = step(name, **{setting: 3.0})
    student.eval()
    once = method.loss_terms(student(batch.images), batch)
    setattr(method, setting, 6.0)
    twice = method.loss_terms(student(batch.images), batch)
    for key, value in once.items():
        torch.testing.assert_close(twice[key], 2 * value if key == term else value)
    assert once[term] > 0


def test_terms_are_the_losses() -> None:
    for name in ("mld", "mse", "ps", "rkd", "pkt"):
        method, student, _, batch = step(name)
        output, teacher = student(batch.images), batch.teacher
        pooled = output.features.mean((2, 3)), teacher.features.mean((2, 3))
        expected = {
            "mld": lambda o=output, t=teacher: {"mld": 10 * mld(o.logits, t.logits)},
            "mse": lambda o=output, t=teacher: {"mse": mse(o.logits, t.logits)},
            "ps": lambda o=output, t=teacher, b=batch: {"ps": ps(o.logits, t.logits, b.targets)},
            "rkd": lambda p=pooled: {"distance": 25 * distance(*p), "angle": 50 * angle(*p)},
            "pkt": lambda p=pooled: {"pkt": 30_000 * pkt(*p)},
        }[name]()
        terms = method.loss_terms(output, batch)
        for key, value in expected.items():
            torch.testing.assert_close(terms[key], value)


@pytest.mark.parametrize("sizes", [(16, 24), (24, 16), (16, 16)])
def test_reviewkd_translates_the_student_onto_the_teachers_grid(sizes: tuple[int, int]) -> None:
    method, student, teacher, batch = step("reviewkd", sizes=sizes, width=6)
    assert [type(layer) for layer in batch.auxiliary] == [nn.Conv2d, nn.BatchNorm2d, nn.Conv2d, nn.BatchNorm2d]
    shapes = [tuple(layer.weight.shape) for layer in batch.auxiliary[::2]]
    assert shapes == [(6, student.backbone.width, 1, 1), (teacher.backbone.width, 6, 3, 3)]
    output, its = student(batch.images), batch.teacher.features
    resized = nn.functional.adaptive_avg_pool2d(output.features, its.shape[2:])
    torch.testing.assert_close(method.loss_terms(output, batch)["hcl"], hcl(batch.auxiliary(resized), its))


@pytest.mark.parametrize("temperature", [3.0, 2.0])
def test_ud_puts_its_losses_together(temperature: float) -> None:
    method, student, teacher, batch = step("ud", temperature=temperature)
    student.eval()
    output, its = student(batch.images), batch.teacher
    terms = method.loss_terms(output, batch)
    mine, theirs = batch.auxiliary["student"], batch.auxiliary["teacher"]

    def map_of(features: Tensor, head: nn.Module, branch: nn.Module) -> Tensor:
        leaf = features.detach().requires_grad_()
        disagreement(head(leaf)[0], branch(leaf)).backward()
        return uncertainty_map(features, leaf.grad)

    calibration = theirs(its.features)
    expected = {
        "calibration": pick_all_labels(calibration, batch.targets),
        "distribution": distribution(
            output.logits, its.logits, mine(output.features), calibration, temperature=temperature
        ),
        "attention": 0.1
        * attention(map_of(output.features, student.head, mine), map_of(its.features, teacher.head, theirs)),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_uds_branches_see_the_largest_value_of_each_channel() -> None:
    _, student, _, batch = step("ud")
    features = student(batch.images).features
    for branch, width in ((batch.auxiliary["student"], 8), (batch.auxiliary["teacher"], 12)):
        maps = torch.cat([features, features], dim=1)[:, :width]
        torch.testing.assert_close(branch(maps), branch(maps.amax((2, 3), keepdim=True)))
        assert not torch.allclose(branch(maps), branch(maps.mean((2, 3), keepdim=True)))


def test_ud_trains_the_teachers_branch_by_the_labels_and_nothing_else() -> None:
    method, student, _, batch = step("ud")
    terms = method.loss_terms(student(batch.images), batch)
    branch = list(batch.auxiliary["teacher"].parameters())
    others = [*student.parameters(), *batch.auxiliary["student"].parameters()]
    for name, value in terms.items():
        found = torch.autograd.grad(value, branch, retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().sum() > 0 for g in found) == (name == "calibration"), name
        found = torch.autograd.grad(value, others, retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().sum() > 0 for g in found) == (name != "calibration"), name


@each
@pytest.mark.parametrize("heads", [("label_wise", "label_wise"), ("gap", "gap"), ("gap", "label_wise")])
@pytest.mark.parametrize("autocast", [False, True])
def test_one_step_moves_the_student_and_not_the_teacher(name: str, heads: tuple[str, str], autocast: bool) -> None:
    method, student, teacher, batch = step(name, heads=heads)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD([*student.parameters(), *batch.auxiliary.parameters()], lr=1e-3)
    start = [parameter.detach().clone() for parameter in student.backbone.parameters()]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        output = student(batch.images)
        terms = method.loss_terms(
            output._replace(logits=output.logits.float(), features=output.features.float()), batch
        )
    assert all(term.isfinite() and term.requires_grad and term.dtype == torch.float32 for term in terms.values())
    assert all(term > 0 for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    for parameter in [*student.parameters(), *batch.auxiliary.parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    optimizer.step()
    moved = [not torch.equal(now, then) for now, then in zip(student.backbone.parameters(), start, strict=True)]
    assert all(moved)


@each
def test_a_teacher_that_could_learn_does_not(name: str) -> None:
    method, student, teacher, batch = step(name)
    batch = batch._replace(teachers={"teacher": teacher(batch.images)})  # with a graph, which the loop does not keep
    assert batch.teacher.features.requires_grad
    torch.stack(list(method.loss_terms(student(batch.images), batch).values())).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


@each
def test_without_its_terms_it_is_another_training(name: str) -> None:
    """The distillation reaches the student: the gradient is not that of the labels alone."""
    method, student, _, batch = step(name)
    terms = method.loss_terms(student(batch.images), batch)
    del terms["bce"]
    weight = next(student.backbone.parameters())
    (gradient,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), weight)
    assert gradient.abs().sum() > 0


# Whole trainings

Data = Mapping[str, MultiLabelData]


def weights(run: Run) -> dict[str, Tensor]:
    return load_file(run.path / "model.safetensors")


@each
@pytest.mark.usefixtures("own_cache")
def test_a_stopped_training_goes_on_as_if_it_had_not(
    name: str, toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    config = toy_config.replace(epochs=2)
    method = create_method(name, teacher=toy_teacher, **({"width": 8} if name == "reviewkd" else {}))
    whole = fit(method, toy_data, config, runs=tmp_path / "whole")
    assert list(whole.history.columns)[2 : 3 + len(TERMS[name])] == ["bce", *TERMS[name]]
    assert whole.history["bce"].iloc[-1] < whole.history["bce"].iloc[0]
    assert whole.metrics["parameters"] == sum(parameter.numel() for parameter in whole.model().parameters())
    assert not any(key.startswith("parts") for key in weights(whole))

    original, calls = Progress.step, [0]

    def stopping(*args, **kwargs):
        calls[0] += 1
        if calls[0] == 6:  # in the second epoch
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(method, toy_data, config, runs=tmp_path / "stopped")
    again = fit(method, toy_data, config, runs=tmp_path / "stopped")
    mine, its = weights(again), weights(whole)
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[key], its[key]) for key in mine)
    times = ["seconds", "images_per_second"]
    assert again.history.drop(columns=times).equals(whole.history.drop(columns=times))
