"""MDKD: its terms, settings and check."""

import re

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
    assert (method.max_order, method.lambda_mld, method.lambda_bd, method.lambda_id) == (4, 10, 1, 1)


@pytest.mark.parametrize("max_order", [2, 4, 5])
@pytest.mark.parametrize("reduction", ["sum", "batchmean"])
def test_the_terms_are_those_of_eq_15(max_order, reduction):
    student, batch = step()
    method = create_method(
        "mdkd", max_order=max_order, lambda_mld=2.0, lambda_bd=3.0, lambda_id=5.0, reduction=reduction
    )
    terms = method.loss_terms(student, batch)
    logits = student.logits, batch.teacher.logits
    expected = {
        "bce": bce(student.logits, batch.targets, reduction=reduction, ignore_mask=batch.ignore_mask),
        "mld": 2 * mld(*logits),
        **{f"bd{n}": 3 * batch_dependency(*logits, n) for n in range(2, max_order + 1)},
        **{f"id{n}": 5 * instance_dependency(*logits, n) for n in range(2, max_order + 1)},
    }
    assert list(terms) == list(expected)
    for name, term in terms.items():
        assert term.shape == ()
        torch.testing.assert_close(term, expected[name], rtol=1e-9, atol=0)


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


@pytest.mark.parametrize("max_order", [1, 4])
def test_more_orders_than_labels(max_order):
    student = small(tuple("abc"))
    message = re.escape(f"`max_order` is {max_order!r}, expected a number of labels from 2 to 3, the number of all")
    with pytest.raises(ValueError, match=message):
        create_method("mdkd", teacher=small(tuple("abc")), max_order=max_order).check(student)
    assert create_method("mdkd", teacher=small(tuple("abc")), max_order=3).check(student) is None
