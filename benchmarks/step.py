"""A whole training step with a method's loss, against the same step with BCE alone; the teacher runs in both."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.timing import Row, compare
from mlkd.losses.classification import bce
from mlkd.methods import Batch, create_method
from mlkd.models import Output, create_model

LABELS, SIZE = 20, 96


def run(smoke: bool = False) -> list[Row]:
    torch.manual_seed(0)
    b = 4 if smoke else 64
    classes = [f"class {k}" for k in range(LABELS)]
    settings = {"image_size": SIZE, "stem_stride": 2}
    student = create_model("resnet8_cifar", classes, embed_dim=64, **settings)
    teacher = create_model("resnet14x2_cifar", classes, embed_dim=128, **settings).eval()
    optimizer = torch.optim.AdamW(student.parameters(), 1e-6)
    images = torch.randint(0, 256, (b, 3, SIZE, SIZE), dtype=torch.uint8)
    targets = (torch.rand(b, LABELS) < 3 / LABELS).float()

    def step(loss: Callable[[Output, Batch], torch.Tensor]) -> None:
        with torch.no_grad():
            batch = Batch(images, targets, None, {"teacher": teacher(images)})
        optimizer.zero_grad()
        loss(student(images), batch).backward()
        optimizer.step()

    def bce_loss(output: Output, batch: Batch) -> torch.Tensor:
        return bce(output.logits, batch.targets)

    rows = []
    for name in ("l2d", "mdkd"):
        method = create_method(name, teacher=teacher)
        row = compare(
            f"a training step of {name} ({b}, {LABELS}, {SIZE} pixels), against one with BCE",
            lambda m=method: step(lambda output, batch: torch.stack(list(m.loss_terms(output, batch).values())).sum()),
            lambda: step(bce_loss),
            repeats=1 if smoke else 15,
        )
        rows.append(row)
    return rows
