"""Ways to train a student, by name: `create("l2d", teacher=model)`."""

from mlkd.methods.l2d import L2D
from mlkd.methods.method import METHODS, Batch, Method, create, register
from mlkd.methods.vanilla import Vanilla

__all__ = ["L2D", "METHODS", "Batch", "Method", "Vanilla", "create", "register"]
