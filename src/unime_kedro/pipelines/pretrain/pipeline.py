"""Pipeline ``pretrain``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.pipelines.pretrain.nodes import pretrain_embedder, pretrain_judge


def create_pipeline(**_: object) -> Pipeline:
    """Train both tiny models; a fresh clone has them already."""
    return Pipeline(
        [
            node(pretrain_judge, "params:pretrain", "pretrain_judge_metrics"),
            node(pretrain_embedder, "params:pretrain", "pretrain_embedder_metrics"),
        ]
    )
