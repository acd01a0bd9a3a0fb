"""Comparing a loss with its plain-loop reference: the value and the gradient of each."""

import torch


def value_and_gradient(loss, student, *args, **options):
    """The loss and the gradient of its weighted sum (weights 1, 2, ... tell the entries of a table apart)."""
    student = student.detach().clone().requires_grad_()
    value = loss(student, *args, **options)
    weights = torch.arange(1, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
    (gradient,) = torch.autograd.grad((weights * value).sum(), student)
    return value.detach(), gradient


def assert_same(actual, expected, rtol=1e-9, atol=1e-12):
    """Finite, and equal up to `rtol` of each entry or to `atol`, whatever the precision."""
    for got, wanted in zip(actual, expected, strict=True):
        assert torch.isfinite(got).all()
        torch.testing.assert_close(got, wanted.to(got.dtype), rtol=rtol, atol=atol)
