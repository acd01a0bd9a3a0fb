"""A head as a plugin: global max pooling and one linear layer.

mlkd train --plugin examples/max_pool_head.py --set student.head=max_pool --set 'student.head_settings={"dropout": 0.1}'
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mlkd.models.heads import Head, register_head


@register_head("max_pool")
class MaxPoolHead(Head):
    """Global max pooling, dropout and one linear layer: no label-wise embeddings.

    Args:
        in_channels: D, the channels of the feature map.
        classes: the q class names.
        dropout: the probability of dropping a channel during training.
    """

    has_embeddings = False

    def __init__(self, in_channels: int, classes: Sequence[str], *, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(in_channels, len(classes))

    def forward(self, features: Tensor) -> tuple[Tensor, None]:
        """Features (b, D, H, W) to logits (b, q)."""
        return self.classifier(self.dropout(features.amax(dim=(-2, -1)))), None
