"""Pipeline ``select``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.pipelines.select.nodes import export, measure, select, show


def create_pipeline(**_: object) -> Pipeline:
    """Filter and sample negatives, write them for other trainers, measure and show them."""
    tables = ["queries", "items", "pool", "judge_scores", "negatives", "selection"]
    return Pipeline(
        [
            node(
                select,
                ["pool", "judge_scores", "judge_origin", "judge_coverage", "items", "queries", "params:select"],
                ["skipped", "selection", "negatives", "select_metrics"],
                name="select",
            ),
            node(export, ["negatives", "queries", "items", "judge_scores"], "mined", name="export"),
            node(measure, [*tables, "corpus_truth"], ["pool_relevance", "truth_metrics"], name="measure"),
            node(
                show,
                [*tables, "pool_relevance", "params:select", "params:judge", "params:ingest.image_root"],
                "gallery",
                name="show",
            ),
        ]
    )
