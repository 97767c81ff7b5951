"""Train the reranker on mined negatives."""

from unime_kedro.pipelines.rerank.pipeline import create_pipeline

__all__ = ["create_pipeline"]
