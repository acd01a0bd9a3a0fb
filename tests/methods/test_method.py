"""Methods: found by name, told from their settings, and the sum of their paper's terms."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.l2d import cd, id_, mld
from mlkd.methods import L2D, METHODS, Batch, Method, Vanilla, create_method, register_method
from mlkd.models import MultiLabelModel, Output, create_model, fingerprint

CLASSES = ("a", "b", "c", "d")


def small(head: str = "label_wise", classes: tuple[str, ...] = CLASSES, seed: int = 0) -> MultiLabelModel:
    torch.manual_seed(seed)
    return create_model("resnet8_cifar", classes, head, image_size=16, embed_dim=8, widths=(4, 8, 8))


def step(ignore_mask: bool = False) -> tuple[Output, Batch]:
    """Outputs of a student and a teacher that both carry gradient, for pictures with 0 to 4 labels."""
    torch.manual_seed(0)
    targets = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])

    def output(width: int) -> Output:
        logits, embeddings = torch.randn(5, 4), torch.randn(5, 4, width)
        return Output(logits.requires_grad_(), embeddings.requires_grad_(), torch.zeros(5, 2, 1, 1))

    hidden = torch.zeros(5, 4, dtype=torch.bool)
    hidden[4, 0] = hidden[2, 3] = True
    return output(6), Batch(torch.zeros(5, 3, 4, 4), targets, hidden if ignore_mask else None, {"teacher": output(10)})


class TestNames:
    def test_known(self) -> None:
        assert METHODS["l2d"] is L2D
        assert METHODS["vanilla"] is Vanilla
        assert isinstance(create_method("l2d", lambda_mld=2.0), L2D)
        assert (L2D.name, Vanilla.name) == ("l2d", "vanilla")

    def test_unknown_method(self) -> None:
        with pytest.raises(ValueError, match=r"`method` is 'L2B'.*Did you mean 'l2d'"):
            create_method("L2B")

    def test_unknown_setting(self) -> None:
        with pytest.raises(ValueError, match=r"The method 'l2d' has no setting 'lamda_cd'\. Did you mean 'lambda_cd'"):
            create_method("l2d", lamda_cd=1.0)
        with pytest.raises(ValueError, match="'vanilla' has no setting 'lambda_mld'"):
            create_method("vanilla", lambda_mld=1.0)

    @pytest.mark.parametrize(
        ("name", "setting", "value", "told"),
        [
            ("mld", "lambda_mld", "1,5", "expected a number, as its default 10.0"),
            ("mld", "lambda_mld", True, "expected a number"),
            ("cpsd", "k", 2.5, "expected a whole number, as its default 5"),
            ("vanilla", "reduction", 1, "expected a word, as its default 'sum'"),
        ],
    )
    def test_a_value_of_the_wrong_kind(self, name: str, setting: str, value: object, told: str) -> None:
        with pytest.raises(ValueError, match=f"`{setting}` is {value!r}, {told}"):
            create_method(name, **{setting: value})
        create_method("mld", lambda_mld=np.float32(3))

    def test_a_new_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(METHODS, "louder", Vanilla)  # taken back after the test

        @register_method("louder")
        @dataclass
        class Louder(Method):
            volume: float = 11.0

            def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
                return {"noise": self.volume * student.logits.mean()}

        method = create_method("louder", volume=2.0)
        student, batch = step()
        assert method.name == "louder"
        assert method.settings() == {"volume": 2.0}
        assert method.loss_terms(student, batch)["noise"] == 2 * student.logits.mean()

    def test_without_terms(self) -> None:
        with pytest.raises(TypeError, match="Method has no `loss_terms`"):
            Method().loss_terms(*step())


class TestSettings:
    def test_the_papers(self) -> None:
        """Sec. 4: λ_MLD = 10, λ_CD = 100, λ_ID = 1000."""
        method = create_method("l2d")
        assert (method.lambda_mld, method.lambda_cd, method.lambda_id) == (10, 100, 1000)

    @pytest.mark.parametrize("name", METHODS)
    def test_plain(self, name: str) -> None:
        teachers = {role: small() for role in METHODS[name].required_teachers}
        settings = create_method(name, **teachers).settings()
        assert json.loads(json.dumps(settings)) == settings
        for role, teacher in teachers.items():
            assert settings[role] == fingerprint(teacher)
            assert create_method(name).settings()[role] is None


class TestTerms:
    @pytest.mark.parametrize("ignore_mask", [False, True])
    @pytest.mark.parametrize("distance", ["mean", "raw"])
    @pytest.mark.parametrize("reduction", ["sum", "batchmean"])
    def test_l2d(self, ignore_mask: bool, distance: str, reduction: str) -> None:
        """Eq. (9)."""
        student, batch = step(ignore_mask)
        weights = {"lambda_mld": 2.0, "lambda_cd": 3.0, "lambda_id": 5.0}
        terms = create_method("l2d", **weights, distance=distance, reduction=reduction).loss_terms(student, batch)
        assert list(terms) == ["bce", "mld", "cd", "id"]
        theirs = batch.teacher.embeddings
        expected = (
            bce(student.logits, batch.targets, reduction=reduction, ignore_mask=batch.ignore_mask)
            + 2 * mld(student.logits, batch.teacher.logits)
            + 3 * cd(student.embeddings, theirs, batch.targets, distance=distance)
            + 5 * id_(student.embeddings, theirs, batch.targets, distance=distance)
        )
        assert min(float(term.detach()) for term in terms.values()) > 0
        torch.testing.assert_close(sum(terms.values()), expected)

    def test_vanilla(self) -> None:
        student, batch = step(ignore_mask=True)
        terms = create_method("vanilla").loss_terms(student, batch._replace(teachers={}))
        assert list(terms) == ["bce"]
        assert terms["bce"] == bce(student.logits, batch.targets, reduction="sum", ignore_mask=batch.ignore_mask)

    @pytest.mark.parametrize(
        ("off", "left"),
        [
            (["lambda_mld"], ["bce", "cd", "id"]),
            (["lambda_cd", "lambda_id"], ["bce", "mld"]),
            (["lambda_mld", "lambda_cd", "lambda_id"], ["bce"]),
            (["lambda_id"], ["bce", "mld", "cd"]),
            (["lambda_cd"], ["bce", "mld", "id"]),
        ],
    )
    def test_weight_zero(self, off: list[str], left: list[str]) -> None:
        student, batch = step()
        terms = create_method("l2d", **dict.fromkeys(off, 0.0)).loss_terms(student, batch)
        whole = create_method("l2d").loss_terms(student, batch)
        assert list(terms) == left
        for name in left:
            assert terms[name] == whole[name]

    def test_only_the_student_gets_gradient(self) -> None:
        student, batch = step()
        sum(create_method("l2d").loss_terms(student, batch).values()).backward()
        for tensor in (student.logits, student.embeddings):
            assert tensor.grad.isfinite().all()
            assert tensor.grad.abs().sum() > 0
        assert batch.teacher.logits.grad is None
        assert batch.teacher.embeddings.grad is None

    def test_through_real_models(self) -> None:
        student, teacher = small(seed=0), small(seed=1)
        images, targets = torch.rand(5, 3, 16, 16), step()[1].targets
        method = create_method("l2d", teacher=teacher)
        terms = method.loss_terms(student(images), Batch(images, targets, None, {"teacher": teacher(images)}))
        sum(terms.values()).backward()
        assert all(parameter.grad is not None for parameter in student.parameters())
        assert all(parameter.grad is None for parameter in teacher.parameters())


class TestCheck:
    def test_fine(self) -> None:
        create_method("l2d", teacher=small()).check(small(seed=1))
        create_method("vanilla").check(small("gap"))
        create_method(
            "vanilla",
        ).check(small())

    def test_no_teacher(self) -> None:
        with pytest.raises(ValueError, match="'l2d' needs a teacher"):
            create_method("l2d").check(small())

    @pytest.mark.parametrize("classes", [CLASSES[::-1], CLASSES[:3], ("a", "b", "c", "e")])
    def test_other_classes(self, classes: tuple[str, ...]) -> None:
        known = ", ".join(classes)
        with pytest.raises(
            ValueError, match=rf"teacher knows the classes {known}, the data has a, b, c, d; .*same order"
        ):
            create_method("l2d", teacher=small(classes=classes)).check(small())

    def test_many_classes_are_cut_short(self) -> None:
        many = tuple(f"c{k}" for k in range(80))
        with pytest.raises(ValueError, match=r"knows the classes c0, c1, c2, c3 and 76 more, the data has a, b"):
            create_method("l2d", teacher=small(classes=many)).check(small())

    @pytest.mark.parametrize(("teacher", "student"), [("gap", "label_wise"), ("label_wise", "gap")])
    def test_heads(self, teacher: str, student: str) -> None:
        role = "teacher" if teacher == "gap" else "student"
        with pytest.raises(ValueError, match=f"the {role}'s head 'gap' does not have; use head='label_wise'"):
            create_method("l2d", teacher=small(teacher)).check(small(student))
