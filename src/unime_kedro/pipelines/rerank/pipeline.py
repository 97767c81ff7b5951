"""Pipeline ``rerank``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.pipelines.rerank import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Put the hardest mined negatives into rows, train the reranker on them."""
    return Pipeline(
        [
            node(
                nodes.prepare_reranking,
                ["negatives", "queries", "items", "judge_scores", "judge_origin", "params:ingest", "params:rerank"],
                ["reranking", "reranking_metrics"],
            ),
            node(
                nodes.train_reranker,
                [
                    *("reranking", "items", "judge_origin", "params:ingest", "params:demo", "params:rerank"),
                    *("reranker_training_folder", "reranker_folder"),
                ],
                ["reranker", "rerank_history", "rerank_metrics"],
            ),
        ]
    )
