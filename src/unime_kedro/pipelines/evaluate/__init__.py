"""Score models on benchmarks."""

from unime_kedro.pipelines.evaluate.pipeline import create_pipeline

__all__ = ["create_pipeline"]
