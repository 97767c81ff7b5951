"""mini-MMEB: write the embedded corpus, once."""

from unime_kedro.pipelines.demo.pipeline import create_pipeline

__all__ = ["create_pipeline"]
