"""Pipeline ``demo``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.pipelines.demo.nodes import prepare_corpus


def create_pipeline(**_: object) -> Pipeline:
    """Make sure that the corpus to be mined is there."""
    return Pipeline([node(prepare_corpus, ["params:demo", "params:ingest"], ["corpus", "demo_metrics"])])
