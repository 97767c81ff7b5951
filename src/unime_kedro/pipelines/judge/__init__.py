"""Judge scoring: does the candidate meet the requirements of the query?"""

from unime_kedro.pipelines.judge.pipeline import create_pipeline

__all__ = ["create_pipeline"]
