"""Make the embedded tiny models from nothing."""

from unime_kedro.pipelines.pretrain.pipeline import create_pipeline

__all__ = ["create_pipeline"]
