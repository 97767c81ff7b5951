"""Rows of other trainers, made of :class:`unime_kedro.exchange.rows.MinedRows` without a loop over rows.

The formats are those that the trainers' own loaders read (versions in docs/exports.md, where each was tried):

- sentence-transformers 6: a column per candidate (``anchor``, ``positive``, ``negative_1`` ..) and ``label``, the
  teacher's scores of the candidates, as DistillKLDivLoss and MarginMSELoss want them;
- ms-swift 4: ``messages``, ``positive_messages``, ``negative_messages`` with a list of pictures beside each;
- Tevatron 2: training rows that name documents, and the documents in a file of their own; Tevatron 0.1 (pip) and all
  others that read text alone: ``positive_passages`` and ``negative_passages``;
- FlagEmbedding 1: ``query``, ``pos``, ``neg`` and the scores of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from unime_kedro.exchange.rows import MinedRows

#: where the picture goes, in our texts
PLACEHOLDER = "<|image_1|>"
#: what ms-swift takes for a picture, a video, a sound
SWIFT_TAG = "<image>"
_SWIFT_TAGS = "<(image|video|audio)>"
NEEDS_WORDS = "a picture: this format has words alone"
HAS_TAG = "words with a tag that ms-swift takes for a file (<image>, <video>, <audio>)"


@dataclass(frozen=True)
class Exported:
    """Files of an export.

    Attributes:
        tables: File name, "" for the file that was asked for itself, -> its rows, in order.
        left_out: Reason -> number of queries that are not in it.
        pictures: Columns that hold paths of pictures where the file format has a type for it (parquet).
    """

    tables: dict[str, pl.DataFrame]
    left_out: dict[str, int]
    pictures: list[str] = field(default_factory=list)


def sentence_transformers(rows: MinedRows) -> Exported:
    """Return n-tuples: anchor, positive, negative_1 .. negative_n, label (n + 1 scores, the positive's first).

    All rows have as many negatives as the shortest. A side of which no row has a picture is plain words; one with
    pictures is ``{"text", "image"}``, with null for what a content does not have.
    """
    frame = rows.frame
    width = min(frame["negative_ids"].list.len().to_list(), default=0)
    query_kind = _has_pictures(frame, "query_image")
    candidate_kind = _has_pictures(frame, "positive_image") or _has_pictures(frame, "negative_images")
    columns = {
        "anchor": _content(pl.col("query_text"), pl.col("query_image"), query_kind),
        "positive": _content(pl.col("positive_text"), pl.col("positive_image"), candidate_kind),
    }
    for i in range(width):
        text, image = (pl.col(name).list.get(i) for name in ("negative_texts", "negative_images"))
        columns[f"negative_{i + 1}"] = _content(text, image, candidate_kind)
    scores = pl.concat_list("positive_score", pl.col("negative_scores").list.head(width))
    pictures = ["anchor"] * query_kind + [name for name in columns if name != "anchor"] * candidate_kind
    return Exported({"": frame.select(**columns, label=scores)}, rows.left_out, pictures)


def _has_pictures(frame: pl.DataFrame, column: str) -> bool:
    values = frame[column]
    if values.dtype == pl.List:
        values = values.explode()
    return bool((values != "").any())


def _content(text: pl.Expr, image: pl.Expr, with_picture: bool) -> pl.Expr:
    if not with_picture:
        return text
    # the storage of datasets' Image feature: a file's bytes, or its path
    file = pl.struct(bytes=pl.lit(None, dtype=pl.Binary), path=image)
    return pl.struct(text=_or_null(text), image=pl.when(image != "").then(file))


def _or_null(column: pl.Expr) -> pl.Expr:
    return pl.when(column == "").then(None).otherwise(column)


def ms_swift(rows: MinedRows) -> Exported:
    """Return rows for ms-swift's embedding task (InfoNCE)."""
    return _swift(rows, "user")


def ms_swift_reranker(rows: MinedRows) -> Exported:
    """Return rows for ms-swift's reranker tasks: candidates are answers, which it appends to the query."""
    return _swift(rows, "assistant")


def _swift(rows: MinedRows, role: str) -> Exported:
    texts = pl.concat_list("query_text", "positive_text", "negative_texts")
    tagged = texts.list.eval(pl.element().str.contains(_SWIFT_TAGS)).list.any()
    rows = rows.only(~tagged, HAS_TAG)

    def message(text: pl.Expr, image: pl.Expr, role: str) -> pl.Expr:
        words = pl.when(image == "").then(text.str.replace_all(PLACEHOLDER, "", literal=True)).otherwise(
            pl.when(text.str.contains(PLACEHOLDER, literal=True))
            .then(text.str.replace(PLACEHOLDER, SWIFT_TAG, literal=True))
            .otherwise(pl.lit(SWIFT_TAG) + text)
        )  # fmt: skip
        return pl.struct(role=pl.lit(role), content=words)

    pairs = rows.frame.select(
        "query_id", pair=pl.struct(text="negative_texts", image="negative_images"), n=pl.col("negative_ids").list.len()
    )
    negatives = (
        pairs.unnest("pair")
        .explode("text", "image")
        .group_by("query_id", maintain_order=True)
        .agg(
            negative_messages=pl.concat_list(message(pl.col("text"), pl.col("image"), role)),
            negative_images=_pictures(pl.col("image")),
        )
    )
    table = (
        rows.frame.drop("negative_images")
        .join(negatives, on="query_id", how="left", maintain_order="left")
        .select(
            messages=pl.concat_list(message(pl.col("query_text"), pl.col("query_image"), "user")),
            images=_pictures(pl.col("query_image")),
            positive_messages=pl.concat_list(message(pl.col("positive_text"), pl.col("positive_image"), role))
            .implode()
            .over("query_id"),
            positive_images=_pictures(pl.col("positive_image")).implode().over("query_id"),
            negative_messages="negative_messages",
            negative_images="negative_images",
        )
    )
    return Exported({"": table}, rows.left_out)


def _pictures(image: pl.Expr) -> pl.Expr:
    """Return a list with the picture, or an empty one."""
    return pl.when(image == "").then(pl.lit([], dtype=pl.List(pl.String))).otherwise(pl.concat_list(image))


def tevatron(rows: MinedRows) -> Exported:
    """Return training rows that name documents, and the documents: ``train.jsonl`` and ``corpus.jsonl``."""
    frame = rows.frame
    train = frame.select(
        pl.col("query_id").cast(pl.String),
        query_text=_words(pl.col("query_text")),
        query_image=_or_null(pl.col("query_image")),
        positive_document_ids=pl.concat_list(pl.col("positive_id").cast(pl.String)),
        negative_document_ids=pl.col("negative_ids").cast(pl.List(pl.String)),
        positive_scores=pl.concat_list("positive_score"),
        negative_scores="negative_scores",
    )
    names = ("id", "text", "image")
    positives = frame.select(**{name: f"positive_{name}" for name in names})
    negatives = frame.select(
        id=pl.col("negative_ids").explode(),
        text=pl.col("negative_texts").explode(),
        image=pl.col("negative_images").explode(),
    )
    documents = pl.concat([positives, negatives]).unique("id").sort("id")
    corpus = documents.select(
        docid=pl.col("id").cast(pl.String), text=_words(pl.col("text")), image=_or_null(pl.col("image"))
    )
    return Exported({"train.jsonl": train, "corpus.jsonl": corpus}, rows.left_out)


def _words(text: pl.Expr) -> pl.Expr:
    """Return a text without the picture's place: Tevatron puts the picture behind the words of its message."""
    return text.str.replace(PLACEHOLDER, "", literal=True).str.strip_chars_start()


def tevatron_text(rows: MinedRows) -> Exported:
    """Return rows with their passages, words alone: what the Tevatron of the package index (0.1) reads, and 2 too."""
    rows = _words_alone(rows)
    passages = rows.frame.select(
        "query_id",
        passage=pl.struct(id="negative_ids", text="negative_texts"),
    )
    negatives = (
        passages.unnest("passage")
        .explode("id", "text")
        .select("query_id", passage=_passage("id", "text"))
        .group_by("query_id", maintain_order=True)
        .agg(negative_passages="passage")
    )
    table = rows.frame.join(negatives, on="query_id", how="left", maintain_order="left").select(
        pl.col("query_id").cast(pl.String),
        query="query_text",
        positive_passages=pl.concat_list(_passage("positive_id", "positive_text")),
        negative_passages="negative_passages",
    )
    return Exported({"": table}, rows.left_out)


def _passage(key: str, text: str) -> pl.Expr:
    return pl.struct(docid=pl.col(key).cast(pl.String), text=pl.col(text))


def flag_embedding(rows: MinedRows) -> Exported:
    """Return ``query``, ``pos``, ``neg``, ``pos_scores``, ``neg_scores``: words alone, with the teacher's scores."""
    rows = _words_alone(rows)
    table = rows.frame.select(
        query="query_text",
        pos=pl.concat_list("positive_text"),
        neg="negative_texts",
        pos_scores=pl.concat_list("positive_score"),
        neg_scores="negative_scores",
    )
    return Exported({"": table}, rows.left_out)


def _words_alone(rows: MinedRows) -> MinedRows:
    negatives = pl.col("negative_images").list.eval(pl.element() == "").list.all()
    return rows.only((pl.col("query_image") == "") & (pl.col("positive_image") == "") & negatives, NEEDS_WORDS)


#: name on the command line -> its rows, and what its files end in
FORMATS: dict[str, tuple[Callable[[MinedRows], Exported], str]] = {
    "sentence-transformers": (sentence_transformers, ".parquet"),
    "ms-swift": (ms_swift, ".jsonl"),
    "ms-swift-reranker": (ms_swift_reranker, ".jsonl"),
    "tevatron": (tevatron, ""),
    "tevatron-text": (tevatron_text, ".jsonl"),
    "flag-embedding": (flag_embedding, ".jsonl"),
}
