"""Ways to train a student, by name: `create_method("l2d", teacher=model)`."""

from mlkd.methods.cpsd import CGPD, CPSD, DGPD, SD, RandomPSD
from mlkd.methods.ddgsd import DDGSD
from mlkd.methods.dlb import DLB
from mlkd.methods.l2d import L2D
from mlkd.methods.mdkd import MDKD
from mlkd.methods.method import METHODS, Batch, Method, create_method, register_method
from mlkd.methods.mld import MLD
from mlkd.methods.mse import MSE
from mlkd.methods.mskd import MSKD
from mlkd.methods.mulsupcon import MulSupCon
from mlkd.methods.pkt import PKT
from mlkd.methods.ps import PS
from mlkd.methods.ps_kd import PSKD
from mlkd.methods.reviewkd import ReviewKD
from mlkd.methods.rkd import RKD
from mlkd.methods.tf_kd import TfKD
from mlkd.methods.ud import UD
from mlkd.methods.uskd import USKD
from mlkd.methods.vanilla import Vanilla

__all__ = [
    "CGPD",
    "CPSD",
    "DDGSD",
    "DGPD",
    "DLB",
    "L2D",
    "MDKD",
    "METHODS",
    "MLD",
    "MSE",
    "MSKD",
    "PKT",
    "PS",
    "PSKD",
    "RKD",
    "SD",
    "UD",
    "USKD",
    "Batch",
    "Method",
    "MulSupCon",
    "RandomPSD",
    "ReviewKD",
    "TfKD",
    "Vanilla",
    "create_method",
    "register_method",
]
