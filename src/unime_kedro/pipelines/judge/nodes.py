"""Nodes of pipeline ``judge``."""

import time
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.parameters import JudgeParameters
from unime_kedro.paths import resolve
from unime_kedro.pipelines.judge.backends import make_judge, small_judge, temperature_of
from unime_kedro.progress import progress


def judge(
    queries: pl.DataFrame,
    items: pl.DataFrame,
    pool: pl.DataFrame,
    pool_origin: dict[str, str],
    judge: JudgeParameters,
    image_root: str,
    judge_store: Path,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, dict[str, Any], dict[str, float | str]]:
    """Judge every (query, positive), and every (query, pool member) or as many as are needed (method 2.2).

    Args:
        queries: The queries table.
        items: The items table.
        pool: The pool table.
        pool_origin: What the pool was made from.
        judge: Which model, which pairs, and how.
        image_root: Folder that image paths are relative to.
        judge_store: Scores of all runs; what is in there is not judged again.

    Returns:
        Pairs that could not be judged, how much of each pool was judged, the judge_scores table, what it was made from,
        metrics.

    Raises:
        DataError: If the pool belongs to another corpus, or too many pairs could not be judged.
        ModelError: If the judge or its calibration cannot be read.
    """
    from unime_kedro.mining.judging import judged_tables, pairs_to_judge
    from unime_kedro.mining.lineage import check_lineage, corpus_digest, table_digest
    from unime_kedro.mining.partial import whole_coverage
    from unime_kedro.mining.scorer import PairScorer

    origin: dict[str, Any] = {"corpus": corpus_digest(items, queries), "pool": table_digest(pool)}
    check_lineage(pool_origin, origin, "pool.parquet", "kedro run --pipelines=pool,judge,select")

    def scorer_of(parameters: JudgeParameters) -> tuple[PairScorer, Any]:
        temperature, backend = temperature_of(parameters), make_judge(parameters)
        scorer = PairScorer(
            items,
            backend,
            judge_store,
            resolve(image_root),
            temperature=temperature,
            flush_seconds=judge.flush_seconds,
            progress=progress,
        )
        return scorer, backend

    start = time.perf_counter()
    scorer, backend = scorer_of(judge)
    if judge.strategy.kind == "exhaustive":
        found = judged_tables(scorer.score(pairs_to_judge(queries, pool)), scorer, judge.max_error_share, start)
        coverage = whole_coverage(pool)
    else:
        small, helper = scorer_of(small_judge(judge)) if judge.strategy.kind == "cascade" else (None, None)
        found, coverage = _judge_some(queries, pool, scorer, judge, small)
        if helper is not None:
            found.metrics.update({f"small_{name}": value for name, value in helper.metrics().items()})
            _close(helper)
        origin["strategy"] = judge.strategy.model_dump(exclude={"small"})
    _close(backend)
    fingerprint = backend.identity()["model"]
    origin["judge_scores"] = table_digest(found.scores)
    origin |= {"model": judge.model, "model_fingerprint": fingerprint, "temperature": str(temperature_of(judge))}
    metrics = {**found.metrics, **backend.metrics(), "model_fingerprint": fingerprint}
    return found.errors, coverage, found.scores, origin, metrics


def _close(backend: Any) -> None:
    """End engines and workers; a judge in this process has none."""
    if hasattr(backend, "close"):
        backend.close()


def _judge_some(
    queries: pl.DataFrame, pool: pl.DataFrame, scorer: Any, judge: JudgeParameters, small: Any
) -> tuple[Any, pl.DataFrame]:
    from unime_kedro.mining.partial import Strategy, judge_some

    strategy, selection = judge.strategy, judge.strategy.selection
    assert selection is not None  # filled in with the configuration
    assert strategy.kind != "exhaustive"
    options = Strategy(
        strategy.kind,
        selection.negatives,
        selection.rule,
        selection.margin,
        selection.step,
        strategy.look,
        strategy.calls_per_query,
        strategy.band,
    )
    return judge_some(queries, pool, scorer, options, small=small, max_error_share=judge.max_error_share)
