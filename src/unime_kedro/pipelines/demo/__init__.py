"""mini-MMEB: write the embedded corpus, once."""

from unime_kedro.pipelines.demo.pipeline import create_embedded_pipeline, create_pipeline

__all__ = ["create_embedded_pipeline", "create_pipeline"]
