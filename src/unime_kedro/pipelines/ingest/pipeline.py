"""Pipeline ``ingest``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.pipelines.ingest.nodes import ingest_pairs


def create_pipeline(**_: object) -> Pipeline:
    """Read raw pairs, refuse bad rows, make equal contents one item."""
    outputs = ["rejects", "items", "queries", "candidates", "ingest_metrics"]
    return Pipeline([node(ingest_pairs, ["corpus", "params:ingest"], outputs, name="ingest_pairs")])
