"""Pipeline ``report``."""

from kedro.pipeline import Pipeline


def create_pipeline(**_: object) -> Pipeline:
    """Make what people look at."""
    return Pipeline([])
