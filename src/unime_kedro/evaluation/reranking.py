"""Put an embedder's first candidates to a reranker, and see what that makes of the predictions."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import polars as pl

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.mining.images import ProgressFactory
from unime_kedro.mllm.content import Content

if TYPE_CHECKING:
    from unime_kedro.mllm.reranker import Decoding, Reranker

log = logging.getLogger(__name__)

Method = Literal["listwise", "pairwise"]

#: queries put to the reranker at a time: their pictures' features are in memory together
_CHUNK = 256
_KEY = ["dataset", "query_id"]


class _Asked(NamedTuple):
    """What is put to the reranker.

    Attributes:
        rows: The top's rows in order, with ``prompt`` (null for a query that is not asked).
        prompts: prompt UInt32 (dense from 0), query UInt32 and candidates List[UInt32] (rows of ``contents``).
        contents: Distinct text and image.
        nan: Queries with a similarity that is not a number.
    """

    rows: pl.DataFrame
    prompts: pl.DataFrame
    contents: pl.DataFrame
    nan: int


class _Prompt(NamedTuple):
    """Rows of the contents that are shown; ``places``: where in the embedder's order each candidate stands."""

    query: int
    candidates: list[int]
    places: list[int]


class _Answer(NamedTuple):
    """A chosen place in the embedder's order, or the scores in that order, or why there is neither."""

    chosen: int | None
    scores: list[float] | None
    error: str


