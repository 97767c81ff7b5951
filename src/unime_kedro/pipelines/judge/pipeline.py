"""Pipeline ``judge``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.pipelines.judge.nodes import judge


def create_pipeline(**_: object) -> Pipeline:
    """Score every query with its pool and its positive."""
    inputs = ["queries", "items", "pool", "pool_origin", "params:judge", "params:ingest.image_root", "judge_store"]
    outputs = ["judge_errors", "judge_coverage", "judge_scores", "judge_origin", "judge_metrics"]
    return Pipeline([node(judge, inputs, outputs, name="judge")])
