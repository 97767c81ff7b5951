"""Train the embedder on mined negatives, and measure it."""

from unime_kedro.pipelines.train.pipeline import create_pipeline

__all__ = ["create_pipeline"]
