"""False-negative filter, sampling, export, gallery."""

from unime_kedro.pipelines.select.pipeline import create_pipeline

__all__ = ["create_pipeline"]
