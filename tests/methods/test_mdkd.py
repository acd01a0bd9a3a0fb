"""MDKD: its terms, settings and check."""

import json

import pytest
import torch
from compare import random_logits

from mlkd.losses import batch_dependency, bce, instance_dependency, mld
from mlkd.methods import MDKD, Batch, create_method
from mlkd.models import Output, create_model


def step(q=5):
    """Outputs of a student and a teacher, both with gradient and without embeddings; two labels are ignored."""
    (student, teacher), features = random_logits(2, 4, q), torch.zeros(4, 2, 1, 1)
    targets = (random_logits(1, 4, q, seed=1)[0] > 0).to(torch.uint8)
    ignore_mask = torch.zeros(4, q, dtype=torch.bool)
    ignore_mask[0, 1] = ignore_mask[3, 0] = True
    outputs = [Output(logits.requires_grad_(), None, features) for logits in (student, teacher)]
    return outputs[0], Batch(torch.zeros(4, 3, 2, 2), targets, ignore_mask, {"teacher": outputs[1]})


def small(classes):
    return create_model("resnet8_cifar", classes, "gap", image_size=16, embed_dim=8, widths=(4, 8, 8))


def test_defaults_are_the_papers():
    """Sec. 4.3: orders 2 to 4, all weights 1 but λ_MLD = 10."""
    method = create_method("mdkd")
    assert isinstance(method, MDKD)
    assert method.lambda_mld == 10
    assert method.lambda_bd == method.lambda_id == {2: 1, 3: 1, 4: 1}


@pytest.mark.parametrize(("bd", "id_"), [({2: 3.0}, {2: 5.0, 3: 7.0}), ({4: 3.0, 2: 0.5}, {}), (3.0, {5: 5.0})])
def test_the_terms_are_those_of_eq_15(bd, id_):
    student, batch = step()
    method = create_method("mdkd", lambda_mld=2.0, lambda_bd=bd, lambda_id=id_)
    terms = method.loss_terms(student, batch)
    logits = student.logits, batch.teacher.logits
    bd = bd if isinstance(bd, dict) else {2: bd, 3: bd, 4: bd}
    expected = {
        "bce": bce(student.logits, batch.targets, reduction="batchmean", ignore_mask=batch.ignore_mask),
        "mld": 2 * mld(*logits),
        **{f"bd{n}": weight * batch_dependency(*logits, n) for n, weight in bd.items()},
        **{f"id{n}": weight * instance_dependency(*logits, n) for n, weight in id_.items()},
    }
    assert list(terms) == list(expected)
    for name, term in terms.items():
        assert term.shape == ()
        torch.testing.assert_close(term, expected[name], rtol=1e-9, atol=0)


def test_settings_from_json_have_numbers_as_orders():
    method = create_method("mdkd", lambda_bd={"3": 0.5})
    assert method.lambda_bd == {3: 0.5}
    assert create_method("mdkd", **json.loads(json.dumps(method.settings() | {"teacher": None}))) == method


@pytest.mark.parametrize("value", ["x", {1: 1.0}, {"a": 1.0}, {2: "x"}, True, [1.0]])
def test_weights_of_the_wrong_kind(value):
    with pytest.raises(ValueError, match=r"^`lambda_id` of the method 'mdkd' is .*, expected a number"):
        create_method("mdkd", lambda_id=value)


@pytest.mark.parametrize(
    ("zero", "remaining"),
    [
        ("lambda_mld", ["bce", "bd2", "bd3", "bd4", "id2", "id3", "id4"]),
        ("lambda_bd", ["bce", "mld", "id2", "id3", "id4"]),
        ("lambda_id", ["bce", "mld", "bd2", "bd3", "bd4"]),
    ],
)
def test_weight_zero_removes_the_terms(zero, remaining):
    assert list(create_method("mdkd", **{zero: 0.0}).loss_terms(*step())) == remaining


def test_only_the_student_gets_a_gradient():
    student, batch = step()
    sum(create_method("mdkd").loss_terms(student, batch).values()).backward()
    assert student.logits.grad.isfinite().all()
    assert batch.teacher.logits.grad is None


def test_gradient_reaches_all_parameters_of_the_student():
    student, teacher = small(tuple("abcde")), small(tuple("abcde"))
    method = create_method("mdkd", teacher=teacher)
    method.check(student)
    images, targets = torch.rand(4, 3, 16, 16), step()[1].targets
    terms = method.loss_terms(student(images), Batch(images, targets, None, {"teacher": teacher(images)}))
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("name", ["lambda_bd", "lambda_id"])
def test_order_above_the_number_of_labels(name):
    student = small(tuple("abc"))
    message = f"`{name}` has the order 4, expected orders from 2 to 3, the number of labels"
    with pytest.raises(ValueError, match=message):
        create_method("mdkd", teacher=small(tuple("abc")), **{"lambda_bd": {}, "lambda_id": {}, name: {4: 1.0}}).check(
            student
        )
    assert create_method("mdkd", teacher=small(tuple("abc")), lambda_bd={3: 1.0}, lambda_id={}).check(student) is None
