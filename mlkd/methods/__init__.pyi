from .cam_kd import CAMKD
from .cpsd import CGPD, CPSD, DGPD, SD, RandomPSD
from .ddgsd import DDGSD
from .dist import DIST
from .dlb import DLB
from .l2d import L2D
from .labels import ASLMethod, BCEMethod
from .mdkd import MDKD
from .method import METHODS, Batch, Method, create_method, register_method
from .mld import MLD
from .mse import MSE
from .mskd import MSKD
from .mulsupcon import MulSupCon
from .pkt import PKT
from .ps import PS
from .ps_kd import PSKD
from .reviewkd import ReviewKD
from .rkd import RKD
from .tf_kd import TfKD
from .ud import UD
from .uskd import USKD
from .vanilla import Vanilla

__all__ = [
    "CAMKD",
    "CGPD",
    "CPSD",
    "DDGSD",
    "DGPD",
    "DIST",
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
    "ASLMethod",
    "BCEMethod",
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
