"""What each stage of a run would compute, from its parameters and the corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from unime_kedro.planning.interval import Interval
from unime_kedro.planning.lengths import AROUND, Lengths, count_lengths
from unime_kedro.planning.strategy import strategy_share
from unime_kedro.planning.work import (
    Passes,
    Work,
    contents_work,
    embedding_work,
    judging_work,
    spanning,
    training_passes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from unime_kedro.parameters import RerankParameters, TrainParameters
    from unime_kedro.planning.corpus import Corpus
    from unime_kedro.planning.models import PlannedModel
    from unime_kedro.planning.settings import Settings

#: tokens of the listwise instruction and its numbers (method section 4)
_LISTWISE = 90


def stage_work(stage: str, settings: Settings, corpus: Corpus, model_of: Callable[[str, Any], PlannedModel]) -> Work:
    """Return what a stage computes.

    Args:
        stage: ``embed``, ``judge``, ``train``, ``rerank`` or ``evaluate``.
        settings: Its parameters.
        corpus: What it works on.
        model_of: Section of the parameters and its values -> the model, read once.
    """
    return _STAGES[stage](settings, corpus, model_of)


def _embed(settings: Settings, corpus: Corpus, model_of: Callable[[str, Any], PlannedModel]) -> Work:
    pool = settings.section("pool")
    model = model_of("pool", pool)
    done = _embedded(settings.place("embedding_folder"), model)
    left = Interval(*(max(0.0, end - done) for end in corpus.items.as_dict().values()))
    work = spanning([embedding_work(one, model.cost, left, pool.model) for one in count_lengths(model, corpus)])
    work.notes.extend([f"{done:,} contents are embedded already"] if done else [])
    return work


def _embedded(folder: Path, model: PlannedModel) -> int:
    """Return how many contents this model has embedded into the folder; all of another corpus count, too."""
    fingerprint = None if model.adapter is None else model.adapter.fingerprint
    for name, key in (("embeddings.json", "rows"), ("embeddings.partial.json", "done")):
        try:
            card = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if fingerprint and card.get("identity", card).get("model") == fingerprint:
            return int(card[key])
    return 0


def _judge(settings: Settings, corpus: Corpus, model_of: Callable[[str, Any], PlannedModel]) -> Work:
    judge, k = settings.section("judge"), settings.section("pool").k
    model = model_of("judge", judge)
    pairs = corpus.queries * (k + 1)
    left, note = pairs, "all pairs of queries and pool members, and the positives; equal pairs are judged once"
    if corpus.pool:
        left, note = pairs_left(settings, model)
    asked, said = strategy_share(judge.strategy, settings.section("pool").k, settings.section("select").negatives)
    amount = Interval.exactly(left) * asked
    share = amount.middle / pairs if pairs else 0.0
    # what is left are whole queries for the most part, so their pictures shrink with them
    pictures = corpus.pictures * min(1.0, share)
    found = [
        judging_work(one, model.cost, amount, pictures, judge.model, share_prefix=judge.share_prefix)
        for one in count_lengths(model, corpus, judged=True)
    ]
    work = spanning(found)
    work.notes.extend([note, *said])
    return work


def pairs_left(settings: Settings, model: PlannedModel) -> tuple[int, str]:
    """Count the distinct pairs of contents that the store has no score for.

    Args:
        settings: Where items, queries, pool and store are.
        model: The judge.

    Returns:
        How many, and a sentence.
    """
    from unime_kedro.mining.judging import missing_pairs

    items, queries, pool = (pl.read_parquet(settings.place(name)) for name in ("items", "queries", "pool"))
    folder = _store_folder(settings, model)
    known = None if folder is None else _known(folder)
    missing = missing_pairs(queries, items, pool, known)
    left = int(missing["item_id"].list.len().sum()) if len(missing) else 0
    have = 0 if known is None else len(known.filter(pl.col("error") == ""))
    return left, f"distinct pairs of this pool; the store has {have:,} scores of this judge"


def _store_folder(settings: Settings, model: PlannedModel) -> Path | None:
    """Return the folder of the judge store that this judge's scores would be in, None if it is not there."""
    from unime_kedro.errors import ModelError
    from unime_kedro.mining.store import judge_key
    from unime_kedro.mllm.judge import PrefixJudge

    judge, root = settings.section("judge"), settings.place("judge_store")
    if model.adapter is None or not root.is_dir():
        return None
    try:
        identity = PrefixJudge(model.adapter, batch_size=1, max_tokens=judge.max_tokens).identity()
    except ModelError:
        return None
    # a cluster's workers share the store of what they run; vLLM has one of its own
    if "vllm" in (judge.backend, judge.ray.worker if judge.backend == "ray" else ""):
        identity["engine"] = "vllm"
    folder = root / judge_key(identity)
    return folder if folder.is_dir() else None


