"""A sample of evaluation contents, embedded by some of the evaluated models."""

import logging
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unime_kedro.parameters import EvaluateParameters
from unime_kedro.paths import resolve
from unime_kedro.progress import progress
from unime_kedro.reporting.embeddings import choose_contents

log = logging.getLogger(__name__)


def sample_contents(
    rankings: pl.DataFrame | None, evaluated_queries: pl.DataFrame | None, n: int, seed: int
) -> pl.DataFrame:
    """Choose candidates of the evaluation, half of them texts and half of them pictures (:func:`choose_contents`)."""
    columns = ["dataset", "image_root", "text", "image"]
    if rankings is None or evaluated_queries is None:
        return choose_contents(pl.DataFrame(schema=dict.fromkeys(columns, pl.String)), n, seed)
    roots = evaluated_queries.select("benchmark", "image_root").unique()
    candidates = rankings.select("benchmark", "dataset", "text", "image").unique().join(roots, on="benchmark")
    return choose_contents(candidates.select(columns), n, seed)


def embed_sample(
    contents: pl.DataFrame, fingerprints: dict[str, str | None], evaluate: EvaluateParameters
) -> dict[str, NDArray[np.float32]]:
    """Embed contents by models of ``evaluate.models``.

    Args:
        contents: image_root, text, image.
        fingerprints: model -> its fingerprint when it was evaluated, None if that is not known. A model that is another
            one by now is left out, with a warning; so is one that ``evaluate.models`` no longer names.
        evaluate: The models and how contents are put to them.

    Returns:
        model -> (n, d) unit vectors.
    """
    from unime_kedro.mllm.adapters import fingerprint_of

    found = {}
    for name, fingerprint in fingerprints.items():
        model = evaluate.models.get(name)
        if model is None or fingerprint not in (None, fingerprint_of(model.model, model.revision)):
            log.warning(
                "%s is not projected: it is another model than was evaluated. kedro run --pipeline=evaluate", name
            )
            continue
        found[name] = _embed(contents, model.model, model.revision, evaluate)
    return found


def _embed(
    contents: pl.DataFrame, model: str, revision: str | None, evaluate: EvaluateParameters
) -> NDArray[np.float32]:
    from unime_kedro.evaluation.embedders import embed_distinct
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec
    from unime_kedro.mllm.embedding import Embedder

    spec = ModelSpec(
        model, revision, evaluate.device, evaluate.dtype, evaluate.min_pixels, evaluate.max_pixels, evaluate.threads
    )
    embedder = Embedder(
        load_adapter(spec), prompt=evaluate.prompt, max_tokens=evaluate.max_tokens, batch_tokens=evaluate.batch_tokens
    )
    # pictures of several benchmarks lie in several folders
    roots = {root: str(resolve(root)) for root in contents["image_root"].unique()}
    path = pl.concat_str(pl.col("image_root").replace(roots), pl.lit("/"), "image")
    absolute = contents.select("text", image=pl.when(pl.col("image") == "").then(pl.lit("")).otherwise(path))
    vectors, places = embed_distinct(absolute, embedder.embed, Path("/"), progress=progress)
    return vectors[places]
