"""Make the embedded tiny models from nothing, and measure them."""

from unime_kedro.pipelines.pretrain.pipeline import create_measure_pipeline, create_pipeline

__all__ = ["create_measure_pipeline", "create_pipeline"]
