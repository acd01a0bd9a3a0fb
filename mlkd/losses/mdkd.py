r"""The losses of MDKD: Wang et al., Beyond Direct Relationships: Exploring Multi-Order Label Pair Dependencies for
Knowledge Distillation, ACM MM 2024.

`batch_dependency` and `instance_dependency` compare the label dependencies of student and teacher along all
sequences of `order` labels; `dependencies` gives those along one sequence.

There are 19 million sequences of 4 among 80 labels. Here their sum is computed in closed form, for any order at the
cost of order 2. Let $D_{kl} = \Psi^T_{(2)}(k, l) - \Psi^S_{(2)}(k, l)$ be the disparity of two labels. A sequence
of $n$ labels has the mean of its $n - 1$ disparities. All of them lie in [-1, 1], where the Huber loss is half the
square: a sum of products of two disparities. In the mean over all sequences a product depends only on whether its
two pairs of labels are the same, share one label or none:

$$ L_n = \frac{1}{2 (n-1)^2} \Big[ (n-1) \frac{F}{q (q-1)} + 2 (n-2) \frac{R - F}{q (q-1) (q-2)}
   + (n-2) (n-3) \frac{S^2 - 4 R + 2 F}{q (q-1) (q-2) (q-3)} \Big] $$

where $F = \sum_{kl} D_{kl}^2$, $R = \sum_k r_k^2$ and $S = \sum_k r_k$ with $r_k = \sum_l D_{kl}$. So
$(n-1)^2 L_n$ is quadratic in $n$, and the orders 2, 3 and 4 fix all others. The fifth and the sixth are

$$ L_5 = (L_2 - 12 L_3 + 27 L_4) / 16, \qquad L_6 = (3 L_2 - 32 L_3 + 54 L_4) / 25 . $$
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index

import torch
from torch import Tensor

from mlkd.losses.reduction import check_same_shape, force_float32


@force_float32
def batch_dependency(student_logits: Tensor, teacher_logits: Tensor, order: int | Sequence[int]) -> Tensor:
    r"""Batch-level label-pair dependency distillation, of one order or of several at once.

    $$ L_{BD_n} = \frac{2}{P_q^n} \sum_{j=1}^{P_q^n / 2}
       U\big(\Psi^T_{(n)}(L^j_1, \dots, L^j_n), \Psi^S_{(n)}(L^j_1, \dots, L^j_n)\big), \quad
       \Psi_{(2)}(k, l) = \frac{1}{b} \sum_{i=1}^{b} (\hat y_{ik} - \hat y_{il})^2 $$

    where $L^j$ runs through the sequences of $n$ different labels, with a sequence and its reverse counted once;
    $P_q^n = q! / (q-n)!$; $\Psi_{(n)}$ is the mean of $\Psi_{(2)}$ over the neighbors in a sequence; $U$ is the Huber
    loss with threshold 1; $\hat y$ is the sigmoid of a logit, $T$ the teacher and $S$ the student.

    Source: Wang et al., ACM MM 2024, Eqs. (4)-(8).
    Differs from the paper: Eq. (6) counts each pair twice and so is twice Eq. (8) at order 2, although the paper states
    that they are equal. Here a pair counts once.

    Args:
        student_logits: any finite real. Gradients flow here only.
        teacher_logits: any finite real; detached inside.
        order: the number of labels in a sequence, from 2 to q; or several of them, at about the cost of one.

    Shape: logits (b, q); output () or, for several orders, one entry each. Range: [0, 1/2] up to rounding (1e-6 of
    `instance_dependency`, in float32); 0 when all dependencies agree. Time is that of products of (b, q) matrices
    to (b, b), memory that of such matrices, for every order.

    Raises:
        ValueError: the shapes differ or are not (b, q), or an order is not in 2..q.

    Example:
        >>> batch_dependency(torch.tensor([[0., 0.]]), torch.tensor([[9., -9.]]), order=2)
        tensor(0.4995)
    """
    u, v = _factors(student_logits, teacher_logits)
    b, q = u.shape
    pairs = max(b, 1) ** 2
    g = (u * v).sum(dim=0) / max(b, 1)
    # |H + H'|² with H = u'v / b is a sum over pairs of labels and pairs of images; here the images are the outer sum
    cross = u @ v.T
    h = 2 * ((u @ u.T) * (v @ v.T) + cross * cross.T).sum() / pairs
    return _over_sequences(g.square().sum(), g.sum().square(), h, q, order)


@force_float32
def instance_dependency(student_logits: Tensor, teacher_logits: Tensor, order: int | Sequence[int]) -> Tensor:
    r"""Instance-level label-pair dependency distillation, of one order or of several at once.

    $$ L_{ID_n} = \frac{1}{b} \frac{2}{P_q^n} \sum_{i=1}^{b} \sum_{j=1}^{P_q^n / 2}
       U\big(\Phi^{T,(i)}_{(n)}(L^j_1, \dots, L^j_n), \Phi^{S,(i)}_{(n)}(L^j_1, \dots, L^j_n)\big), \quad
       \Phi^{(i)}_{(2)}(k, l) = (\hat y_{ik} - \hat y_{il})^2 $$

    with the symbols of `batch_dependency`, which for a batch of one image is the same.

    Source: Wang et al., ACM MM 2024, Eqs. (10)-(13).
    Differs from the paper: like Eq. (6), Eq. (11) counts each pair twice. Here a pair counts once.

    Args and Raises: as `batch_dependency`.

    Shape: as `batch_dependency`. Range: [0, 1/2] up to rounding; never below the batch-level loss; 0 when all
    dependencies agree. Time and memory are linear in b and q, for every order.

    Example:
        >>> instance_dependency(torch.zeros(2, 2), torch.tensor([[9., -9.], [0., 0.]]), order=2)
        tensor(0.2498)
    """
    u, v = _factors(student_logits, teacher_logits)
    images, q = max(len(u), 1), u.shape[1]
    g = u * v
    total = g.sum(dim=1).square().sum()
    h = 2 * (u.square().sum(dim=1) * v.square().sum(dim=1)).sum() + 2 * total  # |H + H'|² with H = u'v
    return _over_sequences(g.square().sum() / images, total / images, h / images, q, order)


@force_float32
def dependencies(probs: Tensor, order: int, sequence: Sequence[int]) -> Tensor:
    r"""The dependency along one sequence of labels, for each image: low where the probabilities are similar.

    $$ \Phi^{(i)}_{(n)}(L_1, \dots, L_n) = \frac{1}{n-1} \sum_{k=1}^{n-1} (\hat y_{i L_k} - \hat y_{i L_{k+1}})^2 $$

    The batch-level $\Psi_{(n)}$ is its mean over the images.

    Source: Wang et al., ACM MM 2024, Eqs. (10), (12); with the mean, Eqs. (4), (7).

    Args:
        probs: one network's probabilities.
        order: the number of labels in the sequence, from 2 to q.
        sequence: that many different label indices, each in 0..q-1.

    Shape: probs (b, q); output (b,). Range: [0, 1].

    Raises:
        ValueError: `probs` is not (b, q), `order` not in 2..q, or `sequence` not as described.

    Example:
        >>> dependencies(torch.tensor([[1., 0.5, 0.]]), 3, (0, 1, 2))
        tensor([0.2500])
    """
    q = _num_labels("probs", probs)
    _check_order(order, q)
    labels = [index(label) for label in sequence]
    if len(labels) != order or len(set(labels)) != order or not set(labels) <= set(range(q)):
        raise ValueError(f"`sequence` is {labels}, expected {order} different labels (`order`), each in 0..{q - 1}.")
    return probs[:, labels].diff(dim=1).square().mean(dim=1)  # Eqs. (10), (12)


def _factors(student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
    """u = t - s and v = t + s, probabilities of teacher and student, each less its mean over the image's labels.

    An image's disparity is (t_k - t_l)² - (s_k - s_l)² = (u_k - u_l) (v_k - v_l), with or without the means. With
    H = u'v and its diagonal g this is g_k + g_l - H_kl - H_lk. With the means subtracted, H's rows and columns sum
    to 0.
    """
    _num_labels("student_logits", student_logits)
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    student, teacher = student_logits.detach(), teacher_logits.detach()
    s, t = torch.sigmoid(student_logits), torch.sigmoid(teacher)
    # t - s without cancellation where they are close, from t (1 - s) / (s (1 - t)) = exp(teacher - student)
    gap = torch.tanh((teacher - student) / 2) * (t * torch.sigmoid(-student) + s.detach() * torch.sigmoid(-teacher))
    u = gap + (s.detach() - s)  # the parenthesis is 0 and carries the gradient
    v = t + s
    return u - u.mean(dim=1, keepdim=True), v - v.mean(dim=1, keepdim=True)


def _over_sequences(squares: Tensor, total: Tensor, h: Tensor, q: int, order: int | Sequence[int]) -> Tensor:
    """`_of_order`, stacked where several orders are given."""
    if isinstance(order, Sequence):
        return torch.stack([_of_order(squares, total, h, q, n) for n in order])
    return _of_order(squares, total, h, q, order)


def _of_order(squares: Tensor, total: Tensor, h: Tensor, q: int, n: int) -> Tensor:
    """L_n of the module's docstring from the sum of g², the square of the sum of g, and |H + H'|².

    As H's rows and columns sum to 0, r_k = q g_k + sum(g), and

        F = 2q squares + 2 total + h,    R = q² squares + 3q total,    S² = 4q² total.
    """
    _check_order(n, q)
    same_pair = (n - 1) / math.perm(q, 2)
    one_shared = 2 * (n - 2) / math.perm(q, 3) if n > 2 else 0.0
    none_shared = (n - 2) * (n - 3) / math.perm(q, 4) if n > 3 else 0.0
    # The weights of F, R and S² are combined before the tensors: only R's can be negative, where 2n > q + 3
    weight_f, weight_r, weight_s = same_pair - one_shared + 2 * none_shared, one_shared - 4 * none_shared, none_shared
    weight_squares = 2 * q * weight_f + q**2 * weight_r
    weight_total = 2 * weight_f + 3 * q * weight_r + 4 * q**2 * weight_s
    return (weight_squares * squares + weight_total * total + weight_f * h) / (2 * (n - 1) ** 2)  # Eqs. (8), (13)


def _num_labels(name: str, tensor: Tensor) -> int:
    if tensor.ndim != 2:
        raise ValueError(f"`{name}` has shape {tuple(tensor.shape)}, expected (b, q).")
    return tensor.shape[1]


def _check_order(order: int, q: int) -> None:
    if order not in range(2, q + 1):
        raise ValueError(f"`order` is {order!r}, expected a number of labels from 2 to {q}, the number of all labels.")
