"""Pipeline ``judge_card``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.pipelines.judge_card.nodes import measure, rescore, write


def create_pipeline(**_: object) -> Pipeline:
    """Judge a sample again in several ways, measure that and the saved scores, write the card."""
    mined = ["queries", "items", "pool", "judge_scores", "judge_origin"]
    again = ["judge_card_scores", "judge_card_origin"]
    return Pipeline(
        [
            node(
                rescore,
                [*mined, "params:judge", "params:judge_card", "params:ingest.image_root"],
                again,
                name="rescore",
            ),
            node(
                measure,
                [*mined, "pool_relevance", *again, "params:select", "params:judge_card"],
                "judge_card_metrics",
                name="measure_judge_card",
            ),
            node(
                write,
                ["judge_card_metrics", *again, "judge_origin", "params:judge", "params:select", "params:judge_card"],
                "judge_card",
                name="write_judge_card",
            ),
        ]
    )
