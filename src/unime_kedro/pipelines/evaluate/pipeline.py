"""Pipeline ``evaluate``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.optional_inputs import TAG
from unime_kedro.pipelines.evaluate import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Read benchmarks, look for leaks, score models, and measure with intervals."""
    return Pipeline(
        [
            node(
                nodes.load,
                ["params:evaluate", "corpus", "trained_model", "reranker"],
                "evaluation_benchmarks",
                tags=[TAG],
            ),
            node(
                nodes.find_leaks,
                ["evaluation_benchmarks", "items", "params:ingest", "params:evaluate"],
                ["leaks", "leakage_metrics"],
                tags=[TAG],
            ),
            node(nodes.score, ["evaluation_benchmarks", "params:evaluate", "evaluation_folder"], "evaluations"),
            node(
                nodes.measure,
                ["evaluation_benchmarks", "evaluations", "leaks", "params:evaluate"],
                ["evaluated_queries", "predictions", "rankings", "evaluate_metrics"],
            ),
        ]
    )
