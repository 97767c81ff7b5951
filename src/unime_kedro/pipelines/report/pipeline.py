"""Pipeline ``report``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.optional_inputs import TAG
from unime_kedro.pipelines.report import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Compare models, look at their embeddings, draw figures, and put all on one page; with what there is."""
    return Pipeline(
        [
            node(nodes.compare, ["predictions", "params:evaluate", "params:report"], ["comparisons", "report_metrics"]),
            node(
                nodes.project,
                ["evaluate_metrics", "rankings", "evaluated_queries", "params:evaluate", "params:report"],
                ["projection", "projection_metrics"],
            ),
            node(
                nodes.draw,
                ["comparisons", "ablation_results", "judge_scores", "train_history", "rerank_history", "projection",
                 "projection_metrics"],
                ["report_figures", "report_drawings"],
            ),
            node(
                nodes.write,
                ["evaluate_metrics", "comparisons", "ablation_results", "projection_metrics", "predictions", "rankings",
                 "evaluated_queries", "leakage_metrics", "judge_card_metrics", "judge_origin", "trained_model",
                 "reranker", "imported_scores", "report_drawings",
                 "report_origins", "params:evaluate", "params:judge", "params:report"],
                "report",
            ),
        ],
        tags=[TAG],
    )  # fmt: skip
