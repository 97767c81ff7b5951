"""Pipeline ``demo``."""

from kedro.pipeline import Pipeline, node

from unime_kedro.pipelines.demo.nodes import ensure_mini_mmeb, prepare_corpus


def create_pipeline(**_: object) -> Pipeline:
    """Make sure that the corpus to be mined is there."""
    inputs = ["params:demo", "params:ingest"]
    return Pipeline([node(prepare_corpus, inputs, ["corpus", "demo_metrics"], name="prepare_corpus")])


def create_embedded_pipeline(**_: object) -> Pipeline:
    """Make sure that mini-MMEB is there, whatever is mined."""
    return Pipeline([node(ensure_mini_mmeb, "params:demo", ["corpus", "demo_metrics"], name="ensure_mini_mmeb")])
