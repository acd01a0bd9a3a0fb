"""Properties of every loss: who gets a gradient, precision, finiteness, symmetry and errors.

Shapes are written with letters: b images, q labels, s crops, d and e widths, h and w sides of a map. Axes with the same
letter have the same size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from mlkd import losses

SIZES = {"b": 6, "q": 5, "s": 4, "d": 3, "e": 3, "h": 5, "w": 5}


@dataclass(frozen=True)
class Case:
    """A loss with the shapes of its arguments, in order; `targets` and `ignore_mask` are known by their names.

    Attributes:
        learns: the arguments that get a gradient.
        smooth: settings under which no constant of the loss depends on the student; None where there are none.
        zero: whether value and gradient are 0 where all arguments but the targets are equal.
        settings: the other arguments.
        values: the shape of the output, for a loss without a reduction.
    """

    loss: Callable[..., Tensor]
    shapes: dict[str, str]
    learns: tuple[str, ...]
    smooth: dict[str, Any] | None = field(default_factory=dict)
    zero: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    values: str = ""

    def inputs(self, *, seed: int = 0, scale: float = 3.0, dtype: torch.dtype = torch.float64, **sizes: int) -> dict:
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for name, letters in self.shapes.items():
            shape = [(SIZES | sizes)[letter] for letter in letters]
            if name == "targets":
                tensors[name] = (torch.rand(shape, generator=generator) < 0.6).to(torch.uint8)
            elif name == "ignore_mask":
                tensors[name] = torch.rand(shape, generator=generator) < 0.3
            else:
                tensors[name] = (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
        return tensors

    def __call__(self, inputs: dict, **more: Any) -> Tensor:
        return self.loss(**inputs, **self.settings, **more)

    def value_and_gradients(self, inputs: dict, autocast: bool = False) -> tuple[Tensor, ...]:
        inputs = {name: tensor.clone().requires_grad_(name in self.learns) for name, tensor in inputs.items()}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            value = self(inputs)
        weights = torch.arange(1, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
        return value.detach(), *torch.autograd.grad((weights * value).sum(), [inputs[name] for name in self.learns])


def logits(*names: str, targets: bool = True) -> dict[str, str]:
    return {name: "bq" for name in (*names, *(["targets"] if targets else []))}


S, T = "student_logits", "teacher_logits"
EMBEDDINGS = {"student_embeddings": "bqd", "teacher_embeddings": "bqe", "targets": "bq"}
FEATURES = {"student_features": "bd", "teacher_features": "be"}
MBD_SMOOTH = {"gamma_pos": 0.0, "gamma_neg": 0.0}
ORDERS = {"order": (2, 3, 4)}

CASES = {
    "bce": Case(losses.bce, {**logits(S), "ignore_mask": "bq"}, (S,)),
    "asl": Case(losses.asl, {**logits(S), "ignore_mask": "bq"}, (S,), {"detach_focus": False, "gamma_pos": 0.5}),
    "mse": Case(losses.mse, logits(S, T, targets=False), (S,), zero=True),
    "cam_kd": Case(losses.cam_kd_loss, {"student_maps": "bqhw", "teacher_maps": "bqde"}, ("student_maps",), zero=True),
    "merged": Case(
        losses.merged_distillation, logits(S, "co_logits", "dis_logits", targets=False), (S,), {"alpha": 0.3}, zero=True
    ),
    "mutual_kl": Case(
        losses.mutual_kl,
        logits("first_logits", "second_logits", targets=False),
        ("first_logits", "second_logits"),
        None,
        zero=True,
    ),
    "mmd": Case(
        losses.mmd,
        {"first_features": "bd", "second_features": "bd"},
        ("first_features", "second_features"),
        zero=True,
    ),
    "inter": Case(losses.inter_class_relation, logits(S, T, targets=False), (S,), zero=True),
    "intra": Case(losses.intra_class_relation, logits(S, T, targets=False), (S,), zero=True),
    "dlb": Case(losses.dlb_loss, logits(S, "last_logits", targets=False), (S,), zero=True),
    "mld": Case(losses.mld, logits(S, T, targets=False), (S,), zero=True),
    "cd": Case(losses.cd, EMBEDDINGS, ("student_embeddings",), zero=True),
    "id_": Case(losses.id_, EMBEDDINGS, ("student_embeddings",), zero=True),
    "led": Case(losses.led, EMBEDDINGS, ("student_embeddings",), zero=True),
    "led raw": Case(losses.led, EMBEDDINGS, ("student_embeddings",), zero=True, settings={"normalize": False}),
    "batch_dependency": Case(
        losses.batch_dependency, logits(S, T, targets=False), (S,), zero=True, settings=ORDERS, values="n"
    ),
    "instance_dependency": Case(
        losses.instance_dependency, logits(S, T, targets=False), (S,), zero=True, settings=ORDERS, values="n"
    ),
    "softmax": Case(losses.reformulated_softmax, logits("logits"), ("logits",), values="bq"),
    "softmax as in paper": Case(
        losses.reformulated_softmax, logits("logits"), ("logits",), settings={"as_in_paper": True}, values="bq"
    ),
    "mbd": Case(losses.mbd, logits(S, T), (S,), MBD_SMOOTH),
    "mbd as in paper": Case(losses.mbd, logits(S, T), (S,), MBD_SMOOTH, settings={"as_in_paper": True}),
    "l_sd": Case(losses.l_sd, {"roi_logits": "bsq", "crop_logits": "bsq"}, ("roi_logits",), zero=True),
    "mbd trained weights": Case(losses.mbd, logits(S, T), (S,), settings={"detach_weights": False, "gamma_pos": 1.5}),
    "softmax_kd": Case(losses.softmax_kd, logits(S, T, targets=False), (S,), zero=True),
    "mulsupcon": Case(losses.mulsupcon_loss, {"embeddings": "bd", "targets": "bq"}, ("embeddings",)),
    "pkt": Case(losses.pkt_loss, FEATURES, ("student_features",), zero=True),
    "ps": Case(losses.ps_loss, logits(S, T), (S,), zero=True),
    "ps_kd": Case(losses.ps_kd_loss, {**logits(S, "past_logits"), "ignore_mask": "bq"}, (S,), settings={"alpha": 0.3}),
    "hcl": Case(
        losses.hcl,
        {"student_features": "bdhw", "teacher_features": "bdhw"},
        ("student_features",),
        zero=True,
    ),
    "rkd_distance": Case(losses.rkd_distance, FEATURES, ("student_features",), zero=True),
    "rkd_angle": Case(losses.rkd_angle, FEATURES, ("student_features",), zero=True),
    "tf_kd": Case(losses.tf_kd_loss, logits(S), (S,)),
    "tf_kd both": Case(losses.tf_kd_loss, logits(S), (S,), settings={"soften": "both"}),
    "calibration": Case(losses.pick_all_labels_normalized, logits("calibration_logits"), ("calibration_logits",)),
    "distribution": Case(
        losses.prediction_distribution_distillation,
        logits(S, T, "student_calibration", "teacher_calibration", targets=False),
        (S, "student_calibration"),
        zero=True,
    ),
    "uncertainty": Case(
        losses.uncertainty,
        logits("logits", "calibration_logits", targets=False),
        ("logits", "calibration_logits"),
        zero=True,
    ),
    "uncertainty_map": Case(
        losses.uncertainty_map, {"features": "bdhw", "gradient": "bdhw"}, ("features",), values="bhw"
    ),
    "attention": Case(
        losses.uncertainty_attention_distillation,
        {"student_map": "bhw", "teacher_map": "bhw"},
        ("student_map",),
        zero=True,
    ),
    "target": Case(losses.target_loss, logits(S), (S,), None),
    "non_target": Case(losses.non_target_loss, logits(S, "weak_logits"), (S,)),
    "weak": Case(losses.weak_loss, logits("weak_logits"), ("weak_logits",)),
}


def each(cases: dict[str, Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases.values(), ids=list(cases))


def assert_close(
    actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], rtol: float, atol: float, name: str = ""
) -> None:
    """Equal up to `rtol` of each entry or `atol` of the largest."""
    for tensor, reference in zip(actual, expected, strict=True):
        largest = max(float(reference.abs().max()), 1e-12)
        torch.testing.assert_close(
            tensor.double(), reference.double(), rtol=rtol, atol=atol * largest, msg=lambda text: f"{name}: {text}"
        )


def test_every_loss_is_tested() -> None:
    not_losses = {"corner_boxes", "random_boxes", "roi_crop", "uncertainty_gradient"}
    no_gradient = {"combine_crops", "dependencies", "graph_propagation", "pseudo_labels"}
    assert {case.loss.__name__ for case in CASES.values()} | not_losses | no_gradient == set(losses.__all__)


@each(CASES)
def test_only_the_student_gets_a_gradient_and_inputs_are_unchanged(case: Case) -> None:
    inputs = case.inputs()
    copies = {name: tensor.clone() for name, tensor in inputs.items()}
    for tensor in inputs.values():
        tensor.requires_grad_(tensor.is_floating_point())
    case(inputs).sum().backward()
    for name, tensor in inputs.items():
        assert (tensor.grad is not None) == (name in case.learns), name
        assert name not in case.learns or tensor.grad.abs().sum() > 0
        assert torch.equal(tensor, copies[name])
        assert tensor._version == 0
    with torch.no_grad():
        assert not case(inputs).requires_grad
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


@each({name: case for name, case in CASES.items() if case.smooth is not None})
def test_gradcheck(case: Case) -> None:
    inputs = case.inputs(b=3, q=4, h=3, w=2, scale=1.0, seed=3)
    for name in case.learns:
        inputs[name].requires_grad_()

    def loss(*tensors: Tensor) -> Tensor:
        return case({**inputs, **dict(zip(case.learns, tensors, strict=True))}, **case.smooth)

    assert torch.autograd.gradcheck(loss, [inputs[name] for name in case.learns])


def test_order_of_images_labels_and_crops_does_not_matter() -> None:
    orders = {
        "b": torch.tensor([3, 0, 5, 4, 1, 2]),
        "q": torch.tensor([2, 3, 1, 4, 0]),
        "s": torch.tensor([1, 3, 0, 2]),
    }

    def permute(letters: str, tensor: Tensor) -> Tensor:
        for axis, letter in enumerate(letters):
            if letter in orders:
                tensor = tensor.index_select(axis, orders[letter])
        return tensor

    for name, case in CASES.items():
        inputs = case.inputs()
        value, *gradients = case.value_and_gradients(inputs)
        permuted = case.value_and_gradients({k: permute(case.shapes[k], tensor) for k, tensor in inputs.items()})
        if value.ndim:  # without a reduction, the values are permuted and get other weights in the gradient
            assert_close(permuted[:1], (permute(case.values, value),), rtol=1e-9, atol=1e-9, name=name)
        else:
            expected = [permute(case.shapes[k], gradient) for k, gradient in zip(case.learns, gradients, strict=True)]
            assert_close(permuted, (value, *expected), rtol=1e-9, atol=1e-9, name=name)


def test_equal_student_and_teacher_give_zero() -> None:
    for name, case in CASES.items():
        if case.zero:
            inputs = case.inputs()
            first = inputs[next(iter(inputs))]
            inputs = {argument: tensor if argument == "targets" else first for argument, tensor in inputs.items()}
            for tensor in case.value_and_gradients(inputs):
                assert tensor.abs().max() < 1e-12, name


def test_dtype_of_the_targets_does_not_matter() -> None:
    for name, case in CASES.items():
        if "targets" in case.shapes:
            inputs = case.inputs()
            value = case(inputs)
            assert value.dtype == torch.float64
            for dtype in (torch.bool, torch.int64, torch.float32, torch.float64):
                assert torch.equal(case({**inputs, "targets": inputs["targets"].to(dtype)}), value), (name, dtype)


@each(CASES)
def test_half_precision_is_computed_in_float32(case: Case) -> None:
    # 300² is above 65504, the largest float16; as in the paper, MSKD's gradients are too
    scales = (3.0,) if case.settings == {"as_in_paper": True} else (3.0, 100.0)
    for dtype, scale, autocast in product((torch.float16, torch.bfloat16), scales, (False, True)):
        inputs = case.inputs(scale=scale, dtype=dtype)
        actual = case.value_and_gradients(inputs, autocast)
        inputs = {name: x.float() if x.is_floating_point() else x for name, x in inputs.items()}
        expected = case.value_and_gradients(inputs)
        assert actual[0].dtype == torch.float32
        assert_close(actual[:1], expected[:1], rtol=1e-5, atol=1e-6)
        assert_close(actual[1:], expected[1:], rtol=1e-2, atol=1e-2)
        assert_close(case.value_and_gradients(inputs, autocast), expected, rtol=1e-6, atol=1e-6)


@each(CASES)
def test_extreme_inputs_give_finite_values(case: Case) -> None:
    """±1e4, equal and opposite rows, zeros; no, all and some labels; one image and several."""
    dtypes = [torch.float64, torch.float32, torch.bfloat16]
    if case.settings != {"as_in_paper": True}:  # its gradients are above the largest float16
        dtypes.append(torch.float16)
    patterns: dict[str, Callable[[Tensor, bool], Tensor]] = {
        "random": lambda signs, first: 1e4 * signs,
        "equal": lambda signs, first: 1e4 * torch.ones_like(signs),
        "opposite": lambda signs, first: (1e4 if first else -1e4) * torch.ones_like(signs),
        "zero": lambda signs, first: (0 if first else 1e4) * signs,
    }
    for b, (pattern, extreme), density, dtype in product((1, 4), patterns.items(), (0.0, 0.5, 1.0), dtypes):
        inputs = case.inputs(b=b)
        for name, tensor in inputs.items():
            if name == "targets":
                random = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1))
                inputs[name] = (random < density).float()
            elif name != "ignore_mask":
                inputs[name] = extreme(tensor.sign(), name in case.learns).to(dtype)
        for tensor in case.value_and_gradients(inputs):
            assert tensor.isfinite().all(), (b, pattern, density, dtype)


def test_reductions() -> None:
    for name, case in CASES.items():
        if {"reduction", "options"} & signature(case.loss).parameters.keys():
            inputs = case.inputs()
            none, total, mean = (case(inputs, reduction=reduction) for reduction in ("none", "sum", "batchmean"))
            assert none.shape[0] == SIZES["b"]
            assert total.shape == mean.shape == ()
            assert_close((total, SIZES["b"] * mean), (none.sum(), none.sum()), rtol=1e-12, atol=0, name=name)
            with pytest.raises(ValueError, match=r"`reduction` is 'batch_mean'.*Did you mean 'batchmean'"):
                case(inputs, reduction="batch_mean")


@each(CASES)
def test_shapes_that_do_not_fit_are_named(case: Case) -> None:
    first, *others = case.shapes
    for name in others:
        letters = case.shapes[name]
        elsewhere = {letter for other, text in case.shapes.items() if other != name for letter in text}
        for axis, letter in enumerate(letters):
            if letter in elsewhere and not (case.loss is losses.uncertainty_attention_distillation and axis):
                inputs = case.inputs()
                inputs[name] = inputs[name].narrow(axis, 0, SIZES[letter] - 1)
                with pytest.raises(ValueError, match=rf"`{name}`[^`]*{re.escape(str(tuple(inputs[name].shape)))}"):
                    case(inputs)
        inputs = case.inputs()
        inputs[name] = inputs[name].unsqueeze(-1)
        with pytest.raises(ValueError, match=rf"`{name}`[^`]*{re.escape(str(tuple(inputs[name].shape)))}"):
            case(inputs)
    if first in ("student_features", "roi_logits", "embeddings"):
        with pytest.raises(ValueError, match=f"`{first}`"):
            case({name: tensor.unsqueeze(-1) for name, tensor in case.inputs().items()})
