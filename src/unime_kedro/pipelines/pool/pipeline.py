"""Pipeline ``pool``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.pipelines.pool.nodes import embed, retrieve


def create_pipeline(**_: object) -> Pipeline:
    """Embed all items, search all candidates."""
    return Pipeline(
        [
            node(
                embed,
                ["items", "params:pool", "params:ingest.image_root", "embedding_folder"],
                ["embeddings", "embedding_metrics"],
                name="embed",
            ),
            node(
                retrieve,
                ["embeddings", "items", "queries", "candidates", "params:pool", "index_folder"],
                ["pool", "pool_origin", "pool_metrics"],
                name="retrieve",
            ),
        ]
    )
