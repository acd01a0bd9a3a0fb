"""What is trained: studies, recipes, label subsets and sweeps."""

from mlkd.study.study import Study, create_study

__all__ = ["Study", "create_study"]
