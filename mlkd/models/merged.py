"""Models of label subsets, merged into one model of all labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mlkd.models.heads import Head
from mlkd.models.model import MultiLabelModel, Output


class MergedTeacher(nn.Module):
    r"""Models of label subsets as one teacher: each label's logit comes from the model that has the label.

    $$ \hat y_i = \rho\big(\{\hat F_{C_t}(x_i)\}_{t=1}^{k}\big) $$

    where $\hat F_{C_t}$ is the model of the label subset $C_t$ and $\rho$ moves its logits to the positions of its
    labels. The positions follow from the class names of each model, so the order of the models does not matter.

    Source: Xu et al., CPSD, IJCAI 2022, Eq. (5), arXiv:2205.10986.

    Args:
        models: one per label subset.
        classes: the names of all q labels, in the order of the merged logits.

    Attributes:
        classes, image_size, settings: as in `MultiLabelModel`, with the largest image size of all models.

    Raises:
        ValueError: no model or several models have a class, or a model has an unknown class.
    """

    order: Tensor

    def __init__(self, models: Sequence[MultiLabelModel], classes: Sequence[str]):
        super().__init__()
        known = [name for model in models for name in model.classes]
        _check_classes(known, classes)
        self.models = nn.ModuleList(models)
        self.classes = tuple(classes)
        self.image_size = max(model.image_size for model in models)
        self.settings = {
            "head": min(models, key=lambda model: model.head.has_embeddings).settings["head"],
            "image_size": self.image_size,
            "models": [{"classes": list(model.classes), **model.settings} for model in models],
        }
        self.register_buffer("order", torch.tensor([known.index(name) for name in classes]), persistent=False)

    @property
    def head(self) -> Head:
        """The head of one of the models: one without embeddings, if there is one."""
        models = cast(list[MultiLabelModel], list(self.models))
        return min((model.head for model in models), key=lambda head: head.has_embeddings)

    def forward(self, images: Tensor) -> Output:
        """Images (b, 3, H, W), uint8 in 0..255 or float in 0..1, to the merged output.

        Embeddings are (b, q, d), or None if a model has none. Features are the models' feature maps concatenated
        along the channels, or without channels (b, 0, 1, 1) if the sizes of the maps differ.
        """
        outputs = [model(images) for model in self.models]
        logits = torch.cat([output.logits for output in outputs], dim=1)[:, self.order]  # Eq. (5)
        some = [output.embeddings for output in outputs if output.embeddings is not None]
        embeddings = torch.cat(some, dim=1)[:, self.order] if len(some) == len(outputs) else None
        maps = [output.features for output in outputs]
        same_size = len({features.shape[-2:] for features in maps}) == 1
        features = torch.cat(maps, dim=1) if same_size else maps[0].new_zeros(len(images), 0, 1, 1)
        return Output(logits, embeddings, features)


def _check_classes(known: Sequence[str], classes: Sequence[str]) -> None:
    count = Counter(known)
    wrong = {
        "have no model": [name for name in classes if not count[name]],
        "have several models": [name for name in classes if count[name] > 1],
        "are not among the classes": sorted(set(known) - set(classes)),
    }
    problems = [f"{', '.join(names)} {problem}" for problem, names in wrong.items() if names]
    if problems:
        raise ValueError(f"`models` must contain every class exactly once: {'; '.join(problems)}.")
