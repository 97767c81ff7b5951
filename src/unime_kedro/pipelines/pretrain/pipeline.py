"""Pipelines ``pretrain`` and ``measure``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.pipelines.pretrain import nodes

_EMBEDDER_INPUTS = ["params:pretrain", "corpus", "params:demo"]


def create_pipeline(**_: object) -> Pipeline:
    """Train and measure both tiny models; a fresh clone has them already."""
    judge = node(nodes.pretrain_judge, "params:pretrain", ["pretrain_judge_metrics", "pretrain_judge_history"])
    outputs = ["pretrain_embedder_metrics", "pretrain_embedder_history"]
    return Pipeline([judge, node(nodes.pretrain_embedder, _EMBEDDER_INPUTS, outputs)])


def create_measure_pipeline(**_: object) -> Pipeline:
    """Measure both tiny models as they are."""
    judge = node(nodes.measure_judge, "params:pretrain", "measure_judge_metrics")
    return Pipeline([judge, node(nodes.measure_embedder, _EMBEDDER_INPUTS, "measure_embedder_metrics")])
