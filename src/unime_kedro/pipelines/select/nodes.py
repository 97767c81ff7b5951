"""Nodes of pipeline ``select``."""

import logging
from typing import Any

import polars as pl

from unime_kedro.errors import ConfigurationError
from unime_kedro.own_data import is_embedded_model
from unime_kedro.parameters import JudgeParameters, SelectParameters
from unime_kedro.paths import resolve

log = logging.getLogger(__name__)

#: Queries of which nothing is kept, as a share: more than this is worth a warning. The paper has below 1 %.
FALLBACK_LIMIT = 0.05

#: shown wherever numbers of the embedded models are
TINY_NOTE = (
    "Judged by the embedded tiny models, trained on synthetic scenes of drawings. Their scores show how the method "
    "works; they say nothing about the paper's judge."
)


def select(
    pool: pl.DataFrame,
    judge_scores: pl.DataFrame,
    judge_origin: dict[str, Any],
    judge_coverage: pl.DataFrame,
    items: pl.DataFrame,
    queries: pl.DataFrame,
    select: SelectParameters,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, dict[str, float]]:
    """Drop false negatives and sample hard negatives (method 2.3).

    Args:
        pool: The pool table.
        judge_scores: The judge_scores table.
        judge_origin: What the scores were made from.
        judge_coverage: What was picked already, where pools were judged in part.
        items: The items table, to compare with that.
        queries: The queries table, likewise, and for the shares per data set.
        select: Rule, margin, number of negatives, interval, seed.

    Returns:
        Queries without negatives (query_id, reason), the selection table, the negatives table, and metrics.
    """
    from unime_kedro.mining.lineage import check_lineage, corpus_digest, table_digest
    from unime_kedro.mining.selection import false_negatives_by_dataset, select_negatives

    current = {
        "corpus": corpus_digest(items, queries),
        "pool": table_digest(pool),
        "judge_scores": table_digest(judge_scores),
    }
    check_lineage(judge_origin, current, "judge_scores.parquet", "kedro run --pipelines=pool,judge,select")
    strategy = judge_origin.get("strategy")
    _check_strategy(strategy, select)
    found = select_negatives(
        pool,
        judge_scores,
        coverage=None if strategy is None else judge_coverage,
        n_negatives=select.negatives,
        rule=select.filter.rule,
        margin=select.filter.effective_margin,
        step=select.step,
        seed=select.seed,
    )
    if len(found.skipped):
        reasons = dict(found.skipped["reason"].value_counts().rows())
        count = "1 query has" if len(found.skipped) == 1 else f"{len(found.skipped):,} queries have"
        log.warning("%s no negatives, see skipped.parquet: %s", count, reasons)
    _warn_of_fallbacks(found.metrics["fallback_share"], select)
    shares = false_negatives_by_dataset(found.selection, queries)
    return (
        found.skipped,
        found.selection,
        found.negatives,
        {
            **found.metrics,
            "margin": select.filter.effective_margin,
            **{f"false_negative_share/{name}": share for name, share in shares.items()},
        },
    )


def _check_strategy(strategy: dict[str, Any] | None, select: SelectParameters) -> None:
    """Make sure that a judge that was asked no more than needed was asked for what is selected now.

    Raises:
        ConfigurationError: Pairs that would be selected may not have been judged.
    """
    if strategy is None:
        return
    judged = strategy["selection"]
    now = {"step": select.step, "rule": select.filter.rule, "margin": select.filter.effective_margin}
    other = [f"{key} {judged[key]}, now {value}" for key, value in now.items() if judged[key] != value]
    if select.negatives > judged["negatives"]:
        other.append(f"negatives {judged['negatives']}, now {select.negatives}")
    if other:
        raise ConfigurationError(
            f"judge_scores.parquet holds only the pairs that another selection needed (judge.strategy.kind "
            f"{strategy['kind']}): {'; '.join(other)}. Run `kedro run --pipelines=judge,select` with the parameters of "
            "now: what was judged is kept, only what is missing is judged."
        )


def _warn_of_fallbacks(share: float, select: SelectParameters) -> None:
    if share > FALLBACK_LIMIT:
        log.warning(
            "%.1f %% of the queries keep no candidate under rule %s with margin %g (paper: below 1 %%), "
            "their negatives are drawn at random from the pool; see select.filter.rule and select.filter.margin",
            100 * share,
            select.filter.rule,
            select.filter.effective_margin,
        )


def export(
    negatives: pl.DataFrame, queries: pl.DataFrame, items: pl.DataFrame, judge_scores: pl.DataFrame
) -> pl.DataFrame:
    """Put the mined negatives into the row format of the authors' release."""
    from unime_kedro.io.release import release_table

    return release_table(negatives, queries, items, judge_scores)


def measure(
    queries: pl.DataFrame,
    items: pl.DataFrame,
    pool: pl.DataFrame,
    judge_scores: pl.DataFrame,
    negatives: pl.DataFrame,
    selection: pl.DataFrame,
    corpus_truth: dict[str, pl.DataFrame],
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Measure judge, filter and choice against the known truth of mini-MMEB; nothing for data without one.

    Returns:
        True relevance of every judged pair and pool pair (query_id, item_id, relevance; null where unknown), and
        metrics; both empty without a truth.
    """
    from unime_kedro.evaluation.truth import distinct_pairs, measure_mining, relevance_of_pairs

    empty = pl.DataFrame(schema={"query_id": pl.Int64, "item_id": pl.Int64, "relevance": pl.Float32})
    if not {"contents", "wants"} <= set(corpus_truth):
        return empty, {}
    pairs = distinct_pairs(judge_scores, pool)
    relevance = relevance_of_pairs(pairs, queries, items, corpus_truth["contents"], corpus_truth["wants"])
    if relevance["relevance"].null_count() == len(relevance):
        return empty, {}
    return relevance, measure_mining(relevance, judge_scores, pool, negatives, selection, queries)


def show(
    queries: pl.DataFrame,
    items: pl.DataFrame,
    pool: pl.DataFrame,
    judge_scores: pl.DataFrame,
    negatives: pl.DataFrame,
    selection: pl.DataFrame,
    pool_relevance: pl.DataFrame,
    select: SelectParameters,
    judge: JudgeParameters,
    image_root: str,
) -> str:
    """Render the gallery: queries, positives and mined negatives with pictures and scores."""
    from unime_kedro.io.gallery import render_gallery

    dropped = int(selection["dropped_false_negative"].sum())
    facts = {
        "Queries": f"{len(queries):,}",
        "Pool": f"{len(pool):,} pair{'' if len(pool) == 1 else 's'}",
        "False negatives dropped": f"{dropped:,} ({dropped / max(len(pool), 1):.1%} of the pool)",
        "Fallback queries": f"{selection.filter(pl.col('outcome') == 'fallback').height:,}",
        "Judge": judge.model,
        "Filter": f"{select.filter.rule}, margin {select.filter.effective_margin:g}",
        "Negatives per query": f"{select.negatives}, every {select.step}th of the pool",
    }
    return render_gallery(
        queries,
        items,
        pool,
        judge_scores,
        negatives,
        selection,
        image_root=resolve(image_root),
        n_queries=select.gallery_queries,
        seed=select.seed,
        title="Mined hard negatives",
        facts=facts,
        truth=pool_relevance if len(pool_relevance) else None,
        note=TINY_NOTE if is_embedded_model(judge.model) else None,
    )
