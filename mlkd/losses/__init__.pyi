from .cam_kd import cam_kd_loss
from .classification import asl, bce
from .cpsd import merged_distillation, mse
from .ddgsd import mmd, mutual_kl
from .dist import inter_class_relation, intra_class_relation
from .dlb import dlb_loss
from .kd import softmax_kd
from .l2d import cd, id_, led, mld
from .mdkd import batch_dependency, dependencies, instance_dependency
from .mskd import (
    combine_crops,
    corner_boxes,
    graph_propagation,
    l_sd,
    mbd,
    pseudo_labels,
    random_boxes,
    reformulated_softmax,
    roi_crop,
)
from .mulsupcon import mulsupcon_loss
from .pkt import pkt_loss
from .ps import ps_loss
from .ps_kd import ps_kd_loss
from .reviewkd import hcl
from .rkd import rkd_angle, rkd_distance
from .tf_kd import tf_kd_loss
from .ud import (
    pick_all_labels_normalized,
    prediction_distribution_distillation,
    uncertainty,
    uncertainty_attention_distillation,
    uncertainty_gradient,
    uncertainty_map,
)
from .uskd import non_target_loss, target_loss, weak_loss

__all__ = [
    "asl",
    "batch_dependency",
    "bce",
    "cam_kd_loss",
    "cd",
    "combine_crops",
    "corner_boxes",
    "dependencies",
    "dlb_loss",
    "graph_propagation",
    "hcl",
    "id_",
    "instance_dependency",
    "inter_class_relation",
    "intra_class_relation",
    "l_sd",
    "led",
    "mbd",
    "merged_distillation",
    "mld",
    "mmd",
    "mse",
    "mulsupcon_loss",
    "mutual_kl",
    "non_target_loss",
    "pick_all_labels_normalized",
    "pkt_loss",
    "prediction_distribution_distillation",
    "ps_kd_loss",
    "ps_loss",
    "pseudo_labels",
    "random_boxes",
    "reformulated_softmax",
    "rkd_angle",
    "rkd_distance",
    "roi_crop",
    "softmax_kd",
    "target_loss",
    "tf_kd_loss",
    "uncertainty",
    "uncertainty_attention_distillation",
    "uncertainty_gradient",
    "uncertainty_map",
    "weak_loss",
]
