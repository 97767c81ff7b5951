"""Global pool: embed every item once, retrieve the nearest candidates of every query."""

from unime_kedro.pipelines.pool.pipeline import create_pipeline

__all__ = ["create_pipeline"]
