"""Mining measured against known truth, where a corpus brings it along, as mini-MMEB does.

The truth lies beside the data, under ``<root>/truth/``:

* ``contents.parquet``: text String, image String (path under the image root), modality_out String (``text`` or
  ``image``: what a reader gets), objects List[Int64] (the classes that the candidate depicts or names);
* ``wants.parquet``: text String, image String (the query's), want_modality String, want_objects List[Int64].

**Relevance** of a candidate for a query is 0 when its modality is not the wanted one, else the Jaccard index
``|A & B| / |A | B|`` of the two sets of objects: 1 means "meets the query", and such a pool member is a true *false
negative*; everything below 1 is a true negative, the harder the closer to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unime_kedro.errors import DataError
from unime_kedro.evaluation.ranking import expected_calibration_error, precision_recall, roc_auc, spearman

_PAIR = ["query_id", "item_id"]
_CONTENT = ["text", "image"]
#: pairs whose masks are compared at a time; bounds the memory, not the result
_BLOCK = 1 << 16


def distinct_pairs(*tables: pl.DataFrame) -> pl.DataFrame:
    """Return the distinct (query_id, item_id) of several tables, sorted: the pairs whose relevance is of interest."""
    return pl.concat([table.select(_PAIR) for table in tables]).unique().sort(_PAIR)


def relevance_of_pairs(
    pairs: pl.DataFrame, queries: pl.DataFrame, items: pl.DataFrame, contents: pl.DataFrame, wants: pl.DataFrame
) -> pl.DataFrame:
    """Look up the true relevance of query-candidate pairs.

    Args:
        pairs: Holds query_id and item_id; in any order, repetitions allowed.
        queries: Table ``queries``.
        items: Table ``items``; its (text, image) is the key into the truth.
        contents: What candidates depict or name (see the module).
        wants: What queries ask for (see the module).

    Returns:
        query_id, item_id, relevance Float32 in [0, 1]; one row per row of ``pairs``, in their order. Relevance is null
        where the query or the candidate is not in the truth tables, and where both object sets are empty.

    Raises:
        DataError: If the truth tables say two different things about one (text, image).
    """
    keys = items.select("item_id", *_CONTENT)
    wanted = (
        queries.join(pairs, on="query_id", how="semi")
        .select("query_id", "item_id")
        .join(keys, on="item_id")
        .join(_facts(wants, "want_modality", "want_objects", "wants"), on=_CONTENT)
        .with_row_index("query_row")
    )
    depicted = (
        keys.join(pairs, on="item_id", how="semi")
        .join(_facts(contents, "modality_out", "objects", "contents"), on=_CONTENT)
        .with_row_index("item_row")
    )
    rows = (
        pairs.select(_PAIR)
        .join(wanted.select("query_id", "query_row", "modality"), on="query_id", how="left", maintain_order="left")
        .join(
            depicted.select("item_id", "item_row", "modality"),
            on="item_id",
            how="left",
            maintain_order="left",
            suffix="_of_item",
        )
        .with_columns(same=pl.col("modality") == pl.col("modality_of_item"))
    )
    relevance = np.full(rows.height, np.nan, dtype=np.float32)
    known = rows.with_row_index("at").filter(pl.col("same").is_not_null())
    relevance[known["at"].to_numpy()] = np.where(
        known["same"].to_numpy(),
        _jaccard(wanted["objects"], depicted["objects"], known["query_row"].to_numpy(), known["item_row"].to_numpy()),
        np.float32(0),
    )
    return rows.select(*_PAIR, pl.Series("relevance", relevance).fill_nan(None))


def _facts(table: pl.DataFrame, modality: str, objects: str, name: str) -> pl.DataFrame:
    """Return text, image, modality, objects (sorted, distinct), one row per (text, image)."""
    facts = table.select(
        pl.col("text").fill_null(""),
        pl.col("image").fill_null(""),
        pl.col(modality).alias("modality"),
        pl.col(objects).list.unique().list.sort().alias("objects"),
    ).unique()
    twice = facts.filter(pl.struct(_CONTENT).is_duplicated()).sort(_CONTENT)
    if twice.height:
        text, image = twice.row(0)[:2]
        raise DataError(
            f"truth table '{name}': text {text!r} with image {image!r} stands there with different {modality} or "
            f"{objects}; expected one truth per (text, image). Remove the wrong row or write the corpus anew."
        )
    return facts


def _jaccard(
    left: pl.Series, right: pl.Series, left_rows: NDArray[np.integer], right_rows: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return the Jaccard indices of ``left[left_rows]`` and ``right[right_rows]``; NaN for two empty sets.

    Every set becomes a row of bits, 64 classes a word, so that a pair costs a few machine words.
    """
    classes = pl.concat([left.explode(), right.explode()]).drop_nulls().unique().sort().to_numpy()
    bits_left, bits_right = _bit_rows(left, classes), _bit_rows(right, classes)
    size_left, size_right = (np.bitwise_count(bits).sum(axis=1, dtype=np.int64) for bits in (bits_left, bits_right))
    result = np.empty(left_rows.size, dtype=np.float32)
    for start in range(0, left_rows.size, _BLOCK):
        a, b = left_rows[start : start + _BLOCK], right_rows[start : start + _BLOCK]
        shared = np.bitwise_count(bits_left[a] & bits_right[b]).sum(axis=1, dtype=np.int64)
        union = size_left[a] + size_right[b] - shared
        with np.errstate(invalid="ignore"):
            result[start : start + _BLOCK] = shared / union
    return result


