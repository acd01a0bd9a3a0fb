"""Backbones as a plugin: two variants of MobileNetV1.

    mlkd report --data coco:/path --plugin examples/mobilenet_v1.py \
        --set teacher.backbone=mobilenetv1_100_cut --set teacher.pretrained=teacher.safetensors \
        --set student.backbone=mobilenetv1_025 --set student.pretrained=student.safetensors

A plugin is a Python file that is run before the study is created. The backbones that it registers with timm are then
available by name. These two load weights converted from Keras, with the padding and normalization of TensorFlow.
"""

import torch
from timm.models import register_model
from timm.models.efficientnet import _gen_mobilenet_v1

KERAS = {"pad_type": "same", "bn_eps": 1e-3}
CONFIG = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "input_size": (3, 224, 224), "classifier": "classifier"}


@register_model
def mobilenetv1_025(pretrained=False, **kwargs):
    """A quarter of the width: 0.2 million parameters, 256 features."""
    net = _gen_mobilenet_v1("mobilenetv1_100", 0.25, pretrained=False, **KERAS, **kwargs)
    net.pretrained_cfg = CONFIG
    return net


@register_model
def mobilenetv1_100_cut(pretrained=False, **kwargs):
    """The full width without its last 1 x 1 convolution: 1024 features."""
    net = _gen_mobilenet_v1("mobilenetv1_100", 1.0, pretrained=False, **KERAS, **kwargs)
    last = net.blocks[4][1]
    last.conv_pw = last.bn2 = torch.nn.Identity()
    net.pretrained_cfg = CONFIG
    return net
