"""Pipeline ``train``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.pipelines.train import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Put mined negatives into rows, train on them, measure what came out."""
    return Pipeline(
        [
            node(
                nodes.prepare,
                ["negatives", "queries", "items", "judge_scores", "judge_origin", *_PLACES, "params:train"],
                ["training", "training_metrics"],
                name="prepare",
            ),
            node(
                nodes.train,
                ["training", "items", "judge_origin", *_PLACES, "params:train", "training_folder", "trained_folder"],
                ["trained_model", "train_history", "train_metrics"],
                name="train",
            ),
            node(
                nodes.measure_trained,
                ["trained_model", *_PLACES, "params:train"],
                ["trained_predictions", "trained_metrics"],
                name="measure_trained",
            ),
        ]
    )


_PLACES = ["params:ingest", "params:demo"]
