"""Softmax distillation against loops."""

from __future__ import annotations

import math

import pytest
import torch
from compare import random_logits

from mlkd.losses import softmax_kd


def reference(student, teacher, temperature):
    """Eq. (10) of MSKD, image by image and label by label."""
    total = 0.0
    for i in range(len(student)):
        p = [math.exp(z / temperature) for z in teacher[i].tolist()]
        q = [torch.exp(z / temperature) for z in student[i]]
        for j in range(len(p)):
            p_j, q_j = p[j] / sum(p), q[j] / sum(q)
            total = total + temperature**2 * p_j * (math.log(p_j) - torch.log(q_j))
    return total


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_value_and_gradient_equal_the_reference(temperature):
    student, teacher = random_logits(2, 4, 5)
    results = []
    for loss in (softmax_kd, reference):
        leaf = student.clone().requires_grad_()
        value = loss(leaf, teacher, temperature=temperature)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)


def test_labels_of_an_image_compete():
    """Where both labels are present for the teacher, the softmax lowers the one with the smaller logit."""
    student = torch.tensor([[4.0, 4.0, -4.0]], requires_grad=True)
    softmax_kd(student, torch.tensor([[6.0, 4.0, -4.0]])).backward()
    assert student.grad[0, 0] < 0 < student.grad[0, 1]


def test_wrong_temperature():
    with pytest.raises(ValueError, match="`temperature` is 0, expected a number above 0"):
        softmax_kd(torch.zeros(1, 2), torch.zeros(1, 2), temperature=0)
