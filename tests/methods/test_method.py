"""Methods: registered by name, defined by their settings, and the sum of their paper's terms."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from mlkd.losses import bce, cd, id_, mld
from mlkd.methods import L2D, METHODS, Batch, Method, Vanilla, create_method, register_method
from mlkd.models import MultiLabelModel, Output, create_model, fingerprint

CLASSES = ("a", "b", "c", "d")


def small(head: str = "label_wise", classes: tuple[str, ...] = CLASSES, seed: int = 0) -> MultiLabelModel:
    torch.manual_seed(seed)
    return create_model("resnet8_cifar", classes, head, image_size=16, embed_dim=8, widths=(4, 8, 8))


def step(ignore_mask: bool = False) -> tuple[Output, Batch]:
    """Outputs of a student and a teacher, both with gradient, for images with 0 to 4 labels."""
    torch.manual_seed(0)
    targets = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])

    def output(width: int) -> Output:
        logits, embeddings = torch.randn(5, 4), torch.randn(5, 4, width)
        return Output(logits.requires_grad_(), embeddings.requires_grad_(), torch.zeros(5, 2, 1, 1))

    mask = torch.zeros(5, 4, dtype=torch.bool)
    mask[4, 0] = mask[2, 3] = True
    return output(6), Batch(torch.zeros(5, 3, 4, 4), targets, mask if ignore_mask else None, {"teacher": output(10)})


class TestRegistration:
    def test_known_methods(self) -> None:
        assert METHODS["l2d"] is L2D
        assert METHODS["vanilla"] is Vanilla
        assert isinstance(create_method("l2d", lambda_mld=2.0), L2D)
        assert (L2D.name, Vanilla.name) == ("l2d", "vanilla")

    def test_listing_methods_loads_no_torch(self) -> None:
        """Importing torch takes seconds, which `mlkd methods` and every `--help` would take too."""
        program = (
            "import sys; from mlkd.methods import METHODS; print(*METHODS); "
            "print([name for name in ('torch', 'timm', 'torchvision') if name in sys.modules])"
        )
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        names, loaded = result.stdout.splitlines()
        assert names.split() == list(METHODS)
        assert loaded == "[]"

    def test_unknown_method_gives_the_closest(self) -> None:
        with pytest.raises(ValueError, match=r"`method` is 'L2B'.*Did you mean 'l2d'"):
            create_method("L2B")

    def test_unknown_setting_gives_the_closest(self) -> None:
        with pytest.raises(ValueError, match=r"no setting 'lamda_cd' of the method 'l2d'\. Did you mean 'lambda_cd'"):
            create_method("l2d", lamda_cd=1.0)
        with pytest.raises(ValueError, match="no setting 'lambda_mld' of the method 'vanilla'"):
            create_method("vanilla", lambda_mld=1.0)

    @pytest.mark.parametrize(
        ("name", "setting", "value", "expected"),
        [
            ("mld", "lambda_mld", "1,5", "expected a number"),
            ("mld", "lambda_mld", True, "expected a number"),
            ("cpsd", "k", 2.5, "expected a whole number"),
            ("l2d", "normalize", 1, "expected true or false"),
            ("tf-kd", "soften", "booth", "expected teacher or both. Did you mean 'both'"),
            ("vanilla", "loss", "als", "expected bce or asl. Did you mean 'asl'"),
            ("mskd", "crop_mode", "corner", "expected random or corners. Did you mean 'corners'"),
            ("mskd", "num_crops", 0, "expected a number of at least 1"),
        ],
    )
    def test_value_of_the_wrong_kind(self, name: str, setting: str, value: object, expected: str) -> None:
        with pytest.raises(ValueError, match=f"`{setting}` of the method '{name}' is {value!r}, {expected}"):
            create_method(name, **{setting: value})

    @pytest.mark.parametrize("name", METHODS)
    def test_unknown_reduction(self, name: str) -> None:
        for reduction in ("sun", "none", 1):
            with pytest.raises(
                ValueError, match=f"`reduction` of the method '{name}' is {reduction!r}, expected sum or batchmean"
            ):
                create_method(name, reduction=reduction)

    def test_new_method(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(METHODS.entries, "louder", Vanilla)  # removed after the test

        @register_method("louder")
        class Louder(Method):
            volume: float = 11.0

            def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
                return {"noise": self.volume * student.logits.mean()}

        method = create_method("louder", volume=2.0)
        student, batch = step()
        assert method.name == "louder"
        assert method.settings() == {"reduction": "sum", "volume": 2.0}
        assert method.loss_terms(student, batch)["noise"] == 2 * student.logits.mean()

    def test_method_without_terms(self) -> None:
        with pytest.raises(TypeError, match="Method has no `loss_terms`"):
            Method().loss_terms(*step())


@pytest.mark.parametrize("name", METHODS)
def test_description_and_settings(name: str) -> None:
    method = METHODS[name]
    assert method.paper
    assert method.formula
    assert method.__doc__
    weights = [setting for setting in method.setting_names() if setting.startswith("lambda_")]
    assert weights == [setting for setting in weights if f"λ_{setting.removeprefix('lambda_')}" in method.formula]
    teachers = {role: small() for role in method.required_teachers}
    settings = create_method(name, **teachers).settings()
    assert json.loads(json.dumps(settings)) == settings
    for role, teacher in teachers.items():
        assert settings[role] == fingerprint(teacher)
        assert create_method(name).settings()[role] is None


@pytest.mark.parametrize("name", METHODS)
def test_reduction_scales_all_terms_alike(name: str) -> None:
    """The weights belong to the default reduction; the other one multiplies or divides every term by the batch size."""
    results = {}
    for reduction in ("sum", "batchmean"):
        torch.manual_seed(3)
        student = small()
        teachers = {role: small(seed=seed).eval() for seed, role in enumerate(METHODS[name].required_teachers, 1)}
        method = create_method(name, **teachers, reduction=reduction)
        images = torch.rand(5, 3, 16, 16)
        with torch.no_grad():
            outputs = {role: teacher(images) for role, teacher in teachers.items()}
        batch = Batch(
            images,
            step()[1].targets,
            None,
            outputs,
            model=student,
            auxiliary=method.build_auxiliary(student, 5),
            second_view=images.flip(3),
            sample_indices=torch.arange(5),
            epoch_fraction=0.5,
        )
        terms = method.reduced_loss_terms(student(images), batch)
        results[reduction] = {key: float(term.detach()) for key, term in terms.items()}
    assert max(results["sum"].values()) > 0
    assert results["sum"] == pytest.approx({key: 5 * value for key, value in results["batchmean"].items()}, rel=1e-5)


class TestTerms:
    @pytest.mark.parametrize("ignore_mask", [False, True])
    @pytest.mark.parametrize("normalize", [True, False])
    def test_l2d(self, ignore_mask: bool, normalize: bool) -> None:
        """Eq. (9)."""
        student, batch = step(ignore_mask)
        weights = {"lambda_mld": 2.0, "lambda_cd": 3.0, "lambda_id": 5.0}
        terms = create_method("l2d", **weights, normalize=normalize).loss_terms(student, batch)
        assert list(terms) == ["bce", "mld", "cd", "id"]
        embeddings = student.embeddings, batch.teacher.embeddings
        expected = (
            bce(student.logits, batch.targets, ignore_mask=batch.ignore_mask)
            + 2 * mld(student.logits, batch.teacher.logits)
            + 3 * cd(*embeddings, batch.targets, normalize=normalize)
            + 5 * id_(*embeddings, batch.targets, normalize=normalize)
        )
        assert min(float(term.detach()) for term in terms.values()) > 0
        torch.testing.assert_close(sum(terms.values()), expected)

    def test_papers_weights_of_l2d(self) -> None:
        """Sec. 4: λ_MLD = 10, λ_CD = 100, λ_ID = 1000."""
        method = create_method("l2d")
        assert (method.lambda_mld, method.lambda_cd, method.lambda_id) == (10, 100, 1000)

    def test_vanilla(self) -> None:
        student, batch = step(ignore_mask=True)
        terms = create_method("vanilla").loss_terms(student, batch._replace(teachers={}))
        assert list(terms) == ["bce"]
        assert terms["bce"] == bce(student.logits, batch.targets, reduction="sum", ignore_mask=batch.ignore_mask)

    @pytest.mark.parametrize(
        ("zeros", "remaining"),
        [
            (["lambda_mld"], ["bce", "cd", "id"]),
            (["lambda_cd", "lambda_id"], ["bce", "mld"]),
            (["lambda_mld", "lambda_cd", "lambda_id"], ["bce"]),
            (["lambda_id"], ["bce", "mld", "cd"]),
            (["lambda_cd"], ["bce", "mld", "id"]),
        ],
    )
    def test_weight_zero_removes_the_term(self, zeros: list[str], remaining: list[str]) -> None:
        student, batch = step()
        terms = create_method("l2d", **dict.fromkeys(zeros, 0.0)).loss_terms(student, batch)
        all_terms = create_method("l2d").loss_terms(student, batch)
        assert list(terms) == remaining
        for name in remaining:
            assert terms[name] == all_terms[name]

    def test_only_the_student_gets_a_gradient(self) -> None:
        student, batch = step()
        sum(create_method("l2d").loss_terms(student, batch).values()).backward()
        for tensor in (student.logits, student.embeddings):
            assert tensor.grad.isfinite().all()
            assert tensor.grad.abs().sum() > 0
        assert batch.teacher.logits.grad is None
        assert batch.teacher.embeddings.grad is None

    def test_gradient_reaches_all_parameters_of_the_student(self) -> None:
        student, teacher = small(seed=0), small(seed=1)
        images, targets = torch.rand(5, 3, 16, 16), step()[1].targets
        method = create_method("l2d", teacher=teacher)
        terms = method.loss_terms(student(images), Batch(images, targets, None, {"teacher": teacher(images)}))
        sum(terms.values()).backward()
        assert all(parameter.grad is not None for parameter in student.parameters())
        assert all(parameter.grad is None for parameter in teacher.parameters())


class TestCheck:
    def test_valid(self) -> None:
        assert create_method("l2d", teacher=small()).check(small(seed=1)) is None
        assert create_method("vanilla").check(small("gap")) is None

    def test_missing_teacher(self) -> None:
        with pytest.raises(ValueError, match="'l2d' requires a teacher: pass a model as `teacher`"):
            create_method("l2d").check(small())

    @pytest.mark.parametrize("classes", [CLASSES[::-1], CLASSES[:3], ("a", "b", "c", "e")])
    def test_other_classes(self, classes: tuple[str, ...]) -> None:
        message = rf"teacher has the classes {', '.join(classes)}, the data has a, b, c, d; .*same order"
        with pytest.raises(ValueError, match=message):
            create_method("l2d", teacher=small(classes=classes)).check(small())

    def test_many_classes_are_abbreviated(self) -> None:
        many = tuple(f"c{k}" for k in range(80))
        with pytest.raises(ValueError, match=r"has the classes c0, c1, c2, c3 and 76 more, the data has a, b"):
            create_method("l2d", teacher=small(classes=many)).check(small())

    @pytest.mark.parametrize(("teacher", "student"), [("gap", "label_wise"), ("label_wise", "gap")])
    def test_head_without_embeddings(self, teacher: str, student: str) -> None:
        role = "teacher" if teacher == "gap" else "student"
        with pytest.raises(ValueError, match=f"the {role}'s head 'gap' does not have; use head='label_wise'"):
            create_method("l2d", teacher=small(teacher)).check(small(student))
