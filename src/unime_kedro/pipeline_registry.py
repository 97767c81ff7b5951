"""The project's pipelines by name."""

from kedro.pipeline import Pipeline

from unime_kedro.pipelines import (
    demo,
    evaluate,
    ingest,
    judge,
    judge_card,
    pool,
    pretrain,
    report,
    rerank,
    select,
    train,
)


def register_pipelines() -> dict[str, Pipeline]:
    """Return every pipeline; ``mine`` is the main one, and what a bare ``kedro run`` runs.

    Nodes import models and search libraries when they run, so that naming a pipeline costs nothing.
    """
    parts = {
        "demo": demo.create_pipeline(),
        # with demo's node, so that it runs alone on any data: that node leaves data of your own as they are
        "ingest": demo.create_pipeline() + ingest.create_pipeline(),
        "pool": pool.create_pipeline(),
        "judge": judge.create_pipeline(),
        "select": select.create_pipeline(),
    }
    mine = sum(parts.values(), Pipeline([]))
    models = {
        "pretrain": demo.create_embedded_pipeline() + pretrain.create_pipeline(),
        "measure": demo.create_embedded_pipeline() + pretrain.create_measure_pipeline(),
    }
    after = {
        "train": train.create_pipeline(),
        "rerank": rerank.create_pipeline(),
        "evaluate": evaluate.create_pipeline(),
        "judge_card": judge_card.create_pipeline(),
        "report": report.create_pipeline(),
    }
    return {**parts, **models, **after, "mine": mine, "__default__": mine}
