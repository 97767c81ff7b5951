"""Measure the judge in use."""

from unime_kedro.pipelines.judge_card.pipeline import create_pipeline

__all__ = ["create_pipeline"]
