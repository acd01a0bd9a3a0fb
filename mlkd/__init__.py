"""A notebook-first workbench for multi-label knowledge distillation."""

__version__ = "0.1.0"
