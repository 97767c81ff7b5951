"""Pipeline ``evaluate``."""

from kedro.pipeline import Pipeline


def create_pipeline(**_: object) -> Pipeline:
    """Score models on benchmarks."""
    return Pipeline([])