def _bit_rows(sets: pl.Series, classes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return (n_sets, ceil(n_classes / 64)) uint64, bit ``c % 64`` of word ``c // 64`` set for the c-th class."""
    bits = np.zeros((len(sets), max(1, -(-classes.size // 64))), dtype=np.uint64)
    members = sets.rename("object").to_frame().with_row_index("row").explode("object").drop_nulls()
    index = np.searchsorted(classes, members["object"].to_numpy())
    np.bitwise_or.at(bits, (members["row"].to_numpy(), index // 64), np.uint64(1) << (index % 64).astype(np.uint64))
    return bits


def measure_mining(
    truth_pairs: pl.DataFrame,
    judge_scores: pl.DataFrame,
    pool: pl.DataFrame,
    negatives: pl.DataFrame,
    selection: pl.DataFrame,
    queries: pl.DataFrame,
) -> dict[str, float]:
    """Measure judge, filter and sampling against the truth.

    "True" below is ``relevance == 1``, "dropped" is ``score > threshold`` of the pair's query, "kept" is judged, not
    dropped, and of a query that kept any. Pairs without known relevance count in ``truth_missing_pairs`` only.

    ======================================  =========================================================================
    metric                                  definition
    ======================================  =========================================================================
    truth_pairs, truth_missing_pairs        distinct pairs (judged or in the pool) with known and unknown relevance
    judge_auc                               ROC AUC of the score, true against not, all judged pairs with positives
    judge_auc_pool                          the same over pool members only
    judge_auc/<meta_task>                   as judge_auc, within the queries of one meta-task
    judge_spearman                          rank correlation of score and relevance, all judged pairs
    ece                                     expected calibration error of the score (15 bins), all judged pairs
    score_share_between_05_95               share of the judged pairs with .05 < score < .95
    false_negatives_in_pool                 true pool members, their number; ``..._share``: of the pool
    filter_precision                        of the dropped pool members, the share that is true
    filter_recall                           of the true, judged pool members, the share that is dropped
    false_negatives_kept_share              of the pool members kept by the filter, the share that is true
    false_negatives_chosen                  true negatives with origin ``sampled``, their number; ``..._share``: of all
                                            with that origin
    hardness_pool, hardness_chosen          mean relevance of the true negatives (relevance < 1) in the pool, and of
                                            those with origin ``sampled``
    filter_precision/<meta_task>,           as above, within the queries of one meta-task
    filter_recall/<meta_task>,
    false_negatives_in_pool_share/<...>,
    false_negatives_kept_share/<...>,
    false_negatives_chosen_share/<...>
    ======================================  =========================================================================

    Args:
        truth_pairs: query_id, item_id, relevance (see :func:`relevance_of_pairs`).
        judge_scores: Table ``judge_scores``.
        pool: Table ``pool``.
        negatives: Table ``negatives``.
        selection: Table ``selection``.
        queries: Table ``queries``.

    Returns:
        Metric -> value. A metric that is undefined (an AUC of one class, a share of nothing) is left out.
    """
    truth = truth_pairs.select(*_PAIR, "relevance").drop_nulls("relevance").unique()
    tasks = queries.select("query_id", "meta_task")
    scores = judge_scores.with_columns(pl.col("score").fill_nan(None))
    members = (
        pool.select(_PAIR)
        .join(scores.filter(~pl.col("is_positive")).select(*_PAIR, "score"), on=_PAIR, how="left")
        .join(selection.select("query_id", "threshold", "kept"), on="query_id", how="left")
        .join(truth, on=_PAIR)
        .join(tasks, on="query_id", how="left")
        .sort(_PAIR)  # floating-point sums in one order, whatever the order of the inputs
        .with_columns(
            true=pl.col("relevance") == 1, dropped=(pl.col("score") > pl.col("threshold")).fill_null(value=False)
        )
    )
    judged = (
        scores.drop_nulls("score")
        .select(*_PAIR, "score", "is_positive")
        .join(truth, on=_PAIR)
        .join(tasks, on="query_id")
        .sort(_PAIR)
        .with_columns(true=pl.col("relevance") == 1)
    )
    chosen = (
        negatives.filter(pl.col("origin") == "sampled")
        .join(truth, on=_PAIR)
        .join(tasks, on="query_id", how="left")
        .sort(_PAIR)
    )
    seen = distinct_pairs(judge_scores, pool)
    known = seen.join(truth, on=_PAIR, how="semi").height
    metrics: dict[str, float] = {"truth_pairs": known, "truth_missing_pairs": seen.height - known}
    metrics |= _judge_metrics(judged) | _filter_metrics(members) | _chosen_metrics(chosen)
    metrics |= _by_task(members, _filter_shares) | _by_task(chosen, _chosen_share)
    return {name: value for name, value in metrics.items() if value == value}  # NaN is not equal to itself


def _by_task(rows: pl.DataFrame, measure: Callable[[pl.DataFrame], dict[str, float]]) -> dict[str, float]:
    """Measure the rows of each meta-task alone; the names of the metrics end in ``/<meta_task>``."""
    parts = rows.drop_nulls("meta_task").partition_by("meta_task", as_dict=True)
    return {f"{name}/{task}": value for (task,), part in sorted(parts.items()) for name, value in measure(part).items()}


def _judge_metrics(judged: pl.DataFrame) -> dict[str, float]:
    """Measure the scores of judged pairs."""
    return {
        "judge_auc": _auc(judged),
        "judge_auc_pool": _auc(judged.filter(~pl.col("is_positive"))),
        **_by_task(judged, lambda part: {"judge_auc": _auc(part)}),
        "judge_spearman": spearman(judged["score"].to_numpy(), judged["relevance"].to_numpy()),
        "ece": expected_calibration_error(judged["score"].to_numpy(), judged["true"].to_numpy()),
        "score_share_between_05_95": _mean((judged["score"] > 0.05) & (judged["score"] < 0.95)),
    }


def _filter_metrics(members: pl.DataFrame) -> dict[str, float]:
    """Measure the false-negative filter on pool members."""
    return {
        "false_negatives_in_pool": int(members["true"].sum()),
        **_filter_shares(members),
        "hardness_pool": _mean(members.filter(~pl.col("true"))["relevance"]),
    }


def _filter_shares(members: pl.DataFrame) -> dict[str, float]:
    judged = members.drop_nulls("score")
    detection = precision_recall(judged["dropped"].to_numpy(), judged["true"].to_numpy())
    kept = judged.filter(~pl.col("dropped") & (pl.col("kept") > 0))
    return {
        "false_negatives_in_pool_share": _mean(members["true"]),
        "filter_precision": detection.precision,
        "filter_recall": detection.recall,
        "false_negatives_kept_share": _mean(kept["true"]),
    }


def _chosen_metrics(chosen: pl.DataFrame) -> dict[str, float]:
    """Measure the sampled negatives."""
    return {
        "false_negatives_chosen": int((chosen["relevance"] == 1).sum()),
        **_chosen_share(chosen),
        "hardness_chosen": _mean(chosen.filter(pl.col("relevance") < 1)["relevance"]),
    }


def _chosen_share(chosen: pl.DataFrame) -> dict[str, float]:
    return {"false_negatives_chosen_share": _mean(chosen["relevance"] == 1)}


def _auc(judged: pl.DataFrame) -> float:
    return roc_auc(judged["score"].to_numpy(), judged["true"].to_numpy())


def _mean(values: pl.Series) -> float:
    """Return the mean in float64, NaN for no values."""
    return float(values.cast(pl.Float64).to_numpy().mean()) if len(values) else float("nan")
