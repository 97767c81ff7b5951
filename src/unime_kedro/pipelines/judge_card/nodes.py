"""Nodes of pipeline ``judge_card``."""

import logging
from typing import Any

import polars as pl

from unime_kedro.parameters import JudgeCardParameters, JudgeParameters, SelectParameters
from unime_kedro.paths import resolve
from unime_kedro.progress import progress

log = logging.getLogger(__name__)


def rescore(
    queries: pl.DataFrame,
    items: pl.DataFrame,
    pool: pl.DataFrame,
    judge_scores: pl.DataFrame,
    judge_origin: dict[str, str],
    judge: JudgeParameters,
    judge_card: JudgeCardParameters,
    image_root: str,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Judge the pools of some queries again: as in use, and with one thing changed each time.

    Args:
        queries: The queries table.
        items: The items table.
        pool: The pool table.
        judge_scores: The judge_scores table, to know which queries could be judged.
        judge_origin: What the scores were made from.
        judge: Which model, and how.
        judge_card: Which queries, which changes.
        image_root: Folder that image paths are relative to.

    Returns:
        Logits and scores of every scoring (see :data:`unime_kedro.evaluation.rescoring.SCHEMA`), and which judge that
        was.

    Raises:
        DataError: If the scores belong to another corpus or pool.
        ModelError: If a judge or its calibration cannot be read.
    """
    from unime_kedro.evaluation.rescoring import rescore, sample_queries, sampled_pairs
    from unime_kedro.mining.lineage import check_lineage, corpus_digest, table_digest
    from unime_kedro.mllm.content import contents_of
    from unime_kedro.pipelines.judge_card.scorings import scorings

    current = {
        "corpus": corpus_digest(items, queries),
        "pool": table_digest(pool),
        "judge_scores": table_digest(judge_scores),
    }
    check_lineage(judge_origin, current, "judge_scores.parquet", "kedro run --pipelines=pool,judge,select")
    chosen = sample_queries(queries, pool, judge_scores, judge_card.queries, judge_card.seed)
    pairs = sampled_pairs(queries, pool, chosen)
    contents = contents_of(items, resolve(image_root))
    times = 3 + len(judge_card.wordings) + (judge_card.precision is not None) + (judge_card.second_judge is not None)
    log.info("%d queries, %d pairs, each judged %d times", len(chosen), pairs.height, times)
    tables, known = [], {}
    for one in scorings(judge, judge_card):
        tables.append(
            rescore(
                pairs, contents, one.judge, temperature=one.temperature, kind=one.kind, variant=one.variant,
                backwards=one.backwards, progress=progress,
            )
        )  # fmt: skip
        known[f"{one.kind}/{one.variant}"] = one.judge.identity() | {"temperature": one.temperature}
        del one  # a large model goes before the next one comes
    return pl.concat(tables), {**current, "scorings": known}


def measure(
    queries: pl.DataFrame,
    items: pl.DataFrame,
    pool: pl.DataFrame,
    judge_scores: pl.DataFrame,
    judge_origin: dict[str, str],
    pool_relevance: pl.DataFrame,
    judge_card_scores: pl.DataFrame,
    judge_card_origin: dict[str, Any],
    select: SelectParameters,
    judge_card: JudgeCardParameters,
) -> dict[str, Any]:
    """Measure the saved scores and the sample's.

    Args:
        queries: The queries table.
        items: The items table.
        pool: The pool table.
        judge_scores: The judge_scores table.
        judge_origin: Which judge made it.
        pool_relevance: The truth, where there is one.
        judge_card_scores: What :func:`rescore` made.
        judge_card_origin: Likewise.
        select: What the scores are used for.
        judge_card: How intervals are made.

    Returns:
        The card's numbers, see :func:`unime_kedro.pipelines.judge_card.measures.card_metrics`.
    """
    from unime_kedro.evaluation.agreement import Choice, Resampling
    from unime_kedro.pipelines.judge_card.measures import Mined, card_metrics, faults

    choice = Choice(select.filter.rule, select.filter.effective_margin, select.negatives, select.step, select.seed)
    resampling = Resampling(judge_card.level, judge_card.resamples, judge_card.seed)
    mined = Mined(queries, items, pool, judge_scores, pool_relevance)
    metrics = card_metrics(mined, judge_card_scores, judge_card_origin, choice, resampling)
    for fault in faults(metrics, judge_origin, judge_card_origin):
        log.warning("%s", fault)
    return metrics


def write(
    judge_card_metrics: dict[str, Any],
    judge_card_scores: pl.DataFrame,
    judge_card_origin: dict[str, Any],
    judge_origin: dict[str, str],
    judge: JudgeParameters,
    select: SelectParameters,
    judge_card: JudgeCardParameters,
) -> str:
    """Put everything on one page."""
    from unime_kedro.pipelines.judge_card import page

    return page.render(
        judge_card_metrics, judge_card_scores, judge_card_origin, judge_origin, judge, select, judge_card
    )
