from .study import Study, create_study

__all__ = ["Study", "create_study"]
