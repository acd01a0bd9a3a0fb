"""Two MobileNetV1 backbones as a plugin: how a network of your own comes into mlkd.

    mlkd report --data coco:/path --plugin examples/mobilenet_v1.py \
        --teacher-backbone mobilenetv1_100_cut --teacher-weights teacher.safetensors \
        --student-backbone mobilenetv1_025 --student-weights student.safetensors

A plugin is a Python file that is run before anything else. What it registers with timm goes by its name. These two
take weights converted from Keras, which pad and normalise as TensorFlow does.
"""

import torch
from timm.models import register_model
from timm.models.efficientnet import _gen_mobilenet_v1

KERAS = {"pad_type": "same", "bn_eps": 1e-3}
CONFIG = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "input_size": (3, 224, 224), "classifier": "classifier"}


@register_model
def mobilenetv1_025(pretrained=False, **kwargs):
    """A quarter of the width: 0.2 million weights, 256 features."""
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
