"""Raw pairs -> items, queries, candidates, rejects."""

from unime_kedro.pipelines.ingest.pipeline import create_pipeline

__all__ = ["create_pipeline"]
