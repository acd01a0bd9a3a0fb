"""The methods that L2D, MDKD and MSKD are compared with: their terms, one optimizer step, and trainings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from interruption import interrupt
from safetensors.torch import load_file
from torch import Tensor, nn

from mlkd.data import MultiLabelData
from mlkd.losses import (
    bce,
    cam_kd_loss,
    hcl,
    inter_class_relation,
    intra_class_relation,
    mld,
    mse,
    pick_all_labels_normalized,
    pkt_loss,
    prediction_distribution_distillation,
    ps_loss,
    rkd_angle,
    rkd_distance,
    uncertainty,
    uncertainty_attention_distillation,
    uncertainty_map,
)
from mlkd.methods import METHODS, Batch, Method, create_method
from mlkd.models import MergedTeacher, MultiLabelModel, create_model
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
    "cam-kd": ["cam"],
    "dist": ["inter", "intra"],
}
Step = tuple[Method, MultiLabelModel, MultiLabelModel, Batch]


def small(head: str, size: int, widths: tuple[int, ...], seed: int) -> MultiLabelModel:
    torch.manual_seed(seed)
    return create_model("resnet8_cifar", CLASSES, head, image_size=size, embed_dim=None, widths=widths)


def step(name: str, *, heads=("label_wise", "gap"), sizes=(16, 24), ignore_mask=False, **settings) -> Step:
    """A method, a student, a teacher with another width, grid and head, and a batch of images with 0 to 4 labels."""
    student = small(heads[0], sizes[0], (4, 8, 8), 0)
    teacher = small(heads[1], sizes[1], (8, 8, 12), 1).eval()
    method = create_method(name, teacher=teacher, **settings)
    method.check(student)
    torch.manual_seed(2)
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    targets = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])
    mask = torch.zeros(5, 4, dtype=torch.bool)
    mask[4, 0] = mask[2, 3] = True
    with torch.no_grad():
        output = teacher(images)
    auxiliary = method.build_auxiliary(student, 64)
    batch = Batch(
        images,
        targets,
        mask if ignore_mask else None,
        {"teacher": output},
        model=student,
        auxiliary=auxiliary or nn.Identity(),
    )
    return method, student, teacher, batch


each = pytest.mark.parametrize("name", TERMS)


def test_weights_are_the_papers() -> None:
    assert create_method("mld").lambda_mld == 10
    assert (create_method("rkd").lambda_distance, create_method("rkd").lambda_angle) == (25, 50)
    assert create_method("pkt").lambda_pkt == 30_000
    assert (create_method("reviewkd").lambda_hcl, create_method("reviewkd").width) == (1, 256)
    ud = create_method("ud")
    assert (ud.lambda_distribution, ud.lambda_attention, ud.temperature) == (1, 0.1, 3)
    assert (create_method("cam-kd").lambda_cam, create_method("cam-kd").grid) == (400, 2)
    dist = create_method("dist")
    assert (dist.lambda_inter, dist.lambda_intra, dist.temperature) == (2, 2, 1)


@each
def test_documentation_and_teacher(name: str) -> None:
    method = METHODS[name]
    assert method.equations
    assert (method.__doc__ or "").startswith("$L_{BCE} + ")
    assert method.required_teachers == ("teacher",)
    with pytest.raises(ValueError, match=f"{name!r} requires a teacher"):
        create_method(name).check(small("gap", 16, (4, 8, 8), 0))


@each
@pytest.mark.parametrize("ignore_mask", [False, True])
def test_bce_is_that_of_all_methods(name: str, ignore_mask: bool) -> None:
    method, student, _, batch = step(name, ignore_mask=ignore_mask)
    output = student(batch.images)
    terms = method.loss_terms(output, batch)
    assert list(terms) == ["bce", *TERMS[name]]
    assert terms["bce"] == bce(output.logits, batch.targets, reduction=method.reduction, ignore_mask=batch.ignore_mask)


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
        ("cam-kd", "lambda_cam", "cam"),
        ("dist", "lambda_inter", "inter"),
        ("dist", "lambda_intra", "intra"),
    ],
)
def test_weight_multiplies_its_term_only(name: str, setting: str, term: str) -> None:
    method, student, _, batch = step(name, **{setting: 3.0})
    student.eval()
    once = method.loss_terms(student(batch.images), batch)
    twice = method.replace(**{setting: 6.0}).loss_terms(student(batch.images), batch)
    for key, value in once.items():
        torch.testing.assert_close(twice[key], 2 * value if key == term else value)
    assert once[term] > 0


@pytest.mark.parametrize("name", ["mld", "mse", "ps", "rkd", "pkt"])
def test_terms_are_the_weighted_losses(name: str) -> None:
    method, student, _, batch = step(name)
    output = student(batch.images)
    logits = output.logits, batch.teacher.logits
    features = output.features.mean((2, 3)), batch.teacher.features.mean((2, 3))
    expected = {
        "mld": 10 * mld(*logits),
        "mse": mse(*logits),
        "ps": ps_loss(*logits, batch.targets),
        "distance": 25 * rkd_distance(*features),
        "angle": 50 * rkd_angle(*features),
        "pkt": 30_000 * pkt_loss(*features),
    }
    for term, value in method.loss_terms(output, batch).items():
        if term != "bce":
            torch.testing.assert_close(value, expected[term])


def test_temperature_of_mld() -> None:
    method, student, _, batch = step("mld", temperature=3.0)
    output = student(batch.images)
    expected = 10 * 9 * mld(output.logits / 3, batch.teacher.logits / 3)
    torch.testing.assert_close(method.loss_terms(output, batch)["mld"], expected)
    with pytest.raises(ValueError, match=r"`temperature` of the method 'mld' is 0\.0, expected a number greater"):
        create_method("mld", temperature=0.0)


def test_terms_of_dist_are_the_weighted_losses() -> None:
    method, student, _, batch = step("dist", temperature=4.0, lambda_intra=3.0)
    output = student(batch.images)
    terms, logits = method.loss_terms(output, batch), (output.logits, batch.teacher.logits)
    torch.testing.assert_close(terms["inter"], 2 * inter_class_relation(*logits, temperature=4.0))
    torch.testing.assert_close(terms["intra"], 3 * intra_class_relation(*logits, temperature=4.0))


def test_term_of_cam_kd_is_the_weighted_loss() -> None:
    method, student, teacher, batch = step("cam-kd", grid=3)
    output = student.eval()(batch.images)
    maps = (
        student.head.cams(output.features),
        teacher.head.cams(batch.teacher.features),
    )
    torch.testing.assert_close(method.loss_terms(output, batch)["cam"], 400 * cam_kd_loss(*maps, grid=3))


def test_cam_kd_gathers_the_maps_of_all_processes() -> None:
    """A slice of the batch, with the maps of the other slice from the other process."""
    method, student, teacher, batch = step("cam-kd")
    student.eval()
    output = student(batch.images)
    others = iter(
        [
            student.head.cams(output.features[2:]),
            teacher.head.cams(batch.teacher.features[2:]),
        ]
    )
    first = batch._replace(
        teachers={"teacher": batch.teacher._replace(features=batch.teacher.features[:2])},
        all_gather=lambda rows: torch.cat([rows, next(others)]),
    )
    terms = method.loss_terms(output._replace(features=output.features[:2]), first)
    torch.testing.assert_close(terms, method.loss_terms(output, batch))


@pytest.mark.parametrize(("role", "heads"), [("student", ("transformer", "gap")), ("teacher", ("gap", "query2label"))])
def test_cam_kd_refuses_a_head_without_class_activation_maps(role: str, heads: tuple[str, str]) -> None:
    head = heads[role == "teacher"]
    with pytest.raises(ValueError, match=f"maps, which the {role}'s head '{head}' does not have; use head='gap'"):
        step("cam-kd", heads=heads)


def test_cam_kd_refuses_a_merged_teacher() -> None:
    submodels = [
        create_model("resnet8_cifar", CLASSES[:2], "gap", image_size=16),
        create_model("resnet8_cifar", CLASSES[2:], "gap", image_size=16),
    ]
    method = create_method("cam-kd", teacher=MergedTeacher(submodels, CLASSES))
    with pytest.raises(ValueError, match="of one network, and `teacher` is a MergedTeacher; pass a MultiLabelModel"):
        method.check(small("gap", 16, (4, 8, 8), 0))


@pytest.mark.parametrize("sizes", [(16, 24), (24, 16), (16, 16)])
def test_reviewkd_translates_the_student_onto_the_teachers_grid(sizes: tuple[int, int]) -> None:
    method, student, teacher, batch = step("reviewkd", sizes=sizes, width=6)
    assert [type(layer) for layer in batch.auxiliary.layers] == [nn.Conv2d, nn.BatchNorm2d, nn.Conv2d, nn.BatchNorm2d]
    shapes = [tuple(layer.weight.shape) for layer in batch.auxiliary.layers[::2]]
    assert shapes == [(6, student.backbone.width, 1, 1), (teacher.backbone.width, 6, 3, 3)]
    output, teacher_features = student(batch.images), batch.teacher.features
    resized = nn.functional.adaptive_avg_pool2d(output.features, teacher_features.shape[2:])
    expected = hcl(batch.auxiliary.layers(resized), teacher_features)
    torch.testing.assert_close(method.loss_terms(output, batch)["hcl"], expected)


@pytest.mark.parametrize("temperature", [3.0, 2.0])
def test_terms_of_ud_are_the_weighted_losses(temperature: float) -> None:
    method, student, teacher, batch = step("ud", temperature=temperature)
    student.eval()
    output, teacher_output = student(batch.images), batch.teacher
    terms = method.loss_terms(output, batch)
    student_branch, teacher_branch = batch.auxiliary["student"], batch.auxiliary["teacher"]

    def map_of(features: Tensor, head: nn.Module, branch: nn.Module) -> Tensor:
        leaf = features.detach().requires_grad_()
        uncertainty(head(leaf)[0], branch(leaf)).backward()
        return uncertainty_map(features, leaf.grad)

    calibration = student_branch(output.features), teacher_branch(teacher_output.features)
    maps = (
        map_of(output.features, student.head, student_branch),
        map_of(teacher_output.features, teacher.head, teacher_branch),
    )
    expected = {
        "calibration": pick_all_labels_normalized(calibration[1], batch.targets),
        "distribution": prediction_distribution_distillation(
            output.logits, teacher_output.logits, *calibration, temperature=temperature
        ),
        "attention": 0.1 * uncertainty_attention_distillation(*maps),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_ud_trains_the_teachers_branch_with_the_labels_only() -> None:
    method, student, _, batch = step("ud")
    terms = method.loss_terms(student(batch.images), batch)
    branch = list(batch.auxiliary["teacher"].parameters())
    others = [*student.parameters(), *batch.auxiliary["student"].parameters()]
    for name, value in terms.items():
        gradients = torch.autograd.grad(value, branch, retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().sum() > 0 for g in gradients) == (name == "calibration"), name
        gradients = torch.autograd.grad(value, others, retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().sum() > 0 for g in gradients) == (name != "calibration"), name


@each
@pytest.mark.parametrize("heads", [("label_wise", "label_wise"), ("gap", "gap"), ("gap", "label_wise")])
@pytest.mark.parametrize("autocast", [False, True])
def test_optimizer_step_changes_the_student_and_not_the_teacher(
    name: str, heads: tuple[str, str], autocast: bool
) -> None:
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
    for parameter, initial in zip(student.backbone.parameters(), start, strict=True):
        assert not torch.equal(parameter, initial)


@each
def test_teacher_with_a_graph_gets_no_gradient(name: str) -> None:
    method, student, teacher, batch = step(name)
    batch = batch._replace(teachers={"teacher": teacher(batch.images)})
    assert batch.teacher.features.requires_grad
    torch.stack(list(method.loss_terms(student(batch.images), batch).values())).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


@each
def test_distillation_reaches_the_student(name: str) -> None:
    method, student, _, batch = step(name)
    terms = method.loss_terms(student(batch.images), batch)
    del terms["bce"]
    weight = next(student.backbone.parameters())
    (gradient,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), weight)
    assert gradient.abs().sum() > 0


# Trainings

TOY_SETTINGS = {
    "reviewkd": {"width": 8},
    "dist": {"lambda_inter": 0.1, "lambda_intra": 0.1},  # the toy teacher is not trained
}
Data = Mapping[str, MultiLabelData]


def weights(run: Run) -> dict[str, Tensor]:
    return load_file(run.path / "model.safetensors")


@each
@pytest.mark.usefixtures("own_cache")
def test_resumed_training_is_bit_identical(
    name: str, toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    config = toy_config.replace(epochs=2)
    method = create_method(name, teacher=toy_teacher, **TOY_SETTINGS.get(name, {}))
    expected = fit(method, toy_data, config, runs=tmp_path / "uninterrupted")
    assert list(expected.history.columns)[2 : 3 + len(TERMS[name])] == ["bce", *TERMS[name]]
    assert expected.history["bce"].iloc[-1] < expected.history["bce"].iloc[0]
    assert expected.metrics["parameters"] == sum(parameter.numel() for parameter in expected.model().parameters())
    assert weights(expected).keys() == expected.model().state_dict().keys()

    with interrupt(6):  # in epoch 2
        fit(method, toy_data, config, runs=tmp_path / "interrupted")
    resumed = fit(method, toy_data, config, runs=tmp_path / "interrupted")
    assert weights(resumed).keys() == weights(expected).keys()
    assert all(torch.equal(value, weights(expected)[key]) for key, value in weights(resumed).items())
    times = ["seconds", "images_per_second"]
    assert resumed.history.drop(columns=times).equals(expected.history.drop(columns=times))