def _known(folder: Path) -> pl.DataFrame:
    from unime_kedro.mining.store import JudgeStore

    return JudgeStore(folder.parent, json.loads((folder / "judge.json").read_text(encoding="utf-8"))).read()


def _train(settings: Settings, corpus: Corpus, model_of: Callable[[str, Any], PlannedModel]) -> Work:
    train: TrainParameters = settings.section("train")
    model = model_of("train", train)
    negatives = 0 if train.loss.kind == "in_batch" else train.negatives
    passes = training_passes(lora=train.tuning == "lora", freeze_vision=train.freeze_vision, cached=True)
    reads = train.steps * train.batch * (2 + negatives)
    rounds = 1 + (train.steps // train.validation.every if train.validation.every else 1)
    validated = rounds * train.validation.queries * (1 + train.validation.candidates)
    amount = Interval.exactly(reads + validated / passes.language)

    def work(lengths: Lengths) -> Work:
        rows = np.concatenate([lengths.query[:, None], lengths.candidates[:, : 1 + negatives]], axis=1).reshape(-1, 2)
        return contents_work("train", rows, model.cost, amount, train.model, passes)

    found = spanning([work(one) for one in count_lengths(model, corpus)])
    found.notes.append(
        f"{train.steps:,} steps of {train.batch:,} queries; contents that a batch has twice are read once, which is "
        "not counted on; validation included"
    )
    return found


def _rerank(settings: Settings, corpus: Corpus, model_of: Callable[[str, Any], PlannedModel]) -> Work:
    rerank: RerankParameters = settings.section("rerank")
    model = model_of("rerank", rerank)
    passes = training_passes(lora=rerank.tuning == "lora", freeze_vision=rerank.freeze_vision, cached=False)
    queries = rerank.steps * rerank.batch
    listed = 1 + (rerank.fewest_negatives + rerank.negatives) / 2

    def work(lengths: Lengths) -> Work:
        query, candidate = lengths.query, lengths.candidates.mean(axis=1)
        pair = query + candidate + np.array([sum(AROUND), 0])
        messages = [pair, pair]
        if rerank.listwise_weight:
            messages.append(query + listed * candidate + np.array([_LISTWISE, 0]))
        rows = np.stack(messages, axis=1).reshape(-1, 2)
        return contents_work(
            "rerank", rows, model.cost, Interval.exactly(queries * len(messages)), rerank.model, passes
        )

    found = spanning([work(one) for one in count_lengths(model, corpus)])
    found.notes.append(f"{rerank.steps:,} steps of {rerank.batch:,} queries, two or three messages each")
    return found


def _evaluate(settings: Settings, corpus: Corpus, model_of: Callable[[str, Any], PlannedModel]) -> Work:
    from unime_kedro.planning.benchmarks import benchmark_contents

    evaluate = settings.section("evaluate")
    named = {name: one for name, one in evaluate.models.items() if one is not None}
    embedders = {one.model for one in named.values()}
    start = next(iter(named.values()))
    parameters = evaluate.model_copy(update={"model": start.model, "revision": start.revision})
    model = model_of("evaluate", parameters)
    contents, queries, notes = benchmark_contents(evaluate.benchmarks)
    lists = queries * sum(1 for one in named.values() if one.reranker is not None)
    # a list is about as long as its candidates; the reranker is taken to be as large as the embedder
    amount = contents * len(embedders) + lists * (1 + evaluate.reranking.top)
    found = spanning(
        [
            contents_work("evaluate", one.singles, model.cost, amount, start.model, Passes(1, 1))
            for one in count_lengths(model, corpus)
        ]
    )
    found.notes.extend(
        [*notes, f"{len(named)} models, all taken to be as large as the first; contents as long as the corpus's"]
    )
    return found


_STAGES = {"embed": _embed, "judge": _judge, "train": _train, "rerank": _rerank, "evaluate": _evaluate}
