"""Nodes of pipeline ``judge``."""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from unime_kedro.parameters import JudgeParameters
from unime_kedro.paths import resolve
from unime_kedro.pipelines.pool.nodes import model_spec
from unime_kedro.progress import progress

if TYPE_CHECKING:
    from unime_kedro.mllm.judge import PrefixJudge


def load_judge(judge: JudgeParameters) -> "PrefixJudge":
    """Load the judge that the parameters name, ready to judge."""
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.judge import PrefixJudge

    return PrefixJudge(
        load_adapter(model_spec(judge)),
        batch_size=judge.batch_size,
        share_prefix=judge.share_prefix,
        max_tokens=judge.max_tokens,
        vision_cache_gb=judge.vision_cache_gb,
        workers=judge.image_workers,
    )


def judge(
    queries: pl.DataFrame,
    items: pl.DataFrame,
    pool: pl.DataFrame,
    pool_origin: dict[str, str],
    judge: JudgeParameters,
    image_root: str,
    judge_store: Path,
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, str], dict[str, float | str]]:
    """Judge every (query, pool member) and every (query, positive) (method 2.2).

    Args:
        queries: The queries table.
        items: The items table.
        pool: The pool table.
        pool_origin: What the pool was made from.
        judge: Which model, and how.
        image_root: Folder that image paths are relative to.
        judge_store: Scores of all runs; what is in there is not judged again.

    Returns:
        Pairs that could not be judged, the judge_scores table, what it was made from, metrics.

    Raises:
        DataError: If the pool belongs to another corpus, or too many pairs could not be judged.
        ModelError: If the judge or its calibration cannot be read.
    """
    from unime_kedro.mining.judging import judge_pairs
    from unime_kedro.mining.lineage import check_lineage, corpus_digest, table_digest
    from unime_kedro.mllm.adapters import local_or_hub
    from unime_kedro.mllm.calibration import read_temperature

    origin = {"corpus": corpus_digest(items, queries), "pool": table_digest(pool)}
    check_lineage(pool_origin, origin, "pool.parquet", "kedro run --pipelines=pool,judge,select")
    temperature = judge.temperature
    if temperature == "model":
        temperature = read_temperature(local_or_hub(judge.model), judge.revision)
    backend = load_judge(judge)
    found = judge_pairs(
        queries,
        items,
        pool,
        backend,
        judge_store,
        resolve(image_root),
        temperature=temperature,
        flush_seconds=judge.flush_seconds,
        max_error_share=judge.max_error_share,
        progress=progress,
    )
    origin["judge_scores"] = table_digest(found.scores)
    origin |= {"model": judge.model, "model_fingerprint": backend.adapter.fingerprint, "temperature": str(temperature)}
    metrics: dict[str, float | str] = {
        **found.metrics,
        **backend.metrics(),
        "model_fingerprint": backend.adapter.fingerprint,
    }
    return found.errors, found.scores, origin, metrics