def rerank_top(
    top: pl.DataFrame,
    queries: pl.DataFrame,
    contents: pl.DataFrame,
    reranker: Reranker,
    image_root: str | Path,
    *,
    method: Method,
    decoding: Decoding = "constrained",
    shuffle_seed: int | None = None,
    progress: ProgressFactory | None = None,
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Reorder every query's first candidates (UniME-V2, section on the reranker).

    *Listwise*: the candidates stand in the prompt in the embedder's order, as in the paper, and the answered one moves
    to the front; the others keep their order. A model may prefer some numbers whatever they stand for: ``shuffle_seed``
    shows how much of the result is that. *Pairwise*: the candidates are ordered by their scores, equal scores as the
    embedder has them.

    The embedder's order stays where it cannot be improved on: an answer that names no candidate, a query that the
    model failed on, one with a single candidate, and one with a similarity that is not a number (it counts as wrong
    whatever a reranker says). Queries with the same content and the same candidates are asked once.

    Args:
        top: :data:`.scoring.TOP_SCHEMA`, of all data sets of a benchmark, in any row order.
        queries: dataset, query_id, content_id.
        contents: dataset, content_id, text, image (path under ``image_root``, "" or null for none).
        reranker: The model.
        image_root: Folder that image paths are relative to.
        method: ``listwise`` or ``pairwise``.
        decoding: Of listwise answers, see :meth:`.Reranker.choose`.
        shuffle_seed: Shuffles the candidates of listwise prompts, each by its contents alone; None for the embedder's
            order.
        progress: ``unime_kedro.progress.progress`` or alike.

    Returns:
        ``top``, sorted by dataset, query_id and position, with reranked_position (Int32, 0 = first), and after
        pairwise reranking score (Float64, null for queries that were not asked or failed). And counts: queries,
        prompts (asked, each once), single (queries with one candidate), nan (queries), unparsable (queries), failed
        (queries), moved (queries with another first candidate), truncated (contents that lost words), seconds.

    Raises:
        ConfigurationError: If the method is not known.
        DataError: If a query or content is not known, or a query's positions are not 0, 1, 2, ...
    """
    if method not in ("listwise", "pairwise"):
        raise ConfigurationError(f"reranking method '{method}' is not known; expected listwise or pairwise.")
    start, cut = time.perf_counter(), reranker.truncated
    asked = _asked(top, queries, contents)
    prompts = _prompts(asked, shuffle_seed if method == "listwise" else None)
    shown = [
        Content(text, Path(image_root) / image if image else None)
        for text, image in asked.contents.select("text", "image").iter_rows()
    ]
    reranker.expect([shown[i] for one in prompts for i in (one.query, *one.candidates)])
    answers: list[_Answer] = []
    with progress("reranking", len(prompts), "queries") if progress else nullcontext() as bar:
        for at in range(0, len(prompts), _CHUNK):
            part = prompts[at : at + _CHUNK]
            listwise = method == "listwise"
            answers += _choices(reranker, shown, part, decoding) if listwise else _scores(reranker, shown, part)
            if bar is not None:
                bar.advance(len(part))
    rows = _reordered(asked, answers)
    counts = _counts(asked, rows, method) | {"truncated": reranker.truncated - cut}
    _warn(counts, rows)
    table = rows.select(*top.columns, "reranked_position", *(["score"] if method == "pairwise" else []))
    return table, counts | {"seconds": round(time.perf_counter() - start, 3)}


def predictions_after(predictions: pl.DataFrame, reranked: pl.DataFrame) -> pl.DataFrame:
    """Return the predictions of an embedder as they are behind a reranker.

    Args:
        predictions: :data:`.scoring.PREDICTIONS_SCHEMA`, of the embedder.
        reranked: From :func:`rerank_top`.

    Returns:
        The predictions, in their order. Of queries whose candidates were reordered, ``predicted_index`` is the new
        first candidate, ``correct`` whether it is a right one, and ``rank`` the new place of the best right one (from
        1; as it was, if that is not among the reordered ones). Similarities stay the embedder's, and so does the whole
        of a query of which a similarity is not a number. An embedder's ties are wrong candidates first in ``reranked``,
        so that what keeps its order gains nothing by them.

    Raises:
        DataError: If a reranked query has no prediction.
    """
    place, first = pl.col("reranked_position"), pl.col("reranked_position") == 0
    found = reranked.group_by(_KEY).agg(
        first_index=pl.col("candidate_index").filter(first).first(),
        first_right=pl.col("right").filter(first).first(),
        new_rank=place.filter(pl.col("right")).min().cast(pl.Int64) + 1,
        reordered=(place != pl.col("position")).any(),
    )
    if len(unknown := found.join(predictions, on=_KEY, how="anti")):
        name, query = unknown.sort(_KEY).row(0)[:2]
        raise DataError(f"{name}, query_id {query}: it was reranked, but there is no prediction of it.")
    table = predictions.join(found, on=_KEY, how="left", maintain_order="left")
    changed = pl.col("reordered").fill_null(False) & pl.col("target_similarity").is_not_nan()
    return table.with_columns(
        predicted_index=pl.when(changed).then("first_index").otherwise("predicted_index"),
        correct=pl.when(changed).then("first_right").otherwise("correct"),
        rank=pl.when(changed).then(pl.coalesce("new_rank", "rank")).otherwise("rank"),
    ).select(predictions.columns)


def _asked(top: pl.DataFrame, queries: pl.DataFrame, contents: pl.DataFrame) -> _Asked:
    """Find out which distinct prompts have to be put to the model."""
    contents = contents.with_columns(pl.col("text", "image").fill_null(""))
    distinct = contents.select("text", "image").unique().sort("image", "text").with_row_index("content")
    known = contents.join(distinct, on=["text", "image"]).select("dataset", "content_id", "content")
    rows = _with_content(top.sort(*_KEY, "position"), known, "candidate")
    if len(gap := rows.filter(pl.col("position") != pl.int_range(pl.len()).over(_KEY))):
        name, query, position = gap.select(*_KEY, "position").row(0)
        raise DataError(
            f"{name}, query_id {query}: position {position} does not follow the one before it; expected 0, 1, 2, ..., "
            "each once."
        )
    lists = rows.group_by(_KEY, maintain_order=True).agg(
        candidates=pl.col("content"), nan=pl.col("similarity").is_nan().any()
    )
    known_queries = queries.join(lists, on=_KEY, how="semi")
    lists = lists.join(
        _with_content(known_queries, known, "query").select(*_KEY, query="content"),
        on=_KEY,
        how="left",
        maintain_order="left",
    )
    if len(lost := lists.filter(pl.col("query").is_null())):
        raise DataError(f"{lost['dataset'][0]}, query_id {lost['query_id'][0]}: it is not among the queries.")
    wanted = lists.filter(pl.col("candidates").list.len() > 1, ~pl.col("nan"))
    prompts = wanted.select("query", "candidates").unique(maintain_order=True).with_row_index("prompt")
    places = wanted.join(prompts, on=["query", "candidates"], maintain_order="left").select(*_KEY, "prompt")
    rows = rows.join(places, on=_KEY, how="left", maintain_order="left")
    return _Asked(rows, prompts, distinct, int(lists["nan"].sum()))


def _with_content(table: pl.DataFrame, known: pl.DataFrame, role: str) -> pl.DataFrame:
    """Add the number of the distinct content to a table with dataset and content_id."""
    found = table.join(known, on=["dataset", "content_id"], how="left", maintain_order="left")
    if len(lost := found.filter(pl.col("content").is_null())):
        name, query, content = lost.select(*_KEY, "content_id").row(0)
        raise DataError(f"{name}, query_id {query}: content_id {content} of a {role} is not among the contents.")
    return found


def _prompts(asked: _Asked, shuffle_seed: int | None) -> list[_Prompt]:
    """Return what is shown, in this order."""
    words = asked.contents.rows()
    prompts = []
    for query, candidates in asked.prompts.select("query", "candidates").iter_rows():
        places = list(range(len(candidates)))
        if shuffle_seed is not None:
            places = _permutation(shuffle_seed, [words[i][1:] for i in (query, *candidates)])
        prompts.append(_Prompt(query, [candidates[i] for i in places], places))
    return prompts


def _permutation(seed: int, words: Sequence[tuple[str, ...]]) -> list[int]:
    """Return a random order of the candidates of a prompt that depends on its contents and the seed alone."""
    digest = hashlib.blake2b(json.dumps(words).encode(), digest_size=8).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest, "big")])
    return rng.permutation(len(words) - 1).tolist()


def _choices(
    reranker: Reranker, contents: Sequence[Content], prompts: Sequence[_Prompt], decoding: Decoding
) -> list[_Answer]:
    shown = [(contents[one.query], [contents[i] for i in one.candidates]) for one in prompts]
    return [
        _Answer(None if choice.number is None else one.places[choice.number - 1], None, choice.error)
        for one, choice in zip(prompts, reranker.choose(shown, decoding), strict=True)
    ]


def _scores(reranker: Reranker, contents: Sequence[Content], prompts: Sequence[_Prompt]) -> list[_Answer]:
    answers = []
    for one in prompts:
        scores = reranker.scores(contents[one.query], [contents[i] for i in one.candidates])
        bad = not np.isfinite(scores).all()
        answers.append(_Answer(None, None if bad else scores.tolist(), "a score is not a number" if bad else ""))
    return answers


def _reordered(asked: _Asked, answers: Sequence[_Answer]) -> pl.DataFrame:
    """Add answers and reranked_position to the top's rows."""
    table = pl.DataFrame(
        answers, schema={"chosen": pl.Int32, "scores": pl.List(pl.Float64), "error": pl.String}, orient="row"
    ).with_row_index("prompt")
    rows = asked.rows.join(table, on="prompt", how="left").with_columns(
        score=pl.col("scores").list.get("position", null_on_oob=True)
    )
    # the chosen one before all others; else by score; else, and between equals, as it was
    chosen_last = (pl.col("position") != pl.col("chosen")).fill_null(True)
    order = [*_KEY, chosen_last, -pl.col("score").fill_null(0.0), "position"]
    rows = rows.sort(order).with_columns(reranked_position=pl.int_range(pl.len(), dtype=pl.Int32).over(_KEY))
    return rows.sort(*_KEY, "position").drop("scores")


def _counts(asked: _Asked, rows: pl.DataFrame, method: Method) -> dict[str, float]:
    """Count queries by what became of them."""
    each = rows.group_by(_KEY).agg(
        pl.col("prompt", "chosen", "error").first(),
        single=(pl.len() == 1) & pl.col("similarity").is_not_nan().all(),
        moved=((pl.col("reranked_position") == 0) & (pl.col("position") > 0)).any(),
    )
    answered = pl.col("error") == ""
    counted = each.select(
        queries=pl.len(),
        single=pl.col("single").sum(),
        unparsable=(answered & pl.col("chosen").is_null()).sum() if method == "listwise" else 0,
        failed=(pl.col("error") != "").sum(),
        moved=pl.col("moved").sum(),
    )
    return {"prompts": len(asked.prompts), "nan": asked.nan, **counted.row(0, named=True)}


def _warn(counts: dict[str, float], rows: pl.DataFrame) -> None:
    if counts["unparsable"]:
        log.warning(
            "%s of %s answers name no candidate; the embedder's order stays there",
            *(f"{counts[key]:,}" for key in ("unparsable", "queries")),
        )
    if counts["failed"]:
        first = rows.filter(pl.col("error") != "").row(0, named=True)
        log.warning(
            "the reranker failed on %s queries, the embedder's order stays there; the first is query_id %d of %s: %s",
            *(f"{counts['failed']:,}", first["query_id"], first["dataset"], first["error"]),
        )
