"""CPSD and the methods it is compared with: the terms of a step, and a training with its teachers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from mlkd.data import MultiLabelData
from mlkd.losses import asl, merged_distillation, mse
from mlkd.methods import METHODS, Batch, create_method
from mlkd.models import Output, create_model, fingerprint
from mlkd.study.label_subsets import train_label_subsets
from mlkd.training.config import Config
from mlkd.training.loop import fit

ONE_TEACHER = {"sd": "all_labels", "cgpd": "cgp", "dgpd": "dgp", "random-psd": "random"}
NAMES = ("cpsd", *ONE_TEACHER)


def step(roles: tuple[str, ...]) -> tuple[Output, Batch]:
    """Outputs of a student and of teachers, all with gradient."""
    generator = torch.Generator().manual_seed(0)

    def output() -> Output:
        logits = 2 * torch.randn(5, 4, generator=generator)
        return Output(logits.requires_grad_(), None, torch.zeros(5, 2, 1, 1))

    targets = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])
    ignore_mask = torch.zeros(5, 4, dtype=torch.bool)
    ignore_mask[4, 0] = ignore_mask[2, 3] = True
    return output(), Batch(torch.zeros(5, 3, 4, 4), targets, ignore_mask, {role: output() for role in roles})


def test_required_teachers() -> None:
    assert METHODS["cpsd"].required_teachers == ("cgp", "dgp")
    for name, role in ONE_TEACHER.items():
        assert METHODS[name].required_teachers == (role,)


def test_defaults_are_the_papers() -> None:
    """Sec. 4: k = 5, tau = 3; Eqs. (4), (6) and (7) sum over the batch with weights 1, 1/2 and 1/2."""
    settings = create_method("cpsd").settings()
    assert (settings["k"], settings["tau"], settings["alpha"]) == (5, 3, 0.5)
    for name in NAMES:
        assert (create_method(name).reduction, create_method(name).lambda_kd) == ("sum", 1)
    assert not {"k", "tau"} & create_method("sd").settings().keys()


def test_cpsd_as_in_the_paper() -> None:
    """Eqs. (6) and (7) in loops."""
    student, batch = step(("cgp", "dgp"))
    terms = create_method("cpsd").loss_terms(student, batch)
    assert list(terms) == ["asl", "kd"]
    kd = 0.0
    for role in ("cgp", "dgp"):
        for i in range(5):
            for k in range(4):
                kd += (student.logits[i, k].item() - batch.teachers[role].logits[i, k].item()) ** 2 / 2
    assert terms["kd"].item() == pytest.approx(kd, rel=1e-6)
    assert terms["asl"] == asl(student.logits, batch.targets, ignore_mask=batch.ignore_mask)


def test_cpsd_with_other_settings() -> None:
    student, batch = step(("cgp", "dgp"))
    terms = create_method("cpsd", alpha=0.25, lambda_kd=3.0).loss_terms(student, batch)
    co, dis = (batch.teachers[role].logits for role in ("cgp", "dgp"))
    assert terms["asl"] == asl(student.logits, batch.targets, ignore_mask=batch.ignore_mask)
    expected = 3 * merged_distillation(student.logits, co, dis, 0.25)
    torch.testing.assert_close(terms["kd"], expected)


@pytest.mark.parametrize(("name", "role"), ONE_TEACHER.items())
def test_methods_with_one_teacher(name: str, role: str) -> None:
    student, batch = step((role,))
    terms = create_method(name, lambda_kd=2.0).loss_terms(student, batch)
    assert list(terms) == ["asl", "kd"]
    assert terms["asl"] == asl(student.logits, batch.targets, ignore_mask=batch.ignore_mask)
    torch.testing.assert_close(terms["kd"], 2 * mse(student.logits, batch.teachers[role].logits, reduction="sum"))


@pytest.mark.parametrize("name", NAMES)
def test_only_the_student_gets_gradient(name: str) -> None:
    student, batch = step(METHODS[name].required_teachers)
    torch.stack(list(create_method(name).loss_terms(student, batch).values())).sum().backward()
    assert student.logits.grad is not None
    assert student.logits.grad.abs().sum() > 0
    assert all(teacher.logits.grad is None for teacher in batch.teachers.values())


@pytest.mark.parametrize("name", NAMES)
def test_missing_teacher_is_named(name: str) -> None:
    role = METHODS[name].required_teachers[-1]
    student = create_model("resnet8_cifar", ("a", "b"), "gap", image_size=16, widths=(4, 8, 8))
    teachers = {other: student for other in METHODS[name].required_teachers[:-1]}
    with pytest.raises(ValueError, match=f"'{name}' requires a teacher: pass a model as `{role}`"):
        create_method(name, **teachers).check(student)


@pytest.mark.usefixtures("own_cache")
def test_student_of_two_merged_teachers(
    toy_data: Mapping[str, MultiLabelData], toy_config: Config, tmp_path: Path
) -> None:
    """End to end: label subsets, merged teachers, student. Both losses decrease."""
    teachers = {role: train_label_subsets(toy_data, toy_config, role, 2, runs=tmp_path) for role in ("cgp", "dgp")}
    method = create_method("cpsd", k=2, reduction="batchmean", **teachers)
    run = fit(method, toy_data, toy_config.replace(epochs=8, lr=1e-2), runs=tmp_path)
    history = run.history
    assert list(history.columns)[2:4] == ["asl", "kd"]
    assert history["asl"].iloc[-1] < history["asl"].iloc[0]
    assert history["kd"].iloc[-1] < history["kd"].iloc[0]
    assert run.metrics["val"]["mAP"] > toy_data["val"].targets.mean() + 0.05  # better than a random ranking
    settings = run.config["settings"]
    assert (settings["cgp"], settings["dgp"]) == tuple(fingerprint(teachers[role]) for role in ("cgp", "dgp"))
    again = fit(method, toy_data, toy_config.replace(epochs=8, lr=1e-2), runs=tmp_path)
    assert again.path == run.path


def test_vanilla_with_the_asymmetric_loss() -> None:
    """How the models of label subsets are trained."""
    student, batch = step(())
    terms = create_method("vanilla", loss="asl").loss_terms(student, batch)
    expected = asl(student.logits, batch.targets, ignore_mask=batch.ignore_mask)
    assert terms == {"asl": expected}
